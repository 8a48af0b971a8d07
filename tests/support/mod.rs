//! What all end-to-end tests share: tiers, foreign tools, temporary places, the program itself.
//! Must not know: what any one test wants to prove.
//! Spec: style.md section 7.

#![allow(dead_code, reason = "each test module uses its own part of this")]

pub mod dnsmasq;
pub mod files;
pub mod net;
pub mod official;
pub mod qemu;
pub mod root;
pub mod server;
pub mod site;
pub mod stand_in;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Failed, Trial};

/// What a test needs of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// These foreign tools are installed.
    Judge(&'static [&'static str]),
    /// We are root and may mount through loop devices.
    Root,
    /// An emulator of a whole arm64 machine.
    Qemu,
    /// The archive of Debian packages that this machine's apt uses.
    Archive,
    /// Root with CAP_SYS_RESOURCE, without which the kernel grows no mounted filesystem; containers and
    /// some virtual machines take it from root.
    Grow,
    /// A file system in user space can be served, by Python.
    Fuse,
    /// An ordinary user may make user namespaces with several ids.
    Userns,
    /// The host from which Raspberry Pi's own image comes answers.
    Official,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Tier::Judge(_) => "judge",
            Tier::Root => "root",
            Tier::Qemu => "qemu",
            Tier::Archive => "archive",
            Tier::Grow => "grow",
            Tier::Fuse => "fuse",
            Tier::Userns => "userns",
            Tier::Official => "official",
        }
    }

    /// Why the tier cannot run here; `None` when it can.
    pub fn missing(self) -> Option<String> {
        match self {
            Tier::Judge(tools) => {
                let missing: Vec<_> = tools.iter().filter(|t| which(t).is_none()).copied().collect();
                (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
            }
            Tier::Root if !rustix::process::geteuid().is_root() => Some("not root".into()),
            Tier::Root => (!Path::new("/dev/loop-control").exists()).then(|| "no loop devices".into()),
            Tier::Qemu => {
                which("qemu-system-aarch64").is_none().then(|| "qemu-system-aarch64 is not installed".into())
            }
            Tier::Archive => which("apt-get").is_none().then(|| "no apt on this machine".into()),
            Tier::Grow => {
                let capable = rustix::thread::capabilities(None)
                    .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
                (!capable).then(|| "CAP_SYS_RESOURCE is missing".into())
            }
            Tier::Fuse => {
                let served = Command::new("/usr/bin/python3").args(["-c", "import fusepy"]).output();
                let can = served.is_ok_and(|done| done.status.success()) && Path::new("/dev/fuse").exists();
                (!can).then(|| "no /dev/fuse, or python3-fusepy is not installed".into())
            }
            Tier::Userns => which("newuidmap").is_none().then(|| "newuidmap is not installed".into()),
            Tier::Official => {
                let base = std::fs::read_to_string(repository().join("images/raspios-lite.toml")).ok()?;
                let url = base.lines().find_map(|line| line.strip_prefix("url = \""))?.trim_end_matches('"');
                let asked =
                    Command::new("curl").args(["-fsIL", "--connect-timeout", "3", "-m", "10", url]).output();
                (!asked.is_ok_and(|done| done.status.success())).then(|| format!("{url} cannot be fetched"))
            }
        }
    }
}

/// A test that runs where all its tiers can. Elsewhere it is ignored and says so by name, or fails
/// when `GT_IMAGE_REQUIRE` lists the tier.
pub fn trial(name: &str, tiers: &'static [Tier], test: fn()) -> Trial {
    let required = std::env::var("GT_IMAGE_REQUIRE").unwrap_or_default();
    for tier in tiers {
        let Some(why) = tier.missing() else { continue };
        if required.split(',').any(|t| t == tier.name()) {
            let message = format!("{} is required here: {why}", tier.name());
            return Trial::test(name, move || Err(Failed::from(message)));
        }
        eprintln!("not run: {name}: {}: {why}", tier.name());
        return Trial::test(name, || Ok(())).with_ignored_flag(true);
    }
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Where a program is on the PATH, with the places that only root's PATH has.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// The top of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("builder/ is inside the repository")
}

/// The program under test: the one just built, or `GT_IMAGE_UNDER_TEST`, such as a script that runs another
/// machine's under an emulator.
pub fn binary() -> OsString {
    std::env::var_os("GT_IMAGE_UNDER_TEST").unwrap_or_else(|| env!("CARGO_BIN_EXE_gt-image").into())
}

/// The program under test, as a script would call it.
pub fn gt_image() -> Command {
    let mut command = Command::new(binary());
    command.args(["--progress", "plain"]);
    command
}

/// Runs a foreign tool; its whole output is in the panic when it fails.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let path = which(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let mut command = Command::new(path);
    command.args(args).env("LC_ALL", "C").env("TZ", "UTC");
    ok(&mut command)
}

/// Runs a command that must succeed and gives its stdout.
pub fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must end with this status and gives its stderr.
pub fn fails(command: &mut Command, status: i32) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert_eq!(output.status.code(), Some(status), "{command:?}\n{}", text(&output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Both outputs, for messages.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
