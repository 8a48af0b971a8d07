use super::super::testing::{Server, Trick};
use super::super::{Apt, Mirror};
use super::*;

/// A fetcher that waits for nothing, with these archive roots.
fn fetcher(cache: &Path, roots: &[String]) -> Fetcher {
    let mut apt: Apt = super::super::testing::apt(&[]);
    apt.suites[0].mirrors = roots.iter().map(|r| Mirror::Url(r.clone())).collect();
    let mirrors = if roots.is_empty() { Mirrors::default() } else { Mirrors::of(&apt).unwrap() };
    let mut fetcher = Fetcher::new(cache, mirrors, false, &Progress::off());
    fetcher.pauses = vec![Duration::ZERO; 3];
    fetcher
}

fn package(name: &str, bytes: &[u8]) -> Package {
    Package {
        name: name.into(),
        version: "1".into(),
        architecture: "arm64".into(),
        archive: "debian".into(),
        path: format!("pool/{name}.deb"),
        sha256: Digest::of(bytes),
        size: u64::try_from(bytes.len()).unwrap(),
        essential: false,
        unarchived: false,
    }
}

/// Files below the cache, apart from empty folders.
fn files(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![cache.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

#[test]
fn packages_are_had_verified_in_order_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(&[("/pool/a.deb", b"aaa"), ("/pool/b.deb", b"bbbb")]);
    let fetcher = fetcher(dir.path(), &[server.url("")]);
    let (a, b) = (package("a", b"aaa"), package("b", b"bbbb"));
    let paths = fetcher.packages(&[&b, &a, &b], 0).unwrap();
    assert_eq!(fs::read(&paths[0]).unwrap(), b"bbbb");
    assert_eq!(fs::read(&paths[1]).unwrap(), b"aaa");
    assert_eq!(paths[0], paths[2]);
    assert_eq!(paths[1], fetcher.package_path(&a.sha256));
    let asked = server.requests().len();
    assert!(asked <= 3);
    fetcher.packages(&[&a, &b], 0).unwrap();
    assert_eq!(server.requests().len(), asked, "the cache has all");
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; 1000];
    let server = Server::tricky(&[("/pool/a.deb", &bytes)], Trick::Cut(2));
    let paths = fetcher(dir.path(), &[server.url("")]).packages(&[&package("a", &bytes)], 0).unwrap();
    assert_eq!(fs::read(&paths[0]).unwrap(), bytes);
    let ranges: Vec<_> = server.requests().into_iter().map(|(_, from)| from).collect();
    assert_eq!(ranges, [None, Some(500), Some(750)]);
}

#[test]
fn a_part_of_an_earlier_run_is_used_and_a_foreign_one_thrown_away() {
    for (part, trick, requests) in [
        (&b"0123"[..], Trick::None, vec![Some(4)]),
        (b"0123", Trick::NoRanges, vec![Some(4)]),
        (b"xxxx", Trick::None, vec![Some(4), None]),
        (b"0123456789", Trick::None, vec![]),
        (b"0123456789xyz", Trick::None, vec![None]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::tricky(&[("/pool/a.deb", b"0123456789")], trick);
        let a = package("a", b"0123456789");
        fs::create_dir_all(dir.path().join("parts")).unwrap();
        fs::write(dir.path().join(format!("parts/{}.part", a.sha256.hex())), part).unwrap();
        let paths = fetcher(dir.path(), &[server.url("")]).packages(&[&a], 0).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), b"0123456789");
        let ranges: Vec<_> = server.requests().into_iter().map(|(_, from)| from).collect();
        assert_eq!(ranges, requests, "part {part:?}");
        assert_eq!(files(dir.path()).len(), 1);
    }
}

#[test]
fn wrong_bytes_are_refused_and_the_next_mirror_asked() {
    for forged in [&b"bbb"[..], b"aa", b"aaaa"] {
        let dir = tempfile::tempdir().unwrap();
        let bad = Server::new(&[("/pool/a.deb", forged)]);
        let good = Server::new(&[("/pool/a.deb", b"aaa")]);
        let a = package("a", b"aaa");
        let error = fetcher(dir.path(), &[bad.url("")]).packages(&[&a], 0).unwrap_err();
        if forged.len() == 3 {
            let want = format!(
                "`{}` has other bytes than locked: wanted {}, found {}",
                bad.url("/pool/a.deb"),
                a.sha256,
                Digest::of(forged)
            );
            assert_eq!(error.to_string(), want);
        }
        assert!(
            !fetcher(dir.path(), &[]).package_path(&a.sha256).exists(),
            "nothing unverified has its name"
        );
        let paths = fetcher(dir.path(), &[bad.url(""), good.url("")]).packages(&[&a], 0).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), b"aaa");
    }
}

