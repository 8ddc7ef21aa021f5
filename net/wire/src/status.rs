//! Statuses of results: stable numbers with a meaning that a program can act on.

use std::fmt;

use gristmill_base::codec::DecodeError;

/// What a result says about the position of a sequenced operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The position is used up: this result is the one it will always have.
    Taken,
    /// The position is still free, and the operation had no effect: it waits for this operation, another one, or void.
    Free,
    /// It is not known whether the position was taken. Sending the same operation again at the same position tells.
    Unknown,
}

/// What a client may do about a result that is not what it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: the answer is final. The same wish again is a new operation at a new position.
    Final,
    /// Send the same operation again after a pause, at the same position.
    Later,
    /// Send again from the expected position on, in order.
    FromExpected,
    /// The same operation would be refused again: send another one, or void, at the same position.
    Change,
    /// Connect again with the same session and send again what has no result, in order.
    Reconnect,
    /// Open a new session. What the old one left without a result has an outcome that nobody can tell any more.
    NewSession,
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $position:ident, $retry:ident;)*) => {
        /// How an operation ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Status {
            $($(#[$doc])* $name,)*
        }

        impl Status {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Stable number.
            #[must_use]
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// The status with that number.
            #[must_use]
            pub fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// Stable name, in documents, JSON and counters.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What became of the position of a sequenced operation.
            #[must_use]
            pub fn position(self) -> Position {
                match self { $(Self::$name => Position::$position,)* }
            }

            /// What a client may do about it.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)* }
            }
        }
    };
}

statuses! {
    /// Done, and durable where it changed something.
    Ok = 0, "ok", Taken, Final;
    /// No such grain value, map entry or app.
    NotFound = 1, "not_found", Taken, Final;
    /// Understood, and wrong in its content.
    BadRequest = 2, "bad_request", Taken, Final;
    /// No app, topic, table, map or handler of that name or number. The message names what exists.
    UnknownName = 3, "unknown_name", Taken, Final;
    /// A key or value that is not of the declared type.
    WrongType = 4, "wrong_type", Taken, Final;
    /// Over a limit, which the message names.
    TooLarge = 5, "too_large", Free, Change;
    /// The grain is parked and takes no inputs until an operator decides.
    Parked = 6, "parked", Taken, Final;
    /// No room now: of a session's replies, a slot's outbox, memory or disk.
    Capacity = 7, "capacity", Free, Later;
    /// A position before this one is missing. The result carries the one expected.
    Gap = 8, "gap", Free, FromExpected;
    /// The session has expired.
    Expired = 9, "expired", Free, NewSession;
    /// The server or the shard is still starting, or stopping.
    NotReady = 10, "not_ready", Free, Later;
    /// No common protocol version. The result carries those that the server speaks.
    UnsupportedVersion = 11, "unsupported_version", Free, Change;
    /// No hello yet, or credentials that do not suffice.
    Unauthenticated = 12, "unauthenticated", Free, Change;
    /// The shard stopped after a failed write; only a restart helps.
    Failed = 13, "failed", Unknown, Reconnect;
    /// The handler refused or failed, and its retries are used up.
    HandlerFailed = 14, "handler_failed", Taken, Final;
    /// An operation that this server does not know.
    Unsupported = 15, "unsupported", Free, Change;
    /// A fault of the server.
    Internal = 16, "internal", Unknown, Reconnect;
    /// The server lost track of it.
    UnknownOutcome = 17, "unknown_outcome", Unknown, Reconnect;
    /// Bytes that are no such operation.
    Malformed = 18, "malformed", Free, Change;
    /// The position was taken long ago, and the client's own `ack` gave its result up.
    Forgotten = 19, "forgotten", Taken, Final;
    /// What is asked for is damaged on the server's disk. The message names it; asking again does not help.
    Damaged = 20, "damaged", Taken, Final;
    /// The events asked for were there, and retention has removed them. The message names the first that is there.
    Gone = 21, "gone", Taken, Final;
    /// As many inputs wait for the key as its table allows. Nothing was done; the same wish may be sent as a new operation.
    KeyFull = 22, "key_full", Taken, Final;
}

impl Status {
    /// Status for an operation whose bytes were refused by the codec.
    #[must_use]
    pub fn of_decode_error(error: &DecodeError) -> Self {
        match error {
            DecodeError::TooLarge { .. } => Self::TooLarge,
            _ => Self::Malformed,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_come_back() {
        for (number, status) in Status::ALL.iter().enumerate() {
            assert_eq!(usize::from(status.code()), number);
            assert_eq!(Status::from_code(status.code()), Some(*status));
        }
        assert_eq!(Status::from_code(Status::ALL.len() as u16), None);
    }

    #[test]
    fn only_a_free_or_unknown_position_is_sent_again() {
        for status in Status::ALL {
            assert_eq!(status.position() == Position::Taken, status.retry() == Retry::Final, "{status}");
        }
    }
}
