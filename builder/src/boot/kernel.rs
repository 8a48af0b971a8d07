//! The kernels of a root and of the boot partition that came with it: which there are, which one boots, and
//! its bytes for the boot partition.
//! Must not know: nodes, initramfs.
//! Spec: Linux, Documentation/arch/arm64/booting.rst (image header), `init/version.c` (banner);
//! Raspberry Pi documentation, config.txt (`kernel`); deb-version(7) for the order of versions; RFC 1952 for
//! gzip.

use std::cmp::Ordering;
use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;

use super::model::Model;
use super::{BootError, KERNEL};
use crate::store::Store;
use crate::tree::{Inode, Object, Tree, TreePath};

/// A kernel that a root has, with its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its version: what follows `vmlinuz-`, and the name of its module directory.
    pub version: String,
    /// Where its image is.
    pub path: TreePath,
    /// The image as the package brings it.
    pub image: Object,
    /// Its file on the boot partition.
    pub file: &'static str,
}

/// Bytes of a kernel at most, unpacked. Debian's has 36 MiB, Raspberry Pi's 25.
const UNPACKED_MAX: u64 = 256 << 20;

/// Files that the firmware looks for by itself: of a Pi 5 both in this order, of others the last one.
const OFFICIAL: [&str; 2] = ["kernel_2712.img", "kernel8.img"];

/// The kernels of a boot partition that `root` has the modules of.
pub fn on_boot(boot: &Tree, root: &Tree, store: &Store) -> Result<Vec<Kernel>, BootError> {
    let mut found = Vec::new();
    let in_root = kernels(root);
    for file in OFFICIAL {
        let path = TreePath::new(file)?;
        let Some(image) = boot.get(&path).and_then(Inode::object) else { continue };
        // Packages copy it there from `/boot`, which saves unpacking it.
        let copied = in_root.iter().find(|kernel| kernel.image.digest == image.digest);
        let version = match copied {
            Some(kernel) => Some(kernel.version.clone()),
            None => version_of(&store.read_object(image)?),
        };
        if let Some(version) = version.filter(|version| crate::kmod::module_dir(root, version).is_ok()) {
            found.push(Kernel { version, path, image: image.clone(), file });
        }
    }
    Ok(found)
}

/// The version that a kernel tells of itself, and looks for its modules by: the word behind `Linux version `. `None`
/// for what is no kernel.
pub fn version_of(image: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut unpacked = Vec::new();
    let bytes = if image.starts_with(&[0x1f, 0x8b]) {
        // What follows a whole stream, or a cut one, does not matter to what was found before.
        let _ = MultiGzDecoder::new(image).take(UNPACKED_MAX).read_to_end(&mut unpacked);
        &unpacked[..]
    } else {
        image
    };
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(BANNER.len()).position(|window| window == BANNER) {
        from += at + BANNER.len();
        let word: Vec<u8> =
            bytes[from..].iter().copied().take(100).take_while(|b| b.is_ascii_graphic()).collect();
        // The same words are in formats: `Linux version %s`.
        if word.first().is_some_and(u8::is_ascii_digit) && !word.contains(&b'/') {
            return String::from_utf8(word).ok();
        }
    }
    None
}

/// The kernels of a root, the newest first: images `/boot/vmlinuz-<version>` with a directory of
/// modules of that name. Versions are compared as Debian does.
pub fn kernels(root: &Tree) -> Vec<Kernel> {
    let Ok(boot) = TreePath::new("boot") else { return Vec::new() };
    let mut found: Vec<Kernel> = root
        .children(&boot)
        .filter_map(|(path, _, _)| {
            let version = std::str::from_utf8(path.name().strip_prefix(b"vmlinuz-")?).ok()?;
            let target = root.resolve(path, true)?;
            let image = root.get(&target).and_then(Inode::object)?.clone();
            crate::kmod::module_dir(root, version).ok()?;
            Some(Kernel { version: version.to_owned(), path: path.clone(), image, file: KERNEL })
        })
        .collect();
    found.sort_by(|a, b| version_order(&b.version, &a.version));
    found
}

/// The kernel that a model boots: the one that its firmware would take of those on the boot partition, for device
/// trees and dtoverlays there belong to it; else the newest of the root that it can run, with a note when there
/// were others to choose from. `None` when there is none.
pub fn choose(root: &Tree, on_boot: &[Kernel], model: Model) -> (Option<Kernel>, Option<String>) {
    let takes = |kernel: &&Kernel| model.looks_for(kernel.file) && model.runs(&kernel.version);
    if let Some(own) = on_boot.iter().find(takes) {
        return (Some(own.clone()), None);
    }
    let mut usable: Vec<Kernel> = kernels(root).into_iter().filter(|k| model.runs(&k.version)).collect();
    // Of one release for several models, the one that was made for this model.
    if model == Model::Pi5 {
        usable.sort_by_key(|k| !k.version.ends_with("-2712"));
    }
    let names: Vec<String> = usable.iter().map(|k| format!("`{}`", k.version)).collect();
    let note = match &names[..] {
        [first, rest @ ..] if !rest.is_empty() => {
            Some(format!("{} boots kernel {first}; also there: {}", model.name(), rest.join(", ")))
        }
        _ => None,
    };
    (usable.into_iter().next(), note)
}

