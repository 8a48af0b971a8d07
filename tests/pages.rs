//! The pages of docs/: those that are made from overlays and from the program are current, and the example of the
//! one that people write overlays by is one that builds.
//! Must not know: how pages are made; links, which are `site`'s. Spec: docs/writing-an-overlay.md.

use std::fs;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::site::Site;
use crate::support::{fails, gt_image, ok, repository, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("pages::the_overlays_pages_are_current", &[], pages_are_current),
        trial("pages::the_reference_is_current", &[], reference_is_current),
        trial("pages::stale_pages_are_told_and_renewed", &[], stale_pages),
        trial("pages::the_example_of_the_docs_builds", &[], example_builds),
    ]
}

fn pages_are_current() {
    are_current("overlays", "docs/overlays");
}

fn reference_is_current() {
    are_current("man", "docs/reference");
}

fn are_current(command: &str, folder: &str) {
    let mut check = gt_image();
    let output =
        check.current_dir(repository()).args([command, "--markdown", folder, "--check"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\nrun `./do {command} --markdown {folder}`");
}

fn stale_pages() {
    let site = Site::new();
    site.write("overlays/role/overlay.toml", "description = \"One | two.\"\nlistens = [\"80/tcp a\"]\n");
    site.write("overlays/old/overlay.toml", "");
    let out = ok(&mut site.gt_image(["overlays", "--markdown", "docs"]));
    assert_eq!(out, "docs/README.md\ndocs/old.md\ndocs/role.md\n");
    let index = fs::read_to_string(site.path("docs/README.md")).unwrap();
    assert!(index.contains("| [role](role.md) | One \\| two. | 80/tcp |\n"), "{index}");
    ok(&mut site.gt_image(["overlays", "--markdown", "docs", "--check"]));
    assert_eq!(
        ok(&mut site.gt_image(["overlays", "--markdown", "docs"])),
        "",
        "what is current is left alone"
    );
    fs::remove_dir_all(site.path("overlays/old")).unwrap();
    site.edit("overlays/role/overlay.toml", "80/tcp a", "81/udp b");
    site.write("docs/by-hand.md", "# Mine\n");
    let stderr = fails(&mut site.gt_image(["overlays", "--markdown", "docs", "--check"]), 1);
    assert!(
        stderr.contains("`docs/README.md`\n         `docs/old.md`\n         `docs/role.md`\n"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: run `gt-image overlays --markdown docs`"), "{stderr}");
    ok(&mut site.gt_image(["overlays", "--markdown", "docs"]));
    assert!(!site.path("docs/old.md").exists() && site.path("docs/by-hand.md").exists());
    let rows: Value = serde_json::from_str(&ok(&mut site.gt_image(["overlays", "--json"]))).unwrap();
    assert_eq!(rows[0]["listens"], serde_json::json!(["81/udp"]));
    assert_eq!(rows[0]["nodes"], serde_json::json!(["n1"]));
    let text = ok(&mut site.gt_image(["overlays"]));
    assert_eq!(text, "role: One | two.\n  on n1\n  listens on 81/udp\n");
    for (listens, want) in [
        ("80", "`80` is no port"),
        ("80/http x", "is no port"),
        ("0/tcp x", "is no port"),
        ("9-8/tcp x", "is no port"),
        ("80/tcp", "is no port"),
    ] {
        site.write("overlays/role/overlay.toml", &format!("listens = [\"{listens}\"]\n"));
        let stderr = fails(&mut site.gt_image(["plan", "--all"]), 1);
        assert!(stderr.contains("overlays/role/overlay.toml:1:12: ") && stderr.contains(want), "{stderr}");
    }
}

/// The files of a page: a line with nothing but a path as code and a colon, then a block.
fn files(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(path) = line.strip_prefix("`overlays/").and_then(|rest| rest.strip_suffix("`:")) else {
            continue;
        };
        assert_eq!(lines.next(), Some(""), "{path}");
        assert!(lines.next().unwrap().starts_with("```"), "{path}");
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push((format!("overlays/{path}"), format!("{}\n", text.join("\n"))));
    }
    found
}

fn example_builds() {
    let page = fs::read_to_string(repository().join("docs/writing-an-overlay.md")).unwrap();
    let site = Site::new();
    let files = files(&page);
    assert_eq!(files.len(), 3, "{files:?}");
    for (path, text) in &files {
        site.write(path, text);
    }
    let cluster =
        fs::read_to_string(site.path("cluster.toml")).unwrap().replace("[\"role\"]", "[\"role\", \"hello\"]");
    let (_, node) = cluster.split_once("[[node]]").unwrap();
    let second =
        node.replace("n1", "n2").replace(".11", ".12").replace("00:01", "00:02").replace("0001", "0002");
    site.write("cluster.toml", &format!("{cluster}\n[[node]]{second}"));
    let dump = site.dump();
    let line = |path: &str| Site::line(&dump, path).unwrap_or_else(|| panic!("no {path} in\n{dump}"));
    assert!(line("/etc/systemd/system/multi-user.target.wants/hello.service").contains("hello.service"));
    assert!(line("/var/lib/hello").contains(" d 0750 979 979 "));
    let tar = site.path("root.tar");
    ok(&mut site.gt_image(["export", "--node", "n1", "--tar", tar.to_str().unwrap()]));
    let cat = |path: &str| run("tar", ["-xOf", tar.to_str().unwrap(), path]);
    let want =
        "<h1>n1 of test</h1>\n<ul>\n<li><a href=\"http://10.9.0.12:8090/page.html\">n2</a></li>\n</ul>\n";
    assert_eq!(cat("./etc/hello/page.html"), want);
    for check in
        ["01-hello-the-page-names-this-node", "02-hello-the-counter-is-on-gt-state-or-was-told-to-be"]
    {
        let script = site.path(check);
        fs::write(&script, cat(&format!("./usr/lib/gt/checks/{check}"))).unwrap();
        run("sh", ["-n", script.to_str().unwrap()]);
    }
    // What the page says of the other commands holds for its example too.
    let why = ok(&mut site.gt_image(["why", "/etc/hello/page.html", "--node", "n1"]));
    assert!(why.contains("overlay hello"), "{why}");
    ok(&mut site.gt_image(["overlays", "--markdown", "docs/overlays"]));
    let hello = fs::read_to_string(site.path("docs/overlays/hello.md")).unwrap();
    assert!(
        hello.contains("| `8090/tcp` | the page |") && hello.contains("- the page names this node"),
        "{hello}"
    );
}
