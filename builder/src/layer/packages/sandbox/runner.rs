//! Runs maintainer scripts as dpkg does: what is `installed` is so, triggers come at the end.
//! Must not know: mounts, namespaces; it sees a folder that is a root.
//! Spec: dpkg's `src/main/{script,configure,trigproc}.c` (1.22); Debian policy 6.5 to 6.7.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::spec::{Event, Job, Replaced, Spec, Trouble};
use super::stub;
use crate::layer::packages::units;

/// No maintainer script known takes over a minute, emulated on a busy machine.
const LONGEST: Duration = Duration::from_secs(900);
/// Bytes of output that an error shows.
const SHOWN: usize = 4000;
/// Bytes of output of one script that are kept at all.
const KEPT: u64 = 1 << 20;
const ADMIN: &str = "/var/lib/dpkg";

/// How far a package is, in dpkg's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Unpacked,
    HalfConfigured,
    Installed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Unpacked => "unpacked",
            State::HalfConfigured => "half-configured",
            State::Installed => "installed",
        }
    }
}

struct Runner {
    spec: Spec,
    root: PathBuf,
    log: PathBuf,
    states: Vec<State>,
    /// Triggers that wait, by job.
    pending: BTreeMap<usize, Vec<String>>,
    dpkg_version: String,
}

/// Runs every script of `spec` in `root`; `log` is a file to write their output to.
pub(super) fn run(spec: Spec, root: &Path, log: &Path) -> Result<(), Trouble> {
    let states = spec.jobs.iter().map(|job| if job.installed { State::Installed } else { State::Unpacked });
    let mut runner = Runner {
        states: states.collect(),
        root: root.into(),
        log: log.into(),
        pending: BTreeMap::new(),
        dpkg_version: dpkg_version(&spec),
        spec,
    };
    for trigger in std::mem::take(&mut runner.spec.activated) {
        runner.activate(&trigger);
    }
    runner.preinst_all()?;
    for at in 0..runner.spec.jobs.len() {
        if runner.states[at] == State::Unpacked {
            runner.configure(at)?;
        }
    }
    runner.triggers()?;
    runner.calls()?;
    runner.write_status()
}

/// Some scripts ask which dpkg runs them.
fn dpkg_version(spec: &Spec) -> String {
    let text = spec.status.iter().map(|(_, text)| text).find(|text| text.starts_with("Package: dpkg\n"));
    let line = text.and_then(|text| text.lines().find_map(|l| l.strip_prefix("Version: ")));
    line.unwrap_or("1.22").to_owned()
}

impl Runner {
    /// What dpkg runs before and after it unpacks: scripts of a version that goes, and the new `preinst`.
    fn preinst_all(&mut self) -> Result<(), Trouble> {
        self.write_status()?;
        for at in 0..self.spec.jobs.len() {
            let job = &self.spec.jobs[at];
            let (preinst, new, replaced) = (job.preinst, job.version.clone(), job.replaced.clone());
            let old = replaced.unwrap_or_default();
            if !(preinst || old.prerm.is_some() || old.postrm.is_some()) {
                continue;
            }
            let dir = self.admin("tmp.ci");
            self.lay_out(at, &dir, &old).map_err(Trouble::io("laying out a preinst"))?;
            if old.prerm.is_some() {
                self.script(at, &format!("{ADMIN}/tmp.ci/prerm"), "prerm", &["upgrade", &new])?;
            }
            if preinst {
                let upgrade = ["upgrade", old.version.as_str(), new.as_str()];
                let args = if old.version.is_empty() { &["install"][..] } else { &upgrade };
                self.script(at, &format!("{ADMIN}/tmp.ci/preinst"), "preinst", args)?;
            }
            if old.postrm.is_some() {
                self.script(at, &format!("{ADMIN}/tmp.ci/postrm"), "postrm", &["upgrade", &new])?;
            }
            fs::remove_dir_all(&dir).map_err(Trouble::io("clearing up after a preinst"))?;
            self.incorporate()?;
        }
        Ok(())
    }

