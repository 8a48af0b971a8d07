//! Whole boots on loopback, against the small servers of `testing`.
//! Must not know: the servers of this crate.

use std::net::{SocketAddr, UdpSocket};

use super::*;
use crate::pi::impair::{Forwarder, Harm};
use crate::pi::testing::{Fault as Mischief, Server, dhcp_server};
use crate::pi::wire::UdpWire;
use crate::site::{Mac, Serial};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn board(model: Model) -> Board {
    Board::new(model, Mac([0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed]), Serial(0x5b15_4510))
}

type Files = Vec<(String, Vec<u8>)>;

/// Files under a directory, each with its name as content but for those that are given.
fn files(directory: &str, names: &[&str], given: &[(&str, &str)]) -> Files {
    let named = names.iter().map(|name| (format!("{directory}{name}"), name.as_bytes().to_vec()));
    let given = given.iter().map(|(name, text)| (format!("{directory}{name}"), text.as_bytes().to_vec()));
    named.chain(given).collect()
}

const PI4: &[&str] = &[
    "start4.elf",
    "fixup4.dat",
    "kernel8.img",
    "initramfs8",
    "bcm2711-rpi-4-b.dtb",
    "cmdline.txt",
    "overlays/disable-bt.dtbo",
];

fn run(board: &Board, files: Files, mischief: Mischief) -> (Boot, Server) {
    let server = Server::start(files, mischief);
    let setup = Setup { tftp_port: server.address().port(), ..Setup::default() };
    (load(board, HERE, &setup, HERE), server)
}

fn loaded(boot: Boot) -> Loaded {
    boot.result.unwrap_or_else(|e| panic!("{e}: {:#?}", boot.requests))
}

#[test]
fn a_pi_4_asks_in_its_order() {
    let config = "auto_initramfs=1\ndtoverlay=disable-bt\ninclude more.txt\n";
    let given = [("config.txt", config), ("more.txt", "[pi5]\nkernel=never\n")];
    let (boot, server) = run(&board(Model::Pi4), files("5b154510/", PI4, &given), Mischief::None);
    let mut asked: Vec<String> = server.requests().into_iter().map(|(name, _)| name).collect();
    asked.dedup(); // Probe and read.
    let asked: Vec<&str> = asked.iter().map(|name| name.strip_prefix("5b154510/").unwrap()).collect();
    let expected = "start4.elf config.txt vl805.sig pieeprom.sig recover4.elf recovery.elf start4.elf fixup4.dat \
        recovery.elf config.txt more.txt dt-blob.bin recovery.elf config.txt more.txt bootcfg.txt initramfs8 \
        bcm2711-rpi-4-b.dtb overlays/overlay_map.dtb overlays/disable-bt.dtbo config.txt more.txt cmdline.txt \
        kernel8.img armstub8-gic.bin kernel8.img";
    assert_eq!(asked, expected.split_whitespace().collect::<Vec<_>>());
    assert!(boot.requests.iter().all(|request| request.duplicates == 0 && request.tries == 1));
    assert!(boot.bytes() > 0 && boot.names_read().contains(&"5b154510/kernel8.img"));
    let got = loaded(boot);
    assert_eq!(got.kernel, File { name: "5b154510/kernel8.img".into(), bytes: b"kernel8.img".to_vec() });
    assert_eq!(got.initramfs.unwrap().bytes, b"initramfs8");
    assert_eq!(got.device_tree.bytes, b"bcm2711-rpi-4-b.dtb");
    assert_eq!(got.cmdline.unwrap().bytes, b"cmdline.txt");
    assert_eq!(got.dtoverlays.len(), 1);
    assert_eq!(got.directory, "5b154510/");
}

#[test]
fn a_pi_4_drops_a_directory_without_firmware() {
    let (boot, _server) = run(&board(Model::Pi4), files("", PI4, &[("config.txt", "")]), Mischief::None);
    let names: Vec<&str> = boot.requests.iter().take(4).map(|request| request.name.as_str()).collect();
    assert_eq!(names, ["5b154510/start4.elf", "5b154510/start.elf", "start4.elf", "config.txt"]);
    assert_eq!(loaded(boot).directory, "");

    let (boot, _server) = run(&board(Model::Pi4), vec![], Mischief::None);
    assert!(matches!(boot.result, Err(Fault::NoFirmware { .. })));
    assert_eq!(boot.requests.len(), 3, "then it goes on to its next boot mode");
}

