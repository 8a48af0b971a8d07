//! What the tests of this folder share: values, a small HTTP server, a small signed archive.
//! Must not know: what is tested with them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::artifact::Origin;
use super::lock::{Artifact, Lock, Package, Set};
use super::{Apt, Keys, Mirror, Suite, Want, WantedArtifact};
use crate::digest::Digest;

pub(super) fn wants(packages: &[&str]) -> Vec<Want> {
    let origin = "overlays/x/overlay.toml:1:1";
    packages.iter().map(|p| Want { package: (*p).into(), origin: origin.into() }).collect()
}

pub(super) fn apt(packages: &[&str]) -> Apt {
    let suite = Suite {
        archive: "debian".into(),
        suite: "trixie".into(),
        components: vec!["main".into()],
        mirrors: vec![Mirror::Host],
        keys: Keys::File("/k".into()),
    };
    Apt {
        architecture: "arm64".into(),
        suites: vec![suite],
        snapshot: None,
        packages: wants(packages),
        exclude: vec![],
    }
}

pub(super) fn wanted_artifact() -> WantedArtifact {
    WantedArtifact {
        name: "consul".into(),
        source: Origin::Url("https://h/consul_1.21.zip".into()),
        sha256: None,
        size: None,
        licence: "BUSL-1.1".into(),
        origin: "overlays/consul/overlay.toml:9:1".into(),
    }
}

/// A lock of two packages, one of them in a set, and one artifact.
pub(super) fn lock() -> Lock {
    let package = |name: &str, version: &str, path: &str, essential: bool| Package {
        name: name.into(),
        version: version.into(),
        architecture: "arm64".into(),
        archive: "debian".into(),
        path: path.into(),
        sha256: Digest::of(name.as_bytes()),
        size: 3,
        essential,
        unarchived: false,
    };
    let set = |name: &str, wants: &str| Set {
        name: name.into(),
        wants: vec![wants.into()],
        packages: vec![wants.into()],
    };
    let artifact = Artifact {
        name: "consul".into(),
        source: Origin::Url("https://h/consul_1.21.zip".into()),
        filename: Some("consul_1.21.zip".into()),
        sha256: Digest::of(b"consul"),
        size: Some(6),
        licence: "BUSL-1.1".into(),
    };
    let packages = vec![
        package("munge", "0.5.16-1", "pool/main/m/munge_0.5.16-1_arm64.deb", false),
        package("apt", "3.0.4", "pool/main/a/apt_3.0.4_arm64.deb", true),
    ];
    let sets = vec![set("worker", "munge"), set("base", "apt")];
    Lock {
        base: "b".into(),
        image: None,
        without: vec![],
        epoch: 1_767_225_599,
        suites: vec!["debian trixie main".into()],
        packages,
        sets,
        artifacts: vec![artifact],
    }
    .sorted()
}

/// How a test server misbehaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trick {
    /// It does not.
    None,
    /// It knows no ranges.
    NoRanges,
    /// It answers everything with this status.
    Status(u16),
    /// It closes the first answers, so many, after half of what they promise.
    Cut(usize),
}

/// Paths that were asked for, each with the offset that a range began at.
pub(super) type Log = Arc<Mutex<Vec<(String, Option<u64>)>>>;

/// An HTTP/1.1 server on the loopback: GET with ranges, one request a connection.
pub(super) struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    /// Path and range of each request, in order.
    pub(super) log: Log,
}

type Files = BTreeMap<String, Vec<u8>>;

impl Server {
    pub(super) fn new(files: &[(&str, &[u8])]) -> Server {
        Server::tricky(files, Trick::None)
    }

