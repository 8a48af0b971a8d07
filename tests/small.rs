//! Builds on a small tarball base: what overlays do, what the outputs are, what bad input meets.
//! Must not know: Debian, packages. Spec: design.md sections 2, 5, 11 and 13.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::Trial;

use crate::support::site::{Site, sha256};
use crate::support::{Tier, fails, gt_image, ok, run, trial};

const TOOLS: &[Tier] = &[Tier::Judge(&[
    "sgdisk",
    "sfdisk",
    "fsck.vfat",
    "e2fsck",
    "mdir",
    "dumpe2fs",
    "debugfs",
    "bmaptool",
    "zstd",
])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("small::an_overlay_is_laid_over_the_base", &[], overlay_over_base),
        trial("small::a_disk_image_is_what_foreign_tools_expect", TOOLS, disk_image),
        trial("small::mbr_is_the_official_layout", TOOLS, mbr),
        trial("small::the_same_inputs_give_the_same_bytes", &[], reproducible),
        trial("small::nothing_changed_means_nothing_done", &[], unchanged),
        trial("small::why_diff_and_inspect_answer", &[], questions),
        trial("small::imported_attributes_are_kept", &[Tier::Root], attributes),
        trial("small::secrets_are_in_the_image_alone", TOOLS, secrets),
        trial("small::bad_descriptions_are_refused_whole", &[], bad_descriptions),
        trial("small::bad_layers_are_refused", &[], bad_layers),
        trial("small::bad_tarballs_are_refused", &[], bad_tarballs),
        trial("small::a_missing_artifact_says_what_to_do", &[], missing_artifact),
        trial("small::things_in_the_way_are_told", &[], in_the_way),
        trial("small::a_full_store_loses_nothing", &[Tier::Root], full_store),
        trial("small::gc_keeps_what_is_current", &[], gc),
        trial("small::several_builds_at_once_do_no_harm", &[], at_once),
        trial("small::a_killed_build_needs_no_repair", &[], killed),
    ]
}

fn site() -> Site {
    let site = Site::new();
    site.write("overlays/role/files/etc/plain", "plain\n");
    site.write(
        "overlays/role/files/etc/greeting",
        "{{ vars.greeting }} from {{ node.name }} at {{ node.ip }}\n",
    );
    site.write("overlays/role/files/usr/local/bin/run", "#!/bin/sh\n");
    let run = site.path("overlays/role/files/usr/local/bin/run");
    fs::set_permissions(run, fs::Permissions::from_mode(0o755)).unwrap();
    site.write(
        "overlays/role/overlay.toml",
        r#"description = "A role for tests."
modules = ["br_netfilter"]
remove = ["/usr/bin/tool"]

[sysctl]
"net.ipv4.ip_forward" = "1"

[[files]]
path = "/etc/greeting"
template = true
mode = "0640"
group = "staff"
xattrs = { "user.note" = "text" }

[[groups]]
name = "staff"
gid = 950

[[secrets]]
name = "token"
path = "/etc/token"

[[persist]]
path = "/var/lib/state"

[[checks]]
name = "always"
command = "true"
"#,
    );
    site
}

fn overlay_over_base() {
    let site = site();
    let dump = site.dump();
    let line = |path: &str| Site::line(&dump, path).unwrap_or_else(|| panic!("no {path} in\n{dump}"));
    assert!(line("/etc/plain").contains(" f 0644 0 0 "));
    assert!(line("/usr/local/bin/run").contains(" f 0755 0 0 "));
    assert!(
        line("/etc/greeting").contains(" f 0640 0 950 ") && line("/etc/greeting").contains("user.note=text")
    );
    assert_eq!(Site::line(&dump, "/usr/bin/tool"), None);
    line("/boot/firmware");
    let tar = site.path("root.tar");
    ok(&mut site.gt_image(["export", "--node", "n1", "--tar", tar.to_str().unwrap()]));
    let text = run("tar", ["-xOf", tar.to_str().unwrap(), "./etc/greeting"]);
    assert_eq!(text, "hello from n1 at 10.9.0.11\n");
}

