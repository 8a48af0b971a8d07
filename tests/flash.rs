//! Cards: real ones are loop devices here, over a file or over a file system in user space that is a bad disk.
//! Must not know: how cards are written. Spec: design.md section 13; `bad_disk.py` has the faults.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::site::{CLUSTER, Site, noise, sha256};
use crate::support::{Tier, fails, ok, repository, run, trial};

const TOOLS: &[Tier] = &[Tier::Judge(&["sgdisk", "e2fsck", "dumpe2fs", "debugfs", "fsck.vfat"])];
const CARDS: &[Tier] = &[Tier::Root, Tier::Judge(&["losetup", "sgdisk", "e2fsck", "debugfs", "mount"])];
const STATE: &[Tier] =
    &[Tier::Root, Tier::Fuse, Tier::Judge(&["losetup", "sgdisk", "e2fsck", "debugfs", "mount"])];
const BAD: &[Tier] = &[Tier::Root, Tier::Fuse, Tier::Judge(&["losetup", "sgdisk"])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("flash::a_file_is_the_image_byte_for_byte", TOOLS, plain_file),
        trial("flash::two_nodes_go_on_two_cards_in_one_run", TOOLS, two),
        trial("flash::what_must_not_be_overwritten_is_left_alone", CARDS, refusals),
        trial("flash::a_card_is_filled_and_keeps_its_state", STATE, state),
        trial("flash::a_bad_card_is_found_and_has_no_table", BAD, bad),
        trial("flash::an_interrupted_run_goes_on", BAD, interrupted),
        trial("flash::verify_names_the_file_and_the_byte", TOOLS, verify),
    ]
}

const MIB: u64 = 1 << 20;
/// Content, so that writing takes more than one piece.
const PAYLOAD: usize = 40 << 20;
/// The smallest card that these nodes fit on, less a MiB or two.
const CARD: u64 = 720 * MIB;

/// A node of a small root, and a second one.
fn site() -> Site {
    let site = Site::new();
    let (head, node) = CLUSTER.split_once("[[node]]").unwrap();
    let other =
        node.replace("n1", "n2").replace(".11", ".12").replace("00:01", "00:02").replace("01\"", "02\"");
    let more = "size = \"160M\"\n";
    site.write("cluster.toml", &format!("{head}[[node]]{node}{more}[[node]]{other}{more}"));
    site.write_bytes("root/srv/payload", &noise(9, PAYLOAD));
    site.pack_base();
    ok(&mut site.gt_image(["build", "--all", "--raw"]));
    site
}

fn image(site: &Site, node: &str) -> PathBuf {
    site.path(&format!("images/out/{node}/disk.img"))
}

fn flash(site: &Site, device: &Path, more: &[&str]) -> Command {
    let mut command = site.gt_image(["flash", "--node", "n1", "--yes", "--device", device.to_str().unwrap()]);
    command.args(more);
    command
}

fn row(command: &mut Command) -> serde_json::Value {
    let rows: serde_json::Value = serde_json::from_str(&ok(command.arg("--json"))).unwrap();
    rows[0].clone()
}

/// True when neither end has a partition table, of either kind.
fn has_no_table(path: &Path) -> bool {
    let mut file = File::open(path).unwrap();
    let mut head = [0; 1024];
    file.read_exact(&mut head).unwrap();
    file.seek(SeekFrom::End(-512)).unwrap();
    let mut tail = [0; 512];
    file.read_exact(&mut tail).unwrap();
    head[510..512] != [0x55, 0xaa] && !head[512..].starts_with(b"EFI PART") && !tail.starts_with(b"EFI PART")
}

