//! Packages made by hand, and what the native parts make of them. Scripts need a target's shell and
//! are run in the end-to-end tests.

use super::unpack::Package;
use super::*;
use crate::archive::control::Paragraphs;
use crate::store::Store;
use crate::tree::layer::Layer;
use crate::tree::tests::{dir, file, path, symlink, tree};
use crate::tree::{Inode, Kind, Meta, TreePath};

/// A package of architecture `arm64` with further fields, control files and data.
pub(super) fn package(name: &str, fields: &str, control: &[(&str, &str)], data: &[(&str, Inode)]) -> Package {
    let text = format!("Package: {name}\nArchitecture: arm64\nVersion: 1\n{fields}");
    let mut files = vec![("control".to_owned(), text.clone().into_bytes(), 0o644)];
    files.extend(control.iter().map(|(n, bytes)| ((*n).into(), bytes.as_bytes().to_vec(), 0o755)));
    let fields = Paragraphs::new(text.as_bytes()).next().unwrap().unwrap();
    let mut layer = Layer::new();
    for (name, inode) in data {
        layer.insert(path(name), inode.clone()).unwrap();
    }
    Package {
        name: name.into(),
        architecture: "arm64".into(),
        same: fields.get("Multi-Arch") == Some("same"),
        essential: fields.get("Essential") == Some("yes"),
        fields,
        control: files,
        data: layer,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn read(store: &Store, tree: &Tree, at: &str) -> Option<String> {
    let object = tree.get(&path(at)).and_then(Inode::object)?;
    Some(String::from_utf8(store.read_object(object).unwrap()).unwrap())
}

fn stored(store: &Store, text: &str) -> Inode {
    let kind = Kind::File(store.put_bytes(text.as_bytes()).unwrap());
    Inode { meta: Meta::root_owned(0o644, Time::seconds(7)), kind }
}

mod in_order {
    use super::*;

    fn names(packages: &[Package]) -> Vec<&str> {
        order::order(packages).into_iter().map(|at| packages[at].name.as_str()).collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_the_essential_before_all() {
        let mut packages = vec![
            package("a", "Depends: z (>= 1) [arm64], missing\n", &[], &[]),
            package("b", "Depends: nothing | virtual\n", &[], &[]),
            package("z", "Pre-Depends: y\n", &[], &[]),
            package("y", "Provides: virtual (= 2)\n", &[], &[]),
            package("sh", "Essential: yes\nDepends: lib:any\n", &[], &[]),
            package("lib", "", &[], &[]),
            package("libc6", "Depends: lib\n", &[], &[]),
            package("base-passwd", "Essential: yes\nDepends: libc6\n", &[], &[]),
        ];
        let want = ["base-passwd", "libc6", "lib", "sh", "y", "b", "z", "a"];
        assert_eq!(names(&packages), want);
        packages.reverse();
        assert_eq!(names(&packages), want, "the order of the input does not matter");
    }

    #[test]
    fn a_circle_is_broken_at_a_package_without_a_script() {
        let script = [("postinst", "#!/bin/sh\n")];
        let packages = [
            package("a", "Depends: b\n", &script, &[]),
            package("b", "Depends: c\n", &[], &[]),
            package("c", "Depends: a\n", &script, &[]),
        ];
        assert_eq!(names(&packages), ["b", "a", "c"]);
    }

    #[test]
    fn relations_are_names() {
        let found: Vec<_> = order::relations("a, b (>= 1) | c:any,\n d [arm64] <!x>,, e").collect();
        assert_eq!(found, ["a", "b", "c", "d", "e"]);
    }
}

mod laid_down {
    use super::*;

    fn lay_all(tree: &mut Tree, packages: &[Package]) -> Result<(), InstallError> {
        let (_dir, store) = store();
        lay::lay(tree, &store, &packages.iter().collect::<Vec<_>>(), &[])
    }

    #[test]
    fn links_to_directories_are_followed_and_directories_keep_their_mode() {
        let mut t = tree(&[]);
        let mut shut = dir();
        shut.meta.mode = 0o700;
        let base = [("usr/lib", dir()), ("lib", symlink("usr/lib")), ("etc", shut)];
        let packages = [
            package("base-files", "", &[], &base),
            package("b", "", &[], &[("lib/x", file(b"x")), ("etc", dir())]),
        ];
        lay_all(&mut t, &packages).unwrap();
        assert!(t.get(&path("usr/lib/x")).is_some());
        assert_eq!(t.get(&path("etc")).unwrap().meta.mode, 0o700);
    }

    #[test]
    fn a_file_of_two_packages_needs_one_that_replaces() {
        let data = |bytes: &[u8]| [("f", file(bytes))];
        let clash = [package("a", "", &[], &data(b"a")), package("b", "", &[], &data(b"b"))];
        let error = lay_all(&mut tree(&[]), &clash).unwrap_err();
        assert!(matches!(error, InstallError::Clash { other, .. } if other == "a"));
        for (first, second, want) in [("", "Replaces: a (<< 2)\n", &b"b"[..]), ("Replaces: b\n", "", b"a")] {
            let mut t = tree(&[]);
            let packages = [package("a", first, &[], &data(b"a")), package("b", second, &[], &data(b"b"))];
            lay_all(&mut t, &packages).unwrap();
            assert_eq!(t.get(&path("f")).unwrap().object().unwrap().digest, Digest::of(want));
        }
    }

    #[test]
    fn directories_and_others_are_not_exchanged() {
        for (below, data) in [("f", ("f/x", file(b""))), ("d/x", ("d", file(b"")))] {
            let mut t = tree(&[(below, file(b""))]);
            let error = lay_all(&mut t, &[package("a", "", &[], &[data])]).unwrap_err();
            assert!(matches!(error, InstallError::Place { .. }), "{below}: {error}");
        }
    }
}

mod in_the_database {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let (_dir, store) = store();
        let data = [("etc/x", stored(&store, "hello\n")), ("usr/bin/x", file(b""))];
        let control = [
            ("conffiles", "/etc/x\nremove-on-upgrade /etc/old\n"),
            ("triggers", "interest-noawait /usr/share/x # why\ninterest named\nactivate-noawait ldconfig\n"),
            ("postinst", "#!/bin/sh\n"),
        ];
        let fields = "Multi-Arch: same\nHomepage: http://x\nDescription: a thing\n of two lines\n";
        let p = package("x", fields, &control, &data);
        let text = database::paragraph(&p, &store).unwrap().to_string();
        // md5sum(1) of "hello\n".
        let want = "Package: x\nStatus: install ok installed\nArchitecture: arm64\nMulti-Arch: same\nVersion: 1\n\
                    Conffiles:\n /etc/x b1946ac92492d2347c6235b4d2611184\n /etc/old newconffile remove-on-upgrade\n\
                    Description: a thing\n of two lines\nHomepage: http://x\n";
        assert_eq!(text, want);

        let mut t = tree(&[("var/lib/dpkg/status", stored(&store, &text))]);
        database::write(&mut t, &store, &[&p], Time::seconds(9)).unwrap();
        let info = "var/lib/dpkg/info/x:arm64";
        assert_eq!(read(&store, &t, &format!("{info}.list")).unwrap(), "/etc/x\n/usr/bin/x\n");
        assert_eq!(t.get(&path(&format!("{info}.postinst"))).unwrap().meta.mode, 0o755);
        assert!(t.get(&path(&format!("{info}.control"))).is_none());
        assert_eq!(read(&store, &t, "var/lib/dpkg/triggers/File").unwrap(), "/usr/share/x x:arm64/noawait\n");
        assert_eq!(read(&store, &t, "var/lib/dpkg/triggers/named").unwrap(), "x:arm64\n");
        let installed = database::read(&store, &t).unwrap();
        assert_eq!((installed.len(), installed[0].qualified.as_str()), (1, "x:arm64"));
        let owners = database::owners(&store, &t, &installed).unwrap();
        assert_eq!(owners[&path("etc/x")], "x");
    }

    #[test]
    fn the_same_version_below_is_passed_over() {
        let (_dir, store) = store();
        let text = "Package: x\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1\n\n\
                    Package: y\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n";
        let t = tree(&[("var/lib/dpkg/status", stored(&store, text))]);
        let installed = database::read(&store, &t).unwrap();
        let deb = |name: &str, version: &str| LocalDeb {
            name: name.into(),
            version: version.into(),
            architecture: "arm64".into(),
            sha256: Digest::of(b""),
            path: PathBuf::new(),
            essential: false,
        };
        let debs = [deb("x", "1"), deb("x", "2"), deb("y", "1")];
        let wanted = not_yet_installed(&debs, &installed);
        let wanted: Vec<_> = wanted.iter().map(|d| format!("{} {}", d.name, d.version)).collect();
        assert_eq!(wanted, ["x 2", "y 1"], "what is left of a removed package is no package");
    }

    #[test]
    fn an_upgrade_takes_away_what_went_and_keeps_what_was_changed() {
        let (_dir, store) = store();
        let md5 = upgrade::md5;
        let status = format!(
            "Package: x\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1\nConffiles:\n \
             /etc/changed {0}\n /etc/plain {0}\n /etc/gone {0}\n /etc/obsolete {0}\n",
            md5(b"old")
        );
        let list = "/.\n/etc\n/etc/changed\n/etc/plain\n/etc/obsolete\n/etc/gone\n/usr/old\n/usr/both\n";
        let mut t = tree(&[
            ("var/lib/dpkg/status", stored(&store, &status)),
            ("var/lib/dpkg/info/x.list", stored(&store, list)),
            ("var/lib/dpkg/info/x.prerm", stored(&store, "bye")),
            ("var/lib/dpkg/info/x.1.list", stored(&store, "of another package")),
            ("var/lib/dpkg/triggers/File", stored(&store, "/usr/a x/noawait\n/usr/b x.1\n")),
            ("etc/changed", stored(&store, "mine")),
            ("etc/plain", stored(&store, "old")),
            ("etc/obsolete", stored(&store, "old")),
            ("usr/old", stored(&store, "old")),
            ("usr/both", stored(&store, "old")),
        ]);
        let conffiles = "/etc/changed\n/etc/plain\n/etc/gone\n";
        let names = ["etc/changed", "etc/plain", "etc/gone", "usr/both"];
        let data = names.map(|name| (name, stored(&store, "new")));
        let new = package("x", "", &[("conffiles", conffiles)], &data);
        let installed = database::read(&store, &t).unwrap();
        let begun = upgrade::begin(&mut t, &store, &new, &installed[0]).unwrap();
        lay::lay(&mut t, &store, &[&new], &installed).unwrap();
        upgrade::finish(&mut t, &begun).unwrap();
        for (path, want) in [
            ("etc/changed", Some("mine")),
            ("etc/changed.dpkg-dist", Some("new")),
            ("etc/plain", Some("new")),
            ("etc/gone", None),
            ("etc/obsolete", Some("old")),
            ("usr/old", None),
            ("usr/both", Some("new")),
            ("var/lib/dpkg/info/x.list", None),
            ("var/lib/dpkg/info/x.1.list", Some("of another package")),
            ("var/lib/dpkg/triggers/File", Some("/usr/b x.1\n")),
        ] {
            assert_eq!(read(&store, &t, path).as_deref(), want, "{path}");
        }
        assert_eq!(
            (begun.replaced.version.as_str(), begun.replaced.prerm.as_deref()),
            ("1", Some(&b"bye"[..]))
        );
    }

    #[test]
    fn a_status_that_is_none_is_named() {
        let (_dir, store) = store();
        let t = tree(&[("var/lib/dpkg/status", stored(&store, "no field\n"))]);
        let error = database::read(&store, &t).unwrap_err();
        assert!(matches!(error, InstallError::Control { of, .. } if of.contains("/var/lib/dpkg/status")));
    }
}

#[test]
fn file_triggers_are_those_on_the_way() {
    let mut interests = triggers::Interests::default();
    interests.add("a", &triggers::Declared::read(b"interest /usr/share/x\ninterest-noawait /usr\n"));
    let found = |p: &str| interests.on_path(p).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(found("/usr/share/x/y"), ["/usr", "/usr/share/x"]);
    assert_eq!(found("/usr/share/xy"), ["/usr"]);
    assert!(found("/etc").is_empty());
}

#[test]
fn seeds_come_before_and_behind_what_is_there() {
    let (_dir, store) = store();
    let user = SeedUser {
        name: "munge".into(),
        uid: 900,
        gid: 901,
        home: "/nonexistent".into(),
        shell: "/usr/sbin/nologin".into(),
        comment: String::new(),
    };
    let seed = Seed { users: vec![user], groups: vec![SeedGroup { name: "munge".into(), gid: 901 }] };
    let master = stored(&store, "root:*:0:0:root:/root:/bin/bash\n");
    let mut t = tree(&[("usr/share/base-passwd/passwd.master", master)]);
    seed::write(&mut t, &store, &seed, 86_400 * 5).unwrap();
    let passwd = read(&store, &t, "etc/passwd").unwrap();
    assert_eq!(passwd, "root:*:0:0:root:/root:/bin/bash\nmunge:*:900:901::/nonexistent:/usr/sbin/nologin\n");
    assert_eq!(read(&store, &t, "etc/group").unwrap(), "munge:*:901:\n");

    let mut t = tree(&[
        ("etc/passwd", stored(&store, "root:x:0:0::/root:/bin/sh\n")),
        ("etc/shadow", stored(&store, "")),
    ]);
    seed::write(&mut t, &store, &seed, 86_400 * 5).unwrap();
    assert!(
        read(&store, &t, "etc/passwd")
            .unwrap()
            .ends_with("munge:x:900:901::/nonexistent:/usr/sbin/nologin\n")
    );
    assert_eq!(read(&store, &t, "etc/shadow").unwrap(), "munge:!*:5::::::\n");
    let once = t.clone();
    seed::write(&mut t, &store, &seed, 86_400 * 6).unwrap();
    assert_eq!(t, once, "who is there already is not added");
}

#[test]
fn what_differs_from_build_to_build_goes() {
    let (_dir, store) = store();
    let changed = Inode { meta: Meta::root_owned(0o755, CHANGED), kind: Kind::Dir };
    let late = Inode { meta: Meta::root_owned(0o755, Time::seconds(99)), kind: Kind::Dir };
    let mut t = tree(&[
        ("etc/machine-id", stored(&store, "0123\n")),
        ("etc/passwd-", file(b"")),
        ("etc/ssh/ssh_host_rsa_key", file(b"")),
        ("etc/ssh/ssh_host_rsa_key.pub", file(b"")),
        ("etc/ssh/sshd_config", file(b"")),
        ("etc/shadow", stored(&store, "root:*:1:0:99999:7:::\na:!*:::::::\n")),
        ("var/log/apt/term.log", file(b"")),
        ("var/cache/apt/archives/x.deb", file(b"")),
        ("tmp/x/y", file(b"")),
        ("changed", changed),
        ("late", late),
    ]);
    normalise::normalise(&mut t, &Tree::new(Meta::default()), &store, 86_400 * 3).unwrap();
    let left: Vec<String> = t.iter().filter(|(_, _, i)| !i.is_dir()).map(|(p, _, _)| p.to_string()).collect();
    assert_eq!(left, ["/etc/machine-id", "/etc/shadow", "/etc/ssh/sshd_config"]);
    assert_eq!(read(&store, &t, "etc/machine-id").unwrap(), "");
    assert_eq!(read(&store, &t, "etc/shadow").unwrap(), "root:*:3:0:99999:7:::\na:!*:::::::\n");
    assert_eq!(t.get(&path("changed")).unwrap().meta.mtime, Time::seconds(86_400 * 3));
    assert_eq!(t.get(&path("late")).unwrap().meta.mtime, Time::seconds(99));
    assert!(t.get(&path("var/cache/apt/archives")).is_some(), "packages' folders stay");
    assert!(t.get(&path("tmp/x")).is_none());
}

#[test]
fn what_was_there_before_stays_or_comes_back() {
    let (_dir, store) = store();
    let late = Inode { meta: Meta::root_owned(0o755, Time::seconds(86_400 * 9)), kind: Kind::Dir };
    let below = tree(&[
        ("etc/machine-id", stored(&store, "uninitialized\n")),
        ("etc/passwd-", stored(&store, "old")),
        ("etc/shadow", stored(&store, "root:*:1:0:99999:7:::\n")),
        ("var/log/apt/term.log", stored(&store, "")),
        ("var/log/gone.log", stored(&store, "")),
        ("tmp/x/y", file(b"")),
        ("late", late),
    ]);
    let mut t = below.clone();
    for gone in ["var/log/gone.log", "tmp/x"] {
        t.remove(&path(gone));
    }
    for (name, text) in [
        ("etc/machine-id", "0123\n"),
        ("etc/passwd-", "new"),
        ("etc/shadow", "root:*:1:0:99999:7:::\nmunge:!:5::::::\n"),
        ("var/log/apt/term.log", "ran"),
        ("var/log/dpkg.log", "ran"),
    ] {
        t.insert(path(name), stored(&store, text)).unwrap();
    }
    for dir in ["etc", "var/log", "var"] {
        t.meta_mut(&path(dir)).unwrap().mtime = CHANGED;
    }
    normalise::normalise(&mut t, &below, &store, 86_400 * 3).unwrap();
    assert_eq!(read(&store, &t, "etc/shadow").unwrap(), "root:*:1:0:99999:7:::\nmunge:!:3::::::\n");
    t.insert(path("etc/shadow"), below.get(&path("etc/shadow")).unwrap().clone()).unwrap();
    assert_eq!(crate::tree::diff::diff(&below, &t), []);
}

mod with_units {
    use super::*;

    fn call(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn state_files_are_those_of_deb_systemd_helper() {
        let (_dir, store) = store();
        let unit = "[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n";
        let template = "[Install]\nWantedBy=\"getty.target\"\nDefaultInstance=tty1\nAlso=ssh.service\n";
        let mut t = tree(&[
            ("usr/lib/systemd/system/ssh.service", stored(&store, unit)),
            ("usr/lib/systemd/system/getty@.service", stored(&store, template)),
            ("usr/lib/systemd/user/agent.socket", stored(&store, "[Install]\nWantedBy=sockets.target\n")),
        ]);
        let calls = [
            call("deb-systemd-helper unmask ssh.service"),
            call("deb-systemd-helper --quiet was-enabled ssh.service"),
            call("deb-systemd-helper enable ssh.service"),
            call("deb-systemd-helper --user enable agent.socket"),
            call("deb-systemd-helper update-state getty@.service"),
        ];
        units::apply(&mut t, &store, &calls, Time::seconds(9)).unwrap();
        let state = "var/lib/systemd/deb-systemd-helper-enabled";
        let top = "/etc/systemd/system";
        assert_eq!(
            read(&store, &t, &format!("{state}/ssh.service.dsh-also")).unwrap(),
            format!("{top}/sshd.service\n{top}/multi-user.target.wants/ssh.service\n")
        );
        for mark in ["sshd.service", "multi-user.target.wants/ssh.service"] {
            assert_eq!(read(&store, &t, &format!("{state}/{mark}")).unwrap(), "");
        }
        let user = "var/lib/systemd/deb-systemd-user-helper-enabled/sockets.target.wants/agent.socket";
        assert_eq!(read(&store, &t, user).unwrap(), "");
        assert_eq!(
            read(&store, &t, &format!("{state}/getty@.service.dsh-also")).unwrap(),
            format!(
                "{top}/sshd.service\n{top}/multi-user.target.wants/ssh.service\n\
                 {top}/getty.target.wants/getty@tty1.service\n"
            )
        );
    }

    #[test]
    fn init_scripts_get_links_for_their_runlevels() {
        let (_dir, store) = store();
        let script =
            "#!/bin/sh\n### BEGIN INIT INFO\n# Default-Start: 2 3\n# Default-Stop:  0\n### END INIT INFO\n";
        let mut t = tree(&[("etc/init.d/ssh", stored(&store, script))]);
        let calls = [call("update-rc.d ssh defaults"), call("update-rc.d gone defaults")];
        units::apply(&mut t, &store, &calls, Time::seconds(9)).unwrap();
        let found: Vec<String> = t
            .iter()
            .filter(|(_, _, i)| matches!(i.kind, Kind::Symlink(_)))
            .map(|(p, _, _)| p.to_string())
            .collect();
        assert_eq!(found, ["/etc/rc0.d/K01ssh", "/etc/rc2.d/S01ssh", "/etc/rc3.d/S01ssh"]);
        assert_eq!(
            t.get(&TreePath::new("etc/rc2.d/S01ssh").unwrap()).unwrap().kind,
            symlink("../init.d/ssh").kind
        );
    }
}
