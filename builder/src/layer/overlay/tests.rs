use std::fs;
use std::path::Path;

use super::*;
use crate::cluster::Cluster;
use crate::cluster::tests::SAMPLE;
use crate::overlay::{Description, Overlays};
use crate::tree::dump;

const EPOCH: i64 = 86_400 * 20_000;

/// A tree with its store.
pub(super) struct World {
    pub tree: Tree,
    pub store: Store,
    _dir: tempfile::TempDir,
}

/// A tree of files with their texts; a name with `@` before it is a link.
pub(super) fn world(files: &[(&str, &str)]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    for (name, text) in files {
        let path = TreePath::new(name.trim_start_matches('@')).unwrap();
        let kind = if name.starts_with('@') {
            Kind::Symlink(text.as_bytes().into())
        } else {
            Kind::File(store.put_bytes(text.as_bytes()).unwrap())
        };
        tree.make_parents(&path, &Meta::root_owned(0o755, Time::seconds(1))).unwrap();
        tree.insert(path, Inode { meta: Meta::root_owned(0o640, Time::seconds(1)), kind }).unwrap();
    }
    World { tree, store, _dir: dir }
}

impl World {
    /// Writes the tree to a folder, for foreign tools.
    pub fn unpack(&self, to: &Path) {
        for (path, _, inode) in self.tree.iter() {
            let file = to.join(path.to_string().trim_start_matches('/'));
            match &inode.kind {
                Kind::Dir => fs::create_dir_all(file).unwrap(),
                Kind::File(object) => fs::write(file, self.store.read_object(object).unwrap()).unwrap(),
                Kind::Symlink(target) => {
                    std::os::unix::fs::symlink(String::from_utf8_lossy(target).as_ref(), file).unwrap();
                }
                _ => {}
            }
        }
    }

    fn text(&self, layer: &Layer, path: &str) -> String {
        let inode = layer.tree().get(&TreePath::new(path).unwrap()).unwrap_or_else(|| panic!("{path}"));
        String::from_utf8(self.store.read_object(inode.object().unwrap()).unwrap()).unwrap()
    }
}

fn debian() -> World {
    world(&[
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/group", "root:x:0:\nadm:x:4:\nshadow:x:42:\n"),
        ("etc/shadow", "root:*:1:0:99999:7:::\n"),
        ("etc/skel/.profile", "# profile\n"),
        ("etc/motd", "Debian\n"),
        ("usr/lib/systemd/system/ssh.service", "[Install]\nWantedBy=multi-user.target\n"),
        ("usr/share/zoneinfo/America/New_York", "TZif2"),
        ("@lib", "usr/lib"),
    ])
}

/// The sample description with one overlay as the worker.
fn describe(toml: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Cluster, Overlays) {
    let dir = tempfile::tempdir().unwrap();
    crate::overlay::tests::write(
        &dir.path().join("overlays"),
        &[("worker", toml, files), ("edge", "includes = [\"common\"]", &[]), ("common", "", &[])],
    );
    fs::create_dir(dir.path().join("keys")).unwrap();
    fs::write(
        dir.path().join("keys/root.pub"),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f root\n",
    )
    .unwrap();
    fs::write(dir.path().join("cluster.toml"), SAMPLE).unwrap();
    let description = Description::load(&dir.path().join("cluster.toml")).unwrap();
    (dir, description.cluster, description.overlays)
}

fn render_worker(toml: &str, files: &[(&str, &str)]) -> (World, Result<Layer>) {
    let (_dir, cluster, overlays) = describe(toml, files);
    let world = debian();
    let node = cluster.node("fenn").unwrap();
    let context = Context::new(&cluster, &overlays, node);
    let overlay = overlays.get(&"worker".parse().unwrap()).unwrap();
    let layer = render(overlay, &context, &world.tree, &world.store, EPOCH);
    (world, layer)
}

