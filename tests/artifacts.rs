//! Upstream files end to end: locked without being fetched, fetched, mirrored, carried by hand, unpacked.
//! Must not know: how they are had. Spec: design.md sections 5, 6 and 11, docs/artifacts.md.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::files::{Fault, Files};
use crate::support::site::{Site, noise, sha256};
use crate::support::{Tier, fails, ok, run, trial};

const FORMS: &[Tier] = &[Tier::Judge(&["tar", "zip", "dpkg-deb", "xz", "zstd", "python3"])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("artifacts::the_lock_is_the_same_without_a_network", &[], the_lock_is_the_same),
        trial("artifacts::a_host_that_is_down_costs_little", &[], a_host_that_is_down_costs_little),
        trial("artifacts::every_form_is_unpacked", FORMS, every_form_is_unpacked),
        trial("artifacts::a_wheel_comes_by_pip", &[Tier::Judge(&["python3"])], a_wheel_comes_by_pip),
        trial("artifacts::fetch_goes_on_where_it_ended", &[], fetch_goes_on_where_it_ended),
        trial("artifacts::fetch_tells_what_is_missing", &[], fetch_tells_what_is_missing),
        trial("artifacts::mirrors_come_first_and_are_not_trusted", &[], mirrors),
        trial("artifacts::import_knows_files_by_their_bytes", &[], import),
        trial("artifacts::export_serves_a_machine_without_a_network", &[], export),
        trial("artifacts::list_shows_all", &[], list_shows_all),
        trial("artifacts::what_is_made_here_is_the_overlays_own", &[], made_here),
    ]
}

/// An entry of `[[artifacts]]` for a file that upstream has.
fn entry(name: &str, url: &str, sha256: &str, extract: &str) -> String {
    format!(
        "\n[[artifacts]]\nname = \"{name}\"\nurl = \"{url}\"\nsha256 = \"{sha256}\"\nlicence = \"MIT\"\n\
         extract = [{extract}]\n"
    )
}

fn digest(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    sha256(file.path())
}

/// A site whose role has these files of a server as artifacts `a0`, `a1` and so on, each kept whole.
fn site(server: &Files, names: &[&str]) -> Site {
    let site = Site::new();
    let mut toml = String::from("description = \"A role for tests.\"\n");
    for (n, name) in names.iter().enumerate() {
        let to = format!("{{ to = \"/opt/{name}\" }}");
        toml += &entry(&format!("a{n}"), &server.url(name), &digest(&server.bytes(name)), &to);
    }
    site.write("overlays/role/overlay.toml", &toml);
    site
}

fn lock_of(site: &Site) -> String {
    fs::read_to_string(site.path("images/mini.lock")).unwrap()
}

