//! The simulated Pis against a foreign server: dnsmasq as DHCP and TFTP server of a network of its own.
//! Must not know: the servers of this crate.
//! Spec: `pxe-service=0,"Raspberry Pi Boot   "` is what every guide to Pi netboot says.
//!
//! The test runs itself again under `unshare -Urn` and there makes a second namespace for the Pi, so that
//! frames really cross a veth pair. Without such namespaces it says so, and fails if
//! `GT_IMAGE_REQUIRE` lists `netns`.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is the assertion")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gt_netboot::doctor::State;
use gt_netboot::doctor::dhcp::{Expected, Mode, judge, survey};
use gt_netboot::pi::boot::{Boot, Fault, Outcome, Setup, boot};
use gt_netboot::pi::lease::{Lease, LeaseError};
use gt_netboot::pi::wire::PacketWire;
use gt_netboot::pi::{Board, Model, Pace};
use gt_netboot::site::{Mac, Serial};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 10);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 21);
const INSIDE: &str = "GT_NETBOOT_INSIDE";

#[test]
fn netns_pis_boot_from_dnsmasq() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if let Err(why) = possible() {
        return not_run("netns", &why);
    }
    let me = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-Urn", "--map-root-user", "--kill-child"])
        .arg(me)
        .args(["--exact", "netns_pis_boot_from_dnsmasq", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

/// What this machine lacks.
fn possible() -> Result<(), String> {
    for (program, arguments) in
        [("dnsmasq", &["--version"][..]), ("ip", &["-V"]), ("unshare", &["-Urn", "true"])]
    {
        let status =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("`{program} {}`: {status}", arguments.join(" "))),
            Err(e) => return Err(format!("`{program}`: {e}")),
        }
    }
    Ok(())
}

