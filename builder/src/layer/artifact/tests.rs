//! Archives here are made by the tools that upstream makes them with.

use std::path::PathBuf;
use std::process::Command;

use super::*;

const DATE: i64 = 7;

/// A folder with `pkg-1/bin/tool` and what a real release has beside it, and a store.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let place = Place { dir, store };
        place.sh("umask 022; mkdir -p in/pkg-1/bin in/pkg-1/etc/deep in/pkg-1/void; cd in/pkg-1
             printf tool >bin/tool; chmod 4755 bin/tool; printf note >README; printf x >etc/deep/x
             chmod 600 etc/deep/x; ln bin/tool bin/second; ln -s tool bin/link; ln -s ../bin etc/bins");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// False when a tool that is used is not installed.
    fn sh(&self, script: &str) -> bool {
        let script = format!("set -e; {script}");
        let done = Command::new("sh").args(["-c", &script]).current_dir(self.dir.path()).output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() || told.contains("not found"), "{script}: {told}");
        done.status.success()
    }

    fn layer(&self, file: &str, wanted: &[Extract]) -> Result<Layer, ArtifactError> {
        layer(&self.path(file), wanted, DATE, &self.store)
    }

    fn error(&self, file: &str, from: &str) -> String {
        let error = self.layer(file, &[extract(Some(from), "/x", None)]).unwrap_err();
        error.to_string().replace(&self.dir.path().display().to_string(), "")
    }

    fn bytes(&self, layer: &Layer, path: &str) -> Vec<u8> {
        let inode = layer.tree().get(&TreePath::new(path).unwrap()).unwrap();
        self.store.read_object(inode.object().unwrap()).unwrap()
    }
}

fn extract(from: Option<&str>, to: &str, mode: Option<u16>) -> Extract {
    Extract { from: from.map(str::to_owned), to: TreePath::new(to).unwrap(), mode }
}

/// What a layer holds, a line each: path, kind, mode; implied directories in brackets.
fn lines(layer: &Layer) -> Vec<String> {
    let line = |(path, _, inode): (&TreePath, InodeId, &Inode)| {
        let shown = format!(
            "{} {} {:o}",
            crate::tree::printable(path.as_bytes()),
            inode.kind.noun(),
            inode.meta.mode
        );
        if layer.is_implied(path) { format!("({shown})") } else { shown }
    };
    layer.tree().iter().skip(1).map(line).collect()
}

/// Each form, and the command that makes it of `in/`.
const FORMS: &[(&str, &str)] = &[
    ("a.tar", "tar -C in -cf a.tar ./pkg-1"),
    ("a.tgz", "tar -C in -czf a.tgz pkg-1"),
    ("a.tar.xz", "tar -C in -cJf a.tar.xz pkg-1"),
    ("a.tar.zst", "tar -C in --zstd -cf a.tar.zst pkg-1"),
    ("a.zip", "cd in && zip -qry ../a.zip pkg-1"),
    (
        "a.deb",
        "cp -a in deb; mkdir deb/DEBIAN
         printf 'Package: a\\nVersion: 1\\nArchitecture: arm64\\nMaintainer: a\\nDescription: a\\n' >deb/DEBIAN/control
         dpkg-deb --root-owner-group -Zxz -b deb a.deb",
    ),
];

#[test]
fn a_file_comes_out_of_every_form_of_archive() {
    let place = Place::new();
    for (file, script) in FORMS {
        if !place.sh(script) {
            // The end-to-end tests have the same archives in a tier that says so.
            continue;
        }
        let wanted = [
            extract(Some("pkg-1/bin/tool"), "/usr/local/bin/tool", Some(0o755)),
            // One of these two names is a hard link in a tar.
            extract(Some("./pkg-1/bin/second"), "/opt/tool", None),
            extract(Some("/pkg-1/etc/deep/x"), "/etc/x", None),
        ];
        let layer = place.layer(file, &wanted).unwrap_or_else(|e| panic!("{file}: {e}"));
        let want = [
            "(etc directory 755)",
            "etc/x file 600",
            "(opt directory 755)",
            "opt/tool file 755",
            "(usr directory 755)",
            "(usr/local directory 755)",
            "(usr/local/bin directory 755)",
            "usr/local/bin/tool file 755",
        ];
        assert_eq!(lines(&layer), want, "{file}");
        assert_eq!(place.bytes(&layer, "usr/local/bin/tool"), b"tool");
        let time = layer.tree().get(&TreePath::new("opt/tool").unwrap()).unwrap().meta.mtime;
        assert_eq!(time, Time::seconds(DATE));
        assert_eq!(
            place.error(file, "bin/tool"),
            format!("`/{file}` has no file `bin/tool`; it has `pkg-1/bin/tool`")
        );
        assert_eq!(place.error(file, "pkg-2/"), format!("`/{file}` has no folder `pkg-2/`"));
        assert!(
            place
                .error(file, "pkg-1/bin")
                .ends_with("a folder: write `pkg-1/bin/` to have all of it, not a file")
        );
        assert!(place.error(file, "pkg-1/bin/link").contains("is a link to `tool`: take that"));
    }
}

