//! The Debian package, of the program just built: packed twice, read by Debian's own tools, its scripts run.
//! Must not know: how the program is compiled. Spec: Debian policy; `dist/package` says how it is laid out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{Tier, binary, ok, repository, run, trial};

const PACK: &[Tier] =
    &[Tier::Judge(&["dpkg-deb", "lintian", "readelf", "strip", "git", "python3", "shellcheck"])];
const INSTALL: &[Tier] = &[
    Tier::Root,
    Tier::Judge(&[
        "dpkg",
        "dpkg-deb",
        "readelf",
        "strip",
        "git",
        "python3",
        "systemd-sysusers",
        "unshare",
        "pivot_root",
    ]),
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("package::debians_own_tools_take_it", PACK, packed),
        trial("package::dpkg_installs_it_and_takes_it_away", INSTALL, installed),
    ]
}

fn packed() {
    let dir = tempfile::tempdir().unwrap();
    // Another place and another umask must not show.
    let first = pack(&dir.path().join("one"), "022");
    let second = pack(&dir.path().join("another"), "077");
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "packed twice, two packages");
    let package = first.to_str().unwrap();
    // Its exit status is 2 where a tag is an error or a warning that no override explains.
    run("lintian", ["--fail-on", "error,warning", "--tag-display-limit", "0", package]);
    let field = |name: &str| run("dpkg-deb", ["-f", package, name]).trim().to_owned();
    assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));
    assert_eq!(field("Recommends").contains("qemu-user-static"), cfg!(target_arch = "x86_64"));
    let listed = run("dpkg-deb", ["-c", package]);
    for path in [
        "./usr/bin/gt-image",
        "./usr/lib/systemd/system/gt-image.service",
        "./usr/lib/systemd/system/gt-image-tftp.socket",
        "./usr/lib/sysusers.d/gt-image.conf",
        "./usr/share/man/man1/gt-image-build.1.gz",
        "./usr/share/bash-completion/completions/gt-image",
        "./usr/share/zsh/vendor-completions/_gt-image",
        "./usr/share/fish/vendor_completions.d/gt-image.fish",
        "./usr/share/doc/gt-image/examples/cluster.toml",
        "./usr/share/doc/gt-image/NOTICES.gz",
    ] {
        assert!(listed.lines().any(|line| line.ends_with(path)), "no {path} in\n{listed}");
    }
    assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
    assert!(!listed.contains("examples/secrets") && !listed.contains(".deb"), "{listed}");
    examples_plan(&dir.path().join("root"), package);
}

/// This machine's own root below a layer that is thrown away: dpkg's database, users and all.
const THROWN_AWAY: &str = r#"
mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mkdir -p "$1/root/mnt/old" && cp "$2" "$1/root/mnt/gt-image.deb"
# What others have mounted must not stay mounted for this.
cd "$1/root" && pivot_root . mnt/old
exec chroot . sh -ec "umount -l /mnt/old; $3"
"#;

const INSTALL_AND_PURGE: &str = r#"
dpkg -i /mnt/gt-image.deb
gt-image --version
dpkg -V gt-image
getent passwd gt-image
systemctl list-unit-files --root=/ --no-legend 'gt-image*' || true
dpkg -i /mnt/gt-image.deb
mkdir -p /var/lib/gt-image && touch /var/lib/gt-image/boots
dpkg -r gt-image
test ! -e /usr/bin/gt-image && test -e /var/lib/gt-image/boots
dpkg -P gt-image
test ! -e /var/lib/gt-image
test -z "$(find /usr /etc -name '*gt-image*' -newer /mnt/gt-image.deb ! -type d)"
echo all gone
"#;

fn installed() {
    let dir = tempfile::tempdir().unwrap();
    let package = pack(&dir.path().join("out"), "022");
    let place = dir.path().join("root");
    fs::create_dir(&place).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", THROWN_AWAY, "sh"]);
    let said = ok(command.arg(place).arg(package).arg(INSTALL_AND_PURGE));
    assert!(said.contains(concat!("gt-image ", env!("CARGO_PKG_VERSION"))), "{said}");
    assert!(said.contains("/usr/sbin/nologin") && said.ends_with("all gone\n"), "{said}");
    // Nothing is on a network because a package was installed.
    assert!(!said.lines().any(|line| line.contains(".socket") && line.contains(" enabled ")), "{said}");
}

/// Packs the program under test; gives the package.
fn pack(out: &Path, umask: &str) -> PathBuf {
    fs::create_dir_all(out).unwrap();
    let (arch, target) = match std::env::consts::ARCH {
        "aarch64" => ("arm64", "aarch64-unknown-linux-gnu"),
        _ => ("amd64", "x86_64-unknown-linux-gnu"),
    };
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {umask}; exec dist/package \"$@\""), "sh", arch, target]);
    command.arg(binary()).args(["strip", "readelf"]).arg(out);
    command
        .current_dir(repository())
        .envs([("SOURCE_DATE_EPOCH", "1764000000"), ("GT_IMAGE_DEB_LEVEL", "0")]);
    PathBuf::from(ok(&mut command).trim())
}

/// What the package brings as an example is a whole workspace.
fn examples_plan(root: &Path, package: &str) {
    run("dpkg-deb", ["-x", package, root.to_str().unwrap()]);
    let examples = root.join("usr/share/doc/gt-image/examples");
    let mut plan = Command::new(root.join("usr/bin/gt-image"));
    let said = ok(plan.current_dir(&examples).args(["plan", "--all"]));
    assert!(said.contains("allyrion") && said.contains("jast"), "{said}");
}