/// Each line of the layer's dump without the digests.
fn lines(layer: &Layer) -> Vec<String> {
    let text = dump::write(layer.tree());
    let short = |word: &str| if word.starts_with("sha256:") { "#".into() } else { word.to_owned() };
    let line = |line: &str| line.split(' ').map(short).collect::<Vec<_>>().join(" ");
    text.lines().filter(|l| !l.contains(" d 0755 0 0 ")).skip(1).map(line).collect()
}

#[test]
fn every_part_of_an_overlay_is_rendered() {
    let toml = crate::overlay::tests::FULL
        .replace("includes = [\"openssh\"]\n", "")
        .replace("conflicts = [\"other\"]\n", "")
        .replace("disable = [\"a.timer\"]\n", "");
    let files =
        [("etc/hosts", "{% for n in nodes %}{{ n.ip }} {{ n.name }}\n{% endfor %}"), ("etc/plain", "x")];
    let (world, layer) = render_worker(&toml, &files);
    let layer = layer.unwrap();
    assert_eq!(world.text(&layer, "etc/hosts"), "10.4.0.10 allyrion\n10.4.0.15 fenn\n");
    assert_eq!(world.text(&layer, "etc/sysctl.d/50-gt-worker.conf"), "net.ipv4.ip_forward = 1\n");
    assert_eq!(world.text(&layer, "etc/modules-load.d/50-gt-worker.conf"), "br_netfilter\n");
    assert!(world.text(&layer, "etc/group").ends_with("adm:x:4:munge\nshadow:x:42:\nmunge:x:901:\n"));
    assert_eq!(layer.whiteouts().map(|p| p.to_string()).collect::<Vec<_>>(), ["/etc/motd"]);
    let time = format!("{EPOCH}.000000000");
    let want = [
        format!("/etc/alias l 0777 0 0 {time} /etc/hosts"),
        format!("/etc/group f 0640 0 0 {time} # 50"),
        format!("/etc/hosts f 0640 0 0 {time} # 34 user.b=\\x00\\x01 user.note=text"),
        format!("/etc/modules-load.d/50-gt-worker.conf f 0644 0 0 {time} # 13"),
        format!("/etc/passwd f 0640 0 0 {time} # 85"),
        format!("/etc/plain f 0644 0 0 {time} # 1"),
        format!("/etc/shadow f 0640 0 0 {time} # 43"),
        format!("/etc/sysctl.d/50-gt-worker.conf f 0644 0 0 {time} # 24"),
        format!("/etc/systemd/system/b.socket l 0777 0 0 {time} /dev/null"),
        format!(
            "/etc/systemd/system/multi-user.target.wants/ssh.service l 0777 0 0 {time} /usr/lib/systemd/system/ssh.service"
        ),
    ];
    assert_eq!(lines(&layer), want);
    assert!(layer.tree().get(&TreePath::new("srv/data").unwrap()).is_some_and(Inode::is_dir));
    assert!(!layer.is_implied(&TreePath::new("srv/data").unwrap()));
}

#[test]
fn owners_are_looked_up_in_the_tree_the_overlay_and_the_users() {
    let entry = |owner: &str, group: &str| {
        format!(
            "[[users]]\nname = \"munge\"\nuid = 901\n[[files]]\npath = \"/a\"\nkind = \"directory\"\nowner = {owner}\ngroup = {group}\n"
        )
    };
    for (owner, group, want) in [
        ("\"munge\"", "\"shadow\"", Ok((901, 42))),
        ("\"nathan\"", "\"nathan\"", Ok((1000, 1000))),
        ("\"7\"", "8", Ok((7, 8))),
        ("\"nobody\"", "0", Err("overlay.toml:5:8: user `nobody` does not exist on the node")),
        ("0", "\"munges\"", Err("overlay.toml:5:8: group `munges` does not exist on the node")),
    ] {
        let (_, layer) = render_worker(&entry(owner, group), &[]);
        match (layer, want) {
            (Ok(layer), Ok(ids)) => {
                let meta = &layer.tree().get(&TreePath::new("a").unwrap()).unwrap().meta;
                assert_eq!((meta.uid, meta.gid), ids);
            }
            (Err(e), Err(want)) => assert!(e.to_string().ends_with(want), "{e}"),
            (found, want) => panic!("{owner} {group}: {found:?} instead of {want:?}"),
        }
    }
}

