//! Rows on their way into files: in flat memory as they are taken, so that taking them costs little on the shard's core, and
//! then in the order of their keys. They lie in memory once: sorting moves places, not bytes.

use super::{Content, Memory, RangeTombstone, ValueRef, Version};
use gristmill_base::ids::Ssn;

/// Memory that is taken at a time. One vector for all would be copied as it grows, and at last be up to half empty.
const PIECE_BYTES: usize = 1 << 20;
/// What a row is expected to take at most; a piece with less room is full. One with a larger row grows, and is full.
const ROW_BYTES: usize = 16 << 10;

/// A row: its key, then its value, in one of the pieces.
#[derive(Clone, Copy, Debug)]
struct Place {
    piece: u32,
    at: u32,
    key_bytes: u32,
    said: Said,
    ssn: Ssn,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Deleted,
    Present,
    /// A value of so many bytes.
    Inline(u32),
    /// By its place among those that lie in value files already.
    Stored(u32),
}

/// What a row says, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// That there is none.
    Deleted,
    /// That something is there.
    Present,
    /// The value that is written behind its key.
    Value,
}

/// Rows as they are taken, in no order.
#[derive(Debug, Default)]
pub struct FlatRows {
    pieces: Vec<Vec<u8>>,
    places: Vec<Place>,
    stored: Vec<ValueRef>,
    /// Of all pieces.
    bytes: usize,
}

/// How many rows there were at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlatMark {
    pieces: usize,
    /// Of the last piece.
    at: usize,
    places: usize,
    bytes: usize,
}

impl FlatRows {
    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory of them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(Vec::capacity).sum::<usize>();
        pieces + self.places.capacity() * size_of::<Place>()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many there are now, for [`Self::cut`].
    #[must_use]
    pub fn mark(&self) -> FlatMark {
        let at = self.pieces.last().map_or(0, Vec::len);
        FlatMark { pieces: self.pieces.len(), at, places: self.places.len(), bytes: self.bytes }
    }

    /// Drops what was added since.
    pub fn cut(&mut self, mark: FlatMark) {
        self.pieces.truncate(mark.pieces);
        if let Some(last) = self.pieces.last_mut() {
            last.truncate(mark.at);
        }
        self.places.truncate(mark.places);
        self.bytes = mark.bytes;
    }

    /// Adds a row. `key` writes its key, `value` its value.
    pub fn add(&mut self, ssn: Ssn, says: Says, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        if self.pieces.last().is_none_or(|piece| piece.len() + ROW_BYTES > PIECE_BYTES) {
            self.pieces.push(Vec::with_capacity(PIECE_BYTES));
        }
        let number = self.pieces.len() as u32 - 1;
        let piece = self.pieces.last_mut().expect("one was just added");
        let at = piece.len();
        key(piece);
        let key_bytes = piece.len() - at;
        value(piece);
        let value_bytes = piece.len() - at - key_bytes;
        assert!(says == Says::Value || value_bytes == 0, "a row with a value says so");
        if piece.capacity() > PIECE_BYTES {
            piece.shrink_to_fit();
        }
        self.bytes += key_bytes + value_bytes;
        let said = match says {
            Says::Deleted => Said::Deleted,
            Says::Present => Said::Present,
            Says::Value => Said::Inline(value_bytes as u32),
        };
        self.places.push(Place { piece: number, at: at as u32, key_bytes: key_bytes as u32, said, ssn });
    }

    /// Sorts them; of a row that was taken twice the later one counts. They come behind the ranges: what was deleted before
    /// it was taken is not among them. Takes a while: for the background executor.
    #[must_use]
    pub fn sorted(mut self, ranges: impl IntoIterator<Item = RangeTombstone>) -> FlushRows {
        let Self { pieces, places, .. } = &mut self;
        let key = |place: &Place| key_of(pieces, place);
        places.sort_by(|a, b| key(a).cmp(key(b)));
        places.dedup_by(|later, kept| {
            let is_same = key(later) == key(kept);
            if is_same {
                *kept = *later;
            }
            is_same
        });
        let mut deleted = Memory::default();
        ranges.into_iter().for_each(|range| deleted.delete_range(range));
        FlushRows { rows: self, deleted }
    }
}

fn key_of<'a>(pieces: &'a [Vec<u8>], place: &Place) -> &'a [u8] {
    &pieces[place.piece as usize][place.at as usize..][..place.key_bytes as usize]
}

/// Rows in the order of their keys, each once, and range tombstones.
#[derive(Debug, Default)]
pub struct FlushRows {
    rows: FlatRows,
    /// Of ranges alone.
    deleted: Memory,
}

