//! `gt-image doctor` in networks with one thing wrong: it names that, and nothing of it where all is well.
//! Must not know: how anything is looked at. Spec: docs/operating.md, the section on the doctor.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::dnsmasq::Dnsmasq;
use crate::support::net::{Net, SERVER};
use crate::support::server::{Node, Server};
use crate::support::site::Site;
use crate::support::{Tier, binary, ok, text, trial};

pub fn trials() -> Vec<Trial> {
    const NET: &[Tier] = &[Tier::Root, Tier::Judge(&["ip", "nft"])];
    const ROUTER: &[Tier] = &[Tier::Root, Tier::Judge(&["ip", "nft", "dnsmasq"])];
    vec![
        trial("doctor::a_network_in_order_has_no_fault", NET, in_order),
        trial("doctor::a_port_in_use_and_its_owner", ROUTER, port_in_use),
        trial("doctor::a_rival_dhcp_server", ROUTER, rival),
        trial("doctor::a_firewall_is_told_from_a_closed_port", NET, firewall),
        trial("doctor::the_wrong_interface", NET, wrong_interface),
        trial("doctor::nfs_that_nobody_serves", NET, nfs_unreachable),
        trial("doctor::boot_files_that_are_missing", NET, missing_files),
    ]
}

const NODE: Node =
    Node { name: "bettley", mac: "d8:3a:dd:89:c1:0b", serial: 0x4cd9_693a, address: "10.4.0.11" };
/// A machine on the same switch, where nothing is served.
const OTHER: Node = Node { name: "other", mac: "02:00:00:00:00:01", serial: 0, address: "10.4.0.1" };

/// A network with a site that is built and not yet served.
struct Ward {
    net: Net,
    site: Site,
}

impl Ward {
    fn new(name: &str) -> Ward {
        let site = Site::for_netboot(&[NODE], 10_000);
        site.edit("cluster.toml", "dhcp = \"proxy\"", "dhcp = \"authoritative\"");
        ok(&mut site.gt_image(["build", "--all", "--no-image"]));
        let net = Net::new(name, &[OTHER.mac]);
        net.card(0).configure(OTHER.address);
        Ward { net, site }
    }

    fn serve(&self, args: &[&str]) -> Server {
        Server::start(&self.net, &self.site.path(""), args)
    }

    /// The doctor on the server's machine.
    fn here(&self, args: &[&str]) -> Findings {
        self.examine(self.net.command(binary()), args)
    }

    /// The doctor on the other machine.
    fn elsewhere(&self, args: &[&str]) -> Findings {
        self.examine(self.net.card(0).command(binary()), args)
    }

    fn examine(&self, mut command: Command, args: &[&str]) -> Findings {
        command.current_dir(self.site.path("")).args(["doctor", "--json"]).args(args);
        let output = command.output().unwrap();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let findings = Findings(report["findings"].as_array().unwrap().clone());
        let status = i32::from(!findings.faults().is_empty());
        assert_eq!(output.status.code(), Some(status), "{findings:#?}");
        findings
    }
}

#[derive(Debug)]
struct Findings(Vec<Value>);

impl Findings {
    /// The one about this subject.
    fn about(&self, subject: &str) -> &Value {
        let mut found = self.0.iter().filter(|finding| finding["subject"] == subject);
        found.next().unwrap_or_else(|| panic!("nothing about {subject:?}: {self:#?}"))
    }

    fn faults(&self) -> Vec<&str> {
        let faults = self.0.iter().filter(|finding| finding["state"] == "fault");
        faults.map(|finding| finding["subject"].as_str().unwrap()).collect()
    }

    /// It is a fault of which this was found, and its hint says so.
    fn fault(&self, subject: &str, found: &str, hint: &str) {
        let finding = self.about(subject);
        let has = |key: &str, want: &str| finding[key].as_str().is_some_and(|text| text.contains(want));
        assert!(finding["state"] == "fault" && has("found", found) && has("hint", hint), "{finding:#}");
    }
}

fn in_order() {
    let ward = Ward::new("well");
    let _server = ward.serve(&[]);
    let here = ward.here(&[]);
    assert_eq!(here.faults(), [] as [&str; 0], "{here:#?}");
    let held = here.about("UDP port 69 (TFTP)");
    assert!(held["found"].as_str().unwrap().starts_with("gt-image (process "), "{held:#}");
    assert_eq!(here.about("TFTP at 10.4.0.10, UDP port 69")["found"], "answers this machine itself");

    // The same from another machine, which says what it cannot tell.
    let there = ward.elsewhere(&[]);
    assert_eq!(there.faults(), [] as [&str; 0], "{there:#?}");
    assert_eq!(there.about("TFTP at 10.4.0.10, UDP port 69")["found"], "answers over the network");
    let machine = there.about("this machine");
    assert_eq!(machine["state"], "unchecked");
    let found = machine["found"].as_str().unwrap();
    assert!(found.contains("not the server") && found.contains("Not: who has its ports"), "{found}");
    assert!(machine["hint"].as_str().unwrap().contains(&format!("doctor` on {SERVER}")), "{machine:#}");
    assert!(there.0.iter().all(|f| f["subject"] != "UDP port 69 (TFTP)"), "its own ports do not matter");
}

