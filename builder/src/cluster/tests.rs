use super::*;
use proptest::prelude::*;

pub(crate) const SAMPLE: &str = r#"[cluster]
name = "goldentooth"
domain = "nodes.goldentooth.net"
timezone = "America/New_York"
base = "debian-trixie"

[network]
subnet = "10.4.0.0/20"
gateway = "10.4.0.1"
dns = ["10.4.0.1"]
server = "10.4.0.10"
dhcp = "proxy"

[vars]
greeting = "hello"
ports = [1, 2]

[users.nathan]
groups = ["adm"]
sudo = "nopasswd"
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f nathan@home"]
[users.root]
ssh_key_files = ["keys/root.pub"]

[[node]]
name = "allyrion"
roles = ["edge"]
ip = "10.4.0.10"
mac = "d8:3a:dd:8a:7e:01"
serial = "01010101"
root = "disk"
size = "8G"

[[node]]
name = "fenn"
roles = ["worker"]
ip = "10.4.0.15"
mac = "d8:3a:dd:89:ef:61"
serial = "d2a7ebcf"
model = "pi4"
ram = "8G"
[node.vars]
greeting = "hej"
"#;

pub(crate) fn roles(names: &[&str]) -> BTreeSet<OverlayName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

pub(crate) fn load_text(text: &str) -> (Option<Cluster>, String) {
    let mut report = Report::new();
    let key =
        "# root's\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f root\n";
    let mut keys = |file: &str| match file {
        "keys/root.pub" => Ok(key.to_owned()),
        "keys/bad.pub" => Ok("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let source = Source::new("cluster.toml", text);
    let cluster = parse(&source, &roles(&["edge", "leader", "worker"]), &mut keys, &mut report);
    (cluster, report.to_string())
}

fn sample() -> Cluster {
    let (cluster, report) = load_text(SAMPLE);
    assert_eq!(report, "");
    cluster.unwrap()
}

#[test]
fn a_right_description_is_read_in_full() {
    let cluster = sample();
    let fenn = cluster.node("fenn").unwrap();
    assert_eq!(cluster.fqdn(fenn), "fenn.nodes.goldentooth.net");
    assert_eq!((fenn.index, fenn.root, fenn.model), (1, RootMode::Nfs, Model::Pi4));
    assert_eq!((fenn.base.as_str(), fenn.serial.to_string()), ("debian-trixie", "d2a7ebcf".to_owned()));
    assert_eq!(fenn.ram.map(ByteSize::bytes), Some(8 << 30));
    assert_eq!(fenn.roles[0].place.to_string(), "cluster.toml:36:10");
    let [nathan, root] = cluster.users.as_slice() else { panic!("{:?}", cluster.users) };
    assert_eq!((nathan.uid, nathan.sudo, nathan.shell.as_str()), (1000, Sudo::NoPassword, "/bin/bash"));
    assert_eq!((root.uid, root.home(), root.ssh_keys.len()), (0, "/root".to_owned(), 1));
}

#[test]
fn the_shortest_description_has_defaults() {
    let (cluster, report) = load_text(
        "[cluster]\nname='c'\ndomain='lan'\n[network]\nsubnet='10.0.0.0/24'\n[users.b]\n[users.a]\n",
    );
    assert_eq!(report, "");
    let cluster = cluster.unwrap();
    assert_eq!((cluster.timezone.as_str(), cluster.network.dhcp), ("UTC", Dhcp::Proxy));
    assert_eq!(cluster.users.iter().map(|u| u.uid).collect::<Vec<_>>(), [1000, 1001]);
}

/// One thing of the sample is made wrong, and one finding says so.
#[test]
fn each_wrong_value_is_one_finding() {
    for (good, bad, want) in [
        ("name = \"fenn\"", "name = \"Fenn\"", "cluster.toml:35:8: `Fenn` is no node name: "),
        (
            "name = \"fenn\"",
            "name = \"allyrion\"",
            "35:8: name `allyrion` is taken already at cluster.toml:26:8",
        ),
        ("\"10.4.0.15\"", "\"10.4.0.10\"", "37:6: address `10.4.0.10` is taken already at cluster.toml:28:6"),
        ("\"10.4.0.15\"", "\"10.5.0.15\"", "37:6: address `10.5.0.15` is outside the subnet `10.4.0.0/20`"),
        ("\"10.4.0.15\"", "\"10.4.0.0\"", "37:6: address `10.4.0.0` is the network's own address"),
        ("\"10.4.0.15\"", "\"10.4.15.255\"", "37:6: address `10.4.15.255` is the broadcast address"),
        ("\"10.4.0.15\"", "\"10.4.0.1\"", "37:6: address `10.4.0.1` is the gateway's"),
        ("\"10.4.0.15\"", "\"10.4.0\"", "37:6: `10.4.0` is no IPv4 address"),
        (
            "89:ef:61",
            "8a:7e:01",
            "38:7: MAC address `d8:3a:dd:8a:7e:01` is taken already at cluster.toml:29:7",
        ),
        ("d2a7ebcf", "01010101", "39:10: serial number `01010101` is taken already at cluster.toml:30:10"),
        ("[\"worker\"]", "[\"worke\"]", "36:10: unknown role `worke`; did you mean `worker`?"),
        ("[\"worker\"]", "[\"worker\", \"worker\"]", "36:20: role `worker` is given twice"),
        (
            "model = \"pi4\"",
            "model = \"pi6\"",
            "40:9: `model` is `pi6`, wanted is one of `pi3`, `pi4`, `pi5`",
        ),
        ("model = \"pi4\"", "modle = \"pi4\"", "40:1: unknown key `modle`; did you mean `model`?"),
        ("ram = \"8G\"", "ram = \"8GB\"", "41:7: `8GB` is no size"),
        ("ram = \"8G\"", "ram = 8", "41:7: `ram` is an integer, a string is wanted"),
        ("serial = \"d2a7ebcf\"\n", "", "34:1: key `serial` is missing in an entry of `node`"),
        ("base = \"debian-trixie\"", "", "35:8: node `fenn` has no base; add `base`"),
        ("base = \"debian-trixie\"", "base = \"../x\"", "5:8: `../x` is no base name"),
        ("America/New_York", "/etc", "4:12: `/etc` is no time zone"),
        (
            "gateway = \"10.4.0.1\"",
            "gateway = \"10.9.0.1\"",
            "9:11: address `10.9.0.1` of the gateway is outside",
        ),
        ("subnet = \"10.4.0.0/20\"", "subnet = \"10.4.0.1/20\"", "8:10: `10.4.0.1/20` is no subnet"),
        (
            "sudo = \"nopasswd\"",
            "sudo = \"yes\"",
            "20:8: `sudo` is `yes`, wanted is one of true, false, `nopasswd`",
        ),
        ("sudo = \"nopasswd\"", "password = \"x\"", "20:1: a plain password must not be in a description"),
        ("sudo = \"nopasswd\"", "password_hash = \"secret\"", "20:17: this is no crypt(5) string"),
        ("sudo = \"nopasswd\"", "uid = 0", "20:7: uid 0 is not from 1000 to 59999"),
        ("sudo = \"nopasswd\"", "comment = \"a:b\"", "20:11: a comment cannot hold `:`"),
        ("sudo = \"nopasswd\"", "shell = \"bash\"", "20:9: shell `bash` is no absolute path"),
        ("ssh-ed25519 AAAA", "ssh-rsa AAAA", "21:13: this is no line of `authorized_keys`"),
        ("keys/root.pub", "keys/none.pub", "23:18: key file `keys/none.pub`: "),
        ("keys/root.pub", "keys/bad.pub", "23:18: `keys/bad.pub` holds a line that is no public key"),
        ("ssh_key_files", "sudo = true\nssh_key_files", "22:8: `root` may have `ssh_keys`"),
        ("[users.nathan]", "[users.Nathan]", "18:8: `Nathan` is no user or group name"),
    ] {
        let text = SAMPLE.replacen(good, bad, 1);
        assert_ne!(text, SAMPLE, "{good}");
        let (_, report) = load_text(&text);
        assert!(report.contains(want), "{bad}: {report}");
        if !bad.is_empty() {
            assert!(report.lines().count() <= 1, "{bad}: {report}");
        }
    }
}

#[test]
fn a_server_may_be_beyond_the_gateway() {
    let beyond = SAMPLE.replacen("server = \"10.4.0.10\"", "server = \"10.9.0.10\"", 1);
    let (cluster, report) = load_text(&beyond);
    assert_eq!(cluster.unwrap().network.server, Some([10, 9, 0, 10].into()), "{report}");
    let (_, report) = load_text(&beyond.replacen("gateway = \"10.4.0.1\"\n", "", 1));
    assert!(report.contains("address `10.9.0.10` of the server is outside the subnet"), "{report}");
    let (_, report) = load_text(&beyond.replacen("10.9.0.10", "10.4.15.255", 1));
    assert!(report.contains("of the server is the broadcast address"), "{report}");
}

#[test]
fn all_findings_come_at_once() {
    let text = SAMPLE
        .replace("domain =", "domian =")
        .replace("d8:3a:dd:89:ef:61", "d8:3a:dd:8a:7e:01")
        .replace("10.4.0.15", "192.168.0.1")
        .replace("\"edge\"", "\"egde\"")
        .replace("server = \"10.4.0.10\"", "server = 7");
    let (cluster, report) = load_text(&text);
    assert!(cluster.is_none());
    assert_eq!(report.lines().count(), 6, "{report}");
}

#[test]
fn fixed_numbers_are_kept_and_the_others_go_round_them() {
    let text = SAMPLE.replace(
        "[users.root]",
        "[users.anna]\n[users.zoe]\nuid = 1000\n[users.yves]\nuid = 1000\n[users.root]",
    );
    let (_, report) = load_text(&text);
    assert!(report.contains("uid 1000 is that of `yves` too"), "{report}");
    let (cluster, report) = load_text(&text.replace("[users.yves]\nuid = 1000\n", ""));
    assert_eq!(report, "");
    let ids: Vec<_> = cluster.unwrap().users.iter().map(|u| (u.name.to_string(), u.uid)).collect();
    let want = [("anna", 1001), ("nathan", 1002), ("root", 0), ("zoe", 1000)];
    assert_eq!(ids, want.map(|(name, uid)| (name.to_owned(), uid)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// A file with some bytes changed gives findings or a description, never a panic.
    #[test]
    fn changed_files_do_not_panic(at in 0..SAMPLE.len(), len in 0usize..30, new in "[\\[\\]{}='\"a-c.0-9\n#é]{0,12}") {
        let mut text = SAMPLE.to_owned();
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &new);
        let (cluster, report) = load_text(&text);
        prop_assert!(cluster.is_some() || !report.is_empty());
    }
}

#[test]
fn the_command_that_resets_a_node() {
    let load = |line: &str| load_text(&SAMPLE.replace("dhcp = \"proxy\"", line));
    assert_eq!(load("").0.unwrap().network.reset, RESET);
    assert_eq!(load("reset = []").0.unwrap().network.reset, RESET);
    let own = load("reset = [\"ipmi\", \"{{ node.name }}\"]").0.unwrap();
    assert_eq!(own.network.reset, ["ipmi", "{{ node.name }}"]);
    let (_, report) = load("reset = [\" \", \"x\"]");
    assert_eq!(report, "cluster.toml:12:10: the first word of `reset` must be a program, such as `ssh`");
    let (_, report) = load("reset = \"reboot\"");
    assert!(report.starts_with("cluster.toml:12:9: "), "{report}");
}

#[test]
fn models_follow_from_revision_codes() {
    for (code, want) in [
        (0xc03111, Some(Model::Pi4)),
        (0xd03115, Some(Model::Pi4)),
        (0xc04170, Some(Model::Pi5)),
        (0xa02082, Some(Model::Pi3)),
        (0xa020d3, Some(Model::Pi3)),
        // Warranty and overvoltage bits say nothing about the model.
        (0xc2c03111, Some(Model::Pi4)),
        // Zero 2 W, Compute Module 4, an old-style code.
        (0x902120, None),
        (0xb03140, None),
        (0x000e, None),
        (0, None),
    ] {
        assert_eq!(Model::from_revision(code), want, "{code:x}");
    }
}
