//! Replies that own what they carry.

use crate::watch::ChangePage;
use gristmill_base::ids::Offset;
use gristmill_wire::{OpCode, Reply, Versioned};

pub use gristmill_wire::{LaneOffsets, Produced};

use crate::error::Error;
use crate::versions::Version;

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedReply {
    /// Nothing but that it is done, and durable.
    Done,
    /// Where the event went.
    Produced(Produced),
    /// The position up to which the slot has the bounded input.
    Ingested(u64),
    /// Places in a lane.
    Offsets(LaneOffsets),
    /// A value, or a handler's reply.
    Value(Vec<u8>),
    /// How a change under a condition has ended.
    Compared {
        /// Whether it was made.
        done: bool,
        /// Version of the row as it was left.
        version: Option<Version>,
        /// Bytes of a row that was not as expected.
        value: Option<Vec<u8>>,
    },
    /// A row with its version, if there is one.
    Row(Option<(Version, Vec<u8>)>),
    /// What was to be handled before the read, and has not come.
    NotYet(String),
    /// Events of a lane.
    Events(EventPage),
    /// Entries of a map.
    Entries(Page<Entry>),
    /// Grains of a table.
    Rows(Page<Row>),
    /// Changes of grains, and where the watch is.
    Changes(ChangePage),
    /// Grains of a table that match a filter.
    Found(QueryPage),
    /// A JSON text.
    Json(String),
}

/// An event of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the lane.
    pub offset: Offset,
    /// Microseconds since 1970 (UTC) at which it happened, as the producer said.
    pub event_time: i64,
    /// Microseconds since 1970 (UTC) at which the server appended it.
    pub append_time: i64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The headers, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Events of one lane, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// The offset behind the last event that can be read now.
    pub end: Offset,
    /// Where to read on.
    pub next: Offset,
    /// The events.
    pub events: Vec<Event>,
}

/// Entries or grains, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<I> {
    /// Whether there are more behind the last one.
    pub more: bool,
    /// What was asked for.
    pub items: Vec<I>,
}

/// Grains that match a filter, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryPage {
    /// Where to go on; none if there are no more.
    pub next: Option<Vec<u8>>,
    /// Grains that were looked at.
    pub looked: u64,
    /// The index that has found all of them; none if every grain was looked at, of a part of the table at least.
    pub index: Option<String>,
    /// Those that match. There may be none, and more behind `next`.
    pub items: Vec<Row>,
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A grain of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; none where the grain has maps only.
    pub value: Option<Vec<u8>>,
}

impl OwnedReply {
    /// The body of an ok result of that operation.
    pub(crate) fn decode(code: OpCode, body: &[u8]) -> Result<Self, Error> {
        Ok(match Reply::decode(code, body)? {
            Reply::Hello(_) => return Err(Error::protocol("a hello where none was asked for")),
            Reply::Empty => Self::Done,
            Reply::Produced(produced) => Self::Produced(produced),
            Reply::Ingested(received) => Self::Ingested(received),
            Reply::Offsets(offsets) => Self::Offsets(offsets),
            Reply::Value(value) => Self::Value(value.to_vec()),
            Reply::Json(text) => Self::Json(text.into_owned()),
            Reply::Compared(it) => Self::Compared {
                done: it.done,
                version: it.version.map(|bytes| Version(bytes.to_vec())),
                value: it.value.map(<[u8]>::to_vec),
            },
            Reply::Versioned(Versioned::Row { version, value }) => {
                Self::Row(Some((Version(version.to_vec()), value.to_vec())))
            }
            Reply::Versioned(Versioned::Absent) => Self::Row(None),
            Reply::Versioned(Versioned::NotYet(what)) => Self::NotYet(what.to_owned()),
            Reply::Watch(page) => Self::Changes(ChangePage::from(&page)),
            Reply::Read(page) => Self::Events(EventPage {
                end: page.end,
                next: page.next,
                events: page.events.iter().map(|event| Event::from(&event)).collect(),
            }),
            Reply::Fetch(page) => Self::Events(EventPage {
                end: page.end,
                next: page.next,
                events: page.events_from(Offset(0)).map(|event| Event::from(&event)).collect(),
            }),
            Reply::Range(page) => Self::Entries(Page {
                more: page.more,
                items: page
                    .entries
                    .iter()
                    .map(|entry| Entry { key: entry.key.to_vec(), value: entry.value.to_vec() })
                    .collect(),
            }),
            Reply::Scan(page) => Self::Rows(Page { more: page.more, items: rows(&page.rows) }),
            Reply::Query(page) => Self::Found(QueryPage {
                next: page.next.map(<[u8]>::to_vec),
                looked: page.looked,
                index: page.index.map(str::to_owned),
                items: rows(&page.rows),
            }),
        })
    }
}

fn rows(rows: &gristmill_wire::Rows<'_>) -> Vec<Row> {
    rows.iter().map(|row| Row { key: row.key.to_vec(), value: row.value.map(<[u8]>::to_vec) }).collect()
}

impl From<&gristmill_wire::Event<'_>> for Event {
    fn from(event: &gristmill_wire::Event<'_>) -> Self {
        Self {
            offset: event.offset,
            event_time: event.event_time,
            append_time: event.append_time,
            key: event.key.to_vec(),
            value: event.value.to_vec(),
            headers: event.headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        }
    }
}
