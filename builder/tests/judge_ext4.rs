//! Runs the ext4 judges alone, until the end-to-end target takes them.

#![expect(clippy::unwrap_used, reason = "a judge that cannot work should say where")]

#[path = "../../tests/judge_ext4.rs"]
mod judge_ext4;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trial = |&(name, judge): &(&str, fn())| {
        Trial::test(format!("judge_ext4::{name}"), move || {
            judge();
            Ok(())
        })
    };
    let trials = judge_ext4::ALL.iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
