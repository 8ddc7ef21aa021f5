//! Requests and replies of simulated clients as the native protocol has them. The other direction is that of `net`, so a
//! mistake in one of them is seen.

use gristmill_base::event_batch::{BatchEvent, check_batch};
use gristmill_base::ids::Offset;
use gristmill_core::request::{
    Answer, BatchFormat, BatchView, Code, Condition, EventView, Operation, Refusal, RowVersion, Sequence,
};
use gristmill_wire::{
    After, Append, CompareSet, Condition as WireCondition, Delete, EditParked, EventBatchBuf, Failure, Get,
    GetVersioned, HeadersBuf, Invoke, LaneOffsets, MapDelete, MapDeleteRange, MapGet, MapPut, OpCode,
    Operation as WireOperation, Produce, Put, Query, Range, Read, Reply, RetryParked, Scan, Sequence as WireSequence,
    ShowParked, SkipParked, Status, Versioned, Void, Why,
};

fn sequence(of: Sequence) -> WireSequence {
    WireSequence { seq: of.seq, ack: of.ack }
}

/// Calls `then` with an operation of a client as it goes over the wire.
///
/// # Panics
/// On operations of operators, which no client sends.
pub(super) fn with_wire<T>(operation: &Operation, then: impl FnOnce(WireOperation<'_>) -> T) -> T {
    let mut buf = HeadersBuf::default();
    let mut events = EventBatchBuf::default();
    let version = match operation {
        Operation::Compare { condition: Condition::Version(version), .. } => version.to_bytes(),
        _ => [0; RowVersion::BYTES],
    };
    let mut filter_bytes = Vec::new();
    then(match operation {
        Operation::Produce { topic, sequence: at, key, value, headers, event_micros } => {
            for (name, value) in headers {
                let name = std::str::from_utf8(name).expect("workloads name headers in UTF-8");
                buf.push(name, value).expect("workloads keep to the limits");
            }
            WireOperation::Produce(Produce {
                topic: *topic,
                sequence: sequence(*at),
                event_time: event_micros.cast_signed(),
                key,
                value,
                headers: buf.as_headers(),
            })
        }
        Operation::Read { topic, lane, from, max_events, max_bytes, wait_millis } => WireOperation::Read(Read {
            topic: *topic,
            lane: *lane,
            from: *from,
            max_records: *max_events,
            max_bytes: *max_bytes,
            wait_millis: *wait_millis,
        }),
        Operation::Append { topic, lane, sequence: at, batch } => {
            // As whoever has events puts them together.
            let add = |_: u32, event: BatchEvent<'_>| {
                let mut headers = HeadersBuf::default();
                for (name, value) in event.headers.iter() {
                    headers.push(std::str::from_utf8(name).expect("names are UTF-8"), value)?;
                }
                events.push(event.event_micros.cast_signed(), event.key, event.value, &headers.as_headers())
            };
            check_batch(batch.count, &batch.bytes, add).expect("workloads keep to the limits");
            let (topic, lane, batch) = (*topic, *lane, events.as_batch());
            WireOperation::Append(Append { topic, sequence: sequence(*at), lane, batch })
        }
        Operation::Fetch { topic, lane, from, max_events, max_bytes, wait_millis, as_stored: false } => {
            let (max_records, max_bytes, wait_millis) = (*max_events, *max_bytes, *wait_millis);
            let (topic, lane, from) = (*topic, *lane, *from);
            WireOperation::Fetch(Read { topic, lane, from, max_records, max_bytes, wait_millis })
        }
        Operation::Void { slot, sequence: at } => WireOperation::Void(Void { slot: *slot, sequence: sequence(*at) }),
        Operation::Compare { .. } | Operation::GetVersioned { .. } => of_row(operation, &version),
        Operation::Query { table, prefix, after, limit, local, scan, filter } => {
            filter.encode(&mut filter_bytes);
            WireOperation::Query(Query {
                table: *table,
                prefix,
                after: after.as_deref(),
                shard_local: *local,
                scan: *scan,
                limit: *limit,
                filter: &filter_bytes,
            })
        }
        other => of_table(other),
    })
}

