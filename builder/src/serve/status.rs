//! What `gt-image status` shows, as the HTTP API gives it.
//! Must not know: where it comes from, how it is shown.
//! Spec: design.md section 13.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The server and all that it has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The nodes in the order of the description.
    pub nodes: Vec<Node>,
    /// Machines that asked and are not in the description, last seen first.
    pub strangers: Vec<Stranger>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Host name.
    pub name: String,
    /// Wired card.
    pub mac: String,
    /// Eight hex digits.
    pub serial: String,
    /// Reservation.
    pub address: String,
    /// Digest of the generation that the next boot would get.
    pub generation: Option<String>,
    /// Last boots, newest first.
    pub boots: Vec<Boot>,
}

/// One boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Boot {
    /// Number, growing over all nodes.
    pub id: u64,
    /// Digest of the generation that it is pinned to.
    pub generation: String,
    /// Milliseconds since 1970.
    pub began: u64,
    /// `booting`, `running`, `login`, `failed`, `superseded` or `timed-out`.
    pub outcome: String,
    /// What was seen, in order.
    pub steps: Vec<Step>,
}

/// One step of a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// `discover`, `offer`, `lease`, `file`, `missing`, `mount`, `late`, or as the node told.
    pub kind: String,
    /// Milliseconds since the boot began.
    pub at: u64,
    /// The file's path, or what else there is to say.
    pub detail: String,
    /// Bytes sent.
    pub bytes: u64,
}

/// One machine that is not in the description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stranger {
    /// Wired card.
    pub mac: String,
    /// Eight hex digits, where the firmware told.
    pub serial: Option<String>,
    /// Board revision in hex, where the firmware told.
    pub revision: Option<String>,
    /// Last time, milliseconds since 1970.
    pub seen: u64,
}
