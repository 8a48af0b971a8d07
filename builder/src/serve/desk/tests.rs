//! The desk over a real store and record, asked as the protocol servers ask it.

use super::*;
use crate::manifest::tests::manifest;
use crate::serve::board::{Board, Refused};
use crate::serve::keeper::PinsDir;
use crate::serve::record::Redb;
use crate::serve::status::Outcome;
use crate::store::{Generation, Store};
use crate::tree::tests::tree;
use crate::tree::{Inode, Kind, Meta};
use gt_netboot::dhcp::{self, Host as _, Identity};
use gt_netboot::nfs::{Denied, FileId, Host as _};
use gt_netboot::site::{self, Mac, Serial};
use gt_netboot::tftp::{self, Host as _};

const FENN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 15);
const JAST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 16);

/// A store, a record, and a desk that can be opened again.
struct Bench {
    dir: tempfile::TempDir,
    desk: Option<Arc<Desk>>,
    incomplete: bool,
    alone: bool,
}

impl Bench {
    fn new() -> Bench {
        let mut bench =
            Bench { dir: tempfile::tempdir().unwrap(), desk: None, incomplete: false, alone: false };
        bench.restart();
        bench
    }

    fn store(&self) -> Store {
        Store::open(self.dir.path()).unwrap()
    }

    fn restart(&mut self) {
        self.desk = None;
        let reader = self.store().reader().unwrap();
        let state = self.dir.path().join("serve");
        let record = Redb::open(&state).unwrap();
        let past = Past::read(&record).unwrap();
        let pins = PinsDir::open(&state).unwrap();
        let log = Arc::<Log>::default();
        let keeper = Keeper::start(Box::new(record), Some(pins), log.clone()).unwrap();
        let node = |name: &str, last: u8| site::Node {
            name: name.into(),
            address: Ipv4Addr::new(10, 9, 0, last),
            mac: Mac([0xd8, 0x3a, 0xdd, 0, 0, last]),
            serial: Serial(last.into()),
        };
        let site = Site {
            server: Ipv4Addr::new(10, 9, 0, 2),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: None,
            dns: vec![],
            domain: "nodes.test".into(),
            nodes: vec![node("fenn", 15), node("jast", 16)],
        };
        let vault: Vault = Box::new(|node, _| Ok(format!("secrets of {node}").into_bytes()));
        let (alone, incomplete) = (self.alone, self.incomplete);
        let words = vec!["gt.http=8080".to_owned()];
        let parts = Parts { site, store: reader, words, past, keeper, log, vault, alone, incomplete };
        self.desk = Some(Desk::new(parts));
    }

    fn desk(&self) -> &Desk {
        self.desk.as_ref().unwrap()
    }

    /// Builds a generation whose root and boot tree hold `text`, and makes it current.
    fn publish(&self, node: &str, text: &str, incomplete: bool) -> Digest {
        let store = self.store();
        let object = store.put_bytes(text.as_bytes()).unwrap();
        let inode = |_: ()| Inode { meta: Meta::default(), kind: Kind::File(object.clone()) };
        let root = store.put_tree(&tree(&[("etc/motd", inode(()))])).unwrap();
        let boot = store.put_tree(&tree(&[("start4.elf", inode(())), ("kernel8.img", inode(()))])).unwrap();
        let mut manifest = manifest();
        manifest.node = node.into();
        manifest.root = root.to_string();
        if incomplete {
            manifest.incomplete.push(crate::manifest::Missing {
                overlay: "x".into(),
                artifact: "y".into(),
                source: "z".into(),
                sha256: Some("00".repeat(32)),
            });
        }
        let manifest = manifest.to_bytes();
        let digest = Digest::of(&manifest);
        let generation =
            Generation { digest, root, boot, ram: None, manifest, sbom: vec![], origins: vec![] };
        store.put_generation(node, &generation).unwrap();
        digest
    }

    fn discover(&self) {
        dhcp::Host::event(self.desk(), dhcp::Event::Discover { node: "fenn".into(), identity: None });
    }

