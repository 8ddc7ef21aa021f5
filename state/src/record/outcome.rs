use crate::input::Bytes;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, Offset, Ssn};
use gristmill_base::limits::VALUE_BYTES_MAX;

/// Number of the outcome of a change under a condition: that of the protocol's operation.
const COMPARED: u8 = 44;

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
    /// A change under a condition: whether it was made, and the row as it was left: the record that wrote it (0: there is none), and
    /// of a condition that did not hold its bytes, if they are few.
    Compared(bool, Ssn, Option<Bytes>),
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
            Self::Compared(done, ssn, value) => {
                out.put_u8(COMPARED);
                out.put_u8((*done).into());
                out.put_varint(ssn.0);
                out.put_u8(value.is_some().into());
                if let Some(value) = value {
                    out.put_bytes(value);
                }
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
            COMPARED => {
                let (done, ssn) = (from.u8()? != 0, Ssn(from.varint()?));
                let value = if from.u8()? == 0 { None } else { Some(from.bytes("value", VALUE_BYTES_MAX)?.into()) };
                Self::Compared(done, ssn, value)
            }
            found => return Err(DecodeError::Unknown { what: "outcome", found: found.into() }),
        })
    }
}