    /// Where dpkg has the control files while it unpacks; debconf looks for them here.
    fn lay_out(&self, at: usize, dir: &Path, old: &Replaced) -> std::io::Result<()> {
        let job = &self.spec.jobs[at];
        fs::create_dir_all(dir)?;
        fs::write(dir.join("control"), &job.control)?;
        for kind in ["preinst", "postinst", "config", "templates", "conffiles"] {
            let from = self.admin(&format!("info/{}.{kind}", job.qualified));
            if from.exists() {
                fs::copy(from, dir.join(kind))?;
            }
        }
        for (name, script) in [("prerm", &old.prerm), ("postrm", &old.postrm)] {
            if let Some(script) = script {
                fs::write(dir.join(name), script)?;
                fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    fn configure(&mut self, at: usize) -> Result<(), Trouble> {
        if self.spec.jobs[at].postinst {
            self.states[at] = State::HalfConfigured;
            self.write_status()?;
            let program = format!("{ADMIN}/info/{}.postinst", self.spec.jobs[at].qualified);
            // dpkg gives the version configured before, which may be none.
            let before =
                self.spec.jobs[at].replaced.as_ref().map_or(String::new(), |old| old.version.clone());
            let hidden = self.spec.jobs[at].hidden.as_ref().map(|dir| self.root.join(dir));
            let aside = self.root.with_file_name("hidden");
            if let Some(dir) = &hidden {
                move_quietly(dir, dir, &aside).map_err(Trouble::io("hiding a folder"))?;
            }
            self.script(at, &program, "postinst", &["configure", &before])?;
            if let Some(dir) = &hidden {
                move_quietly(dir, &aside, dir).map_err(Trouble::io("showing a folder"))?;
            }
        }
        self.states[at] = State::Installed;
        self.incorporate()?;
        for trigger in std::mem::take(&mut self.spec.jobs[at].activates) {
            self.activate(&trigger);
        }
        Ok(())
    }

    /// Runs what waits, until nothing does. A script that activates its own trigger for ever would
    /// not end; dpkg gives up too.
    fn triggers(&mut self) -> Result<(), Trouble> {
        for _ in 0..1000 {
            let Some((at, triggers)) = self.pending.pop_first() else { return Ok(()) };
            if self.spec.jobs[at].postinst {
                self.write_status()?;
                let program = format!("{ADMIN}/info/{}.postinst", self.spec.jobs[at].qualified);
                self.script(at, &program, "postinst", &["triggered", &triggers.join(" ")])?;
                self.incorporate()?;
            }
        }
        Err(Trouble::io("running triggers")(std::io::Error::other("they activate each other for ever")))
    }

    /// Units that packages want enabled, all by one systemctl, as deb-systemd-helper does one by one;
    /// what else was noted is for the builder.
    fn calls(&mut self) -> Result<(), Trouble> {
        let path = self.root.join(&stub::CALLS[1..]);
        let calls = stub::calls(&fs::read(path).map_err(Trouble::io("reading the list of calls"))?);
        for (flag, user) in [("--system", false), ("--global", true)] {
            let mut units: Vec<&str> = Vec::new();
            for call in
                calls.iter().filter(|call| call.first().is_some_and(|name| name == "deb-systemd-helper"))
            {
                let (words, for_user) = units::words(call);
                if let ["enable", unit] = words[..]
                    && for_user == user
                    && !units.contains(&unit)
                {
                    units.push(unit);
                }
            }
            self.preset(flag, &units)?;
        }
        Event::Calls { calls }.say();
        Ok(())
    }

    fn preset(&self, flag: &str, units: &[&str]) -> Result<(), Trouble> {
        if units.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let run = |units: &[&str]| {
            let mut command = Command::new("/usr/bin/systemctl");
            command.env_clear().envs(&self.spec.environment);
            command.args(["--root=/", flag, "--preset-mode=enable-only", "preset"]).args(units);
            self.wait(command, "systemd")
        };
        if failure(run(units)?).is_some() {
            // One unit that cannot be enabled stops all; a script would have passed over it.
            for unit in units {
                run(&[unit])?;
            }
        }
        super::outer::took("enabling units", begun);
        Ok(())
    }

    /// A package hears of a trigger when it is configured; before that, its own configuration
    /// stands for it.
    fn activate(&mut self, trigger: &str) {
        for qualified in self.spec.interests.get(trigger).into_iter().flatten() {
            let Some(at) = self.spec.jobs.iter().position(|job| job.qualified == *qualified) else {
                continue;
            };
            let waiting = self.pending.get(&at).is_some_and(|list| list.iter().any(|t| t == trigger));
            if self.states[at] == State::Installed && !waiting {
                self.pending.entry(at).or_default().push(trigger.into());
            }
        }
    }

    /// Takes over what scripts left with dpkg-trigger: `NAME PACKAGE…` a line.
    fn incorporate(&mut self) -> Result<(), Trouble> {
        let path = self.admin("triggers/Unincorp");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Trouble::io("reading triggers")(e)),
        };
        fs::remove_file(&path).map_err(Trouble::io("taking over triggers"))?;
        for trigger in text.lines().filter_map(|line| line.split_whitespace().next()) {
            self.activate(trigger);
        }
        Ok(())
    }

    fn write_status(&self) -> Result<(), Trouble> {
        let mut out = String::new();
        for (job, text) in &self.spec.status {
            match job {
                Some(at) if self.states[*at] != State::Installed => {
                    let now = format!("\nStatus: install ok {}\n", self.states[*at].word());
                    out.push_str(&text.replacen("\nStatus: install ok installed\n", &now, 1));
                }
                _ => out.push_str(text),
            }
            out.push('\n');
        }
        fs::write(self.admin("status"), out).map_err(Trouble::io("writing dpkg's status"))
    }

    fn admin(&self, name: &str) -> PathBuf {
        self.root.join(&ADMIN[1..]).join(name)
    }

    fn script(&self, at: usize, program: &str, name: &str, args: &[&str]) -> Result<(), Trouble> {
        let job = &self.spec.jobs[at];
        let script = [&[name], args].concat().join(" ").trim_end().to_owned();
        Event::Begin { what: format!("{} {name}", job.name) }.say();
        let (begun, cpu) = (Instant::now(), self.cpu());
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&self.spec.environment).envs(self.about(job, name));
        let status = self.wait(command, &job.name)?;
        let output = self.output().map_err(Trouble::io("reading a script's output"))?;
        let package = job.name.clone();
        let Some(status) = failure(status) else {
            let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let cpu = self.cpu().saturating_sub(cpu);
            Event::Ran { package, script, millis, cpu, output }.say();
            return Ok(());
        };
        let from = output.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
        Err(Trouble(Event::Script { package, script, status, output: output[from..].to_owned() }))
    }