fn the_lock_is_the_same() {
    let server = Files::new(&[("one-1.2.3.tgz", noise(1, 70_000)), ("two", noise(2, 5_000))]);
    let site = site(&server, &["one-1.2.3.tgz", "two"]);
    ok(&mut site.gt_image(["lock"]));
    let lock = lock_of(&site);
    assert!(lock.contains("filename = \"one-1.2.3.tgz\"") && lock.contains("licence = \"MIT\""), "{lock}");
    assert!(server.log().is_empty(), "the lock asked for {:?}", server.log());
    // Now with the files, without the server, and made anew: the same bytes.
    ok(&mut site.gt_image(["build", "--node", "n1", "--no-image"]));
    assert_eq!(lock_of(&site), lock, "a build that has the files changes nothing");
    let asked = server.log().len();
    drop(server);
    for arguments in [&["lock", "--keep-going"][..], &["lock", "--update"], &["lock", "--offline"]] {
        fs::remove_file(site.path("images/mini.lock")).unwrap();
        ok(site.gt_image([]).args(arguments));
        assert_eq!(lock_of(&site), lock, "{arguments:?}");
    }
    ok(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--locked", "--offline"]));
    assert_eq!(asked, 2);
    // Without the files: an error, or a node without the overlay; the lock stays as it is in both cases.
    fs::remove_dir_all(site.path("images/cache")).unwrap();
    ok(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--offline"]));
    fs::remove_dir_all(site.path("images/store")).unwrap();
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--offline"]), 1);
    assert!(stderr.contains("overlay `role` wants artifact `a0`"), "{stderr}");
    let report = ok(&mut site.gt_image([
        "build",
        "--node",
        "n1",
        "--no-image",
        "--offline",
        "--locked",
        "--keep-going",
        "--json",
    ]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["nodes"][0]["incomplete"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(lock_of(&site), lock);
    let toml = fs::read_to_string(site.path("overlays/role/overlay.toml")).unwrap();
    site.write("overlays/role/overlay.toml", &toml.replacen("licence = \"MIT\"\n", "", 1));
    let stderr = fails(&mut site.gt_image(["lock"]), 1);
    assert!(stderr.contains("overlays/role/overlay.toml:3:1: key `licence` is missing"), "{stderr}");
}

/// A dozen artifacts of one host, as a real description has them. With ten seconds of waiting for each
/// this took two minutes.
fn a_host_that_is_down_costs_little() {
    let site = Site::new();
    let mut toml = String::new();
    for n in 0..12 {
        let url = format!("http://gt-image.invalid/a{n}.tgz");
        toml += &entry(&format!("a{n}"), &url, &"ab".repeat(32), "{ to = \"/x\" }")
            .replace("/x", &format!("/x{n}"));
    }
    site.write("overlays/role/overlay.toml", &toml);
    let began = Instant::now();
    let report = ok(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--keep-going", "--json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["nodes"][0]["incomplete"].as_array().unwrap().len(), 12);
    // No test is timed for speed; this tells one wait for a host from twelve. A resolver takes up to 10 s.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

fn every_form_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let make = |script: &str| {
        run("sh", ["-c", &format!("cd {}; umask 022; {script}", dir.path().display())]);
    };
    make(
        "mkdir -p in/p/sub; printf tool >in/p/tool; chmod 755 in/p/tool; printf deep >in/p/sub/deep
         tar -C in -cf a.tar p; tar -C in -czf a.tgz p; tar -C in -cJf a.txz p; tar -C in --zstd -cf a.tar.zst p
         (cd in && zip -qr ../a.zip p)
         mkdir in/DEBIAN; printf 'Package: a\\nVersion: 1\\nArchitecture: all\\nMaintainer: a\\nDescription: a\\n' \
         >in/DEBIAN/control; dpkg-deb --root-owner-group -b in a.deb
         cd in; python3 -m zipfile -c ../a-1-py3-none-any.whl p",
    );
    let names = ["a.tar", "a.tgz", "a.txz", "a.tar.zst", "a.zip", "a.deb", "a-1-py3-none-any.whl"];
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (*name, fs::read(dir.path().join(name)).unwrap())).collect();
    let server = Files::new(&files);
    let site = Site::new();
    let mut toml = String::new();
    for (n, (name, bytes)) in files.iter().enumerate() {
        let extract = format!(
            "{{ from = \"p/tool\", to = \"/opt/{n}/tool\", mode = \"0700\" }}, {{ from = \"p/\", to = \"/srv/{n}\" }}, \
             {{ to = \"/whole/{name}\" }}"
        );
        toml += &entry(&format!("a{n}"), &server.url(name), &digest(bytes), &extract);
    }
    site.write("overlays/role/overlay.toml", &toml);
    let dump = site.dump();
    let line =
        |path: &str| Site::line(&dump, path).unwrap_or_else(|| panic!("no {path} in\n{dump}")).to_owned();
    for (n, name) in names.iter().enumerate() {
        assert!(line(&format!("/opt/{n}/tool")).contains(" f 0700 0 0 "), "{name}");
        assert!(line(&format!("/srv/{n}/tool")).contains(" f 0755 0 0 "), "{name}");
        assert!(line(&format!("/srv/{n}/sub/deep")).contains(" f 0644 0 0 "), "{name}");
        assert!(line(&format!("/whole/{name}")).contains(" f 0644 0 0 "), "{name}");
    }
    let why = ok(&mut site.gt_image(["why", "/srv/0/tool", "--node", "n1"]));
    assert!(why.contains("artifact a0 of overlay role"), "{why}");
    // What was unpacked once is not unpacked again, and the dump is the same.
    assert_eq!(site.dump(), dump);
    let wrong = toml.replacen("from = \"p/tool\"", "from = \"tool\"", 1);
    site.write("overlays/role/overlay.toml", &wrong);
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
    assert!(stderr.contains("has no file `tool`; it has `p/tool`"), "{stderr}");
}

/// pip looks into a folder here, as it would ask an index; its settings come from the environment.
fn a_wheel_comes_by_pip() {
    let site = Site::new();
    let script = "import zipfile
z = zipfile.ZipFile('wheels/demo_tool-1.5-py3-none-any.whl', 'w')
z.writestr('demo_tool/bin/tool', 'tool')
z.writestr('demo_tool-1.5.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: demo-tool\\nVersion: 1.5\\n')
z.writestr('demo_tool-1.5.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
z.writestr('demo_tool-1.5.dist-info/RECORD', '')
";
    site.write("make.py", script);
    fs::create_dir(site.path("wheels")).unwrap();
    run("sh", ["-c", &format!("cd {} && python3 make.py", site.path("").display())]);
    let wheel = site.path("wheels/demo_tool-1.5-py3-none-any.whl");
    let toml = format!(
        "[[artifacts]]\nname = \"demo\"\nlicence = \"MIT\"\nsha256 = \"{}\"\n\
         wheel = {{ package = \"demo-tool\", version = \"1.5\", platform = \"manylinux2014_aarch64\" }}\n\
         extract = [{{ from = \"demo_tool/bin/tool\", to = \"/usr/bin/demo\", mode = \"0755\" }}]\n",
        sha256(&wheel)
    );
    site.write("overlays/role/overlay.toml", &toml);
    let pip = |command: &mut std::process::Command| {
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", site.path("wheels"));
        ok(command)
    };
    pip(&mut site.gt_image(["lock"]));
    let lock = lock_of(&site);
    assert!(
        lock.contains("version = 2\n") && !lock.contains("filename"),
        "nobody knows its name yet: {lock}"
    );
    let out = pip(&mut site.gt_image(["artifacts", "fetch"]));
    assert!(out.starts_with("demo: "), "{out}");
    pip(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--locked"]));
    let dump = ok(&mut site.gt_image(["export", "--node", "n1", "--dump", "-"]));
    assert!(Site::line(&dump, "/usr/bin/demo").unwrap().contains(" f 0755 0 0 "));
    assert_eq!(lock_of(&site), lock);
    // Carried by hand: pip is not asked, and the file has any name.
    ok(&mut site.gt_image(["artifacts", "export", "usb"]));
    fs::remove_dir_all(site.path("images/cache")).unwrap();
    let out = ok(&mut site.gt_image(["artifacts", "import", "usb"]));
    assert_eq!(out, "demo: usb/demo_tool-1.5-manylinux2014_aarch64.whl\n");
    let text = ok(&mut site.gt_image(["artifacts", "list"]));
    assert!(text.starts_with("demo 1.5: here, "), "{text}");
    // Nowhere: the error names what a file of it is called.
    fs::remove_dir_all(site.path("images/cache")).unwrap();
    let mut command = site.gt_image(["artifacts", "fetch"]);
    command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", site.path("nothing"));
    let stderr = fails(&mut command, 1);
    assert!(stderr.contains("demo: pip: ") && stderr.contains("file   demo_tool-1.5-*.whl"), "{stderr}");
}

fn fetch_goes_on_where_it_ended() {
    let bytes = noise(3, 3 << 20);
    let server = Files::new(&[("big.tar.zst", bytes.clone()), ("small", noise(4, 900))]);
    let site = site(&server, &["big.tar.zst", "small"]);
    server.fault(Fault::Cut { after: 1 << 20, times: 1 });
    let out = ok(&mut site.gt_image(["artifacts", "fetch"]));
    assert!(out.starts_with("a0: ") && out.contains("\na1: "), "{out}");
    let ranges: Vec<Option<u64>> =
        server.log().iter().filter(|(p, _)| p == "big.tar.zst").map(|(_, r)| *r).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges[0].is_none() && ranges[1].is_some_and(|at| at > 0 && at <= 1 << 20), "{ranges:?}");
    // Across two runs as well: the first is killed by a server that only ever gives a part.
    fs::remove_dir_all(site.path("images/cache")).unwrap();
    server.fault(Fault::Cut { after: 1 << 20, times: usize::MAX });
    let mut child = site.gt_image(["artifacts", "fetch", "a0"]).spawn().unwrap();
    let asked = server.log().len();
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.log().len() < asked + 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.fault(Fault::None);
    let asked = server.log().len();
    ok(&mut site.gt_image(["artifacts", "fetch", "a0"]));
    assert!(server.log()[asked].1.is_some_and(|at| at > 0), "{:?}", &server.log()[asked..]);
    let row: Value = serde_json::from_str(&ok(&mut site.gt_image(["artifacts", "list", "--json"]))).unwrap();
    assert_eq!(fs::read(site.path(row[0]["path"].as_str().unwrap())).unwrap(), bytes);
    // What is here is not asked for again.
    let asked = server.log().len();
    ok(&mut site.gt_image(["artifacts", "fetch", "a0"]));
    assert_eq!(server.log().len(), asked);
}

fn fetch_tells_what_is_missing() {
    let server = Files::new(&[("one", noise(1, 500)), ("two", noise(2, 500)), ("three", noise(3, 500))]);
    let site = site(&server, &["one", "two", "three"]);
    server.replace("two", noise(9, 500));
    server.remove("one");
    let stderr = fails(&mut site.gt_image(["artifacts", "fetch", "--keep-going"]), 1);
    let wanted = [
        "error: 2 of 3 artifacts are missing",
        "a0: it is gone",
        "a1: it has other bytes",
        &server.url("two"),
        &digest(&noise(2, 500)),
        "images/cache/artifacts",
        "hint: bring the files by `gt-image artifacts import",
    ];
    for want in wanted {
        assert!(stderr.contains(want), "no {want} in\n{stderr}");
    }
    let rows = ok(&mut site.gt_image(["artifacts", "list", "--missing", "--json"]));
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a0", "a1"], "the third was fetched all the same");
    let stderr = fails(&mut site.gt_image(["artifacts", "fetch", "a9"]), 1);
    assert!(
        stderr.contains("no overlay has an artifact `a9`") && stderr.contains("did you mean `a0`?"),
        "{stderr}"
    );
}

fn mirrors() {
    let upstream = Files::new(&[("one", noise(1, 500)), ("two", noise(2, 500))]);
    let mirror = Files::new(&[("m/one", noise(1, 500)), ("m/two", noise(7, 500))]);
    let site = site(&upstream, &["one", "two"]);
    let table =
        format!("[artifacts]\nmirrors = {{ \"{}\" = \"{}\" }}\n\n[vars]", upstream.url(""), mirror.url("m/"));
    site.edit("cluster.toml", "[vars]", &table);
    ok(&mut site.gt_image(["artifacts", "fetch"]));
    let asked = |server: &Files| server.log().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    let mut both = asked(&mirror);
    both.sort();
    assert_eq!(both, ["m/one", "m/two"]);
    assert_eq!(asked(&upstream), ["two"], "the mirror's other bytes are not taken");
    // A mirror is no part of what a node is.
    let lock = || {
        ok(&mut site.gt_image(["lock", "--update"]));
        lock_of(&site)
    };
    let with = lock();
    site.edit("cluster.toml", &table, "[vars]");
    assert_eq!(lock(), with);
    for (toml, want) in [
        ("mirrors = { \"github\" = \"https://m/\" }", "cluster.toml:16:13: `github` begins no address"),
        ("mirrors = { \"https://h/\" = \"m\" }", "cluster.toml:16:28: `m` is no mirror"),
        ("mirrors = { \"https://h\" = \"https://m/\" }", "`https://h`: a prefix and its mirror end in `/`"),
        ("mirror = {}", "unknown key `mirror`; did you mean `mirrors`?"),
    ] {
        let text = fs::read_to_string(site.path("cluster.toml")).unwrap();
        site.edit("cluster.toml", "[vars]", &format!("[artifacts]\n{toml}\n[vars]"));
        let stderr = fails(&mut site.gt_image(["plan", "--all"]), 1);
        assert!(stderr.contains(want), "{toml}: {stderr}");
        site.write("cluster.toml", &text);
    }
}

fn import() {
    let server = Files::new(&[("one.tgz", noise(1, 500)), ("two.tgz", noise(2, 500))]);
    let site = site(&server, &["one.tgz", "two.tgz"]);
    site.write_bytes("stick/deep/renamed (1).download", &noise(1, 500));
    site.write_bytes("stick/two.tgz", &noise(9, 500));
    site.write_bytes("stick/holiday.jpg", b"JFIF");
    site.write_bytes("stick/.hidden/one.tgz", &noise(1, 500));
    std::os::unix::fs::symlink("/", site.path("stick/root")).unwrap();
    let out = ok(&mut site.gt_image(["artifacts", "import", "stick"]));
    assert!(out.contains("a0: stick/deep/renamed (1).download\n"), "{out}");
    assert!(
        out.contains("not known: stick/two.tgz is named as the file of `a1`, but has other bytes"),
        "{out}"
    );
    assert!(out.contains("not known: stick/holiday.jpg"), "{out}");
    assert_eq!(out.lines().count(), 5, "links and hidden files are left alone: {out}");
    assert!(site.path("stick/deep/renamed (1).download").exists(), "the file was moved");
    // Named by hand, a file that is none is an error; the others are taken all the same.
    site.write_bytes("two.bin", &noise(2, 500));
    let stderr = fails(&mut site.gt_image(["artifacts", "import", "two.bin", "stick/holiday.jpg"]), 1);
    assert!(stderr.contains("1 file that was named is no artifact"), "{stderr}");
    ok(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--offline"]));
    assert!(server.log().is_empty());
    let stderr = fails(&mut site.gt_image(["artifacts", "import", "nothing"]), 1);
    assert!(stderr.contains("looking into `nothing`"), "{stderr}");
    let rows = ok(&mut site.gt_image(["artifacts", "import", "two.bin", "--json"]));
    let rows: Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows[0]["artifact"], "a1");
}

fn export() {
    let server = Files::new(&[("x/install.yaml", noise(1, 500)), ("y/install.yaml", noise(2, 500))]);
    let site = site(&server, &["x/install.yaml", "y/install.yaml"]);
    let stderr = fails(&mut site.gt_image(["artifacts", "export", "usb"]), 1);
    assert!(stderr.contains("2 of 2 artifacts are missing"), "{stderr}");
    ok(&mut site.gt_image(["artifacts", "fetch"]));
    ok(&mut site.gt_image(["artifacts", "export", "usb"]));
    run("sh", ["-c", &format!("cd {} && sha256sum -c --strict SHA256SUMS", site.path("usb").display())]);
    assert_eq!(fs::read_to_string(site.path("usb/SHA256SUMS")).unwrap().lines().count(), 2);
    // Another machine, without a network and with an empty cache: by import, or as the description's folder.
    for way in ["import", "folder"] {
        fs::remove_dir_all(site.path("images/cache")).unwrap();
        fs::remove_dir_all(site.path("images/store")).ok();
        match way {
            "import" => _ = ok(&mut site.gt_image(["artifacts", "import", "usb"])),
            _ => site.edit("cluster.toml", "[vars]", "[artifacts]\nfolder = \"usb\"\n[vars]"),
        }
        ok(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--offline"]));
    }
    fs::rename(site.path("usb"), site.path("gone")).unwrap();
    site.edit("overlays/role/overlay.toml", "to = \"/opt/x/", "to = \"/opt/z/");
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--offline"]), 1);
    assert!(stderr.contains("the folder `usb` of `[artifacts]` is not there"), "{stderr}");
}

fn list_shows_all() {
    let server =
        Files::new(&[("v1.32.3%2Bk3s1/k3s-arm64", noise(1, 2048)), ("two_2.0.4_linux.zip", noise(2, 10))]);
    let site = site(&server, &["v1.32.3%2Bk3s1/k3s-arm64", "two_2.0.4_linux.zip"]);
    let spare = entry("spare", "http://127.0.0.1:9/spare", &"ab".repeat(32), "{ to = \"/spare\" }");
    site.write(
        "overlays/spare/overlay.toml",
        &spare.replace("licence", "size = 77\nversion = \"7\"\nlicence"),
    );
    ok(&mut site.gt_image(["artifacts", "fetch", "a0"]));
    let text = ok(&mut site.gt_image(["artifacts", "list"]));
    let want = "a0 1.32.3+k3s1: here, 2.00 KiB, MIT\n  overlay role, on n1\n  http://";
    assert!(text.starts_with(want), "{text}");
    assert!(text.contains("\na1 2.0.4: missing, size not known, MIT\n"), "{text}");
    assert!(text.contains("\nspare 7: missing, 77 B, MIT\n  overlay spare, on no node\n"), "{text}");
    let rows: Value = serde_json::from_str(&ok(&mut site.gt_image(["artifacts", "list", "--json"]))).unwrap();
    assert_eq!(rows[0]["nodes"], serde_json::json!(["n1"]));
    assert_eq!(
        (&rows[1]["path"], &rows[1]["size"], &rows[2]["size"]),
        (&Value::Null, &Value::Null, &77.into())
    );
    // `list` looks at files and repairs none.
    let path = site.path(rows[0]["path"].as_str().unwrap());
    fs::write(&path, "rotten").unwrap();
    let text = ok(&mut site.gt_image(["artifacts", "list", "--missing"]));
    assert!(text.starts_with("a0 1.32.3+k3s1: missing") && path.exists(), "{text}");
}

/// A file that a command makes: a node follows from its bytes, as from those in `files/`, and the lock knows nothing
/// of it. While it is missing, the command is told.
fn made_here() {
    let site = Site::new();
    let toml = "[[artifacts]]\nname = \"own\"\npath = \"own.bin\"\nmake = \"./make it\"\nlicence = \"MIT\"\n\
                extract = [{ to = \"/opt/own\" }]\n";
    site.write("overlays/role/overlay.toml", toml);
    let stderr = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
    assert!(stderr.contains("overlay `role` wants artifact `own`"), "{stderr}");
    assert!(stderr.contains("overlays/role/own.bin` is not there"), "{stderr}");
    assert!(stderr.contains("hint: run `./make it`, or use `--keep-going`"), "{stderr}");
    let without = |site: &Site| {
        let mut command = site.gt_image(["build", "--node", "n1", "--no-image", "--keep-going", "--json"]);
        let report: Value = serde_json::from_str(&ok(&mut command)).unwrap();
        assert_eq!(report["nodes"][0]["incomplete"][0]["overlay"], "role", "{report:#}");
        assert_eq!(report["nodes"][0]["incomplete"][0]["source"], "own.bin, which `./make it` makes");
        report["nodes"][0]["generation"].as_str().unwrap().to_owned()
    };
    let first = without(&site);
    // Where the file is not makes no difference to what a node is.
    let elsewhere = Site::new();
    let from = format!("{}/.", site.path("").display());
    run("cp", ["-a", from.as_str(), elsewhere.path("").to_str().unwrap()]);
    run("rm", ["-rf", elsewhere.path("images/store").to_str().unwrap()]);
    assert_eq!(without(&elsewhere), first);
    let lock = lock_of(&site);
    assert!(!lock.contains("artifact"), "{lock}");
    let mut seen = Vec::new();
    for bytes in ["one", "two", "one"] {
        site.write("overlays/role/own.bin", bytes);
        ok(&mut site.gt_image(["build", "--node", "n1", "--no-image", "--locked"]));
        let dump = site.dump();
        let line = Site::line(&dump, "/opt/own").unwrap();
        assert!(line.contains(&digest(bytes.as_bytes())), "{line}");
        seen.push(dump);
    }
    assert!(seen[0] == seen[2] && seen[0] != seen[1]);
    assert_eq!(lock_of(&site), lock);
}
