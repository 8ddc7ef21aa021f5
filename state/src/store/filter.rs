//! The filter of a file: a blocked Bloom filter over the keys of its rows. One key touches one line of 64 bytes, so one
//! page is asked for and one cache line is read.

use super::Fault;
use gristmill_base::limits::STORE_FILTER_BITS;
use twox_hash::XxHash3_64;

/// Bytes of a line.
const LINE_BYTES: usize = 64;
/// Lines of a page: what fits one block of the device beside the frame.
pub(super) const PAGE_LINES: usize = 63;
/// Bits that a key sets.
const PROBES: u64 = 6;

/// Hash of a key for filters; fixed by the format.
pub(super) fn filter_hash(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

/// The line of a key in a filter of `lines`.
fn line_of(hash: u64, lines: u32) -> usize {
    (((hash >> 32) * u64::from(lines)) >> 32) as usize
}

/// The page that a key's line is in.
pub(super) fn page_of(hash: u64, lines: u32) -> usize {
    line_of(hash, lines) / PAGE_LINES
}

/// How many pages a filter of so many lines has.
pub(super) fn page_count(lines: u32) -> usize {
    (lines as usize).div_ceil(PAGE_LINES)
}

/// Bytes of the body of a page.
pub(super) fn page_bytes(page: usize, lines: u32) -> usize {
    (lines as usize - page * PAGE_LINES).min(PAGE_LINES) * LINE_BYTES
}

/// Place of each bit of a key in its line: byte and mask.
fn bits_of(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let (first, by) = (hash & 0xffff, (hash >> 16) & 0xffff | 1);
    (0..PROBES).map(move |probe| {
        let bit = (first + probe * by) % (8 * LINE_BYTES as u64);
        ((bit / 8) as usize, 1 << (bit % 8))
    })
}

/// Pages of a filter over these hashes, and how many lines it has; none for no keys.
pub(super) fn pages(hashes: &[u64]) -> (u32, Vec<u8>) {
    let lines = (hashes.len() * STORE_FILTER_BITS).div_ceil(8 * LINE_BYTES);
    let mut bytes = vec![0; lines * LINE_BYTES];
    let lines = u32::try_from(lines).expect("a file has a bounded number of rows");
    for hash in hashes {
        let line = &mut bytes[line_of(*hash, lines) * LINE_BYTES..][..LINE_BYTES];
        bits_of(*hash).for_each(|(byte, mask)| line[byte] |= mask);
    }
    (lines, bytes)
}

/// A page as it was read.
#[derive(Debug)]
pub(super) struct FilterPage(Vec<u8>);

impl FilterPage {
    pub(super) fn load(body: Vec<u8>) -> Result<Self, Fault> {
        let allowed = PAGE_LINES * LINE_BYTES;
        if body.is_empty() || body.len() > allowed || !body.len().is_multiple_of(LINE_BYTES) {
            return Err(Fault::Size { found: body.len() as u64, allowed: allowed as u64 });
        }
        Ok(Self(body))
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether a key may be in the file. `self` is the key's page.
    pub(super) fn may_hold(&self, hash: u64, lines: u32) -> bool {
        let at = line_of(hash, lines) % PAGE_LINES * LINE_BYTES;
        let line = &self.0[at.min(self.0.len() - LINE_BYTES)..];
        bits_of(hash).all(|(byte, mask)| line[byte] & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter is read by every later version, so the hash may never change.
    #[test]
    fn golden_hash_and_line() {
        assert_eq!(filter_hash(b""), 0x2d06_8005_38d3_94c2);
        let (lines, bytes) = pages(&[filter_hash(b"grain")]);
        let set: Vec<_> =
            bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, byte)| (at, *byte)).collect();
        assert_eq!((lines, set), (1, GOLDEN_BITS.to_vec()));
    }

    const GOLDEN_BITS: [(usize, u8); 6] = [(3, 8), (8, 1), (12, 32), (53, 16), (58, 2), (62, 64)];

    #[test]
    fn keys_that_are_there_pass_and_few_others_do() {
        let key = |at: u32| at.to_le_bytes();
        let hashes: Vec<u64> = (0..20_000).map(|at| filter_hash(&key(at))).collect();
        let (lines, bytes) = pages(&hashes);
        assert_eq!(lines, 391);
        let bodies = bytes.chunks(PAGE_LINES * LINE_BYTES);
        let loaded: Vec<_> = bodies.map(|body| FilterPage::load(body.to_vec()).unwrap()).collect();
        assert_eq!(loaded.len(), page_count(lines));
        let sizes: Vec<_> = (0..loaded.len()).map(|page| page_bytes(page, lines)).collect();
        assert_eq!(sizes, loaded.iter().map(FilterPage::bytes).collect::<Vec<_>>());
        let passes = |at: u32| {
            let hash = filter_hash(&key(at));
            loaded[page_of(hash, lines)].may_hold(hash, lines)
        };
        assert!((0..20_000).all(passes));
        let false_ones = (20_000..120_000).filter(|at| passes(*at)).count();
        assert!((500..2_000).contains(&false_ones), "{false_ones} of 100,000 absent keys pass");
    }
}
