//! Frames from a worker. Whatever it says is held against what is left of the frame; nothing is allocated by its word.

use super::{VERSION, kinds};
use gristmill_base::codec::{DecodeError, Reader};
use gristmill_base::ids::ShardId;
use gristmill_base::limits::{
    KEY_BYTES_MAX, NAME_BYTES_MAX, WORKER_FRAME_BYTES_MAX, WORKER_ITEMS_MAX, WORKER_READS_MAX,
};
use gristmill_core::worker::{Effect, Ended, Outcome, Read, RunKey};
use gristmill_sdk::{Callback, LogLevel, MapName, MessageOperation, MessageTarget, Retry, Send};
use std::time::Duration;

/// Longest token.
const TOKEN_BYTES_MAX: usize = 256;

/// Who a worker says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerHello {
    /// What the token file of the data directory says.
    pub token: Vec<u8>,
    /// The app that it serves.
    pub app: String,
    /// Runs that it wants at a time.
    pub credits: u64,
    /// For people.
    pub name: String,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// Who it is.
    Hello(WorkerHello),
    /// How runs ended, under a lease.
    Verdicts(u64, Vec<(RunKey, Box<Ended>)>),
    /// What a run asks for, under a lease.
    Reads(u64, RunKey, Vec<Read>),
    /// It lives, under a lease.
    Beat(u64),
}

/// What a frame says, its length left out.
///
/// # Errors
/// It says nothing that this version knows.
pub fn parse(frame: &[u8]) -> Result<FromWorker, DecodeError> {
    let mut from = Reader::new(frame);
    let said = match from.u8()? {
        kinds::HELLO => FromWorker::Hello(hello(&mut from)?),
        kinds::VERDICTS => {
            let lease = from.u64()?;
            let count = from.count(13)?;
            let (mut verdicts, mut items) = (Vec::new(), 0);
            for _ in 0..count {
                verdicts.push((key(&mut from)?, Box::new(ended(&mut from, &mut items)?)));
            }
            FromWorker::Verdicts(lease, verdicts)
        }
        kinds::READS => {
            let (lease, key) = (from.u64()?, key(&mut from)?);
            let count = from.count(1)?;
            if count > WORKER_READS_MAX {
                let (found, allowed) = (count as u64, WORKER_READS_MAX as u64);
                return Err(DecodeError::TooLarge { what: "reads at once", found, allowed });
            }
            let mut reads = Vec::new();
            for _ in 0..count {
                reads.push(read(&mut from)?);
            }
            FromWorker::Reads(lease, key, reads)
        }
        kinds::BEAT => FromWorker::Beat(from.u64()?),
        found => return Err(DecodeError::Unknown { what: "kind of frame from a worker", found: found.into() }),
    };
    from.end()?;
    Ok(said)
}

fn hello(from: &mut Reader<'_>) -> Result<WorkerHello, DecodeError> {
    let version = from.u8()?;
    if version != VERSION {
        return Err(DecodeError::Unknown { what: "version of the worker protocol", found: version.into() });
    }
    Ok(WorkerHello {
        token: from.bytes("a token", TOKEN_BYTES_MAX)?.to_vec(),
        app: name(from)?,
        credits: from.varint()?,
        name: name(from)?,
    })
}

fn key(from: &mut Reader<'_>) -> Result<RunKey, DecodeError> {
    Ok((ShardId(from.u16()?), from.u64()?))
}

fn name(from: &mut Reader<'_>) -> Result<String, DecodeError> {
    from.text("a name", NAME_BYTES_MAX).map(str::to_owned)
}

/// What it holds is checked where it is used, as if a handler in this process had given it.
fn bytes(from: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    from.bytes("bytes", WORKER_FRAME_BYTES_MAX).map(<[u8]>::to_vec)
}

fn text(from: &mut Reader<'_>) -> Result<String, DecodeError> {
    from.text("a text", WORKER_FRAME_BYTES_MAX).map(str::to_owned)
}

fn choice(from: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(DecodeError::Unknown { what, found: found.into() }),
    }
}

fn option(from: &mut Reader<'_>) -> Result<Option<Vec<u8>>, DecodeError> {
    choice(from, "choice of something or nothing")?.then(|| bytes(from)).transpose()
}

fn read(from: &mut Reader<'_>) -> Result<Read, DecodeError> {
    Ok(match from.u8()? {
        0 => Read::Value,
        1 => Read::Entry { map: name(from)?, key: bytes(from)? },
        2 => Read::Range {
            map: name(from)?,
            from: bytes(from)?,
            to: option(from)?,
            limit: from.varint_as("number of entries")?,
            reverse: choice(from, "direction")?,
        },
        found => return Err(DecodeError::Unknown { what: "kind of read", found: found.into() }),
    })
}

/// How many effects or replies follow; `items` is the sum of those of the frame. One is a byte there and many in memory.
fn count(from: &mut Reader<'_>, items: &mut usize) -> Result<usize, DecodeError> {
    let count = from.count(1)?;
    *items = items.saturating_add(count);
    if *items > WORKER_ITEMS_MAX {
        let (found, allowed) = (*items as u64, WORKER_ITEMS_MAX as u64);
        return Err(DecodeError::TooLarge { what: "effects and replies of a frame", found, allowed });
    }
    Ok(count)
}