#[test]
fn gone_is_told_apart_and_names_all() {
    let dir = tempfile::tempdir().unwrap();
    let one = Server::new(&[("/pool/b.deb", b"bbb")]);
    let two = Server::new(&[]);
    let roots = [one.url(""), two.url("")];
    let all = [package("c", b"c"), package("b", b"bbb"), package("a", b"a")];
    let error = fetcher(dir.path(), &roots).packages(&all.each_ref(), 0).unwrap_err();
    assert!(matches!(&error, FetchError::Gone { names } if names == &["a", "c"]), "{error}");
    assert_eq!(error.to_string(), "gone from every mirror: a, c");
    // A mirror that is ill may have it: that is no reason to lock anew.
    let ill = Server::tricky(&[], Trick::Status(503));
    let error = fetcher(dir.path(), &[ill.url(""), two.url("")]).packages(&[&all[0]], 0).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    assert_eq!(ill.requests().len(), 4, "three retries");
}

#[test]
fn the_snapshot_is_asked_last() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(&[("/s/debian/19700102T000000Z/pool/a.deb", b"aaa")]);
    let mut apt = super::super::testing::apt(&[]);
    apt.suites[0].mirrors = vec![Mirror::Url(server.url("/debian"))];
    apt.snapshot = Some(server.url("/s/{archive}/{time}"));
    let fetcher = Fetcher::new(dir.path(), Mirrors::of(&apt).unwrap(), false, &Progress::off());
    fetcher.packages(&[&package("a", b"aaa")], 0).unwrap();
    assert_eq!(server.requests()[0].0, "/debian/pool/a.deb");
}

#[test]
fn offline_takes_the_cache_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(&[("/pool/a.deb", b"aaa")]);
    let (a, b) = (package("a", b"aaa"), package("b", b"bbb"));
    fetcher(dir.path(), &[server.url("")]).packages(&[&a], 0).unwrap();
    let mut offline = fetcher(dir.path(), &[server.url("")]);
    offline.offline = true;
    offline.packages(&[&a], 0).unwrap();
    let error = offline.packages(&[&a, &b], 0).unwrap_err();
    assert_eq!(error.to_string(), "`--offline` is set and the cache has not: b");
}

#[test]
fn a_cached_file_that_rotted_is_had_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(&[("/pool/a.deb", b"aaa")]);
    let fetcher = fetcher(dir.path(), &[server.url("")]);
    let a = package("a", b"aaa");
    let path = fetcher.packages(&[&a], 0).unwrap().remove(0);
    for rot in [&b""[..], b"aab"] {
        fs::write(&path, rot).unwrap();
        fetcher.packages(&[&a], 0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"aaa");
    }
}

#[test]
fn many_at_once_on_one_cache_give_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; 5000]).collect();
    let names: Vec<String> = (0..20).map(|n| format!("/pool/p{n}.deb")).collect();
    let served: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(bytes.iter().map(Vec::as_slice)).collect();
    let server = Server::tricky(&served, Trick::Cut(3));
    let packages: Vec<Package> =
        bytes.iter().enumerate().map(|(n, b)| package(&format!("p{n}"), b)).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let fetcher = fetcher(dir.path(), &[server.url("")]);
            let all: Vec<&Package> = packages.iter().collect();
            scope.spawn(move || fetcher.packages(&all, 0).unwrap());
        }
    });
    let fetcher = fetcher(dir.path(), &[]);
    for (package, bytes) in packages.iter().zip(&bytes) {
        assert_eq!(&fs::read(fetcher.package_path(&package.sha256)).unwrap(), bytes);
    }
    assert_eq!(files(dir.path()).len(), 20, "no part is left");
}

