//! A hash index that costs one line of memory per look: from a hash to numbers whose keys lie elsewhere.
//!
//! A line holds up to twelve numbers and a tag of 8 bits of each one's hash. A number whose line is full goes to the next
//! one, and its own line says so. Buckets of a cache line are those of Manegold, Boncz and Kersten's hash joins; the tags
//! those of Google's SwissTable.

use gristmill_io::prefetch::prefetch;

/// Numbers in a line: with their tags, and what the line knows of itself, 64 bytes.
const ENTRIES: usize = 12;
/// Numbers per line, on average, at which the index grows: then about one line in twelve is full.
const GROW_AT: usize = 8;

/// One line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line {
    /// Of the numbers in the same places; those from `used` on mean nothing.
    tags: [u8; ENTRIES],
    used: u8,
    /// Whether a number of this line, or of one before it, once went on to the next.
    passed_on: bool,
    numbers: [u32; ENTRIES],
}

const _: () = assert!(size_of::<Line>() == 64, "a look costs one line");
const EMPTY: Line = Line { tags: [0; ENTRIES], used: 0, passed_on: false, numbers: [0; ENTRIES] };

/// See the module. The caller hashes, and knows the key of each number.
#[derive(Debug, Default)]
pub struct LineIndex {
    /// None, or a power of two of them.
    lines: Vec<Line>,
    len: usize,
    /// Removals since the lines were made: a line that passed on goes on saying so.
    removed: usize,
}

impl Line {
    /// A bit for each place whose tag is this one, and for few others.
    #[inline]
    fn matches(&self, tag: u8) -> u32 {
        let (low, high) = self.tags.split_first_chunk::<8>().expect("a line has more than eight tags");
        let high = [high[0], high[1], high[2], high[3], 0, 0, 0, 0];
        let bits = equal_bytes(u64::from_le_bytes(*low), tag) | equal_bytes(u64::from_le_bytes(high), tag) << 8;
        bits & ((1 << self.used) - 1)
    }

    fn push(&mut self, tag: u8, number: u32) {
        let at = usize::from(self.used);
        (self.tags[at], self.numbers[at]) = (tag, number);
        self.used += 1;
    }
}

impl LineIndex {
    /// The line where a hash belongs; there is at least one.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.lines.len() - 1)
    }

    /// Its memory, bytes.
    pub fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    /// Asks the processor for the line of a hash.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if !self.lines.is_empty() {
            prefetch(&self.lines[self.home(hash)]);
        }
    }

    /// The number with that hash for which `is` holds.
    #[inline]
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.lines.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        // Not all lines are full, so one does not pass on, unless all do: then each is looked at once.
        for _ in 0..self.lines.len() {
            let line = &self.lines[at];
            let mut bits = line.matches(tag(hash));
            while bits != 0 {
                let number = line.numbers[bits.trailing_zeros() as usize];
                if is(number) {
                    return Some(number);
                }
                bits &= bits - 1;
            }
            if !line.passed_on {
                return None;
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
        None
    }

    /// Puts in a number that is not there. `hash_of` says the hash of any number that is.
    pub fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        if self.len >= self.lines.len() * GROW_AT {
            let lines = (self.lines.len() * 2).max(1);
            self.rebuild(lines, hash_of);
        } else if self.removed > self.lines.len() * ENTRIES {
            // Half as many if they were half empty even then.
            let is_empty_enough = self.len < self.lines.len() * GROW_AT / 4;
            self.rebuild(if is_empty_enough { self.lines.len() / 2 } else { self.lines.len() }.max(1), hash_of);
        }
        self.put(hash, number);
        self.len += 1;
    }

    /// There is room.
    fn put(&mut self, hash: u64, number: u32) {
        let mut at = self.home(hash);
        while usize::from(self.lines[at].used) == ENTRIES {
            self.lines[at].passed_on = true;
            at = (at + 1) & (self.lines.len() - 1);
        }
        self.lines[at].push(tag(hash), number);
    }

    fn rebuild(&mut self, lines: usize, hash_of: impl Fn(u32) -> u64) {
        let old = std::mem::replace(&mut self.lines, vec![EMPTY; lines]);
        self.removed = 0;
        for line in old {
            for number in &line.numbers[..usize::from(line.used)] {
                self.put(hash_of(*number), *number);
            }
        }
    }

    /// Takes out a number.
    ///
    /// # Panics
    /// It is not there.
    pub fn remove(&mut self, hash: u64, number: u32) {
        let mut at = self.home(hash);
        for _ in 0..self.lines.len() {
            let line = &mut self.lines[at];
            let last = usize::from(line.used);
            if let Some(found) = line.numbers[..last].iter().position(|known| *known == number) {
                line.numbers[found] = line.numbers[last - 1];
                line.tags[found] = line.tags[last - 1];
                line.used -= 1;
                self.len -= 1;
                self.removed += 1;
                return;
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
        panic!("number {number} is not in the index");
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All numbers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.lines.iter().flat_map(|line| line.numbers[..usize::from(line.used)].iter().copied())
    }
}

/// A bit for each byte of `word` that is `byte`; a byte above one that is may be taken for it too. The test for zero bytes
/// is that of Warren, Hacker's Delight, 6-1; the product gathers the bits.
#[inline]
fn equal_bytes(word: u64, byte: u8) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let differing = word ^ u64::from(byte).wrapping_mul(ONES);
    let equal = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
    ((equal >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// The upper bits; the lower ones choose the line.
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Spreads little, so that lines run over.
    fn poor(number: u32) -> u64 {
        u64::from(number % 61) << 56 | u64::from(number % 7)
    }

    fn good(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
    }

    #[test]
    fn it_holds_what_a_set_holds() {
        for hash in [poor, good] {
            let (mut index, mut set) = (LineIndex::default(), BTreeSet::new());
            let mut random = 1_u32;
            for step in 0..60_000_u32 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let number = (random >> 8) % if step < 30_000 { 900 } else { 90 };
                let found = index.find(hash(number), |other| other == number);
                assert_eq!(found.is_some(), set.contains(&number), "step {step}");
                if found.is_none() {
                    index.insert(hash(number), number, hash);
                    set.insert(number);
                } else if random & 1 == 0 {
                    index.remove(hash(number), number);
                    set.remove(&number);
                }
                assert_eq!(index.len(), set.len());
            }
            assert_eq!(index.iter().collect::<BTreeSet<_>>(), set);
            assert!(index.lines.len() <= 256, "{} lines", index.lines.len());
        }
    }

    #[test]
    fn equal_bytes_are_found_wherever_they_stand() {
        for at in 0..8 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = [byte ^ 0x55; 8];
                bytes[at] = byte;
                let found = equal_bytes(u64::from_le_bytes(bytes), byte);
                assert_eq!(found.trailing_zeros() as usize, at, "{byte:#x}");
            }
        }
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        let index = LineIndex::default();
        index.prefetch(5);
        assert_eq!((index.find(5, |_| true), index.len(), index.iter().count()), (None, 0, 0));
    }

    #[test]
    fn numbers_of_one_hash_are_told_apart_by_their_keys() {
        let mut index = LineIndex::default();
        for number in 0..40 {
            index.insert(9, number, |_| 9);
        }
        for number in 0..40 {
            assert_eq!(index.find(9, |other| other == number), Some(number));
        }
        assert_eq!(index.find(9, |_| false), None);
        assert_eq!(index.find(9 | 1 << 56, |_| true), None);
    }
}