#[test]
fn a_folder_comes_out_whole_and_the_same_from_the_store() {
    let place = Place::new();
    for (file, script) in FORMS {
        if !place.sh(script) {
            continue;
        }
        // zip has no hard links: it holds the bytes twice.
        let wanted =
            [extract(Some("pkg-1/"), "/opt/pkg", None), extract(Some("pkg-1/README"), "/n", Some(0o400))];
        let fresh = place.layer(file, &wanted).unwrap_or_else(|e| panic!("{file}: {e}"));
        let want = [
            "n file 400",
            "(opt directory 755)",
            "(opt/pkg directory 755)",
            "opt/pkg/README file 644",
            "opt/pkg/bin directory 755",
            "opt/pkg/bin/link symbolic link 777",
            "opt/pkg/bin/second file 755",
            "opt/pkg/bin/tool file 755",
            "opt/pkg/etc directory 755",
            "opt/pkg/etc/bins symbolic link 777",
            "opt/pkg/etc/deep directory 755",
            "opt/pkg/etc/deep/x file 600",
            "opt/pkg/void directory 755",
        ];
        assert_eq!(lines(&fresh), want, "{file}");
        let id = |name: &str| fresh.tree().id(&TreePath::new(name).unwrap());
        assert_eq!(id("opt/pkg/bin/tool") == id("opt/pkg/bin/second"), *file != "a.zip", "{file}");
        let digest = Digest::of(&std::fs::read(place.path(file)).unwrap());
        assert!(stored(&digest, &wanted, DATE, &place.store).unwrap().is_none());
        let made = make(&place.path(file), &digest, &wanted, DATE, &place.store).unwrap();
        let stored = || stored(&digest, &wanted, DATE, &place.store).unwrap().unwrap();
        let dump = |layer: &Layer| (lines(layer), crate::tree::dump::digest(layer.tree()));
        assert_eq!((dump(&made), dump(&stored())), (dump(&fresh), dump(&fresh)), "{file}");
        std::fs::remove_file(place.path(file)).unwrap();
        assert_eq!(dump(&stored()), dump(&fresh), "{file}: the file is not needed again");
        // All of an archive, with a mode for its files.
        place.sh(script.trim_start_matches("cp -a in deb; mkdir deb/DEBIAN"));
        let all = place.layer(file, &[extract(Some("/"), "/opt", Some(0o444))]).unwrap();
        assert!(lines(&all).contains(&"opt/pkg-1/etc/deep/x file 444".to_owned()), "{file}");
        assert_eq!(
            lines(&all)[0],
            "(opt directory 755)",
            "{file}: the archive's top is not the node's folder"
        );
        let empty = place.layer(file, &[extract(Some("pkg-1/void/"), "/void", None)]).unwrap();
        assert_eq!(lines(&empty), ["void directory 755"], "{file}");
    }
}

/// A bare binary, a chart, an image of containers: what is kept whole is not looked into.
#[test]
fn a_bare_file_is_taken_whole_and_junk_is_told() {
    let place = Place::new();
    std::fs::write(place.path("tool"), b"\x7fELF and so on").unwrap();
    let whole =
        place.layer("tool", &[extract(None, "/bin/tool", Some(0o755)), extract(None, "/c", None)]).unwrap();
    assert_eq!(lines(&whole), ["(bin directory 755)", "bin/tool file 755", "c file 644"]);
    assert!(place.sh("tar -C in -czf chart.tgz pkg-1"));
    let chart = place.layer("chart.tgz", &[extract(None, "/charts/a.tgz", None)]).unwrap();
    assert_eq!(place.bytes(&chart, "charts/a.tgz"), std::fs::read(place.path("chart.tgz")).unwrap());
    for (bytes, want) in [
        (&b"PK\x03\x04 and nothing"[..], "Zip"),
        (b"!<arch>\n and nothing", "Ar"),
        (b"!<arch>\ndata.zip        0           0     0     100644  0         `\n", "NoData"),
        (b"!<arch>\ndata.tar        0           0     0     100644  4         `\njunk", "Tar"),
        (b"\x7fELF and so on", "Tar"),
        (b"BZh91AY&SY", "Io"),
        (b"\x1f\x8bjunk junk junk", "Tar"),
        (b"", "Tar"),
    ] {
        std::fs::write(place.path("junk"), bytes).unwrap();
        let error = place.layer("junk", &[extract(Some("x"), "/x", None)]).unwrap_err();
        assert!(format!("{error:?}").starts_with(want), "{want}: {error:?}");
    }
}

