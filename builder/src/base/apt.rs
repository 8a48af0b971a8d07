//! Resolution by the host's `apt-get` in a private root: own state, cache and settings, a dpkg status
//! that is empty or an image's, and a foreign architecture. apt verifies the archive; we read only what it
//! verified.
//! Must not know: locks, downloads of packages, roles. It turns package names into records.
//! Spec: apt.conf(5), sources.list(5), apt-get(8); Debian repository format for `Release` dates.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::apt_error::{AptError, install_error, update_error};
use super::index::{Index, Located, parse_date, same_root};
use super::mirror::Mirrors;
use super::root_apt::Ground;
use super::tool::{self, ToolError};
use super::{Apt, Keys, Want};
use crate::digest::{Digest, Key};
use crate::io::atomic;

/// A private apt root under the cache folder. Holds a lock on it, so only one process is inside.
#[derive(Debug)]
pub struct Root {
    dir: PathBuf,
    // The lock ends when the file is closed.
    _lock: File,
}

impl Root {
    /// Makes the root for a base, or takes the one of an earlier run, which saves downloading the
    /// indices again. Waits while another process is inside.
    pub fn open(cache: &Path, apt: &Apt) -> Result<Root, AptError> {
        for suite in &apt.suites {
            if let Keys::File(path) = &suite.keys
                && !path.is_file()
            {
                return Err(AptError::NoKeyring { path: path.clone() });
            }
        }
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |source| AptError::Io { path, source }
        };
        fs::create_dir_all(cache).map_err(wrap(cache))?;
        let cache = fs::canonicalize(cache).map_err(wrap(cache))?;
        // Another architecture or suite is another root, so that two bases do not undo each other's
        // indices; other mirrors of the same suites share one.
        let mut key = Key::new("apt root 1").with(apt.architecture.as_bytes());
        for suite in &apt.suites {
            key = key.with(suite.to_string().as_bytes());
        }
        let dir = cache.join("apt").join(&key.finish().hex()[..16]);
        for sub in
            ["state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "keys"]
        {
            fs::create_dir_all(dir.join(sub)).map_err(wrap(&dir))?;
        }
        let lock = File::create(dir.join("lock")).map_err(wrap(&dir))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| wrap(&dir)(e.into()))?;
        Ok(Root { dir, _lock: lock })
    }

    /// Downloads and verifies the indices from the first mirrors that answer, and reads them.
    pub fn update(&self, ground: &Ground, mirrors: &Mirrors) -> Result<Index, AptError> {
        let Ground { apt, status } = ground;
        self.put("status", status)?;
        self.put("apt.conf", self.settings(apt, &mirrors.host().lines).as_bytes())?;
        self.put("etc/preferences", preferences(apt).as_bytes())?;
        let most = apt.suites.iter().map(|s| mirrors.roots(&s.archive).len()).max().unwrap_or(0);
        let mut last = AptError::Unreachable { detail: "no mirror is named".into() };
        for turn in 0..most {
            let roots = roots_of(apt, mirrors, turn);
            self.put("etc/sources.list.d/base.sources", self.sources(apt, &roots)?.as_bytes())?;
            match self.run("apt-get", &["update", "-q"]) {
                Ok(_) => return self.read_index(&roots),
                Err(Failure::Tool(e)) => return Err(e.into()),
                Err(Failure::Said(text)) => match update_error(&text) {
                    // Another mirror may answer, or may have an index that fits its Release file.
                    error @ (AptError::Unreachable { .. } | AptError::Corrupt { .. }) => last = error,
                    // A bad signature is told, and not papered over by the next mirror.
                    error => return Err(error),
                },
            }
        }
        Err(last)
    }

    /// The packages that installing `wants` into the system of the status would bring, as apt decides it,
    /// sorted by name. What is there stays in its version unless something new needs another one. `set` names
    /// the set in errors.
    pub fn resolve(&self, index: &Index, set: &str, wants: &[Want]) -> Result<Vec<Located>, AptError> {
        // `apt-get install` without a name succeeds and says nothing.
        if wants.is_empty() {
            return Ok(Vec::new());
        }
        let command = ["install", "-y", "--no-install-recommends", "--no-remove", "--no-upgrade"];
        self.print_uris(index, set, &command, wants)
    }

    /// The newest of each of `wants` by itself, without what it needs and whatever is there, sorted by name.
    pub fn newest(&self, index: &Index, set: &str, wants: &[Want]) -> Result<Vec<Located>, AptError> {
        self.print_uris(index, set, &["download"], wants)
    }

    fn print_uris(
        &self,
        index: &Index,
        set: &str,
        command: &[&str],
        wants: &[Want],
    ) -> Result<Vec<Located>, AptError> {
        let args = command.iter().copied().chain(["--print-uris", "-qq", "--"]);
        let args: Vec<&str> = args.chain(wants.iter().map(|w| w.package.as_str())).collect();
        let out = self.run("apt-get", &args).map_err(|failure| match failure {
            Failure::Tool(e) => AptError::Tool(e),
            Failure::Said(text) => install_error(set, &text, wants, index),
        })?;
        let mut found = Vec::new();
        for line in out.lines().filter(|l| l.starts_with('\'')) {
            let url = line[1..].split('\'').next().unwrap_or_default();
            found.push(index.locate(url).ok_or_else(|| AptError::Corrupt {
                detail: format!("apt wants `{url}`, which no index names"),
            })?);
        }
        // apt prints in the order of its own cache, which is nothing to rely on.
        found.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(found)
    }

    /// apt.conf of the root. The host's own settings are not read, apart from those that say how a
    /// mirror is reached.
    fn settings(&self, apt: &Apt, host: &[String]) -> String {
        let dir = self.dir.display();
        // `Pattern-Only`: else apt takes an unknown name with `.` or `+` for a regular expression, and
        // installs whatever it matches. `trusted`: only the keyring of `Signed-By` may vouch.
        let mut text = host.join("\n");
        _ = write!(
            text,
            r#"
Dir::State "{dir}/state";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Etc "{dir}/etc";
Dir::Etc::parts "{dir}/etc/apt.conf.d";
Dir::Etc::main "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::Log "{dir}";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
APT::Cmd::Pattern-Only "true";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
"#,
            arch = apt.architecture
        );
        // One index that is not had is an error and not a warning.
        text.push_str("APT::Update::Error-Mode \"any\";\n");
        // We hold a lock of our own on the whole root, and apt's needs rights that we may not have.
        text.push_str("Debug::NoLocking \"true\";\n");
        if rustix::process::geteuid().is_root() {
            // apt would download as `_apt`, who may not be able to enter the cache folder.
            text.push_str("APT::Sandbox::User \"root\";\n");
        }
        text
    }

    /// Sources of the root. Each suite is believed when one of its own keys signs it, and no other.
    fn sources(&self, apt: &Apt, roots: &BTreeMap<String, String>) -> Result<String, AptError> {
        let mut text = String::new();
        for suite in &apt.suites {
            let root = roots.get(&suite.archive).map_or("", String::as_str);
            _ = writeln!(
                text,
                "Types: deb\nURIs: {root}\nSuites: {}\nComponents: {}\nSigned-By: {}\n",
                suite.suite,
                suite.components.join(" "),
                self.keyrings(&suite.keys)?.join(" ")
            );
        }
        Ok(text)
    }

    /// Paths of keyrings. Those that an image brought become files of the root; apt tells their form by the
    /// end of the name.
    fn keyrings(&self, keys: &Keys) -> Result<Vec<String>, AptError> {
        let brought = match keys {
            Keys::File(path) => return Ok(vec![path.display().to_string()]),
            Keys::Brought(brought) => brought,
        };
        let mut paths = Vec::new();
        for bytes in brought {
            let end = if bytes.starts_with(b"-----BEGIN") { "asc" } else { "gpg" };
            let name = format!("keys/{}.{end}", &Digest::of(bytes).hex()[..16]);
            self.put(&name, bytes)?;
            paths.push(self.dir.join(name).display().to_string());
        }
        Ok(paths)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), AptError> {
        let path = self.dir.join(name);
        // An unchanged file keeps its time, so that apt's own cache of the indices stays good.
        atomic::write_if_changed(&path, bytes).map_err(|source| AptError::Io { path, source })?;
        Ok(())
    }

    /// Standard output of a good end, the messages of a bad one.
    fn run(&self, program: &str, args: &[&str]) -> Result<String, Failure> {
        let mut command: Command = tool::command(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf")).args(args);
        let out = tool::output(&mut command).map_err(Failure::Tool)?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let (said, listed) = (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
        let mut text: Vec<&str> = said.lines().filter(|l| !l.is_empty()).collect();
        // The reasons of an unsatisfiable request are on standard output.
        if let Some((_, why)) = listed.split_once("unmet dependencies:") {
            text.extend(why.lines().filter(|l| !l.is_empty()));
        }
        Err(Failure::Said(text.join("\n")))
    }

    fn read_index(&self, roots: &BTreeMap<String, String>) -> Result<Index, AptError> {
        let args = ["indextargets", "--format", "$(REPO_URI)\t$(FILENAME)", "Created-By: Packages"];
        let targets = self.run("apt-get", &args).map_err(|f| f.into_corrupt())?;
        let mut index = Index::of(roots.clone());
        for line in targets.lines() {
            let (url, file) = line.split_once('\t').unwrap_or_default();
            for (archive, _) in roots.iter().filter(|(_, root)| same_root(root, url)) {
                index.read(archive, Path::new(file))?;
            }
        }
        index.epoch = self.newest_release()?;
        Ok(index)
    }

    /// The newest `Date` of the Release files that apt has verified, in seconds since 1970. Files
    /// that are not verified yet are in `partial/`.
    fn newest_release(&self) -> Result<u64, AptError> {
        let lists = self.dir.join("state/lists");
        let wrap = |source| AptError::Io { path: lists.clone(), source };
        let mut newest = None;
        for entry in fs::read_dir(&lists).map_err(wrap)? {
            let path = entry.map_err(wrap)?.path();
            if path.to_str().is_some_and(|p| p.ends_with("Release")) {
                let text = fs::read_to_string(&path).map_err(wrap)?;
                let date =
                    text.lines().find_map(|l| l.strip_prefix("Date:")).and_then(|d| parse_date(d.trim()));
                newest = newest.max(date);
            }
        }
        newest.ok_or_else(|| AptError::Corrupt { detail: "no Release file has a date".into() })
    }
}

enum Failure {
    Tool(ToolError),
    Said(String),
}

impl Failure {
    fn into_corrupt(self) -> AptError {
        match self {
            Failure::Tool(e) => AptError::Tool(e),
            Failure::Said(detail) => AptError::Corrupt { detail },
        }
    }
}

/// The mirror of each archive in turn `turn`; an archive with fewer keeps its last.
fn roots_of(apt: &Apt, mirrors: &Mirrors, turn: usize) -> BTreeMap<String, String> {
    let root = |archive: &str| {
        let roots = mirrors.roots(archive);
        roots.get(turn).or(roots.last()).cloned()
    };
    apt.suites.iter().filter_map(|s| Some((s.archive.clone(), root(&s.archive)?))).collect()
}

/// A negative priority is a version that is never installed: apt_preferences(5).
fn preferences(apt: &Apt) -> String {
    apt.exclude.iter().map(|p| format!("Package: {p}\nPin: release *\nPin-Priority: -1\n\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Mirror;
    use super::super::testing::apt;
    use super::*;

    fn two_archives() -> Apt {
        let mut apt = apt(&["shell"]);
        apt.suites.push(apt.suites[0].clone());
        apt.suites[0].mirrors =
            ["http://a/debian", "http://b/debian"].map(|u| Mirror::Url(u.into())).to_vec();
        apt.suites[1].archive = "debian-security".into();
        apt.suites[1].suite = "trixie-security".into();
        apt.suites[1].mirrors = vec![Mirror::Url("http://a/debian".into())];
        apt
    }

    #[test]
    fn each_turn_names_a_mirror_for_each_archive() {
        let apt = two_archives();
        let mirrors = Mirrors::of(&apt).unwrap();
        let of = |turn| roots_of(&apt, &mirrors, turn).into_values().collect::<Vec<_>>();
        assert_eq!(of(0), ["http://a/debian", "http://a/debian-security"]);
        assert_eq!(of(1), ["http://b/debian", "http://a/debian-security"]);
    }

    #[test]
    fn each_suite_names_its_own_keyrings() {
        let (dir, mut apt) = (tempfile::tempdir().unwrap(), two_archives());
        apt.suites[0].keys = Keys::Brought(vec![b"packets".to_vec(), b"-----BEGIN PGP".to_vec()]);
        apt.suites[1].keys = Keys::File(dir.path().join("k"));
        fs::write(dir.path().join("k"), "").unwrap();
        let root = Root::open(dir.path(), &apt).unwrap();
        let text = root.sources(&apt, &roots_of(&apt, &Mirrors::of(&apt).unwrap(), 0)).unwrap();
        let want = "Types: deb\nURIs: http://a/debian-security\nSuites: trixie-security\nComponents: main\nSigned-By: ";
        assert!(text.ends_with(&format!("{want}{}/k\n\n", dir.path().display())), "{text}");
        let first = text.lines().find_map(|l| l.strip_prefix("Signed-By: ")).unwrap();
        let (packets, armour) = first.split_once(' ').unwrap();
        assert!(packets.ends_with(".gpg") && armour.ends_with(".asc"), "{first}");
        assert_eq!(fs::read(packets).unwrap(), b"packets");
    }

    #[test]
    fn excluded_packages_are_pinned_away() {
        let mut apt = apt(&[]);
        assert_eq!(preferences(&apt), "");
        apt.exclude.push("man-db".into());
        assert_eq!(preferences(&apt), "Package: man-db\nPin: release *\nPin-Priority: -1\n\n");
    }

    /// apt itself says what it takes from our settings: nothing of the host, nothing unsigned.
    #[test]
    fn apt_reads_our_settings_and_none_of_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let mut apt = apt(&[]);
        fs::write(dir.path().join("key.gpg"), "").unwrap();
        apt.suites[0].keys = Keys::File(dir.path().join("key.gpg"));
        let root = Root::open(dir.path(), &apt).unwrap();
        let host = ["Acquire::http::Proxy \"http://p:1\";".to_owned()];
        root.put("apt.conf", root.settings(&apt, &host).as_bytes()).unwrap();
        let Ok(dump) = root.run("apt-config", &["dump"]) else {
            super::super::testing::not_run("judge", "`apt-config` does not run");
            return;
        };
        for line in [
            "APT::Architecture \"arm64\";",
            "APT::Architectures:: \"arm64\";",
            "APT::Update::Error-Mode \"any\";",
            "Acquire::http::Proxy \"http://p:1\";",
            "Acquire::AllowInsecureRepositories \"false\";",
            "Dir::Etc::main \"/dev/null\";",
        ] {
            assert!(dump.lines().any(|l| l == line), "{line} in {dump}");
        }
        assert_eq!(dump.matches("APT::Architectures:: ").count(), 1, "{dump}");
        // Debian's own apt.conf.d has this in every installation.
        assert!(!dump.contains("NeverAutoRemove"), "{dump}");
    }
}
