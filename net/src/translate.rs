//! Between the protocol and the shard: operations and answers of one as those of the other. The only place that knows
//! the types of both.

use gristmill_base::class::InputClass;
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::Offset;
use gristmill_base::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, PARKED_INPUTS_MAX};
use gristmill_base::watch::WatchKeys;
use gristmill_core::request::{
    After, Answer, BackupStep, Batch, BatchFormat, Begin, Bytes, ChangeView, Code, Condition, EventView, Ingest,
    Operation, Refusal, ReplayAct, RowChange, RowVersion, Sequence, Watch,
};
use std::sync::Arc;

use gristmill_wire::{
    Change, Common, CompareSet, Compared, Condition as WireCondition, Entry, Event, Failure, Headers, HeadersBuf,
    Ingest as WireIngest, LaneOffsets, OpCode, Operation as WireOperation, Produced, Query, Reply, ResultWriter, Row,
    RowChange as WireChange, Scan, Sequence as WireSequence, Status, Versioned, Watch as WireWatch,
};

/// What a connection must know of an operation in flight, packed into the number that comes back with its reply:
/// 32 bits of correlation, 8 of operation code, 24 of credit (an operation is shorter than a frame of 16 MiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// What the client calls it.
    pub correlation: u32,
    /// What it asked for.
    pub code: OpCode,
    /// Bytes of credit that it holds.
    pub credit_bytes: usize,
}

const CREDIT_BITS: u32 = 24;

impl Tag {
    /// As one number.
    #[must_use]
    pub fn pack(self) -> u64 {
        assert!(self.credit_bytes < 1 << CREDIT_BITS, "an operation is shorter than a frame");
        u64::from(self.correlation) | u64::from(self.code.code()) << 32 | (self.credit_bytes as u64) << 40
    }

    /// What [`Self::pack`] gave.
    #[must_use]
    pub fn unpack(tag: u64) -> Self {
        let code = OpCode::from_code((tag >> 32) as u8).expect("a tag comes back as it was packed");
        Self { correlation: tag as u32, code, credit_bytes: (tag >> 40) as usize }
    }
}

fn backup_step(step: gristmill_wire::BackupStep) -> BackupStep {
    match step {
        gristmill_wire::BackupStep::Begin => BackupStep::Begin,
        gristmill_wire::BackupStep::Hold => BackupStep::Hold,
        gristmill_wire::BackupStep::LogsCopied => BackupStep::LogsCopied,
        gristmill_wire::BackupStep::End => BackupStep::End,
    }
}

