//! The operations of a frame of requests.

use std::fmt;

use gristmill_base::class::InputClass;
use gristmill_base::codec::{DecodeError, Reader};
use gristmill_base::limits::FRAME_OPERATIONS_MAX;

use crate::opcode::OpCode;
use crate::operation::Operation;
use crate::reply::Failure;
use crate::status::Status;
use crate::table::{Get, Put};

/// Correlation of a result that answers no operation but the connection, which the server then closes. No operation
/// may carry it.
pub const CORRELATION_NONE: u32 = u32::MAX;
/// Bit of the operation code that says bulk.
pub const BULK_CODE: u8 = 1 << 7;
/// Bytes before the body of an operation: code, correlation, length.
pub const OPERATION_HEADER_BYTES: usize = 9;

/// The operations of a frame, in the order sent. After an error nothing more comes.
#[derive(Clone, Debug)]
pub struct Requests<'a> {
    left: Reader<'a>,
    count: usize,
    broken: bool,
}

/// One operation of a frame, its body not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What the result must carry.
    pub correlation: u32,
    /// Live or bulk.
    pub class: InputClass,
    /// What is asked for, as sent, without [`BULK_CODE`].
    pub code: u8,
    /// Body of the operation.
    pub body: &'a [u8],
}

/// An operation of a kind that there are very many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common<'a> {
    /// See [`Operation::Get`].
    Get(Get<'a>),
    /// See [`Operation::Put`].
    Put(Put<'a>),
}

/// Why one operation was not even tried. It takes no position of the session; the connection lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Malformed, too large or unsupported.
    pub status: Status,
    /// What was found and what is allowed.
    pub message: String,
}

impl<'a> Requests<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { left: Reader::new(body), count: 0, broken: false }
    }

    fn read(&mut self) -> Result<Request<'a>, DecodeError> {
        self.count += 1;
        if self.count > FRAME_OPERATIONS_MAX {
            let allowed = FRAME_OPERATIONS_MAX as u64;
            return Err(DecodeError::TooLarge { what: "operation count of a frame", found: allowed + 1, allowed });
        }
        let (code, correlation) = (self.left.u8()?, self.left.u32()?);
        if correlation == CORRELATION_NONE {
            return Err(DecodeError::Unknown { what: "correlation", found: u64::from(correlation) });
        }
        let length = self.left.u32()?;
        let (class, code) = (InputClass::from(code & BULK_CODE != 0), code & !BULK_CODE);
        Ok(Request { correlation, class, code, body: self.left.take(length as usize)? })
    }
}

impl<'a> Iterator for Requests<'a> {
    /// An error means that the frame cannot be read on: the connection is closed.
    type Item = Result<Request<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.left.left() == 0 {
            return None;
        }
        let item = self.read();
        self.broken = item.is_err();
        Some(item)
    }
}

impl<'a> Request<'a> {
    /// The operation.
    ///
    /// # Errors
    /// It is unknown, malformed or over a limit: the caller answers with the refusal and goes on.
    pub fn operation(&self) -> Result<Operation<'a>, Refusal> {
        let Some(code) = OpCode::from_code(self.code) else {
            let message = format!("operation code {} is not known to this server", self.code);
            return Err(Refusal { status: Status::Unsupported, message });
        };
        Operation::decode(code, self.body).map_err(|error| Refusal {
            status: Status::of_decode_error(&error),
            message: format!("{}: {error}", code.name()),
        })
    }

    /// The operation, if it is one of the two commonest and nothing is wrong with it. For speed: everything else is told
    /// by [`Self::operation`].
    #[inline]
    #[must_use]
    pub fn common(&self) -> Option<Common<'a>> {
        const GET: u8 = OpCode::Get as u8;
        const PUT: u8 = OpCode::Put as u8;
        let mut from = Reader::new(self.body);
        let operation = match self.code {
            GET => Common::Get(Get::read(&mut from).ok()?),
            PUT => Common::Put(Put::read(&mut from).ok()?),
            _ => return None,
        };
        from.end().ok()?;
        Some(operation)
    }

    /// What it takes of the connection's credit of bytes.
    #[must_use]
    pub fn credit_bytes(&self) -> usize {
        OPERATION_HEADER_BYTES + self.body.len()
    }
}

impl Refusal {
    /// As it is sent.
    #[must_use]
    pub fn failure(&self) -> Failure<'_> {
        Failure::new(self.status, &self.message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::codec::Put as _;

    fn raw(code: u8, correlation: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![code];
        bytes.put_u32(correlation);
        bytes.put_u32(body.len() as u32);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_bad_operation_does_not_disturb_its_neighbours() {
        let mut body = raw(99, 1, b"anything");
        body.extend(raw(2, 2, b"x"));
        body.extend(raw(2, 3, b""));
        let seen: Vec<_> = Requests::new(&body).map(|item| item.unwrap().operation()).collect();
        assert_eq!(seen[0].as_ref().unwrap_err().status, Status::Unsupported);
        assert_eq!(seen[1].as_ref().unwrap_err().to_string(), "malformed: ping: 1 bytes behind the end");
        assert_eq!(seen[2], Ok(Operation::Ping));
    }

    #[test]
    fn a_list_out_of_step_ends_at_once() {
        let mut body = raw(2, 1, b"");
        body.extend(&raw(2, 2, b"xyz")[..10]);
        let seen: Vec<_> = Requests::new(&body).collect();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1], Err(DecodeError::Truncated { wanted: 3, left: 1 }));
        let reserved = raw(2, CORRELATION_NONE, b"");
        assert!(Requests::new(&reserved).next().unwrap().is_err());
        let many = raw(2, 1, b"").repeat(FRAME_OPERATIONS_MAX + 5);
        assert_eq!(Requests::new(&many).count(), FRAME_OPERATIONS_MAX + 1);
        assert!(Requests::new(&many).last().unwrap().is_err());
    }
}
