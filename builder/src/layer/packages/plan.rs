//! What the sandbox has to do for a set of packages: jobs in order, triggers, programs to replace.
//! Must not know: how scripts are run, namespaces.
//! Spec: design.md section 6; the reasons for each replaced program are beside it.

use std::collections::{BTreeMap, BTreeSet};

use super::database::{self, Installed};
use super::sandbox::spec::{Job, Program, Spec, Stub};
use super::sandbox::stub::can_record;
use super::triggers::{Declared, Interests};
use super::unpack::Package;
use super::{Install, InstallError, Upgrades, units};
use crate::tree::{Inode, Tree, TreePath};

/// Programs that are replaced while scripts run.
const STUBS: [(&str, Program); 13] = [
    // Its four operations act on an upgrade from an older version only, and but for some imported roots there
    // is none here; 60 calls at 50 ms.
    (HELPER, Program::Exit(0)),
    // Services are not started here. 101 is `forbidden by policy`: Debian's policy-rc.d(8).
    (CREATED, Program::Exit(101)),
    ("usr/sbin/invoke-rc.d", Program::Exit(0)),
    ("usr/sbin/start-stop-daemon", Program::Exit(0)),
    // gt-image makes its own initramfs and its own modules.dep.
    ("usr/sbin/update-initramfs", Program::Exit(0)),
    ("usr/sbin/depmod", Program::Exit(0)),
    // Every node gets host keys of its own; those of a build would be thrown away.
    ("usr/bin/ssh-keygen", Program::Exit(0)),
    // Done natively at the end: `certificates`.
    (UPDATE_CA, Program::Exit(0)),
    // Its cache would be thrown away, and an image with manual pages has a minute's worth of them.
    ("usr/bin/mandb", Program::Exit(0)),
    // Asks the kernel of the building machine; nothing it finds may enter the tree.
    ("usr/sbin/sysctl", Program::Exit(0)),
    // Perl and its modules, 70 times for a base: a third of all processor time. Done natively at the
    // end: `units`.
    ("usr/bin/deb-systemd-helper", Program::Record),
    ("usr/sbin/update-rc.d", Program::Record),
    // A sixth of all processor time. Done natively at the end: `hwdb`.
    ("usr/bin/systemd-hwdb", Program::Record),
];

/// Folders that are out of sight while a package is configured for the first time. Seeing its
/// certificates, ca-certificates looks for each of them in two empty lists, with two processes each:
/// a fifth of a base's processor time. Without them it takes the list of its own maker, which is the
/// same.
const HIDDEN: [(&str, &str); 1] = [("ca-certificates", "usr/share/ca-certificates")];

const HELPER: &str = "usr/bin/dpkg-maintscript-helper";
/// Programs that an upgrade needs as they are.
const UPGRADE_NEEDS: [&str; 3] = [HELPER, "usr/bin/deb-systemd-helper", "usr/sbin/update-rc.d"];
pub(super) const UPDATE_CA: &str = "usr/sbin/update-ca-certificates";

/// The one program among them that scripts call when it exists, and that no package has.
const CREATED: &str = "usr/sbin/policy-rc.d";

/// Everything for the sandbox. `tree` has all files already.
pub(super) fn plan(
    request: &Install,
    tree: &Tree,
    packages: &[&Package],
    installed: &[Installed],
    upgrades: &Upgrades,
) -> Result<Spec, InstallError> {
    let mut jobs = Vec::new();
    let mut interests = Interests::default();
    let stays = |package: &&Installed| package.is_there && !upgrades.contains_key(&package.qualified);
    for package in installed.iter().filter(stays) {
        let bytes = database::info(tree, request.store, &package.qualified, "triggers")?;
        let declared = Declared::read(&bytes.unwrap_or_default());
        if !declared.interests.is_empty() {
            interests.add(&package.qualified, &declared);
            let script = format!("{}/info/{}.postinst", database::ADMIN, package.qualified);
            jobs.push(Job {
                name: package.name.clone(),
                qualified: package.qualified.clone(),
                architecture: package.architecture.clone(),
                postinst: tree.get(&database::place(&script)?).is_some(),
                installed: true,
                ..Job::default()
            });
        }
    }
    // New files wake only packages that are configured already, so only those below.
    let activated = activated(packages, &interests);
    let first_new = jobs.len();
    for package in packages {
        interests.add(&package.qualified(), &Declared::of(package));
        jobs.push(job(package, upgrades));
    }
    Ok(Spec {
        store: request.store.root().into(),
        environment: environment(request.epoch),
        stubs: stubs(tree, upgrades),
        emulate: emulate(request.architecture),
        status: status(request, packages, installed, upgrades, first_new)?,
        interests: interests.into_map(),
        activated,
        jobs,
    })
}

