//! Changes of a grain's timers, its expiries among them.

use crate::expiry::Expiring;
use crate::input::Bytes;
use crate::repeat::Repeat;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::HandlerId;
use gristmill_base::limits::{NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// A change of the grain's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange {
    /// Sets a timer; its generation is the record's own number.
    Set {
        /// Its name.
        name: Box<str>,
        /// Engine microseconds.
        due_micros: u64,
        /// Handler to call.
        handler: HandlerId,
        /// With this.
        payload: Bytes,
    },
    /// Cancels a timer.
    Cancel(Box<str>),
    /// What the record writes expires at that engine time, microseconds, unless a later one writes it before.
    Expires(Expiring, u64),
    /// It does not expire any more.
    Stays(Expiring),
    /// Sets a timer that fires again and again; its generation is the record's own number.
    Repeat {
        /// Its name.
        name: Box<str>,
        /// When it fires next, engine microseconds.
        due_micros: u64,
        /// Handler to call.
        handler: HandlerId,
        /// With this.
        payload: Bytes,
        /// When it fires after that.
        repeat: Box<Repeat>,
    },
}

impl TimerChange {
    /// The name of the handler's timer that it sets or cancels; `None` if it is an expiry.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Set { name, .. } | Self::Repeat { name, .. } | Self::Cancel(name) => Some(name),
            Self::Expires(..) | Self::Stays(_) => None,
        }
    }

    /// Adds its bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set { name, due_micros, handler, payload } => {
                out.put_u8(1);
                out.put_bytes(name.as_bytes());
                out.put_varint(*due_micros);
                out.put_varint(handler.0.into());
                out.put_bytes(payload);
            }
            Self::Cancel(name) => {
                out.put_u8(2);
                out.put_bytes(name.as_bytes());
            }
            Self::Expires(what, due_micros) => {
                out.put_u8(3);
                what.encode(out);
                out.put_varint(*due_micros);
            }
            Self::Stays(what) => {
                out.put_u8(4);
                what.encode(out);
            }
            Self::Repeat { name, due_micros, handler, payload, repeat } => {
                out.put_u8(5);
                out.put_bytes(name.as_bytes());
                out.put_varint(*due_micros);
                out.put_varint(handler.0.into());
                out.put_bytes(payload);
                repeat.encode(out);
            }
        }
    }

    /// Takes its bytes.
    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Set {
                name: from.text("name", NAME_BYTES_MAX)?.into(),
                due_micros: from.varint()?,
                handler: HandlerId(from.varint_as("handler")?),
                payload: from.bytes("payload", VALUE_BYTES_MAX)?.into(),
            },
            2 => Self::Cancel(from.text("name", NAME_BYTES_MAX)?.into()),
            3 => Self::Expires(Expiring::decode(from)?, from.varint()?),
            4 => Self::Stays(Expiring::decode(from)?),
            5 => Self::Repeat {
                name: from.text("name", NAME_BYTES_MAX)?.into(),
                due_micros: from.varint()?,
                handler: HandlerId(from.varint_as("handler")?),
                payload: from.bytes("payload", VALUE_BYTES_MAX)?.into(),
                repeat: Box::new(Repeat::decode(from)?),
            },
            found => return Err(DecodeError::Unknown { what: "timer change", found: found.into() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_timer_that_repeats() {
        let change = TimerChange::Repeat {
            name: "t".into(),
            due_micros: 300,
            handler: HandlerId(7),
            payload: [1, 2].into(),
            repeat: Box::new(Repeat::Every(5)),
        };
        let mut bytes = Vec::new();
        change.encode(&mut bytes);
        assert_eq!(bytes, [5, 1, b't', 0xac, 2, 7, 2, 1, 2, 1, 5]);
        assert_eq!(TimerChange::decode(&mut Reader::new(&bytes)), Ok(change));
        for cut in 0..bytes.len() {
            assert!(TimerChange::decode(&mut Reader::new(&bytes[..cut])).is_err(), "{cut}");
        }
    }
}
