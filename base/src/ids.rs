//! Names of things as numbers: one type per kind of thing, so that one cannot stand in for another.
//!
//! A number is given out once and never again, unless its type says otherwise.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// One core and all that it owns. Dense from 0; means something only for one start of one server.
    ShardId(u16)
}
id! {
    /// A fixed fraction of the key space. Dense from 0 to the slot count of the data directory.
    SlotId(u16)
}
id! {
    /// Number of a slot's ownership period. Raised by every restart; records order by (term, ssn).
    Term(u32)
}
id! {
    /// Slot sequence number: dense per slot, one per record, starting at 1. 0 means "before any record".
    Ssn(u64)
}
id! {
    /// Position in one log: the ordinal of a record, dense from 1. Meaningless outside that log.
    Lsn(u64)
}
id! {
    /// Number of a log segment in one log, dense from 1; also the order of segments.
    SegmentId(u64)
}
id! {
    /// An app, once loaded.
    AppId(u32)
}
id! {
    /// A topic of an app.
    TopicId(u32)
}
id! {
    /// A table of an app.
    TableId(u32)
}
id! {
    /// A sorted map of a table; chosen by the app file, unique within the table.
    MapId(u16)
}
id! {
    /// An index of a table.
    IndexId(u32)
}
id! {
    /// A handler of a table.
    HandlerId(u32)
}
id! {
    /// A subscription instance: a routing rule that never changes, and a range of offsets per lane.
    SubscriptionId(u32)
}
id! {
    /// One append order of a topic. Dense from 0 within its topic.
    LaneId(u16)
}
id! {
    /// Position of an event in its lane, dense from 1. 0 means "before the first event".
    Offset(u64)
}
id! {
    /// A client session. Never recurs; made of the number of the start, a time, and the shard that gave it out.
    SessionId(u64)
}
id! {
    /// An instance of a task.
    TaskId(u32)
}
id! {
    /// A connection of one shard, for the life of the process: never reused.
    ConnId(u64)
}

/// What proves that a session was given to its holder. A secret of the server and that client: never shown, not even by
/// `Debug`. The server compares it in constant time; `==` is for those who hold it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionKey(pub [u8; 16]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// A lane of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// The topic.
    pub topic: TopicId,
    /// The lane in it.
    pub lane: LaneId,
}

impl Lsn {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Ssn {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
