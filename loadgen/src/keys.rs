//! Keys and values of one connection, made from numbers, so that they need not be kept.

use gristmill_base::ids::SlotId;

/// Bytes of a key: hexadecimal digits, so that it is text as well.
pub(crate) const KEY_BYTES: usize = 16;
/// Bytes at the start of a value that say who wrote it, and as which of its operations.
pub(crate) const STAMP_BYTES: usize = 16;

/// The keys of one connection, all of the shard that it is connected to.
#[derive(Debug)]
pub(crate) struct Keys {
    base: u64,
    /// What makes the key different from its neighbours, and its slot.
    numbers: Vec<(u32, SlotId)>,
}

impl Keys {
    /// Takes the first `count` keys that `slot_here` gives a slot for.
    pub(crate) fn new(seed: u64, connection: usize, count: usize, slot_here: impl Fn(&[u8]) -> Option<SlotId>) -> Self {
        // 16 bits of seed, 16 of connection, 32 of number.
        let base = (mix(seed) & 0xffff) << 48 | (connection as u64 & 0xffff) << 32;
        let with_slot = |number: u32| slot_here(&digits(base | u64::from(number))).map(|slot| (number, slot));
        Self { base, numbers: (0..u32::MAX).filter_map(with_slot).take(count.max(1)).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn key(&self, at: usize) -> [u8; KEY_BYTES] {
        digits(self.base | u64::from(self.numbers[at].0))
    }

    pub(crate) fn slot(&self, at: usize) -> SlotId {
        self.numbers[at].1
    }
}

fn digits(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    for (at, digit) in key.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize];
    }
    key
}

/// Spreads a number over all bits (the finaliser of splitmix64, public domain).
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `value` with the value that writer `tag` writes as its operation `stamp`.
pub(crate) fn fill(value: &mut [u8], tag: u64, stamp: u64) {
    let mut word = mix(tag ^ stamp << 32);
    let (head, rest) = value.split_at_mut(STAMP_BYTES.min(value.len()));
    let mut stamped = [0; STAMP_BYTES];
    stamped[..8].copy_from_slice(&tag.to_le_bytes());
    stamped[8..].copy_from_slice(&stamp.to_le_bytes());
    head.copy_from_slice(&stamped[..head.len()]);
    for piece in rest.chunks_mut(8) {
        piece.copy_from_slice(&word.to_le_bytes()[..piece.len()]);
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
}

/// Writer and operation of a value, if it is whole.
pub(crate) fn stamp_of(value: &[u8], size: usize) -> Option<(u64, u64)> {
    let (tag, rest) = value.split_first_chunk::<8>()?;
    let (stamp, _) = rest.split_first_chunk::<8>()?;
    let (tag, stamp) = (u64::from_le_bytes(*tag), u64::from_le_bytes(*stamp));
    let mut expected = vec![0; size];
    fill(&mut expected, tag, stamp);
    (expected == value).then_some((tag, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_who_wrote_them_and_no_bit_is_free() {
        for size in [16, 17, 24, 100] {
            let mut value = vec![0; size];
            fill(&mut value, 7, 9);
            assert_eq!(stamp_of(&value, size), Some((7, 9)));
            assert_eq!(stamp_of(&value[..size - 1], size), None);
            for bit in 0..size * 8 {
                let mut changed = value.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(stamp_of(&changed, size), Some((7, 9)));
            }
        }
    }

    #[test]
    fn keys_are_text_and_differ() {
        let keys = Keys::new(1, 2, 100, |key| (key[15] % 2 == 0).then_some(SlotId(1)));
        let mut all: Vec<_> = (0..keys.len()).map(|at| keys.key(at)).collect();
        assert!(all.iter().all(|key| key.is_ascii() && key[15] % 2 == 0));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 100);
        assert_ne!(Keys::new(1, 3, 1, |_| Some(SlotId(0))).key(0), Keys::new(1, 2, 1, |_| Some(SlotId(0))).key(0));
        assert_ne!(Keys::new(2, 3, 1, |_| Some(SlotId(0))).key(0), Keys::new(1, 3, 1, |_| Some(SlotId(0))).key(0));
    }
}
