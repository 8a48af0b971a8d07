//! A node's root as its overlays make it, laid over this machine's own or another: programs run in it as on the
//! node, with its files, its users and its secrets, and what they write is gone with them.
//! Must not know: what runs in it. Spec: docs/overlay-format.md; systemd.service(5) for the few keys that are
//! followed.
//!
//! Each life is a mount and a process namespace of its own, so a kill is a power cut.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use gt_image::layer::identity::ClusterKey;
use gt_image::layer::overlay::Context;
use gt_image::overlay::{Content, Description, FileKind, Overlay};

use super::net::Card;
use super::which;

/// What an image has, in a folder.
pub struct Root {
    below: PathBuf,
    files: PathBuf,
    life: PathBuf,
    binds: Vec<(PathBuf, String)>,
}

/// `$0` is the folder of files, `$1` where the life is, `$2` the script, `$3` what it is laid over, then pairs of
/// what is bound and where.
const LIFE: &str = r#"set -e
mount -t tmpfs -o mode=0755 life "$1"
mkdir "$1/upper" "$1/work" "$1/root"
cp -a "$0/." "$1/upper/"
mount -t overlay -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" life "$1/root"
cd "$1/root"
script=$2
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=0755 run run
shift 3
while [ $# -gt 0 ]; do
    mkdir -p "$(dirname "./$2")"
    if [ -d "$1" ]; then mkdir -p "./$2"; else : >"./$2"; fi
    mount --bind "$1" "./$2"
    shift 2
done
# What other tests have mounted must not stay mounted for this life.
mkdir run/old
pivot_root . run/old
exec chroot . /bin/sh -c "umount -l /run/old && rmdir /run/old
$script"
"#;

impl Root {
    /// The root of a node that has these overlays and what they include. `dir` is its own.
    pub fn new(
        dir: &Path,
        description: &Description,
        key: &ClusterKey,
        node: &str,
        overlays: &[&str],
    ) -> Root {
        Root::over(Path::new("/"), dir, description, key, node, overlays)
    }

    /// The same over another root than this machine's.
    pub fn over(
        below: &Path,
        dir: &Path,
        description: &Description,
        key: &ClusterKey,
        node: &str,
        overlays: &[&str],
    ) -> Root {
        let (files, life) = (dir.join("files"), dir.join("life"));
        let root = Root { below: below.to_owned(), files, life, binds: Vec::new() };
        for folder in [&root.files, &root.life] {
            fs::create_dir_all(folder).unwrap();
        }
        let node = description.cluster.nodes.iter().find(|n| n.name.as_str() == node).unwrap();
        let context = Context::new(&description.cluster, &description.overlays, node);
        let names: Vec<_> = overlays.iter().map(|name| name.parse().unwrap()).collect();
        root.put("/etc/machine-id", format!("{}\n", key.machine_id(node.name.as_str())).as_bytes(), 0o444);
        let accounts = ["/etc/passwd", "/etc/group"];
        let mut texts = accounts.map(|path| fs::read_to_string(below.join(&path[1..])).unwrap());
        for overlay in description.overlays.expand(&names) {
            root.lay(overlay, &context);
            for secret in &overlay.secrets {
                let Some(len) = secret.derive else { continue };
                let bytes = key.derive(&["secret", secret.name.as_str()], usize::from(len));
                root.put(&secret.file.path.to_string(), &bytes, secret.file.mode.bits());
            }
            let users = overlay.users.iter().map(|u| format!("{0}:x:{1}:{1}::/:/bin/false\n", u.name, u.uid));
            texts[0].extend(users);
            texts[1].extend(overlay.groups.iter().map(|g| format!("{}:x:{}:\n", g.name, g.gid)));
        }
        for (path, text) in accounts.iter().zip(&texts) {
            root.put(path, text.as_bytes(), 0o644);
        }
        root
    }

    fn lay(&self, overlay: &Overlay, context: &Context) {
        for source in &overlay.sources {
            let entry = overlay.files.iter().find(|f| *f.path.tree() == source.path);
            let path = source.path.to_string();
            match &source.content {
                Content::File { executable } => {
                    let mut bytes = fs::read(&source.source).unwrap();
                    if entry.is_some_and(|e| e.template) {
                        let text = String::from_utf8(bytes).unwrap();
                        bytes = context.render(&path, &text).unwrap_or_else(|e| panic!("{e}")).into_bytes();
                    }
                    self.put(&path, &bytes, if *executable { 0o755 } else { 0o644 });
                }
                Content::Symlink(_) => panic!("{path}: no overlay has a link among its files"),
            }
        }
        for entry in &overlay.files {
            let at = self.at(&entry.path.to_string());
            match (entry.kind, &entry.target) {
                (FileKind::Directory, _) => fs::create_dir_all(at).unwrap(),
                (FileKind::Symlink, Some(target)) => {
                    fs::create_dir_all(at.parent().unwrap()).unwrap();
                    symlink(target, at).unwrap();
                }
                _ => {}
            }
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.files.join(path.trim_start_matches('/'))
    }

    /// A file more, or another in the place of one.
    pub fn put(&self, path: &str, bytes: &[u8], mode: u16) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&at);
        fs::write(&at, bytes).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(u32::from(mode))).unwrap();
    }

    /// A file as the image has it.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Shows a file or a directory of this machine at `path`: a program, or state that outlives a life.
    pub fn bind(&mut self, from: &Path, path: &str) {
        self.binds.push((from.to_owned(), path.to_owned()));
    }

    /// A life that runs `script`, on the side of a card or in an empty network.
    fn command(&self, card: Option<&Card>, script: &str) -> Command {
        let unshare = which("unshare").expect("util-linux is essential");
        let mut command = card.map_or_else(|| Command::new(&unshare), |card| card.command(&unshare));
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.args(card.is_none().then_some("--net"));
        command.args(["sh", "-c", LIFE]).arg(&self.files).arg(&self.life).arg(script).arg(&self.below);
        for (from, path) in &self.binds {
            command.arg(from).arg(path);
        }
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &str) -> Output {
        self.command(None, script).output().unwrap()
    }

    /// Starts a shell on the side of a card, after `script`, whose programs may go on behind it.
    pub fn shell(&self, card: &Card, script: &str) -> Shell {
        let ask = "while read -r command; do eval \"$command\" 2>&1; echo \"status $?\"; done";
        let mut command = self.command(Some(card), &format!("set -e\n{script}\nset +e\n{ask}"));
        let mut life = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (commands, said) = (life.stdin.take().unwrap(), life.stdout.take().unwrap());
        Shell { _life: Life(life), commands, said: BufReader::new(said).lines() }
    }

    /// Starts what a unit starts, on the side of a card.
    pub fn start(&self, card: &Card, unit: &str, log: &Path) -> Life {
        let script = service(&self.read(&format!("/etc/systemd/system/{unit}")));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(Some(card), &script);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Life(command.spawn().unwrap())
    }
}

