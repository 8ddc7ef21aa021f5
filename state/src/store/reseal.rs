//! Giving a copy of a file of the store to another data directory: the same rows and values, under its id.

use super::file_check::FileCheck;
use super::footer::Footer;
use super::frame::Place;
use super::value_file::{HEAD_BYTES, value_record_bytes};
use super::{Damage, Fault, FileNumber, Part};
use gristmill_base::checksum::crc32c_append;
use gristmill_base::limits::{BLOCK_BYTES, STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX};

/// Gives a sorted file, all of it, to the data directory `to`; nothing else of it changes. All of its blocks are checked.
///
/// # Errors
/// The first damage; `bytes` means nothing then.
pub fn reseal_sorted(bytes: &mut [u8], directory: u128, file: FileNumber, to: u128) -> Result<(), Damage> {
    let mut check = FileCheck::new(directory, file, bytes.len() as u64).without_values();
    let mut blocks = Vec::new();
    while let Some(wanted) = check.wanted() {
        if let Part::Block(_) = wanted.part {
            blocks.push((wanted.offset, wanted.bytes));
        }
        let from = usize::try_from(wanted.offset).unwrap_or(usize::MAX).min(bytes.len());
        let until = from.saturating_add(wanted.bytes).min(bytes.len());
        check.fill(&bytes[from..until]);
    }
    if let Some(finding) = check.findings().first() {
        return Err(finding.damage.clone());
    }
    let footer_at = bytes.len() - BLOCK_BYTES;
    let (old, new) = (Place { directory, file }, Place { directory: to, file });
    let footer = Footer::open(old, footer_at as u64, &bytes[footer_at..])?;
    let parts = [footer.root, footer.tombstones, footer.properties].into_iter().filter(|part| part.bytes > 0);
    blocks.extend(parts.map(|part| (part.offset, part.bytes)));
    for (offset, length) in blocks {
        let block = &mut bytes[offset as usize..offset as usize + length];
        let crc = crc32c_append(new.seed(offset), &block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
    }
    bytes[footer_at..].copy_from_slice(&footer.seal(new, footer_at as u64));
    Ok(())
}

/// Gives a value file to another data directory, piece by piece, in order. Memory: the longest value.
#[derive(Debug)]
pub struct ValueReseal {
    from: Place,
    to: Place,
    /// Where `rest` begins.
    offset: u64,
    /// What is not a whole record yet.
    rest: Vec<u8>,
    /// Behind the last record there are only zeros.
    is_behind: bool,
}

impl ValueReseal {
    /// Of a file of the data directory `from`, for the data directory `to`.
    #[must_use]
    pub fn new(from: u128, to: u128, file: FileNumber) -> Self {
        let place = |directory| Place { directory, file };
        Self { from: place(from), to: place(to), offset: 0, rest: Vec::new(), is_behind: false }
    }

    /// Takes the next bytes of the file and gives those that are ready. A value that is damaged stays damaged: a row may
    /// point at it or not, which the file does not say.
    ///
    /// # Errors
    /// What leads from one value to the next is damaged.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
        self.rest.extend_from_slice(bytes);
        let mut done = 0;
        while !self.is_behind
            && let Some(head) = self.rest[done..].first_chunk::<HEAD_BYTES>()
        {
            let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (crc, key, value) = (word(0), word(4) as usize, word(8) as usize);
            if (crc, key, value) == (0, 0, 0) {
                self.is_behind = true;
                break;
            }
            let offset = self.offset + done as u64;
            if key > STORE_KEY_BYTES_MAX || value > STORE_VALUE_BYTES_MAX {
                return Err(self.from.damage(offset, Fault::Order));
            }
            let length = value_record_bytes(key, value) as usize;
            let Some(record) = self.rest.get_mut(done..done + length) else { break };
            let is_whole = crc32c_append(self.from.seed(offset), &record[4..]) == crc;
            let fresh = crc32c_append(self.to.seed(offset), &record[4..]);
            record[..4].copy_from_slice(&if is_whole { fresh } else { !fresh }.to_le_bytes());
            done += length;
        }
        if self.is_behind {
            done = self.rest.len();
        }
        self.offset += done as u64;
        Ok(self.rest.drain(..done).collect())
    }

    /// The end of the file: its last bytes.
    ///
    /// # Errors
    /// It ends within a value.
    pub fn finish(self) -> Result<Vec<u8>, Damage> {
        if self.is_behind || self.rest.iter().all(|byte| *byte == 0) {
            return Ok(self.rest);
        }
        Err(self.from.damage(self.offset, Fault::Ends { wanted: HEAD_BYTES, found: self.rest.len() }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ValueRef, ValueWriter, open_value, value_wanted};
    use super::*;

    fn value_file(directory: u128, values: &[(&[u8], Vec<u8>)]) -> (Vec<u8>, Vec<ValueRef>) {
        let mut writer = ValueWriter::new(directory, FileNumber(5));
        let places = values.iter().map(|(key, value)| writer.add(key, value)).collect();
        let mut file = Vec::new();
        while let Some(piece) = writer.output() {
            file.extend(piece.bytes);
        }
        file.extend(writer.finish().0.into_iter().flat_map(|piece| piece.bytes));
        (file, places)
    }

    fn resealed(file: &[u8], piece: usize) -> Result<Vec<u8>, Damage> {
        let mut reseal = ValueReseal::new(7, 9, FileNumber(5));
        let mut out = Vec::new();
        for piece in file.chunks(piece) {
            out.extend(reseal.push(piece)?);
        }
        out.extend(reseal.finish()?);
        Ok(out)
    }

    #[test]
    fn values_are_those_of_the_other_directory_whatever_the_pieces() {
        let values = [(&b"one"[..], vec![1; 2_000]), (b"two", vec![2; 30_000]), (b"three", vec![3; 1_024])];
        let (file, places) = value_file(7, &values);
        let (other, _) = value_file(9, &values);
        for piece in [1, 7, 4_096, 1 << 20] {
            assert!(resealed(&file, piece).unwrap() == other, "pieces of {piece}");
        }
        let mut bad = file.clone();
        bad[places[1].offset as usize + 500] ^= 1;
        let out = resealed(&bad, 4_096).unwrap();
        for (at, (key, value)) in places.iter().zip(&values) {
            let wanted = value_wanted(*at, key);
            let record = &out[wanted.offset as usize..][..wanted.bytes];
            assert_eq!(open_value(9, *at, key, record).ok() == Some(value), *key != b"two", "damage stays damage");
        }
        bad[places[1].offset as usize + 11] ^= 0x80;
        assert_eq!(resealed(&bad, 4_096).unwrap_err().offset, places[1].offset);
        assert!(resealed(&file[..3_000], 4_096).is_err(), "a file that ends within a value");
    }
}
