//! What `update-ca-certificates` does, natively: links to the trusted certificates, links named by
//! the hash of their subjects, and the bundle. Emulated, it takes 20 to 60 s, twice.
//! Must not know: which certificates are trusted; `/etc/ca-certificates.conf` says it.
//! Spec: ca-certificates' `update-ca-certificates`, OpenSSL's `apps/rehash.c` (3.5).

mod subject;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::InstallError;
use super::database::{place, put};
use crate::digest::Digest;
use crate::store::Store;
use crate::tree::{Inode, Kind, Meta, Time, Tree, TreePath};

const CONF: &str = "etc/ca-certificates.conf";
const SHARED: &str = "usr/share/ca-certificates";
const LOCAL: &str = "usr/local/share/ca-certificates";
const CERTS: &str = "etc/ssl/certs";
const BUNDLE: &str = "ca-certificates.crt";

/// Whether other certificates are trusted than in the tree below.
pub(super) fn have_changed(below: &Tree, tree: &Tree) -> Result<bool, InstallError> {
    for place in [CONF, SHARED, LOCAL].map(place) {
        let place = place?;
        let entries =
            |t: &Tree| t.below(&place).map(|(p, _, i)| (p.clone(), i.kind.clone())).collect::<Vec<_>>();
        if entries(below) != entries(tree) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Brings `/etc/ssl/certs` up to date with `/etc/ca-certificates.conf` and the local certificates;
/// does nothing in a tree that lacks that file. What is right already is not touched.
pub(super) fn update(tree: &mut Tree, store: &Store, epoch: i64) -> Result<(), InstallError> {
    let Some(conf) = read(tree, store, &place(CONF)?)? else { return Ok(()) };
    let conf = String::from_utf8_lossy(&conf).into_owned();
    let time = Time::seconds(epoch);
    if tree.get(&place(CERTS)?).is_none() {
        tree.make_parents(&place(CERTS)?, &Meta::root_owned(0o755, time))?;
        tree.insert(place(CERTS)?, Inode::dir(Meta::root_owned(0o755, time)))?;
    }
    for name in conf.lines().filter_map(|line| line.strip_prefix('!')) {
        let path = place(&format!("{CERTS}/{}.pem", stem(name)))?;
        if matches!(tree.get(&path).map(|i| &i.kind), Some(Kind::Symlink(_))) {
            tree.remove(&path);
        }
    }
    let mut bundle = Vec::new();
    for trusted in trusted(tree, &conf)? {
        let Some(bytes) = read(tree, store, &trusted)? else { continue };
        bundle.extend_from_slice(&bytes);
        if bytes.last().is_some_and(|&b| b != b'\n') {
            bundle.push(b'\n');
        }
        let name =
            stem(&String::from_utf8_lossy(trusted.name())).replace([' ', ','], "_").replace(['(', ')'], "=");
        link(tree, &format!("{CERTS}/{name}.pem"), &trusted.to_string(), time)?;
    }
    rehash(tree, store, time)?;
    let path = place(&format!("{CERTS}/{BUNDLE}"))?;
    if read(tree, store, &path)?.as_deref() != Some(&bundle) {
        put(tree, store, &format!("{CERTS}/{BUNDLE}"), &bundle, Meta::root_owned(0o644, time))?;
    }
    Ok(())
}

/// Certificates in the order of the bundle: as the file lists them, then local ones by name.
fn trusted(tree: &Tree, conf: &str) -> Result<Vec<TreePath>, InstallError> {
    let listed = conf.lines().filter(|l| !l.is_empty() && !l.starts_with(['#', '!']));
    let mut found = Vec::new();
    for name in listed {
        found.push(place(&format!("{SHARED}/{name}"))?);
    }
    let local = place(LOCAL)?;
    let mut own: Vec<_> = tree.below(&local).map(|(path, _, _)| path.clone()).collect();
    own.retain(|path| path.as_bytes().ends_with(b".crt"));
    own.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    found.extend(own);
    Ok(found)
}

fn stem(name: &str) -> &str {
    let base = name.rsplit('/').next().unwrap_or(name);
    base.strip_suffix(".crt").unwrap_or(base)
}

/// The bytes of the file that a path leads to.
fn read(tree: &Tree, store: &Store, path: &TreePath) -> Result<Option<Vec<u8>>, InstallError> {
    let end = tree.resolve(path, true);
    let object = end.and_then(|end| tree.get(&end)).and_then(Inode::object);
    Ok(object.map(|object| store.read_object(object)).transpose()?)
}

fn link(tree: &mut Tree, path: &str, target: &str, time: Time) -> Result<(), InstallError> {
    let path = place(path)?;
    let kind = Kind::Symlink(target.as_bytes().into());
    if tree.get(&path).is_none_or(|inode| inode.kind != kind) {
        tree.insert(path, Inode { meta: Meta::root_owned(0o777, time), kind })?;
    }
    Ok(())
}

/// `openssl rehash /etc/ssl/certs`: each certificate of the folder gets a link `HASH.N`, N counting
/// those with one hash in the order of their names; the same certificate twice gets one link.
fn rehash(tree: &mut Tree, store: &Store, time: Time) -> Result<(), InstallError> {
    let dir = place(CERTS)?;
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut stale = BTreeSet::new();
    let entries: Vec<_> = tree.children(&dir).map(|(path, _, _)| path.clone()).collect();
    for path in &entries {
        let name = String::from_utf8_lossy(path.name()).into_owned();
        let linked = matches!(tree.get(path).map(|i| &i.kind), Some(Kind::Symlink(_)));
        let bytes = read(tree, store, path)?;
        if linked && (is_hash(&name) || bytes.is_none()) {
            stale.insert(path.clone());
            continue;
        }
        let ends = |end: &&str| name.to_ascii_lowercase().ends_with(end);
        if ![".pem", ".crt", ".cer"].iter().any(ends) {
            continue;
        }
        // A file with several certificates, such as the bundle, is passed over, as is one with none.
        let Some(der) = bytes.as_deref().and_then(only_certificate) else { continue };
        if seen.insert(Digest::of(&der)) {
            let wrong = |what| InstallError::Certificate { path: path.clone(), what };
            let hash = subject::hash(&der).map_err(wrong)?;
            let count = counts.entry(hash).or_default();
            wanted.insert(format!("{hash:08x}.{count}"), name);
            *count += 1;
        }
    }
    for (name, target) in &wanted {
        let path = format!("{CERTS}/{name}");
        stale.remove(&place(&path)?);
        link(tree, &path, target, time)?;
    }
    for path in stale {
        tree.remove(&path);
    }
    Ok(())
}

fn is_hash(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, count)| {
        hash.len() == 8
            && hash.bytes().all(|b| b.is_ascii_hexdigit())
            && !count.is_empty()
            && count.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The one certificate of a PEM file, as DER.
fn only_certificate(pem: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(pem);
    let mut bodies = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let body = bodies.next()?.split("-----END CERTIFICATE-----").next()?;
    if bodies.next().is_some() {
        return None;
    }
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests;