    pub(super) fn tricky(files: &[(&str, &[u8])], trick: Trick) -> Server {
        let files: Files = files.iter().map(|(p, b)| ((*p).to_owned(), b.to_vec())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let server = Server { port, stop: Arc::clone(&stop), log: Arc::clone(&log) };
        let cuts = AtomicUsize::new(if let Trick::Cut(n) = trick { n } else { 0 });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // A client that leaves early is its own affair.
                serve(&stream.unwrap(), &files, &trick, &cuts, &log).ok();
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn requests(&self) -> Vec<(String, Option<u64>)> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

fn serve(
    stream: &TcpStream,
    files: &Files,
    trick: &Trick,
    cuts: &AtomicUsize,
    log: &Mutex<Vec<(String, Option<u64>)>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<u64>().ok();
        }
    }
    log.lock().unwrap().push((path.clone(), from));
    let from = from.filter(|_| *trick != Trick::NoRanges);
    let mut out = stream;
    let bytes = match (files.get(&path), trick) {
        (_, Trick::Status(n)) => {
            return write!(out, "HTTP/1.1 {n} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        (None, _) => return write!(out, "HTTP/1.1 404 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        (Some(bytes), _) => bytes,
    };
    let start = usize::try_from(from.unwrap_or(0)).unwrap();
    if from.is_some() && start >= bytes.len() {
        return write!(out, "HTTP/1.1 416 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let body = &bytes[start..];
    let status = if from.is_some() { 206 } else { 200 };
    write!(out, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    if from.is_some() {
        write!(out, "Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len())?;
    }
    write!(out, "\r\n")?;
    let cut = cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
    out.write_all(if cut { &body[..body.len() / 2] } else { body })
}

/// Says that a test cannot run, and ends it as a failure where its tier is required.
pub(super) fn not_run(tier: &str, why: &str) {
    let required = std::env::var("GT_IMAGE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|t| t == tier), "{tier} is required here: {why}");
    // eprintln! is hidden in a test that passes.
    writeln!(std::io::stderr(), "not run: {tier}: {why}").ok();
}

/// A signed archive in a folder, made by the foreign tools.
pub(super) struct Archive {
    dir: tempfile::TempDir,
}

impl Archive {
    /// An archive with these packages: name, version and further control lines. `None`, loudly, when
    /// a tool is missing.
    pub(super) fn new(packages: &[(&str, &str, &str)]) -> Option<Archive> {
        for (tool, arg) in [
            ("dpkg-deb", "--version"),
            ("apt-ftparchive", "--version"),
            ("gpg", "--version"),
            ("apt-get", "--version"),
        ] {
            if Command::new(tool).arg(arg).output().is_err() {
                not_run("judge", &format!("`{tool}` is not installed"));
                return None;
            }
        }
        let archive = Archive { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(archive.path("gpg")).unwrap();
        run(Command::new("chmod").arg("700").arg(archive.path("gpg")));
        run(archive.gpg().args([
            "--passphrase",
            "",
            "--quick-gen-key",
            "test@example.org",
            "default",
            "default",
            "never",
        ]));
        run(archive.gpg().args(["--export", "--output"]).arg(archive.keyring()));
        archive.publish(packages);
        Some(archive)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn keyring(&self) -> PathBuf {
        self.path("key.gpg")
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--yes", "--homedir"]).arg(self.path("gpg"));
        gpg
    }

    /// Puts these packages into the archive's index and signs it; pool files of earlier ones stay.
    pub(super) fn publish(&self, packages: &[(&str, &str, &str)]) {
        let (debian, pool) = (self.path("debian"), self.path("debian/pool/main"));
        let binary = debian.join("dists/trixie/main/binary-arm64");
        fs::create_dir_all(&binary).unwrap();
        fs::remove_dir_all(&pool).ok();
        fs::create_dir_all(&pool).unwrap();
        for (name, version, control) in packages {
            let tree = self.path("tree");
            fs::create_dir_all(tree.join("DEBIAN")).unwrap();
            let text = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: arm64\nMaintainer: T <t@example.org>\n{control}Description: x\n"
            );
            fs::write(tree.join("DEBIAN/control"), text).unwrap();
            run(Command::new("dpkg-deb")
                .env("SOURCE_DATE_EPOCH", "1")
                .args(["--root-owner-group", "-b"])
                .arg(&tree)
                .arg(&pool));
            fs::remove_dir_all(&tree).unwrap();
        }
        let packages =
            output(Command::new("apt-ftparchive").args(["packages", "pool/main"]).current_dir(&debian));
        fs::write(binary.join("Packages"), packages).unwrap();
        let dist = debian.join("dists/trixie");
        fs::remove_file(dist.join("InRelease")).ok();
        let mut release = Command::new("apt-ftparchive");
        for (key, value) in
            [("Codename", "trixie"), ("Suite", "stable"), ("Architectures", "arm64"), ("Components", "main")]
        {
            release.args(["-o", &format!("APT::FTPArchive::Release::{key}={value}")]);
        }
        fs::write(dist.join("Release"), output(release.args(["release", "."]).current_dir(&dist))).unwrap();
        run(self
            .gpg()
            .args(["--clearsign", "--output"])
            .arg(dist.join("InRelease"))
            .arg(dist.join("Release")));
        fs::remove_file(dist.join("Release")).unwrap();
    }

    /// The base that this archive is.
    pub(super) fn apt(&self, packages: &[&str]) -> Apt {
        let mut apt = apt(packages);
        apt.suites[0].keys = Keys::File(self.keyring());
        apt.suites[0].mirrors = vec![Mirror::Url(format!("file://{}", self.path("debian").display()))];
        apt
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.path("cache")
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // The agent that gpg starts by itself would otherwise outlive the test.
        let home = self.path("gpg");
        Command::new("gpgconf")
            .arg("--homedir")
            .arg(Path::new(&home))
            .args(["--kill", "gpg-agent"])
            .output()
            .ok();
    }
}

fn run(command: &mut Command) {
    output(command);
}

fn output(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}