/// An operation as the shard knows it; `None` for hello and ping, which the connection itself answers.
#[must_use]
pub fn operation(wire: &WireOperation<'_>) -> Option<Operation> {
    Some(match wire {
        WireOperation::Hello(_) | WireOperation::Ping => return None,
        WireOperation::Status => Operation::Status,
        WireOperation::Describe(it) => Operation::Describe { name: it.app.to_owned() },
        WireOperation::AppLoad(it) => {
            Operation::AppLoad { text: owned(it.file.as_bytes()), force: it.force, dry_run: it.dry_run }
        }
        WireOperation::AppVersions(it) => Operation::AppVersions { name: it.app.to_owned(), version: it.version },
        WireOperation::AppReplay(it) => Operation::Replay { app: it.app.to_owned(), act: replay_act(it) },
        WireOperation::AppList => Operation::AppList,
        WireOperation::AppDelete(it) => Operation::AppDelete { name: it.app.to_owned() },
        WireOperation::SubscriptionPause(it) => {
            Operation::Pause { app: it.app.to_owned(), name: it.name.to_owned(), paused: it.paused }
        }
        WireOperation::SubscriptionList(it) => Operation::SubscriptionList { app: it.app.to_owned() },
        WireOperation::TopicList => Operation::TopicList,
        WireOperation::Produce(it) => Operation::Produce {
            topic: it.topic,
            sequence: sequence(it.sequence),
            key: owned(it.key),
            value: owned(it.value),
            headers: headers(it.headers),
            event_micros: it.event_time.cast_unsigned(),
        },
        WireOperation::Backup(it) => Operation::Backup { step: backup_step(it.step), cut: it.cut },
        WireOperation::MoveSlot(it) => Operation::Move { slot: it.slot, to: it.to },
        WireOperation::AppSettle(it) => Operation::Settle { name: it.app.to_owned(), wait_millis: it.wait_millis },
        WireOperation::Ingest(it) => Operation::Ingest(ingest(it)),
        WireOperation::Offsets(it) => Operation::Offsets {
            topic: it.topic,
            lane: it.lane,
            // Nothing was appended before 1970.
            time_micros: it.time.map(|time| u64::try_from(time).unwrap_or(0)),
        },
        WireOperation::Append(it) => Operation::Append {
            topic: it.topic,
            lane: it.lane,
            sequence: sequence(it.sequence),
            batch: Batch {
                format: BatchFormat::Native,
                class: InputClass::Live,
                is_spread: false,
                count: it.batch.count(),
                bytes: it.batch.bytes().to_vec().into(),
            },
        },
        WireOperation::Fetch(it) => Operation::Fetch {
            topic: it.topic,
            lane: it.lane,
            from: it.from,
            max_events: limit(it.max_records, PAGE_ENTRIES_MAX),
            max_bytes: limit(it.max_bytes, PAGE_BYTES_MAX as u32),
            wait_millis: it.wait_millis,
            as_stored: false,
        },
        WireOperation::Read(it) => Operation::Read {
            topic: it.topic,
            lane: it.lane,
            from: it.from,
            max_events: limit(it.max_records, PAGE_ENTRIES_MAX),
            max_bytes: limit(it.max_bytes, PAGE_BYTES_MAX as u32),
            wait_millis: it.wait_millis,
        },
        _ => return table_operation(wire),
    })
}

fn replay_act(wire: &gristmill_wire::AppReplay<'_>) -> ReplayAct {
    use gristmill_wire::{ReplayFrom, ReplayStep};
    let tables = || wire.tables.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let begin = |begin| ReplayAct::Begin { tables: tables(), begin };
    match wire.step {
        ReplayStep::Begin(ReplayFrom::Beginning) => begin(Begin::First),
        ReplayStep::Begin(ReplayFrom::Offset(offset)) => begin(Begin::Offset(offset)),
        ReplayStep::Begin(ReplayFrom::Time(micros)) => begin(Begin::Time(micros)),
        ReplayStep::Status => ReplayAct::Status,
        ReplayStep::Cancel => ReplayAct::Cancel,
    }
}

fn ingest(wire: &WireIngest<'_>) -> Ingest {
    let mut position = wire.prev;
    let records = wire.records.iter().map(|record| {
        position += record.step;
        (position, owned(record.key), owned(record.value))
    });
    let records = records.collect();
    let (topic, input, slot) = (wire.topic, wire.input, wire.slot);
    Ingest { topic, input, slot, end: wire.end, prev: wire.prev, records }
}

/// One of the commonest operations, as [`operation`] gives it.
#[inline]
#[must_use]
pub fn common(wire: &Common<'_>) -> (OpCode, Operation) {
    match *wire {
        Common::Get(it) => (OpCode::Get, Operation::Get { table: it.table, key: it.key.into() }),
        Common::Put(it) => {
            let (key, value) = (it.key.into(), owned(it.value));
            (OpCode::Put, Operation::Put { table: it.table, sequence: sequence(it.sequence), key, value })
        }
    }
}