/// A life whose shell takes commands. It is there before the programs that it begins with are ready.
pub struct Shell {
    _life: Life,
    commands: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    /// What a command says on both outputs, and its status.
    pub fn ask(&mut self, command: &str) -> (String, i32) {
        writeln!(self.commands, "{command}").unwrap();
        let mut said = String::new();
        loop {
            let line = self.said.next().expect("the life has not ended").unwrap();
            match line.strip_prefix("status ") {
                Some(status) => return (said, status.parse().unwrap()),
                None => said += &(line + "\n"),
            }
        }
    }
}

/// A running life; its power is cut when it is dropped.
pub struct Life(Child);

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A unit's service as a script: its runtime directory, what goes before it, and itself, as its user.
pub fn service(unit: &str) -> String {
    let all = |key: &str| -> Vec<String> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.map(str::to_owned).collect()
    };
    let user = all("User").pop().unwrap_or_else(|| "root".into());
    let mut script = String::from("set -e\n");
    for runtime in all("RuntimeDirectory") {
        script += &format!("mkdir -p /run/{runtime}\nchown {user}: /run/{runtime}\n");
    }
    for before in all("ExecStartPre") {
        script += before.strip_prefix('+').unwrap_or(&before);
        script += "\n";
    }
    let start = all("ExecStart").pop().expect("a service starts something");
    // Not in the shell's place: the shell is the first process of its namespace, and only because it keeps root does it die
    // with its parent, and all others with it (prctl(2): a change of user ends PR_SET_PDEATHSIG).
    script + &format!("setpriv --reuid {user} --regid {user} --init-groups -- {start}\nexit $?\n")
}
