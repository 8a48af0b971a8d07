//! What each command prints with `--json`, as a schema of the type that it prints.
//! Must not know: when a command prints it; docs/schema has the same schemas as files.
//! Spec: JSON Schema 2020-12, as schemars writes it.

use schemars::{JsonSchema, Schema, schema_for};

use crate::cli::{
    adopt, artifacts, cache, check, diff, doctor, flash, inspect, known_hosts, lock, overlays, reset,
    rollback, serve, verify, why,
};

/// Commands whose result is no data, or is a file: `--json` changes nothing.
#[cfg(test)]
pub const NONE: [&str; 3] = ["export", "completions", "man"];

/// One kind of output.
pub struct Output {
    /// The command, such as `cache export`.
    pub command: &'static str,
    /// The schema's name in docs/schema.
    pub file: &'static str,
    /// What else must be given, to stand behind `--json`.
    pub when: &'static str,
    pub schema: Schema,
}

/// All outputs. A type that two commands print stands under both.
pub fn all() -> Vec<Output> {
    vec![
        of::<Vec<lock::Row>>("lock", "output-lock", ""),
        of::<Vec<crate::plan::Plan>>("plan", "output-plan", ""),
        of::<crate::build::Report>("build", "output-build", ""),
        of::<Vec<inspect::Row>>("inspect", "output-inspect", ""),
        of::<crate::manifest::Manifest>("inspect", "manifest", " with a generation"),
        of::<Vec<diff::Row>>("diff", "output-diff", ""),
        of::<why::Answer>("why", "output-why", ""),
        of::<Vec<artifacts::list::Row>>("artifacts list", "output-artifacts", ""),
        of::<Vec<artifacts::list::Row>>("artifacts fetch", "output-artifacts", ""),
        of::<Vec<artifacts::import::Row>>("artifacts import", "output-artifacts-import", ""),
        of::<Vec<artifacts::export::Row>>("artifacts export", "output-artifacts-export", ""),
        of::<Vec<cache::export::Row>>("cache export", "output-cache-export", ""),
        of::<Vec<cache::import::Row>>("cache import", "output-cache-import", ""),
        of::<Vec<flash::Row>>("flash", "output-flash", ""),
        of::<Vec<flash::Candidate>>("flash", "output-flash-devices", " without a device"),
        of::<verify::Answer>("verify", "output-verify", ""),
        of::<Vec<crate::flash::cards::Card>>("cards", "output-cards", ""),
        of::<Vec<overlays::Row>>("overlays", "output-overlays", ""),
        of::<serve::Ready>("serve", "output-serve", ""),
        of::<crate::serve::log::Line<'static>>("serve", "output-serve-log", " on stderr, line by line,"),
        of::<crate::serve::status::Status>("status", "output-status", ""),
        of::<doctor::Report>("doctor", "output-doctor", ""),
        of::<adopt::Adopted>("adopt", "output-adopt", ""),
        of::<Vec<rollback::Row>>("rollback", "output-rollback", ""),
        of::<Vec<reset::Row>>("reset", "output-reset", ""),
        of::<Vec<check::Row>>("check", "output-check", ""),
        of::<Vec<known_hosts::Row>>("known-hosts", "output-known-hosts", ""),
        of::<crate::store::Freed>("gc", "output-gc", ""),
    ]
}

fn of<T: JsonSchema>(command: &'static str, file: &'static str, when: &'static str) -> Output {
    Output { command, file, when, schema: schema_for!(T) }
}