/// The operations on grains.
fn table_operation(wire: &WireOperation<'_>) -> Option<Operation> {
    Some(match wire {
        WireOperation::Get(it) => common(&Common::Get(*it)).1,
        WireOperation::Put(it) => common(&Common::Put(*it)).1,
        WireOperation::Delete(it) => {
            Operation::Delete { table: it.table, sequence: sequence(it.sequence), key: it.key.into() }
        }
        WireOperation::MapGet(it) => {
            Operation::MapGet { table: it.table, map: it.map, key: it.key.into(), entry: owned(it.entry_key) }
        }
        WireOperation::MapPut(it) => Operation::MapPut {
            table: it.table,
            map: it.map,
            sequence: sequence(it.sequence),
            key: it.key.into(),
            entry: owned(it.entry_key),
            value: owned(it.entry_value),
        },
        WireOperation::MapDelete(it) => Operation::MapDelete {
            table: it.table,
            map: it.map,
            sequence: sequence(it.sequence),
            key: it.key.into(),
            entry: owned(it.entry_key),
        },
        WireOperation::MapDeleteRange(it) => Operation::MapDeleteRange {
            table: it.table,
            map: it.map,
            sequence: sequence(it.sequence),
            key: it.key.into(),
            from: owned(it.from),
            to: it.to.map(owned),
        },
        WireOperation::Range(it) => Operation::Range {
            table: it.table,
            map: it.map,
            key: it.key.into(),
            from: owned(it.from),
            to: it.to.map(owned),
            limit: limit(it.limit, PAGE_ENTRIES_MAX),
            reverse: it.reverse,
        },
        WireOperation::Scan(it) => scan(it, false),
        WireOperation::Watch(it) => Operation::Watch(Box::new(watch(it))),
        WireOperation::Query(it) => query(it)?,
        WireOperation::Invoke(it) => Operation::Invoke {
            table: it.table,
            handler: it.handler,
            sequence: sequence(it.sequence),
            key: it.key.into(),
            payload: owned(it.payload),
        },
        WireOperation::CompareSet(it) => compare(it),
        WireOperation::GetVersioned(it) => Operation::GetVersioned {
            table: it.table,
            key: it.key.into(),
            entry: it.entry.map(|(map, key)| (map, owned(key))),
            after: it.after.map(|it| After {
                topic: it.topic,
                lane: it.lane,
                offset: it.offset,
                wait_millis: it.wait_millis,
            }),
        },
        WireOperation::Void(it) => Operation::Void { slot: it.slot, sequence: sequence(it.sequence) },
        other => return parked_operation(other),
    })
}

fn compare(wire: &CompareSet<'_>) -> Operation {
    let condition = match wire.condition {
        WireCondition::Absent => Condition::Absent,
        // Bytes that no server has given out are the version of nothing.
        WireCondition::Version(bytes) => Condition::Version(RowVersion::from_bytes(bytes).unwrap_or(RowVersion::NONE)),
        WireCondition::Value(value) => Condition::Value(owned(value)),
    };
    Operation::Compare {
        table: wire.table,
        sequence: sequence(wire.sequence),
        key: wire.key.into(),
        entry: wire.entry.map(|(map, key)| (map, owned(key))),
        condition,
        new: wire.new.map(owned),
    }
}

/// The operations on grains that are parked, and why one does not move.
fn parked_operation(wire: &WireOperation<'_>) -> Option<Operation> {
    Some(match wire {
        WireOperation::ParkedList(it) => scan(it, true),
        WireOperation::ParkedShow(it) => {
            Operation::ShowParked { table: it.table, key: it.key.into(), limit: limit(it.limit, PARKED_INPUTS_MAX) }
        }
        WireOperation::Why(it) => Operation::Why { table: it.table, key: it.key.into() },
        WireOperation::ParkedRetry(it) => {
            Operation::Retry { table: it.table, sequence: sequence(it.sequence), key: it.key.into() }
        }
        WireOperation::ParkedSkip(it) => Operation::Skip {
            table: it.table,
            sequence: sequence(it.sequence),
            key: it.key.into(),
            drop: it.drop,
            retry: it.retry,
            expect: it.expect.into(),
        },
        WireOperation::ParkedEdit(it) => Operation::Edit {
            table: it.table,
            sequence: sequence(it.sequence),
            key: it.key.into(),
            payload: owned(it.payload),
            expect: it.expect.into(),
        },
        _ => return None,
    })
}

fn scan(wire: &Scan<'_>, parked: bool) -> Operation {
    Operation::Scan {
        table: wire.table,
        prefix: owned(wire.prefix),
        after: wire.after.map(owned),
        limit: limit(wire.limit, PAGE_ENTRIES_MAX),
        local: wire.shard_local,
        parked,
    }
}

