//! The command line as a person and a script meet it: help, output, errors, exit status.
//! Must not know: how the commands work. Spec: design.md section 11, style.md section 5.
//!
//! What is printed is compared with `tests/golden/cli/*.txt`; `GT_IMAGE_BLESS=1` rewrites, and the diff is read. Help
//! has its golden in docs/reference.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::site::Site;
use crate::support::{Tier, binary, fails, gt_image, ok, repository, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("cli::usage_errors_leave_with_1", &[], usage_errors_leave_with_1),
        trial("cli::help_fits_80_columns_and_has_examples", &[], help_fits),
        trial("cli::help_is_as_the_reference_has_it", &[], help_is_the_reference),
        trial("cli::usage_is_as_the_golden_has_it", &[], usage),
        trial("cli::a_bad_description_is_told_as_the_golden_has_it", &[], bad_descriptions),
        trial("cli::a_day_is_as_the_golden_has_it", &[], a_day),
        trial("cli::what_is_not_there_is_told_as_the_golden_has_it", &[], not_there),
        trial("cli::colours_are_for_terminals", &[Tier::Judge(&["script"])], colours),
    ]
}

fn usage_errors_leave_with_1() {
    for args in [&["nonsense"][..], &["build"], &["build", "--node"], &["--colour"]] {
        let stderr = fails(gt_image().args(args), 1);
        assert!(stderr.contains("error:"), "{args:?}: {stderr}");
    }
}

/// Every command with its words, the program itself first; clap's own `help` is none of ours.
fn every_command() -> Vec<(Vec<String>, clap::Command)> {
    fn walk(command: &clap::Command, words: &[String], found: &mut Vec<(Vec<String>, clap::Command)>) {
        found.push((words.to_vec(), command.clone()));
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            walk(sub, &[words, &[sub.get_name().to_owned()]].concat(), found);
        }
    }
    let mut root = gt_image::cli::command().term_width(80);
    root.build();
    let mut found = Vec::new();
    walk(&root, &[], &mut found);
    found
}

fn help_fits() {
    let all = every_command();
    assert!(all.len() > 30, "{} commands", all.len());
    for (words, mut command) in all {
        for text in [command.render_help().to_string(), command.render_long_help().to_string()] {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{words:?}: {line}");
            }
            let (_, examples) =
                text.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{words:?}: no example"));
            let name = [&["gt-image".to_owned()], &words[..]].concat().join(" ");
            assert!(examples.contains(&name), "{words:?}: no example of `{name}`");
        }
    }
}

/// The pages show what the program prints.
fn help_is_the_reference() {
    for (words, _) in every_command() {
        let page = words.first().map_or("README", String::as_str);
        let page = fs::read_to_string(repository().join(format!("docs/reference/{page}.md"))).unwrap();
        let help = ok(gt_image().args(&words).arg("--help"));
        let name = [&["gt-image".to_owned()], &words[..]].concat().join(" ");
        let lines: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        assert!(page.contains(&format!("# {name}\n\n```text\n{lines}```\n")), "{name}: {help}");
    }
}

/// Runs commands one after the other, and compares all that they print with a golden.
fn transcript(golden: &str, site: &Site, lines: &[&str]) {
    let mut text = String::new();
    for line in lines {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("gt-image"), "{line}");
        let output = gt_image().args(words).current_dir(site.path(".")).output().unwrap();
        let status = output.status.code().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}$ {line}\n{out}"));
        if !err.is_empty() {
            text.push_str(&format!("--- stderr\n{err}"));
        }
        text.push_str(&format!("--- status {status}\n"));
    }
    let place = fs::canonicalize(site.path(".")).unwrap();
    let text = steady(&text.replace(place.to_str().unwrap(), "SITE"));
    let path = repository().join("tests/golden/cli").join(format!("{golden}.txt"));
    if std::env::var_os("GT_IMAGE_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    if wanted != text {
        let (mut old, mut new) = (wanted.lines(), text.lines());
        let mut number = 1;
        let (old, new) = loop {
            match (old.next(), new.next()) {
                (a, b) if a != b => break (a.unwrap_or("nothing more"), b.unwrap_or("nothing more")),
                _ => number += 1,
            }
        };
        let path = path.display();
        panic!(
            "{path}:{number}:\n  was {old}\n  is  {new}\nGT_IMAGE_BLESS=1 writes it anew; all of it:\n{text}"
        );
    }
}

/// What differs from machine to machine and from run to run, out of the way: digests, keys, and how long a task took.
fn steady(text: &str) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let took = |line: &str| line.strip_suffix(" s").is_some_and(|l| l.ends_with(digit));
    // A build's line ends with how long it took, in brackets.
    let short = |line: &str| match line.rsplit_once(" (") {
        Some((text, time)) if time.starts_with(digit) && time.ends_with(" s)") => format!("{text} (TIME)"),
        _ => line.to_owned(),
    };
    let lines = text.lines().filter(|line| !took(line)).map(short);
    let mut out = String::new();
    for line in lines {
        let mut word = String::new();
        for c in line.chars().chain(['\n']) {
            if c.is_ascii_alphanumeric() || c == '+' || c == '/' {
                word.push(c);
                continue;
            }
            let hex = word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit());
            out.push_str(match (hex, word.starts_with("AAAAC3")) {
                (true, _) => "DIGEST",
                (_, true) => "KEY",
                _ => &word,
            });
            word.clear();
            out.push(c);
        }
    }
    out
}