fn not_run(tier: &str, why: &str) {
    let required = std::env::var("GT_IMAGE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|listed| listed == tier), "{tier} is required here: {why}");
    writeln!(io::stderr(), "not run: {tier}: {why}").ok(); // eprintln! is hidden in a pass
}

/// The rest is inside: this process is root of a network namespace of its own.
fn inside() {
    let network = Network::new();
    let folder = Folder::new();
    for model in [Model::Pi4, Model::Pi4Old, Model::Pi3bPlus, Model::Pi5] {
        // `Raspberry Pi Boot` and three spaces, which a Pi 3B wants.
        let server = Dnsmasq::start(&network, &folder.0, &["--pxe-service=0,Raspberry Pi Boot   "]);
        let boot = network.boot(model, Pace::REAL);
        check(model, &boot);
        drop(server);
    }
    let server = Dnsmasq::start(&network, &folder.0, &[]);
    let boot = network.boot(Model::Pi4, Pace::faster(20));
    assert!(matches!(boot.result, Err(Fault::Lease(LeaseError::NoBootText))), "{:?}", boot.result);
    assert_eq!(boot.heard[0].reply.yiaddr, Some(NODE), "dnsmasq offered an address, and a Pi wants more");
    drop(server);
    doctor(&network, &folder.0);
}

/// A boot that went well, and gave exactly the bytes on dnsmasq's disk.
fn check(model: Model, boot: &Boot) {
    let loaded = boot.result.as_ref().unwrap_or_else(|e| panic!("{model:?}: {e}\n{boot:#?}"));
    let files = tree();
    let want = |name: &str| files.get(&format!("5b154510/{name}")).unwrap();
    assert!(&loaded.kernel.bytes == want("kernel8.img"), "{model:?}: another kernel");
    assert!(&loaded.initramfs.as_ref().unwrap().bytes == want("initramfs8"), "{model:?}: another initramfs");
    assert_eq!(&loaded.cmdline.as_ref().unwrap().bytes, want("cmdline.txt"));
    assert_eq!(loaded.directory, "5b154510/");
    let lease = boot.lease.as_ref().unwrap();
    assert_eq!((lease.address, lease.tftp), (NODE, SERVER), "{model:?}");
    assert!(boot.heard.iter().all(|heard| heard.card == Some(Mac([2, 0, 0, 0, 0, 0x10]))));
    assert!(boot.requests.iter().any(|request| request.outcome == Outcome::Missing));
    assert!(boot.requests.iter().all(|request| request.duplicates == 0), "{:#?}", boot.requests);
}

/// The doctor asks from the Pi's end, and from the server's own machine.
fn doctor(network: &Network, folder: &Path) {
    let server = Dnsmasq::start(network, folder, &["--pxe-service=0,Raspberry Pi Boot"]);
    let board = pi(Model::Pi4);
    let expected = Expected { server: SERVER, mode: Mode::Authoritative, known: true };
    let pace = Pace::faster(8);
    let window = Duration::from_secs(10);
    network.enter_pi();
    let mut wire = PacketWire::open("pi", board.mac).unwrap();
    let heard = survey(&board, &mut wire, window, pace, 77).unwrap();
    network.leave_pi();
    assert!(!heard.heard.is_empty());
    assert!(judge(&heard, &expected).iter().all(|finding| finding.state == State::Good));

    // To a doctor that expects another server, dnsmasq is a rival with a name.
    let ours = Expected { server: Ipv4Addr::new(10, 4, 0, 11), ..expected };
    let findings = judge(&heard, &ours);
    let rival = findings.iter().find(|finding| finding.subject == "another DHCP server, 10.4.0.10").unwrap();
    assert!(rival.found.contains("02:00:00:00:00:10") && rival.found.contains("with `Raspberry Pi Boot`"));

    let mut wire = PacketWire::open("server", board.mac).unwrap().with_this_host("server").unwrap();
    let beside = survey(&board, &mut wire, window, pace, 78).unwrap();
    assert!(
        beside.heard.iter().any(|heard| heard.reply.boots_a_pi()),
        "a server on this host hears the doctor"
    );
    drop(server);
}

fn pi(model: Model) -> Board {
    Board::new(model, Mac([0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed]), Serial(0x5b15_4510))
}

/// All files that are served.
fn tree() -> BTreeMap<String, Vec<u8>> {
    let bytes =
        |len: usize, seed: usize| -> Vec<u8> { (0..len).map(|at| (at * seed + at / 251) as u8).collect() };
    let config = "arm_64bit=1\nkernel=kernel8.img\nauto_initramfs=1\ndtoverlay=disable-bt\n";
    let mut files = BTreeMap::from([("bootcode.bin".to_owned(), bytes(52_476, 3))]);
    for (name, content) in [
        ("config.txt", config.as_bytes().to_vec()),
        ("cmdline.txt", b"console=tty1 root=/dev/nfs\n".to_vec()),
        ("start.elf", bytes(300_000, 5)),
        ("start4.elf", bytes(225_000, 7)),
        ("fixup.dat", bytes(7_000, 9)),
        ("fixup4.dat", bytes(5_400, 11)),
        ("kernel8.img", bytes(3_000_000, 13)),
        ("initramfs8", bytes(1_468 * 700, 17)), // The last block is empty.
        ("bcm2710-rpi-3-b-plus.dtb", bytes(30_000, 19)),
        ("bcm2711-rpi-4-b.dtb", bytes(50_000, 23)),
        ("bcm2712-rpi-5-b.dtb", bytes(70_000, 29)),
        ("overlays/disable-bt.dtbo", bytes(1_024, 31)),
    ] {
        files.insert(format!("5b154510/{name}"), content);
    }
    files
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let folder = std::env::temp_dir().join(format!("gt-netboot-{}", std::process::id()));
        for (name, bytes) in tree() {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
        fs::remove_file(self.0.with_extension("log")).ok();
    }
}

/// Two namespaces and the cable between them: `server` in this one, `pi` in the other. The Pi's end has
/// no address until it has a lease.
struct Network {
    /// Keeps the Pi's namespace.
    holder: Child,
    pi: fs::File,
    here: fs::File,
}

impl Network {
    fn new() -> Network {
        let here = fs::File::open("/proc/thread-self/ns/net").unwrap();
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The line comes from inside: until then the process may still be in ours.
        io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let pid = holder.id();
        let pi = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        ip("link add server address 02:00:00:00:00:10 type veth peer name pi");
        ip(&format!("link set pi netns {pid}"));
        ip("link set lo up");
        ip("link set server up");
        ip(&format!("address add {SERVER}/24 dev server"));
        let network = Network { holder, pi, here };
        network.enter_pi();
        ip("link set pi address dc:a6:32:2e:f8:ed");
        ip("link set pi up");
        network.leave_pi();
        network
    }

    /// Takes this thread, and what it starts, to the Pi's namespace.
    fn enter_pi(&self) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        move_into_link_name_space(self.pi.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    fn leave_pi(&self) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        move_into_link_name_space(self.here.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    fn boot(&self, model: Model, pace: Pace) -> Boot {
        self.enter_pi();
        ip("address flush dev pi");
        let board = pi(model);
        let mut wire = PacketWire::open("pi", board.mac).unwrap();
        let configure = |lease: &Lease| {
            let mask = lease.netmask.unwrap();
            ip(&format!("address add {}/{} dev pi", lease.address, u32::from(mask).count_ones()));
            Ok(lease.address)
        };
        let setup = Setup { pace, ..Setup::default() };
        let boot = boot(&board, &mut wire, &setup, configure);
        self.leave_pi();
        boot
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// dnsmasq in the foreground, until it is dropped.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(network: &Network, folder: &Path, more: &[&str]) -> Dnsmasq {
        network.leave_pi();
        let arguments = [
            // In the foreground, and as who it is: in this namespace there is nobody to change to.
            "--no-daemon".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--port=0".to_owned(),
            "--pid-file=".to_owned(),
            "--interface=server".to_owned(),
            "--bind-interfaces".to_owned(),
            "--no-ping".to_owned(),
            format!("--dhcp-leasefile={}", folder.join("leases").display()),
            format!("--dhcp-range={NODE},{NODE},255.255.255.0,1h"),
            "--enable-tftp".to_owned(),
            format!("--tftp-root={}", folder.display()),
            "--log-facility=-".to_owned(),
        ];
        fs::remove_file(folder.join("leases")).ok();
        let log = folder.with_extension("log");
        let stderr = fs::File::create(&log).unwrap();
        let child = Command::new("dnsmasq").args(arguments).args(more).stderr(stderr).spawn().unwrap();
        let dnsmasq = Dnsmasq(child);
        // It is ready when TFTP's port is bound, which it does last.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string("/proc/thread-self/net/udp").unwrap().contains(":0045 ") {
            assert!(
                Instant::now() < deadline,
                "dnsmasq did not start: {}",
                fs::read_to_string(&log).unwrap()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
        dnsmasq
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