/// A kernel's image as it goes on the boot partition: gzip, which the firmware unpacks. It is a
/// third of the size, which is a third of the time over TFTP. An image that is gzip already stays.
pub fn pack(store: &Store, kernel: &Kernel) -> Result<Object, BootError> {
    let bytes = store.read_object(&kernel.image)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(kernel.image.clone());
    }
    // `zimg` marks an image that unpacks itself, but only under UEFI.
    let arm64 = bytes.get(56..60) == Some(b"ARM\x64") && bytes.get(4..8) != Some(b"zimg");
    if !arm64 {
        return Err(BootError::NotArm64 { path: kernel.path.clone() });
    }
    let packed = gzip(&bytes).map_err(|source| BootError::Pack { path: kernel.path.clone(), source })?;
    Ok(store.put_bytes(&packed)?)
}

/// Without a name and a time, so that the same bytes give the same file.
fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Compares two versions as dpkg does, for versions without an epoch: runs of other characters and
/// runs of digits in turn; digits as numbers, `~` before everything, letters before other signs.
pub fn version_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let digits = |s: &[u8]| s.iter().position(u8::is_ascii_digit).unwrap_or(s.len());
        let (text_a, rest_a) = a.split_at(digits(a));
        let (text_b, rest_b) = b.split_at(digits(b));
        let others = |s: &[u8]| s.iter().position(|c| !c.is_ascii_digit()).unwrap_or(s.len());
        let (number_a, after_a) = rest_a.split_at(others(rest_a));
        let (number_b, after_b) = rest_b.split_at(others(rest_b));
        let order = text_order(text_a, text_b).then_with(|| number_order(number_a, number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (after_a, after_b);
    }
    Ordering::Equal
}

fn text_order(a: &[u8], b: &[u8]) -> Ordering {
    // The end of the text weighs more than `~` and less than all else.
    let weight = |s: &[u8], at: usize| match s.get(at) {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    let orders = (0..a.len().max(b.len())).map(|at| weight(a, at).cmp(&weight(b, at)));
    orders.fold(Ordering::Equal, Ordering::then)
}

fn number_order(a: &[u8], b: &[u8]) -> Ordering {
    let trim = |s: &[u8]| s.iter().position(|&c| c != b'0').map_or(Vec::new(), |at| s[at..].to_vec());
    let (a, b) = (trim(a), trim(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        for (older, newer) in [
            ("6.1.0-9-arm64", "6.1.0-10-arm64"),
            ("6.12.107+deb13-arm64", "6.12.117+deb13-arm64"),
            ("6.12~rc1", "6.12"),
            ("6.12", "6.12.1"),
            ("6.9.99", "6.12.0"),
            ("6.12.0a", "6.12.0+b"),
            ("5.10.0-0.bpo.3", "5.10.0-3"),
        ] {
            assert_eq!(version_order(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(version_order(newer, older), Ordering::Greater, "{newer} {older}");
        }
        assert_eq!(version_order("6.01", "6.1"), Ordering::Equal);
    }

    #[test]
    fn a_kernel_tells_its_version() {
        let banner = b"\0Linux version %s (%s)\0Linux version 6.12.47+rpt-rpi-v8 (serge@x) (gcc)\0";
        assert_eq!(version_of(banner).as_deref(), Some("6.12.47+rpt-rpi-v8"));
        assert_eq!(version_of(&gzip(banner).unwrap()).as_deref(), Some("6.12.47+rpt-rpi-v8"));
        for none in
            [&b""[..], b"noise", b"Linux version ", b"Linux version 1/../../x y", &gzip(b"x").unwrap()]
        {
            assert_eq!(version_of(none), None);
        }
    }

    proptest! {
        #[test]
        fn no_image_panics(noise: Vec<u8>, cut in 0usize..90) {
            let packed = gzip(&[b"Linux version 6.1 x", &noise[..]].concat()).unwrap();
            version_of(&packed[..cut.min(packed.len())]);
            version_of(&noise);
        }

        #[test]
        fn the_order_is_an_order(a in "[0-9a-b.~+-]{0,8}", b in "[0-9a-b.~+-]{0,8}", c in "[0-9a-b.~+-]{0,8}") {
            prop_assert_eq!(version_order(&a, &b), version_order(&b, &a).reverse());
            if version_order(&a, &b).is_le() && version_order(&b, &c).is_le() {
                prop_assert!(version_order(&a, &c).is_le());
            }
        }
    }
}
