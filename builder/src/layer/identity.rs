//! What makes a node itself: ids that follow from its name, secrets that follow from the cluster key.
//! Must not know: trees, disks, how either gets to the node.
//! Spec: design.md section 7; RFC 5869 (HKDF), RFC 9562 section 5.8 (UUID version 8), RFC 8709
//! (Ed25519 in SSH), OpenSSH's PROTOCOL.key (private key file), machine-id(5).

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as BASE64_UNPADDED};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;

use crate::digest::Key;
use crate::io::atomic;

/// The one secret of a cluster, 32 bytes. All secrets of its nodes that must be stable and need no
/// outside authority are derived from it.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

/// The cluster key could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read or made.
    #[error("{doing} the cluster key `{}`", path.display())]
    Io {
        /// A gerund.
        doing: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no key.
    #[error("the cluster key `{}` must be 64 hex digits", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// Others can read the key.
    #[error("the cluster key `{}` can be read by others: mode {mode:04o}", path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl ClusterKey {
    /// Reads the key, or makes one when the file does not exist. The second value says that it was
    /// made now, so that its owner can be told to back it up.
    pub fn load_or_make(path: &Path) -> Result<(ClusterKey, bool), KeyError> {
        match ClusterKey::load(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                ClusterKey::make(path)
            }
            loaded => Ok((loaded?, false)),
        }
    }

    /// Reads the key.
    pub fn load(path: &Path) -> Result<ClusterKey, KeyError> {
        use std::os::unix::fs::PermissionsExt;
        let io = |source| KeyError::Io { doing: "reading", path: path.into(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.into(), mode });
        }
        // A digest has the same text form as a key: 64 hex digits.
        let key = text.trim().parse::<crate::digest::Digest>();
        let key = key.map_err(|_| KeyError::Malformed { path: path.into() })?;
        Ok(ClusterKey(*key.bytes()))
    }

    fn make(path: &Path) -> Result<(ClusterKey, bool), KeyError> {
        use std::os::unix::fs::PermissionsExt;
        let io = |source| KeyError::Io { doing: "making", path: path.into(), source };
        let mut raw = [0; 32];
        let mut random = std::fs::File::open("/dev/urandom").map_err(io)?;
        io::Read::read_exact(&mut random, &mut raw).map_err(io)?;
        let mut file = atomic::begin(path).map_err(io)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        io::Write::write_all(&mut file, format!("{}\n", hex(&raw)).as_bytes()).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok((ClusterKey(raw), true)),
            // Another build was quicker: there is one key.
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => ClusterKey::load_or_make(path),
            Err(e) => Err(io(e.error)),
        }
    }

    /// `len` bytes that follow from the key and `purpose`: HKDF-SHA-256 with the salt
    /// `gt-image 1` and the purpose's fields, each ended by a zero byte, as info.
    ///
    /// At most 8,160 bytes, which is HKDF's limit; longer requests are cut to it.
    pub fn derive(&self, purpose: &[&str], len: usize) -> Vec<u8> {
        let mut info = Vec::new();
        for field in purpose {
            info.extend_from_slice(field.as_bytes());
            info.push(0);
        }
        let mut out = vec![0; len.min(255 * 32)];
        // HKDF refuses only more than 255 blocks of 32 bytes, which the line above rules out.
        let _ = Hkdf::<Sha256>::new(Some(b"gt-image 1"), &self.0).expand(&info, &mut out);
        out
    }

    /// A node's machine-id: 32 hex digits, in the form of a random UUID, as systemd makes them.
    pub fn machine_id(&self, node: &str) -> String {
        let mut id = [0; 16];
        id.copy_from_slice(&self.derive(&["machine-id", node], 16));
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        hex(&id)
    }

    /// A node's SSH host key.
    pub fn ssh_host_key(&self, node: &str) -> SshKey {
        let mut seed = [0; 32];
        seed.copy_from_slice(&self.derive(&["ssh-host-key", "ed25519", node], 32));
        SshKey { key: SigningKey::from_bytes(&seed) }
    }
}

/// Never shows the key.
impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// An Ed25519 key of an SSH server.
pub struct SshKey {
    key: SigningKey,
}

impl SshKey {
    /// The public half as it stands in `known_hosts` and `.pub` files: type and base64.
    pub fn public(&self) -> String {
        format!("ssh-ed25519 {}", BASE64.encode(self.public_blob()))
    }

