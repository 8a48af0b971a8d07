//! `gt-image plan`: what a build would do.
//! Must not know: how anything is built.
//! Spec: design.md section 11.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{Global, Nodes, project::Project, report};
use crate::archive::{Decoder, tar::Reader};
use crate::base::lock::Lock;
use crate::base::{Base, Location, Source};
use crate::plan::{self, Known};

/// Show what a build would do, layer by layer; changes nothing
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image plan --all              a line for each node
  gt-image plan --node fenn        its layers, what it keeps, what to know")]
pub struct Plan {
    #[command(flatten)]
    nodes: Nodes,
}

impl Plan {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        let picked = super::project::pick(&description, &self.nodes)?;
        let mut bases: BTreeMap<&str, (Base, Option<Lock>, Option<bool>)> = BTreeMap::new();
        let mut plans = Vec::new();
        for node in picked {
            let name = node.base.as_str();
            if !bases.contains_key(name) {
                let base = project.base(name)?;
                let lock = Lock::read(&project.images.join(format!("{name}.lock")))?;
                let kernel = kernel_of(&base)?;
                bases.insert(name, (base, lock, kernel));
            }
            if let Some((base, lock, kernel)) = bases.get(name) {
                plans.push(plan::plan(
                    &description,
                    node,
                    Known { base, lock: lock.as_ref(), kernel: *kernel },
                ));
            }
        }
        if global.json {
            report::json(&plans)?;
        } else if self.nodes.all {
            report::print(&table(&plans))?;
        } else {
            report::print(&plans.iter().map(detail).collect::<String>())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Looks for a kernel in a tarball of this machine; others are not fetched for a plan.
fn kernel_of(base: &Base) -> anyhow::Result<Option<bool>> {
    let Source::Tar(pinned) = &base.source else { return Ok(None) };
    let Location::Path(path) = &pinned.location else { return Ok(None) };
    let reading = || format!("reading `{}`", path.display());
    let file = std::fs::File::open(path).with_context(reading)?;
    let mut archive = Reader::new(Decoder::new(file).with_context(reading)?);
    while let Some(entry) = archive.next_entry().with_context(reading)? {
        let name = entry.name.strip_prefix(b"./").unwrap_or(&entry.name);
        let kernel = [&b"boot/vmlinuz-"[..], b"boot/firmware/kernel", b"boot/firmware/vmlinuz"];
        if kernel.iter().any(|start| name.starts_with(start)) {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

fn table(plans: &[plan::Plan]) -> String {
    let mut out =
        format!("{:12} {:12} {:5} {:15} {:16} affordances\n", "node", "address", "model", "root", "roles");
    for p in plans {
        let overlays: Vec<&str> =
            p.layers.iter().filter(|l| l.kind == "overlay").map(|l| l.name.as_str()).collect();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "{:12} {:12} {:5} {:15} {:16} {}",
            p.node,
            p.ip,
            p.model,
            p.root,
            p.roles.join(","),
            overlays.join(" ")
        );
    }
    let mut warnings: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for p in plans {
        p.warnings.iter().for_each(|w| warnings.entry(w).or_default().push(&p.node));
    }
    for (warning, nodes) in warnings {
        let _ = writeln!(out, "\nnote: {}: {warning}", nodes.join(", "));
    }
    out
}

fn detail(p: &plan::Plan) -> String {
    let mut out = format!(
        "{} ({}, {}): {}, root {}, from its own disk {}\n",
        p.node,
        p.model,
        p.ip,
        p.roles.join(", "),
        p.root,
        p.disk
    );
    for layer in &p.layers {
        let _ = writeln!(out, "  {:9} {:18} {}", layer.kind, layer.name, layer.detail);
    }
    for warning in &p.warnings {
        let _ = writeln!(out, "  note: {warning}");
    }
    out
}
