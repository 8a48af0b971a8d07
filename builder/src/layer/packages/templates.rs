//! debconf's questions without their translations while scripts run. Each of a base's 15 runs of
//! debconf reads and writes all questions so far, 600 kB with translations and 26 kB without.
//! Must not know: what is asked.
//! Spec: debconf-devel(7), "Templates files". Scripts run in C.UTF-8, so no translation is shown;
//! `dpkg-reconfigure` on the node reads the package's own file, which is whole again by then.

use super::InstallError;
use super::database::{ADMIN, put};
use super::unpack::Package;
use crate::store::Store;
use crate::tree::{Meta, Time, Tree};

/// Lays the short form of each package's file into the tree.
pub(super) fn shorten(
    tree: &mut Tree,
    store: &Store,
    packages: &[&Package],
    time: Time,
) -> Result<(), InstallError> {
    write(tree, store, packages, time, without_translations)
}

/// Lays each package's own file into the tree.
pub(super) fn restore(
    tree: &mut Tree,
    store: &Store,
    packages: &[&Package],
    time: Time,
) -> Result<(), InstallError> {
    write(tree, store, packages, time, <[u8]>::to_vec)
}

fn write(
    tree: &mut Tree,
    store: &Store,
    packages: &[&Package],
    time: Time,
    form: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<(), InstallError> {
    for package in packages {
        if let Some((_, bytes, mode)) = package.control.iter().find(|(name, _, _)| name == "templates") {
            let path = format!("{ADMIN}/info/{}.templates", package.qualified());
            put(tree, store, &path, &form(bytes), Meta::root_owned(mode & 0o777, time))?;
        }
    }
    Ok(())
}

/// Leaves out fields such as `Description-de.UTF-8`, with their further lines. `Choices-C` stays.
fn without_translations(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut dropped = false;
    for line in text.split_inclusive(|&b| b == b'\n') {
        // A line of a paragraph's text, or of a field's further values, begins with a space.
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|&b| b == b':').next().unwrap_or_default();
            let at = name.iter().position(|&b| b == b'-').map(|at| at + 1);
            dropped = at.and_then(|at| name.get(at)).is_some_and(u8::is_ascii_lowercase);
        }
        if !dropped {
            out.extend_from_slice(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translations_go_and_all_else_stays() {
        let text = "Template: a/b-c\nType: select\nChoices: x, y\nChoices-C: x, y\nChoices-de.UTF-8: u,\n v\n\
                    Default: x\nDescription: one:\n two-three: four\n .\nDescription-pt_BR.UTF-8: um:\n dois\n\n\
                    Template: d\nType: note\nDescription: last\n";
        let want = "Template: a/b-c\nType: select\nChoices: x, y\nChoices-C: x, y\n\
                    Default: x\nDescription: one:\n two-three: four\n .\n\n\
                    Template: d\nType: note\nDescription: last\n";
        assert_eq!(String::from_utf8(without_translations(text.as_bytes())).unwrap(), want);
        assert_eq!(without_translations(want.as_bytes()), want.as_bytes());
        assert!(without_translations(b"").is_empty());
    }
}
