//! The real thing: fenn from the real archive, judged by foreign tools, and built a second time under other
//! circumstances. It boots in trio.rs, netboot.rs and raspios.rs.
//! Must not know: how images are made. Spec: design.md sections 6 to 9 and 13.
//!
//! The description is the repository's own, with an SSH key of the test's added for root, so that
//! the booted node can be asked questions. Downloads are shared with the repository's own cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use libtest_mimic::Trial;

use crate::support::site::sha256;
use crate::support::{Tier, gt_image, ok, repository, run, trial};

const BUILD: &[Tier] = &[Tier::Archive, Tier::Judge(&["qemu-aarch64-static"])];
const JUDGE: &[Tier] = &[
    Tier::Archive,
    Tier::Judge(&[
        "qemu-aarch64-static",
        "sgdisk",
        "sfdisk",
        "fsck.vfat",
        "e2fsck",
        "mdir",
        "debugfs",
        "resize2fs",
    ]),
];
const USER: &[Tier] = &[Tier::Archive, Tier::Root, Tier::Userns, Tier::Judge(&["qemu-aarch64-static"])];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("fenn::foreign_tools_find_no_fault", JUDGE, judged),
        trial("fenn::an_ordinary_user_elsewhere_gets_the_same_bytes", USER, rootless),
        trial("fenn::the_sbom_is_valid", &[Tier::Archive, Tier::Judge(&["python3"])], sbom),
        trial("fenn::nothing_secret_and_nothing_of_the_host_is_in_it", BUILD, clean),
        trial("fenn::all_nodes_share_one_store", BUILD, all_nodes),
    ];
    // A build takes a minute and a half of a processor: both at once where they can be.
    if USER.iter().any(|tier| tier.missing().is_some()) {
        trials.push(trial("fenn::other_circumstances_give_the_same_bytes", BUILD, reproducible));
    }
    trials
}

/// The site all tests share: built once, raw.
pub struct Fenn {
    pub dir: PathBuf,
    pub identity: PathBuf,
}

impl Fenn {
    pub fn get() -> &'static Fenn {
        static FENN: OnceLock<Fenn> = OnceLock::new();
        FENN.get_or_init(|| {
            // Kept between runs: a second run of the tests builds in seconds.
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fenn");
            fs::create_dir_all(&dir).unwrap();
            let identity = dir.join("identity");
            if !identity.exists() {
                run(
                    "ssh-keygen",
                    ["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", identity.to_str().unwrap()],
                );
            }
            lay_out(&dir, &fs::read_to_string(dir.join("identity.pub")).unwrap());
            let fenn = Fenn { dir, identity };
            ok(fenn.command(&["build", "--node", "fenn", "--raw", "--keep-going"]).arg("-v"));
            fenn
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = gt_image();
        command.current_dir(&self.dir).arg("--cache").arg(repository().join("images/cache")).args(args);
        command
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.join("images/out/fenn").join(name)
    }
}

/// The repository's description in `dir`, with one more key for root.
fn lay_out(dir: &Path, key: &str) {
    let text = fs::read_to_string(repository().join("cluster.toml")).unwrap();
    let mut cluster: toml::Table = text.parse().unwrap();
    let users = cluster.entry("users").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
    let root = users.entry("root").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
    root.insert("ssh_keys".into(), vec![key.trim().to_owned()].into());
    fs::write(dir.join("cluster.toml"), toml::to_string(&cluster).unwrap()).unwrap();
    run("rm", ["-rf", dir.join("overlays").to_str().unwrap()]);
    run("cp", ["-a", repository().join("overlays").to_str().unwrap(), dir.to_str().unwrap()]);
    fs::create_dir_all(dir.join("images")).unwrap();
    for entry in fs::read_dir(repository().join("images")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let lock_there = name.ends_with(".lock") && dir.join("images").join(name).exists();
        if path.is_file() && !lock_there {
            fs::copy(&path, dir.join("images").join(name)).unwrap();
        }
    }
}

/// A directory with fenn's kernel package and busybox unpacked by dpkg's own tool.
pub fn kernel_root() -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(unpack_kernel).clone()
}

