//! POSIX access control lists: from the form that getxattr(2) gives to the one that ext4 stores.
//! Must not know: inodes, where attributes lie.
//! Spec: `struct posix_acl_xattr_entry` (version 2) in include/uapi/linux/posix_acl_xattr.h and
//! `ext4_acl_entry` (version 1) in fs/ext4/acl.h, which leaves out ids that mean nothing.

/// Version of the first form.
const XATTR_VERSION: [u8; 4] = [2, 0, 0, 0];
/// Version of the second.
const DISK_VERSION: [u8; 4] = [1, 0, 0, 0];

/// Converts a list, or says what is wrong with it.
pub(super) fn to_disk(list: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Some((version, entries)) = list.split_first_chunk::<4>() else {
        return Err("it is shorter than its version number");
    };
    if *version != XATTR_VERSION {
        return Err("its version is not 2");
    }
    if entries.is_empty() || entries.len() % 8 != 0 {
        return Err("its entries are not 8 bytes each");
    }
    let mut disk = DISK_VERSION.to_vec();
    for entry in entries.chunks_exact(8) {
        // Each entry is its tag, permissions and id, in 2, 2 and 4 bytes.
        match u16::from_le_bytes([entry[0], entry[1]]) {
            // The owner, the owning group, the mask, others.
            0x01 | 0x04 | 0x10 | 0x20 => disk.extend_from_slice(&entry[..4]),
            // A named user, a named group.
            0x02 | 0x08 => disk.extend_from_slice(entry),
            _ => return Err("it has an entry of unknown kind"),
        }
    }
    Ok(disk)
}

/// The way back.
pub(super) fn from_disk(list: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Some((version, mut entries)) = list.split_first_chunk::<4>() else {
        return Err("an access control list without a version");
    };
    if *version != DISK_VERSION {
        return Err("an access control list of an unknown version");
    }
    let mut given = XATTR_VERSION.to_vec();
    while let Some((entry, rest)) = entries.split_first_chunk::<4>() {
        given.extend_from_slice(entry);
        entries = match (u16::from_le_bytes([entry[0], entry[1]]), rest.split_first_chunk::<4>()) {
            // The id of those that have none is written as -1: ACL_UNDEFINED_ID.
            (0x01 | 0x04 | 0x10 | 0x20, _) => {
                given.extend_from_slice(&[0xff; 4]);
                rest
            }
            (0x02 | 0x08, Some((id, rest))) => {
                given.extend_from_slice(id);
                rest
            }
            _ => return Err("an access control list with an entry that is none"),
        };
    }
    if entries.is_empty() { Ok(given) } else { Err("an access control list that is cut off") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut list = XATTR_VERSION.to_vec();
        for (tag, perm, id) in entries {
            list.extend(tag.to_le_bytes());
            list.extend(perm.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        list
    }

    #[test]
    fn only_named_users_and_groups_keep_their_ids() {
        let given = list(&[(1, 6, !0), (2, 4, 1000), (4, 4, !0), (8, 7, 70_000), (16, 7, !0), (32, 0, !0)]);
        let disk = to_disk(&given).unwrap();
        assert_eq!(from_disk(&disk).unwrap(), given);
        for cut in 0..disk.len() {
            let _ = from_disk(&disk[..cut]);
        }
        assert_eq!(disk.len(), 4 + 4 * 4 + 2 * 8);
        assert_eq!(&disk[..16], &[1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xe8, 3, 0, 0]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let good = list(&[(1, 6, !0)]);
        for (what, bytes) in [
            ("empty", Vec::new()),
            ("short", good[..3].to_vec()),
            ("no entries", good[..4].to_vec()),
            ("cut", good[..11].to_vec()),
            ("version", [&[1], &good[1..]].concat()),
            ("tag", list(&[(3, 6, 0)])),
        ] {
            assert!(to_disk(&bytes).is_err(), "{what}");
        }
    }
}