fn plain_file() {
    let site = site();
    let card = site.path("card.img");
    let told = row(&mut flash(&site, &card, &[]));
    assert_eq!(sha256(&card), sha256(&image(&site, "n1")));
    let number = |key: &str| told[key].as_u64().unwrap();
    assert_eq!(number("size"), fs::metadata(&card).unwrap().len());
    assert_eq!(number("written") + number("skipped"), number("size"), "{told}");
    assert!(number("written") as usize > PAYLOAD && number("verified") == number("written"), "{told}");
    let cards: serde_json::Value =
        serde_json::from_str(&ok(&mut site.gt_image(["cards", "--json"]))).unwrap();
    assert_eq!((&cards[0]["node"], &cards[0]["times"]), (&"n1".into(), &1.into()));
    // A larger file is a larger card: the backup of the table is at its end.
    let larger = site.path("larger.img");
    File::create(&larger).unwrap().set_len(CARD + 5 * MIB + 512).unwrap();
    row(&mut flash(&site, &larger, &["--no-verify"]));
    let verdict = run("sgdisk", ["-v", larger.to_str().unwrap()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let small = site.path("small.img");
    fs::write(&small, [7; 4096]).unwrap();
    let told = fails(&mut flash(&site, &small, &[]), 1);
    assert!(told.contains("has 4096 bytes") && told.contains("hint:"), "{told}");
    assert_eq!(fs::read(&small).unwrap(), [7; 4096]);
}

fn two() {
    let site = site();
    let (one, two) = (site.path("1.img"), site.path("2.img"));
    let names = [one.to_str().unwrap(), two.to_str().unwrap()];
    let args = ["flash", "--yes", "--node", "n1", "--device", names[0], "--node", "n2", "--device", names[1]];
    ok(&mut site.gt_image(args));
    for (node, card) in [("n1", &one), ("n2", &two)] {
        assert_eq!(sha256(card), sha256(&image(&site, node)), "{node}");
    }
    let told = fails(&mut site.gt_image(["flash", "--node", "n1", "--node", "n2", "--device", names[0]]), 1);
    assert!(told.contains("2 nodes for 1 devices"), "{told}");
    let args = ["flash", "--yes", "--node", "n1", "--device", names[0], "--node", "n2", "--device", names[0]];
    assert!(fails(&mut site.gt_image(args), 1).contains("named twice"));
}

fn verify() {
    let site = site();
    let verify = |image: &Path| {
        let mut command = site.gt_image(["verify", "--node", "n1", "--json", "--image"]);
        command.arg(image);
        command
    };
    let card = site.path("card.img");
    File::create(&card).unwrap().set_len(2 * CARD).unwrap();
    row(&mut flash(&site, &card, &["--grow", "--state", "16M"]));
    // What the sizes were is read from the card; an image may be packed.
    let told: serde_json::Value = serde_json::from_str(&ok(&mut verify(&card))).unwrap();
    assert!(
        told["checked"].as_u64().unwrap() as usize > PAYLOAD && told["differences"] == serde_json::json!([])
    );
    ok(&mut site.gt_image(["build", "--node", "n1"]));
    ok(&mut verify(&site.path("images/out/n1/disk.img.zst")));
    // One bit of a file.
    let file = File::options().read(true).write(true).open(&card).unwrap();
    let place = payload_in(&card) + 7;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 1], place).unwrap();
    let difference = |more: &str| {
        let output = verify(&card).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{more}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let told = difference("a bit of a file");
    assert_eq!(
        (&told["byte"]["at"], &told["byte"]["partition"]),
        (&place.into(), &"rootfs".into()),
        "{told}"
    );
    let files = told["differences"].as_array().unwrap();
    assert!(files.len() == 1 && files[0]["path"] == "/srv/payload", "{told}");
    assert_eq!(files[0]["fields"][0]["name"], "content");
    file.write_all_at(&byte, place).unwrap();
    ok(&mut verify(&card));
    // The table.
    file.write_all_at(b"X", 1024 + 56).unwrap();
    let told = verify(&card).output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    // An object of the store.
    ok(&mut site.gt_image(["verify", "--node", "n1"]));
    let digest = sha256(&site.path("root/srv/payload"));
    let objects = run("find", [site.path("images/store/objects").to_str().unwrap(), "-type", "f"]);
    let object = objects.lines().find(|path| path.replace('/', "").ends_with(&digest)).unwrap();
    let good = fs::read(object).unwrap();
    let mut bad = good.clone();
    bad[5] ^= 1;
    run("chmod", ["u+w", object]);
    fs::write(object, bad).unwrap();
    let told = fails(&mut site.gt_image(["verify", "--node", "n1"]), 1);
    assert!(told.contains("root /srv/payload: changed; content is"), "{told}");
    fs::write(object, good).unwrap();
    ok(&mut site.gt_image(["verify", "--node", "n1", "--rebuild"]));
    site.write("overlays/role/files/etc/new", "new\n");
    let told = fails(&mut site.gt_image(["verify", "--node", "n1", "--rebuild"]), 1);
    assert!(told.contains("root /etc/new: added") && told.contains("hint:"), "{told}");
}

/// A loop device, detached when dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Loop {
        Loop(run("losetup", ["--find", "--show", "--partscan", file.to_str().unwrap()]).trim().into())
    }

    fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