fn ended(from: &mut Reader<'_>, items: &mut usize) -> Result<Ended, DecodeError> {
    let outcome = outcome(from, items)?;
    let count = count(from, items)?;
    let mut effects = Vec::new();
    for _ in 0..count {
        effects.push(effect(from)?);
    }
    Ok(Ended { outcome, effects })
}

fn replies(from: &mut Reader<'_>, items: &mut usize) -> Result<Vec<Option<Vec<u8>>>, DecodeError> {
    let count = count(from, items)?;
    (0..count).map(|_| option(from)).collect()
}

fn outcome(from: &mut Reader<'_>, items: &mut usize) -> Result<Outcome, DecodeError> {
    Ok(match from.u8()? {
        0 => Outcome::Done(replies(from, items)?),
        1 => {
            let replies = replies(from, items)?;
            let wait = choice(from, "choice of a time")?.then(|| from.varint()).transpose()?;
            Outcome::Deferred(replies, wait)
        }
        2 => Outcome::Failed {
            handled: from.varint_as("number of inputs")?,
            kind: text(from)?,
            message: text(from)?,
            retry: match from.u8()? {
                0 => Retry::Policy,
                1 => Retry::After(Duration::from_micros(from.varint()?)),
                2 => Retry::Never,
                found => return Err(DecodeError::Unknown { what: "kind of retry", found: found.into() }),
            },
        },
        3 => Outcome::Again(from.varint_as("number of inputs")?),
        found => return Err(DecodeError::Unknown { what: "kind of result", found: found.into() }),
    })
}

fn effect(from: &mut Reader<'_>) -> Result<Effect, DecodeError> {
    Ok(match from.u8()? {
        0 => Effect::Value(option(from)?),
        1 => Effect::ValueFor(bytes(from)?, from.varint()?),
        2 => Effect::Entry { map: name(from)?, key: bytes(from)?, value: option(from)? },
        3 => Effect::EntryFor { map: name(from)?, key: bytes(from)?, value: bytes(from)?, ttl_micros: from.varint()? },
        4 => Effect::NoRange { map: name(from)?, from: bytes(from)?, to: option(from)? },
        5 => Effect::NoGrain,
        6 => Effect::Send(Box::new(message(from)?)),
        7 => {
            let (name, due_micros, handler) = (text(from)?, from.u64()?, name(from)?);
            Effect::Timer { name, due_micros, handler, payload: bytes(from)? }
        }
        8 => Effect::NoTimer(text(from)?),
        9 => Effect::Count { name: text(from)?, labels: labels(from)?, by: from.varint()? },
        10 => Effect::Gauge { name: text(from)?, labels: labels(from)?, bits: from.u64()? },
        11 => Effect::GaugeAdd { name: text(from)?, labels: labels(from)?, by: from.u64()?.cast_signed() },
        12 => Effect::Log(level(from)?, text(from)?),
        found => return Err(DecodeError::Unknown { what: "kind of effect", found: found.into() }),
    })
}

fn labels(from: &mut Reader<'_>) -> Result<Vec<(String, String)>, DecodeError> {
    let count = from.count(2)?;
    (0..count).map(|_| Ok((text(from)?, text(from)?))).collect()
}

fn level(from: &mut Reader<'_>) -> Result<LogLevel, DecodeError> {
    Ok(match from.u8()? {
        0 => LogLevel::Debug,
        1 => LogLevel::Info,
        2 => LogLevel::Warn,
        3 => LogLevel::Error,
        found => return Err(DecodeError::Unknown { what: "level of a log line", found: found.into() }),
    })
}

fn message(from: &mut Reader<'_>) -> Result<Send, DecodeError> {
    let to_topic = choice(from, "kind of target")?;
    let (name_of_target, key) = (name(from)?, bytes(from)?);
    let target = match to_topic {
        false => MessageTarget::Grain { table: name_of_target, key },
        true => MessageTarget::Topic { topic: name_of_target, key },
    };
    let operation = match from.u8()? {
        0 => MessageOperation::Put(bytes(from)?),
        1 => MessageOperation::Delete,
        2 => MessageOperation::MapPut { map: MapName::Name(name(from)?), key: bytes(from)?, value: bytes(from)? },
        3 => MessageOperation::MapDelete { map: MapName::Name(name(from)?), key: bytes(from)? },
        4 => {
            let (map, start) = (MapName::Name(name(from)?), bytes(from)?);
            MessageOperation::MapDeleteRange { map, from: start, to: option(from)? }
        }
        5 => MessageOperation::Invoke { handler: name(from)?, payload: bytes(from)? },
        found => return Err(DecodeError::Unknown { what: "kind of message", found: found.into() }),
    };
    let callback = match choice(from, "choice of a callback")? {
        false => None,
        true => {
            let (handler, cookie) = (name(from)?, from.bytes("a cookie", KEY_BYTES_MAX)?.to_vec());
            Some(Callback { handler, cookie, only_on_error: choice(from, "choice of errors alone")? })
        }
    };
    Ok(Send { target, operation, callback })
}