fn watch(wire: &WireWatch<'_>) -> Watch {
    Watch {
        table: wire.table,
        keys: if wire.is_key { WatchKeys::Key(wire.key.into()) } else { WatchKeys::Prefix(wire.key.into()) },
        positions: wire.positions.to_vec(),
        max_changes: limit(wire.max_changes, PAGE_ENTRIES_MAX),
        max_bytes: limit(wire.max_bytes, PAGE_BYTES_MAX as u32),
        wait_millis: wire.wait_millis,
    }
}

fn wire_change(view: &ChangeView) -> Change<'_> {
    let change = match &view.change {
        RowChange::Value(value) => WireChange::Value(value),
        RowChange::NoValue => WireChange::NoValue,
        RowChange::Entry(map, key, value) => WireChange::Entry(*map, key, value),
        RowChange::NoEntry(map, key) => WireChange::NoEntry(*map, key),
        RowChange::NoRange(map, from, to) => WireChange::NoRange(*map, from, to.as_deref()),
        RowChange::NoGrain => WireChange::NoGrain,
        RowChange::GrainExpired => WireChange::GrainExpired,
        RowChange::EntryExpired(map, key) => WireChange::EntryExpired(*map, key),
    };
    Change { slot: view.slot, ssn: view.ssn, time: view.micros.cast_signed(), key: &view.key, change }
}

/// `None` if its filter is none, which decoding does not let through.
fn query(wire: &Query<'_>) -> Option<Operation> {
    Some(Operation::Query {
        table: wire.table,
        prefix: owned(wire.prefix),
        after: wire.after.map(owned),
        limit: limit(wire.limit, PAGE_ENTRIES_MAX),
        local: wire.shard_local,
        scan: wire.scan,
        filter: Arc::new(wire.filter().ok()?),
    })
}

fn owned(bytes: &[u8]) -> Bytes {
    bytes.into()
}

fn sequence(wire: WireSequence) -> Sequence {
    Sequence { seq: wire.seq, ack: wire.ack }
}

fn headers(wire: Headers<'_>) -> Vec<(Bytes, Bytes)> {
    wire.iter().map(|(name, value)| (owned(name.as_bytes()), owned(value))).collect()
}

/// What a client asks for, where 0 leaves it to the server and nobody gets more than `allowed`.
fn limit(asked: u32, allowed: u32) -> u32 {
    if asked == 0 { allowed } else { asked.min(allowed) }
}

/// The status of a refusal.
#[must_use]
pub fn status(code: Code) -> Status {
    match code {
        Code::BadRequest => Status::BadRequest,
        Code::UnknownName => Status::UnknownName,
        Code::WrongType => Status::WrongType,
        // The shard's definite refusals cover their position. `too_large` says that the position is free: it is of
        // bytes that no shard has seen.
        Code::TooLarge => Status::BadRequest,
        Code::Parked => Status::Parked,
        Code::NotThere => Status::NotFound,
        Code::KeyFull => Status::KeyFull,
        Code::Capacity => Status::Capacity,
        Code::Gap { .. } => Status::Gap,
        Code::Expired => Status::Expired,
        Code::Forgotten => Status::Forgotten,
        Code::SentAgain => Status::UnknownOutcome,
        Code::NotReady => Status::NotReady,
        Code::Failed => Status::Failed,
        Code::Damaged => Status::Damaged,
        Code::Gone => Status::Gone,
        Code::HandlerFailed => Status::HandlerFailed,
        Code::Unsupported => Status::Unsupported,
        Code::Internal => Status::Internal,
    }
}

/// An outcome as a version of the protocol can say it: what it has no status for in one that means the same for the client.
pub(crate) fn in_version(version: u16, outcome: Result<Answer, Refusal>) -> Result<Answer, Refusal> {
    match outcome {
        Err(Refusal { code: Code::KeyFull, message }) if version < 2 => Err(Refusal::new(Code::HandlerFailed, message)),
        outcome => outcome,
    }
}

/// Whether an operation reads state and is answered at once, so that it may be held back, or refused, while its client
/// does not take results. A read of a topic, and one with a version, may wait for events and is held back by nothing.
pub(crate) fn is_read(code: OpCode) -> bool {
    matches!(
        code,
        OpCode::Get
            | OpCode::MapGet
            | OpCode::Range
            | OpCode::Scan
            | OpCode::Query
            | OpCode::ParkedList
            | OpCode::ParkedShow
            | OpCode::Why
    )
}