fn port_in_use() {
    let ward = Ward::new("port");
    let files = tempfile::tempdir().unwrap();
    let root = format!("--tftp-root={}", files.path().display());
    let held = Dnsmasq::start(ward.net.command("dnsmasq"), &["--enable-tftp", &root], "TFTP root is");
    let found = format!("held by `dnsmasq` (process {})", held.process());
    let findings = ward.here(&["--no-dhcp"]);
    findings.fault("UDP port 69 (TFTP)", &found, "systemctl disable --now dnsmasq");
    assert_eq!(findings.about("TCP port 2049 (NFS)")["found"], "free");
}

fn rival() {
    let ward = Ward::new("rival");
    let _server = ward.serve(&[]);
    let leases = ward.site.path("leases");
    let leases = format!("--dhcp-leasefile={}", leases.display());
    let range = "--dhcp-range=10.4.0.100,10.4.0.200,255.255.240.0,1h";
    let args = ["--interface=eth0", "--dhcp-authoritative", "--no-ping", range, &leases];
    let subject = format!("another DHCP server, {}", OTHER.address);
    let dnsmasq = Dnsmasq::start(ward.net.card(0).command("dnsmasq"), &args, "IP range");
    let findings = ward.here(&[]);
    let card = format!("on the machine with card {}", OTHER.mac);
    findings.fault(&subject, "offers 10.4.0.1", &card);
    assert_eq!(findings.faults(), [subject.as_str()], "{findings:#?}");
    drop(dnsmasq);

    // Worse: it tells a Pi to boot as well.
    let boots = [&args[..], &["--pxe-service=0,Raspberry Pi Boot"]].concat();
    let _dnsmasq = Dnsmasq::start(ward.net.card(0).command("dnsmasq"), &boots, "IP range");
    ward.here(&[]).fault(&subject, "with `Raspberry Pi Boot`", "turn network boot");
}

fn firewall() {
    let ward = Ward::new("wall");
    let server = ward.serve(&[]);
    let rules = "table inet wall { chain in { type filter hook input priority 0; \
                 iif lo accept; udp dport 69 drop; tcp dport { 111, 2049 } drop; }; }";
    ok(ward.net.command("nft").arg(rules));

    let here = ward.here(&["--no-dhcp"]);
    for (subject, rule) in [
        ("firewall, udp port 69 (TFTP)", "udp dport 69 accept"),
        ("firewall, tcp port 111 (portmapper)", "tcp dport 111 accept"),
        ("firewall, tcp port 2049 (NFS)", "tcp dport 2049 accept"),
    ] {
        here.fault(subject, "dropped by a chain on the input hook", rule);
    }
    assert_eq!(here.faults().len(), 3, "{here:#?}");

    // Who asks over the network is not answered, and takes it for what it is.
    let there = ward.elsewhere(&["--no-dhcp"]);
    let (tftp, nfs) = ("TFTP at 10.4.0.10, UDP port 69", "NFS at 10.4.0.10, TCP port 2049");
    there.fault(tftp, "a firewall drops it", "accept UDP port 69");
    there.fault(nfs, "a firewall drops it", "accept TCP port 2049");
    assert_eq!(there.about("HTTP at 10.4.0.10, TCP port 8080")["state"], "ok");

    ok(ward.net.command("nft").args(["flush", "ruleset"]));
    drop(server);
    let there = ward.elsewhere(&["--no-dhcp"]);
    for subject in [tftp, nfs] {
        there.fault(subject, "nobody listens", "gt-image serve");
    }
}

fn wrong_interface() {
    let ward = Ward::new("card");
    let _server = ward.serve(&[]);
    let address = format!("the server's address {SERVER}");
    ward.here(&["--no-dhcp", "--interface", "tap0"]).fault(
        &address,
        "on `br0`, and `tap0` is served",
        "--interface br0",
    );
    ward.here(&["--no-dhcp", "--interface", "eth7"]).fault("interface `eth7`", "br0", "name one of these");
    ok(ward.net.command("ip").args(["link", "set", "br0", "down"]));
    ward.here(&["--no-dhcp"]).fault("interface `br0`", "down", "sudo ip link set br0 up");
    // A machine without the address, on a network where nobody has it, may be meant to be the server.
    ward.elsewhere(&["--no-dhcp"]).fault(&address, "on no interface of this machine", "ip address add");
}

fn nfs_unreachable() {
    let ward = Ward::new("nfs");
    let _server = ward.serve(&["--nfs-port", "2050"]);
    let nfs = "NFS at 10.4.0.10, TCP port 2049";
    ward.here(&["--no-dhcp"]).fault(nfs, "nobody listens", "run `gt-image serve`");
    let findings = ward.elsewhere(&["--no-dhcp"]);
    findings.fault(nfs, "nobody listens", "run `gt-image serve`");
    assert_eq!(findings.faults().len(), 1, "MOUNT is on a port of its own: {findings:#?}");
    let moved = ward.here(&["--no-dhcp", "--nfs-port", "2050"]);
    assert_eq!(moved.faults(), [] as [&str; 0], "{moved:#?}");
}

fn missing_files() {
    let ward = Ward::new("files");
    let _server = ward.serve(&[]);
    for file in ["start4.elf", "kernel8.img", "bcm2711-rpi-4-b.dtb"] {
        let path = ward.site.path("root/boot/firmware").join(file);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        ward.site.pack_base();
        ok(&mut ward.site.gt_image(["build", "--all", "--no-image"]));
        let findings = ward.here(&["--no-dhcp"]);
        let told = findings.0.iter().any(|finding| {
            let text = finding.to_string();
            finding["group"] == "boot files" && finding["state"] == "fault" && text.contains(file)
        });
        assert!(told, "{file} is missing and not named: {findings:#?}");
        fs::write(&path, bytes).unwrap();
    }
}