/// A dozen artifacts of one host that is not there: it is asked once, whichever way it is not there.
#[test]
fn a_host_that_is_down_is_asked_once_in_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let locked = |name: String, host: &str| super::super::lock::Artifact {
        source: super::super::artifact::Origin::Url(format!("http://{host}/{name}.tgz")),
        filename: Some(format!("{name}.tgz")),
        sha256: Digest::of(name.as_bytes()),
        size: None,
        licence: "MIT".into(),
        name,
    };
    // Bound and not listened on: whoever connects is refused, and no other test gets the port.
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for host in ["gt-image.invalid".to_owned(), unused.to_string()] {
        let artifacts: Vec<_> = (0..12).map(|n| locked(format!("a{n}"), &host)).collect();
        let nearby = Nearby::default();
        // The real waits: with a try for each of twelve the refusals would take two minutes.
        let fetcher = Fetcher::new(dir.path(), Mirrors::default(), false, &Progress::off()).near(&nearby);
        let fetcher = Fetcher { pauses: vec![Duration::from_millis(50); 3], ..fetcher };
        let had = fetcher.artifacts(&artifacts.iter().collect::<Vec<_>>());
        assert!(had.iter().all(Result::is_err), "{had:?}");
        assert!(nearby.down(&format!("http://{host}/")).is_some());
        // What another fetcher of the same run knows, this one need not find out.
        let other = Fetcher::new(dir.path(), Mirrors::default(), false, &Progress::off()).near(&nearby);
        let began = std::time::Instant::now();
        other.artifact(&artifacts[0]).unwrap_err();
        assert!(began.elapsed() < Duration::from_millis(400), "it was asked again: the first wait is 500 ms");
    }
}

#[test]
fn mirrors_are_asked_before_upstream_and_the_digest_judges_all() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Server::new(&[("/up/a.tgz", b"right")]);
    let (wrong, right) = (Server::new(&[("/m/a.tgz", b"wrong")]), Server::new(&[("/r/a.tgz", b"right")]));
    let locked = |sha256| super::super::lock::Artifact {
        name: "a".into(),
        source: super::super::artifact::Origin::Url(upstream.url("/up/a.tgz")),
        filename: Some("a.tgz".into()),
        sha256,
        size: None,
        licence: "MIT".into(),
    };
    let near = |mirrors: &[(String, String)], folder: Option<PathBuf>| {
        let cache = tempfile::tempdir_in(dir.path()).unwrap().keep();
        let mirrors = mirrors.iter().cloned().collect();
        fetcher(&cache, &[]).near(&Nearby::new(&mirrors, folder))
    };
    let good = locked(Digest::of(b"right"));
    let first = near(&[(upstream.url("/up/"), right.url("/r/"))], None);
    assert_eq!(fs::read(first.artifact(&good).unwrap()).unwrap(), b"right");
    assert!(upstream.requests().is_empty());
    let second = near(&[(upstream.url("/up/"), wrong.url("/m/"))], None);
    assert_eq!(fs::read(second.artifact(&good).unwrap()).unwrap(), b"right");
    assert_eq!((wrong.requests().len(), upstream.requests().len()), (1, 1));
    // Nobody has it: each address says why.
    let error = near(&[(upstream.url("/up/"), wrong.url("/x/"))], None)
        .artifact(&locked(Digest::of(b"else")))
        .unwrap_err()
        .to_string();
    let gone = format!(
        "`{}`: it is gone; `{}`: it has other bytes",
        wrong.url("/x/a.tgz"),
        upstream.url("/up/a.tgz")
    );
    assert!(error.contains(&gone), "{error}");
    // A folder is looked at first, by its list of digests too.
    let folder = dir.path().join("stick");
    let error =
        near(&[], Some(folder.clone())).artifact(&locked(Digest::of(b"else"))).unwrap_err().to_string();
    assert!(error.contains("stick` of `[artifacts]` is not there"), "{error}");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("other-name"), b"else").unwrap();
    fs::write(folder.join("SHA256SUMS"), format!("{}  other-name\n", Digest::of(b"else").hex())).unwrap();
    let had = near(&[], Some(folder.clone())).artifact(&locked(Digest::of(b"else"))).unwrap();
    assert_eq!(had, folder.join("other-name"));
}