/// Whether an operation of a client appends to the log whenever it does something. It may be left at the door for some
/// milliseconds where the log is too long.
pub(crate) fn is_write(code: OpCode) -> bool {
    matches!(
        code,
        OpCode::Produce
            | OpCode::Append
            | OpCode::Ingest
            | OpCode::Put
            | OpCode::Delete
            | OpCode::MapPut
            | OpCode::MapDelete
            | OpCode::MapDeleteRange
            | OpCode::CompareSet
            | OpCode::Invoke
    )
}

/// Bytes of keys and values that an answer carries.
#[must_use]
pub fn answer_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Value(Some(value)) | Answer::Row(Some((_, value))) => value.len(),
        Answer::Json(text) => text.len(),
        Answer::Changes(changes) => changes.weight(),
        Answer::Events { events, .. } => events.iter().map(|it| it.key.len() + it.value.len()).sum(),
        Answer::Batches { batches, .. } => batches.iter().map(|batch| batch.bytes.len()).sum(),
        Answer::Entries { entries, .. } => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        Answer::Rows { rows, .. } | Answer::Found { rows, .. } => {
            rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |it| it.len())).sum()
        }
        _ => 0,
    }
}

/// Writes the result of an operation that the shard has answered. One that does not fit a frame is answered as a
/// fault of the server.
pub fn write_outcome(writer: &mut ResultWriter<'_>, tag: Tag, outcome: &Result<Answer, Refusal>) {
    match outcome {
        Ok(Answer::Done) => writer.empty(tag.correlation),
        Ok(Answer::Value(None)) if matches!(tag.code, OpCode::Get | OpCode::MapGet) => {
            let what = if tag.code == OpCode::Get { "the grain has no value" } else { "the map has no such entry" };
            writer.failure(tag.correlation, &Failure::new(Status::NotFound, what));
        }
        Ok(answer) => {
            if let Err(error) = write_answer(writer, tag.correlation, answer) {
                let message = format!("the answer cannot be sent: {error}");
                writer.failure(tag.correlation, &Failure::new(Status::Internal, &message));
            }
        }
        Err(refusal) => writer.failure(tag.correlation, &failure(refusal)),
    }
}

/// Writes what the server says of itself.
pub(crate) fn write_small(writer: &mut ResultWriter<'_>, correlation: u32, reply: &Reply<'_>) {
    writer.reply(correlation, reply).expect("what the server says of itself is within the limits");
}

fn failure(refusal: &Refusal) -> Failure<'_> {
    match refusal.code {
        Code::Gap { expected } => Failure::gap(expected, &refusal.message),
        code => Failure::new(status(code), &refusal.message),
    }
}