fn of_table(operation: &Operation) -> WireOperation<'_> {
    match operation {
        Operation::Get { table, key } => WireOperation::Get(Get { table: *table, key }),
        Operation::Put { table, sequence: at, key, value } => {
            WireOperation::Put(Put { table: *table, sequence: sequence(*at), key, value })
        }
        Operation::Delete { table, sequence: at, key } => {
            WireOperation::Delete(Delete { table: *table, sequence: sequence(*at), key })
        }
        Operation::MapGet { table, map, key, entry } => {
            WireOperation::MapGet(MapGet { table: *table, map: *map, key, entry_key: entry })
        }
        Operation::MapPut { table, map, sequence: at, key, entry, value } => WireOperation::MapPut(MapPut {
            table: *table,
            map: *map,
            sequence: sequence(*at),
            key,
            entry_key: entry,
            entry_value: value,
        }),
        Operation::MapDelete { table, map, sequence: at, key, entry } => WireOperation::MapDelete(MapDelete {
            table: *table,
            map: *map,
            sequence: sequence(*at),
            key,
            entry_key: entry,
        }),
        Operation::MapDeleteRange { table, map, sequence: at, key, from, to } => {
            let (table, map, sequence) = (*table, *map, sequence(*at));
            WireOperation::MapDeleteRange(MapDeleteRange { table, map, sequence, key, from, to: to.as_deref() })
        }
        Operation::Range { table, map, key, from, to, limit, reverse } => WireOperation::Range(Range {
            table: *table,
            map: *map,
            key,
            from,
            to: to.as_deref(),
            reverse: *reverse,
            limit: *limit,
        }),
        Operation::Scan { table, prefix, after, limit, local, parked } => {
            let scan = Scan { table: *table, prefix, after: after.as_deref(), shard_local: *local, limit: *limit };
            if *parked { WireOperation::ParkedList(scan) } else { WireOperation::Scan(scan) }
        }
        Operation::ShowParked { table, key, limit } => {
            WireOperation::ParkedShow(ShowParked { table: *table, key, limit: *limit })
        }
        Operation::Why { table, key } => WireOperation::Why(Why { table: *table, key }),
        Operation::Retry { table, sequence: at, key } => {
            WireOperation::ParkedRetry(RetryParked { table: *table, sequence: sequence(*at), key })
        }
        Operation::Skip { table, sequence: at, key, drop, retry, expect } => {
            let (table, sequence, drop, retry) = (*table, sequence(*at), *drop, *retry);
            WireOperation::ParkedSkip(SkipParked { table, sequence, drop, retry, key, expect })
        }
        Operation::Edit { table, sequence: at, key, payload, expect } => {
            WireOperation::ParkedEdit(EditParked { table: *table, sequence: sequence(*at), key, expect, payload })
        }
        Operation::Invoke { table, handler, sequence: at, key, payload } => {
            WireOperation::Invoke(Invoke { table: *table, handler: *handler, sequence: sequence(*at), key, payload })
        }
        other => unreachable!("no client sends {other:?}"),
    }
}

fn get_versioned(operation: &Operation) -> WireOperation<'_> {
    match operation {
        Operation::GetVersioned { table, key, entry, after } => WireOperation::GetVersioned(GetVersioned {
            table: *table,
            key,
            entry: entry.as_ref().map(|(map, entry)| (*map, &**entry)),
            after: after.map(|it| After {
                topic: it.topic,
                lane: it.lane,
                offset: it.offset,
                wait_millis: it.wait_millis,
            }),
        }),
        other => unreachable!("{other:?} is about no version"),
    }
}

/// What is about versions; `version` are the bytes of that of a condition.
fn of_row<'a>(operation: &'a Operation, version: &'a [u8]) -> WireOperation<'a> {
    let Operation::Compare { table, sequence: at, key, entry, condition, new } = operation else {
        return get_versioned(operation);
    };
    WireOperation::CompareSet(CompareSet {
        table: *table,
        sequence: sequence(*at),
        key,
        entry: entry.as_ref().map(|(map, entry)| (*map, &**entry)),
        condition: match condition {
            Condition::Absent => WireCondition::Absent,
            Condition::Version(_) => WireCondition::Version(version),
            Condition::Value(value) => WireCondition::Value(value),
        },
        new: new.as_deref(),
    })
}

