//! The hash of a name, by which large directories are sorted: half MD4, bytes taken as unsigned.
//! Must not know: directories.
//! Spec: `ext4fs_dirhash` and `half_md4_transform` in the kernel's fs/ext4/hash.c.
//!
//! The superblock says that bytes are unsigned, as they are on ARM. Without that flag every machine
//! would take its own `char`, and x86 and ARM would not find each other's names.

/// Hash, and the second half that orders names of the same hash.
pub(super) type NameHash = (u32, u32);

/// The filesystem's hash seed in the form that hashing needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashSeed([u32; 4]);

/// MD4's own start values: the kernel takes them when the seed is all zero.
const MD4_START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// Bytes of a name that one transform takes.
const PIECE: usize = 32;
/// A hash that readdir cookies reserve for the end of a directory: EXT4_HTREE_EOF_32BIT doubled.
const END: u32 = 0xffff_fffe;

impl HashSeed {
    /// From the bytes of `s_hash_seed`.
    pub fn new(raw: &[u8; 16]) -> HashSeed {
        if raw == &[0; 16] {
            return HashSeed(MD4_START);
        }
        let mut seed = [0; 4];
        for (word, bytes) in seed.iter_mut().zip(raw.chunks_exact(4)) {
            *word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        HashSeed(seed)
    }

    /// The hash of a name. Its lowest bit is always clear: the index uses it as a flag.
    pub fn hash(&self, name: &[u8]) -> NameHash {
        let mut state = self.0;
        let mut rest = name;
        while !rest.is_empty() {
            half_md4(&mut state, &words(rest));
            rest = rest.get(PIECE..).unwrap_or_default();
        }
        let hash = state[1] & !1;
        (if hash == END { END - 2 } else { hash }, state[2])
    }
}

/// Up to 32 bytes as eight words, filled up with the length of all that is left of the name.
fn words(name: &[u8]) -> [u32; 8] {
    // Names have at most 255 bytes, so the length fits into each of the four bytes.
    let pad = u32::from_le_bytes([(name.len() & 0xff) as u8; 4]);
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(name.chunks(4)) {
        *word = bytes.iter().fold(pad, |word, &byte| (word << 8).wrapping_add(u32::from(byte)));
    }
    words
}

/// Which words each round takes in turn, and by how much the sums are rotated.
type Round = (fn(u32, u32, u32) -> u32, u32, [usize; 8], [u32; 4]);

const ROUNDS: [Round; 3] = [
    (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
    (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
    (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
];

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, turns) in ROUNDS {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(turns[step % 4]), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Given by `debugfs -R "dx_hash -h 4 -s SEED NAME"`, e2fsprogs 1.47.0.
    #[test]
    fn hashes_are_those_of_debugfs() {
        let none = HashSeed::new(&[0; 16]);
        let uuid = *b"\xfd\x2c\x01\x38\x3a\xf7\x49\xd7\xb0\x5c\x28\xe2\x00\xb8\x62\xcc";
        let seeded = HashSeed::new(&uuid);
        let long = [b'x'; 255];
        let table: &[(&HashSeed, &[u8], NameHash)] = &[
            (&none, b"a", (0xd5fa_7d7a, 0xacb4_8187)),
            (&seeded, b"a", (0xab98_d6fc, 0xebe7_0819)),
            (&none, b"lost+found", (0x591d_e422, 0x6ffc_56e0)),
            (&seeded, b"lost+found", (0xd0fb_1c36, 0xd156_77fd)),
            (&none, b"abcdefghijklmnopqrstuvwxyz012345", (0x1964_3b1a, 0xdde3_a0bf)),
            (&seeded, b"abcdefghijklmnopqrstuvwxyz012345", (0xd44e_51b6, 0x1cc0_838b)),
            (&none, b"abcdefghijklmnopqrstuvwxyz0123456", (0x16ed_9a9c, 0x2fb8_454f)),
            (&seeded, b"abcdefghijklmnopqrstuvwxyz0123456", (0xa526_dd50, 0x5567_86fb)),
            (&none, &long, (0x2aa7_169e, 0x655f_9d9c)),
            (&seeded, &long, (0x14ee_fde6, 0xccbb_77a3)),
            (&none, b"caf\xc3\xa9\xff", (0xa924_2368, 0x633e_8c9e)),
            (&seeded, b"caf\xc3\xa9\xff", (0x3c00_4a10, 0xbc64_bedf)),
        ];
        for (seed, name, want) in table {
            assert_eq!(seed.hash(name), *want, "name {:?}", crate::tree::printable(name));
        }
    }

    #[test]
    fn the_lowest_bit_is_free_for_the_index() {
        let seed = HashSeed::new(&[1; 16]);
        assert!((0..2000).all(|n: u32| seed.hash(n.to_string().as_bytes()).0 & 1 == 0));
    }
}
