//! The command line as a person and a script meet it: help, errors, exit status.
//! Must not know: how the commands work. Spec: design.md section 11, style.md section 5.

use libtest_mimic::Trial;

use crate::support::{fails, gt_image, ok, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("cli::usage_errors_leave_with_1", &[], usage_errors_leave_with_1),
        trial("cli::help_fits_80_columns", &[], help_fits_80_columns),
    ]
}

fn usage_errors_leave_with_1() {
    for args in [&["nonsense"][..], &["build"], &["build", "--node"], &["--colour"]] {
        let stderr = fails(gt_image().args(args), 1);
        assert!(stderr.contains("error:"), "{args:?}: {stderr}");
    }
}

fn help_fits_80_columns() {
    let help = ok(gt_image().arg("--help"));
    let commands = [
        "lock",
        "plan",
        "build",
        "export",
        "inspect",
        "diff",
        "why",
        "overlays",
        "artifacts",
        "artifacts list",
        "artifacts fetch",
        "artifacts import",
        "artifacts export",
        "status",
        "adopt",
        "rollback",
        "reset",
        "check",
        "known-hosts",
        "gc",
    ];
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        assert!(help.contains(words[0]), "{command} is not in the help");
        let text = ok(gt_image().args(&words).arg("--help"));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
}