fn usage() {
    let lines = [
        "gt-image",
        "gt-image frobnicate",
        "gt-image biuld --node n1",
        "gt-image build",
        "gt-image build --node",
        "gt-image build --nodes n1",
        "gt-image build --node n1 --all",
        "gt-image export --node n1",
        "gt-image serve --dhcp maybe",
        "gt-image gc --keep many",
        "gt-image man --check",
        "gt-image --version",
    ];
    transcript("usage", &Site::new(), &lines);
}

fn bad_descriptions() {
    let site = Site::new();
    let again = ["gt-image plan --all"];
    site.edit("cluster.toml", "name = \"n1\"", "nme = \"n1\"");
    site.edit("cluster.toml", "\"role\"", "\"rolle\"");
    site.edit("cluster.toml", "10.9.0.11", "10.8.0.11");
    transcript("bad-cluster", &site, &again);
    let site = Site::new();
    site.write(
        "overlays/role/overlay.toml",
        "pakages = [\"less\"]\nincludes = [\"rol\"]\n\n[[files]]\npath = \"/etc/gone\"\ntemplate = true\n",
    );
    transcript("bad-overlay", &site, &again);
    let site = Site::new();
    site.write("overlays/role/overlay.toml", "[[files]]\npath = \"/etc/motd\"\ntemplate = true\n");
    site.write("overlays/role/files/etc/motd", "welcome\nto {{ node.nme }}\n");
    transcript("bad-template", &site, &["gt-image build --node n1 --no-image"]);
    let site = Site::new();
    site.write("cluster.toml", "[cluster\n");
    transcript("no-toml", &site, &again);
    let site = Site::new();
    site.write("images/mini.toml", "kind = \"tarball\"\npth = \"mini.tar\"\n");
    transcript("bad-base", &site, &again);
}

/// What somebody does in a day, with a slip now and then.
fn a_day() {
    let site = Site::new();
    site.write("overlays/role/files/etc/plain", "plain\n");
    let lines = [
        "gt-image plan --all",
        "gt-image plan --node n1",
        "gt-image plan --node n1 --json",
        "gt-image overlays",
        "gt-image lock",
        "gt-image inspect",
        "gt-image build --node n1 --no-image",
        "gt-image build --node n1 --no-image",
        "gt-image inspect --node n1",
        "gt-image inspect --node n1 --json",
        "gt-image why /etc/plain --node n1",
        "gt-image why /usr/bin/tool --node n1 --json",
        "gt-image diff n1 n1",
        "gt-image verify --node n1",
        "gt-image verify --node n1~3",
        "gt-image verify --node n1 --image no/such.img",
        "gt-image flash --node n1 --device no/such.img",
        "gt-image why /etc/nothing --node n1",
        "gt-image why /etc/plain --node n",
        "gt-image inspect n1@zz",
        "gt-image artifacts list",
        "gt-image known-hosts",
        "gt-image rollback --node n1 --dry-run",
        "gt-image cards",
        "gt-image cards --json",
        "gt-image gc --json",
    ];
    transcript("a-day", &site, &lines);
}

fn not_there() {
    let site = Site::new();
    site.edit("cluster.toml", "dhcp = \"proxy\"", "dhcp = \"proxy\"\nreset = [\"false\"]");
    let lines = [
        "gt-image build --node n2",
        "gt-image build --node nn1",
        "gt-image build --node n1 --base nothing --no-image",
        "gt-image plan --all --cluster no/such.toml",
        "gt-image inspect n1",
        "gt-image export --node n1 --tar -",
        "gt-image diff n1 n2",
        "gt-image why /etc/hosts --node n1",
        "gt-image known-hosts",
        "gt-image verify --node n1",
        "gt-image verify --node n1 --image no/such.img",
        "gt-image flash --node n1 --device no/such",
        "gt-image rollback --node n1",
        "gt-image status --server 127.0.0.1:1",
        "gt-image reset --node n1 --no-wait --server 127.0.0.1:1",
        "gt-image build --node n1 --base min --no-image",
        "gt-image diff base:mini n1",
        "gt-image adopt d8:3a:dd:00:00:09 --server 127.0.0.1:1",
        "gt-image artifacts fetch consul",
        "gt-image artifacts import no/such",
        "gt-image cache export folder",
        "gt-image overlays --markdown pages --check",
    ];
    transcript("not-there", &site, &lines);
    let empty = tempfile::tempdir().unwrap();
    let stderr = fails(gt_image().args(["plan", "--all"]).current_dir(empty.path()), 1);
    assert!(stderr.contains("there is no `cluster.toml`") && stderr.contains("hint: "), "{stderr}");
}

/// On a terminal and only there, unless somebody says otherwise.
fn colours() {
    let shown = |line: &str, terminal: bool, plain: bool| {
        let program = binary().into_string().unwrap();
        let line = format!("{program} {line} 2>&1 || true");
        // script(1) runs a command on a terminal of its own.
        let mut command = Command::new(if terminal { "script" } else { "sh" });
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        if plain {
            command.env("NO_COLOR", "1");
        }
        match terminal {
            true => command.args(["-qec", &line, "/dev/null"]),
            false => command.args(["-c", &line]),
        };
        ok(&mut command).contains("\x1b[")
    };
    for line in ["frobnicate", "build --help"] {
        assert!(shown(line, true, false), "{line}: no colours on a terminal");
        assert!(!shown(line, true, true), "{line}: NO_COLOR");
        assert!(!shown(line, false, false), "{line}: not on a terminal");
        assert!(!shown(&format!("--color never {line}"), true, false), "{line}: --color never");
        assert!(shown(&format!("--color always {line}"), false, false), "{line}: --color always");
    }
}
