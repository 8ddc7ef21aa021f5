//! The results of a frame of results.

use gristmill_base::codec::{DecodeError, Reader};
use gristmill_base::limits::FRAME_OPERATIONS_MAX;

use crate::opcode::OpCode;
use crate::reply::{Failure, Reply};
use crate::status::Status;

/// The results of a frame, in the order sent. After an error nothing more comes.
#[derive(Clone, Debug)]
pub struct Answers<'a> {
    left: Reader<'a>,
    count: usize,
    broken: bool,
}

/// One result of a frame, its body not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The operation that it answers, or [`crate::CORRELATION_NONE`] for the connection.
    pub correlation: u32,
    /// How it ended.
    pub status: Status,
    /// Body of the result.
    pub body: &'a [u8],
}

impl<'a> Answers<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { left: Reader::new(body), count: 0, broken: false }
    }

    fn read(&mut self) -> Result<Answer<'a>, DecodeError> {
        self.count += 1;
        if self.count > FRAME_OPERATIONS_MAX {
            let allowed = FRAME_OPERATIONS_MAX as u64;
            return Err(DecodeError::TooLarge { what: "result count of a frame", found: allowed + 1, allowed });
        }
        let (correlation, status) = (self.left.u32()?, self.left.u16()?);
        let status =
            Status::from_code(status).ok_or(DecodeError::Unknown { what: "status", found: u64::from(status) })?;
        let length = self.left.u32()?;
        Ok(Answer { correlation, status, body: self.left.take(length as usize)? })
    }
}

impl<'a> Iterator for Answers<'a> {
    /// An error means that the frame cannot be read on: the client gives the connection up.
    type Item = Result<Answer<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.left.left() == 0 {
            return None;
        }
        let item = self.read();
        self.broken = item.is_err();
        Some(item)
    }
}

impl<'a> Answer<'a> {
    /// The reply or the failure, as an answer to an operation of that code.
    ///
    /// # Errors
    /// Bytes that are neither.
    pub fn outcome(&self, code: OpCode) -> Result<Result<Reply<'a>, Failure<'a>>, DecodeError> {
        if self.status == Status::Ok {
            return Reply::decode(code, self.body).map(Ok);
        }
        Failure::decode(self.status, self.body).map(Err)
    }
}
