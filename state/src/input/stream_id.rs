//! Names of streams, and their bytes in records and dumps.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{HandlerId, LaneId, SessionId, SlotId, SubscriptionId, TableId, TaskId};

/// Name of a stream: a numbered sequence of inputs as one slot receives it. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamId {
    /// Events of a lane through a subscription instance; positions are offsets.
    Topic {
        /// The instance.
        subscription: SubscriptionId,
        /// The lane.
        lane: LaneId,
    },
    /// Messages from a slot (also from the slot itself); positions are dense from 1.
    Slot(SlotId),
    /// Operations of a client session; positions are dense from 1.
    Session(SessionId),
    /// Inputs of a task instance; positions are those of its stored cursor.
    Task(TaskId),
    /// Versions of its app for a handler that wants to hear of them; positions are their numbers.
    Control {
        /// The table of the handler: with it the stream goes.
        table: TableId,
        /// The handler.
        handler: HandlerId,
    },
}

impl StreamId {
    /// First byte of a session's, whose number follows.
    pub(crate) const SESSION: u8 = 3;

    /// Adds its bytes.
    pub fn encode(self, out: &mut impl Put) {
        match self {
            Self::Topic { subscription, lane } => {
                out.put_u8(1);
                out.put_varint(subscription.0.into());
                out.put_varint(lane.0.into());
            }
            Self::Slot(slot) => {
                out.put_u8(2);
                out.put_varint(slot.0.into());
            }
            Self::Session(session) => {
                out.put_u8(Self::SESSION);
                out.put_varint(session.0);
            }
            Self::Task(task) => {
                out.put_u8(4);
                out.put_varint(task.0.into());
            }
            Self::Control { table, handler } => {
                out.put_u8(5);
                out.put_varint(table.0.into());
                out.put_varint(handler.0.into());
            }
        }
    }

    /// Takes its bytes.
    ///
    /// # Errors
    /// Bytes that name no stream.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Topic {
                subscription: SubscriptionId(from.varint_as("subscription")?),
                lane: LaneId(from.varint_as("lane")?),
            },
            2 => Self::Slot(SlotId(from.varint_as("slot")?)),
            Self::SESSION => Self::Session(SessionId(from.varint()?)),
            4 => Self::Task(TaskId(from.varint_as("task")?)),
            5 => Self::Control {
                table: TableId(from.varint_as("table")?),
                handler: HandlerId(from.varint_as("handler")?),
            },
            found => return Err(DecodeError::Unknown { what: "stream kind", found: found.into() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_all_kinds() {
        let kinds = [
            (StreamId::Topic { subscription: SubscriptionId(300), lane: LaneId(3) }, &[1, 0xac, 2, 3][..]),
            (StreamId::Slot(SlotId(7)), &[2, 7]),
            (StreamId::Session(SessionId(300)), &[3, 0xac, 2]),
            (StreamId::Task(TaskId(5)), &[4, 5]),
            (StreamId::Control { table: TableId(2), handler: HandlerId(300) }, &[5, 2, 0xac, 2]),
        ];
        for (stream, golden) in kinds {
            let mut bytes = Vec::new();
            stream.encode(&mut bytes);
            assert_eq!(bytes, golden);
            assert_eq!(StreamId::decode(&mut Reader::new(golden)), Ok(stream));
            assert!((0..golden.len()).all(|end| StreamId::decode(&mut Reader::new(&golden[..end])).is_err()));
        }
    }
}