#[test]
fn templates_reach_what_the_page_says_and_nothing_else() {
    let toml = "[[files]]\npath = \"/t\"\ntemplate = true\n";
    let node = "{{ node.name }}|{{ node.index }}|{{ node.ip }}|{{ node.mac }}|{{ node.serial }}|{{ node.model }}|\
                {{ node.fqdn }}|{{ node.root }}|{{ node.vars.greeting }}|{{ node.ram }}|{{ node.roles | join(' ') }}";
    for (template, want) in [
        (
            node,
            "fenn|1|10.4.0.15|d8:3a:dd:89:ef:61|d2a7ebcf|pi4|fenn.nodes.goldentooth.net|nfs|hej|8G|worker",
        ),
        ("{{ nodes | map(attribute='name') | join(',') }}\n", "allyrion,fenn\n"),
        (
            "{{ cluster.name }} {{ cluster.domain }} {{ cluster.timezone }}",
            "goldentooth nodes.goldentooth.net America/New_York",
        ),
        (
            "{{ network.subnet }} {{ network.gateway }} {{ network.dns[0] }} {{ network.server }} {{ network.prefix_len }} {{ network.netmask }}",
            "10.4.0.0/20 10.4.0.1 10.4.0.1 10.4.0.10 20 255.255.240.0",
        ),
        (
            "{% for u in users %}{{ u.name }}:{{ u.uid }}:{{ u.sudo }};{% endfor %}",
            "nathan:1000:nopasswd;root:0:False;",
        ),
        ("{{ vars.greeting }} {{ vars.ports | tojson }}", "hej [1, 2]"),
        ("{{ nodes_with('common') | length }}{{ nodes_with('worker')[0].name }}", "1fenn"),
        ("<a href=\"&\">", "<a href=\"&\">"),
    ] {
        let (world, layer) = render_worker(toml, &[("t", template)]);
        assert_eq!(world.text(&layer.unwrap(), "t"), want, "{template}");
    }
    for (template, want) in [
        ("a\nb {{ node.nam }}\n", "files/t:2:1: template: `node.nam` is undefined in `b {{ node.nam }}`"),
        ("{{ nothing }}", "`nothing` is undefined in `{{ nothing }}`"),
        ("{% if vars.nope %}{% endif %}", "undefined"),
        (
            "\n\n{{ nodes_with('worke') }}",
            "files/t:3:1: template: unknown role `worke`; did you mean `worker`?",
        ),
        ("{{ nodes[1].nope.x }}", "undefined"),
    ] {
        let (_, layer) = render_worker(toml, &[("t", template)]);
        let error = layer.unwrap_err().to_string();
        assert!(error.contains(want), "{template}: {error}");
    }
}

