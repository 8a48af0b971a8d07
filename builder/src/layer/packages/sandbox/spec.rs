//! What the sandbox is told and what it tells back.
//! Must not know: how either side works.
//! Spec: one JSON file on the way in, one JSON object a line on the way out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All that the sandbox needs; written beside the tree's dump into the work directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The store's folder.
    pub store: PathBuf,
    /// The environment of each script.
    pub environment: BTreeMap<String, String>,
    /// Programs of the target that are replaced while scripts run.
    pub stubs: Vec<Stub>,
    /// Debian's name of the architecture whose programs must be emulated; none when they run.
    pub emulate: Option<String>,
    /// Scripts to run.
    pub jobs: Vec<Job>,
    /// Trigger to qualified names of packages.
    pub interests: BTreeMap<String, Vec<String>>,
    /// Triggers that the unpacked files activated.
    pub activated: Vec<String>,
    /// `status` of dpkg: paragraphs in order, each with the job that it belongs to, if any.
    pub status: Vec<(Option<usize>, String)>,
}

/// A program that does nothing: `path` is without a leading slash and without links in it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stub {
    pub path: String,
    pub program: Program,
    /// True when the tree has no such file.
    pub create: bool,
}

/// What stands in for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Program {
    /// Ends with this status.
    Exit(u8),
    /// Notes its arguments for later and ends with 0.
    Record,
}

/// One package.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Job {
    pub name: String,
    pub qualified: String,
    pub architecture: String,
    pub preinst: bool,
    pub postinst: bool,
    /// Triggers that it activates when it is configured.
    pub activates: Vec<String>,
    /// Already configured in the tree below: only triggers concern it.
    pub installed: bool,
    /// A folder that is out of sight while it is configured.
    pub hidden: Option<String>,
    /// Its `control` file, for scripts that run before it is unpacked.
    pub control: String,
    /// Its version.
    pub version: String,
    /// The version of it that was in the tree below.
    pub replaced: Option<Replaced>,
}

/// A version whose place another takes.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Replaced {
    pub version: String,
    /// Its own scripts, which say goodbye.
    pub prerm: Option<Vec<u8>>,
    pub postrm: Option<Vec<u8>>,
}

/// What the sandbox says while it works.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The namespaces are there; waiting for ids.
    Mapped,
    /// A step begins.
    Begin { what: String },
    /// A script has run.
    Ran { package: String, script: String, millis: u64, cpu: u64, output: String },
    /// Something other than a script took so long.
    Took { what: String, millis: u64 },
    /// Calls that programs noted instead of doing something, in order; the program's name is first.
    Calls { calls: Vec<Vec<String>> },
    /// A script failed.
    Script { package: String, script: String, status: String, output: String },
    /// The target's programs cannot run.
    Emulation { what: String },
    /// The sandbox itself failed.
    Failed { doing: String, what: String, errno: Option<i32> },
    /// The tree is written.
    Done,
}

impl Event {
    /// Says it, on standard output.
    pub fn say(&self) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        if let Ok(text) = serde_json::to_string(self) {
            // Nobody listens only when the builder is gone, and then this process is ended too.
            let _ = writeln!(out, "{text}");
            let _ = out.flush();
        }
    }
}

/// An error on its way to [`Event::Failed`].
#[derive(Debug)]
pub(crate) struct Trouble(pub Event);

impl Trouble {
    /// `doing` is a gerund and its object.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Trouble {
        move |e| Trouble(Event::Failed { doing: doing.into(), what: e.to_string(), errno: e.raw_os_error() })
    }

    /// The same for errors of other types.
    pub fn other(doing: impl Into<String>) -> impl FnOnce(&dyn std::fmt::Display) -> Trouble {
        move |e| Trouble(Event::Failed { doing: doing.into(), what: e.to_string(), errno: None })
    }

    /// For [`rustix`]'s errors.
    pub fn errno(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Trouble {
        move |e| Trouble::io(doing)(e.into())
    }
}
