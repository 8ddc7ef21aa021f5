//! Bodies of results: replies of operations that went well, and failures.

use std::borrow::Cow;
use std::fmt;

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, Offset};
use gristmill_base::limits::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX};

use crate::batch::FetchPage;
use crate::compare::{Compared, Versioned};
use crate::fields::{read_value, write_bytes, write_value};
use crate::hello::{HelloReply, PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST};
use crate::opcode::OpCode;
use crate::page::{QueryPage, RangePage, ReadPage, ScanPage};
use crate::status::Status;
use crate::watch::WatchPage;

/// Where an event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The lane of its key.
    pub lane: LaneId,
    /// Its place there.
    pub offset: Offset,
}

/// Places in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneOffsets {
    /// The first event that can be read.
    pub start: Offset,
    /// Behind the last one that can be read.
    pub end: Offset,
    /// The first one since the time that was asked for, `end` if there is none; 0 if no time was.
    pub at: Offset,
}

/// What an operation with status ok gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Of hello.
    Hello(HelloReply),
    /// Of ping, put, delete, map put, map delete, map delete range, parked retry, parked skip, parked edit and void.
    Empty,
    /// Of produce and append.
    Produced(Produced),
    /// Of ingest: the position up to which the slot has the input.
    Ingested(u64),
    /// Of read.
    Read(ReadPage<'a>),
    /// Of fetch.
    Fetch(FetchPage<'a>),
    /// Of offsets.
    Offsets(LaneOffsets),
    /// Of get and map get: the value. Of invoke: the handler's reply, empty when it gave none.
    Value(&'a [u8]),
    /// Of compare set.
    Compared(Compared<'a>),
    /// Of get versioned.
    Versioned(Versioned<'a>),
    /// Of range.
    Range(RangePage<'a>),
    /// Of scan and parked list.
    Scan(ScanPage<'a>),
    /// Of watch.
    Watch(WatchPage<'a>),
    /// Of query.
    Query(QueryPage<'a>),
    /// Of status, describe, parked show, why and the operations on apps, subscriptions and topics: one JSON value.
    Json(Cow<'a, str>),
}

impl<'a> Reply<'a> {
    /// Reads the body of an ok result of that operation to its end.
    ///
    /// # Errors
    /// Bytes that are no such body.
    pub fn decode(code: OpCode, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let reply = match code {
            OpCode::Hello => Self::Hello(HelloReply::read(&mut from)?),
            // Void is answered by what its position got when it was taken before, and that is of no use any more.
            OpCode::Void => return Ok(Self::Empty),
            OpCode::Ping | OpCode::Put | OpCode::Delete | OpCode::MapPut | OpCode::MapDelete => Self::Empty,
            OpCode::MapDeleteRange | OpCode::ParkedRetry | OpCode::ParkedSkip | OpCode::ParkedEdit => Self::Empty,
            OpCode::Produce | OpCode::Append => {
                Self::Produced(Produced { lane: LaneId(from.u16()?), offset: Offset(from.u64()?) })
            }
            OpCode::Ingest => Self::Ingested(from.u64()?),
            OpCode::Read => Self::Read(ReadPage::read(&mut from)?),
            OpCode::Fetch => Self::Fetch(FetchPage::read(&mut from)?),
            OpCode::Offsets => Self::Offsets(LaneOffsets {
                start: Offset(from.u64()?),
                end: Offset(from.u64()?),
                at: Offset(from.u64()?),
            }),
            OpCode::Get | OpCode::MapGet | OpCode::Invoke => Self::Value(read_value(&mut from)?),
            OpCode::CompareSet => Self::Compared(Compared::read(&mut from)?),
            OpCode::GetVersioned => Self::Versioned(Versioned::read(&mut from)?),
            OpCode::Range => Self::Range(RangePage::read(&mut from)?),
            OpCode::Query => Self::Query(QueryPage::read(&mut from)?),
            OpCode::Scan | OpCode::ParkedList => Self::Scan(ScanPage::read(&mut from)?),
            OpCode::Watch => Self::Watch(WatchPage::read(&mut from)?),
            OpCode::Status
            | OpCode::Describe
            | OpCode::AppLoad
            | OpCode::AppList
            | OpCode::AppDelete
            | OpCode::TopicList
            | OpCode::AppSettle
            | OpCode::AppVersions
            | OpCode::AppReplay
            | OpCode::Backup
            | OpCode::MoveSlot
            | OpCode::Why
            | OpCode::SubscriptionPause
            | OpCode::SubscriptionList
            | OpCode::ParkedShow => Self::Json(Cow::Borrowed(from.text("JSON", FRAME_BYTES_MAX)?)),
        };
        from.end()?;
        Ok(reply)
    }

    /// Appends the body.
    ///
    /// # Errors
    /// Something in it is over its limit; what was appended so far is worth nothing then.
    pub fn encode(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self {
            Self::Hello(reply) => reply.write(to)?,
            Self::Empty => {}
            Self::Produced(produced) => {
                to.put_u16(produced.lane.0);
                to.put_u64(produced.offset.0);
            }
            Self::Ingested(received) => to.put_u64(*received),
            Self::Read(page) => page.write(to),
            Self::Fetch(page) => page.write(to),
            Self::Offsets(LaneOffsets { start, end, at }) => [start, end, at].iter().for_each(|at| to.put_u64(at.0)),
            Self::Value(value) => write_value(to, value)?,
            Self::Compared(compared) => compared.write(to)?,
            Self::Versioned(row) => row.write(to)?,
            Self::Range(page) => page.write(to),
            Self::Scan(page) => page.write(to),
            Self::Watch(page) => page.write(to),
            Self::Query(page) => page.write(to)?,
            Self::Json(text) => write_bytes(to, "JSON", text.as_bytes(), FRAME_BYTES_MAX)?,
        }
        Ok(())
    }
}

/// How an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    status: Status,
    /// Gap: the position expected. Unsupported version: oldest version in the low 16 bits, newest in the next 16.
    /// Otherwise 0.
    detail: u64,
    message: &'a str,
}

impl<'a> Failure<'a> {
    /// A failure with what was found and what is allowed, for a person. Not for a gap, which has its own constructor.
    #[must_use]
    pub fn new(status: Status, message: &'a str) -> Self {
        assert!(!matches!(status, Status::Ok | Status::Gap), "{status} says more than a message");
        let versions = u64::from(PROTOCOL_VERSION_OLDEST) | u64::from(PROTOCOL_VERSION) << 16;
        Self { status, detail: if status == Status::UnsupportedVersion { versions } else { 0 }, message }
    }

    /// A position before the one sent is missing; `expected` is the first that is.
    #[must_use]
    pub fn gap(expected: u64, message: &'a str) -> Self {
        Self { status: Status::Gap, detail: expected, message }
    }

    /// How it failed; never ok.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// What was found and what is allowed, for a person; may be empty.
    #[must_use]
    pub fn message(&self) -> &'a str {
        self.message
    }

    /// The position that the server waits for, of a gap.
    #[must_use]
    pub fn expected(&self) -> Option<u64> {
        (self.status == Status::Gap).then_some(self.detail)
    }

    /// Oldest and newest version that the server speaks, of an unsupported version.
    #[must_use]
    pub fn versions(&self) -> Option<(u16, u16)> {
        (self.status == Status::UnsupportedVersion).then_some((self.detail as u16, (self.detail >> 16) as u16))
    }

    /// Reads the body of a result with that status, which must not be ok.
    ///
    /// # Errors
    /// Bytes that are no such body.
    pub fn decode(status: Status, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let detail = match status {
            Status::Ok => return Err(DecodeError::Unknown { what: "failure status", found: 0 }),
            Status::Gap => from.varint()?,
            Status::UnsupportedVersion => u64::from(from.u32()?),
            _ => 0,
        };
        let message = std::str::from_utf8(from.rest()).map_err(|_| DecodeError::NotUtf8("message"))?;
        Ok(Self { status, detail, message })
    }

    /// Appends the body. A message that is too long is cut.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match self.status {
            Status::Gap => to.put_varint(self.detail),
            Status::UnsupportedVersion => to.put_u32(self.detail as u32),
            _ => {}
        }
        let end = self.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        to.extend_from_slice(&self.message.as_bytes()[..end]);
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(expected) = self.expected() {
            write!(f, " (expected {expected})")?;
        }
        if let Some((oldest, newest)) = self.versions() {
            write!(f, " (versions {oldest} to {newest})")?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for Failure<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_back_with_their_numbers() {
        for failure in [
            Failure::new(Status::NotFound, ""),
            Failure::new(Status::UnknownName, "no topic \"linez\"; there are lines, rejected"),
            Failure::gap(300, "position 305 came"),
            Failure::new(Status::UnsupportedVersion, "2 to 3 asked for"),
        ] {
            let mut bytes = Vec::new();
            failure.encode(&mut bytes);
            assert_eq!(Failure::decode(failure.status(), &bytes), Ok(failure));
        }
        assert_eq!(Failure::gap(300, "x").to_string(), "gap (expected 300): x");
        assert_eq!(Failure::new(Status::UnsupportedVersion, "").versions(), Some((1, 2)));
        assert_eq!(Failure::new(Status::NotFound, "x").expected(), None);
        assert!(Failure::decode(Status::Ok, b"").is_err());
        assert!(Failure::decode(Status::Internal, &[0xff]).is_err());
    }

    #[test]
    fn an_endless_message_is_cut_between_characters() {
        let message = "ä".repeat(MESSAGE_BYTES_MAX);
        let mut bytes = vec![];
        Failure::new(Status::Internal, &message).encode(&mut bytes);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX && bytes.len() > MESSAGE_BYTES_MAX - 2);
        assert!(Failure::decode(Status::Internal, &bytes).is_ok());
    }

    #[test]
    fn a_reply_with_something_behind_it_is_refused() {
        assert!(Reply::decode(OpCode::Put, b"x").is_err());
        assert_eq!(Reply::decode(OpCode::Void, b"x"), Ok(Reply::Empty));
        assert_eq!(Reply::decode(OpCode::Get, b"\x01ab"), Err(DecodeError::Trailing(1)));
    }
}
