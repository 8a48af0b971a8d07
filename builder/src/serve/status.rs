//! What the server knows of its nodes, as `GET /status` gives it and `gt-image status --json` prints it.
//! Must not know: where it comes from, how it is shown.
//! Spec: design.md section 13, "Status". Names may be added here, never changed or taken away.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The server and all that it has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The server's clock, milliseconds since 1970: ages are counted from it, because a node's or an
    /// operator's own clock may be days off.
    pub now: u64,
    /// The nodes in the order of the description.
    pub nodes: Vec<Node>,
    /// Machines that asked and are not in the description, last seen first.
    pub strangers: Vec<Stranger>,
    /// DHCP servers other than this one that were heard, last seen first.
    pub servers: Vec<Server>,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Host name.
    pub name: String,
    /// Wired card.
    pub mac: String,
    /// Eight hex digits.
    pub serial: String,
    /// Reservation.
    pub address: String,
    /// Digest of the current generation, which the next boot gets; null when nothing was built.
    pub generation: Option<String>,
    /// Digest of the generation that the last boot is pinned to; null before the first boot.
    pub pinned: Option<String>,
    /// The current generation lacks overlays whose artifacts could not be had.
    pub incomplete: bool,
    /// What keeps it from booting, or is not as the description has it; last seen first. A node that gets
    /// nothing has no boot to tell of it.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Last boots, newest first.
    pub boots: Vec<Boot>,
}

/// What is wrong with a node, as its requests show. It stands until the node asks and it is right, or the
/// description of the node changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What does not fit.
    pub kind: Fault,
    /// What was found, for people.
    pub detail: String,
    /// When it was told of; what stays as it is, again after five minutes.
    pub seen: Seen,
}

/// What of a node does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Its card came with another board's serial, and gets nothing.
    Serial,
    /// Its board came with another card: one that is not in the description gets nothing; one that only
    /// option 97 names is answered.
    Card,
    /// Another machine has its address, which it is not given.
    Address,
}

impl Fault {
    /// The word in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Serial => "serial",
            Fault::Card => "card",
            Fault::Address => "address",
        }
    }
}

/// One boot: from the first request of a node until the next first request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Boot {
    /// Number, growing over all nodes.
    pub id: u64,
    /// Milliseconds since 1970.
    pub began: u64,
    /// Digest of the generation that it is pinned to.
    pub generation: String,
    /// What was seen, in order.
    pub steps: Vec<Step>,
    /// Milliseconds since 1970 when the outcome was settled; null while it is not.
    pub ended: Option<u64>,
    /// How it stands, or how it ended.
    pub outcome: Outcome,
}

/// How a boot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The firmware or the initramfs is at work.
    Booting,
    /// The root is mounted and was handed over; no login was reported yet.
    Running,
    /// The node reported that it can be logged in to.
    Login,
    /// The node said why it could not go on.
    Failed,
    /// The node began another boot before this one came to anything.
    Superseded,
    /// Nothing was heard for too long.
    TimedOut,
}

impl Outcome {
    /// The word in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Booting => "booting",
            Outcome::Running => "running",
            Outcome::Login => "login",
            Outcome::Failed => "failed",
            Outcome::Superseded => "superseded",
            Outcome::TimedOut => "timed-out",
        }
    }

    /// True when nothing more is expected of the boot.
    pub fn is_final(self) -> bool {
        !matches!(self, Outcome::Booting | Outcome::Running)
    }
}

/// One step of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// `discover`, `offer`, `lease`, `file`, `missing`, `mount`, `late`, `alarm`, or as the node told:
    /// `init`, `root`, `secrets`, `switch`, `login`, `failed`.
    pub step: String,
    /// Milliseconds since the boot began.
    pub at_ms: u64,
    /// The file's path, or what else there is to say.
    #[serde(default)]
    pub detail: String,
    /// Bytes sent.
    #[serde(default)]
    pub bytes: u64,
}

/// One machine that is not in the description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stranger {
    /// Wired card.
    pub mac: String,
    /// Eight hex digits, where the firmware told.
    pub serial: Option<String>,
    /// Board revision in hex, where the firmware told.
    pub revision: Option<String>,
    /// When.
    pub seen: Seen,
}

/// A DHCP server other than this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    /// Its identifier (option 54).
    pub address: String,
    /// The card that its packets came from, where that can be known.
    pub mac: Option<String>,
    /// When.
    pub seen: Seen,
}

/// When something was seen, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// For the first time.
    pub first: u64,
    /// For the last time.
    pub last: u64,
    /// How often.
    pub count: u64,
}

