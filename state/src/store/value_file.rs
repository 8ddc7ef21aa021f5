//! Value files: large values, one record behind the other, each with its key and a checksum with identity.

use super::frame::Place;
use super::output::{FileKind, Output, Piece};
use super::{Damage, Fault, FileNumber, Part, ValueRef, Wanted};
use gristmill_base::checksum::crc32c_append;
use gristmill_base::codec::Put;
use gristmill_base::limits::{STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX};

/// Bytes of a record before its key.
pub(super) const HEAD_BYTES: usize = 12;

/// Bytes of a record.
#[must_use]
pub(super) fn value_record_bytes(key: usize, value: usize) -> u64 {
    (HEAD_BYTES + key + value) as u64
}

/// What to fetch for the value of a row with that key.
#[must_use]
pub fn value_wanted(at: ValueRef, key: &[u8]) -> Wanted {
    let bytes = value_record_bytes(key.len(), at.bytes) as usize;
    Wanted { file: at.file, offset: at.offset, bytes, part: Part::Value }
}

/// The value of the row `key`, of the bytes that were wanted for it.
///
/// # Errors
/// They are not that value's record.
pub fn open_value<'a>(directory: u128, at: ValueRef, key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], Damage> {
    let place = Place { directory, file: at.file };
    let fault = |fault| place.damage(at.offset, fault);
    let wanted = value_wanted(at, key).bytes;
    let Some((head, _)) = bytes.split_first_chunk::<HEAD_BYTES>().filter(|_| bytes.len() == wanted) else {
        return Err(fault(Fault::Ends { wanted, found: bytes.len() }));
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (stored, computed) = (word(0), crc32c_append(place.seed(at.offset), &bytes[4..]));
    if stored != computed {
        return Err(fault(Fault::Checksum { stored, computed }));
    }
    let (found_key, value) = bytes[HEAD_BYTES..].split_at(key.len());
    if (word(4) as usize, word(8) as usize) != (key.len(), at.bytes) || found_key != key {
        return Err(fault(Fault::Order));
    }
    Ok(value)
}

/// A value file in the making.
#[derive(Debug)]
pub struct ValueWriter {
    place: Place,
    out: Output,
}

impl ValueWriter {
    /// An empty one.
    #[must_use]
    pub fn new(directory: u128, file: FileNumber) -> Self {
        Self { place: Place { directory, file }, out: Output::new(file, FileKind::Values) }
    }

    /// Adds the value of a row and says where it lies.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> ValueRef {
        assert!(key.len() <= STORE_KEY_BYTES_MAX && value.len() <= STORE_VALUE_BYTES_MAX, "a row that was taken fits");
        let offset = self.out.len();
        let at = self.out.bytes.len();
        let out = &mut self.out.bytes;
        out.put_u32(0);
        out.put_u32(key.len() as u32);
        out.put_u32(value.len() as u32);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
        let crc = crc32c_append(self.place.seed(offset), &out[at + 4..]);
        out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        ValueRef { file: self.place.file, offset, bytes: value.len() }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> FileNumber {
        self.place.file
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.out.len()
    }

    /// Takes a piece that is ready to be written.
    pub fn output(&mut self) -> Option<Piece> {
        self.out.piece()
    }

    /// Ends the file: its last piece, and its bytes.
    #[must_use]
    pub fn finish(mut self) -> (Option<Piece>, u64) {
        self.out.pad();
        let bytes = self.out.len();
        (self.out.rest(), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_no_flipped_byte_passes() {
        let mut writer = ValueWriter::new(7, FileNumber(5));
        let rows = [(&b"one"[..], vec![1; 2_000]), (b"two", vec![2; 300_000]), (b"", vec![])];
        let mut file = Vec::new();
        let mut places = Vec::new();
        for (key, value) in &rows {
            places.push(writer.add(key, value));
            while let Some(piece) = writer.output() {
                assert_eq!((piece.offset, piece.bytes.len() % 4_096), (file.len() as u64, 0));
                file.extend(piece.bytes);
            }
        }
        let (last, bytes) = writer.finish();
        file.extend(last.unwrap().bytes);
        assert_eq!(bytes, file.len() as u64);
        assert_eq!(bytes % 4_096, 0);
        for ((key, value), at) in rows.iter().zip(&places) {
            let wanted = value_wanted(*at, key);
            let record = &file[wanted.offset as usize..][..wanted.bytes];
            assert_eq!(open_value(7, *at, key, record).unwrap(), value);
            assert!(open_value(8, *at, key, record).is_err(), "another directory");
            assert!(open_value(7, *at, key, &record[..record.len() - 1]).is_err());
        }
        let (at, record) = (places[0], &file[..value_wanted(places[0], b"one").bytes]);
        assert!(matches!(open_value(7, at, b"onf", record).unwrap_err().fault, Fault::Order));
        for byte in 0..record.len() {
            let mut flipped = record.to_vec();
            flipped[byte] ^= 4;
            assert!(open_value(7, at, b"one", &flipped).is_err(), "byte {byte}");
        }
        let moved = ValueRef { offset: places[1].offset, ..at };
        assert!(open_value(7, moved, b"one", record).is_err(), "another place");
    }
}
