//! The text and index files that modprobe, udev and systemd read, from what modules say.
//! Must not know: trees, stores, compression.
//! Spec: kmod 34, tools/depmod.c (`output_*`), modules.dep(5). Every file is as depmod writes it,
//! byte for byte, except that `modules.symbols` is sorted: depmod writes it in the order of a hash.

use super::depend::{Dependencies, exporters};
use super::index::{Index, IndexError};
use super::modinfo::{ModInfo, pairs};
use super::packed::{module_name, underscores};

/// One module of a kernel.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its file, from the kernel's module directory, such as `kernel/fs/ext4/ext4.ko.xz`.
    pub file: String,
    /// What it says about itself.
    pub info: ModInfo,
}

/// A file of the module directory: name and bytes.
pub type Output = (&'static str, Vec<u8>);

/// All files that follow from modules in the order of `modules.order`, and from the kernel's lists
/// of what is built in, where there are such lists.
pub fn outputs(
    modules: &[Module],
    dependencies: &Dependencies,
    builtin: Option<&[u8]>,
    builtin_modinfo: Option<&[u8]>,
) -> Result<Vec<Output>, IndexError> {
    let (dep, dep_bin) = deps(modules, dependencies)?;
    let (symbols, symbols_bin) = symbols(modules)?;
    let mut files = vec![
        ("modules.dep", dep),
        ("modules.dep.bin", dep_bin),
        ("modules.alias", aliases(modules)),
        ("modules.alias.bin", aliases_bin(modules)?),
        ("modules.softdep", lines(SOFTDEP, "softdep", modules, |info| &info.softdeps)),
        ("modules.weakdep", lines(WEAKDEP, "weakdep", modules, |info| &info.weakdeps)),
        ("modules.symbols", symbols),
        ("modules.symbols.bin", symbols_bin),
        ("modules.devname", devnames(modules)),
    ];
    if let Some(list) = builtin {
        files.push(("modules.builtin.bin", builtin_bin(list)?));
    }
    if let Some(list) = builtin_modinfo {
        files.push(("modules.builtin.alias.bin", builtin_alias_bin(list)?));
    }
    Ok(files)
}

const SOFTDEP: &str = "# Soft dependencies extracted from modules themselves.\n";
const WEAKDEP: &str = "# Weak dependencies extracted from modules themselves.\n";

fn deps(modules: &[Module], dependencies: &Dependencies) -> Result<(Vec<u8>, Vec<u8>), IndexError> {
    let mut text = String::new();
    let mut index = Index::default();
    for (priority, (module, needs)) in (0..).zip(modules.iter().zip(&dependencies.all)) {
        let mut line = format!("{}:", module.file);
        for &need in needs {
            line.push(' ');
            line.push_str(&modules[need].file);
        }
        index.insert(&module.name, &line, priority)?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok((text.into_bytes(), index.write()?))
}

fn aliases(modules: &[Module]) -> Vec<u8> {
    let mut text = String::from("# Aliases extracted from modules themselves.\n");
    for module in modules {
        for alias in &module.info.aliases {
            text.push_str(&format!("alias {alias} {}\n", module.name));
        }
    }
    text.into_bytes()
}

fn aliases_bin(modules: &[Module]) -> Result<Vec<u8>, IndexError> {
    let mut index = Index::default();
    for (priority, module) in (0..).zip(modules) {
        for alias in module.info.aliases.iter().filter_map(|alias| normalize(alias)) {
            index.insert(&alias, &module.name, priority)?;
        }
    }
    index.write()
}

fn lines(head: &str, word: &str, modules: &[Module], values: impl Fn(&ModInfo) -> &[String]) -> Vec<u8> {
    let mut text = head.to_owned();
    for module in modules {
        for value in values(&module.info) {
            text.push_str(&format!("{word} {} {value}\n", module.name));
        }
    }
    text.into_bytes()
}

fn symbols(modules: &[Module]) -> Result<(Vec<u8>, Vec<u8>), IndexError> {
    let infos: Vec<&ModInfo> = modules.iter().map(|module| &module.info).collect();
    let mut owners: Vec<(&str, usize)> = exporters(&infos).into_iter().collect();
    owners.sort_unstable();
    let mut text = String::from("# Aliases for symbols, used by symbol_request().\n");
    let mut index = Index::default();
    for (symbol, owner) in owners {
        let name = &modules[owner].name;
        text.push_str(&format!("alias symbol:{symbol} {name}\n"));
        // Not more modules than fit 32 bits: each has a file in a tree.
        let priority = u32::try_from(owner).unwrap_or(u32::MAX);
        index.insert(&format!("symbol:{symbol}"), name, priority)?;
    }
    Ok((text.into_bytes(), index.write()?))
}

/// Device nodes that exist before their module is loaded: `loop-control c10:237`.
fn devnames(modules: &[Module]) -> Vec<u8> {
    let mut text = String::new();
    for module in modules {
        let (mut name, mut number) = (None, None);
        for alias in &module.info.aliases {
            if let Some(rest) = alias.strip_prefix("devname:") {
                name = Some(rest);
            } else if let Some(found) = device_number(alias) {
                number = Some(found);
            }
            if name.is_some() && number.is_some() {
                break;
            }
        }
        if let (Some(name), Some((kind, major, minor))) = (name, number) {
            if text.is_empty() {
                text.push_str("# Device nodes to trigger on-demand module loading.\n");
            }
            text.push_str(&format!("{} {name} {kind}{major}:{minor}\n", module.name));
        }
    }
    text.into_bytes()
}

fn device_number(alias: &str) -> Option<(char, u32, u32)> {
    let (kind, rest) = match alias.strip_prefix("char-major-") {
        Some(rest) => ('c', rest),
        None => ('b', alias.strip_prefix("block-major-")?),
    };
    let (major, minor) = rest.split_once('-')?;
    Some((kind, major.parse().ok()?, minor.parse().ok()?))
}

fn builtin_bin(list: &[u8]) -> Result<Vec<u8>, IndexError> {
    let mut index = Index::default();
    for line in list.split(|&b| b == b'\n') {
        let file = line.rsplit(|&b| b == b'/').next().unwrap_or_default();
        if let Some((_, name)) = module_name(file) {
            index.insert(&name, "", 0)?;
        }
    }
    index.write()
}

/// `modules.builtin.modinfo` holds zero-ended `module.key=value`.
fn builtin_alias_bin(list: &[u8]) -> Result<Vec<u8>, IndexError> {
    let mut index = Index::default();
    for (key, value) in pairs(list) {
        let Some(module) = key.strip_suffix(b".alias") else { continue };
        let (Ok(module), Ok(value)) = (std::str::from_utf8(module), std::str::from_utf8(value)) else {
            continue;
        };
        if let Some(alias) = normalize(value) {
            index.insert(&alias, module, 0)?;
        }
    }
    index.write()
}

/// Dashes become underscores, except in character ranges such as `[0-9]`. `None` when a bracket has
/// no partner; depmod leaves such aliases out of the index too.
pub fn normalize(alias: &str) -> Option<String> {
    let mut out = String::with_capacity(alias.len());
    let mut rest = alias;
    while let Some(open) = rest.find(['[', ']']) {
        out.push_str(&underscores(&rest[..open]));
        let range = rest[open..].strip_prefix('[')?;
        let close = range.find(']')?;
        out.push('[');
        out.push_str(&range[..=close]);
        rest = &range[close + 1..];
    }
    out.push_str(&underscores(rest));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, aliases: &[&str]) -> Module {
        let info = ModInfo {
            aliases: aliases.iter().map(|&a| a.to_owned()).collect(),
            softdeps: vec!["pre: crc".into()],
            exports: vec![format!("{name}_z"), format!("{name}_a")],
            ..ModInfo::default()
        };
        Module { name: name.into(), file: format!("kernel/{name}.ko.xz"), info }
    }

    fn written(modules: &[Module], all: Vec<Vec<usize>>) -> std::collections::HashMap<&'static str, String> {
        let files = outputs(modules, &Dependencies { all }, Some(b"kernel/a-b.ko\nx\n"), None).unwrap();
        files.into_iter().map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes).into_owned())).collect()
    }

    #[test]
    fn texts_are_as_depmod_writes_them() {
        let modules = [
            module("loop", &["devname:loop-control", "char-major-10-237", "block-major-7-*"]),
            module("b", &[]),
        ];
        let files = written(&modules, vec![vec![], vec![0]]);
        assert_eq!(files["modules.dep"], "kernel/loop.ko.xz:\nkernel/b.ko.xz: kernel/loop.ko.xz\n");
        assert_eq!(
            files["modules.alias"],
            "# Aliases extracted from modules themselves.\nalias devname:loop-control loop\n\
             alias char-major-10-237 loop\nalias block-major-7-* loop\n"
        );
        assert_eq!(
            files["modules.softdep"],
            "# Soft dependencies extracted from modules themselves.\nsoftdep loop pre: crc\nsoftdep b pre: crc\n"
        );
        assert_eq!(files["modules.weakdep"], WEAKDEP);
        assert_eq!(
            files["modules.symbols"],
            "# Aliases for symbols, used by symbol_request().\nalias symbol:b_a b\nalias symbol:b_z b\n\
             alias symbol:loop_a loop\nalias symbol:loop_z loop\n"
        );
        assert_eq!(
            files["modules.devname"],
            "# Device nodes to trigger on-demand module loading.\nloop loop-control c10:237\n"
        );
        assert!(
            files.contains_key("modules.builtin.bin") && !files.contains_key("modules.builtin.alias.bin")
        );
    }

    #[test]
    fn without_device_nodes_the_list_is_empty() {
        let files =
            written(&[module("a", &["devname:x"]), module("b", &["char-major-1-2"])], vec![vec![]; 2]);
        assert_eq!(files["modules.devname"], "");
    }

    #[test]
    fn dashes_stay_only_in_ranges() {
        for (given, want) in [
            ("crypto-crc32c", Some("crypto_crc32c")),
            ("usb:v0-1[0-9]-[a-f]*", Some("usb:v0_1[0-9]_[a-f]*")),
            ("a[b", None),
            ("a]b", None),
            ("[a[-]]", None),
            ("", Some("")),
        ] {
            assert_eq!(normalize(given).as_deref(), want, "given {given}");
        }
    }
}
