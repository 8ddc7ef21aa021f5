use super::commit::{Consumed, decode_consumed, encode_consumed, items, list};
use crate::expiry::Expired;
use crate::input::StreamId;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, LaneKey, Offset, SessionId, SubscriptionId, TopicId};

/// A control record: what concerns the slot, not a grain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Cursors that moved without a commit, and positions that were refused for good.
    Cursors(Vec<Consumed>),
    /// Sessions that expired: ids below the floor without a stream are refused from now on.
    Expire {
        /// The new floor; never lower than the old one.
        floor: SessionId,
        /// Sessions whose streams and replies go.
        sessions: Vec<SessionId>,
    },
    /// Streams, rows, timers and lanes of an app that was deleted go. Ids of tables, topics and subscriptions.
    Tombstone {
        /// Deleted tables.
        tables: Vec<u32>,
        /// Deleted topics.
        topics: Vec<u32>,
        /// Closed subscription instances.
        subscriptions: Vec<u32>,
    },
    /// Lanes begin later: their first offset that is kept. What lies before is there no more.
    LaneStarts(Vec<(LaneKey, Offset)>),
    /// What has expired goes.
    Expired {
        /// Engine time, microseconds.
        time_micros: u64,
        /// What was due by then.
        rows: Vec<Expired>,
    },
    /// The slot switches from old subscription instances to new ones: at once for all of a replay.
    Switch(Vec<Switched>),
}

/// Where a slot switches from one subscription instance to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// The instance that stops.
    pub old: SubscriptionId,
    /// The one whose runs have effects outside the tables that are rebuilt from there on.
    pub new: SubscriptionId,
    /// By lane, ascending, the last offset that is the old one's. Of a lane that is not named there is none.
    pub ends: Vec<(LaneId, u64)>,
}

impl Control {
    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Cursors(cursors) => {
                out.put_u8(1);
                encode_consumed(cursors, out);
            }
            Self::Expire { floor, sessions } => {
                out.put_u8(2);
                out.put_varint(floor.0);
                list(out, sessions, |out, session| out.put_varint(session.0));
            }
            Self::Tombstone { tables, topics, subscriptions } => {
                out.put_u8(3);
                for ids in [tables, topics, subscriptions] {
                    list(out, ids, |out, id| out.put_varint((*id).into()));
                }
            }
            Self::LaneStarts(starts) => {
                out.put_u8(4);
                list(out, starts, |out, (LaneKey { topic, lane }, start)| {
                    out.put_varint(topic.0.into());
                    out.put_varint(lane.0.into());
                    out.put_varint(start.0);
                });
            }
            Self::Expired { time_micros, rows } => {
                out.put_u8(5);
                out.put_varint(*time_micros);
                list(out, rows, |out, row| row.encode(out));
            }
            Self::Switch(switched) => {
                out.put_u8(15);
                list(out, switched, |out, it| it.encode(out));
            }
        }
    }

    /// Decodes a whole body.
    ///
    /// # Errors
    /// Bytes that are no control record.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let ids = |from: &mut Reader<'_>| items(from, |from| from.varint_as("id"));
        let control = match from.u8()? {
            1 => Self::Cursors(decode_consumed(&mut from)?),
            2 => Self::Expire {
                floor: SessionId(from.varint()?),
                sessions: items(&mut from, |from| Ok(SessionId(from.varint()?)))?,
            },
            3 => Self::Tombstone { tables: ids(&mut from)?, topics: ids(&mut from)?, subscriptions: ids(&mut from)? },
            4 => Self::LaneStarts(items(&mut from, |from| {
                let (topic, lane) = (TopicId(from.varint_as("topic")?), LaneId(from.varint_as("lane")?));
                Ok((LaneKey { topic, lane }, Offset(from.varint()?)))
            })?),
            5 => Self::Expired { time_micros: from.varint()?, rows: items(&mut from, Expired::decode)? },
            15 => Self::Switch(items(&mut from, Switched::decode)?),
            found => return Err(DecodeError::Unknown { what: "control record", found: found.into() }),
        };
        from.end()?;
        Ok(control)
    }

    /// Whether a stream goes with a tombstone of these tables and subscriptions.
    #[must_use]
    pub fn ends(stream: StreamId, tables: &[u32], subscriptions: &[u32]) -> bool {
        match stream {
            StreamId::Topic { subscription, .. } => subscriptions.contains(&subscription.0),
            StreamId::Control { table, .. } => tables.contains(&table.0),
            StreamId::Slot(_) | StreamId::Session(_) | StreamId::Task(_) => false,
        }
    }
}

impl Switched {
    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.old.0.into());
        out.put_varint(self.new.0.into());
        list(out, &self.ends, |out, (lane, end)| {
            out.put_varint(lane.0.into());
            out.put_varint(*end);
        });
    }

    /// Takes its bytes.
    ///
    /// # Errors
    /// Bytes that say no switch.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = |from: &mut Reader<'_>| Ok(SubscriptionId(from.varint_as("subscription")?));
        Ok(Self {
            old: id(from)?,
            new: id(from)?,
            ends: items(from, |from| Ok((LaneId(from.varint_as("lane")?), from.varint()?)))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_lane_starts() {
        let of = |topic, lane, start| (LaneKey { topic: TopicId(topic), lane: LaneId(lane) }, Offset(start));
        let control = Control::LaneStarts(vec![of(7, 3, 300), of(200, 0, 1)]);
        let mut bytes = Vec::new();
        control.encode(&mut bytes);
        assert_eq!(bytes, [4, 2, 7, 3, 0xac, 2, 0xc8, 1, 0, 1]);
        assert_eq!(Control::decode(&bytes), Ok(control));
        assert!(Control::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn golden_bytes_of_a_switch() {
        let (old, new) = (SubscriptionId(7), SubscriptionId(200));
        let control = Control::Switch(vec![Switched { old, new, ends: vec![(LaneId(0), 300), (LaneId(3), 1)] }]);
        let mut bytes = Vec::new();
        control.encode(&mut bytes);
        assert_eq!(bytes, [15, 1, 7, 0xc8, 1, 2, 0, 0xac, 2, 3, 1]);
        assert_eq!(Control::decode(&bytes), Ok(control));
        assert!((0..bytes.len()).all(|end| Control::decode(&bytes[..end]).is_err()));
    }

    #[test]
    fn golden_bytes_of_what_has_expired() {
        use crate::expiry::Expiring;
        use crate::input::GrainAddress;
        use gristmill_base::ids::{MapId, Ssn, TableId};
        let grain = GrainAddress { table: TableId(7), key: [b'k'].into() };
        let of = |what, ssn| Expired { grain: grain.clone(), what, generation: Ssn(ssn) };
        let rows = vec![of(Expiring::Grain, 300), of(Expiring::Entry(MapId(2), [0xff, 0].into()), 5)];
        let control = Control::Expired { time_micros: 1_000, rows };
        let mut bytes = Vec::new();
        control.encode(&mut bytes);
        let golden = [5, 0xe8, 7, 2, 7, 1, b'k', 1, 0xac, 2, 7, 1, b'k', 2, 2, 2, 0xff, 0, 5];
        assert_eq!(bytes, golden);
        assert_eq!(Control::decode(&bytes), Ok(control));
        assert!((0..bytes.len()).all(|end| Control::decode(&bytes[..end]).is_err()));
    }
}