fn unpack_kernel() -> PathBuf {
    let fenn = Fenn::get();
    let root = fenn.dir.join("kernel-root");
    let lock: toml::Table =
        fs::read_to_string(fenn.dir.join("images/debian-trixie.lock")).unwrap().parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let kernel = name.starts_with("linux-image-6") || name.starts_with("linux-image-7");
        if kernel || name == "busybox-static" {
            let sha256 = package["sha256"].as_str().unwrap();
            let file = repository().join(format!("images/cache/debs/{}/{sha256}.deb", &sha256[..2]));
            run("dpkg-deb", ["-x", file.to_str().unwrap(), root.to_str().unwrap()]);
        }
    }
    root
}

fn judged() {
    let fenn = Fenn::get();
    let image = fenn.out("disk.img");
    let disk = image.to_str().unwrap();
    let verdict = run("sgdisk", ["-v", disk]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    run("sfdisk", ["-V", disk]);
    let table: serde_json::Value = serde_json::from_str(&run("sfdisk", ["--json", disk])).unwrap();
    let partition = |index: usize, key: &str| {
        (table["partitiontable"]["partitions"][index][key].as_u64().unwrap() * 512).to_string()
    };
    let boot = format!("{disk}@@{}", partition(0, "start"));
    let names = run("mdir", ["-b", "-i", &boot, "::"]);
    for name in ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "config.txt", "cmdline.txt"] {
        assert!(names.contains(name), "no {name} in\n{names}");
    }
    let root = fenn.dir.join("root.img");
    let path = root.to_str().unwrap();
    let (skip, count) = (partition(1, "start"), partition(1, "size"));
    run(
        "dd",
        [
            &format!("if={disk}"),
            &format!("of={path}"),
            &format!("skip={skip}"),
            &format!("count={count}"),
            "iflag=skip_bytes,count_bytes",
            "bs=1M",
            "conv=sparse",
            "status=none",
        ],
    );
    run("e2fsck", ["-fn", path]);
    let passwd = run("debugfs", ["-R", "cat /etc/passwd", path]);
    assert!(passwd.contains("root:") && passwd.contains("munge:"), "{passwd}");
    run("resize2fs", [path, "6G"]);
    run("e2fsck", ["-fn", path]);
    fs::remove_file(&root).unwrap();
}

/// A second build from nothing: another store, directory, clock, time zone, locale, umask, home and
/// number of processors.
fn elsewhere(program: &Path, site: &Path, cache: &Path) -> String {
    format!(
        "umask 077; export TZ=Asia/Kathmandu LC_ALL=tr_TR.UTF-8 HOME=/nonexistent; cd {}; \
         exec taskset -c 0 {} --progress plain --cache {} build --node fenn --raw --keep-going",
        site.display(),
        program.display(),
        cache.display(),
    )
}

fn reproducible() {
    let fenn = Fenn::get();
    let other = second(fenn, "fenn-second");
    let cache = repository().join("images/cache");
    run("sh", ["-c", &elsewhere(Path::new(env!("CARGO_BIN_EXE_gt-image")), &other, &cache)]);
    compare(fenn, &other);
}

/// The same as a user without any privilege but subordinate ids.
fn rootless() {
    let fenn = Fenn::get();
    let other = second(fenn, "fenn-rootless");
    let user = "gt-image-test";
    let exists = Command::new("id").arg(user).output().unwrap().status.success();
    if !exists {
        run("useradd", ["--create-home", user]);
    }
    run("usermod", ["--add-subuids", "300000-365535", "--add-subgids", "300000-365535", user]);
    let site = Path::new("/home").join(user).join("site");
    run("rm", ["-rf", site.to_str().unwrap()]);
    run("cp", ["-a", other.to_str().unwrap(), site.to_str().unwrap()]);
    let program = site.join("gt-image");
    fs::copy(env!("CARGO_BIN_EXE_gt-image"), &program).unwrap();
    let cache = site.join("images/cache");
    run("cp", ["-a", repository().join("images/cache").to_str().unwrap(), cache.to_str().unwrap()]);
    run("chown", ["-R", &format!("{user}:"), site.to_str().unwrap()]);
    let words = ["--reuid", user, "--regid", user, "--init-groups", "--reset-env", "sh", "-c"];
    ok(Command::new("setpriv").args(words).arg(elsewhere(&program, &site, &cache)));
    compare(fenn, &site);
    run("userdel", ["--remove", user]);
}

