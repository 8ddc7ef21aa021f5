//! How a slot's checkpoint lies on disk: its dump between what says whose it is, and a checksum.

use gristmill_base::checksum::crc32c;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::SlotId;
use gristmill_base::planted::{self, Bug};

/// Magic of a checkpoint file.
const MAGIC: [u8; 4] = *b"GMCK";

/// A checkpoint file around a dump: magic, data directory, slot, number, length, checksum over all of it.
#[must_use]
pub fn seal_checkpoint(identity: u128, slot: SlotId, number: u64, dump: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&identity.to_le_bytes());
    out.put_u16(slot.0);
    out.put_u64(number);
    out.put_u64(dump.len() as u64);
    out.extend_from_slice(dump);
    let crc = crc32c(&out);
    out.put_u32(crc);
    out
}

/// What a checkpoint file has beside the dump: magic, data directory, slot, number, length, checksum.
const SEAL_BYTES: u64 = 42;

/// Bytes of a checkpoint file that begins so; more than any file has if its length is damaged.
#[must_use]
pub fn checkpoint_bytes(head: &[u8]) -> u64 {
    let dump = head.get(30..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    dump.saturating_add(SEAL_BYTES)
}

/// The dump in a checkpoint file.
///
/// # Errors
/// Damage, or a file of another data directory, slot or number.
pub fn unseal_checkpoint(identity: u128, slot: SlotId, number: u64, file: &[u8]) -> Result<&[u8], String> {
    let mut from = Reader::new(file);
    let mut parse = || -> Result<(bool, &[u8], u32), DecodeError> {
        // All are taken, whatever they are, so that the length is read from its place.
        let (magic, directory, of, numbered) = (from.take(4)?, from.take(16)?, from.u16()?, from.u64()?);
        let known = magic == MAGIC && directory == identity.to_le_bytes() && of == slot.0 && numbered == number;
        let bytes = from.u64()?;
        let dump = from.take(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok((known, dump, from.u32()?))
    };
    let (known, dump, crc) = parse().map_err(|error| error.to_string())?;
    let sealed = 38 + dump.len();
    if crc32c(&file[..sealed]) != crc && !planted::is(Bug::ChecksumNotCompared) {
        return Err("its checksum does not match".into());
    }
    if !known {
        return Err("it belongs to another data directory, slot or number".into());
    }
    Ok(dump)
}
