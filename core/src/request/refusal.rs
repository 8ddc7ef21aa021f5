//! Refusals: why a request was refused, in a class of reason and in words.

use gristmill_base::codec::DecodeError;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A malformed or senseless request. Definite.
    BadRequest,
    /// No such app, topic, table, map or handler. Definite.
    UnknownName,
    /// A key or value that is not of its type. Definite.
    WrongType,
    /// Over a limit. Definite.
    TooLarge,
    /// The grain is parked. Definite.
    Parked,
    /// What the operation is about is not there: the grain is not parked, or nothing waits for it. Definite.
    NotThere,
    /// As many inputs wait for the key as its table allows. Definite; the same wish may come again under a new number.
    KeyFull,
    /// No room now; the number is not used: send it again.
    Capacity,
    /// A number is missing before this one.
    Gap {
        /// The number that must come next.
        expected: u64,
    },
    /// The session has expired: never run now; whether an earlier attempt ran is not known any more.
    Expired,
    /// The operation was done, and the client said that it has the reply, which is gone.
    Forgotten,
    /// The same operation came again while this one was under way, and that one gets the reply. Says nothing of the
    /// outcome.
    SentAgain,
    /// The server is starting or stopping.
    NotReady,
    /// The shard's log has failed; the outcome is unknown.
    Failed,
    /// What is asked for is damaged on disk. Definite.
    Damaged,
    /// The events asked for were there, and retention has removed them. Definite.
    Gone,
    /// The handler failed for good. Definite: no effect.
    HandlerFailed,
    /// Not in this version.
    Unsupported,
    /// A bug.
    Internal,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Class of reason.
    pub code: Code,
    /// What was found and what is allowed.
    pub message: String,
}

impl Code {
    /// Its number in records kept for retries; those of the native protocol are translated at the door.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::BadRequest => 1,
            Self::UnknownName => 2,
            Self::WrongType => 3,
            Self::TooLarge => 4,
            Self::Parked => 5,
            Self::Capacity => 6,
            Self::Gap { .. } => 7,
            Self::Expired => 8,
            Self::NotReady => 9,
            Self::Failed => 10,
            Self::HandlerFailed => 11,
            Self::Unsupported => 12,
            Self::Internal => 13,
            Self::Forgotten => 14,
            Self::Damaged => 15,
            Self::SentAgain => 16,
            Self::Gone => 17,
            Self::NotThere => 18,
            Self::KeyFull => 19,
        }
    }

    /// The code of a definite refusal with that number.
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        match number {
            1 => Self::BadRequest,
            2 => Self::UnknownName,
            3 => Self::WrongType,
            4 => Self::TooLarge,
            5 => Self::Parked,
            11 => Self::HandlerFailed,
            12 => Self::Unsupported,
            15 => Self::Damaged,
            17 => Self::Gone,
            18 => Self::NotThere,
            19 => Self::KeyFull,
            _ => Self::Internal,
        }
    }
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<DecodeError> for Refusal {
    /// Of a batch that is none.
    fn from(error: DecodeError) -> Self {
        Self::new(Code::BadRequest, format!("the batch cannot be read: {error}"))
    }
}