    fn fetch(&self, path: &str) -> Option<String> {
        let content = self.desk().boot_file("fenn", path.as_bytes())?;
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
        content.read_at(&mut bytes, 0).unwrap();
        let (node, path) = ("fenn".into(), path.as_bytes().to_vec());
        let (bytes_, took) = (content.len(), std::time::Duration::ZERO);
        tftp::Host::event(self.desk(), tftp::Event::Sent { node, path, bytes: bytes_, took, resent: 0 });
        Some(String::from_utf8(bytes).unwrap())
    }

    /// The content of the root's one file.
    fn motd(export: &Arc<dyn Export>) -> String {
        let file = export.lookup(export.lookup(FileId(1), b"etc").unwrap(), b"motd").unwrap();
        let content = export.open(file).unwrap();
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
        content.read_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

#[test]
fn a_boot_is_pinned_through_publishing_restart_and_gc() {
    let mut bench = Bench::new();
    bench.publish("fenn", "one", false);
    assert!(bench.desk().can_boot("fenn") && !bench.desk().can_boot("jast"));
    assert_eq!(bench.desk().mount("fenn").err(), Some(Denied::NoBoot), "nothing asked for it");
    bench.discover();
    assert_eq!(bench.fetch("start4.elf").as_deref(), Some("one"));
    bench.publish("fenn", "two", false);
    assert_eq!(bench.fetch("kernel8.img").as_deref(), Some("one"), "one boot, one generation");
    let export = bench.desk().mount("fenn").unwrap();
    let id = export.id();
    assert_eq!(Bench::motd(&export), "one");
    drop(export);

    bench.restart();
    let store = Store::open_alone(bench.dir.path()).unwrap();
    assert_eq!(store.gc(1, false).unwrap().generations, 0, "the running node's stays");
    drop(store);
    assert_eq!(Bench::motd(&bench.desk().export("fenn", id).unwrap()), "one");
    assert_eq!(bench.desk().export("jast", id).err(), Some(Denied::NoBoot), "a handle of another node");

    // The next boot gets what is current, and the old root goes when the new one is mounted.
    bench.discover();
    assert_eq!(bench.fetch("start4.elf").as_deref(), Some("two"));
    assert_eq!(Bench::motd(&bench.desk().export("fenn", id).unwrap()), "one");
    let export = bench.desk().mount("fenn").unwrap();
    assert_eq!(Bench::motd(&export), "two");
    assert_eq!(bench.desk().export("fenn", id).err(), Some(Denied::Gone));
    bench.desk().flush();
    drop(bench.desk.take());
    let store = Store::open_alone(bench.dir.path()).unwrap();
    assert_eq!(store.gc(1, false).unwrap().generations, 1);
}

#[test]
fn trees_are_loaded_for_pinned_boots_and_let_go() {
    let bench = Bench::new();
    bench.publish("fenn", "one", false);
    bench.discover();
    assert!(bench.fetch("start4.elf").is_some());
    bench.desk().load_pinned();
    assert_eq!(bench.desk().trees.len(), 2);
    let id = bench.desk().mount("fenn").unwrap().id();
    bench.publish("fenn", "two", false);
    assert!(bench.fetch("start4.elf").is_some(), "a new boot");
    drop(bench.desk().mount("fenn").unwrap());
    bench.desk().load_pinned();
    assert_eq!(bench.desk().trees.len(), 2, "those of the first are gone");
    assert_eq!(bench.desk().export("fenn", id).err(), Some(Denied::Gone));
}

#[test]
fn an_incomplete_generation_is_refused_unless_allowed() {
    let mut bench = Bench::new();
    bench.publish("fenn", "half", true);
    assert!(!bench.desk().can_boot("fenn"));
    bench.discover();
    assert_eq!(bench.fetch("start4.elf"), None);
    bench.incomplete = true;
    bench.restart();
    assert!(bench.desk().can_boot("fenn"));
    assert_eq!(bench.fetch("start4.elf").as_deref(), Some("half"));
    assert!(bench.desk().status().nodes[0].incomplete);
}

#[test]
fn without_dhcp_a_mount_begins_a_boot() {
    let mut bench = Bench::new();
    bench.alone = true;
    bench.restart();
    bench.publish("fenn", "one", false);
    assert_eq!(Bench::motd(&bench.desk().mount("fenn").unwrap()), "one");
    assert_eq!(bench.desk().mount("jast").err(), Some(Denied::NoBoot), "nothing to mount");
}

#[test]
fn a_node_tells_its_steps_from_its_own_address() {
    let bench = Bench::new();
    bench.publish("fenn", "one", false);
    let step = |from, node, step| bench.desk().step(from, node, step, None);
    assert_eq!(step(FENN, "fenn", "init"), Err(Refused::NoBoot));
    bench.discover();
    bench.fetch("kernel8.img").unwrap();
    assert_eq!(step(JAST, "fenn", "login"), Err(Refused::Address));
    assert_eq!(step(FENN, "gone", "login"), Err(Refused::NoNode));
    assert_eq!(step(FENN, "fenn", "login"), Ok(()));
    assert_eq!(bench.desk().status().nodes[0].boots[0].outcome, Outcome::Login);
    let metrics = bench.desk().metrics();
    let bytes = metrics.iter().find(|m| m.name == "gt_tftp_bytes_total").unwrap();
    assert_eq!((bytes.value, &bytes.labels[..]), (3.0, &[("node", "fenn".to_owned())][..]));
}

#[test]
fn strangers_and_other_servers_are_listed_and_outlive_a_restart() {
    let mut bench = Bench::new();
    let mac = Mac([0xdc, 0xa6, 0x32, 1, 0x36, 0xc2]);
    let identity = Some(Identity { serial: Serial(0x5b15_4510), revision: Some(0xc0_3111), mac_tail: None });
    let before = *bench.desk().changes().borrow();
    dhcp::Host::event(bench.desk(), dhcp::Event::Stranger { mac, identity, pi: true });
    let server = Ipv4Addr::new(10, 9, 0, 1);
    dhcp::Host::event(bench.desk(), dhcp::Event::ForeignServer { server, mac: None });
    assert!(*bench.desk().changes().borrow() > before);
    bench.restart();
    let status = bench.desk().status();
    let stranger = &status.strangers[0];
    assert_eq!((stranger.mac.as_str(), stranger.serial.as_deref()), ("dc:a6:32:01:36:c2", Some("5b154510")));
    assert_eq!(stranger.revision.as_deref(), Some("c03111"));
    assert_eq!(status.servers[0].address, "10.9.0.1");
    // Adopted.
    let mut site = Site::clone(&bench.desk().site());
    site.nodes[1].mac = mac;
    bench.desk().set_site(site);
    assert!(bench.desk().status().strangers.is_empty());
    bench.restart();
    assert!(bench.desk().status().strangers.is_empty());
}

#[test]
fn what_is_wrong_with_a_node_stands_without_a_boot_until_it_is_right() {
    let mut bench = Bench::new();
    let see = |bench: &Bench, event| dhcp::Host::event(bench.desk(), event);
    let said = |serial, mac_tail| Identity { serial: Serial(serial), revision: None, mac_tail };
    let found = |bench: &Bench| -> Vec<String> {
        let nodes = bench.desk().status().nodes;
        assert!(nodes.iter().all(|node| node.boots.is_empty()));
        let of = |node: &crate::serve::status::Node| {
            let kinds =
                node.problems.iter().map(|problem| format!("{} {}", node.name, problem.kind.as_str()));
            kinds.collect::<Vec<_>>()
        };
        let mut all: Vec<String> = nodes.iter().flat_map(of).collect();
        all.sort();
        all
    };
    let mac = Mac([0xdc, 0xa6, 0x32, 1, 0x36, 0xc2]);
    let node = || "fenn".to_owned();
    see(&bench, dhcp::Event::Mismatch { node: node(), expected: Serial(15), found: Serial(9) });
    see(&bench, dhcp::Event::Conflict { node: node(), address: FENN, holder: Some(mac) });
    see(&bench, dhcp::Event::Stranger { mac, identity: Some(said(16, None)), pi: true });
    see(&bench, dhcp::Event::CardMismatch { node: node(), found: [1, 2, 3, 4] });
    assert_eq!(found(&bench), ["fenn address", "fenn card", "fenn serial", "jast card"]);
    bench.restart();
    assert_eq!(found(&bench).len(), 4, "they are recorded");
    let metrics = crate::serve::metrics::text(vec![], &bench.desk().status()).unwrap();
    assert!(metrics.contains("gt_node_problem{node=\"jast\",problem=\"card\"} 1"), "{metrics}");

    see(&bench, dhcp::Event::Discover { node: node(), identity: None });
    assert_eq!(found(&bench).len(), 4, "a request without option 97 proves nothing");
    see(&bench, dhcp::Event::Discover { node: node(), identity: Some(said(15, Some([1, 2, 3, 4]))) });
    assert_eq!(found(&bench), ["fenn address", "fenn card", "jast card"], "the right board");
    see(&bench, dhcp::Event::Discover { node: node(), identity: Some(said(15, Some([0xdd, 0, 0, 15]))) });
    see(&bench, dhcp::Event::Offered { node: node() });
    assert_eq!(found(&bench), ["jast card"], "the right card, and the address is free");
    let mut site = Site::clone(&bench.desk().site());
    bench.desk().set_site(site.clone());
    assert_eq!(found(&bench).len(), 1, "nothing changed");
    site.nodes[1].mac = mac;
    bench.desk().set_site(site);
    bench.restart();
    assert!(found(&bench).is_empty(), "the description was wrong");
}

#[test]
fn secrets_are_given_once_for_each_boot_also_after_a_restart() {
    let mut bench = Bench::new();
    bench.publish("fenn", "one", false);
    assert_eq!(bench.desk().secrets(FENN, "fenn"), Err(Refused::NoBoot));
    bench.discover();
    bench.fetch("kernel8.img").unwrap();
    assert_eq!(bench.desk().secrets(JAST, "fenn"), Err(Refused::Address));
    assert_eq!(bench.desk().secrets(FENN, "fenn").as_deref(), Ok(&b"secrets of fenn"[..]));
    assert_eq!(bench.desk().secrets(FENN, "fenn"), Err(Refused::Again));
    bench.restart();
    assert_eq!(bench.desk().secrets(FENN, "fenn"), Err(Refused::Again));
    let boot = &bench.desk().status().nodes[0].boots[0];
    let count = |step: &str| boot.steps.iter().filter(|s| s.step == step).count();
    assert_eq!((count("secrets"), count("alarm")), (1, 2));
}

#[test]
fn a_memory_root_is_the_object_that_its_command_line_names() {
    let bench = Bench::new();
    let store = bench.store();
    let image = store.put_bytes(b"a whole root").unwrap();
    let line = format!("console=tty1 gt.root=ram gt.ram={} gt.ram_size={}\n", image.digest, image.size);
    bench.publish("jast", &line, false);
    bench.desk().see("jast", Event::Request);
    assert_eq!(bench.desk().ram_image(JAST, "jast").err(), Some(Refused::None), "no such file");
    let object = store.put_bytes(line.as_bytes()).unwrap();
    let inode = Inode { meta: Meta::default(), kind: Kind::File(object) };
    let boot = store.put_tree(&tree(&[("cmdline.netboot.txt", inode)])).unwrap();
    let mut manifest = manifest();
    manifest.boot = boot.to_string();
    let manifest = manifest.to_bytes();
    let digest = Digest::of(&manifest);
    let generation =
        Generation { digest, root: boot, boot, ram: None, manifest, sbom: vec![], origins: vec![] };
    store.put_generation("fenn", &generation).unwrap();
    bench.discover();
    bench.desk().see("fenn", Event::Request);
    assert_eq!(bench.desk().ram_image(JAST, "fenn").err(), Some(Refused::Address));
    assert_eq!(bench.desk().ram_image(FENN, "fenn").unwrap().len(), 12);
}
