//! Secrets as foreign tools see them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

fn cluster_key(folder: &Path) -> ClusterKey {
    ClusterKey::load_or_make(&folder.join("cluster.key")).unwrap().0
}

/// A store, the folder `secrets/`, and a root with a user `app`.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
    root: Tree,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        fs::create_dir_all(dir.path().join("secrets/nodes")).unwrap();
        let mut layer = Layer::from_tree(Tree::new(Meta::root_owned(0o755, Time::default())));
        for (path, text) in [("etc/passwd", "app:x:990:991::/:/bin/false\n"), ("etc/group", "app:x:991:\n")] {
            let object = store.put_bytes(text.as_bytes()).unwrap();
            let meta = Meta::root_owned(0o644, Time::default());
            layer.insert(TreePath::new(path).unwrap(), Inode { meta, kind: Kind::File(object) }).unwrap();
        }
        let root = layer.tree().clone();
        Place { dir, store, root }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }

    fn bundle(&self, overlays: &[&Overlay]) -> anyhow::Result<Bundle> {
        let key = cluster_key(&self.folder());
        let (folder, store, root) = (self.folder(), &self.store, &self.root);
        bundle(&Parts { node: "fenn", overlays, key: &key, folder: &folder, root, store, wipe: Some(17) })
    }
}

fn overlay() -> Overlay {
    let text = "[[secrets]]\nname = \"token\"\npath = \"/etc/app/token\"\nowner = \"app\"\ngroup = \"app\"\nmode = \"0400\"\n\
                [[secrets]]\nname = \"gossip\"\npath = \"/etc/gossip\"\nderive = 32\n\
                [[secrets]]\nname = \"missing\"\npath = \"/etc/missing\"\n";
    let source = crate::diagnostic::Source::new("overlays/app/overlay.toml", text);
    let mut report = crate::diagnostic::Report::new();
    let name = "app".parse().unwrap();
    let overlay = crate::overlay::parse(name, &source, Vec::new(), Path::new("overlays/app"), &mut report);
    assert!(report.is_clean(), "{report}");
    overlay
}

/// GNU tar's listing of an archive, or the bytes of one member.
fn tar(bytes: &[u8], args: &[&str]) -> String {
    let mut tar = Command::new("tar")
        .args(args)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar is installed");
    tar.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = tar.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_node_gets_its_identity_and_its_overlays_secrets() {
    let place = Place::new();
    fs::write(place.folder().join("token"), "t0ken").unwrap();
    let overlay = overlay();
    let found = place.bundle(&[&overlay]).unwrap();
    assert_eq!(content_type(&found.bytes), "application/x-tar");
    let list = tar(&found.bytes, &["-tv", "--numeric-owner", "-f", "-"]);
    let fields = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [words[0], words[1], words[5]].join(" ")
    };
    let want = [
        "drwx------ 0/0 ./",
        "-r--r--r-- 0/0 ./machine-id",
        "drwx------ 0/0 ./secrets/",
        "drwxr-xr-x 0/0 ./secrets/etc/",
        "drwxr-xr-x 0/0 ./secrets/etc/app/",
        "-r-------- 990/991 ./secrets/etc/app/token",
        "-r-------- 0/0 ./secrets/etc/gossip",
        "-rw------- 0/0 ./ssh_host_ed25519_key",
        "-rw-r--r-- 0/0 ./ssh_host_ed25519_key.pub",
        "-rw------- 0/0 ./wipe-state",
    ];
    let mut lines: Vec<String> = list.lines().map(fields).collect();
    lines.sort_by(|a, b| a.split(' ').next_back().cmp(&b.split(' ').next_back()));
    assert_eq!(lines, want, "{list}");
    assert_eq!(tar(&found.bytes, &["-xO", "-f", "-", "./secrets/etc/app/token"]), "t0ken");
    let key = cluster_key(&place.folder());
    let id = tar(&found.bytes, &["-xO", "-f", "-", "./machine-id"]);
    assert_eq!(id, format!("{}\n", key.machine_id("fenn")));
    let public = tar(&found.bytes, &["-xO", "-f", "-", "./ssh_host_ed25519_key.pub"]);
    assert_eq!(public, format!("{} root@fenn\n", key.ssh_host_key("fenn").public()));
    assert_eq!(found.warnings.len(), 1);
    assert!(found.warnings[0].contains("`missing`"), "{:?}", found.warnings);
    assert_eq!(found.bytes, place.bundle(&[&overlay]).unwrap().bytes, "the same secrets are the same bytes");
    assert!(!format!("{found:?}").contains("t0ken"));
}

#[test]
fn nothing_of_it_is_in_the_store() {
    let place = Place::new();
    fs::write(place.folder().join("token"), "t0ken").unwrap();
    place.bundle(&[&overlay()]).unwrap();
    let object = Object { digest: Digest::of(b"t0ken"), size: 5, holes: Box::default() };
    assert!(place.store.open_object(&object).is_err());
}

#[test]
fn a_node_with_a_key_gets_what_only_it_can_read() {
    let place = Place::new();
    let own = age::x25519::Identity::generate();
    let file = place.folder().join("nodes/fenn.age.pub");
    fs::write(&file, format!("# fenn's card of 2026-11\n{}\n", own.to_public())).unwrap();
    let sealed = place.bundle(&[]).unwrap().bytes;
    assert_eq!(content_type(&sealed), "application/x-age");
    let opened = age::decrypt(&own, &sealed).unwrap();
    assert!(tar(&opened, &["-t", "-f", "-"]).contains("./machine-id"));
    assert!(age::decrypt(&age::x25519::Identity::generate(), &sealed).is_err(), "another key opens it");
    // Bytes in clear must not be found in what is sent.
    let clear = cluster_key(&place.folder()).machine_id("fenn");
    assert!(!sealed.windows(clear.len()).any(|w| w == clear.as_bytes()));
}

#[test]
fn a_key_that_is_none_does_not_open_the_door() {
    let place = Place::new();
    let file = place.folder().join("nodes/fenn.age.pub");
    for text in ["", "age1", "AGE-SECRET-KEY-1", "# only words\n"] {
        fs::write(&file, text).unwrap();
        let error = place.bundle(&[]).unwrap_err();
        assert!(error.to_string().contains("must be a line `age1…`"), "{text:?}: {error}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(place.bundle(&[]).unwrap_err().to_string().starts_with("reading the node key"));
}