impl Boot {
    /// Milliseconds from the first request to the first step of this name.
    pub fn until(&self, step: &str) -> Option<u64> {
        self.steps.iter().find(|s| s.step == step).map(|s| s.at_ms)
    }

    /// All bytes that its steps tell of.
    pub fn bytes(&self) -> u64 {
        self.steps.iter().fold(0, |sum, step| sum.saturating_add(step.bytes))
    }
}

impl Status {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// With at most so many boots of each node, the newest: what `?boots=N` asks for.
    #[must_use]
    pub fn with_boots(mut self, most: usize) -> Status {
        self.nodes.iter_mut().for_each(|node| node.boots.truncate(most));
        self
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A site with a node that came up, one that never did, and a stranger.
    pub(crate) fn example() -> Status {
        let step = |name: &str, at_ms, detail: &str, bytes| Step {
            step: name.into(),
            at_ms,
            detail: detail.into(),
            bytes,
        };
        let seen = Seen { first: 1_700_000_000_000, last: 1_700_000_060_000, count: 3 };
        let boot = Boot {
            id: 7,
            began: 1_700_000_000_000,
            generation: format!("sha256:{}", "ab".repeat(32)),
            steps: vec![
                step("discover", 0, "", 0),
                step("file", 1_204, "start4.elf", 2_255_872),
                step("mount", 9_870, "/fenn", 0),
                step("login", 31_200, "", 0),
            ],
            ended: Some(1_700_000_031_200),
            outcome: Outcome::Login,
        };
        let node = |name: &str, last: u8| Node {
            name: name.into(),
            mac: format!("d8:3a:dd:00:00:{last:02x}"),
            serial: format!("{last:08x}"),
            address: format!("10.9.0.{last}"),
            ..Node::default()
        };
        let problem = Problem {
            kind: Fault::Serial,
            detail: "refused: its card came with serial 5b154510, not 00000013".into(),
            seen,
        };
        let digest = Some(boot.generation.clone());
        let fenn = Node {
            generation: digest.clone(),
            pinned: digest,
            boots: vec![Boot { id: 9, ..boot.clone() }, boot],
            ..node("fenn", 15)
        };
        Status {
            now: 1_700_000_120_000,
            nodes: vec![fenn, Node { problems: vec![problem], ..node("jast", 19) }],
            strangers: vec![Stranger {
                mac: "dc:a6:32:01:36:c2".into(),
                serial: Some("5b154510".into()),
                revision: Some("c03111".into()),
                seen,
            }],
            servers: vec![Server { address: "10.9.0.1".into(), mac: None, seen }],
        }
    }

    #[test]
    fn the_names_of_the_contract_are_there() {
        let json = serde_json::to_value(example()).unwrap();
        for name in
            ["name", "mac", "serial", "address", "generation", "pinned", "incomplete", "problems", "boots"]
        {
            assert!(json["nodes"][1].get(name).is_some(), "nodes: {name}");
        }
        for name in ["kind", "detail", "seen"] {
            assert!(json["nodes"][1]["problems"][0].get(name).is_some(), "problems: {name}");
        }
        for name in ["mac", "serial", "revision", "seen"] {
            assert!(json["strangers"][0].get(name).is_some(), "strangers: {name}");
        }
        assert_eq!(json["nodes"][0]["boots"][0]["outcome"], "login");
        assert_eq!(serde_json::from_value::<Status>(json.clone()).unwrap(), example());
        // A server of before says nothing of problems.
        let mut older = json;
        older["nodes"][1].as_object_mut().unwrap().remove("problems");
        assert_eq!(serde_json::from_value::<Status>(older).unwrap().nodes[1].problems, []);
    }

    #[test]
    fn boots_are_counted_and_cut() {
        let status = example();
        let boot = &status.nodes[0].boots[0];
        assert_eq!((boot.until("login"), boot.until("failed")), (Some(31_200), None));
        assert_eq!(boot.bytes(), 2_255_872);
        assert_eq!(status.clone().with_boots(1).nodes[0].boots.len(), 1);
        assert!(status.with_boots(0).nodes.iter().all(|node| node.boots.is_empty()));
    }

    #[test]
    fn outcomes_are_the_same_word_in_json_and_on_the_screen() {
        use Outcome::{Booting, Failed, Login, Running, Superseded, TimedOut};
        for outcome in [Booting, Running, Login, Failed, Superseded, TimedOut] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
        for fault in [Fault::Serial, Fault::Card, Fault::Address] {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.as_str());
        }
        assert!(!Booting.is_final() && !Running.is_final() && TimedOut.is_final());
    }
}
