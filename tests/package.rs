//! The Debian package, of the program just built: packed twice, read by Debian's own tools, its scripts run.
//! Must not know: how the program is compiled. Spec: Debian policy; `dist/package` says how it is laid out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{Tier, binary, ok, repository, run, trial};

const PACK: &[Tier] =
    &[Tier::Judge(&["dpkg-deb", "lintian", "readelf", "strip", "git", "python3", "shellcheck"])];

pub fn trials() -> Vec<Trial> {
    vec![trial("package::debians_own_tools_take_it", PACK, packed)]
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
