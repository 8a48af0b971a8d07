//! The shipped overlays: every template on every node beside its golden. The programs that read what comes of them are
//! asked where they run (trio.rs, consul.rs).
//! Must not know: how a template is rendered or a layer built. Spec: docs/overlay-format.md.
//!
//! After a change that is meant: `GT_IMAGE_BLESS=1 ./do test roles::` writes the goldens, and the diff is
//! read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gt_image::layer::overlay::Context;
use gt_image::overlay::{Description, Overlay};
use libtest_mimic::Trial;

use crate::support::{repository, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial("roles::every_template_renders_as_its_golden_on_all_nodes", &[], goldens)]
}

/// What one template becomes, and on which nodes.
type Renderings = BTreeMap<String, Vec<String>>;

fn goldens() {
    let description = Description::load(&repository().join("cluster.toml")).unwrap();
    let mut found: BTreeMap<String, Renderings> = BTreeMap::new();
    for node in &description.cluster.nodes {
        let context = Context::new(&description.cluster, &description.overlays, node);
        for overlay in description.overlays.expand_node(node) {
            for (name, text) in templates(overlay) {
                let rendered = context.render(&name, &text).unwrap_or_else(|e| panic!("{}: {e}", node.name));
                found.entry(name).or_default().entry(rendered).or_default().push(node.name.to_string());
            }
        }
    }
    let folder = repository().join("tests/golden");
    let mut wrong = Vec::new();
    for (name, renderings) in &found {
        let (path, text) = (folder.join(name), written(renderings));
        if std::env::var_os("GT_IMAGE_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        // One that is not there is an empty one: its first difference is its first line.
        let golden = fs::read_to_string(&path).unwrap_or_default();
        wrong.extend(difference(&golden, &text).map(|line| format!("{}: {line}", path.display())));
    }
    assert_eq!(wrong, Vec::<String>::new(), "GT_IMAGE_BLESS=1 writes them anew");
    let there = run("find", [folder.to_str().unwrap(), "-type", "f", "-not", "-path", "*/golden/cli/*"])
        .lines()
        .count();
    assert_eq!(there, found.len(), "a golden whose template is gone");
}

/// The templates of an overlay: `<overlay>/<path>` and text.
fn templates(overlay: &Overlay) -> Vec<(String, String)> {
    let of = |path| overlay.files.iter().any(|entry| entry.template && *entry.path.tree() == path);
    let sources = overlay.sources.iter().filter(|source| of(source.path.clone()));
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    sources.map(|s| (format!("{}{}", overlay.name, s.path), read(&s.source))).collect()
}

/// Each rendering once, below the nodes that have it.
fn written(renderings: &Renderings) -> String {
    let mut sections: Vec<String> =
        renderings.iter().map(|(text, nodes)| format!("==== {}\n{text}", nodes.join(" "))).collect();
    sections.sort();
    sections.join("\n")
}

fn difference(golden: &str, text: &str) -> Option<String> {
    let (mut old, mut new) = (golden.lines(), text.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => return (golden != text).then(|| "the last line break".to_owned()),
            (a, b) if a != b => return Some(format!("line {number}: golden {a:?}, now {b:?}")),
            _ => {}
        }
    }
    None
}
