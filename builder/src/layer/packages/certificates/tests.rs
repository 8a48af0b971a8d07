//! What OpenSSL makes of the same certificates is what we make.

use super::*;
use crate::store::Store;
use crate::tree::tests::tree;
use std::process::Command;

const SUBJECTS: [&str; 6] = [
    "/CN=plain",
    "/C=DE/O=  Two  Spaces  /CN=UPPER lower",
    "/O=Über Größe/CN=utf8",
    "/CN=same name",
    "/CN=same  NAME",
    "/emailAddress=a@B.example/CN=mail+OU=Second of a set",
];

/// Certificates made by OpenSSL in `dir`, named `c N.crt`; false when there is no OpenSSL.
fn make(dir: &std::path::Path) -> bool {
    SUBJECTS.iter().enumerate().all(|(n, subject)| {
        let out = dir.join(format!("c {n}.crt"));
        let args = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-utf8", "-multivalue-rdn", "-days", "9"];
        let mut openssl = Command::new("openssl");
        openssl.args(args).arg("-keyout").arg(dir.join("key")).arg("-out").arg(out);
        openssl.args(["-subj", subject]).output().is_ok_and(|out| out.status.success())
    })
}

#[test]
fn links_and_bundle_are_those_of_openssl() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let made = dir.path().join("made");
    std::fs::create_dir(&made).unwrap();
    if !make(&made) {
        eprintln!("not run: judge: no openssl");
        return;
    }
    let mut t = tree(&[("etc/ssl", crate::tree::tests::dir())]);
    let meta = Meta::root_owned(0o644, Time::seconds(7));
    let judged = dir.path().join("judged");
    std::fs::create_dir(&judged).unwrap();
    let mut bundle = Vec::new();
    let mut conf = "# comment\n!gone.crt\n".to_owned();
    for n in 0..SUBJECTS.len() {
        let bytes = std::fs::read(made.join(format!("c {n}.crt"))).unwrap();
        put(&mut t, &store, &format!("{SHARED}/m/c {n}.crt"), &bytes, meta.clone()).unwrap();
        std::fs::write(judged.join(format!("c_{n}.pem")), &bytes).unwrap();
        conf.push_str(&format!("m/c {n}.crt\n"));
        bundle.extend_from_slice(&bytes);
    }
    put(&mut t, &store, CONF, conf.as_bytes(), meta).unwrap();
    let stale = Inode { meta: Meta::default(), kind: Kind::Symlink(b"nowhere"[..].into()) };
    t.make_parents(&place(&format!("{CERTS}/x")).unwrap(), &Meta::default()).unwrap();
    t.insert(place(&format!("{CERTS}/01234567.0")).unwrap(), stale).unwrap();
    update(&mut t, &store, 9).unwrap();

    assert!(Command::new("openssl").arg("rehash").arg(&judged).status().unwrap().success());
    let mut want: Vec<String> = std::fs::read_dir(&judged)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| {
            let target = std::fs::read_link(e.path()).unwrap_or_default();
            format!("{} {}", e.file_name().display(), target.display())
        })
        .filter(|line| is_hash(line.split(' ').next().unwrap()))
        .collect();
    want.sort();
    let certs = place(CERTS).unwrap();
    let found: Vec<String> = t
        .children(&certs)
        .filter(|(p, _, _)| is_hash(&String::from_utf8_lossy(p.name())))
        .map(|(p, _, inode)| match &inode.kind {
            Kind::Symlink(target) => {
                format!("{} {}", String::from_utf8_lossy(p.name()), String::from_utf8_lossy(target))
            }
            _ => panic!("{p} is no link"),
        })
        .collect();
    assert_eq!(found, want);
    let path = place(&format!("{CERTS}/{BUNDLE}")).unwrap();
    assert_eq!(read(&t, &store, &path).unwrap().unwrap(), bundle);

    let once = t.clone();
    update(&mut t, &store, 10).unwrap();
    assert_eq!(t, once, "what is right is not touched");
}

#[test]
fn a_tree_without_the_list_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut t = tree(&[]);
    update(&mut t, &store, 9).unwrap();
    assert_eq!(t.len(), 1);
}

#[test]
fn names_of_links() {
    for (name, want) in
        [("01234567.0", true), ("0123456.0", false), ("0123456g.0", false), ("a1234567.r0", false)]
    {
        assert_eq!(is_hash(name), want, "{name}");
    }
    assert_eq!(stem("mozilla/A B.crt"), "A B");
}