/// A row of [`FlushRows`].
#[derive(Debug)]
pub(super) struct FlushRow<'a> {
    pub(super) key: &'a [u8],
    pub(super) ssn: Ssn,
    /// Its value, if it has one that is not in a value file.
    pub(super) value: Option<&'a [u8]>,
    rest: Content,
}

impl FlushRow<'_> {
    /// As blocks have it; of a value a copy.
    pub(super) fn version(self) -> Version {
        Version { ssn: self.ssn, content: self.value.map_or(self.rest, |value| Content::Inline(value.to_vec())) }
    }
}

impl FlushRows {
    /// Range tombstones.
    pub(super) fn tombstones(&self) -> &super::Tombstones {
        self.deleted.tombstones()
    }

    /// A row by its number.
    pub(super) fn get(&self, number: usize) -> Option<FlushRow<'_>> {
        let FlatRows { pieces, places, stored, .. } = &self.rows;
        let place = places.get(number)?;
        let (value, rest) = match place.said {
            Said::Deleted => (None, Content::Deleted),
            Said::Present => (None, Content::Present),
            Said::Stored(at) => (None, Content::Stored(stored[at as usize])),
            Said::Inline(bytes) => {
                let from = (place.at + place.key_bytes) as usize;
                (Some(&pieces[place.piece as usize][from..][..bytes as usize]), Content::Present)
            }
        };
        Some(FlushRow { key: key_of(pieces, place), ssn: place.ssn, value, rest })
    }
}

impl From<&Memory> for FlushRows {
    fn from(memory: &Memory) -> Self {
        let mut rows = FlatRows::default();
        for (key, version) in memory.iter() {
            let (says, value): (Says, &[u8]) = match &version.content {
                Content::Deleted => (Says::Deleted, &[]),
                Content::Inline(value) => (Says::Value, value),
                Content::Present | Content::Stored(_) => (Says::Present, &[]),
            };
            rows.add(version.ssn, says, |out| out.extend_from_slice(key), |out| out.extend_from_slice(value));
            if let (Content::Stored(at), Some(last)) = (&version.content, rows.places.last_mut()) {
                last.said = Said::Stored(rows.stored.len() as u32);
                rows.stored.push(*at);
            }
        }
        rows.sorted(memory.tombstones().iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::KeyRange;
    use gristmill_base::ids::SlotId;

    fn add(rows: &mut FlatRows, key: u8, ssn: u64, value: Option<&[u8]>) {
        let says = if value.is_some() { Says::Value } else { Says::Deleted };
        rows.add(Ssn(ssn), says, |out| out.push(key), |out| out.extend_from_slice(value.unwrap_or_default()));
    }

    fn all(rows: &FlushRows) -> Vec<(u8, u64, Option<Vec<u8>>)> {
        let rows = (0..).map_while(|number| rows.get(number));
        rows.map(|row| (row.key[0], row.ssn.0, row.value.map(<[u8]>::to_vec))).collect()
    }

    #[test]
    fn rows_come_in_order_and_the_later_of_two_counts() {
        let mut rows = FlatRows::default();
        add(&mut rows, 3, 1, Some(b"c"));
        add(&mut rows, 1, 2, Some(b"a"));
        let mark = rows.mark();
        add(&mut rows, 9, 3, Some(b"dropped"));
        rows.cut(mark);
        add(&mut rows, 3, 4, None);
        add(&mut rows, 2, 5, Some(b""));
        assert_eq!(rows.bytes(), 6);
        let range = RangeTombstone { range: KeyRange::of_slot(SlotId(1)), ssn: Ssn(9) };
        let sorted = rows.sorted([range]);
        let expected = [(1, 2, Some(b"a".to_vec())), (2, 5, Some(Vec::new())), (3, 4, None)];
        assert_eq!(all(&sorted), expected);
        assert_eq!(sorted.tombstones().iter().count(), 1);
    }

    #[test]
    fn memory_is_little_more_than_the_rows_whatever_their_size() {
        for bytes in [1_000, 4_000, 15_000, 40_000, 3_000_000] {
            let mut rows = FlatRows::default();
            let value = vec![7; bytes];
            let count = 12_000_000 / bytes;
            (0..count).for_each(|n| add(&mut rows, n as u8, n as u64, Some(&value)));
            assert!(rows.memory_bytes() < rows.bytes() / 8 * 9 + 2 * PIECE_BYTES, "{bytes}: {}", rows.memory_bytes());
            let empty = FlatRows::default().mark();
            rows.cut(empty);
            assert!(rows.is_empty() && rows.bytes() == 0 && rows.pieces.is_empty());
            add(&mut rows, 1, 1, Some(&value));
            assert_eq!(all(&rows.sorted([])), [(1, 1, Some(value))]);
        }
    }
}
