use crate::input::Origin;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::limits::{NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// Why a grain does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// For people.
    pub reason: String,
    /// Attempts at the input that parked it.
    pub attempts: u32,
    /// Engine microseconds.
    pub since_micros: u64,
    /// What went wrong, in a word; empty in records of older versions.
    pub kind: Box<str>,
    /// The input that failed: its place in a stream, or a timer. `None` if it is none of those that wait (it was answered, or
    /// given up), and in records of older versions.
    pub failed: Option<Origin>,
}

impl Parked {
    /// Adds its bytes. Shared with checkpoints.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.reason.as_bytes());
        out.put_varint(self.attempts.into());
        out.put_varint(self.since_micros);
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            reason: from.text("reason", VALUE_BYTES_MAX)?.to_owned(),
            attempts: from.varint_as("attempts")?,
            since_micros: from.varint()?,
            kind: "".into(),
            failed: None,
        })
    }

    /// Whether there is more than [`Self::encode`] writes.
    pub(crate) fn has_details(&self) -> bool {
        !self.kind.is_empty() || self.failed.is_some()
    }

    /// Adds the bytes of the rest. Shared with checkpoints.
    pub(crate) fn encode_details(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.kind.as_bytes());
        match &self.failed {
            None => out.put_u8(0),
            Some(failed) => {
                out.put_u8(1);
                failed.encode(out);
            }
        }
    }

    /// Takes the bytes of the rest.
    pub(crate) fn decode_details(&mut self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.kind = from.text("kind", NAME_BYTES_MAX)?.into();
        self.failed = match from.u8()? {
            0 => None,
            1 => Some(Origin::decode(from)?),
            found => return Err(DecodeError::Unknown { what: "presence", found: found.into() }),
        };
        Ok(())
    }
}
