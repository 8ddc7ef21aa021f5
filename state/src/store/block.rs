//! Bodies of data and index blocks: sorted keys with payloads, prefix-compressed.
//!
//! A body is checked as a whole when it is loaded, so that what reads it later need not doubt it.

use super::{Fault, Version};
use gristmill_base::codec::{DecodeError, Put, Reader, varint_bytes};
use gristmill_base::limits::{STORE_BLOCK_BODY_BYTES_MAX, STORE_KEY_BYTES_MAX, STORE_RESTART_ENTRIES};

/// A block in the making.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    body: Vec<u8>,
    restarts: Vec<u32>,
    count: usize,
    last: Vec<u8>,
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the body if it ended here.
    pub(super) fn bytes(&self) -> usize {
        self.body.len() + 4 * self.restarts.len() + 4
    }

    /// Bytes of the body if it ended behind this entry.
    pub(super) fn bytes_with(&self, key: &[u8], payload: usize) -> usize {
        let shared = if self.count.is_multiple_of(STORE_RESTART_ENTRIES) { 0 } else { shared(&self.last, key) };
        let further = key.len() - shared;
        let lengths = varint_bytes(shared as u64) + varint_bytes(further as u64) + varint_bytes(payload as u64);
        let restart = 4 * usize::from(self.count.is_multiple_of(STORE_RESTART_ENTRIES));
        self.bytes() + restart + lengths + further + payload
    }

    /// Adds an entry; its key is above that of the one before.
    pub(super) fn add(&mut self, key: &[u8], payload: &[u8]) {
        assert!(self.count == 0 || *self.last < *key, "keys of a block ascend");
        let mut shared_bytes = 0;
        if self.count.is_multiple_of(STORE_RESTART_ENTRIES) {
            self.restarts.push(self.body.len() as u32);
        } else {
            shared_bytes = shared(&self.last, key);
        }
        self.body.put_varint(shared_bytes as u64);
        self.body.put_bytes(&key[shared_bytes..]);
        self.body.put_bytes(payload);
        self.last.truncate(shared_bytes);
        self.last.extend_from_slice(&key[shared_bytes..]);
        self.count += 1;
    }

    /// The body; the builder is empty afterwards.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut body = std::mem::take(&mut self.body);
        for restart in self.restarts.drain(..) {
            body.put_u32(restart);
        }
        body.put_u32(self.count as u32);
        self.count = 0;
        self.last.clear();
        body
    }
}

fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// What payloads of a block must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// Versions of rows.
    Row,
    /// Places of blocks.
    Place,
}

/// Place of a block in its file, with its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

impl BlockPlace {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.put_varint(self.offset);
        out.put_varint(self.bytes as u64);
    }

    fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(payload);
        let place = Self { offset: super::row::offset_of(from.varint()?)?, bytes: from.varint_as("size of a block")? };
        from.end()?;
        let allowed = super::frame::BLOCK_BYTES_MAX as u64;
        if place.bytes as u64 > allowed {
            return Err(DecodeError::TooLarge { what: "block", found: place.bytes as u64, allowed });
        }
        Ok(place)
    }
}

/// A checked block.
#[derive(Debug)]
pub(super) struct Block {
    payloads: Payload,
    body: Vec<u8>,
    /// First byte of the restart table.
    table: usize,
    count: usize,
}

/// A position in a block, with the key that lies there.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) index: usize,
    pub(super) key: Vec<u8>,
    payload: (usize, usize),
}

impl Block {
    /// Takes a body and checks all of it. At least one entry must be there.
    pub(super) fn load(body: Vec<u8>, payloads: Payload) -> Result<Self, Fault> {
        assert!(body.len() <= STORE_BLOCK_BODY_BYTES_MAX, "a body is never larger than its frame allows");
        let table_end = body.len().checked_sub(4).ok_or(Fault::Ends { wanted: 4, found: body.len() })?;
        let count = Reader::new(&body[table_end..]).u32()? as usize;
        let table_bytes = count.div_ceil(STORE_RESTART_ENTRIES).saturating_mul(4);
        let table = table_end.checked_sub(table_bytes);
        let table = table.ok_or(Fault::Ends { wanted: table_bytes, found: table_end })?;
        if count == 0 {
            return Err(DecodeError::Truncated { wanted: 1, left: 0 }.into());
        }
        let block = Self { payloads, body, table, count };
        block.check()?;
        Ok(block)
    }

