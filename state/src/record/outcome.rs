use crate::input::Bytes;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, Offset};
use gristmill_base::limits::VALUE_BYTES_MAX;

/// How a client's operation ended, as it is kept for retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing to say.
    Done,
    /// An event was appended there.
    Appended(LaneId, Offset),
    /// A handler's reply.
    Value(Option<Bytes>),
    /// The handler failed for good.
    HandlerFailed(String),
    /// The grain is parked.
    Parked(String),
    /// Refused for good before it was queued; the number is that of the native protocol. Kept in memory only.
    Refused(u16, String),
}

impl Outcome {
    /// Adds its bytes.
    pub(crate) fn encode(&self, out: &mut impl Put) {
        match self {
            Self::Done => out.put_u8(0),
            Self::Appended(lane, offset) => {
                out.put_u8(1);
                out.put_varint(lane.0.into());
                out.put_varint(offset.0);
            }
            Self::Value(None) => out.put_u8(2),
            Self::Value(Some(value)) => {
                out.put_u8(3);
                out.put_bytes(value);
            }
            Self::HandlerFailed(message) => {
                out.put_u8(4);
                out.put_bytes(message.as_bytes());
            }
            Self::Parked(reason) => {
                out.put_u8(5);
                out.put_bytes(reason.as_bytes());
            }
            Self::Refused(code, message) => {
                out.put_u8(6);
                out.put_u16(*code);
                out.put_bytes(message.as_bytes());
            }
        }
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            0 => Self::Done,
            1 => Self::Appended(LaneId(from.varint_as("lane")?), Offset(from.varint()?)),
            2 => Self::Value(None),
            3 => Self::Value(Some(from.bytes("reply", VALUE_BYTES_MAX)?.into())),
            4 => Self::HandlerFailed(from.text("message", VALUE_BYTES_MAX)?.to_owned()),
            5 => Self::Parked(from.text("reason", VALUE_BYTES_MAX)?.to_owned()),
            6 => Self::Refused(from.u16()?, from.text("message", VALUE_BYTES_MAX)?.to_owned()),
            found => return Err(DecodeError::Unknown { what: "outcome", found: found.into() }),
        })
    }
}
