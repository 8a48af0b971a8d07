//! The user that an official image has until its first boot gives it the owner's name: `pi`, number 1000, who
//! cannot log in. The cluster's own users take its place and its number.
//! Must not know: the cluster's users, how else the first boot is switched off.
//! Spec: Raspberry Pi OS's userconf-pi, which renames it; passwd(5), group(5), shadow(5), gshadow(5), subuid(5).

use super::firstboot::SettleError;
use crate::store::Store;
use crate::tree::layer::Layer;
use crate::tree::{Inode, Kind, Tree, TreePath};

const NAME: &str = "pi";
const ID: &str = "1000";

/// Files with a line a user or group, its name first, and which field is a list of users.
const FILES: [(&str, Option<usize>); 6] = [
    ("etc/passwd", None),
    ("etc/shadow", None),
    ("etc/group", Some(3)),
    ("etc/gshadow", Some(3)),
    ("etc/subuid", None),
    ("etc/subgid", None),
];

/// What is the user's alone.
const OWN: [&str; 2] = ["home/pi", "etc/sudoers.d/010_pi-nopasswd"];

/// Takes the user away, unless it can log in: then the image is somebody's own.
pub(super) fn remove(root: &Tree, store: &Store, layer: &mut Layer) -> Result<(), SettleError> {
    let Some((_, passwd)) = text(root, store, "etc/passwd")? else { return Ok(()) };
    let placeholder = passwd.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let shell = fields.get(6).copied().unwrap_or_default();
        fields[0] == NAME
            && fields.get(2) == Some(&ID)
            && (shell.ends_with("/nologin") || shell.ends_with("/false"))
    });
    if !placeholder {
        return Ok(());
    }
    for (file, members) in FILES {
        let Some((inode, old)) = text(root, store, file)? else { continue };
        let new = without(&old, members);
        if new != old {
            let kind = Kind::File(store.put_bytes(new.as_bytes())?);
            layer.insert(TreePath::new(file)?, Inode { meta: inode.meta.clone(), kind })?;
        }
    }
    for path in OWN {
        let path = TreePath::new(path)?;
        if root.get(&path).is_some() {
            layer.remove(path);
        }
    }
    Ok(())
}

fn text<'a>(root: &'a Tree, store: &Store, path: &str) -> Result<Option<(&'a Inode, String)>, SettleError> {
    let Some(inode) = root.get(&TreePath::new(path)?) else { return Ok(None) };
    let Some(object) = inode.object() else { return Ok(None) };
    // A line that is not UTF-8 would be changed by this, so such a file stays as it is.
    Ok(String::from_utf8(store.read_object(object)?).ok().map(|text| (inode, text)))
}

fn without(text: &str, members: Option<usize>) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| line.split(':').next() != Some(NAME)) {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if let Some(list) = members.and_then(|at| fields.get_mut(at)) {
            *list = list.split(',').filter(|member| *member != NAME).collect::<Vec<_>>().join(",");
        }
        out.push_str(&fields.join(":"));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{dir, file, path, tree};
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:,,,:/home/pi:/usr/sbin/nologin\n";

    fn root(store: &Store, passwd: &str) -> Tree {
        let mut root = tree(&[("home/pi/.bashrc", file(b"")), ("home/pip", dir())]);
        for (name, text) in [
            ("etc/passwd", passwd),
            ("etc/group", "adm:x:4:pi,syslog\nsudo:x:27:pi\npi:x:1000:\npip:x:3:pip\n"),
        ] {
            let kind = Kind::File(store.put_bytes(text.as_bytes()).unwrap());
            root.make_parents(&path(name), &Default::default()).unwrap();
            root.insert(path(name), Inode { meta: Default::default(), kind }).unwrap();
        }
        root
    }

    #[test]
    fn the_user_goes_with_its_groups_and_home_unless_it_can_log_in() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::open(scratch.path()).unwrap();
        let mut settled = root(&store, PASSWD);
        let mut layer = Layer::new();
        remove(&settled, &store, &mut layer).unwrap();
        layer.merge_onto(&mut settled).unwrap();
        let read = |name| text(&settled, &store, name).unwrap().unwrap().1;
        assert_eq!(read("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n");
        assert_eq!(read("etc/group"), "adm:x:4:syslog\nsudo:x:27:\npip:x:3:pip\n");
        assert!(settled.get(&path("home/pi")).is_none() && settled.get(&path("home/pip")).is_some());
        for other in [PASSWD.replace("/usr/sbin/nologin", "/bin/bash"), PASSWD.replace("1000", "1001")] {
            let mut layer = Layer::new();
            remove(&root(&store, &other), &store, &mut layer).unwrap();
            assert_eq!((layer.tree().len(), layer.whiteouts().count()), (1, 0));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(pi|:|,|1000|\n|x|/nologin){0,30}") {
            for members in [None, Some(0), Some(3)] {
                let once = without(&text, members);
                prop_assert_eq!(without(&once, members), once);
            }
        }
    }
}
