use super::*;
use crate::base::{Location, Pinned};
use crate::digest::Digest;
use crate::tree::tests::{path, symlink, tree};
use crate::tree::{Kind, Meta};
use proptest::prelude::*;

const DPKG: &str = "Package: apt\nStatus: install ok installed\nArchitecture: all\n\n\
                    Package: dpkg\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1.22\n";
/// As Raspberry Pi OS has them.
const DEBIAN: &str = "Types: deb\nURIs: http://mirror.debian.org/debian/\nSuites: trixie trixie-updates\n\
                      Components: main contrib\nSigned-By: /usr/share/keyrings/debian.pgp\n\n\
                      Types: deb\nURIs: http://mirror.debian.org/debian-security/\nSuites: trixie-security\n\
                      Components: main\nSigned-By: /usr/share/keyrings/debian.pgp\n";
const RASPI: &str =
    "deb [signed-by=/usr/share/keyrings/rpi.gpg] http://archive.raspberrypi.com/debian/ trixie main\n";

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    files: Vec<(String, String)>,
    image: Image,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pinned = Pinned { location: Location::Path("/i".into()), sha256: Digest::of(b"") };
    let image = Image {
        pinned,
        mirrors: vec![Mirror::Host],
        archives: BTreeMap::new(),
        without: vec![],
        snapshot: None,
        packages: vec![],
        exclude: vec![],
    };
    let files = [
        (STATUS, DPKG),
        ("etc/apt/sources.list.d/debian.sources", DEBIAN),
        ("etc/apt/sources.list.d/raspi.list", RASPI),
        ("usr/share/keyrings/debian-2025.pgp", "debian's"),
        ("usr/share/keyrings/rpi.gpg", "raspberry's"),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
    Bench { _dir: dir, store, files, image }
}

impl Bench {
    fn put(&mut self, name: &str, text: &str) {
        self.files.retain(|(other, _)| other != name);
        self.files.push((name.to_owned(), text.to_owned()));
    }

    fn read(&self) -> Result<Option<Ground>, RootAptError> {
        let mut root = tree(&[("usr/share/keyrings/debian.pgp", symlink("debian-2025.pgp"))]);
        for (name, text) in &self.files {
            root.make_parents(&path(name), &Meta::default()).unwrap();
            let kind = Kind::File(self.store.put_bytes(text.as_bytes()).unwrap());
            root.insert(path(name), Inode { meta: Meta::default(), kind }).unwrap();
        }
        read(&root, &self.store, &self.image, "images/r.toml")
    }

    fn apt(&self) -> Apt {
        self.read().unwrap().unwrap().apt
    }
}

#[test]
fn the_images_own_archives_are_found_with_their_keys() {
    let ground = bench().read().unwrap().unwrap();
    assert_eq!(ground.status, DPKG.as_bytes());
    assert_eq!(ground.apt.architecture, "arm64");
    assert_eq!(
        ground.apt.suite_lines(),
        [
            "debian trixie main contrib",
            "debian trixie-updates main contrib",
            "debian-security trixie-security main",
            "raspberrypi trixie main"
        ]
    );
    let of = |archive: &str| ground.apt.suites.iter().find(|s| s.archive == archive).unwrap();
    let debian = Mirror::Root("http://mirror.debian.org/debian".into());
    assert_eq!(of("debian").mirrors, [Mirror::Host, debian], "the image's own comes last");
    assert_eq!(of("debian").keys, Keys::Brought(vec![b"debian's".to_vec()]), "by the link");
    let own = Mirror::Root("http://archive.raspberrypi.com/debian".into());
    assert_eq!(of("raspberrypi").mirrors, [own], "no mirror of Debian stands for it");
    assert_eq!(of("raspberrypi").keys, Keys::Brought(vec![b"raspberry's".to_vec()]));
}

#[test]
fn the_base_states_mirrors_and_leaves_archives_out() {
    let mut bench = bench();
    let near = Mirror::Root("https://m/rpi".into());
    bench.image.archives.insert("raspberrypi".into(), vec![near.clone()]);
    let apt = bench.apt();
    assert_eq!(apt.suites.last().unwrap().mirrors[0], near);
    bench.image.archives.clear();
    bench.image.without = vec!["raspberrypi".into()];
    assert_eq!(bench.apt().suites.len(), 3);
    bench.image.without = vec!["raspberypi".into()];
    let told = bench.read().unwrap_err().to_string();
    let want = "images/r.toml: the base names the archive `raspberypi`, and the image has debian, debian-security, raspberrypi";
    assert_eq!(told, want);
}