#[test]
fn os_prefix_counts_if_all_is_there() {
    let config = "os_prefix=gen42/\ninitramfs initrd followkernel\n";
    let moved = ["start4.elf", "fixup4.dat", "gen42/kernel8.img", "gen42/initrd", "gen42/cmdline.txt"];
    let mut tree = files("5b154510/", &moved, &[("config.txt", config), ("initrd", ""), ("kernel8.img", "")]);
    tree.extend(files("5b154510/", &["bcm2711-rpi-4-b.dtb"], &[]));
    let (boot, _server) = run(&board(Model::Pi4), tree.clone(), Mischief::None);
    assert_eq!(loaded(boot).kernel.name, "5b154510/kernel8.img", "no device tree there: it is dropped");
    tree.extend(files("5b154510/", &["gen42/bcm2711-rpi-4-b.dtb"], &[]));
    let (boot, _server) = run(&board(Model::Pi4), tree, Mischief::None);
    let got = loaded(boot);
    assert_eq!(got.kernel.name, "5b154510/gen42/kernel8.img");
    assert_eq!(got.initramfs.unwrap().name, "5b154510/gen42/initrd");
    assert_eq!(got.cmdline.unwrap().name, "5b154510/gen42/cmdline.txt");
}

#[test]
fn what_is_missing_is_named() {
    for (missing, config, want) in [
        ("kernel8.img", "", "no kernel: [\"kernel8.img\"]"),
        ("bcm2711-rpi-4-b.dtb", "", "no device tree `bcm2711-rpi-4-b.dtb`"),
        ("initramfs8", "auto_initramfs=1", "no initramfs `initramfs8`"),
    ] {
        let names: Vec<&str> = PI4.iter().copied().filter(|name| *name != missing).collect();
        let tree = files("5b154510/", &names, &[("config.txt", config)]);
        let (boot, _server) = run(&board(Model::Pi4), tree, Mischief::None);
        assert_eq!(boot.result.unwrap_err().to_string(), want);
    }
}

#[test]
fn without_an_oack_config_txt_is_dropped() {
    let given = [("config.txt", "kernel=mine.img"), ("mine.img", "")];
    let tree = files("5b154510/", PI4, &given);
    let (boot, _server) = run(&board(Model::Pi4), tree.clone(), Mischief::None);
    assert_eq!(loaded(boot).kernel.name, "5b154510/mine.img");
    let (boot, _server) = run(&board(Model::Pi4), tree, Mischief::NoOack);
    assert_eq!(loaded(boot).kernel.name, "5b154510/kernel8.img", "firmware#1012");
}

#[test]
fn duplicates_hang_start4_and_no_other_stage() {
    let long = "x".repeat(3000);
    let tree = files("5b154510/", PI4, &[("config.txt", ""), ("start4.elf", &long), ("cmdline.txt", &long)]);
    let (boot, _server) = run(&board(Model::Pi4), tree, Mischief::DoubleData);
    let Err(Fault::Transfer { name, answer }) = boot.result else { panic!("{:?}", boot.result) };
    assert!(matches!(answer, Answer::Hung { .. }), "{answer:?}");
    assert_eq!(name, "5b154510/cmdline.txt", "the first file of its stage with a second block");
}

#[test]
fn an_update_is_taken_once_and_only_if_it_is_whole() {
    let image = "a new bootloader";
    let digest: String = Sha256::digest(image).iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("{digest}\nts: 1700000000\n");
    let tree = |image: &str, config: &str| {
        let given = [("config.txt", config), ("pieeprom.sig", &*signature), ("pieeprom.upd", image)];
        files("5b154510/", PI4, &given)
    };
    let old = Board { updated: 1_600_000_000, ..board(Model::Pi4) };
    let (boot, _server) = run(&old, tree(image, ""), Mischief::None);
    assert!(matches!(boot.result, Err(Fault::SelfUpdated { updated: 1_700_000_000 })), "{:?}", boot.result);
    let (boot, _server) = run(&old, tree("cut", ""), Mischief::None);
    assert!(matches!(boot.result, Err(Fault::BadUpdate(_))));
    let (boot, _server) = run(&old, tree(image, "bootloader_update=0"), Mischief::None);
    loaded(boot);
    let (boot, _server) = run(&Board { updated: 1_700_000_000, ..old }, tree(image, ""), Mischief::None);
    loaded(boot);
}

