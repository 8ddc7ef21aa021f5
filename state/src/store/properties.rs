//! What a sorted file holds, in numbers.

use super::row_key::{kind_of, slot_of};
use super::{Content, Fault, FileNumber, KeyRange, Tombstones, Version};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{SlotId, Ssn};
use gristmill_base::limits::{SLOT_COUNT_MAX, STORE_KEY_BYTES_MAX};
use std::collections::BTreeMap;

/// Lowest and highest ssn of a slot in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SsnRange {
    /// The lowest.
    pub lowest: Ssn,
    /// The highest, range tombstones included.
    pub highest: Ssn,
}

/// Rows of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCount {
    /// How many.
    pub rows: u64,
    /// Bytes of their keys and contents, values in value files included.
    pub bytes: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Rows, tombstones included.
    pub rows: u64,
    /// Rows that are tombstones.
    pub tombstones: u64,
    /// Pieces of range tombstones.
    pub range_tombstones: u64,
    /// Holds all keys and all range tombstones.
    pub range: KeyRange,
    /// By slot.
    pub slots: BTreeMap<SlotId, SsnRange>,
    /// By kind, as keys carry it.
    pub kinds: BTreeMap<u8, KindCount>,
    /// Bytes of records of value files that rows here point at.
    pub values: BTreeMap<FileNumber, u64>,
}

impl Default for Properties {
    fn default() -> Self {
        Self {
            rows: 0,
            tombstones: 0,
            range_tombstones: 0,
            range: KeyRange { from: Vec::new(), to: Vec::new() },
            slots: BTreeMap::new(),
            kinds: BTreeMap::new(),
            values: BTreeMap::new(),
        }
    }
}

impl Properties {
    /// Counts a row; keys come in order.
    pub(super) fn count(&mut self, key: &[u8], version: &Version) {
        let (slot, kind) = (slot_of(key), kind_of(key));
        if self.rows == 0 {
            self.range.from = key.to_vec();
        }
        self.range.to.clear();
        self.range.to.extend_from_slice(key);
        self.range.to.push(0);
        self.rows += 1;
        self.tombstones += u64::from(version.is_deleted());
        self.note_ssn(slot, version.ssn);
        let kind = self.kinds.entry(kind).or_default();
        kind.rows += 1;
        kind.bytes += (key.len() + version.inline_bytes()) as u64;
        if let Content::Stored(place) = version.content {
            kind.bytes += place.bytes as u64;
            *self.values.entry(place.file).or_default() += super::value_record_bytes(key.len(), place.bytes);
        }
    }

    /// Counts the range tombstones, after all rows.
    pub(super) fn count_tombstones(&mut self, tombstones: &Tombstones) {
        self.range_tombstones = tombstones.count() as u64;
        for piece in tombstones.iter() {
            self.note_ssn(slot_of(&piece.range.from), piece.ssn);
        }
        let Some(bounds) = tombstones.bounds() else { return };
        if self.rows == 0 {
            self.range = bounds;
        } else {
            self.range.from = std::mem::take(&mut self.range.from).min(bounds.from);
            self.range.to = std::mem::take(&mut self.range.to).max(bounds.to);
        }
    }

    fn note_ssn(&mut self, slot: SlotId, ssn: Ssn) {
        let range = self.slots.entry(slot).or_insert(SsnRange { lowest: ssn, highest: ssn });
        range.lowest = range.lowest.min(ssn);
        range.highest = range.highest.max(ssn);
    }

    /// The highest ssn of the slot that a key is of; 0 if the file has nothing of it.
    #[must_use]
    pub fn highest_ssn(&self, key: &[u8]) -> Ssn {
        self.slots.get(&slot_of(key)).map_or(Ssn(0), |range| range.highest)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.rows);
        out.put_varint(self.tombstones);
        out.put_varint(self.range_tombstones);
        out.put_bytes(&self.range.from);
        out.put_bytes(&self.range.to);
        out.put_varint(self.slots.len() as u64);
        for (slot, range) in &self.slots {
            out.put_varint(slot.0.into());
            out.put_varint(range.lowest.0);
            out.put_varint(range.highest.0);
        }
        out.put_varint(self.kinds.len() as u64);
        for (kind, count) in &self.kinds {
            out.put_u8(*kind);
            out.put_varint(count.rows);
            out.put_varint(count.bytes);
        }
        out.put_varint(self.values.len() as u64);
        for (file, bytes) in &self.values {
            out.put_varint(file.0);
            out.put_varint(*bytes);
        }
        out
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut from = Reader::new(body);
        let mut found = Self {
            rows: from.varint()?,
            tombstones: from.varint()?,
            range_tombstones: from.varint()?,
            range: KeyRange {
                from: from.bytes("key", STORE_KEY_BYTES_MAX + 1)?.to_vec(),
                to: from.bytes("key", STORE_KEY_BYTES_MAX + 1)?.to_vec(),
            },
            ..Self::default()
        };
        for _ in 0..from.count(3)? {
            let slot: u16 = from.varint_as("slot")?;
            if slot >= SLOT_COUNT_MAX {
                return Err(DecodeError::Unknown { what: "slot", found: slot.into() }.into());
            }
            let range = SsnRange { lowest: Ssn(from.varint()?), highest: Ssn(from.varint()?) };
            found.slots.insert(SlotId(slot), range);
        }
        for _ in 0..from.count(3)? {
            let kind = from.u8()?;
            found.kinds.insert(kind, KindCount { rows: from.varint()?, bytes: from.varint()? });
        }
        for _ in 0..from.count(2)? {
            found.values.insert(FileNumber(from.varint()?), from.varint()?);
        }
        from.end()?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RangeTombstone, RowKey, ValueRef};
    use gristmill_base::ids::TableId;

    #[test]
    fn rows_and_tombstones_are_counted_and_come_back() {
        let mut all = Properties::default();
        let key = |slot, name: &'static [u8]| RowKey::Grain(SlotId(slot), TableId(1), name.into()).encode();
        all.count(&key(1, b"a"), &Version { ssn: Ssn(5), content: Content::Inline(vec![0; 10]) });
        all.count(&key(1, b"b"), &Version { ssn: Ssn(3), content: Content::Deleted });
        let place = ValueRef { file: FileNumber(9), offset: 0, bytes: 2_000 };
        all.count(&key(2, b"c"), &Version { ssn: Ssn(8), content: Content::Stored(place) });
        let mut tombstones = Tombstones::default();
        tombstones.add(RangeTombstone { range: KeyRange::of_slot(SlotId(2)), ssn: Ssn(70) });
        all.count_tombstones(&tombstones);
        assert_eq!((all.rows, all.tombstones, all.range_tombstones), (3, 1, 1));
        assert_eq!(all.range, KeyRange { from: key(1, b"a"), to: KeyRange::of_slot(SlotId(2)).to });
        assert_eq!(all.slots[&SlotId(1)], SsnRange { lowest: Ssn(3), highest: Ssn(5) });
        assert_eq!(all.highest_ssn(&key(2, b"z")), Ssn(70));
        assert_eq!(all.kinds[&0x40], KindCount { rows: 3, bytes: 3 * 8 + 10 + 2_000 });
        assert_eq!(all.values[&FileNumber(9)], 12 + 8 + 2_000);
        let body = all.encode();
        assert_eq!(Properties::decode(&body), Ok(all));
        for cut in 0..body.len() {
            assert!(Properties::decode(&body[..cut]).is_err());
        }
    }
}
