//! Mirrors: what `host` means on this machine, and the URLs of an archive in the order to try.
//! Must not know: packages, locks. What a mirror says is believed only after its signature.
//! Spec: apt.conf(5) for `Acquire`; apt-transport-mirror(1).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::root_apt::is_debian;
use super::{Apt, Mirror, sources, tool};

/// No mirror is known for an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no mirror for the archive `{archive}`: this machine's apt has no Debian source, and `mirrors` names only `host`"
)]
pub struct NoMirror {
    /// The archive.
    pub archive: String,
}

/// Where archives are had from, in the order to try, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mirrors {
    by_archive: BTreeMap<String, Vec<String>>,
    snapshot: Option<String>,
    /// Asked for when something is to be fetched: apt-config takes 30 ms, a third of a build in which all is there.
    host: OnceLock<HostSettings>,
}

/// What this machine's apt is told about reaching mirrors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostSettings {
    /// Lines of apt.conf: proxies, time-outs, tolerance of a mirror that is frozen on purpose.
    pub lines: Vec<String>,
    /// The proxy for plain HTTP, if one is set.
    pub proxy: Option<String>,
}

impl Mirrors {
    /// Resolves a base's mirrors on this machine, whose apt is configured in `/etc/apt`.
    pub fn of(apt: &Apt) -> Result<Mirrors, NoMirror> {
        let etc = Path::new("/etc/apt");
        Mirrors::with(apt, &host_sources(etc))
    }

    /// Resolves a base's mirrors against given sources.
    fn with(apt: &Apt, sources: &[HostSource]) -> Result<Mirrors, NoMirror> {
        let mut by_archive = BTreeMap::new();
        for suite in &apt.suites {
            let archive = suite.archive.clone();
            let mut urls: Vec<String> = Vec::new();
            for mirror in &suite.mirrors {
                let url = match mirror {
                    Mirror::Host => host_url(sources, &archive),
                    Mirror::Url(url) => Some(beside(url, &archive)),
                    Mirror::Root(url) => Some(url.clone()),
                };
                urls.extend(url.filter(|u| !urls.contains(u)));
            }
            if urls.is_empty() {
                return Err(NoMirror { archive });
            }
            by_archive.insert(archive, urls);
        }
        Ok(Mirrors { by_archive, snapshot: apt.snapshot.clone(), host: OnceLock::new() })
    }

    /// URLs of an archive's root, without a slash at the end; none for an unknown archive.
    pub fn roots(&self, archive: &str) -> &[String] {
        self.by_archive.get(archive).map_or(&[], Vec::as_slice)
    }

    /// All URLs of a file of an archive, the dated snapshot last. `epoch` is the lock's.
    pub fn urls(&self, archive: &str, path: &str, epoch: u64) -> Vec<String> {
        let mut roots = self.roots(archive).to_vec();
        roots.extend(self.snapshot.as_ref().map(|s| snapshot_root(s, archive, epoch)));
        roots.iter().map(|root| format!("{root}/{}", escape(path))).collect()
    }

    /// How this machine reaches mirrors.
    pub fn host(&self) -> &HostSettings {
        self.host.get_or_init(host_settings)
    }
}

/// One source of this machine's apt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostSource {
    url: String,
    suites: Vec<String>,
    components: Vec<String>,
}

/// Suites that are Debian's own main archive.
const DEBIAN: [&str; 11] = [
    "stable",
    "oldstable",
    "testing",
    "unstable",
    "sid",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
];

impl HostSource {
    /// The archive that this source is, by its suites; other vendors use Debian's suite names too,
    /// but not with the component `main` at a path that ends like Debian's.
    fn archive(&self) -> Option<&'static str> {
        if !self.components.iter().any(|c| c == "main") {
            return None;
        }
        let debian = |suite: &str| DEBIAN.contains(&suite);
        let security = |s: &String| s.strip_suffix("-security").is_some_and(debian);
        if self.suites.iter().any(security) {
            return Some("debian-security");
        }
        let main = |s: &String| debian(s) || s.strip_suffix("-updates").is_some_and(debian);
        let path = self.url.trim_end_matches('/');
        // `https://<vendor>/linux/debian` with a component `main` exists, Debian's own below a
        // renamed path does too: the name at the end is taken as the sign.
        (self.suites.iter().any(main) && path.ends_with("/debian")).then_some("debian")
    }
}