    /// What dpkg tells a script in its environment.
    fn about(&self, job: &Job, name: &str) -> [(&'static str, String); 8] {
        [
            ("DPKG_MAINTSCRIPT_PACKAGE", job.name.clone()),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1".into()),
            ("DPKG_MAINTSCRIPT_ARCH", job.architecture.clone()),
            ("DPKG_MAINTSCRIPT_NAME", name.into()),
            ("DPKG_MAINTSCRIPT_DEBUG", "0".into()),
            ("DPKG_RUNNING_VERSION", self.dpkg_version.clone()),
            ("DPKG_ADMINDIR", ADMIN.into()),
            ("DPKG_ROOT", String::new()),
        ]
    }

    /// Runs a command in the root and waits for it, but not for what it left behind.
    fn wait(&self, mut command: Command, package: &str) -> Result<Option<ExitStatus>, Trouble> {
        let doing = || format!("running a script of `{package}`");
        let log = File::create(&self.log).map_err(Trouble::io("writing the log"))?;
        let both = log.try_clone().map_err(Trouble::io("writing the log"))?;
        // This process's own root has no /dev/null.
        let null = File::open(self.root.join("dev/null")).map_err(Trouble::io(doing()))?;
        command.stdin(Stdio::from(null)).stdout(log).stderr(both);
        let root = self.root.clone();
        let enter = move || {
            rustix::process::chroot(&root)?;
            Ok(rustix::process::chdir("/")?)
        };
        // SAFETY: between fork and exec only two system calls are made, and this process has one
        // thread; `root` is a path without an inner zero byte, so it is copied to the stack.
        let mut child = unsafe { command.pre_exec(enter) }.spawn().map_err(Trouble::io(doing()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            let seconds = i64::try_from(LONGEST.as_secs()).unwrap_or(i64::MAX);
            let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let mut wanted = [PollFd::new(&handle, PollFlags::IN)];
            if poll(&mut wanted, Some(&limit)).map_err(Trouble::errno(doing()))? == 0 {
                // All that it started ends with this process, the first of its namespace.
                return Ok(None);
            }
        }
        child.wait().map(Some).map_err(Trouble::io(doing()))
    }

    /// Milliseconds of processor time of all that ran and ended: fields 16 and 17 of
    /// proc_pid_stat(5), in hundredths of a second on every Linux.
    fn cpu(&self) -> u64 {
        let text = fs::read_to_string(self.root.join("proc/self/stat")).unwrap_or_default();
        let fields = text.rsplit(')').next().unwrap_or_default();
        fields.split_whitespace().skip(13).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>() * 10
    }

    fn output(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(KEPT)))?;
        let mut bytes = Vec::new();
        file.take(KEPT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Renames, and leaves the time of the folder that holds `place` as it was.
fn move_quietly(place: &Path, from: &Path, to: &Path) -> std::io::Result<()> {
    let holder = File::open(place.parent().unwrap_or(place))?;
    let time = holder.metadata()?.modified()?;
    fs::rename(from, to)?;
    holder.set_modified(time)
}

/// How a script failed; none when it did not.
fn failure(status: Option<ExitStatus>) -> Option<String> {
    let Some(status) = status else {
        return Some(format!("did not end within {} minutes", LONGEST.as_secs() / 60));
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("ended with status {code}")),
        (None, signal) => Some(format!("was ended by signal {}", signal.unwrap_or_default())),
    }
}
