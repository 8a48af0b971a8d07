//! Names of generations as people write them, and reading them from the store.
//! Must not know: what is done with them.
//! Spec: `fenn` is the current generation of fenn, `fenn~1` the one before, `fenn@3fa2` the one whose
//! digest begins so.

use anyhow::{Context, bail};

use super::Hint;
use crate::diagnostic::nearest;
use crate::store::{Generation, Store};

/// Finds the generation that `text` names.
pub fn generation(store: &Store, text: &str) -> anyhow::Result<Generation> {
    let (node, digest) = match (text.split_once('@'), text.split_once('~')) {
        (Some((node, prefix)), _) => (node, by_prefix(store, node, prefix)?),
        (None, Some((node, back))) => {
            let back: usize =
                back.parse().with_context(|| format!("`{back}` is no number of generations"))?;
            (node, store.generations(node)?.get(back).copied())
        }
        (None, None) => (text, store.current(text)?),
    };
    let found = match digest {
        Some(digest) => store.generation(node, &digest).context("reading the generation")?,
        None => None,
    };
    match found {
        Some(generation) => Ok(generation),
        None if digest.is_none() && text != node => Err(anyhow::anyhow!("there is no generation `{text}`")
            .context(Hint(format!("run `gt-image inspect --node {node}` to see which there are")))),
        None => {
            let nodes = store.nodes()?;
            let hint = match nearest(node, nodes.iter().map(String::as_str)) {
                Some(near) => format!("run `gt-image build --node {node}`, or did you mean `{near}`?"),
                None => format!("run `gt-image build --node {node}`"),
            };
            Err(anyhow::anyhow!("node `{node}` has no generation yet").context(Hint(hint)))
        }
    }
}

fn by_prefix(store: &Store, node: &str, prefix: &str) -> anyhow::Result<Option<crate::digest::Digest>> {
    let prefix = prefix.strip_prefix("sha256:").unwrap_or(prefix);
    let fits: Vec<_> = store.generations(node)?.into_iter().filter(|d| d.hex().starts_with(prefix)).collect();
    if fits.len() > 1 {
        bail!("`{prefix}` begins {} generations of `{node}`: give more digits", fits.len());
    }
    Ok(fits.first().copied())
}

/// A path for JSON: as text, or in base64 when it is not UTF-8.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct JsonPath {
    /// The path with its leading slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Its bytes in base64, when they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl From<&crate::tree::TreePath> for JsonPath {
    fn from(path: &crate::tree::TreePath) -> JsonPath {
        use base64::Engine as _;
        let bytes = [b"/", path.as_bytes()].concat();
        match String::from_utf8(bytes) {
            Ok(text) => JsonPath { path: Some(text), path_base64: None },
            Err(e) => {
                let text = base64::engine::general_purpose::STANDARD.encode(e.as_bytes());
                JsonPath { path: None, path_base64: Some(text) }
            }
        }
    }
}

impl std::fmt::Display for JsonPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path.as_deref().or(self.path_base64.as_deref()).unwrap_or(""))
    }
}