/// What a result says, as the shard said it.
///
/// # Errors
/// A status that no good client gets.
pub(super) fn from_wire(
    code: OpCode,
    outcome: Result<Reply<'_>, Failure<'_>>,
) -> Result<Result<Answer, Refusal>, String> {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(failure) if failure.status() == Status::NotFound && matches!(code, OpCode::Get | OpCode::MapGet) => {
            return Ok(Ok(Answer::Value(None)));
        }
        Err(failure) => return Ok(Err(Refusal::new(refusal_code(code, &failure)?, failure.message()))),
    };
    Ok(Ok(match reply {
        Reply::Empty => Answer::Done,
        Reply::Produced(it) => Answer::Appended { lane: it.lane, offset: it.offset },
        Reply::Value(value) => Answer::Value((code != OpCode::Invoke || !value.is_empty()).then(|| value.into())),
        Reply::Read(page) => {
            let events = page.events.iter().map(|event| EventView {
                offset: event.offset,
                event_micros: event.event_time.cast_unsigned(),
                append_micros: event.append_time.cast_unsigned(),
                key: event.key.into(),
                value: event.value.into(),
                headers: event.headers.iter().map(|(name, value)| (name.as_bytes().into(), value.into())).collect(),
            });
            Answer::Events { end: Offset(page.end.0), next: Offset(page.next.0), events: events.collect() }
        }
        Reply::Fetch(page) => {
            let batches = page.batches().map(|batch| BatchView {
                format: BatchFormat::Native,
                first: batch.first,
                append_micros: batch.append_time.cast_unsigned(),
                count: batch.batch.count(),
                bytes: batch.batch.bytes().to_vec().into(),
            });
            Answer::Batches { end: page.end, next: page.next, batches: batches.collect() }
        }
        Reply::Range(page) => Answer::Entries {
            entries: page.entries.iter().map(|entry| (entry.key.into(), entry.value.into())).collect(),
            more: page.more,
        },
        Reply::Scan(page) => Answer::Rows {
            rows: page.rows.iter().map(|row| (row.key.into(), row.value.map(Into::into))).collect(),
            more: page.more,
        },
        Reply::Query(page) => Answer::Found {
            rows: page.rows.iter().map(|row| (row.key.into(), row.value.map(Into::into))).collect(),
            next: page.next.map(Into::into),
            looked: page.looked,
            index: page.index.map(str::to_owned),
        },
        Reply::Offsets(LaneOffsets { start, end, at }) => Answer::Offsets { start, end, at },
        Reply::Json(text) => Answer::Json(text.into_owned()),
        Reply::Compared(it) => Answer::Compared {
            done: it.done,
            version: it.version.and_then(RowVersion::from_bytes),
            value: it.value.map(Into::into),
        },
        Reply::Versioned(Versioned::Row { version, value }) => {
            let version = RowVersion::from_bytes(version).ok_or("net: a version that no shard gave out")?;
            Answer::Row(Some((version, value.into())))
        }
        Reply::Versioned(Versioned::Absent) => Answer::Row(None),
        Reply::Versioned(Versioned::NotYet(what)) => Answer::NotYet(what.to_owned()),
        other @ (Reply::Hello(_) | Reply::Ingested(_) | Reply::Watch(_)) => {
            return Err(format!("net: {code:?} was answered {other:?}"));
        }
    }))
}

fn refusal_code(code: OpCode, failure: &Failure<'_>) -> Result<Code, String> {
    Ok(match failure.status() {
        Status::BadRequest => Code::BadRequest,
        Status::NotFound => Code::NotThere,
        Status::UnknownName => Code::UnknownName,
        Status::WrongType => Code::WrongType,
        Status::Parked => Code::Parked,
        Status::KeyFull => Code::KeyFull,
        Status::Capacity => Code::Capacity,
        Status::Gap => Code::Gap { expected: failure.expected().unwrap_or(0) },
        Status::Expired => Code::Expired,
        Status::Forgotten => Code::Forgotten,
        Status::UnknownOutcome => Code::SentAgain,
        Status::Damaged => Code::Damaged,
        Status::Gone => Code::Gone,
        Status::NotReady => Code::NotReady,
        Status::Failed => Code::Failed,
        Status::HandlerFailed => Code::HandlerFailed,
        _ => return Err(format!("net: {code:?} was answered {failure}")),
    })
}
