//! `overlays/overlay_map.dtb`: which file a device-tree overlay's name means on which chip.
//! Must not know: TFTP, `config.txt`.
//! Spec: Devicetree Specification 0.4, chapter 5 (flattened format); the map's own rules are those of
//! raspberrypi/linux `arch/arm/boot/dts/overlays/overlay_map.dts` and its README.

use super::Model;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// The file name without `.dtbo` that `overlay` means on `model`: the map's, or its own where the map does
/// not list it. `None` if the map says that this chip has none.
pub fn resolve(map: &[u8], overlay: &str, model: Model) -> Option<String> {
    let chip = match model {
        Model::Pi3b | Model::Pi3bPlus => "bcm2835",
        Model::Pi4Old | Model::Pi4 => "bcm2711",
        Model::Pi5 => "bcm2712",
    };
    let Some(properties) = node(map, overlay) else { return Some(overlay.to_owned()) };
    let text = |name: &str| {
        let (_, value) = properties.iter().find(|(found, _)| *found == name)?;
        let value = std::str::from_utf8(value).ok()?;
        Some(value.trim_end_matches('\0').to_owned())
    };
    if let Some(renamed) = text("renamed") {
        return Some(renamed);
    }
    let on_this_chip = text(chip)?;
    Some(if on_this_chip.is_empty() { overlay.to_owned() } else { on_this_chip })
}

/// A property: its name and value.
type Property<'a> = (&'a str, &'a [u8]);

/// The properties of the node `/name`, or `None` if there is none or these bytes are no device tree.
fn node<'a>(tree: &'a [u8], name: &str) -> Option<Vec<Property<'a>>> {
    let word = |at: usize| tree.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
    let offset = |at| usize::try_from(word(at)?).ok();
    if word(0)? != MAGIC {
        return None;
    }
    let strings = tree.get(offset(12)?..)?;
    let mut at = offset(8)?;
    let mut depth = 0u32;
    let mut found: Option<Vec<Property<'a>>> = None;
    loop {
        let token = word(at)?;
        at += 4;
        match token {
            BEGIN_NODE => {
                let this = text_at(tree, at)?;
                at += (this.len() + 1).next_multiple_of(4);
                depth = depth.checked_add(1)?;
                if depth == 2 && this == name {
                    found = Some(vec![]);
                }
            }
            END_NODE if depth == 2 && found.is_some() => return found,
            END_NODE => depth = depth.checked_sub(1)?,
            PROPERTY => {
                let (len, label) = (offset(at)?, offset(at + 4)?);
                let value = tree.get(at + 8..)?.get(..len)?;
                at += 8 + len.next_multiple_of(4);
                if let Some(properties) = found.as_mut().filter(|_| depth == 2) {
                    properties.push((text_at(strings, label)?, value));
                }
            }
            NOP => {}
            _ => return None, // END, or no token at all.
        }
    }
}

fn text_at(bytes: &[u8], at: usize) -> Option<&str> {
    std::str::from_utf8(bytes.get(at..)?.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `/ { vc4-kms-v3d { bcm2835; bcm2711 = "vc4-kms-v3d-pi4"; }; old { renamed = "new"; }; }`
    fn map() -> Vec<u8> {
        let names = b"bcm2835\0bcm2711\0renamed\0";
        let mut nodes = vec![];
        let words = |nodes: &mut Vec<u8>, list: &[u32]| {
            list.iter().for_each(|word| nodes.extend(word.to_be_bytes()));
        };
        let padded = |nodes: &mut Vec<u8>, text: &[u8]| {
            nodes.extend(text);
            nodes.resize(nodes.len().next_multiple_of(4), 0);
        };
        words(&mut nodes, &[BEGIN_NODE, 0, NOP, BEGIN_NODE]);
        padded(&mut nodes, b"vc4-kms-v3d\0");
        words(&mut nodes, &[PROPERTY, 0, 0, PROPERTY, 16, 8]);
        padded(&mut nodes, b"vc4-kms-v3d-pi4\0");
        words(&mut nodes, &[END_NODE, BEGIN_NODE]);
        padded(&mut nodes, b"old\0");
        words(&mut nodes, &[PROPERTY, 4, 16]);
        padded(&mut nodes, b"new\0");
        words(&mut nodes, &[END_NODE, END_NODE, 9]);
        let mut tree = vec![];
        let strings = 40 + nodes.len() as u32;
        words(&mut tree, &[MAGIC, strings + 24, 40, strings, 0, 17, 16, 0, 24, nodes.len() as u32]);
        tree.extend(&nodes);
        tree.extend(names);
        tree
    }

    #[test]
    fn names_per_chip() {
        for (name, model, want) in [
            ("vc4-kms-v3d", Model::Pi4, Some("vc4-kms-v3d-pi4")),
            ("vc4-kms-v3d", Model::Pi3b, Some("vc4-kms-v3d")),
            ("vc4-kms-v3d", Model::Pi5, None),
            ("old", Model::Pi5, Some("new")),
            ("disable-bt", Model::Pi4, Some("disable-bt")),
        ] {
            assert_eq!(resolve(&map(), name, model).as_deref(), want, "{name} on {model:?}");
        }
        assert_eq!(resolve(b"no tree", "old", Model::Pi4).as_deref(), Some("old"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0usize..200, value: u8, len in 0usize..250) {
            let mut map = map();
            if let Some(byte) = map.get_mut(at) {
                *byte = value;
            }
            map.truncate(len);
            resolve(&map, "old", Model::Pi4);
        }
    }
}