    fn check(&self) -> Result<(), Fault> {
        let mut entry = Entry::default();
        for index in 0..self.count {
            let at = entry.payload.1;
            let restarts = index.is_multiple_of(STORE_RESTART_ENTRIES);
            if restarts && self.restart(index / STORE_RESTART_ENTRIES) != at {
                return Err(Fault::Order);
            }
            let ascends = self.decode(at, &mut entry, restarts)?;
            if index > 0 && !ascends {
                return Err(Fault::Order);
            }
            let payload = &self.body[entry.payload.0..entry.payload.1];
            match self.payloads {
                Payload::Row => Version::check(payload)?,
                Payload::Place => drop(BlockPlace::decode(payload)?),
            }
        }
        let left = self.table - entry.payload.1;
        if left == 0 { Ok(()) } else { Err(DecodeError::Trailing(left).into()) }
    }

    /// Decodes the entry whose bytes begin at `at`, behind the one that `entry` is at; says whether its key is above that
    /// one's.
    fn decode(&self, at: usize, entry: &mut Entry, restarts: bool) -> Result<bool, DecodeError> {
        let mut from = Reader::new(&self.body[at..self.table]);
        let shared = from.varint_as::<usize>("shared part of a key")?;
        let known = if restarts { 0 } else { entry.key.len() };
        if shared > known {
            let (found, allowed) = (shared as u64, known as u64);
            return Err(DecodeError::TooLarge { what: "shared part of a key", found, allowed });
        }
        let further = from.bytes("key", STORE_KEY_BYTES_MAX - shared)?;
        let ascends = *further > entry.key[shared..];
        entry.key.truncate(shared);
        entry.key.extend_from_slice(further);
        let payload = from.bytes("payload", self.table)?;
        let end = self.table - from.left();
        entry.payload = (end - payload.len(), end);
        Ok(ascends)
    }