#[test]
fn nothing_leaves_its_folder() {
    let place = Place::new();
    let tar = |script: &str| assert!(place.sh(script), "{script}");
    tar("cd in && tar -P --transform 's,pkg-1/README,pkg-1/../../../etc/passwd,' -cf ../up.tar pkg-1");
    let folder = |file: &str, from: &str| place.layer(file, &[extract(Some(from), "/opt", None)]);
    let error = folder("up.tar", "pkg-1/").unwrap_err().to_string();
    assert!(
        error.contains("entry `pkg-1/../../../etc/passwd` path") && error.contains("could leave"),
        "{error}"
    );
    // One file beside such an entry is no danger.
    folder("up.tar", "pkg-1/bin/tool").unwrap();
    tar("cd in && mkdir out && printf y >out/y && tar -cf ../through.tar pkg-1/bin/link pkg-1 \
         --transform 's,out/y,pkg-1/bin/link/y,' out/y");
    assert!(matches!(folder("through.tar", "pkg-1/"), Err(ArtifactError::Tree(_))));
    tar("cd in && ln pkg-1/bin/tool out/hard && tar -cf ../hard.tar out/hard pkg-1/bin");
    let error = folder("hard.tar", "pkg-1/").unwrap_err().to_string();
    assert!(error.contains("is a hard link to something outside of the folder"), "{error}");
    tar("mkfifo in/pkg-1/fifo && tar -C in -cf fifo.tar pkg-1");
    assert!(folder("fifo.tar", "pkg-1/").unwrap_err().to_string().ends_with("`pkg-1/fifo` is a named pipe"));
    assert_eq!(
        place.error("fifo.tar", "pkg-1/fifo"),
        "`pkg-1/fifo` in `/fifo.tar` is a named pipe, not a file"
    );
    // Two files for one place.
    let twice = [extract(Some("pkg-1/README"), "/x/y", None), extract(Some("pkg-1/bin/tool"), "/x", None)];
    assert!(matches!(place.layer("fifo.tar", &twice), Err(ArtifactError::Tree(_))));
}

/// Only a zip can say such a thing: a link's target is its content there.
#[test]
fn a_link_to_nothing_is_refused() {
    let place = Place::new();
    for target in ["''", "'a\\0b'", "'x' * 5000"] {
        let made = place.sh(&format!(
            "python3 -c \"
import zipfile
i = zipfile.ZipInfo('p/link'); i.create_system = 3; i.external_attr = 0o120777 << 16
zipfile.ZipFile('links.zip', 'w').writestr(i, {target})
\""
        ));
        if made {
            let error = place.layer("links.zip", &[extract(Some("p/"), "/p", None)]).unwrap_err().to_string();
            assert!(error.ends_with("entry `p/link` is a symbolic link to what can be no path"), "{error}");
        }
    }
}

/// What Python writes into a zip, which is how wheels are made: no folders, and modes of its own.
#[test]
fn pythons_zip_files_are_read() {
    let place = Place::new();
    if !place.sh("python3 -c \"
import zipfile
z = zipfile.ZipFile('w-1-py3-none-any.whl', 'w', zipfile.ZIP_DEFLATED)
z.write('in/pkg-1/bin/tool', 'pkg/bin/tool')
i = zipfile.ZipInfo('pkg/plain'); i.external_attr = 0
z.writestr(i, 'plain')
\"")
    {
        return;
    }
    let layer = place.layer("w-1-py3-none-any.whl", &[extract(Some("pkg/"), "/w", None)]).unwrap();
    let want = ["(w directory 755)", "w/bin directory 755", "w/bin/tool file 755", "w/plain file 600"];
    assert_eq!(lines(&layer), want);
}