    /// The private key file, unencrypted, as `ssh-keygen` would write it but with check numbers
    /// that follow from the key.
    pub fn private(&self, comment: &str) -> String {
        let public = self.key.verifying_key().to_bytes();
        let check = &public[..4];
        let mut private = [check, check].concat();
        string(&mut private, b"ssh-ed25519");
        string(&mut private, &public);
        string(&mut private, &[self.key.to_bytes(), public].concat());
        string(&mut private, comment.as_bytes());
        // Padded with 1, 2, 3… to the cipher's block size, 8 for none.
        for byte in (1..=7u8).take((8 - private.len() % 8) % 8) {
            private.push(byte);
        }
        let mut blob = b"openssh-key-v1\0".to_vec();
        string(&mut blob, b"none");
        string(&mut blob, b"none");
        string(&mut blob, b"");
        blob.extend_from_slice(&1u32.to_be_bytes());
        string(&mut blob, &self.public_blob());
        string(&mut blob, &private);
        let mut text = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
        let encoded = BASE64.encode(blob);
        for line in encoded.as_bytes().chunks(70) {
            text.extend(line.iter().map(|&b| char::from(b)));
            text.push('\n');
        }
        text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
        text
    }

    /// What `ssh-keygen -l` shows: `SHA256:` and base64 without padding.
    pub fn fingerprint(&self) -> String {
        let digest = crate::digest::Digest::of(&self.public_blob());
        format!("SHA256:{}", BASE64_UNPADDED.encode(digest.bytes()))
    }

    fn public_blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        string(&mut blob, b"ssh-ed25519");
        string(&mut blob, &self.key.verifying_key().to_bytes());
        blob
    }
}

/// SSH's string: length in four bytes, then the bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    // All strings here are far below 4 GiB.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A UUID that follows from names alone, for disks, partitions and filesystems: version 8.
pub fn uuid(cluster: &str, node: &str, purpose: &str) -> [u8; 16] {
    let digest =
        Key::new("uuid 1").with(cluster.as_bytes()).with(node.as_bytes()).with(purpose.as_bytes()).finish();
    let mut id = [0; 16];
    id.copy_from_slice(&digest.bytes()[..16]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

/// A 32-bit number that follows from names alone, never 0: FAT serials, MBR disk ids.
pub fn serial(cluster: &str, node: &str, purpose: &str) -> u32 {
    let id = uuid(cluster, node, purpose);
    u32::from_be_bytes([id[0], id[1], id[2], id[3]]).max(1)
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key() -> ClusterKey {
        ClusterKey([7; 32])
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets/cluster.key");
        let (made, new) = ClusterKey::load_or_make(&path).unwrap();
        assert!(new);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let (read, new) = ClusterKey::load_or_make(&path).unwrap();
        assert!(!new && read.0 == made.0);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ClusterKey::load_or_make(&path), Err(KeyError::Exposed { mode: 0o644, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(ClusterKey::load_or_make(&path), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn derived_values_are_stable_and_apart() {
        let id = key().machine_id("fenn");
        assert_eq!(id, key().machine_id("fenn"));
        assert_ne!(id, key().machine_id("jast"));
        assert!(id.len() == 32 && &id[12..13] == "4");
        assert_ne!(key().derive(&["ab", "c"], 8), key().derive(&["a", "bc"], 8));
        assert_eq!(key().derive(&["x"], 100_000).len(), 8160);
        assert!(!format!("{:?}", key()).contains('7'));
    }

    #[test]
    fn ids_follow_from_names_alone() {
        let id = uuid("goldentooth", "fenn", "rootfs");
        assert_eq!(id, uuid("goldentooth", "fenn", "rootfs"));
        assert_ne!(id, uuid("goldentooth", "fenn", "bootfs"));
        assert_eq!((id[6] >> 4, id[8] >> 6), (8, 2));
        assert_ne!(serial("g", "a", "x"), serial("g", "b", "x"));
    }

    #[test]
    fn openssh_reads_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = key().ssh_host_key("fenn");
        std::fs::write(&path, key.private("root@fenn")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let run = |args: &[&str]| {
            let out = std::process::Command::new("ssh-keygen").args(args).arg(&path).output();
            String::from_utf8(out.expect("ssh-keygen is part of openssh-client").stdout).unwrap()
        };
        assert_eq!(run(&["-y", "-f"]).trim(), format!("{} root@fenn", key.public()));
        assert!(run(&["-l", "-f"]).contains(&key.fingerprint()));
    }
}
