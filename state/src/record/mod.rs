//! The records of a slot: what goes into the log's record body. Layouts are documented in docs/internals/records.md.
//!
//! A record is applied the same way when it is made and when recovery reads it: encode, append, apply.

mod append;
mod commit;
mod control;
mod gap;
mod outcome;
mod parked;
mod timer_change;

pub use append::{AppendRecord, Appended, Event};
pub use commit::{BacklogRange, Commit, Consumed, Fired, Mutation, PutRow, Sent, Spilled, StoredReply};
pub use control::{Control, Switched};
pub use gap::Gap;
pub use outcome::Outcome;
pub use parked::Parked;
pub use timer_change::TimerChange;

use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{Lsn, SlotId, Ssn, Term};
use gristmill_base::position::Durable;

/// Kind of a record, as the log carries it. Numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A run that succeeded.
    Run = 1,
    /// A run whose failure policy is exhausted.
    FailedRun = 2,
    /// Queued inputs moved to the backlog.
    Spill = 3,
    /// A grain parked.
    Park = 4,
    /// A parked or waiting input skipped, or sent to the dead-letter topic.
    Skip = 5,
    /// The first input that waits for a parked grain edited.
    Edit = 6,
    /// Inputs that retention took before they were handed over.
    Gap = 7,
    /// Cursors, session floor, and what else concerns the slot as a whole.
    Control = 8,
    /// Events appended to a lane, carried in the record.
    Append = 9,
    /// A batch appended to a lane whose bytes lie in a file of the lane.
    AppendPlace = 10,
    /// A slot arrived from another shard. Reserved.
    SlotIn = 11,
}

impl RecordKind {
    /// The kind with that number, if this version writes it.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Run,
            2 => Self::FailedRun,
            3 => Self::Spill,
            4 => Self::Park,
            5 => Self::Skip,
            6 => Self::Edit,
            7 => Self::Gap,
            8 => Self::Control,
            9 => Self::Append,
            10 => Self::AppendPlace,
            _ => return None,
        })
    }

    /// Whether the body is a [`Commit`].
    #[must_use]
    pub fn is_commit(self) -> bool {
        matches!(self, Self::Run | Self::FailedRun | Self::Spill | Self::Park | Self::Skip | Self::Edit)
    }
}

/// Where records go: the shard's log, or a double of it in tests.
pub trait Journal {
    /// Appends a record and says its position. Never fails and never waits: room was reserved by admission.
    /// `body` adds the record's body to what the buffer holds, and touches nothing of that.
    fn append(&mut self, kind: RecordKind, slot: SlotId, term: Term, ssn: Ssn, body: impl FnOnce(&mut Vec<u8>)) -> Lsn;

    /// Up to where the log is durable.
    fn durable(&self) -> Durable;
}

/// A record's body, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// One of the commit kinds.
    Commit(RecordKind, Box<Commit>),
    /// Events of a lane.
    Append(AppendRecord),
    /// Of the slot.
    Control(Control),
    /// Positions of a stream that are skipped.
    Gap(Gap),
}

impl Record {
    /// Decodes the body of a record of that kind.
    ///
    /// # Errors
    /// A kind that this version does not know, or a body that does not say what the kind demands.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, DecodeError> {
        let known =
            RecordKind::from_code(kind).ok_or(DecodeError::Unknown { what: "record kind", found: kind.into() })?;
        Ok(match known {
            RecordKind::Append => Self::Append(AppendRecord::decode(body, false)?),
            RecordKind::AppendPlace => Self::Append(AppendRecord::decode(body, true)?),
            RecordKind::Control => Self::Control(Control::decode(body)?),
            RecordKind::Gap => Self::Gap(Gap::decode(body)?),
            kind => Self::Commit(kind, Box::new(Commit::decode(body)?)),
        })
    }
}
