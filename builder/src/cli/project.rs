//! Where everything is, seen from `cluster.toml`.
//! Must not know: what the files hold.
//! Spec: design.md sections 3, 11 and 13.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Global, Hint};
use crate::base::{Base, nearby::Nearby};
use crate::cluster::Node;
use crate::io::progress::Progress;
use crate::layer::identity::{ClusterKey, KeyError};
use crate::overlay::Description;

/// The places of one cluster.
#[derive(Debug, Clone)]
pub struct Project {
    /// `cluster.toml`.
    pub file: PathBuf,
    /// `images/`: bases and locks.
    pub images: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// Downloads.
    pub cache: PathBuf,
    /// The cluster key; secrets of the owner lie beside it.
    pub key: PathBuf,
    /// Outputs, unless told otherwise.
    pub out: PathBuf,
}

impl Project {
    /// Finds the description: as given, or `cluster.toml` here or in a directory above.
    pub fn find(global: &Global) -> anyhow::Result<Project> {
        let file = match &global.cluster {
            Some(file) if file.is_file() => file.clone(),
            Some(file) => {
                let none = anyhow::anyhow!("there is no file `{}`", file.display());
                return Err(none.context(Hint("name the cluster description with `--cluster FILE`".into())));
            }
            None => search()?,
        };
        let dir = match file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
            // Not `.`: messages then name files as the user would.
            _ => PathBuf::new(),
        };
        let images = dir.join("images");
        let or = |given: &Option<PathBuf>, default: PathBuf| given.clone().unwrap_or(default);
        Ok(Project {
            store: or(&global.store, images.join("store")),
            cache: or(&global.cache, images.join("cache")),
            key: or(&global.key, dir.join("secrets/cluster.key")),
            out: images.join("out"),
            images,
            file,
        })
    }

    /// What the site has nearer than upstream. A relative folder counts from `cluster.toml`.
    pub fn nearby(&self, description: &Description) -> Nearby {
        let artifacts = &description.cluster.artifacts;
        let dir = self.file.parent().unwrap_or(Path::new(""));
        Nearby::new(&artifacts.mirrors, artifacts.folder.as_ref().map(|folder| dir.join(folder)))
    }

    /// Reads a base. One that is not there is told with those that are.
    pub fn base(&self, name: &str) -> anyhow::Result<Base> {
        let file = self.images.join(format!("{name}.toml"));
        if file.is_file() {
            return Base::load(&file).with_context(|| format!("reading the base `{name}`"));
        }
        let entries = std::fs::read_dir(&self.images).into_iter().flatten().flatten();
        let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        let tomls =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "toml"));
        let mut there: Vec<String> = tomls.filter_map(stem).collect();
        there.sort();
        let hint = match crate::diagnostic::nearest(name, there.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if there.is_empty() => format!("write `{}`", file.display()),
            None => format!("bases here: `{}`", there.join("`, `")),
        };
        let none = anyhow::anyhow!("there is no base `{name}`, for there is no file `{}`", file.display());
        Err(none.context(Hint(hint)))
    }

    /// The folder of secrets, which is the cluster key's.
    pub fn secrets(&self) -> &Path {
        self.key.parent().unwrap_or(Path::new(""))
    }

    /// The cluster key. What is made with a new one would fit no node that there is.
    pub fn key(&self) -> anyhow::Result<ClusterKey> {
        ClusterKey::load(&self.key).map_err(told)
    }

    /// The cluster key, made when there is none, which its owner is told.
    pub fn key_or_new(&self, progress: &Progress) -> anyhow::Result<ClusterKey> {
        let (key, made) = ClusterKey::load_or_make(&self.key).map_err(told)?;
        if made {
            let file = self.key.display();
            progress.say(&format!(
                "made the cluster key `{file}`: back it up, the nodes' identities follow from it"
            ));
        }
        Ok(key)
    }

    /// Reads and checks the description and all overlays.
    pub fn load(&self) -> anyhow::Result<Description> {
        Description::load(&self.file)
            .with_context(|| format!("reading `{}` and its overlays", self.file.display()))
    }
}

/// `cluster.toml` in the current directory or the nearest one above that has it.
fn search() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("finding the current directory")?;
    // The relative form is kept where it will do: messages then name the file as the user would.
    if Path::new("cluster.toml").is_file() {
        return Ok(PathBuf::from("cluster.toml"));
    }
    let found = here.ancestors().map(|dir| dir.join("cluster.toml")).find(|file| file.is_file());
    found.ok_or_else(|| {
        anyhow::anyhow!("there is no `cluster.toml` in `{}` or above", here.display())
            .context(Hint("change to the cluster's directory, or name the file with `--cluster FILE`".into()))
    })
}

/// The nodes that a command names, in the order of the description.
pub fn pick<'a>(description: &'a Description, nodes: &super::Nodes) -> anyhow::Result<Vec<&'a Node>> {
    let all = &description.cluster.nodes;
    for name in &nodes.node {
        if description.cluster.node(name).is_none() {
            let near = crate::diagnostic::nearest(name, all.iter().map(|n| n.name.as_str()));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`? `gt-image plan --all` shows all nodes"),
                None => "run `gt-image plan --all` to see all nodes".into(),
            };
            return Err(anyhow::anyhow!("the cluster has no node `{name}`").context(Hint(hint)));
        }
    }
    Ok(all.iter().filter(|n| nodes.all || nodes.node.iter().any(|name| name == n.name.as_str())).collect())
}

/// A key's error with what to do about it.
fn told(error: KeyError) -> anyhow::Error {
    let hint = match &error {
        KeyError::Exposed { path, .. } => format!("run `chmod 600 {}`", path.display()),
        KeyError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            "put it back from its backup; `gt-image build` makes a new one, and every node another".into()
        }
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(Hint(hint))
}
