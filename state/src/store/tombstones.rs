//! Range tombstones: half-open ranges of keys, each with the ssn below which it kills. Pieces do not overlap; where
//! several were put over one another, each piece has the highest ssn.

use super::{Fault, KeyRange};
use gristmill_base::codec::{Put, Reader};
use gristmill_base::ids::Ssn;
use gristmill_base::limits::STORE_KEY_BYTES_MAX;
use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Included, Unbounded};

/// Kills all rows in a range that an earlier record wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// The keys.
    pub range: KeyRange,
    /// The record that deleted them.
    pub ssn: Ssn,
}

/// Behind the last key of a piece, and its ssn.
type Piece = (Vec<u8>, Ssn);

/// See the module. Ranges of one set are of slots whose ssns are never compared with another's: keys begin with the slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// By first key: behind the last key, and the ssn. Invariant: pieces are not empty and do not overlap.
    pieces: BTreeMap<Vec<u8>, Piece>,
    /// Bytes of the keys.
    bytes: usize,
}

impl Tombstones {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many pieces there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pieces.len()
    }

    /// Bytes of their keys, of which each piece has two.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All pieces, ascending.
    pub fn iter(&self) -> impl Iterator<Item = RangeTombstone> {
        self.pieces.iter().map(|(from, (to, ssn))| {
            let range = KeyRange { from: from.clone(), to: to.clone() };
            RangeTombstone { range, ssn: *ssn }
        })
    }

    /// The piece that a key lies in: its first key, what is behind its last, and its ssn.
    #[must_use]
    pub fn piece_over(&self, key: &[u8]) -> Option<(&[u8], &[u8], Ssn)> {
        let (from, (to, ssn)) = self.pieces_in(Unbounded, Included(key)).next_back()?;
        (key < &**to).then_some((&**from, &**to, *ssn))
    }

    /// Whether they kill a row.
    #[must_use]
    pub fn kill(&self, key: &[u8], ssn: Ssn) -> bool {
        self.ssn_over(key) > ssn
    }

    /// The ssn below which rows of that key are dead; 0 where none is.
    #[must_use]
    pub fn ssn_over(&self, key: &[u8]) -> Ssn {
        self.piece_over(key).map_or(Ssn(0), |(_, _, ssn)| ssn)
    }

    fn pieces_in(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Piece)> {
        self.pieces.range::<[u8], _>((from, to))
    }

    fn put(&mut self, from: Vec<u8>, to: Vec<u8>, ssn: Ssn) {
        if from < to {
            self.bytes += from.len() + to.len();
            self.pieces.insert(from, (to, ssn));
        }
    }

    fn take(&mut self, from: &[u8]) -> Option<(Vec<u8>, Piece)> {
        let (from, piece) = self.pieces.remove_entry(from)?;
        self.bytes -= from.len() + piece.0.len();
        Some((from, piece))
    }

    /// Cuts the piece over `key`, if there is one, in two that meet there.
    fn cut(&mut self, key: &[u8]) {
        let over = self.pieces_in(Unbounded, Excluded(key)).next_back();
        let Some(from) = over.filter(|(_, (to, _))| key < &**to).map(|(from, _)| from.clone()) else { return };
        let (from, (to, ssn)) = self.take(&from).expect("it was just found");
        self.put(from, key.to_vec(), ssn);
        self.put(key.to_vec(), to, ssn);
    }

    /// Puts one over what is there.
    pub fn add(&mut self, added: RangeTombstone) {
        let RangeTombstone { range, ssn } = added;
        if range.is_empty() {
            return;
        }
        self.cut(&range.from);
        self.cut(&range.to);
        let within = self.pieces_in(Included(&range.from), Excluded(&range.to));
        let within: Vec<Vec<u8>> = within.map(|(from, _)| from.clone()).collect();
        // From here on to the next piece that is kept lies the new one.
        let mut open = range.from.clone();
        for from in within {
            if self.pieces.get(&from).is_some_and(|(_, old)| *old > ssn) {
                let to = self.pieces.get(&from).map(|(to, _)| to.clone()).expect("it was just found");
                self.put(open, from, ssn);
                open = to;
            } else {
                self.take(&from);
            }
        }
        self.put(open, range.to, ssn);
    }

    /// Puts all of another set over what is there.
    pub fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|tombstone| self.add(tombstone));
    }

    /// What of them lies in a range, cut at its borders.
    #[must_use]
    pub fn within(&self, range: &KeyRange) -> Self {
        let mut found = Self::default();
        let first = self.pieces_in(Unbounded, Excluded(&range.from)).next_back();
        let rest = (!range.is_empty()).then(|| self.pieces_in(Included(&range.from), Excluded(&range.to)));
        for (from, (to, ssn)) in first.into_iter().chain(rest.into_iter().flatten()) {
            let from = from.max(&range.from).clone();
            let to = to.min(&range.to).clone();
            found.put(from, to, *ssn);
        }
        found
    }

    /// The first key of all and what is behind the last.
    #[must_use]
    pub fn bounds(&self) -> Option<KeyRange> {
        let from = self.pieces.keys().next()?.clone();
        let to = self.pieces.values().next_back()?.0.clone();
        Some(KeyRange { from, to })
    }

    /// Body of their block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.pieces.len() as u64);
        for (from, (to, ssn)) in &self.pieces {
            out.put_bytes(from);
            out.put_bytes(to);
            out.put_varint(ssn.0);
        }
        out
    }

    /// What the body of a block says.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut from = Reader::new(body);
        let mut found = Self::default();
        let mut end = Vec::new();
        for _ in 0..from.count(3)? {
            let first = from.bytes("key", STORE_KEY_BYTES_MAX)?.to_vec();
            let to = from.bytes("key", STORE_KEY_BYTES_MAX)?.to_vec();
            let ssn = Ssn(from.varint()?);
            if first >= to || first < end {
                return Err(Fault::Order);
            }
            end.clone_from(&to);
            found.put(first, to, ssn);
        }
        from.end()?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tombstone(from: u8, to: u8, ssn: u64) -> RangeTombstone {
        RangeTombstone { range: KeyRange { from: vec![from], to: vec![to] }, ssn: Ssn(ssn) }
    }

    proptest! {
        #[test]
        fn each_key_has_the_highest_ssn_put_over_it(
            added in proptest::collection::vec((0..20_u8, 0..20_u8, 1..9_u64), 0..12), from in 0..20_u8, to in 0..20_u8,
        ) {
            let mut all = Tombstones::default();
            added.iter().for_each(|(from, to, ssn)| all.add(tombstone(*from, *to, *ssn)));
            let over = |key: u8| {
                let hit = added.iter().filter(|(from, to, _)| (*from..*to).contains(&key));
                hit.map(|(.., ssn)| *ssn).max().unwrap_or(0)
            };
            let part = all.within(&KeyRange { from: vec![from], to: vec![to] });
            for key in 0..20 {
                prop_assert_eq!(all.ssn_over(&[key]), Ssn(over(key)));
                let wanted = if (from..to).contains(&key) { over(key) } else { 0 };
                prop_assert_eq!(part.ssn_over(&[key]), Ssn(wanted));
            }
            let bytes: usize = all.iter().map(|piece| piece.range.from.len() + piece.range.to.len()).sum();
            prop_assert_eq!(all.bytes(), bytes);
            prop_assert_eq!(Tombstones::decode(&all.encode()), Ok(all.clone()));
            let pieces: Vec<_> = all.iter().collect();
            prop_assert!(pieces.windows(2).all(|pair| pair[0].range.to <= pair[1].range.from));
            prop_assert!(pieces.iter().all(|piece| !piece.range.is_empty()));
        }

        #[test]
        fn whatever_comes_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Tombstones::decode(&bytes);
        }
    }
}