/// The host's own URL of an archive, or the place beside its main archive.
fn host_url(sources: &[HostSource], archive: &str) -> Option<String> {
    let of = |a: &str| sources.iter().find(|s| s.archive() == Some(a)).map(|s| s.url.clone());
    // Another vendor's archive is on no mirror of Debian.
    of(archive).or_else(|| of("debian").filter(|_| is_debian(archive)).map(|url| beside(&url, archive)))
}

/// `https://m/debian` and `debian-security` give `https://m/debian-security`.
fn beside(url: &str, archive: &str) -> String {
    match url.rsplit_once('/') {
        Some((parent, "debian")) => format!("{parent}/{archive}"),
        _ => url.to_owned(),
    }
}

/// Sources of both forms, `sources.list` first, then the folder's files by name, as apt reads them.
fn host_sources(etc: &Path) -> Vec<HostSource> {
    let mut files = vec![etc.join("sources.list")];
    let entries = fs::read_dir(etc.join("sources.list.d"));
    files.extend(entries.into_iter().flatten().flatten().map(|e| e.path()));
    files[1..].sort();
    let mut found = Vec::new();
    for file in files {
        // A file or an entry that cannot be read gives no mirror; apt itself warns of it.
        let Ok(text) = fs::read(&file) else { continue };
        for entry in sources::of_file(&file.to_string_lossy(), &text).into_iter().flatten() {
            for uri in &entry.uris {
                let read = |list: &str| fs::read_to_string(list).ok();
                found.extend(usable(uri, &read).map(|url| HostSource {
                    url,
                    suites: entry.suites.clone(),
                    components: entry.components.clone(),
                }));
            }
        }
    }
    found
}

/// A URL that can be downloaded from: the first one of a mirror list file (Debian's cloud images
/// have `mirror+file:`), which `read` gives, never a disc or an onion service.
pub(super) fn usable(url: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(list) = url.strip_prefix("mirror+file:") {
        // A list names no other list.
        return read(list)?.split_whitespace().find_map(|url| usable(url, &|_| None));
    }
    let known = ["https://", "http://", "file:///"].iter().any(|s| url.starts_with(s));
    known.then(|| url.trim_end_matches('/').to_owned())
}

/// Settings of the host's apt that say how to reach a mirror; nothing else of it is used.
const TAKEN: [&str; 8] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::ftp::",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
];

fn host_settings() -> HostSettings {
    match tool::output(tool::command("apt-config").arg("dump")) {
        Ok(out) => settings_of(&String::from_utf8_lossy(&out.stdout)),
        Err(_) => HostSettings::default(),
    }
}

fn settings_of(dump: &str) -> HostSettings {
    let taken = |line: &&str| TAKEN.iter().any(|t| line.starts_with(t)) && line.ends_with("\";");
    let lines: Vec<String> = dump.lines().filter(taken).map(str::to_owned).collect();
    let proxy = lines.iter().find_map(|l| l.strip_prefix("Acquire::http::Proxy \"")?.strip_suffix("\";"));
    let proxy = proxy.filter(|p| !p.is_empty() && *p != "DIRECT").map(str::to_owned);
    HostSettings { lines, proxy }
}

/// A snapshot service gives the archive as it was at a time or before it. A day is added to the
/// newest Release date, since the service takes a snapshot some hours after; Debian keeps a package
/// that was replaced for a day and a half (dak's `StayOfExecution`).
fn snapshot_root(template: &str, archive: &str, epoch: u64) -> String {
    let time = stamp(epoch.saturating_add(86_400));
    template.trim_end_matches('/').replace("{archive}", archive).replace("{time}", &time)
}