#[test]
fn what_the_machine_trusts_signs_what_states_no_key() {
    let mut bench = bench();
    bench.put("etc/apt/sources.list", "deb http://ftp.xx.debian.org/debian trixie main non-free-firmware\n");
    let told = bench.read().unwrap_err().to_string();
    assert!(
        told.starts_with(
            "the image's `/etc/apt/sources.list`, line 1: archive `debian`: there is no `Signed-By`"
        ),
        "{told}"
    );
    bench.put("etc/apt/trusted.gpg.d/a.gpg", "debian's");
    let apt = bench.apt();
    assert_eq!(apt.suites[0].components, ["main", "non-free-firmware", "contrib"], "one suite, named twice");
    assert_eq!(apt.suites[0].mirrors.len(), 3);
}

#[test]
fn what_cannot_be_is_told_with_file_line_and_remedy() {
    for (name, text, want) in [
        ("x.list", "deb http://v/ ./\n", "`./` is a path in place of a suite"),
        (
            "x.list",
            "\ndeb ftp://v/ a main\n",
            "line 2: archive `v`: the address `ftp://v/` is neither http, https nor file",
        ),
        ("x.list", "deb [signed-by=ABCD] http://v/ a b\n", "`ABCD` in `Signed-By` is no path of a keyring"),
        ("x.list", "deb [signed-by=/no] http://v/ a b\n", "there is no keyring `/no`"),
        ("x.sources", "Types: deb\n", "line 1: the source has no address"),
    ] {
        let mut bench = bench();
        bench.put(&format!("etc/apt/sources.list.d/{name}"), text);
        let error = bench.read().unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with(&format!("the image's `/etc/apt/sources.list.d/{name}`")) && told.contains(want),
            "{told}"
        );
        if let RootAptError::Unsupported { archive, .. } = &error {
            assert!(error.hint().contains(&format!("without = [\"{archive}\"]")));
            bench.image.without = vec![archive.clone()];
            bench.read().unwrap();
        }
    }
    let mut bench = bench();
    bench.put("etc/apt/sources.list.d/x.list", "deb [arch=armhf] ftp://v/ a b\ndeb cdrom:[x]/ a b\n");
    assert_eq!(bench.apt().suites.len(), 4, "for another architecture, or on a disc");
    bench.put(STATUS, "Package: x\n");
    assert!(matches!(bench.read(), Err(RootAptError::NoDpkg)));
    bench.put(STATUS, "x\n");
    assert!(matches!(bench.read(), Err(RootAptError::Status(_))));
    bench.files.retain(|(name, _)| name != STATUS);
    assert_eq!(bench.read().unwrap(), None);
}

#[test]
fn an_archive_is_known_by_its_address() {
    for (url, want) in [
        ("http://mirror.debian.org/debian", "debian"),
        ("https://ftp.xx.debian.org/debian/", "debian"),
        ("http://security.xx.debian.org/", "debian-security"),
        ("http://security.xx.debian.org/debian-security", "debian-security"),
        ("http://archive.raspberrypi.org/debian/", "raspberrypi"),
        ("https://example.org/debian", "example.org-debian"),
        ("https://debian/x", "at-debian-x"),
        ("https://user:p@h:80/d~x", "user-p-h-80-d-x"),
        ("file:///srv/debs", "srv-debs"),
        ("file:///", "at-"),
    ] {
        assert_eq!(archive_name(url), want, "{url}");
    }
}

proptest! {
    #[test]
    fn every_address_has_a_plain_name(url in "\\PC{0,150}|(https?://)?[a-z./-]{0,40}") {
        let name = archive_name(&url);
        prop_assert!(is_plain_word(&name), "{}", name);
    }

    #[test]
    fn no_image_panics(status in "(Package: dpkg|Architecture: arm64|\n|: |x){0,9}", list in "(deb |\\[|\\]|signed-by=|/usr/share/keyrings/rpi.gpg|http://a| b|\n){0,12}") {
        let mut bench = bench();
        bench.put(STATUS, &status);
        bench.put("etc/apt/sources.list", &list);
        bench.read().ok();
    }
}