#[test]
fn modes_come_from_git_and_from_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, cluster, overlays) = describe("", &[("a", ""), ("b", "")]);
    let world = debian();
    let folder = dir.path().join("overlays/worker/files");
    fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(folder.join("b"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("a", folder.join("c")).unwrap();
    drop(overlays);
    let overlays = Overlays::load(&dir.path().join("overlays"), &mut Default::default());
    let context = Context::new(&cluster, &overlays, &cluster.nodes[1]);
    let overlay = overlays.get(&"worker".parse().unwrap()).unwrap();
    let layer = render(overlay, &context, &world.tree, &world.store, EPOCH).unwrap();
    let modes: Vec<_> = layer.tree().iter().skip(1).map(|(p, _, i)| (p.to_string(), i.meta.mode)).collect();
    assert_eq!(modes, [("/a".into(), 0o755), ("/b".into(), 0o644), ("/c".into(), 0o777)]);
}

#[test]
fn a_missing_unit_names_its_line() {
    let (_, layer) = render_worker("[units]\nenable = [\"ssh.service\", \"nope.service\"]\n", &[]);
    let error = layer.unwrap_err().to_string();
    assert!(error.ends_with("overlay.toml:2:26: unit `nope.service` does not exist on the node"), "{error}");
}

#[test]
fn units_of_the_overlay_itself_can_be_enabled() {
    let unit = "[Install]\nWantedBy=timers.target\n";
    let (_, layer) =
        render_worker("[units]\nenable = [\"own.timer\"]\n", &[("etc/systemd/system/own.timer", unit)]);
    let link = TreePath::new("etc/systemd/system/timers.target.wants/own.timer").unwrap();
    let layer = layer.unwrap();
    let Kind::Symlink(target) = &layer.tree().get(&link).unwrap().kind else { panic!() };
    assert_eq!(&**target, b"/etc/systemd/system/own.timer");
}

fn node_layer(toml: &str, files: &[(&str, &str)], world: &World) -> Result<Layer> {
    let (_dir, cluster, overlays) = describe(toml, files);
    let node = cluster.node("fenn").unwrap();
    let context = Context::new(&cluster, &overlays, node);
    node_files(&overlays.expand_node(node), &context, &world.tree, &world.store, EPOCH)
}

#[test]
fn a_node_has_its_users_its_name_and_its_lists() {
    let toml = "[[persist]]\npath = \"/var/lib/b\"\nowner = \"nathan\"\n[[persist]]\npath = \"/var/lib/a\"\nmode = \"0700\"\n\
                [[scratch]]\npath = \"/var/lib/c\"\n[[secrets]]\nname = \"key\"\npath = \"/etc/key\"\ngroup = \"adm\"\n\
                [[checks]]\nname = \"It's up!\"\ncommand = \"true\"\n[[checks]]\nname = \"no\"\ncommand = \"echo why; exit 3\"\n";
    let world = debian();
    let layer = node_layer(toml, &[], &world).unwrap();
    for (path, want) in [
        ("etc/gt/persist", "0700 0 0 /var/lib/a\n0755 1000 0 /var/lib/b\n"),
        ("etc/gt/scratch", "0755 0 0 /var/lib/c\n"),
        ("etc/gt/secrets", "0400 0 4 key /etc/key\n"),
        ("etc/hostname", "fenn\n"),
        ("etc/timezone", "America/New_York\n"),
        ("etc/sudoers.d/90-gt-nathan", "nathan ALL=(ALL:ALL) NOPASSWD: ALL\n"),
        ("home/nathan/.profile", "# profile\n"),
        ("usr/lib/gt/checks/01-worker-it-s-up", "#!/bin/sh\n# It's up!\ntrue\n"),
    ] {
        assert_eq!(world.text(&layer, path), want, "{path}");
    }
    let meta = |path: &str| layer.tree().get(&TreePath::new(path).unwrap()).unwrap().meta.clone();
    for (path, mode, uid) in [
        ("home/nathan", 0o700, 1000),
        ("home/nathan/.ssh", 0o700, 1000),
        ("home/nathan/.ssh/authorized_keys", 0o600, 1000),
        ("home/nathan/.profile", 0o640, 1000),
        ("etc/sudoers.d/90-gt-nathan", 0o440, 0),
        ("root/.ssh/authorized_keys", 0o600, 0),
        ("var/lib/a", 0o700, 0),
        ("var/lib/b", 0o755, 1000),
        ("usr/lib/gt/check", 0o755, 0),
    ] {
        assert_eq!((meta(path).mode, meta(path).uid), (mode, uid), "{path}");
    }
    let shadow = world.text(&layer, "etc/shadow");
    assert_eq!(shadow.lines().last(), Some("nathan:!*:20000:0:99999:7:::"));
    let mut whole = world.tree.clone();
    layer.merge_onto(&mut whole).unwrap();
    assert_eq!(whole.get(&TreePath::new("etc/localtime").unwrap()).unwrap().kind.noun(), "symbolic link");
}

#[test]
fn an_overlay_may_bring_the_name_and_the_zone_itself() {
    let files = [("etc/hostname", "x\n"), ("etc/timezone", "UTC\n")];
    let toml =
        "[[files]]\npath = \"/etc/localtime\"\nkind = \"symlink\"\ntarget = \"/usr/share/zoneinfo/UTC\"\n";
    let layer = node_layer(toml, &files, &debian()).unwrap();
    for path in ["etc/hostname", "etc/timezone", "etc/localtime"] {
        assert!(layer.tree().get(&TreePath::new(path).unwrap()).is_none(), "{path}");
    }
}

#[test]
fn a_zone_that_the_node_does_not_know_is_an_error() {
    let mut world = debian();
    world.tree.remove(&TreePath::new("usr/share/zoneinfo/America").unwrap());
    let error = node_layer("", &[], &world).unwrap_err().to_string();
    assert_eq!(error, "time zone `America/New_York` is not in `/usr/share/zoneinfo` of the node");
    world.tree.remove(&TreePath::new("usr/share/zoneinfo").unwrap());
    assert!(node_layer("", &[], &world).is_ok(), "a base without the database has UTC");
}

/// The runner is a shell script, so a shell judges it.
#[test]
fn the_runner_counts_what_passed_and_what_failed() {
    let toml = "[[checks]]\nname = \"It's up!\"\ncommand = \"true\"\n[[checks]]\nname = \"no\"\ncommand = \"echo why; exit 3\"\n";
    let world = debian();
    let layer = node_layer(toml, &[], &world).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (path, _, inode) in layer.tree().iter().filter(|(p, ..)| p.to_string().starts_with("/usr/lib/gt/")) {
        let Some(object) = inode.object() else { continue };
        use std::os::unix::fs::PermissionsExt;
        let file = dir.path().join(path.to_string().trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = String::from_utf8(world.store.read_object(object).unwrap()).unwrap();
        fs::write(&file, text.replace("/usr/lib/gt", &format!("{}/usr/lib/gt", dir.path().display())))
            .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = std::process::Command::new("sh").arg(dir.path().join("usr/lib/gt/check")).output().unwrap();
    let output = String::from_utf8(run.stdout).unwrap();
    assert_eq!(output, "ok It's up!\nFAILED no: why\ngt-check: 1 passed, 1 failed\n");
    assert_eq!(run.status.code(), Some(1));
    let run = std::process::Command::new("sh").arg(dir.path().join("usr/lib/gt/check")).arg("each").output();
    let run = run.unwrap();
    let want = "ok 01-worker-it-s-up It's up!\nFAILED 02-worker-no no\n| why\ngt-check: 1 passed, 1 failed\n";
    assert_eq!((String::from_utf8(run.stdout).unwrap().as_str(), run.status.code()), (want, Some(1)));
}

#[test]
fn the_same_description_gives_the_same_layer() {
    let toml = "[[users]]\nname = \"b\"\nuid = 902\n[[users]]\nname = \"a\"\nuid = 901\n";
    let once = render_worker(toml, &[("x", "1"), ("y", "2")]).1.unwrap();
    let twice = render_worker(toml, &[("y", "2"), ("x", "1")]).1.unwrap();
    assert_eq!(dump::write(once.tree()), dump::write(twice.tree()));
}

/// The shipped overlays' files and templates render for every node (units need packages, so they
/// are left out here).
#[test]
fn goldentooth_renders_for_every_node() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster.toml");
    let Description { cluster, overlays } = Description::load(&file).unwrap();
    for node in &cluster.nodes {
        let context = Context::new(&cluster, &overlays, node);
        for overlay in overlays.expand_node(node) {
            for entry in overlay.files.iter().filter(|entry| entry.template) {
                let source = overlay.sources.iter().find(|s| s.path == *entry.path.tree()).unwrap();
                let text = fs::read_to_string(&source.source).unwrap();
                let name = source.source.display().to_string();
                assert!(!context.render(&name, &text).unwrap().is_empty());
            }
        }
    }
}