/// `20260131T235959Z`. Days to a civil date as in Howard Hinnant's "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn stamp(epoch: u64) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Pool paths hold `+`, `~` and the like, which servers take as they are, apart from `+`: object
/// stores such as S3 read it as a blank. apt 2.6 escapes the same way.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                out.push(byte.into())
            }
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// Undoes [`escape`]; `None` when the escapes are broken.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Keys, Suite};
    use super::*;
    use proptest::prelude::*;

    fn source(url: &str, suite: &str, component: &str) -> HostSource {
        HostSource { url: url.into(), suites: vec![suite.into()], components: vec![component.into()] }
    }

    fn base(mirrors: &[Mirror]) -> Apt {
        let suite = |archive: &str| Suite {
            archive: archive.into(),
            suite: "trixie".into(),
            components: vec!["main".into()],
            mirrors: mirrors.to_vec(),
            keys: Keys::File("/k".into()),
        };
        Apt {
            architecture: "arm64".into(),
            suites: vec![suite("debian"), suite("debian-security")],
            snapshot: Some("https://s/{archive}/{time}/".into()),
            packages: vec![],
            exclude: vec![],
        }
    }

    #[test]
    fn the_hosts_debian_is_told_from_its_other_sources() {
        for (given, want) in [
            (source("http://m/debian", "bookworm", "main"), Some("debian")),
            (source("http://m/debian", "bookworm-updates", "main"), Some("debian")),
            (source("http://m/s", "bookworm-security", "main"), Some("debian-security")),
            (source("https://v/linux/debian", "bookworm", "stable"), None),
            (source("https://v/apt", "cloud-sdk-bookworm", "main"), None),
            (source("https://v/node", "nodistro", "main"), None),
            (source("http://archive/ubuntu", "noble", "main"), None),
        ] {
            assert_eq!(given.archive(), want, "{given:?}");
        }
    }

    #[test]
    fn host_means_the_hosts_mirror_and_own_urls_follow() {
        let own = Mirror::Url("https://own/debian".into());
        let sources = [source("http://v/apt", "x", "main"), source("http://m/debian", "bookworm", "main")];
        let apt = base(&[Mirror::Host, own]);
        let mirrors = Mirrors::with(&apt, &sources).unwrap();
        assert_eq!(mirrors.roots("debian"), ["http://m/debian", "https://own/debian"]);
        assert_eq!(
            mirrors.roots("debian-security"),
            ["http://m/debian-security", "https://own/debian-security"]
        );
        assert!(mirrors.roots("other").is_empty());
        let urls = mirrors.urls("debian", "pool/g++_1.deb", 0);
        assert_eq!(urls[0], "http://m/debian/pool/g%2b%2b_1.deb");
        assert_eq!(urls[2], "https://s/debian/19700102T000000Z/pool/g%2b%2b_1.deb");
    }

    #[test]
    fn a_host_without_debian_is_an_error() {
        let error = Mirrors::with(&base(&[Mirror::Host]), &[]).unwrap_err();
        assert_eq!(error.archive, "debian");
    }

    #[test]
    fn both_source_forms_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("mirrors.list");
        fs::write(&list, "http://first/debian/\tpriority:1\n").unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "sources.list",
            "# deb http://no/debian trixie main\ndeb [arch=amd64 x=y] http://a/debian/ trixie main contrib # c\ndeb-src http://b/debian trixie main\ndeb cdrom:[x]/ trixie main\n",
        );
        let cloud = format!(
            "Types: deb deb-src\nURIs: mirror+file:{}\nSuites: trixie trixie-updates\nComponents: main\n\n\
             Enabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: trixie\nComponents: main\n\n\
             Types: deb-src\nURIs: http://src/debian\nSuites: trixie\nComponents: main\n",
            list.display()
        );
        write("sources.list.d/debian.sources", &cloud);
        write("sources.list.d/old.save", "deb http://save/debian trixie main\n");
        let urls: Vec<_> = host_sources(dir.path()).into_iter().map(|s| s.url).collect();
        assert_eq!(urls, ["http://a/debian", "http://first/debian"]);
    }

    #[test]
    fn only_settings_about_mirrors_are_taken() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::http::Proxy \"http://p:3128\";\nDPkg::Post-Invoke:: \"rm\";\n\
                    Acquire::Check-Valid-Until \"false\";\nAcquire::Languages \"none\";\n";
        let settings = settings_of(dump);
        assert_eq!(settings.proxy.as_deref(), Some("http://p:3128"));
        assert_eq!(settings.lines.len(), 2);
        assert_eq!(settings_of("Acquire::http::Proxy \"DIRECT\";\n").proxy, None);
    }

    #[test]
    fn stamps_are_civil_dates() {
        // `date -u -d @N +%Y%m%dT%H%M%SZ`
        for (epoch, want) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_827_696, "20000229T123456Z"),
            (1_767_225_599, "20251231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(stamp(epoch), want);
        }
    }

    proptest! {
        #[test]
        fn escapes_are_undone(text in "\\PC{0,40}") {
            prop_assert_eq!(unescape(&escape(&text)), Some(text));
        }

        #[test]
        fn no_escape_panics(text in "[%0-9a-fé]{0,20}") {
            unescape(&text);
        }
    }
}
