//! Tests of whole boot trees, on made-up roots.

use super::*;
use crate::tree::tests::path;

const VERSION: &str = "6.12.107+deb13-arm64";

struct Site {
    _dir: tempfile::TempDir,
    store: Store,
    root: Tree,
    base: Tree,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let empty = Tree::new(Meta::root_owned(0o755, Time::default()));
        Site { _dir: dir, store, root: empty.clone(), base: empty }
    }

    /// A root as Debian's packages leave it.
    fn debian() -> Site {
        let mut site = Site::new();
        for name in ["bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat", "overlays/x.dtbo"]
        {
            site.put(&format!("usr/lib/raspi-firmware/{name}"), name.as_bytes());
        }
        for name in ["bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb", "bcm2837-rpi-3-b.dtb", "bcm4708-x.dtb"] {
            site.put(&format!("usr/lib/linux-image-{VERSION}/broadcom/{name}"), name.as_bytes());
        }
        site.kernel(VERSION);
        site
    }

    fn kernel(&mut self, version: &str) {
        let mut image = vec![0; 100];
        image[56..60].copy_from_slice(b"ARM\x64");
        self.put(&format!("boot/vmlinuz-{version}"), &image);
        self.put(&format!("usr/lib/modules/{version}/modules.order"), b"");
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        put(&mut self.root, &self.store, name, bytes);
    }

    fn put_base(&mut self, name: &str, bytes: &[u8]) {
        put(&mut self.base, &self.store, name, bytes);
    }

    fn payload(&self, model: Model) -> Payload {
        let on_boot = kernel::on_boot(&self.base, &self.root, &self.store).unwrap();
        let kernel = kernel::choose(&self.root, &on_boot, model).0;
        let kernel = kernel.map(|k| (k.clone(), kernel::pack(&self.store, &k).unwrap()));
        Payload { kernel, initramfs: Some(self.store.put_bytes(b"initramfs").unwrap()) }
    }

    fn boot(&self, model: Model) -> Boot {
        self.try_boot(&node(model)).unwrap()
    }

    fn try_boot(&self, node: &BootNode) -> Result<Boot, BootError> {
        assemble(&self.root, &self.base, node, &self.payload(node.model), &self.store, 9)
    }

    fn text(&self, boot: &Boot, name: &str) -> String {
        text_of(&boot.tree, &self.store, name).unwrap().unwrap()
    }
}

fn put(tree: &mut Tree, store: &Store, name: &str, bytes: &[u8]) {
    tree.make_parents(&path(name), &Meta::root_owned(0o755, Time::default())).unwrap();
    let kind = Kind::File(store.put_bytes(bytes).unwrap());
    tree.insert(path(name), Inode { meta: Meta::root_owned(0o644, Time::default()), kind }).unwrap();
}

fn node(model: Model) -> BootNode {
    BootNode {
        model,
        config_txt: vec!["dtparam=watchdog=on".into()],
        cmdline: vec!["gt.timeout=9".into()],
        disk_mode: "disk".into(),
        partuuid: "0a1b-02".into(),
        server: None,
        consoles: Vec::new(),
    }
}

fn names(boot: &Boot) -> Vec<String> {
    boot.tree.iter().filter(|(_, _, i)| !i.is_dir()).map(|(p, _, _)| p.to_string()).collect()
}

#[test]
fn a_debian_root_gives_a_whole_boot_tree() {
    let site = Site::debian();
    let boot = site.boot(Model::Pi4);
    assert_eq!(boot.warnings, [""; 0]);
    assert_eq!(
        names(&boot),
        [
            "/bcm2711-rpi-4-b.dtb",
            "/bcm2712-rpi-5-b.dtb",
            "/bcm2837-rpi-3-b.dtb",
            "/bootcode.bin",
            "/cmdline.txt",
            "/config.txt",
            "/fixup.dat",
            "/fixup4.dat",
            "/initramfs.img",
            "/overlays/x.dtbo",
            "/start.elf",
            "/start4.elf",
            "/vmlinuz"
        ]
    );
    let config = site.text(&boot, "config.txt");
    assert!(
        config.contains("upstream_kernel=1\n") && config.ends_with("\ndtparam=watchdog=on\n"),
        "{config}"
    );
    assert_eq!(
        site.text(&boot, "cmdline.txt"),
        "console=tty0 console=ttyS1,115200 root=PARTUUID=0a1b-02 rootfstype=ext4 gt.root=disk rw rootwait \
         fsck.repair=yes net.ifnames=0 gt.timeout=9\n"
    );
    let kernel = boot.tree.get(&path("vmlinuz")).unwrap();
    assert_eq!(kernel.meta, Meta::root_owned(0o644, Time::seconds(9)));
    assert!(
        site.store
            .read_object(kernel.object().unwrap())
            .unwrap()
            .starts_with(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0])
    );
    assert_eq!(site.boot(Model::Pi4).tree, boot.tree);
}