#[test]
fn a_pi_3_asks_in_its_order() {
    let names = ["start.elf", "fixup.dat", "bcm2710-rpi-3-b.dtb", "cmdline.txt", "kernel8.img"];
    let mut tree = files("5b154510/", &names, &[("config.txt", "arm_64bit=1")]);
    tree.extend(files("", &["bootcode.bin"], &[]));
    let (boot, server) = run(&board(Model::Pi3b), tree, Mischief::None);
    assert_eq!(loaded(boot).kernel.name, "5b154510/kernel8.img");
    let asked: Vec<String> =
        server.requests().into_iter().map(|(name, _)| name.replace("5b154510/", "P/")).collect();
    let expected = "bootcode.bin bootsig.bin P/start.elf P/start.elf P/autoboot.txt P/config.txt P/config.txt \
        P/recovery.elf P/start.elf P/start.elf P/fixup.dat P/fixup.dat P/recovery.elf P/config.txt P/config.txt \
        P/dt-blob.bin P/recovery.elf P/config.txt P/config.txt P/bootcfg.txt P/bcm2710-rpi-3-b.dtb \
        P/bcm2710-rpi-3-b.dtb P/overlays/overlay_map.dtb P/config.txt P/config.txt P/cmdline.txt P/cmdline.txt \
        P/recovery7.img P/recovery.img P/kernel8.img P/armstub8.bin P/kernel8.img P/kernel8.img";
    assert_eq!(asked, expected.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn a_pi_5_needs_a_device_tree_of_its_own() {
    let names = ["bcm2712-rpi-5-b.dtb", "cmdline.txt", "kernel8.img", "initramfs8"];
    let tree = files("5b154510/", &names, &[("config.txt", "kernel=kernel8.img\nauto_initramfs=1")]);
    let (boot, _server) = run(&board(Model::Pi5), tree, Mischief::None);
    let got = loaded(boot);
    assert_eq!(got.kernel.name, "5b154510/kernel8.img");
    assert_eq!(got.initramfs.unwrap().name, "5b154510/initramfs8");

    let tree = files("5b154510/", &["kernel8.img"], &[("config.txt", "")]);
    let (boot, _server) = run(&board(Model::Pi5), tree, Mischief::None);
    assert!(matches!(boot.result, Err(Fault::NoFirmware { .. })));
}

/// A boot with DHCP over plain UDP.
fn with_dhcp(model: Model, delay: Duration, pace: Pace) -> Boot {
    let mut tree = files("5b154510/", PI4, &[("config.txt", "")]);
    tree.extend(files("5b154510/", &["start.elf", "fixup.dat", "bcm2710-rpi-3-b.dtb", "kernel7.img"], &[]));
    tree.extend(files("", &["bootcode.bin"], &[]));
    let server = Server::start(tree, Mischief::None);
    let board = board(model);
    let dhcp = dhcp_server(&board, HERE, delay);
    let mut wire = UdpWire::new(UdpSocket::bind((HERE, 0)).unwrap(), dhcp.address());
    let setup = Setup { pace, tftp_port: server.address().port(), ..Setup::default() };
    boot(&board, &mut wire, &setup, |lease| {
        assert_eq!(lease.address, Ipv4Addr::new(10, 4, 0, 21));
        Ok(HERE)
    })
}

#[test]
fn dhcp_and_files_together() {
    let boot = with_dhcp(Model::Pi4, Duration::ZERO, Pace::REAL);
    let lease = boot.lease.as_ref().unwrap();
    assert_eq!((lease.tftp, lease.sent, boot.heard.len()), (HERE, 2, 2));
    assert!(boot.requests[0].at >= lease.took, "times count from the DISCOVER");
    assert_eq!(loaded(boot).directory, "5b154510/");
}

#[test]
fn the_rom_of_a_pi_3b_locks_when_all_comes_at_once() {
    let boot = with_dhcp(Model::Pi3b, Duration::ZERO, Pace::REAL);
    assert!(matches!(boot.result, Err(Fault::RomLocked { .. })), "{:?}", boot.result);
    // One second of the ROM's, at the pace of this test.
    let slow = with_dhcp(Model::Pi3b, Duration::from_millis(60), Pace::faster(20));
    assert_eq!(loaded(slow).kernel.name, "5b154510/kernel7.img");
}

#[test]
fn a_bad_network_is_survived() {
    let mut tree = files("5b154510/", PI4, &[("config.txt", "")]);
    tree.push(("5b154510/kernel7l.img".into(), vec![7; 300_000]));
    tree.iter_mut()
        .filter(|(name, _)| name.ends_with("kernel8.img"))
        .for_each(|(_, bytes)| *bytes = vec![8; 200_000]);
    let server = Server::start(tree, Mischief::None);
    let front = UdpSocket::bind((HERE, 0)).unwrap();
    let harm = Harm { lose: 20, duplicate: 20, reorder: 20 };
    let network = Forwarder::start(front, HERE, SocketAddr::V4(server.address()), harm, 42).unwrap();
    let setup = Setup {
        pace: Pace::faster(4),
        tftp_port: network.address().port(),
        start4_on_duplicate: OnDuplicate::AckAgain,
        ..Setup::default()
    };
    let got = loaded(load(&board(Model::Pi4), HERE, &setup, HERE));
    assert!(got.kernel.bytes == vec![8; 200_000]);
    let harmed = network.counts().harmed.load(std::sync::atomic::Ordering::Relaxed);
    assert!(harmed > 5, "only {harmed} packets were harmed");
}
