//! What can go wrong while packages are installed, and what mends it.
//! Must not know: how any step works.
//! Spec: style.md section 5: corrupt, unsupported and I/O are never one variant.

use std::io;

use crate::archive::DebError;
use crate::archive::control::{ControlError, ControlFault};
use crate::store::StoreError;
use crate::tree::dump::DumpError;
use crate::tree::{TreeError, TreePath};

/// Packages could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A package file is corrupt or cannot be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A package's control data, or the list of installed packages, is no deb822 text.
    #[error("the control data of {of}")]
    Control {
        /// Which text: "package `x`", "`/var/lib/dpkg/status`".
        of: String,
        /// What is wrong with it.
        source: ControlError,
    },
    /// A field that must be there is missing or has a value that makes no sense.
    #[error("package `{package}` has {what}")]
    Field {
        /// The package.
        package: String,
        /// What is wrong.
        what: String,
    },
    /// Two packages have the same file, and neither replaces the other.
    #[error("`{path}` of package `{package}` is a file of package `{other}` too")]
    Clash {
        /// The file.
        path: TreePath,
        /// The package that comes later.
        package: String,
        /// The package that has it already.
        other: String,
    },
    /// A package's file does not fit the tree.
    #[error("laying down package `{package}`")]
    Lay {
        /// The package.
        package: String,
        /// Why it does not fit.
        source: TreeError,
    },
    /// Links below lead in a circle, or a directory and something else are in each other's place.
    #[error("`{path}` of package `{package}` cannot be laid down: {what}")]
    Place {
        /// The file.
        path: TreePath,
        /// The package.
        package: String,
        /// What is in the way.
        what: String,
    },
    /// The tree that results is none.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A maintainer script failed.
    #[error("`{script}` of package `{package}` {status}; its last lines:\n{output}")]
    Script {
        /// The package.
        package: String,
        /// The script with its arguments, such as `postinst configure`.
        script: String,
        /// How it ended: "ended with status 1", "was ended by signal 9".
        status: String,
        /// The last lines that it printed.
        output: String,
    },
    /// This machine cannot run programs of the target.
    #[error("programs for {architecture} cannot run here: {what}")]
    Emulation {
        /// Debian's name of the architecture.
        architecture: String,
        /// Why, and what mends it.
        what: String,
    },
    /// An ordinary user has no ids to give to the files of the target.
    #[error("user `{user}` has no range of 65536 ids in `{file}`: {hint}")]
    SubIds {
        /// The user's name.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// The command that gives some.
        hint: String,
    },
    /// Namespaces, mounts or files of the sandbox.
    #[error("the sandbox for package scripts: {doing}: {source}")]
    Sandbox {
        /// A gerund and its object.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate that is listed as trusted is none.
    #[error("certificate `{path}`: {what}")]
    Certificate {
        /// The file.
        path: TreePath,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The tree that came back from the sandbox cannot be read: a bug in gt-image.
    #[error("the sandbox gave back no tree")]
    Dump(#[from] DumpError),
}

impl InstallError {
    pub(super) fn control(package: &str) -> impl FnOnce(ControlError) -> InstallError {
        move |source| InstallError::Control { of: format!("package `{package}`"), source }
    }

    pub(super) fn field(package: &str) -> impl FnOnce(ControlFault) -> InstallError {
        move |fault| InstallError::Field { package: package.into(), what: fault.to_string() }
    }

    pub(super) fn sandbox(doing: impl Into<String>) -> impl FnOnce(io::Error) -> InstallError {
        move |source| InstallError::Sandbox { doing: doing.into(), source }
    }
}
