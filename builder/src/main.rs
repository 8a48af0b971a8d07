//! The program `gt-image`: hands over to the command line, and turns every end into one of three
//! exit statuses.
//! Must not know: what commands do.
//! Spec: design.md section 11; style.md section 5.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, while there is one thread: the sandbox of package scripts is this program
    // again, and namespaces can only be entered by a process of one thread.
    gt_image::layer::packages::sandbox::maybe_enter();
    gt_image::cli::main()
}