/// Another site with the same inputs.
pub fn second(fenn: &Fenn, name: &str) -> PathBuf {
    let other = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    run("rm", ["-rf", other.to_str().unwrap()]);
    fs::create_dir_all(&other).unwrap();
    lay_out(&other, &fs::read_to_string(fenn.dir.join("identity.pub")).unwrap());
    for input in ["secrets", "images/debian-trixie.lock"] {
        run("cp", ["-a", "-T", fenn.dir.join(input).to_str().unwrap(), other.join(input).to_str().unwrap()]);
    }
    other
}

/// Names the first difference, from the coarse to the fine.
fn compare(fenn: &Fenn, other: &Path) {
    let dump = |dir: &Path| ok(gt_image().current_dir(dir).args(["export", "--node", "fenn", "--dump", "-"]));
    for (a, b) in dump(&fenn.dir).lines().zip(dump(other).lines()) {
        assert_eq!(a, b, "the first entry that differs");
    }
    for name in ["manifest.json", "sbom.spdx.json", "disk.bmap", "disk.img"] {
        let theirs = other.join("images/out/fenn").join(name);
        assert_eq!(sha256(&fenn.out(name)), sha256(&theirs), "{name}");
    }
    run("rm", ["-rf", other.to_str().unwrap()]);
}

fn sbom() {
    let fenn = Fenn::get();
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spdx");
    let validator = venv.join("bin/pyspdxtools");
    if !validator.exists() {
        run("python3", ["-m", "venv", venv.to_str().unwrap()]);
        ok(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "spdx-tools"]));
    }
    ok(Command::new(validator).arg("-i").arg(fenn.out("sbom.spdx.json")));
}

fn clean() {
    let fenn = Fenn::get();
    let dump = ok(&mut fenn.command(&["export", "--node", "fenn", "--dump", "-"]));
    let paths: Vec<&str> = dump.lines().filter_map(|line| line.split(' ').next()).collect();
    for path in ["/etc/ssh/ssh_host_ed25519_key", "/etc/munge/munge.key", "/etc/passwd-", "/var/log/dpkg.log"]
    {
        assert!(!paths.contains(&path), "{path} is in the generation");
    }
    let machine_id = dump.lines().find(|l| l.starts_with("/etc/machine-id "));
    assert!(machine_id.is_none_or(|line| line.ends_with(" 0")), "{machine_id:?} is not empty");
    let tar = fenn.dir.join("root.tar");
    ok(fenn.command(&["export", "--node", "fenn", "--tar"]).arg(&tar));
    let hostname = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let own = run("tar", ["-xOf", tar.to_str().unwrap(), "./etc/hostname"]);
    assert_eq!(own, "fenn\n");
    assert_ne!(own, hostname);
    fs::remove_file(tar).unwrap();
}

fn all_nodes() {
    let fenn = Fenn::get();
    ok(&mut fenn.command(&[
        "build",
        "--node",
        "allyrion",
        "--node",
        "bettley",
        "--no-image",
        "--keep-going",
    ]));
    let begun = Instant::now();
    let report = ok(&mut fenn.command(&["build", "--all", "--no-image", "--keep-going", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["nodes"].as_array().unwrap().len(), 10, "{report}");
    println!("ten nodes in {:.1} s", begun.elapsed().as_secs_f64());
}