fn refusals() {
    let site = site();
    let file = site.path("card");
    File::create(&file).unwrap().set_len(CARD).unwrap();
    let card = Loop::new(&file);
    let blank = sha256(&file);
    let mut command = site.gt_image(["flash", "--node", "n1", "--device", &card.0]);
    let told = fails(&mut command, 1);
    assert!(told.contains("does not look like a card") && told.contains("hint:"), "{told}");
    assert_eq!(sha256(&file), blank, "a refusal writes nothing");
    // A filesystem on all of it, mounted.
    run("mke2fs", ["-q", "-F", &card.0]);
    let mounted = site.path("mnt");
    fs::create_dir(&mounted).unwrap();
    run("mount", [&card.0, mounted.to_str().unwrap()]);
    let told = fails(&mut flash(&site, card.path(), &[]), 1);
    run("umount", [mounted.to_str().unwrap()]);
    assert!(told.contains("is mounted at"), "{told}");
    let incomplete = fails(&mut site.gt_image(["flash", "--node", "nobody", "--device", &card.0]), 1);
    assert!(incomplete.contains("gt-image build --node nobody"), "{incomplete}");
    // Without a terminal nobody can be asked.
    let existing = site.path("existing.img");
    File::create(&existing).unwrap().set_len(CARD).unwrap();
    let mut command = site.gt_image(["flash", "--node", "n1", "--device", existing.to_str().unwrap()]);
    let told = fails(command.stdin(Stdio::null()), 1);
    assert!(told.contains("only when somebody says so") && told.contains("--yes"), "{told}");
}

