//! Commands that are named to people: in hints, in help, in the docs. Each is parsed by the program's own command
//! line, so that none names a command or an option that is not there.
//! Must not know: what commands do. Nothing is run.
//! Spec: style.md section 5: a hint can be pasted as it is.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use libtest_mimic::Trial;

use crate::site::files;
use crate::support::{repository, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("commands::a_wrong_command_is_noticed", &[], wrong_ones_are_noticed),
        trial("commands::all_that_the_program_names_are_there", &[], of_the_program),
        trial("commands::all_that_the_docs_name_are_there", &[], of_the_docs),
    ]
}

/// A command line that somebody is told, and where.
struct Told {
    line: String,
    place: String,
}

fn of_the_program() {
    let mut told = Vec::new();
    for folder in ["builder/src", "netboot/src"] {
        for path in files(&repository().join(folder), "rs") {
            let text = strings(&fs::read_to_string(&path).unwrap());
            // Examples stand in strings, two blanks from the margin.
            let lines = text.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
            told.extend(spans(&text).chain(examples(lines)).map(|line| Told { line, place: name(&path) }));
        }
    }
    judge(&told, 100);
}

fn of_the_docs() {
    let mut pages = files(&repository().join("docs"), "md");
    pages.push(repository().join("README.md"));
    let mut told = Vec::new();
    for path in pages {
        // In a table a bar must be escaped.
        let text = fs::read_to_string(&path).unwrap().replace("\\|", "|");
        let text = text.replace("\\\n", " ");
        let mut code = false;
        let fenced = text.lines().filter(|line| {
            code ^= line.trim_start().starts_with("```");
            code
        });
        told.extend(spans(&text).chain(examples(fenced)).map(|line| Told { line, place: name(&path) }));
    }
    judge(&told, 200);
}

fn wrong_ones_are_noticed() {
    let wrong =
        ["gt-image frobnicate", "sudo gt-image build --nodes fenn", "./do artifacts get x", "./do plan -x"];
    for line in wrong {
        assert!(fault(line).is_some(), "{line}");
    }
    let right =
        ["gt-image", "sudo gt-image build --node NAME", "gt-image serve --dhcp HOW", "./do test", "make"];
    for line in right {
        assert_eq!(fault(line), None, "{line}");
    }
}

fn name(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().display().to_string()
}

/// `at_least` guards against a search that finds nothing any more.
fn judge(told: &[Told], at_least: usize) {
    let lines: Vec<(&Told, String)> =
        told.iter().flat_map(|told| commands(&told.line).into_iter().map(move |line| (told, line))).collect();
    assert!(lines.len() >= at_least, "only {} commands were found", lines.len());
    let faults: Vec<String> = lines
        .iter()
        .filter_map(|(told, line)| Some(format!("{}: `{line}`: {}", told.place, fault(line)?)))
        .collect();
    assert!(faults.is_empty(), "these commands are not there:\n{}", faults.join("\n"));
}

/// A source's text without comments, and with its strings of several lines joined.
fn strings(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| joined + part.trim_start())
}

/// What stands in backticks, line by line.
fn spans(text: &str) -> impl Iterator<Item = String> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned)
}

/// Lines that are commands, in help and in blocks of code; what explains one stands two blanks behind it.
fn examples<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    lines.filter_map(|line| {
        let starts = ["gt-image ", "sudo gt-image ", "./do ", "sudo ./do "];
        let line = line.trim_start().split("  ").next()?.split(" #").next()?;
        let line = line.trim_end_matches([')', '"', ']']).to_owned();
        starts.iter().any(|start| line.starts_with(start)).then_some(line)
    })
}

/// Our commands in a line of shell, with placeholders where a program would put something.
fn commands(line: &str) -> Vec<String> {
    let mut line = line.to_owned();
    while let Some((before, rest)) = line.split_once('{') {
        let after = rest.split_once('}').map_or("", |(_, after)| after);
        line = format!("{before}X{after}");
    }
    for end in [" && ", " | ", "; ", " > ", " >> ", ", "] {
        line = line.replace(end, "\n");
    }
    let parts = line.lines().map(|part| part.trim().to_owned());
    parts.filter(|part| words(part).is_some()).collect()
}

/// The words of one of our commands, as they were meant to be typed: without the marks of what may be left out.
fn words(line: &str) -> Option<Vec<String>> {
    let clean = |word: &str| word.trim_matches(['[', ']', '…', '\'', '"']).replace("...", "");
    let all = line.split_whitespace().map(clean).filter(|word| !word.is_empty()).collect::<Vec<_>>();
    let start = usize::from(all.first()? == "sudo");
    let words = all.get(start..)?.to_vec();
    ["gt-image", "./do"].contains(&words.first()?.as_str()).then_some(words)
}

/// Why a command would not be understood; nothing when it would, or when it only leaves something out.
fn fault(line: &str) -> Option<String> {
    let mut words = words(line)?;
    if words[0] == "./do" {
        if words.get(1).is_none_or(|word| own_commands().contains(word) || is_placeholder(word)) {
            return None;
        }
        words[0] = "gt-image".into();
    }
    let error = gt_image::cli::command().try_get_matches_from(&words).err()?;
    let told = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => is_placeholder(text),
        _ => false,
    };
    let fine = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::MissingRequiredArgument => true,
        ErrorKind::InvalidSubcommand => told(ContextKind::InvalidSubcommand),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => told(ContextKind::InvalidValue),
        _ => false,
    };
    (!fine).then(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// `NODE`, `N`, `HOW`, `<node>`, `proxy|off`: something else is meant to stand there.
fn is_placeholder(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase()) || word.contains(['<', '|'])
}

/// The commands of `do` that are not the program's.
fn own_commands() -> Vec<String> {
    let script = fs::read_to_string(repository().join("do") as PathBuf).unwrap();
    script.lines().filter_map(|line| line.strip_suffix(')')).map(str::to_owned).collect()
}
