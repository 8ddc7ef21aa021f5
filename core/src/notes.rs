//! What a shard notes before user code runs, so that a start after the end of a process can tell what ended it: the grain, the
//! input, the handler. Notes outlive the process and not the machine; see `docs/operating.md`.
//!
//! A note and what was suspected before make up what is suspected now: a grain in whose handler the process ended is run with one
//! input at a time until it has committed what it had then; a grain in which it ended twice in a row is parked.

use gristmill_base::codec::{Put, Reader};
use gristmill_base::ids::{HandlerId, SlotId, TableId};
use gristmill_base::limits::{SUSPECT_COMMITS, SUSPECTS_MAX};
use sha2::{Digest, Sha256};

/// Longest key that is noted as it is; of a longer one its digest is.
const KEY_BYTES_MAX: usize = 512;
/// Longest identity of an input that is noted; of a longer one nothing is, and the grain alone counts.
const INPUT_BYTES_MAX: usize = 512;

/// Where a shard's notes go. All of it is cheap: no system call.
pub trait RunNotes: Send {
    /// User code runs now, with this note.
    fn begin(&mut self, note: &[u8]);
    /// It has given the core back.
    fn end(&mut self);
    /// What is suspected from now on.
    fn suspect(&mut self, suspects: &[u8]);
}

/// A run of user code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunNote {
    /// The grain's slot.
    pub slot: SlotId,
    /// Its table.
    pub table: TableId,
    /// The handler.
    pub handler: HandlerId,
    /// How many inputs the run had.
    pub count: u32,
    /// The grain's key, or the digest of a long one.
    pub key: Vec<u8>,
    /// Identity of the first input, encoded; empty if that is too long.
    pub input: Vec<u8>,
}

/// A grain in whose handler a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The last run in which it did.
    pub note: RunNote,
    /// How often in a row.
    pub ends: u8,
    /// Inputs that it has to commit to be suspected no more.
    pub left: u32,
}

/// A key as it is noted.
#[must_use]
pub fn noted_key(key: &[u8]) -> Vec<u8> {
    if key.len() <= KEY_BYTES_MAX { key.to_vec() } else { Sha256::digest(key).to_vec() }
}

impl RunNote {
    /// Adds a note's bytes.
    pub(crate) fn put(out: &mut Vec<u8>, (slot, table, handler): (SlotId, TableId, HandlerId), count: u32, key: &[u8]) {
        out.extend_from_slice(&slot.0.to_le_bytes());
        out.extend_from_slice(&table.0.to_le_bytes());
        out.extend_from_slice(&handler.0.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        if key.len() <= KEY_BYTES_MAX {
            out.put_bytes(key);
        } else {
            out.put_bytes(&Sha256::digest(key));
        }
    }

    /// Adds the identity of its first input.
    pub(crate) fn put_input(out: &mut Vec<u8>, input: &[u8]) {
        out.put_bytes(if input.len() <= INPUT_BYTES_MAX { input } else { &[] });
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let slot = SlotId(from.u16().ok()?);
        let (table, handler) = (TableId(from.u32().ok()?), HandlerId(from.u32().ok()?));
        let count = from.u32().ok()?;
        let key = from.bytes("noted key", KEY_BYTES_MAX).ok()?.to_vec();
        let input = from.bytes("noted input", INPUT_BYTES_MAX).ok()?.to_vec();
        Some(Self { slot, table, handler, count, key, input })
    }

    /// A note from its bytes; nothing from anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader::new(bytes);
        Self::take(&mut from).filter(|_| from.left() == 0)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        Self::put(out, (self.slot, self.table, self.handler), self.count, &self.key);
        Self::put_input(out, &self.input);
    }

    fn is_of(&self, other: &Self) -> bool {
        (self.slot, self.table, &self.key) == (other.slot, other.table, &other.key)
    }
}

/// Bytes of suspects.
#[must_use]
pub fn encode_suspects(suspects: &[Suspect]) -> Vec<u8> {
    let mut out = Vec::new();
    for suspect in suspects.iter().rev().take(SUSPECTS_MAX).rev() {
        out.put_u8(suspect.ends);
        out.extend_from_slice(&suspect.left.to_le_bytes());
        suspect.note.encode(&mut out);
    }
    out
}

/// Suspects from their bytes: none from anything else.
#[must_use]
pub fn decode_suspects(bytes: &[u8]) -> Vec<Suspect> {
    let mut from = Reader::new(bytes);
    let mut suspects = Vec::new();
    while from.left() > 0 && suspects.len() < SUSPECTS_MAX {
        let (Ok(ends), Ok(left)) = (from.u8(), from.u32()) else { return Vec::new() };
        let Some(note) = RunNote::take(&mut from) else { return Vec::new() };
        suspects.push(Suspect { note, ends, left });
    }
    suspects
}

/// What is suspected at a start: what was before, and the runs in which the process ended.
#[must_use]
pub fn suspects_at_start(mut suspects: Vec<Suspect>, ended_in: Vec<RunNote>) -> Vec<Suspect> {
    for note in ended_in {
        let before = suspects.iter().position(|suspect| suspect.note.is_of(&note)).map(|at| suspects.remove(at));
        let ends = before.map_or(0, |suspect| suspect.ends).saturating_add(1);
        let left = if ends > 1 { SUSPECT_COMMITS } else { note.count.max(1) };
        suspects.push(Suspect { note, ends, left });
    }
    suspects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(key: &[u8], input: &[u8], count: u32) -> RunNote {
        let (slot, table, handler) = (SlotId(3), TableId(2), HandlerId(9));
        RunNote { slot, table, handler, count, key: noted_key(key), input: input.to_vec() }
    }

    #[test]
    fn notes_come_back_and_anything_else_is_none() {
        let mut bytes = Vec::new();
        RunNote::put(&mut bytes, (SlotId(3), TableId(2), HandlerId(9)), 7, &[5; 2_000]);
        RunNote::put_input(&mut bytes, b"who");
        assert_eq!(RunNote::decode(&bytes), Some(note(&[5; 2_000], b"who", 7)));
        for cut in 0..bytes.len() {
            assert_eq!(RunNote::decode(&bytes[..cut]), None);
        }
        assert_eq!(RunNote::decode(&[bytes.as_slice(), b"x"].concat()), None);
        let suspects: Vec<Suspect> =
            (0..40).map(|at| Suspect { note: note(&[at], b"who", 1), ends: 1, left: 3 }).collect();
        let bytes = encode_suspects(&suspects);
        assert_eq!(decode_suspects(&bytes), suspects[40 - SUSPECTS_MAX..], "the last ones");
        assert_eq!(decode_suspects(&bytes[1..]), [], "garbage is nothing");
    }

    #[test]
    fn ends_in_one_grain_add_up_whichever_of_its_inputs_it_was() {
        let first = suspects_at_start(Vec::new(), vec![note(b"a", b"1", 3), note(b"b", b"1", 1)]);
        assert_eq!(first.iter().map(|it| (it.ends, it.left)).collect::<Vec<_>>(), [(1, 3), (1, 1)]);
        let second = suspects_at_start(first, vec![note(b"a", b"3", 1)]);
        assert_eq!(second.iter().map(|it| it.ends).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(second[1].note.input, b"3");
    }
}
