//! One whole boot: DHCP, then every file that the firmware asks for, in its order.
//! Must not know: our server, what the files hold beyond `config.txt` and the overlay map.
//! Spec: logs of real boots in rpi-eeprom#74, #87, #376, firmware#1012, #1605; "nf" below is a file that
//! is asked for and normally not there. A Pi 5's exact order is not published.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::config::Config;
use super::lease::{self, Heard, Lease, LeaseError};
use super::tftp_client::{Answer, Client, OnDuplicate, Style};
use super::wire::Wire;
use super::{Board, Model, Pace, overlay_map};

/// A Pi 3B's ROM locks when it is offered an address and is given its first file both inside this
/// time (firmware#862, #934).
const ROM_TOO_FAST: Duration = Duration::from_secs(2);
/// An offer that took this long is slow enough.
const ROM_OFFER: Duration = Duration::from_secs(1);

/// How the firmware is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// How fast its clock runs.
    pub pace: Pace,
    /// The server's TFTP port; real firmware knows only 69.
    pub tftp_port: u16,
    /// DHCP's transaction id, which real firmware draws at random.
    pub xid: u32,
    /// What a duplicate DATA does in the stage of `start4.elf`. [`OnDuplicate::Hang`] is what the
    /// firmware did; where the network itself doubles or loses packets no server can prevent it.
    pub start4_on_duplicate: OnDuplicate,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { pace: Pace::REAL, tftp_port: 69, xid: 0xd383_a6ac, start4_on_duplicate: OnDuplicate::Hang }
    }
}

/// One file with its name as it was asked for, prefix included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What the firmware hands to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The kernel.
    pub kernel: File,
    /// The initramfs, if `config.txt` names one.
    pub initramfs: Option<File>,
    /// The board's device tree.
    pub device_tree: File,
    /// Device-tree overlays (`*.dtbo`) that were there.
    pub dtoverlays: Vec<File>,
    /// `cmdline.txt`, if there is one.
    pub cmdline: Option<File>,
    /// `config.txt` as it was read last.
    pub config: Config,
    /// The directory that was kept: empty if the firmware fell back to the root.
    pub directory: String,
}

/// How a request ended, without the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole file of so many bytes.
    Read(u64),
    /// A probe found it; its size, if the server said so.
    Probed(Option<u64>),
    /// ERROR 1.
    Missing,
    /// Anything else; the boot ended here.
    Failed(Answer),
}

/// One request, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name as it was asked for.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Since the first DISCOVER, or since the first request where there was no DHCP.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// Packets that came twice.
    pub duplicates: u32,
    /// RRQs that were sent: more than one means that the first was lost or ignored.
    pub tries: u32,
    /// True if the server answered with an OACK.
    pub oack: bool,
}

/// A whole boot, as far as it went.
#[derive(Debug)]
pub struct Boot {
    /// What DHCP gave.
    pub lease: Option<Lease>,
    /// Every DHCP answer.
    pub heard: Vec<Heard>,
    /// Every TFTP request.
    pub requests: Vec<Request>,
    /// What the kernel gets, or why it gets nothing.
    pub result: Result<Loaded, Fault>,
}

impl Boot {
    /// Bytes of whole files that came by TFTP, each as often as it came.
    pub fn bytes(&self) -> u64 {
        let bytes = |request: &Request| if let Outcome::Read(bytes) = request.outcome { bytes } else { 0 };
        self.requests.iter().map(bytes).sum()
    }

    /// The names that were read whole, in order.
    pub fn names_read(&self) -> Vec<&str> {
        let read = |request: &&Request| matches!(request.outcome, Outcome::Read(_));
        self.requests.iter().filter(read).map(|request| request.name.as_str()).collect()
    }
}

/// Why a Pi does not boot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Our own socket, or the caller's work on the interface.
    #[error("the network here")]
    Io(#[from] io::Error),
    /// A transfer ended badly.
    #[error("`{name}`: {answer:?}")]
    Transfer {
        /// The file.
        name: String,
        /// What happened.
        answer: Answer,
    },
    /// There is no firmware to go on with, under the prefix or at the root.
    #[error("no firmware: neither `{directory}` nor the root has what a {model:?} looks for")]
    NoFirmware {
        /// The prefix.
        directory: String,
        /// Who looks.
        model: Model,
    },
    /// None of these kernels is there.
    #[error("no kernel: {0:?}")]
    NoKernel(Vec<String>),
    /// The initramfs that `config.txt` names is not there.
    #[error("no initramfs `{0}`")]
    NoInitramfs(String),
    /// The device tree is not there.
    #[error("no device tree `{0}`")]
    NoDeviceTree(String),
    /// DHCP and TFTP were answered faster than a Pi 3B's ROM bears (firmware#862).
    #[error("the ROM of a Pi 3B locks: the offer came after {offer:?}")]
    RomLocked {
        /// From DISCOVER to OFFER.
        offer: Duration,
    },
    /// The bootloader updated itself and reset. Set [`Board::updated`] and boot again.
    #[error("the bootloader updated itself to one of {updated} and reset")]
    SelfUpdated {
        /// The time in the `.sig`.
        updated: u64,
    },
    /// The update does not have the digest that its `.sig` names: the firmware skips it, we do not.
    #[error("`{0}` has another digest than its `.sig` says")]
    BadUpdate(String),
}