    fn restart(&self, index: usize) -> usize {
        let at = self.table + 4 * index;
        self.body[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize
    }

    /// What it was checked to hold.
    pub(super) fn payloads(&self) -> Payload {
        self.payloads
    }

    /// Bytes of memory beside its own.
    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Goes to an entry that is there.
    pub(super) fn go(&self, index: usize, entry: &mut Entry) {
        assert!(index < self.count, "entry {index} of {}", self.count);
        entry.payload.1 = self.restart(index / STORE_RESTART_ENTRIES);
        for at in index / STORE_RESTART_ENTRIES * STORE_RESTART_ENTRIES..=index {
            self.step(at, entry);
        }
    }

    /// Goes to the next entry; false, and nothing changes, where it is the last.
    pub(super) fn next(&self, entry: &mut Entry) -> bool {
        let more = entry.index + 1 < self.count;
        if more {
            self.step(entry.index + 1, entry);
        }
        more
    }

    fn step(&self, index: usize, entry: &mut Entry) {
        entry.index = index;
        let restarts = index.is_multiple_of(STORE_RESTART_ENTRIES);
        self.decode(entry.payload.1, entry, restarts).expect("a block was checked when it was loaded");
    }

    /// Goes to the first entry that is not below `key`, or above it if `above`; false where there is none.
    pub(super) fn seek(&self, key: &[u8], above: bool, entry: &mut Entry) -> bool {
        let is_before = |found: &[u8]| if above { found <= key } else { found < key };
        let (mut low, mut high) = (0, self.count.div_ceil(STORE_RESTART_ENTRIES));
        // The last restart that is before lies at `low - 1`.
        while low < high {
            let middle = low.midpoint(high);
            if is_before(self.key_at_restart(middle)) { low = middle + 1 } else { high = middle }
        }
        self.go(low.saturating_sub(1) * STORE_RESTART_ENTRIES, entry);
        while is_before(&entry.key) {
            if !self.next(entry) {
                return false;
            }
        }
        true
    }

    fn key_at_restart(&self, index: usize) -> &[u8] {
        let mut from = Reader::new(&self.body[self.restart(index)..self.table]);
        let key = from.varint().and_then(|_| from.bytes("key", STORE_KEY_BYTES_MAX));
        key.expect("a block was checked when it was loaded")
    }

    /// The version at an entry of a block of rows.
    pub(super) fn version(&self, entry: &Entry) -> Version {
        let payload = &self.body[entry.payload.0..entry.payload.1];
        Version::decode(payload).expect("a block was checked when it was loaded")
    }

    /// The place at an entry of an index block.
    pub(super) fn place(&self, entry: &Entry) -> BlockPlace {
        let payload = &self.body[entry.payload.0..entry.payload.1];
        BlockPlace::decode(payload).expect("a block was checked when it was loaded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Content;
    use gristmill_base::ids::Ssn;
    use gristmill_base::limits::STORE_OFFSET_MAX;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn payload(ssn: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Version { ssn: Ssn(ssn), content: Content::Inline(ssn.to_string().into_bytes()) }.encode(&mut out);
        out
    }

    fn built(rows: &BTreeMap<Vec<u8>, u64>) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for (key, ssn) in rows {
            let expected = builder.bytes_with(key, payload(*ssn).len());
            builder.add(key, &payload(*ssn));
            assert_eq!(builder.bytes(), expected);
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn a_block_is_the_map_it_was_made_of(
            rows in proptest::collection::btree_map(proptest::collection::vec(0..4_u8, 0..7), any::<u64>(), 1..80),
            sought in proptest::collection::vec(0..4_u8, 0..7),
        ) {
            let block = Block::load(built(&rows), Payload::Row).unwrap();
            prop_assert_eq!(block.count(), rows.len());
            let mut entry = Entry::default();
            for (index, (key, ssn)) in rows.iter().enumerate() {
                block.go(index, &mut entry);
                prop_assert_eq!(&entry.key, key);
                prop_assert_eq!(block.version(&entry).ssn, Ssn(*ssn));
                prop_assert_eq!(block.next(&mut entry), index + 1 < rows.len());
            }
            for above in [false, true] {
                let found = block.seek(&sought, above, &mut entry).then(|| entry.key.clone());
                let wanted = rows.keys().find(|key| **key > sought || !above && **key == sought);
                prop_assert_eq!(found.as_ref(), wanted);
            }
        }

        #[test]
        fn mutants_are_refused_or_read(
            rows in proptest::collection::btree_map(proptest::collection::vec(0..4_u8, 0..7), any::<u64>(), 1..40),
            at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            let mut body = built(&rows);
            let at = at.index(body.len());
            body[at] = to;
            if let Ok(block) = Block::load(body, Payload::Row) {
                let mut entry = Entry::default();
                for index in 0..block.count() {
                    block.go(index, &mut entry);
                    block.version(&entry);
                }
            }
        }
    }

    #[test]
    fn places_that_no_file_has_are_refused() {
        for (offset, is_taken) in [(STORE_OFFSET_MAX, true), (STORE_OFFSET_MAX + 1, false), (u64::MAX, false)] {
            let mut payload = Vec::new();
            BlockPlace { offset, bytes: 100 }.encode(&mut payload);
            let mut builder = BlockBuilder::default();
            builder.add(b"key", &payload);
            assert_eq!(Block::load(builder.finish(), Payload::Place).is_ok(), is_taken, "a block at {offset}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for body in [&b""[..], b"\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0\x01\0\0\0"] {
            assert!(Block::load(body.to_vec(), Payload::Row).is_err(), "{body:?}");
        }
    }
}