fn write_answer(writer: &mut ResultWriter<'_>, correlation: u32, answer: &Answer) -> Result<(), DecodeError> {
    let reply = match answer {
        // A session is told by the reply to hello; here it is the answer to a position that void asks about.
        Answer::Done | Answer::Session(..) => Reply::Empty,
        Answer::Appended { lane, offset } => Reply::Produced(Produced { lane: *lane, offset: *offset }),
        Answer::Ingested(received) => Reply::Ingested(*received),
        &Answer::Offsets { start, end, at } => Reply::Offsets(LaneOffsets { start, end, at }),
        Answer::Value(value) => return writer.value(correlation, value.as_deref().unwrap_or_default()),
        Answer::Json(text) => Reply::Json(text.as_str().into()),
        Answer::Row(None) => Reply::Versioned(Versioned::Absent),
        Answer::Row(Some((version, value))) => {
            let version = version.to_bytes();
            return writer.reply(correlation, &Reply::Versioned(Versioned::Row { version: &version, value }));
        }
        Answer::NotYet(what) => Reply::Versioned(Versioned::NotYet(what)),
        Answer::Compared { done, version, value } => {
            let version = version.map(RowVersion::to_bytes);
            let compared =
                Compared { done: *done, version: version.as_ref().map(|it| &it[..]), value: value.as_deref() };
            return writer.reply(correlation, &Reply::Compared(compared));
        }
        Answer::Events { end, next, events } => return write_events(writer, correlation, *end, *next, events),
        Answer::Batches { end, next, batches } => {
            let batches = batches.iter();
            let batches = batches.map(|it| (it.first, it.append_micros.cast_signed(), it.count, &*it.bytes));
            return writer.fetch(correlation, *end, *next, batches);
        }
        Answer::Entries { entries, more } => {
            return writer.range(correlation, *more, entries.iter().map(|(key, value)| Entry { key, value }));
        }
        Answer::Changes(it) => {
            let changes = it.changes.iter().map(wire_change);
            return writer.watch(correlation, it.more, &it.positions, &it.elsewhere, changes);
        }
        Answer::Rows { rows, more } => {
            let rows = rows.iter().map(|(key, value)| Row { key, value: value.as_deref() });
            return writer.scan(correlation, *more, rows);
        }
        Answer::Found { rows, next, looked, index } => {
            let rows = rows.iter().map(|(key, value)| Row { key, value: value.as_deref() });
            return writer.query(correlation, next.as_deref(), (*looked, index.as_deref()), rows);
        }
    };
    writer.reply(correlation, &reply)
}

fn write_events(
    writer: &mut ResultWriter<'_>,
    correlation: u32,
    end: Offset,
    next: Offset,
    events: &[EventView],
) -> Result<(), DecodeError> {
    let headers = events.iter().map(wire_headers).collect::<Result<Vec<_>, _>>()?;
    let events = events.iter().zip(&headers).map(|(event, headers)| Event {
        offset: event.offset,
        event_time: event.event_micros.cast_signed(),
        append_time: event.append_micros.cast_signed(),
        key: &event.key,
        value: &event.value,
        headers: headers.as_headers(),
    });
    writer.read(correlation, end, next, events)
}

