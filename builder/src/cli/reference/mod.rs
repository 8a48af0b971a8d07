//! `gt-image man --markdown`: the reference in docs/, a page for each command and each described file.
//! Must not know: what commands do. Help comes from clap's tree, keys from the schemas of the types.
//! Spec: CommonMark with tables.

mod outputs;
mod schema;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Command;
use serde_json::Value;

use super::pages::Pages;
use outputs::Output;

const MARK: &str = "<!-- Generated from the program by `gt-image man --markdown`; do not edit. -->";

/// Help is for terminals of this width, whatever terminal makes the page.
const WIDTH: usize = 80;

/// Files that people write, by page, with the schema beside the pages.
fn files() -> [(&'static str, &'static str, Value); 2] {
    [
        ("cluster-toml", "cluster", crate::diagnostic::schema::<crate::cluster::wire::File>()),
        ("overlay-toml", "overlay", crate::diagnostic::schema::<crate::overlay::wire::File>()),
    ]
}

/// All pages of the reference.
pub fn pages() -> Pages {
    let (mut root, outputs) = (super::command().term_width(WIDTH), outputs::all());
    // Fills in what clap adds by itself, and the full name of each subcommand.
    root.build();
    let mut texts = BTreeMap::from([("README.md".into(), index(&root))]);
    for command in shown(&root) {
        let mut page = format!("{MARK}\n");
        section(command, 1, &outputs, &mut page);
        texts.insert(format!("{}.md", command.get_name()), page);
    }
    for (name, file, schema) in files() {
        let mut page = format!("{MARK}\n\n# {}\n\n", schema["title"].as_str().unwrap_or(name));
        let _ = writeln!(page, "For editors: [{file}.schema.json](../schema/{file}.schema.json).\n");
        page.push_str(&schema::tables(&schema));
        texts.insert(format!("{name}.md"), page);
    }
    Pages { mark: MARK, source: "the program's commands", command: "gt-image man --markdown", texts }
}

/// The subcommands that have a page or a section: all but clap's own `help`.
pub fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| sub.get_name() != "help")
}

fn index(root: &Command) -> String {
    let mut page = format!("{MARK}\n\n# Commands\n\n| command | does |\n|---|---|\n");
    // Writing to a String cannot fail, here and below.
    for command in shown(root) {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, "| [{name}]({name}.md) | {} |", schema::cell(&about));
    }
    let _ = writeln!(page, "\n## gt-image\n\n```text\n{}```", help(root));
    page.push_str("\n## Files\n\n");
    for (name, _, schema) in files() {
        let title = schema["title"].as_str().unwrap_or(name).to_owned();
        let _ = writeln!(page, "- [{title}]({name}.md)");
    }
    page
}

/// One command: its help, what it prints as JSON, its subcommands.
fn section(command: &Command, level: usize, outputs: &[Output], page: &mut String) {
    let name = command.get_bin_name().unwrap_or_default();
    let _ = writeln!(page, "\n{} {name}\n\n```text\n{}```", "#".repeat(level), help(command));
    let printed = outputs.iter().filter(|output| name.strip_prefix("gt-image ") == Some(output.command));
    for output in printed {
        let (when, file) = (output.when, output.file);
        let _ =
            writeln!(page, "\n`--json`{when} prints [{file}.schema.json](../schema/{file}.schema.json).\n");
        page.push_str(&schema::tables(output.schema.as_value()));
    }
    for sub in shown(command) {
        section(sub, level.saturating_add(1), outputs, page);
    }
}

fn help(command: &Command) -> String {
    let text = command.clone().term_width(WIDTH).render_long_help().to_string();
    let lines = text.lines().map(str::trim_end);
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/schema/<name>.schema.json` must be what the type gives; `GT_IMAGE_BLESS=1` rewrites.
    #[test]
    fn all_that_is_printed_as_json_has_its_schema_in_docs() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        let mut known: Vec<String> = files().map(|(_, file, _)| file.to_owned()).into();
        for Output { file, schema, .. } in outputs::all() {
            let mut text = serde_json::to_string_pretty(&schema).unwrap();
            text.push('\n');
            let path = docs.join(format!("{file}.schema.json"));
            if std::env::var_os("GT_IMAGE_BLESS").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(found, text, "{file}: run the tests with GT_IMAGE_BLESS=1 and look at the change");
            known.push(file.to_owned());
        }
        for entry in std::fs::read_dir(docs).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let file = name.strip_suffix(".schema.json").unwrap_or(&name).to_owned();
            assert!(known.contains(&file), "docs/schema/{name} is of no command and no file");
        }
    }

    #[test]
    fn every_command_has_json_or_is_known_to_have_none() {
        fn leaves(command: &Command, found: &mut Vec<String>) {
            for sub in shown(command) {
                match sub.has_subcommands() {
                    true => leaves(sub, found),
                    false => found.push(sub.get_bin_name().unwrap().replacen("gt-image ", "", 1)),
                }
            }
        }
        let mut root = crate::cli::command();
        root.build();
        let mut commands = Vec::new();
        leaves(&root, &mut commands);
        let outputs = outputs::all();
        for output in &outputs {
            assert!(commands.iter().any(|name| name == output.command), "there is no `{}`", output.command);
        }
        commands.retain(|name| !outputs.iter().any(|output| output.command == name));
        assert_eq!(commands, outputs::NONE);
    }
}