#[test]
fn what_a_model_lacks_is_a_warning() {
    let mut site = Site::debian();
    assert_eq!(site.boot(Model::Pi3).warnings, [""; 0]);
    let rp1 = format!("kernel `{VERSION}` has no driver for the RP1 of a pi5: no Ethernet and no USB");
    assert_eq!(site.boot(Model::Pi5).warnings, [rp1]);
    site.put(&format!("usr/lib/modules/{VERSION}/kernel/rp1-pci.ko.xz"), b"");
    assert_eq!(site.boot(Model::Pi5).warnings, [""; 0]);
    site.root.remove(&path("usr/lib/raspi-firmware/start4.elf"));
    site.root.remove(&path(&format!("usr/lib/linux-image-{VERSION}")));
    let warnings = site.boot(Model::Pi4).warnings;
    assert!(warnings[0].starts_with("base has no `start4.elf`"), "{warnings:?}");
    assert!(warnings[1].starts_with("base has no device tree `bcm2711-rpi-4-b.dtb`"), "{warnings:?}");
    let warnings = Site::new().boot(Model::Pi4).warnings;
    assert_eq!(warnings[0], "base has no kernel: this node cannot boot");
}

#[test]
fn a_bases_own_boot_files_stay() {
    let mut site = Site::debian();
    site.put_base("START4.ELF", b"the base's own");
    site.put_base("config.txt", b"gpu_mem=16\nkernel=other\n");
    site.put_base("cmdline.txt", b"console=tty1 root=LABEL=x quiet\n");
    let boot = site.boot(Model::Pi4);
    assert!(boot.tree.get(&path("START4.ELF")).is_some() && boot.tree.get(&path("start4.elf")).is_none());
    let config = site.text(&boot, "config.txt");
    assert!(config.starts_with("gpu_mem=16\n") && !config.contains("kernel=other"), "{config}");
    let cmdline = site.text(&boot, "cmdline.txt");
    assert!(cmdline.starts_with("console=tty1 quiet root=PARTUUID=0a1b-02 "), "{cmdline}");
    site.put_base("config.txt", b"\xff");
    assert!(matches!(site.try_boot(&node(Model::Pi4)), Err(BootError::NotText { .. })));
}

#[test]
fn a_base_with_a_kernel_of_its_own_boots_by_it() {
    let mut site = Site::new();
    for name in ["kernel8.img", "start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"] {
        site.put_base(name, b"x");
    }
    let boot = site.boot(Model::Pi4);
    assert_eq!(boot.warnings.len(), 1);
    assert!(boot.warnings[0].contains("without our initramfs"), "{:?}", boot.warnings);
    assert!(!site.text(&boot, "config.txt").contains("kernel="));
}

#[test]
fn files_that_old_bootloaders_cut_are_refused() {
    let mut site = Site::debian();
    let big = Object { digest: crate::digest::Digest::of(b""), size: MAX_BOOT_FILE, holes: Box::default() };
    let inode = Inode { meta: Meta::default(), kind: Kind::File(big) };
    site.base.insert(path("big"), inode).unwrap();
    let error = site.try_boot(&node(Model::Pi4)).unwrap_err();
    assert!(matches!(error, BootError::FileTooLarge { bytes: MAX_BOOT_FILE, .. }), "{error}");
}

#[test]
fn the_newest_kernel_that_runs_here_is_chosen() {
    let mut site = Site::debian();
    for version in ["6.12.99+deb13-arm64", "6.13+rpt-rpi-2712"] {
        site.kernel(version);
    }
    site.put("boot/vmlinuz-7.0-without-modules", b"");
    let (kernel, note) = kernel::choose(&site.root, &[], Model::Pi4);
    assert_eq!(kernel.unwrap().version, VERSION);
    assert_eq!(note.unwrap(), format!("pi4 boots kernel `{VERSION}`; also there: `6.12.99+deb13-arm64`"));
    assert_eq!(kernel::choose(&site.root, &[], Model::Pi5).0.unwrap().version, "6.13+rpt-rpi-2712");
    assert_eq!(kernel::choose(&Site::new().root, &[], Model::Pi4), (None, None));
}

