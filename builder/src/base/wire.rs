//! `images/<name>.toml` as it is typed, and how it becomes a checked `Base`.
//! Must not know: networks, apt, locks. It reads one text.
//! Spec: design.md sections 6 and 13. Unknown keys are errors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::diagnose::{self, Problem};
use super::{Apt, Base, BaseError, Image, Keys, Location, Mirror, Pinned, Source, Suite, Want};
use super::{is_package_name, is_plain_word};

/// Where Debian's package `debian-archive-keyring` puts the keys.
const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// All keys of all kinds. One flat table and not a tagged enum, since serde loses places in those.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: Spanned<String>,
    architecture: Option<Spanned<String>>,
    mirrors: Option<Spanned<Vec<Spanned<String>>>>,
    snapshot: Option<Spanned<String>>,
    keyring: Option<Spanned<PathBuf>>,
    packages: Option<Spanned<Vec<Spanned<String>>>>,
    exclude: Option<Spanned<Vec<Spanned<String>>>>,
    suites: Option<Spanned<Vec<RawSuite>>>,
    path: Option<Spanned<PathBuf>>,
    url: Option<Spanned<String>>,
    sha256: Option<Spanned<String>>,
    archives: Option<Spanned<BTreeMap<String, RawArchive>>>,
    without: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    ids: BTreeMap<String, Spanned<u32>>,
    #[serde(default)]
    groups: BTreeMap<String, Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSuite {
    archive: Option<Spanned<String>>,
    suite: Spanned<String>,
    components: Spanned<Vec<Spanned<String>>>,
    mirrors: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchive {
    mirrors: Spanned<Vec<Spanned<String>>>,
}

/// Reads and checks `text`, the content of `file`.
pub(super) fn read(file: &Path, text: &str) -> Result<Base, BaseError> {
    let mut raw: File = diagnose::parse(file, text).map_err(|p| BaseError::Invalid(vec![p]))?;
    let mut check = Check { file, text, problems: Vec::new() };
    // The lock beside it is found by this name too.
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let ids = check.numbers(std::mem::take(&mut raw.ids));
    let groups = check.numbers(std::mem::take(&mut raw.groups));
    let kind = raw.kind.get_ref().clone();
    let source = match kind.as_str() {
        "apt" => check.apt(raw).map(Source::Apt),
        "tar" => check.tar(raw).map(Source::Tar),
        "disk-image" => check.image(raw).map(Source::DiskImage),
        _ => {
            check.say(raw.kind.span(), format!("unknown kind `{kind}`; known are apt, tar, disk-image"));
            None
        }
    };
    match source {
        Some(source) if check.problems.is_empty() => {
            Ok(Base { name, file: file.to_owned(), ids, groups, source })
        }
        _ => {
            check.problems.sort_by_key(|p| p.place);
            Err(BaseError::Invalid(check.problems))
        }
    }
}

/// Collects problems, so that all are told at once.
struct Check<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn say(&mut self, span: Range<usize>, message: String) {
        self.problems.push(diagnose::problem(self.file, self.text, span, message));
    }

    fn need<T>(&mut self, at: Range<usize>, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.say(at, format!("the key `{key}` is missing"));
        }
        value
    }

    fn refuse<T>(&mut self, kind: &str, key: &str, value: Option<Spanned<T>>) {
        if let Some(value) = value {
            self.say(value.span(), format!("a base of kind `{kind}` has no key `{key}`"));
        }
    }

    fn apt(&mut self, raw: File) -> Option<Apt> {
        let at = raw.kind.span();
        self.refuse("apt", "path", raw.path);
        self.refuse("apt", "url", raw.url);
        self.refuse("apt", "sha256", raw.sha256);
        self.refuse("apt", "archives", raw.archives);
        self.refuse("apt", "without", raw.without);
        let architecture = self.need(at.clone(), "architecture", raw.architecture).map(|a| self.word(a));
        let suites = self.need(at.clone(), "suites", raw.suites);
        let packages = self.need(at, "packages", raw.packages).map(|p| self.packages(p));
        let mirrors = self.mirrors_or_host(raw.mirrors);
        let exclude = self.names(raw.exclude);
        let snapshot = raw.snapshot.and_then(|s| self.snapshot(s));
        let keyring = raw.keyring.map_or(DEFAULT_KEYRING.into(), |k| self.beside(k.into_inner()));
        let suites = self.suites(suites?, &mirrors, &Keys::File(keyring));
        Some(Apt { architecture: architecture?, suites, snapshot, packages: packages?, exclude })
    }

    fn tar(&mut self, raw: File) -> Option<Pinned> {
        self.refuse("tar", "architecture", raw.architecture);
        self.refuse("tar", "mirrors", raw.mirrors);
        self.refuse("tar", "snapshot", raw.snapshot);
        self.refuse("tar", "keyring", raw.keyring);
        self.refuse("tar", "packages", raw.packages);
        self.refuse("tar", "exclude", raw.exclude);
        self.refuse("tar", "suites", raw.suites);
        self.refuse("tar", "archives", raw.archives);
        self.refuse("tar", "without", raw.without);
        self.pinned(raw.kind.span(), raw.sha256, raw.path, raw.url)
    }

    /// Architecture, suites and keys are the image's own.
    fn image(&mut self, raw: File) -> Option<Image> {
        self.refuse("disk-image", "architecture", raw.architecture);
        self.refuse("disk-image", "keyring", raw.keyring);
        self.refuse("disk-image", "suites", raw.suites);
        let mirrors = self.mirrors_or_host(raw.mirrors);
        let mut archives = BTreeMap::new();
        if let Some(raw) = raw.archives {
            let span = raw.span();
            for (name, RawArchive { mirrors }) in raw.into_inner() {
                if name.starts_with("debian") {
                    self.say(span.clone(), format!("the mirrors of `{name}` are those of the key `mirrors`"));
                }
                let mirrors = self.mirrors(mirrors).into_iter().map(|mirror| match mirror {
                    Mirror::Url(url) => Mirror::Root(url),
                    other => other,
                });
                archives.insert(name, mirrors.collect());
            }
        }
        let mut without: Vec<String> =
            raw.without.into_iter().flat_map(Spanned::into_inner).map(|name| self.word(name)).collect();
        without.sort();
        without.dedup();
        let snapshot = raw.snapshot.and_then(|s| self.snapshot(s));
        let packages = raw.packages.map(|p| self.packages(p)).unwrap_or_default();
        let exclude = self.names(raw.exclude);
        let pinned = self.pinned(raw.kind.span(), raw.sha256, raw.path, raw.url);
        Some(Image { pinned: pinned?, mirrors, archives, without, snapshot, packages, exclude })
    }

    /// Names of packages, without who asks.
    fn names(&mut self, raw: Option<Spanned<Vec<Spanned<String>>>>) -> Vec<String> {
        raw.map(|names| self.packages(names)).unwrap_or_default().into_iter().map(|w| w.package).collect()
    }

    fn mirrors_or_host(&mut self, raw: Option<Spanned<Vec<Spanned<String>>>>) -> Vec<Mirror> {
        raw.map_or_else(|| vec![Mirror::Host], |list| self.mirrors(list))
    }

    fn pinned(
        &mut self,
        at: Range<usize>,
        sha256: Option<Spanned<String>>,
        path: Option<Spanned<PathBuf>>,
        url: Option<Spanned<String>>,
    ) -> Option<Pinned> {
        let sha256 = self.need(at.clone(), "sha256", sha256);
        let location = match (path, url) {
            (Some(path), None) => Some(Location::Path(self.beside(path.into_inner()))),
            (None, Some(url)) => self.url(url).map(Location::Url),
            (Some(_), Some(url)) => {
                self.say(url.span(), "`path` and `url` exclude each other".into());
                None
            }
            (None, None) => {
                self.say(at, "one of the keys `path` and `url` is missing".into());
                None
            }
        };
        let sha256 = sha256?;
        match sha256.get_ref().parse() {
            Ok(digest) => Some(Pinned { location: location?, sha256: digest }),
            Err(e) => {
                self.say(sha256.span(), format!("{e}"));
                None
            }
        }
    }

    fn suites(&mut self, raw: Spanned<Vec<RawSuite>>, default: &[Mirror], keys: &Keys) -> Vec<Suite> {
        if raw.get_ref().is_empty() {
            self.say(raw.span(), "at least one suite is wanted".into());
        }
        let mut suites: Vec<Suite> = Vec::new();
        for raw in raw.into_inner() {
            let span = raw.suite.span();
            let components = raw.components.into_inner().into_iter().map(|c| self.word(c)).collect();
            let suite = Suite {
                archive: raw.archive.map_or("debian".into(), |a| self.word(a)),
                suite: self.word(raw.suite),
                components,
                mirrors: raw.mirrors.map_or_else(|| default.to_vec(), |m| self.mirrors(m)),
                keys: keys.clone(),
            };
            // Mirrors go with the archive: one pool path must mean one list of URLs.
            if suites.iter().any(|s| s.archive == suite.archive && s.mirrors != suite.mirrors) {
                self.say(span.clone(), format!("archive `{}` has other mirrors above", suite.archive));
            }
            if suites.iter().any(|s| (&s.archive, &s.suite) == (&suite.archive, &suite.suite)) {
                self.say(span, format!("suite `{}` is named twice", suite.suite));
            }
            suites.push(suite);
        }
        suites
    }

    fn packages(&mut self, raw: Spanned<Vec<Spanned<String>>>) -> Vec<Want> {
        let mut wants: Vec<Want> = Vec::new();
        for name in raw.into_inner() {
            let (span, package) = (name.span(), name.into_inner());
            if !is_package_name(&package) {
                self.say(span, format!("`{package}` is no package name"));
            } else if wants.iter().any(|w| w.package == package) {
                self.say(span, format!("package `{package}` is named twice"));
            } else {
                let origin = diagnose::origin(self.file, self.text, span.start);
                wants.push(Want { package, origin });
            }
        }
        wants.sort();
        wants
    }

    fn mirrors(&mut self, raw: Spanned<Vec<Spanned<String>>>) -> Vec<Mirror> {
        if raw.get_ref().is_empty() {
            self.say(raw.span(), "at least one mirror is wanted: `host` or a URL".into());
        }
        let mut mirrors = Vec::new();
        for mirror in raw.into_inner() {
            match mirror.get_ref().as_str() {
                "host" => mirrors.push(Mirror::Host),
                _ => mirrors.extend(self.url(mirror).map(|u| Mirror::Url(u.trim_end_matches('/').into()))),
            }
        }
        mirrors
    }

    fn snapshot(&mut self, raw: Spanned<String>) -> Option<String> {
        let text = raw.get_ref();
        if !(text.contains("{archive}") && text.contains("{time}")) {
            let message = "a snapshot URL has `{archive}` and `{time}` in it".to_owned();
            self.say(raw.span(), message);
            return None;
        }
        self.url(raw)
    }

    fn url(&mut self, raw: Spanned<String>) -> Option<String> {
        let text = raw.get_ref();
        let known = ["https://", "http://", "file:///"].iter().any(|s| text.starts_with(s));
        // White space or a bracket would begin another field of an apt source line.
        if known && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "[]\"'".contains(c)) {
            return Some(raw.into_inner());
        }
        let message = format!("`{text}` is no URL with `https://`, `http://` or `file:///`");
        self.say(raw.span(), message);
        None
    }

    fn word(&mut self, raw: Spanned<String>) -> String {
        if !is_plain_word(raw.get_ref()) {
            let message = format!("`{}` is no plain word", raw.get_ref());
            self.say(raw.span(), message);
        }
        raw.into_inner()
    }

    fn numbers(&mut self, raw: BTreeMap<String, Spanned<u32>>) -> BTreeMap<String, u32> {
        let mut taken: BTreeMap<u32, String> = BTreeMap::new();
        for (name, id) in &raw {
            if let Some(other) = taken.insert(*id.get_ref(), name.clone()) {
                let message = format!("`{name}` and `{other}` have the same number {}", id.get_ref());
                self.say(id.span(), message);
            }
        }
        raw.into_iter().map(|(name, id)| (name, id.into_inner())).collect()
    }

    /// Relative paths count from the base's file.
    fn beside(&self, path: PathBuf) -> PathBuf {
        match self.file.parent() {
            Some(parent) => parent.join(path),
            None => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
kind = "apt"
architecture = "arm64"
mirrors = ["host", "https://mirror.example/debian/"]
packages = ["systemd", "apt"]
exclude = ["man-db"]
suites = [
    { suite = "trixie", components = ["main", "non-free-firmware"] },
    { archive = "debian-security", suite = "trixie-security", components = ["main"], mirrors = ["host"] },
]
[ids]
messagebus = 101
"#;

    fn problems(text: &str) -> Vec<String> {
        match read(Path::new("images/b.toml"), text) {
            Err(BaseError::Invalid(all)) => all.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_file_is_a_base() {
        let base = read(Path::new("images/b.toml"), GOOD).unwrap();
        let apt = base.apt().unwrap();
        assert_eq!(base.name, "b");
        assert_eq!(base.ids["messagebus"], 101);
        assert_eq!(apt.packages[0], Want { package: "apt".into(), origin: "images/b.toml:5:24".into() });
        assert_eq!(apt.suites[0].archive, "debian");
        let own = Mirror::Url("https://mirror.example/debian".into());
        assert_eq!(apt.suites[0].mirrors, [Mirror::Host, own]);
        assert_eq!(apt.suites[1].mirrors, [Mirror::Host]);
        assert!(apt.suites.iter().all(|s| s.keys == Keys::File(DEFAULT_KEYRING.into())));
        let lines = ["debian trixie main non-free-firmware", "debian-security trixie-security main"];
        assert_eq!(apt.suite_lines(), lines);
    }

    #[test]
    fn the_shipped_base_is_good_and_names_no_mirror() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/debian-trixie.toml");
        let base = Base::load(&file).unwrap();
        for suite in &base.apt().unwrap().suites {
            assert_eq!(suite.mirrors, [Mirror::Host]);
        }
    }

    #[test]
    fn one_bad_key_is_one_located_problem() {
        for (from, to, want) in [
            ("exclude", "exclud", "images/b.toml:6:1: unknown key `exclud`; did you mean `exclude`?"),
            (
                "\"apt\"\n",
                "\"rpm\"\n",
                "images/b.toml:2:8: unknown kind `rpm`; known are apt, tar, disk-image",
            ),
            (
                "\"host\", ",
                "\"hots\", ",
                "images/b.toml:4:12: `hots` is no URL with `https://`, `http://` or `file:///`",
            ),
            ("\"apt\"]", "\"apt-\"]", "images/b.toml:5:24: `apt-` is no package name"),
            ("\"apt\"]", "\"systemd\"]", "images/b.toml:5:24: package `systemd` is named twice"),
            ("\"trixie-s", "\"../s", "images/b.toml:9:44: `../security` is no plain word"),
            ("\"trixie\"", "\"-o\"", "images/b.toml:8:15: `-o` is no plain word"),
            ("architecture = \"arm64\"\n", "", "images/b.toml:2:8: the key `architecture` is missing"),
            (
                "[ids]",
                "snapshot = \"https://x/{time}\"\n[ids]",
                "images/b.toml:11:12: a snapshot URL has `{archive}` and `{time}` in it",
            ),
            (
                "[ids]",
                "sha256 = \"\"\n[ids]",
                "images/b.toml:11:10: a base of kind `apt` has no key `sha256`",
            ),
            (
                "[ids]",
                "[ids]\nother = 101",
                "images/b.toml:12:9: `other` and `messagebus` have the same number 101",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let found = problems(&text);
            assert!(found.len() == 1, "{found:?}");
            // Maps are checked by name, so either of two equal numbers may be the one that is told.
            if !want.contains("same number") {
                assert_eq!(found[0], want);
            }
        }
    }

    #[test]
    fn all_problems_are_told_at_once_in_order() {
        let text = GOOD.replace("\"apt\"]", "\"A\"]").replace("\"arm64\"", "\"a/b\"");
        let found = problems(&text);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("images/b.toml:3:16: "), "{found:?}");
    }

    #[test]
    fn a_tarball_is_pinned() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!("kind = \"tar\"\npath = \"root.tar\"\nsha256 = \"{digest}\"\n");
        let base = read(Path::new("images/t.toml"), &text).unwrap();
        let Source::Tar(pinned) = &base.source else { panic!() };
        assert_eq!(pinned.location, Location::Path("images/root.tar".into()));
        for (from, to) in [("path = \"root.tar\"", ""), (digest, "ba78"), ("sha256", "packages = []\nsha256")]
        {
            assert_eq!(problems(&text.replace(from, to)).len(), 1, "{to}");
        }
        let both = text.replace("path", "url = \"https://x/y\"\npath");
        assert_eq!(problems(&both), ["images/b.toml:2:7: `path` and `url` exclude each other"]);
    }

    #[test]
    fn a_disk_image_is_pinned_too() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!("kind = \"disk-image\"\nurl = \"https://x/y.img.xz\"\nsha256 = \"{digest}\"\n");
        let base = read(Path::new("images/r.toml"), &text).unwrap();
        let image = base.image().unwrap();
        assert_eq!(image.pinned.location, Location::Url("https://x/y.img.xz".into()));
        assert_eq!((&image.mirrors[..], &image.without[..]), (&[Mirror::Host][..], &[][..]));
        assert_eq!(problems(&text.replace("https", "ftp")).len(), 1);
        let more = "mirrors = [\"https://m/debian/\"]\nwithout = [\"b\", \"a\"]\npackages = [\"age\"]\n\
                    archives.raspberrypi.mirrors = [\"https://m/rpi/\"]\n";
        let base = read(Path::new("images/r.toml"), &(text.clone() + more)).unwrap();
        let image = base.image().unwrap();
        assert_eq!(image.mirrors, [Mirror::Url("https://m/debian".into())]);
        assert_eq!(image.archives["raspberrypi"], [Mirror::Root("https://m/rpi".into())]);
        assert_eq!((image.without.join(" ").as_str(), base.packages().len()), ("a b", 1));
        for bad in [
            "suites = []\n",
            "keyring = \"k\"\n",
            "archives.debian.mirrors = [\"host\"]\n",
            "archives.x.mirror = []\n",
        ] {
            assert_eq!(problems(&(text.clone() + bad)).len(), 1, "{bad}");
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/raspios-lite.toml");
        assert!(matches!(Base::load(&shipped).unwrap().source, Source::DiskImage(_)));
    }
}