fn wire_headers(event: &EventView) -> Result<HeadersBuf, DecodeError> {
    let mut buf = HeadersBuf::default();
    for (name, value) in &event.headers {
        let name = std::str::from_utf8(name).map_err(|_| DecodeError::NotUtf8("header name"))?;
        buf.push(name, value)?;
    }
    Ok(buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::ids::{LaneId, TableId, TopicId};
    use gristmill_wire::{Deframer, FrameKind, Get, Read};

    fn written(tag: Tag, outcome: &Result<Answer, Refusal>, check: impl FnOnce(Result<Reply<'_>, Failure<'_>>)) {
        let mut bytes = Vec::new();
        write_outcome(&mut ResultWriter::new(&mut bytes), tag, outcome);
        let mut deframer = Deframer::new(FrameKind::Results);
        deframer.push(&bytes);
        let frame = deframer.next_frame().unwrap().expect("a whole frame");
        let answer = frame.results().next().expect("one result").unwrap();
        assert_eq!(answer.correlation, tag.correlation);
        check(answer.outcome(tag.code).unwrap());
    }

    fn tag(code: OpCode) -> Tag {
        Tag { correlation: 77, code, credit_bytes: 20 }
    }

    #[test]
    fn a_full_key_is_told_in_words_of_the_version() {
        let full = || Err(Refusal::new(Code::KeyFull, "full"));
        let told = |version| in_version(version, full()).map_err(|it| status(it.code));
        assert_eq!((told(1), told(2)), (Err(Status::HandlerFailed), Err(Status::KeyFull)));
        assert_eq!(Status::KeyFull.position(), Status::HandlerFailed.position());
    }

    #[test]
    fn tags_come_back() {
        for code in OpCode::ALL {
            for (correlation, credit_bytes) in [(0, 0), (u32::MAX - 1, (1 << 24) - 1), (5, 9)] {
                let tag = Tag { correlation, code: *code, credit_bytes };
                assert_eq!(Tag::unpack(tag.pack()), tag);
            }
        }
    }

    #[test]
    fn zero_leaves_limits_to_the_server_and_nobody_gets_more() {
        let read = |max_records, max_bytes| {
            let (topic, lane) = (TopicId(1), LaneId(2));
            let wire = Read { topic, lane, from: Offset(0), max_records, max_bytes, wait_millis: 3 };
            match operation(&WireOperation::Read(wire)).unwrap() {
                Operation::Read { from: Offset(0), max_events, max_bytes, wait_millis: 3, .. } => {
                    (max_events, max_bytes)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read(0, 0), (PAGE_ENTRIES_MAX, PAGE_BYTES_MAX as u32));
        assert_eq!(read(u32::MAX, u32::MAX), (PAGE_ENTRIES_MAX, PAGE_BYTES_MAX as u32));
        assert_eq!(read(7, 8), (7, 8));
    }

    #[test]
    fn nothing_there_is_not_found_for_reads_and_empty_for_invoke() {
        let nothing = Ok(Answer::Value(None));
        written(tag(OpCode::Get), &nothing, |it| assert_eq!(it.unwrap_err().status(), Status::NotFound));
        written(tag(OpCode::MapGet), &nothing, |it| assert_eq!(it.unwrap_err().status(), Status::NotFound));
        written(tag(OpCode::Invoke), &nothing, |it| assert_eq!(it.unwrap(), Reply::Value(b"")));
        written(tag(OpCode::Void), &nothing, |it| assert_eq!(it.unwrap(), Reply::Empty));
    }

    #[test]
    fn events_keep_times_before_1970_and_headers() {
        let event = EventView {
            offset: Offset(4),
            event_micros: (-1_i64).cast_unsigned(),
            append_micros: 9,
            key: owned(b"k"),
            value: owned(b"v"),
            headers: vec![(owned(b"name"), owned(b"\xff"))],
        };
        let answer = Ok(Answer::Events { end: Offset(9), next: Offset(5), events: vec![event] });
        written(tag(OpCode::Read), &answer, |it| {
            let Ok(Reply::Read(page)) = it else { panic!("{it:?}") };
            assert_eq!((page.end, page.next), (Offset(9), Offset(5)));
            let events: Vec<_> = page.events.iter().collect();
            assert_eq!((events[0].event_time, events[0].append_time), (-1, 9));
            assert_eq!(events[0].headers.iter().collect::<Vec<_>>(), [("name", &b"\xff"[..])]);
        });
    }

    #[test]
    fn gaps_carry_what_is_expected_and_others_their_message() {
        let gap = Err(Refusal::new(Code::Gap { expected: 12 }, "13 came"));
        written(tag(OpCode::Put), &gap, |it| assert_eq!(it.unwrap_err().expected(), Some(12)));
        let unknown = Err(Refusal::new(Code::UnknownName, "no table 9"));
        written(tag(OpCode::Put), &unknown, |it| {
            assert_eq!(it.unwrap_err(), Failure::new(Status::UnknownName, "no table 9"));
        });
    }

    #[test]
    fn definite_refusals_of_the_shard_cover_their_position() {
        for code in [Code::BadRequest, Code::UnknownName, Code::WrongType, Code::TooLarge, Code::Parked] {
            assert_eq!(status(code).position(), gristmill_wire::Position::Taken, "{code:?}");
        }
        for code in [Code::Capacity, Code::Gap { expected: 1 }, Code::Expired] {
            assert_eq!(status(code).position(), gristmill_wire::Position::Free, "{code:?}");
        }
    }

    #[test]
    fn a_page_too_long_for_a_frame_is_a_fault_of_the_server() {
        let big: Bytes = vec![0; 8 << 20].into();
        let entries = vec![(owned(b"a"), big.clone()), (owned(b"b"), big)];
        let answer = Ok(Answer::Entries { entries, more: false });
        written(tag(OpCode::Range), &answer, |it| assert_eq!(it.unwrap_err().status(), Status::Internal));
    }

    #[test]
    fn hello_and_ping_stay_with_the_connection() {
        assert!(operation(&WireOperation::Ping).is_none());
        let get = WireOperation::Get(Get { table: TableId(3), key: b"k" });
        assert!(matches!(operation(&get), Some(Operation::Get { table: TableId(3), .. })));
    }
}