/// Boots `board`. `configure` gives the interface the leased address and names the local address to ask
/// from, which is the lease's own but in tests on loopback.
pub fn boot(
    board: &Board,
    wire: &mut dyn Wire,
    setup: &Setup,
    configure: impl FnOnce(&Lease) -> io::Result<Ipv4Addr>,
) -> Boot {
    let started = Instant::now();
    let mut heard = vec![];
    let lease = match lease::negotiate(board, wire, setup.pace, setup.xid, &mut heard) {
        Ok(lease) => lease,
        Err(e) => return Boot { lease: None, heard, requests: vec![], result: Err(e.into()) },
    };
    let (requests, result) = match configure(&lease) {
        Ok(local) => load_since(board, local, setup, lease.tftp, started, Some(&lease)),
        Err(e) => (vec![], Err(e.into())),
    };
    Boot { lease: Some(lease), heard, requests, result }
}

/// Only the files: what a boot does after DHCP, asking `server` from `local`.
pub fn load(board: &Board, local: Ipv4Addr, setup: &Setup, server: Ipv4Addr) -> Boot {
    let (requests, result) = load_since(board, local, setup, server, Instant::now(), None);
    Boot { lease: None, heard: vec![], requests, result }
}

fn load_since(
    board: &Board,
    local: Ipv4Addr,
    setup: &Setup,
    server: Ipv4Addr,
    started: Instant,
    lease: Option<&Lease>,
) -> (Vec<Request>, Result<Loaded, Fault>) {
    let server = SocketAddrV4::new(server, setup.tftp_port);
    // The firmware's ports go up from request to request; where they begin is its own affair.
    let [a, b, ..] = board.serial.0.to_le_bytes();
    let first_port = 32_768 | (u16::from_le_bytes([a, b]) & 0x7fff);
    let client = Client::new(local, server, setup.pace, first_port);
    let directory = board.directory();
    let mut run = Run { board, setup, client, directory, started, requests: vec![] };
    let result = match board.model {
        Model::Pi3b | Model::Pi3bPlus => run.pi3(lease),
        Model::Pi4Old | Model::Pi4 => run.pi4(),
        Model::Pi5 => run.pi5(),
    };
    (run.requests, result)
}

/// A boot in progress.
struct Run<'a> {
    board: &'a Board,
    setup: &'a Setup,
    client: Client,
    directory: String,
    started: Instant,
    requests: Vec<Request>,
}