fn state() {
    let site = site();
    let file = site.path("card");
    File::create(&file).unwrap().set_len(2 * CARD).unwrap();
    let card = Loop::new(&file);
    let told = row(&mut flash(&site, card.path(), &["--grow", "--state", "32M"]));
    assert_eq!(told["state_kept"], false, "{told}");
    let verdict = run("sgdisk", ["-v", &card.0]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let partition = |number: &str| {
        let info = run("sgdisk", ["-i", number, file.to_str().unwrap()]);
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        (field("First sector") * 512, field("Partition size") * 512)
    };
    let (_, root) = partition("2");
    assert!(root > CARD, "the root takes what is left: {root}");
    let (start, size) = partition("3");
    assert_eq!(size, 32 * MIB);
    // A part as a device of its own, for the tools; away again before the card is flashed.
    let inside = |start: u64, size: u64, work: &mut dyn FnMut(&str)| {
        let (start, size) = (start.to_string(), size.to_string());
        let args = ["--find", "--show", "-o", &start, "--sizelimit", &size, file.to_str().unwrap()];
        let part = Loop(run("losetup", args).trim().into());
        work(&part.0);
        run("sync", ["-f", file.to_str().unwrap()]);
    };
    let (root_start, root_size) = partition("2");
    inside(root_start, root_size, &mut |part| _ = run("e2fsck", ["-fn", part]));
    let note = site.path("note");
    fs::write(&note, "years of work\n").unwrap();
    let mut public = String::new();
    inside(start, size, &mut |part| {
        run("e2fsck", ["-fn", part]);
        public = run("debugfs", ["-R", "cat node.age", part]);
        run("debugfs", ["-w", "-R", &format!("write {} note", note.display()), part]);
    });
    assert!(public.starts_with("AGE-SECRET-KEY-"), "flash gives the node a key of its own");
    let registered = fs::read_to_string(site.path("secrets/nodes/n1.age.pub")).unwrap();
    assert!(registered.starts_with("age1"), "{registered}");
    // Another generation, the same places.
    site.write("overlays/role/files/etc/new", "new\n");
    ok(&mut site.gt_image(["build", "--node", "n1", "--no-image"]));
    let told = row(&mut flash(&site, card.path(), &["--grow", "--state", "32M"]));
    assert_eq!(told["state_kept"], true, "{told}");
    assert_eq!(fs::read_to_string(site.path("secrets/nodes/n1.age.pub")).unwrap(), registered);
    let mut found = String::new();
    inside(start, size, &mut |part| found = run("debugfs", ["-R", "cat note", part]));
    assert_eq!(found, "years of work\n");
    // Other places would be written over it.
    let before = sha256(&file);
    for more in [&["--state", "32M"][..], &["--grow", "--state", "64M"], &["--grow"]] {
        let told = fails(&mut flash(&site, card.path(), more), 1);
        assert!(told.contains("has state of a node") && told.contains("--wipe-state"), "{told}");
    }
    assert_eq!(sha256(&file), before, "a refusal writes nothing");
    // A flash that is interrupted leaves no table, and the state is found all the same.
    drop(card);
    {
        let disk = Bad::new(&site, &file, &format!("fails={}", payload(&site) + 20 * MIB));
        fails(&mut flash(&site, disk.path(), &["--grow", "--state", "32M"]), 1);
    }
    assert!(has_no_table(&file));
    let card = Loop::new(&file);
    let told = fails(&mut flash(&site, card.path(), &["--state", "32M"]), 1);
    assert!(told.contains("has state of a node"), "{told}");
    let told = row(&mut flash(&site, card.path(), &["--grow", "--state", "32M"]));
    assert_eq!(told["state_kept"], true, "{told}");
    inside(start, size, &mut |part| found = run("debugfs", ["-R", "cat note", part]));
    assert_eq!(found, "years of work\n");
    let told = row(&mut flash(&site, card.path(), &["--grow", "--state", "32M", "--wipe-state"]));
    assert_eq!(told["state_kept"], false);
    inside(start, size, &mut |part| {
        found = run("debugfs", ["-R", "ls", part]);
    });
    assert!(!found.contains("note") && found.contains("node.age"), "{found}");
    assert_ne!(fs::read_to_string(site.path("secrets/nodes/n1.age.pub")).unwrap(), registered);
}

/// A disk with a fault, as a loop device.
struct Bad {
    card: Option<Loop>,
    mount: PathBuf,
    process: Child,
    backing: PathBuf,
}

impl Bad {
    fn new(site: &Site, backing: &Path, fault: &str) -> Bad {
        if !backing.exists() {
            File::create(backing).unwrap().set_len(CARD).unwrap();
        }
        let mount = site.path(&format!("mnt-{}", fault.replace('=', "-")));
        fs::create_dir_all(&mount).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(repository().join("tests/bad_disk.py")).args([&mount, backing]).arg(fault);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while !mount.join("disk").exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the bad disk does not come");
            std::thread::sleep(Duration::from_millis(50));
        }
        // Past the page cache, which would give back what was written and not what the disk has.
        let disk = mount.join("disk");
        let args = ["--find", "--show", "--direct-io=on", disk.to_str().unwrap()];
        let card = Loop(run("losetup", args).trim().into());
        Bad { card: Some(card), mount, process, backing: backing.into() }
    }

    fn path(&self) -> &Path {
        self.card.as_ref().unwrap().path()
    }

    /// What is really on it.
    fn backing(&self) -> &Path {
        &self.backing
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        self.card = None;
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the payload lies on a card of `n1`.
fn payload(site: &Site) -> u64 {
    payload_in(&image(site, "n1"))
}

fn payload_in(image: &Path) -> u64 {
    let first = &noise(9, PAYLOAD)[..4096];
    let image = File::open(image).unwrap();
    let mut block = [0; 4096];
    let mut places = (520 * MIB..).step_by(4096);
    let found = |at: &u64| {
        image.read_exact_at(&mut block, *at).unwrap();
        block == *first
    };
    places.find(found).unwrap()
}

fn bad() {
    let site = site();
    let place = payload(&site) + 20 * MIB;
    for (fault, wanted) in [
        (format!("fails={place}"), "cannot be written"),
        (format!("flips={}", place + 5), "gives back something else than was written, in `rootfs`"),
        (format!("lies={}", 256 * MIB), "keeps no more than 268435456"),
        (format!("vanishes={}", 20 * MIB), "cannot be written"),
    ] {
        let backing = site.path(&format!("backing-{}", fault.replace('=', "-")));
        let disk = Bad::new(&site, &backing, &fault);
        let told = fails(&mut flash(&site, disk.path(), &[]), 1);
        assert!(told.contains(wanted) && told.contains("hint:"), "{fault}: {told}");
        assert!(has_no_table(disk.backing()), "{fault}");
    }
}

fn interrupted() {
    let site = site();
    let backing = site.path("backing");
    {
        let disk = Bad::new(&site, &backing, &format!("slow={}", 16 * MIB));
        let mut child = flash(&site, disk.path(), &[]).stderr(Stdio::null()).spawn().unwrap();
        // Somewhere in the middle of the payload.
        let begun = Instant::now();
        let written = || {
            let mut piece = [0; 4096];
            File::open(&backing).unwrap().read_exact_at(&mut piece, 520 * MIB).unwrap();
            piece.iter().any(|byte| *byte != 0)
        };
        while !written() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_no_table(&backing));
    }
    // A card that was pulled: what was synced before is found again.
    {
        let disk = Bad::new(&site, &backing, &format!("fails={}", payload(&site) + 30 * MIB));
        fails(&mut flash(&site, disk.path(), &[]), 1);
        assert!(has_no_table(&backing));
    }
    let card = Loop::new(&backing);
    let told = row(&mut flash(&site, card.path(), &[]));
    assert!(told["reused"].as_u64().unwrap() as usize > PAYLOAD / 2, "{told}");
    drop(card);
    let verdict = run("sgdisk", ["-v", backing.to_str().unwrap()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let whole = site.path("whole.img");
    File::create(&whole).unwrap().set_len(CARD).unwrap();
    row(&mut flash(&site, &whole, &[]));
    let (one, other) = (fs::read(&backing).unwrap(), fs::read(&whole).unwrap());
    // Marks of the probe stay where nothing has content: all that has is equal.
    let bmap = fs::read_to_string(site.path("images/out/n1/disk.bmap")).unwrap();
    for range in bmap.lines().filter_map(|line| line.split_once("\"> ")?.1.split(' ').next()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let block = |text: &str| text.parse::<usize>().unwrap() * 4096;
        let bytes = block(first)..(block(last) + 4096).min(one.len());
        assert!(one[bytes.clone()] == other[bytes], "blocks {range}");
    }
}
