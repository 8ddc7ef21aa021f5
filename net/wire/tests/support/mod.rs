//! One of every message and error, for the golden vectors and as seeds of the fuzz test.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod errors;
pub mod json;
pub mod requests;
pub mod results;

use std::borrow::Cow;

use gristmill_base::class::InputClass;
use gristmill_wire::{Failure, OpCode, Operation, Reply, RequestWriter, ResultWriter};

/// A frame and what it says.
pub struct Sample {
    /// Name of the vector's file.
    pub name: &'static str,
    /// For a person.
    pub about: &'static str,
    /// What it says.
    pub content: Content,
}

/// What the frame of a sample carries.
pub enum Content {
    /// Operations with their correlations.
    Requests(Vec<(u32, Operation<'static>)>),
    /// The same, of class bulk.
    Bulk(Vec<(u32, Operation<'static>)>),
    /// Results with their correlations and the operations that they answer.
    Results(Vec<(u32, OpCode, Result<Reply<'static>, Failure<'static>>)>),
    /// Bytes that are refused, as a server reads them.
    Refused(Vec<u8>),
}

impl Content {
    /// The bytes of the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Requests(list) => {
                let mut writer = RequestWriter::new(&mut bytes);
                for (correlation, operation) in list {
                    writer.push(*correlation, operation).expect("samples are within the limits");
                }
            }
            Self::Bulk(list) => {
                let mut writer = RequestWriter::new(&mut bytes);
                for (correlation, operation) in list {
                    let pushed = writer.push_of(InputClass::Bulk, *correlation, operation);
                    pushed.expect("samples are within the limits");
                }
            }
            Self::Results(list) => {
                let mut writer = ResultWriter::new(&mut bytes);
                for (correlation, _, outcome) in list {
                    match outcome {
                        Ok(reply) => writer.reply(*correlation, reply).expect("samples are within the limits"),
                        Err(failure) => writer.failure(*correlation, failure),
                    }
                }
            }
            Self::Refused(refused) => bytes.extend_from_slice(refused),
        }
        bytes
    }
}

/// All of them.
pub fn samples() -> Vec<Sample> {
    let mut all = requests::samples();
    all.extend(results::samples());
    all.extend(errors::samples());
    all
}

/// One operation alone in its frame.
pub fn request(name: &'static str, about: &'static str, operation: Operation<'static>) -> Sample {
    Sample { name, about, content: Content::Requests(vec![(7, operation)]) }
}

/// One result alone in its frame.
pub fn reply(name: &'static str, about: &'static str, code: OpCode, reply: Reply<'static>) -> Sample {
    Sample { name, about, content: Content::Results(vec![(7, code, Ok(reply))]) }
}

/// One JSON reply alone in its frame.
pub fn json_reply(name: &'static str, about: &'static str, code: OpCode, text: &'static str) -> Sample {
    reply(name, about, code, Reply::Json(Cow::Borrowed(text)))
}