fn disk_image() {
    let site = site();
    let out = site.path("elsewhere");
    ok(&mut site.gt_image(["build", "--node", "n1", "--raw", "--out", out.to_str().unwrap()]));
    let image = out.join("n1/disk.img");
    let disk = image.to_str().unwrap();
    let verdict = run("sgdisk", ["-v", disk]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    run("sfdisk", ["-V", disk]);
    let table: serde_json::Value = serde_json::from_str(&run("sfdisk", ["--json", disk])).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    let part = |index: usize, key: &str| partitions[index][key].as_u64().unwrap() * 512;
    let cut = |index: usize, name: &str| {
        let path = site.path(name);
        let mut from = fs::File::open(&image).unwrap();
        std::io::Seek::seek(&mut from, std::io::SeekFrom::Start(part(index, "start"))).unwrap();
        let mut from = std::io::Read::take(from, part(index, "size"));
        std::io::copy(&mut from, &mut fs::File::create(&path).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (boot, root) = (cut(0, "boot.img"), cut(1, "root.img"));
    run("fsck.vfat", ["-n", &boot]);
    let names = run("mdir", ["-b", "-i", &boot, "::"]);
    assert!(names.contains("cmdline.txt") && names.contains("config.txt"), "{names}");
    run("e2fsck", ["-fn", &root]);
    let features = run("dumpe2fs", ["-h", &root]);
    for feature in ["has_journal", "dir_index", "64bit", "metadata_csum", "resize_inode", "flex_bg"] {
        assert!(features.contains(feature), "no {feature}:\n{features}");
    }
    let cmdline = run("mtype", ["-i", &boot, "::cmdline.txt"]);
    let partuuid = partitions[1]["uuid"].as_str().unwrap().to_lowercase();
    assert!(cmdline.contains(&format!("root=PARTUUID={partuuid}")), "{cmdline}");
    let fstab = run("debugfs", ["-R", "cat /etc/fstab", &root]);
    assert!(fstab.contains("/boot/firmware"), "{fstab}");
    let copy = site.path("copy.img");
    let bmap = out.join("n1/disk.bmap");
    run("bmaptool", ["copy", "--bmap", bmap.to_str().unwrap(), disk, copy.to_str().unwrap()]);
    let raw = sha256(&image);
    assert_eq!(sha256(&copy), raw);
    assert!(out.join("n1/manifest.json").exists() && out.join("n1/sbom.spdx.json").exists());
    ok(&mut site.gt_image(["build", "--node", "n1", "--out", out.to_str().unwrap()]));
    let packed = out.join("n1/disk.img.zst");
    run("zstd", ["-dqf", packed.to_str().unwrap(), "-o", copy.to_str().unwrap()]);
    assert_eq!(sha256(&copy), raw);
    assert!(!image.exists(), "an image of other inputs does not stay beside the manifest");
}

fn mbr() {
    let site = site();
    site.edit("cluster.toml", "root = \"disk\"", "root = \"disk\"\npartition_table = \"mbr\"");
    ok(&mut site.gt_image(["build", "--node", "n1", "--raw"]));
    let image = site.path("images/out/n1/disk.img");
    let json = run("sfdisk", ["--json", image.to_str().unwrap()]);
    let table: serde_json::Value = serde_json::from_str(&json).unwrap();
    let table = &table["partitiontable"];
    assert_eq!(table["label"], "dos");
    assert_eq!(table["partitions"][0]["start"], 16384);
    assert_eq!(table["partitions"][0]["type"], "c");
    assert_eq!(table["partitions"][1]["start"], 1_064_960);
    assert_eq!(table["partitions"][1]["type"], "83");
}

fn reproducible() {
    let site = site();
    ok(&mut site.gt_image(["build", "--node", "n1", "--raw"]));
    let first = sha256(&site.path("images/out/n1/disk.img"));
    let other = self::site();
    // The cluster key is an input of the image: machine-id and host key follow from it.
    fs::create_dir(other.path("keys")).unwrap();
    fs::copy(site.path("secrets/cluster.key"), other.path("keys/k")).unwrap();
    fs::copy(site.path("images/mini.tar"), other.path("images/mini.tar")).unwrap();
    fs::copy(site.path("images/mini.toml"), other.path("images/mini.toml")).unwrap();
    let program = env!("CARGO_BIN_EXE_gt-image");
    let script = format!("umask 077; exec taskset -c 0 {program} --key keys/k build --node n1 --raw");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).current_dir(other.path("."));
    command.env("TZ", "Asia/Kathmandu").env("LC_ALL", "tr_TR.UTF-8").env("HOME", "/nonexistent");
    ok(&mut command);
    assert_eq!(sha256(&other.path("images/out/n1/disk.img")), first);
    for name in ["manifest.json", "sbom.spdx.json", "disk.bmap"] {
        let (a, b) = (site.path("images/out/n1"), other.path("images/out/n1"));
        assert_eq!(sha256(&a.join(name)), sha256(&b.join(name)), "{name}");
    }
}

fn unchanged() {
    let site = site();
    ok(&mut site.gt_image(["build", "--node", "n1"]));
    let image = site.path("images/out/n1/disk.img.zst");
    let before = fs::metadata(&image).unwrap().modified().unwrap();
    let report = ok(&mut site.gt_image(["build", "--node", "n1", "--json"]));
    assert_eq!(fs::metadata(&image).unwrap().modified().unwrap(), before);
    serde_json::from_str::<serde_json::Value>(&report).unwrap();
    fs::remove_file(&image).unwrap();
    ok(&mut site.gt_image(["build", "--node", "n1"]));
    assert!(image.exists(), "an output that was removed is made again");
}

fn questions() {
    let site = site();
    site.dump();
    let why = ok(&mut site.gt_image(["why", "/etc/greeting", "--node", "n1"]));
    assert!(why.contains("overlay role"), "{why}");
    let why = ok(&mut site.gt_image(["why", "/usr/bin", "--node", "n1", "--json"]));
    assert!(why.contains("base"), "{why}");
    fails(&mut site.gt_image(["why", "/no/such", "--node", "n1"]), 1);
    site.write("overlays/role/files/etc/plain", "changed\n");
    site.dump();
    let diff = ok(&mut site.gt_image(["diff", "n1~1", "n1"]));
    assert!(diff.contains("~ root:/etc/plain") && diff.contains("content:"), "{diff}");
    let list: serde_json::Value =
        serde_json::from_str(&ok(&mut site.gt_image(["inspect", "--node", "n1", "--json"]))).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let stderr = fails(&mut site.gt_image(["diff", "n1", "n2"]), 1);
    assert!(stderr.contains("hint: run `gt-image build --node n2`"), "{stderr}");
    let plan = ok(&mut site.gt_image(["plan", "--all"]));
    assert!(plan.contains("n1") && plan.contains("role") && plan.contains("kernel"), "{plan}");
    let hosts = ok(&mut site.gt_image(["known-hosts"]));
    assert!(hosts.contains("n1") && hosts.contains("10.9.0.11") && hosts.contains("ssh-ed25519 "), "{hosts}");
}

fn attributes() {
    let site = site();
    let root = site.path("root");
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    site.write("root/odd", "x");
    run("chown", ["4000000000:70000", &at("odd")]);
    run("chmod", ["6711", &at("odd")]);
    run("setfattr", ["-n", "user.note", "-v", "value", &at("odd")]);
    run("touch", ["-d", "2106-03-04 05:06:07.123456789", &at("odd")]);
    run("mknod", [&at("dev"), "b", "259", "70000"]);
    run("mkfifo", [&at("fifo")]);
    run("ln", [&at("odd"), &at("second")]);
    site.pack_base();
    let dump = site.dump();
    let odd = Site::line(&dump, "/odd").unwrap();
    assert!(odd.contains(" f 6711 4000000000 70000 4297122367.123456789 "), "{odd}");
    assert!(odd.ends_with("user.note=value"), "{odd}");
    assert!(Site::line(&dump, "/dev").unwrap().ends_with("259:70000"));
    assert!(Site::line(&dump, "/second").unwrap().ends_with(" h /odd"));
    assert!(Site::line(&dump, "/fifo").unwrap().contains(" p "));
}

fn secrets() {
    let site = site();
    site.write("secrets/token", "very-secret-token\n");
    ok(&mut site.gt_image(["build", "--node", "n1", "--raw"]));
    let out = site.path("images/out/n1");
    let manifest = fs::read_to_string(out.join("manifest.json")).unwrap();
    assert!(manifest.contains("/etc/token") && !manifest.contains("very-secret"), "{manifest}");
    let image = fs::read(out.join("disk.img")).unwrap();
    let has = |needle: &[u8]| image.windows(needle.len()).any(|w| w == needle);
    assert!(has(b"very-secret-token"), "the image has the secret");
    let dump = ok(&mut site.gt_image(["export", "--node", "n1", "--dump", "-"]));
    assert_eq!(Site::line(&dump, "/etc/token"), None, "the generation has none");
    let grep = std::process::Command::new("grep")
        .args(["-rl", "very-secret-token"])
        .arg(site.path("images/store"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "the store has none");
}

fn bad_descriptions() {
    for (file, old, new, wants) in [
        ("cluster.toml", "name = \"n1\"", "nme = \"n1\"", &["cluster.toml:19:1", "`nme`", "`name`"][..]),
        (
            "cluster.toml",
            "roles = [\"role\"]",
            "roles = [\"rolle\"]",
            &["cluster.toml:20", "`rolle`", "`role`"],
        ),
        ("cluster.toml", "10.9.0.11", "10.8.0.11", &["cluster.toml:21", "10.8.0.11", "10.9.0.0/24"]),
        ("cluster.toml", "root = \"disk\"", "root = \"dsk\"", &["cluster.toml:25", "dsk"]),
        ("overlays/role/overlay.toml", "modules", "moduls", &["overlays/role/overlay.toml:2:1", "`modules`"]),
        ("overlays/role/overlay.toml", "/etc/greeting", "/etc/gone", &["overlay.toml:9", "/etc/gone"]),
        ("overlays/role/overlay.toml", "/etc/greeting", "/etc/../greeting", &["overlay.toml:9", ".."]),
        (
            "overlays/role/files/etc/greeting",
            "vars.greeting",
            "vars.greting",
            &["files/etc/greeting:1", "greting"],
        ),
        ("overlays/role/files/etc/greeting", "{{ vars.greeting }}", "{{ vars", &["files/etc/greeting:1"]),
    ] {
        let site = site();
        site.edit(file, old, new);
        let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
        for want in wants {
            assert!(stderr.contains(want), "{new}: no {want:?} in\n{stderr}");
        }
    }
    let site = site();
    site.edit("cluster.toml", "10.9.0.11", "10.8.0.11");
    site.edit("cluster.toml", "model =", "modle =");
    let stderr = fails(&mut site.gt_image(["plan", "--all"]), 1);
    assert!(stderr.contains("10.8.0.11") && stderr.contains("modle"), "both in one report:\n{stderr}");
    let stderr = fails(&mut site.gt_image(["build", "--node", "fen", "--cluster", "/no/such.toml"]), 1);
    assert!(stderr.contains("/no/such.toml"), "{stderr}");
    let stderr = fails(gt_image().args(["plan", "--all"]).current_dir("/"), 1);
    assert!(stderr.contains("cluster.toml") && stderr.contains("hint:"), "{stderr}");
}

fn bad_layers() {
    let site = site();
    site.write("overlays/role/files/etc/passwd/x", "a directory over a file");
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
    assert!(stderr.contains("/etc/passwd") && stderr.contains("role"), "{stderr}");
    let site = self::site();
    site.write("overlays/role/files/usr/bin", "a file over a directory");
    site.edit("overlays/role/overlay.toml", "remove = [\"/usr/bin/tool\"]", "");
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
    assert!(stderr.contains("/usr/bin") && stderr.contains("directory"), "{stderr}");
}

fn bad_tarballs() {
    let site = site();
    let tar = fs::read(site.path("images/mini.tar")).unwrap();
    fs::write(site.path("images/mini.tar"), &tar[..tar.len() / 2]).unwrap();
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
    assert!(stderr.contains("mini.tar"), "{stderr}");
    for transform in ["s,.*/tool$,../../escape,", "s,.*/tool$,etc/passwd/x,"] {
        let site = self::site();
        let (root, file) = (site.path("root"), site.path("images/mini.tar"));
        let (root, file) = (root.to_str().unwrap(), file.to_str().unwrap());
        run("tar", ["-P", "-C", root, "--transform", transform, "-cf", file, "etc", "usr"]);
        let base = format!("kind = \"tar\"\npath = \"mini.tar\"\nsha256 = \"{}\"\n", sha256(file.as_ref()));
        site.write("images/mini.toml", &base);
        let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
        assert!(stderr.contains("mini.tar"), "{transform}: {stderr}");
    }
}

fn missing_artifact() {
    let site = site();
    let toml = fs::read_to_string(site.path("overlays/role/overlay.toml")).unwrap();
    let digest = "ab".repeat(32);
    let artifact = format!(
        "{toml}\n[[artifacts]]\nname = \"thing\"\nurl = \"http://127.0.0.1:9/thing_1.0.bin\"\nsha256 = \"{digest}\"\n\
         size = 10\nlicence = \"MIT\"\nextract = [{{ to = \"/usr/local/bin/thing\", mode = \"0755\" }}]\n"
    );
    site.write("overlays/role/overlay.toml", &artifact);
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
    for want in ["thing", "http://127.0.0.1:9/thing_1.0.bin", &digest, "artifacts"] {
        assert!(stderr.contains(want), "no {want} in\n{stderr}");
    }
    let output = ok(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--keep-going", "--json"]));
    assert!(output.contains("thing"), "{output}");
    let manifest = ok(&mut site.gt_image(["inspect", "n1", "--json"]));
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["incomplete"][0]["artifact"], "thing");
}

fn in_the_way() {
    let site = site();
    site.write("images/out/n1", "a file where a directory must be");
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--raw"]), 1);
    assert!(stderr.contains("images/out/n1"), "{stderr}");
    let site = self::site();
    fs::create_dir_all(site.path("images/out/n1/disk.img")).unwrap();
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--raw"]), 1);
    assert!(stderr.contains("disk.img"), "{stderr}");
    let left: Vec<_> = fs::read_dir(site.path("images/out/n1")).unwrap().collect();
    assert_eq!(left.len(), 2, "no half-written file stays beside the lock: {left:?}");
}

fn full_store() {
    let site = site();
    let store = site.path("small-store");
    fs::create_dir(&store).unwrap();
    let dir = store.to_str().unwrap();
    run("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", dir]);
    let result = std::panic::catch_unwind(|| {
        site.write("overlays/role/files/big", &"0123456789abcdef".repeat(64 * 1024));
        let args = ["build", "--node", "n1", "--no-image", "--store", dir];
        let stderr = fails(&mut site.gt_image(args), 1);
        assert!(stderr.contains("small-store") && stderr.contains("No space"), "{stderr}");
        run("mount", ["-o", "remount,size=64m", dir]);
        ok(&mut site.gt_image(args));
    });
    run("umount", [dir]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn gc() {
    let site = site();
    let before = site.dump();
    site.write("overlays/role/files/etc/plain", "changed\n");
    site.dump();
    site.write("overlays/role/files/etc/plain", "plain\n");
    let again = site.dump();
    assert_eq!(before, again);
    let freed = ok(&mut site.gt_image(["gc", "--keep", "1", "--layers", "--json"]));
    let freed: serde_json::Value = serde_json::from_str(&freed).unwrap();
    assert_eq!(freed["generations"], 1, "{freed}");
    assert_eq!(ok(&mut site.gt_image(["export", "--node", "n1", "--dump", "-"])), before);
}

fn at_once() {
    let site = site();
    let mut children: Vec<_> =
        (0..6).map(|_| site.gt_image(["build", "--node", "n1", "--raw"]).spawn().unwrap()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let dump = ok(&mut site.gt_image(["export", "--node", "n1", "--dump", "-"]));
    assert!(Site::line(&dump, "/etc/greeting").is_some());
}

/// The build is killed after ever longer times, so that each phase is hit.
fn killed() {
    let site = site();
    for millis in (5..400).step_by(35) {
        let mut child = site.gt_image(["build", "--node", "n1", "--raw"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ok(&mut site.gt_image(["build", "--node", "n1", "--raw"]));
    ok(&mut site.gt_image(["gc"]));
    assert_eq!(fs::read_dir(site.path("images/store/tmp")).unwrap().count(), 0);
    let names: Vec<_> =
        fs::read_dir(site.path("images/out/n1")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().starts_with(".gt-image-")), "{names:?}");
}