impl Run<'_> {
    fn pi4(&mut self) -> Result<Loaded, Fault> {
        self.client.style = Style::bootloader(self.board.model);
        if !self.probe("start4.elf")? && !self.probe("start.elf")? {
            self.drop_directory()?;
        }
        let config = self.config(false)?;
        self.self_update("vl805", "bin", &config)?;
        self.self_update("pieeprom", "upd", &config)?;
        self.ask_in_vain(&["recover4.elf", "recovery.elf"])?;
        let (start, fixup) = config.start_files(self.board.model);
        self.read(&start)?.ok_or_else(|| self.no_firmware())?;
        self.read(&fixup)?;

        self.client.style = Style { on_duplicate: self.setup.start4_on_duplicate, ..Style::START4 };
        self.ask_in_vain(&["recovery.elf"])?;
        self.config(true)?;
        self.ask_in_vain(&["dt-blob.bin", "recovery.elf"])?;
        let config = self.config(true)?;
        self.ask_in_vain(&["bootcfg.txt"])?;
        self.operating_system(config, &[], "armstub8-gic.bin")
    }

    fn pi3(&mut self, lease: Option<&Lease>) -> Result<Loaded, Fault> {
        self.client.style = Style::ROM;
        let directory = std::mem::take(&mut self.directory);
        let code = self.read("bootcode.bin")?;
        self.check_rom(lease)?;
        code.ok_or_else(|| self.no_firmware())?;
        self.ask_in_vain(&["bootsig.bin"])?;
        self.directory = directory;

        self.client.style = Style::PI3;
        if !self.probe("start.elf")? {
            self.drop_directory()?;
        }
        self.probe("start.elf")?;
        self.ask_in_vain(&["autoboot.txt"])?;
        let config = self.config(false)?;
        self.ask_in_vain(&["recovery.elf"])?;
        let (start, fixup) = config.start_files(self.board.model);
        self.read(&start)?.ok_or_else(|| self.no_firmware())?;
        self.read(&fixup)?;

        self.ask_in_vain(&["recovery.elf"])?;
        self.config(true)?;
        self.ask_in_vain(&["dt-blob.bin", "recovery.elf"])?;
        let config = self.config(true)?;
        self.ask_in_vain(&["bootcfg.txt"])?;
        self.operating_system(config, &["recovery7.img", "recovery.img"], "armstub8.bin")
    }

    fn pi5(&mut self) -> Result<Loaded, Fault> {
        self.client.style = Style::bootloader(self.board.model);
        let tree = Config::default().device_tree(self.board);
        let there = self.probe("config.txt")? && self.os_check(&tree)?;
        if !there {
            self.directory.clear();
            if !self.probe("config.txt")? {
                return Err(self.no_firmware());
            }
        }
        let config = self.config(true)?;
        self.self_update("pieeprom", "upd", &config)?;
        self.operating_system(config, &[], "armstub8-2712.bin")
    }

    /// A Pi 5 looks whether the directory holds a device tree of its own before it believes in it; the
    /// tree may be under `os_prefix`.
    fn os_check(&mut self, tree: &str) -> Result<bool, Fault> {
        let config = self.config(true)?;
        let under = format!("{}{tree}", config.os_prefix());
        Ok(self.probe(&under)? || (under != tree && self.probe(tree)?))
    }

    /// The directory does not look bootable: the root is asked for the rest of the boot.
    fn drop_directory(&mut self) -> Result<(), Fault> {
        let error = self.no_firmware();
        self.directory.clear();
        let first = if self.board.model.has_rom_dhcp() { "start.elf" } else { "start4.elf" };
        if self.probe(first)? { Ok(()) } else { Err(error) }
    }

    fn no_firmware(&self) -> Fault {
        Fault::NoFirmware { directory: self.board.directory(), model: self.board.model }
    }

    fn check_rom(&self, lease: Option<&Lease>) -> Result<(), Fault> {
        let pace = self.setup.pace;
        let too_fast = |lease: &&Lease| {
            self.board.model == Model::Pi3b
                && lease.first_answer < pace.wait(ROM_OFFER)
                && self.requests.first().is_some_and(|first| first.at < pace.wait(ROM_TOO_FAST))
        };
        match lease.filter(too_fast) {
            Some(lease) => Err(Fault::RomLocked { offer: lease.first_answer }),
            None => Ok(()),
        }
    }

    /// Initramfs, device tree, dtoverlays, `cmdline.txt`, kernel: the part that all models share. The
    /// order of the first, second and last varies in logs.
    fn operating_system(&mut self, config: Config, before: &[&str], stub: &str) -> Result<Loaded, Fault> {
        let kernels = config.kernels(self.board.model);
        let tree = config.device_tree(self.board);
        let prefix = self.os_prefix(&config, &kernels, &tree)?;
        let under = |name: &str| name.strip_prefix('/').map_or(format!("{prefix}{name}"), str::to_owned);

        let initramfs = match config.initramfs_for(&kernels[0]) {
            Some(name) => Some(self.file(&under(&name))?.ok_or(Fault::NoInitramfs(name))?),
            None => None,
        };
        let device_tree = self.file(&under(&tree))?.ok_or(Fault::NoDeviceTree(tree))?;
        let dtoverlays = self.dtoverlays(&config, &prefix)?;
        if !matches!(self.board.model, Model::Pi5) {
            self.config(true)?;
        }
        let cmdline = self.file(&under(config.get("cmdline").unwrap_or("cmdline.txt")))?;
        self.ask_in_vain(before)?;
        let kernel = self.kernel(kernels.iter().map(|name| under(name)).collect(), stub)?;
        let directory = self.directory.clone();
        Ok(Loaded { kernel, initramfs, device_tree, dtoverlays, cmdline, config, directory })
    }

    /// `os_prefix` counts only if the kernel and the device tree are there.
    fn os_prefix(&mut self, config: &Config, kernels: &[String], tree: &str) -> Result<String, Fault> {
        let prefix = config.os_prefix();
        if prefix.is_empty() {
            return Ok(String::new());
        }
        let mut kernel = false;
        for name in kernels {
            kernel = kernel || self.probe(&format!("{prefix}{name}"))?;
        }
        let whole = kernel && self.probe(&format!("{prefix}{tree}"))?;
        Ok(if whole { prefix.to_owned() } else { String::new() })
    }

    fn dtoverlays(&mut self, config: &Config, os_prefix: &str) -> Result<Vec<File>, Fault> {
        // Since 2026-06-17 a Pi 5 asks for the map only where there is an overlay.
        if config.dtoverlays.is_empty() && self.board.model == Model::Pi5 {
            return Ok(vec![]);
        }
        let mut folder = config.get("overlay_prefix").unwrap_or("overlays/").to_owned();
        if !os_prefix.is_empty() && self.probe(&format!("{os_prefix}{folder}README"))? {
            folder.insert_str(0, os_prefix);
        }
        let map = self.read(&format!("{folder}overlay_map.dtb"))?.unwrap_or_default();
        let mut found = vec![];
        for overlay in &config.dtoverlays {
            if let Some(name) = overlay_map::resolve(&map, overlay, self.board.model) {
                found.extend(self.file(&format!("{folder}{name}.dtbo"))?);
            }
        }
        Ok(found)
    }

    fn kernel(&mut self, names: Vec<String>, stub: &str) -> Result<File, Fault> {
        for name in &names {
            if self.probe(name)? {
                self.ask_in_vain(&[stub])?;
                if let Some(kernel) = self.file(name)? {
                    return Ok(kernel);
                }
            }
        }
        Err(Fault::NoKernel(names))
    }

    /// `config.txt` and, from the second stage on, what it includes. A stage that asked for options and
    /// got no OACK drops it in silence (firmware#1012), or takes it as absent (firmware#1913).
    fn config(&mut self, includes: bool) -> Result<Config, Fault> {
        let text = self.read("config.txt")?.unwrap_or_default();
        let heeded = self.requests.last().is_some_and(|last| last.oack);
        let board = self.board;
        let mut fault = None;
        let mut include = |name: &str| {
            if !includes || fault.is_some() {
                return None;
            }
            self.read(name).unwrap_or_else(|e| {
                fault = Some(e);
                None
            })
        };
        let config = Config::read(if heeded { &text } else { &[] }, board, &mut include);
        fault.map_or(Ok(config), Err)
    }

    /// `STEM.sig`, and the update if it is newer than the bootloader.
    fn self_update(&mut self, stem: &str, ending: &str, config: &Config) -> Result<(), Fault> {
        let Some(signature) = self.read(&format!("{stem}.sig"))? else { return Ok(()) };
        let signature = String::from_utf8_lossy(&signature);
        let digest = signature.lines().next().unwrap_or_default().trim().to_ascii_lowercase();
        let time = signature.lines().find_map(|line| line.strip_prefix("ts:")?.trim().parse().ok());
        let updated: u64 = time.unwrap_or(0);
        if updated <= self.board.updated || !config.flag("bootloader_update", true) {
            return Ok(());
        }
        let name = format!("{stem}.{ending}");
        let Some(image) = self.read(&name)? else { return Ok(()) };
        let found: String = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
        if found == digest { Err(Fault::SelfUpdated { updated }) } else { Err(Fault::BadUpdate(name)) }
    }

    /// Files that are asked for and normally not there; what comes of it is of no use to us.
    fn ask_in_vain(&mut self, names: &[&str]) -> Result<(), Fault> {
        for name in names {
            self.read(name)?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> Result<Option<File>, Fault> {
        let bytes = self.read(name)?;
        Ok(bytes.map(|bytes| File { name: format!("{}{name}", self.directory), bytes }))
    }

    /// Probes and reads a file; `None` if it is not there.
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        if self.client.style.probes && !self.probe(name)? {
            return Ok(None);
        }
        match self.ask(name, Client::fetch)? {
            Answer::Content(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    fn probe(&mut self, name: &str) -> Result<bool, Fault> {
        Ok(matches!(self.ask(name, Client::probe)?, Answer::There(_)))
    }

    fn ask(
        &mut self,
        name: &str,
        how: fn(&mut Client, &str) -> io::Result<super::tftp_client::Transfer>,
    ) -> Result<Answer, Fault> {
        let name = format!("{}{name}", self.directory);
        let begun = self.started.elapsed();
        let transfer = how(&mut self.client, &name)?;
        let (outcome, failed) = match &transfer.answer {
            Answer::Content(bytes) => (Outcome::Read(bytes.len() as u64), false),
            Answer::There(size) => (Outcome::Probed(*size), false),
            Answer::Refused { code: 1, .. } => (Outcome::Missing, false),
            other => (Outcome::Failed(other.clone()), true),
        };
        self.requests.push(Request {
            name: name.clone(),
            outcome,
            at: begun + transfer.first_answer.unwrap_or_default(),
            took: transfer.took,
            duplicates: transfer.duplicates,
            tries: transfer.requests,
            oack: transfer.oack,
        });
        if failed {
            return Err(Fault::Transfer { name, answer: transfer.answer });
        }
        Ok(transfer.answer)
    }
}

#[cfg(test)]
mod tests;