fn job(package: &Package, upgrades: &Upgrades) -> Job {
    let upgrade = upgrades.values().find(|upgrade| upgrade.qualified == package.qualified());
    let hidden = HIDDEN.iter().find(|(name, _)| *name == package.name && upgrade.is_none());
    Job {
        version: package.fields.get("Version").unwrap_or_default().to_owned(),
        replaced: upgrade.map(|upgrade| upgrade.replaced.clone()),
        name: package.name.clone(),
        qualified: package.qualified(),
        architecture: package.architecture.clone(),
        preinst: package.control_file("preinst").is_some(),
        postinst: package.control_file("postinst").is_some(),
        activates: Declared::of(package).activates,
        installed: false,
        hidden: hidden.map(|(_, dir)| (*dir).to_owned()),
        control: String::from_utf8_lossy(package.control_file("control").unwrap_or_default()).into_owned(),
    }
}

fn activated(packages: &[&Package], interests: &Interests) -> Vec<String> {
    let mut found = BTreeSet::new();
    for package in packages {
        found.extend(Declared::of(package).activates);
        for (path, _, inode) in package.data.tree().iter() {
            if !inode.is_dir() {
                found.extend(interests.on_path(&path.to_string()).map(str::to_owned));
            }
        }
    }
    found.into_iter().collect()
}

/// Paragraphs sorted by name, as `dpkg --get-selections` shows them.
fn status(
    request: &Install,
    packages: &[&Package],
    installed: &[Installed],
    upgrades: &Upgrades,
    first_new: usize,
) -> Result<Vec<(Option<usize>, String)>, InstallError> {
    let mut all: BTreeMap<(&str, &str), (Option<usize>, String)> = BTreeMap::new();
    for package in installed.iter().filter(|package| !upgrades.contains_key(&package.qualified)) {
        all.insert((&package.name, &package.architecture), (None, package.fields.to_string()));
    }
    for (at, package) in packages.iter().enumerate() {
        let text = database::paragraph(package, request.store)?.to_string();
        all.insert((&package.name, &package.architecture), (Some(first_new + at), text));
    }
    Ok(all.into_values().collect())
}

fn stubs(tree: &Tree, upgrades: &Upgrades) -> Vec<Stub> {
    let mut found = Vec::new();
    // An upgrade asks what its older version left: which units its maker had off, for example.
    let stubbed = |(path, _): &(&str, Program)| upgrades.is_empty() || !UPGRADE_NEEDS.contains(path);
    for (path, program) in STUBS.into_iter().filter(stubbed) {
        let ours = match program {
            Program::Record => can_record() && units::are_ours(tree),
            Program::Exit(_) => path != UPDATE_CA || certificates_are_ours(tree),
        };
        if !ours {
            continue;
        }
        let target = TreePath::new(path).ok().and_then(|path| tree.resolve(&path, true));
        let Some(target) = target else { continue };
        let exists = tree.get(&target).is_some_and(|inode| inode.object().is_some());
        let parent = target.parent().and_then(|p| tree.get(&p)).is_some_and(Inode::is_dir);
        if exists || (path == CREATED && parent) {
            let path = String::from_utf8_lossy(target.as_bytes()).into_owned();
            found.push(Stub { path, program, create: !exists });
        }
    }
    found
}

/// True when no package wants to be told of new certificates: then nothing but links and the bundle
/// comes of an update.
pub(super) fn certificates_are_ours(tree: &Tree) -> bool {
    let dir = TreePath::new("etc/ca-certificates/update.d").unwrap_or_default();
    tree.children(&dir).next().is_none()
}

/// Debian's name of the architecture when this machine's processor is another.
fn emulate(architecture: &str) -> Option<String> {
    let own = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "x86_64" => "amd64",
        "arm" => "armhf",
        other => other,
    };
    (architecture != own && architecture != "all").then(|| architecture.to_owned())
}

fn environment(epoch: i64) -> BTreeMap<String, String> {
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("TERM", "dumb"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("SOURCE_DATE_EPOCH", &epoch.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}
