//! Programs in the place of those that an overlay pins and no network here may have: older ones, from the
//! archive of Debian that this machine uses; and programs of the nodes for this machine's own processor.
//! Must not know: what they are used for. Spec: apt.conf(5), apt-get(8).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use gt_image::base::Base;
use gt_image::base::mirror::Mirrors;

use super::{ok, repository, run};

/// Consul 1.8.7, the last that was free software's and the last in Debian: the suite `bullseye` has it. For this
/// machine's own processor, or for a node's.
pub fn consul(architecture: Option<&str>) -> PathBuf {
    program("bullseye", "consul", "usr/bin/consul", architecture)
}

/// systemd's network service and resolver, of the Debian that the nodes have, in a root with all that they and a shell
/// need: resolvers of two releases route names differently, and this machine may have none.
pub fn resolver() -> PathBuf {
    let packages = "base-files dash coreutils util-linux mount libc-bin systemd systemd-resolved";
    let root = unpacked("resolver", "trixie", packages, None);
    // As images/debian-trixie.toml has them; no script of a package ran here.
    let accounts = [("root", 0), ("systemd-network", 998), ("systemd-resolve", 996)];
    let users = accounts.map(|(name, id)| format!("{name}:x:{id}:{id}::/:/bin/false\n"));
    let groups = accounts.map(|(name, id)| format!("{name}:x:{id}:\n"));
    fs::write(root.join("etc/passwd"), users.concat()).unwrap();
    fs::write(root.join("etc/group"), groups.concat()).unwrap();
    root
}

/// A program of a package of a suite.
fn program(suite: &str, package: &str, path: &str, architecture: Option<&str>) -> PathBuf {
    unpacked(package, suite, package, architecture).join(path)
}

/// Packages of a suite as files, with what they need where they are several; no script of theirs runs. Kept between
/// runs.
fn unpacked(name: &str, suite: &str, packages: &str, architecture: Option<&str>) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in");
    let dir = dir.join(format!("{name}-{}", architecture.unwrap_or("host")));
    let root = dir.join("root");
    if root.exists() {
        return root;
    }
    let apt = PrivateApt::new(&dir.join("apt"), suite, architecture);
    ok(apt.command().arg("update"));
    // Signed index, and by that each file's digest: apt checks both, or gives nothing.
    if packages.contains(' ') {
        let words = ["install", "--download-only", "--no-install-recommends", "-y"];
        ok(apt.command().args(words).args(packages.split(' ')));
    } else {
        ok(apt.command().current_dir(apt.0.join("archives")).args(["download", packages]));
    }
    let files = fs::read_dir(apt.0.join("archives")).unwrap().map(|entry| entry.unwrap().path());
    let mut debs: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "deb")).collect();
    // The one that has `/bin` and `/lib` as links comes before those that put files there.
    debs.sort_by_key(|file| !file.file_name().unwrap().to_string_lossy().starts_with("base-files_"));
    // Whole or not at all: a run that was killed leaves no half of it.
    let new = dir.join("new");
    for deb in debs {
        run("dpkg-deb", ["-x", deb.to_str().unwrap(), new.to_str().unwrap()]);
    }
    fs::rename(new, &root).unwrap();
    root
}

/// apt with a state, a cache and one source of its own.
struct PrivateApt(PathBuf);

impl PrivateApt {
    fn new(dir: &Path, suite: &str, architecture: Option<&str>) -> PrivateApt {
        let base = Base::load(&repository().join("images/debian-trixie.toml")).unwrap();
        let mirrors = Mirrors::of(base.apt().unwrap()).unwrap();
        let mirror = mirrors.roots("debian").first().expect("a base of Debian has a mirror").clone();
        for folder in ["lists/partial", "archives/partial", "etc"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(dir.join("etc/list"), format!("deb [signed-by={keyring}] {mirror} {suite} main\n"))
            .unwrap();
        fs::write(dir.join("status"), "").unwrap();
        let d = dir.display();
        let own = format!(
            "Dir::State \"{d}\";\nDir::State::lists \"{d}/lists\";\nDir::State::status \"{d}/status\";\n\
             Dir::Cache \"{d}\";\nDir::Cache::archives \"{d}/archives\";\n\
             Dir::Etc::sourcelist \"{d}/etc/list\";\nDir::Etc::sourceparts \"-\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
        );
        let foreign = architecture.map_or(String::new(), |a| format!("APT::Architecture \"{a}\";\n"));
        fs::write(dir.join("etc/conf"), own + &foreign + &mirrors.host().lines.join("\n")).unwrap();
        PrivateApt(dir.to_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.0.join("etc/conf")).env("LC_ALL", "C");
        command
    }
}