#[test]
fn only_kernels_that_the_firmware_starts_are_packed() {
    let mut site = Site::debian();
    let kernel = |site: &Site| kernel::choose(&site.root, &[], Model::Pi4).0.unwrap();
    let packed = kernel::pack(&site.store, &kernel(&site)).unwrap();
    site.put(&format!("boot/vmlinuz-{VERSION}"), &site.store.read_object(&packed).unwrap());
    assert_eq!(kernel::pack(&site.store, &kernel(&site)).unwrap(), packed, "gzip stays as it is");
    let mut zboot = vec![0; 100];
    zboot[4..8].copy_from_slice(b"zimg");
    zboot[56..60].copy_from_slice(b"ARM\x64");
    for bad in [zboot, b"MZ".to_vec(), vec![0; 100]] {
        site.put(&format!("boot/vmlinuz-{VERSION}"), &bad);
        assert!(matches!(kernel::pack(&site.store, &kernel(&site)), Err(BootError::NotArm64 { .. })));
    }
}

/// The disk's own line stays beside it: a flashed card boots from itself.
#[test]
fn a_served_node_has_a_line_for_that_as_well() {
    let site = Site::debian();
    assert!(!names(&site.boot(Model::Pi4)).contains(&"/cmdline.netboot.txt".to_owned()));
    let server =
        Server { address: [10, 4, 0, 10].into(), node: "fenn".into(), ram: None, partitions: vec![] };
    let boot = site.try_boot(&BootNode { server: Some(server), ..node(Model::Pi4) }).unwrap();
    let disk = site.text(&boot, "cmdline.txt");
    assert!(disk.contains("gt.root=disk ") && !disk.contains("gt.server"), "{disk}");
    assert_eq!(
        site.text(&boot, CMDLINE_NETBOOT),
        "console=tty0 console=ttyS1,115200 gt.root=nfs gt.server=10.4.0.10 gt.node=fenn gt.http=8080 rw \
         net.ifnames=0 gt.timeout=9\n"
    );
}

/// A root and a boot partition as Raspberry Pi OS has them: two kernels, with the modules of both.
fn raspios() -> Site {
    let mut site = Site::new();
    for (file, own, version) in [
        ("kernel8.img", "initramfs8", "6.12.47+rpt-rpi-v8"),
        ("kernel_2712.img", "initramfs_2712", "6.12.47+rpt-rpi-2712"),
    ] {
        let mut image = vec![0x1f, 0x8b];
        image.extend_from_slice(version.as_bytes());
        site.put_base(file, &image);
        site.put_base(own, b"the image's own");
        // Its package's copy, which tells the version of what cannot be unpacked here.
        site.put(&format!("boot/vmlinuz-{version}"), &image);
        site.put(&format!("usr/lib/modules/{version}/modules.order"), b"");
    }
    for name in
        ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb", "bcm2710-rpi-3-b.dtb"]
    {
        site.put_base(name, name.as_bytes());
    }
    site.put_base("config.txt", b"arm_boost=1\nauto_initramfs=1\n");
    site.put_base("cmdline.txt", b"console=serial0,115200 root=PARTUUID=041bba91-02 rootwait resize\n");
    site
}

#[test]
fn an_image_boots_its_own_kernel_of_the_model_with_our_initramfs() {
    for (model, file, version) in [
        (Model::Pi3, "kernel8.img", "6.12.47+rpt-rpi-v8"),
        (Model::Pi4, "kernel8.img", "6.12.47+rpt-rpi-v8"),
        (Model::Pi5, "kernel_2712.img", "6.12.47+rpt-rpi-2712"),
    ] {
        let site = raspios();
        let (kernel, _) = site.payload(model).kernel.unwrap();
        assert_eq!((kernel.file, kernel.version.as_str()), (file, version));
        let boot = site.boot(model);
        let config = site.text(&boot, "config.txt");
        assert!(
            config.contains(&format!("\nkernel={file}\ninitramfs initramfs.img followkernel\n")),
            "{config}"
        );
        assert!(!config.contains("auto_initramfs") && !config.contains("upstream_kernel"), "{config}");
        let names = names(&boot);
        assert!(
            !names.iter().any(|name| name.starts_with("/initramfs8") || name.ends_with("2712")),
            "{names:?}"
        );
        assert!(!names.contains(&"/vmlinuz".to_owned()) && names.contains(&"/initramfs.img".to_owned()));
        // The image's own file, and not a copy with another time.
        let image = |tree: &Tree| tree.get(&path(file)).unwrap().clone();
        assert_eq!(image(&boot.tree), image(&site.base));
    }
}

#[test]
fn a_pi_5_takes_the_common_kernel_of_an_image_without_its_own() {
    let mut site = raspios();
    site.base.remove(&path("kernel_2712.img"));
    assert_eq!(site.payload(Model::Pi5).kernel.unwrap().0.file, "kernel8.img");
    // And a kernel whose modules are not there is none.
    for version in ["6.12.47+rpt-rpi-v8", "6.12.47+rpt-rpi-2712"] {
        site.root.remove(&path(&format!("usr/lib/modules/{version}")));
    }
    assert!(site.payload(Model::Pi4).kernel.is_none());
}
