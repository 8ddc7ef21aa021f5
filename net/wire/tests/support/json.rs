//! Messages as JSON, for the vectors. Bytes are text where they are UTF-8 without control characters, else `{"hex": …}`.

use gristmill_base::limits::{FRAME_BYTES_BEFORE_HELLO, FRAME_BYTES_MAX};
use gristmill_wire::{
    Condition, Deframer, Failure, FrameKind, Headers, HelloReply, OpCode, Operation, ReplayFrom, ReplayStep, Reply,
    Sequence, Status, Versioned,
};
use serde_json::{Value, json};

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a hexadecimal text.
pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => json!(text),
        _ => json!({ "hex": hex(bytes) }),
    }
}

fn headers(headers: &Headers<'_>) -> Value {
    headers.iter().map(|(name, value)| json!([name, bytes(value)])).collect()
}

/// What the bytes say to a server (requests) or to a client (results, of these operations in turn).
pub fn decode(input: &[u8], kind: FrameKind, codes: &[OpCode]) -> Vec<Value> {
    let mut deframer = Deframer::new(kind);
    let before_hello = input.len() <= FRAME_BYTES_BEFORE_HELLO && kind == FrameKind::Requests;
    deframer.allow(if before_hello { FRAME_BYTES_BEFORE_HELLO } else { FRAME_BYTES_MAX });
    deframer.push(input);
    let frame = match deframer.next_frame() {
        Ok(Some(frame)) => frame,
        Ok(None) => return vec![json!({ "incomplete": true })],
        Err(error) => {
            let (name, status) = (error.name(), error.status().name());
            return vec![json!({ "frame_error": name, "status": status, "message": error.to_string() })];
        }
    };
    match kind {
        FrameKind::Requests => frame
            .requests()
            .map(|item| match item {
                Err(error) => json!({ "status": Status::of_decode_error(&error).name(), "message": error.to_string() }),
                Ok(request) => match request.operation() {
                    Ok(operation) => {
                        let (name, fields) = (operation.code().name(), fields(&operation));
                        let mut value =
                            json!({ "correlation": request.correlation, "operation": name, "fields": fields });
                        if request.class.is_bulk() {
                            value["class"] = json!("bulk");
                        }
                        value
                    }
                    Err(refusal) => json!({
                        "correlation": request.correlation,
                        "status": refusal.status.name(),
                        "message": refusal.message,
                    }),
                },
            })
            .collect(),
        FrameKind::Results => frame
            .results()
            .zip(codes)
            .map(|(item, code)| {
                let answer = item.expect("a good result");
                let outcome = answer.outcome(*code).expect("a good body");
                let mut value = outcome.map_or_else(|failure| failed(&failure), |reply| replied(&reply));
                value["correlation"] = json!(answer.correlation);
                value["operation"] = json!(code.name());
                value
            })
            .collect(),
    }
}

fn sequenced(mut fields: Value, sequence: Sequence) -> Value {
    fields["seq"] = json!(sequence.seq);
    fields["ack"] = json!(sequence.ack);
    fields
}

fn step_of(step: ReplayStep) -> (u8, u64) {
    match step {
        ReplayStep::Begin(ReplayFrom::Beginning) => (1, 0),
        ReplayStep::Begin(ReplayFrom::Offset(offset)) => (2, offset),
        ReplayStep::Begin(ReplayFrom::Time(micros)) => (3, micros),
        ReplayStep::Status => (4, 0),
        ReplayStep::Cancel => (5, 0),
    }
}

fn fields(operation: &Operation<'_>) -> Value {
    let value = match operation {
        Operation::Produce(o) => json!({
            "topic": o.topic.0, "event_time": o.event_time, "key": bytes(o.key), "value": bytes(o.value),
            "headers": headers(&o.headers),
        }),
        Operation::Append(o) => json!({
            "topic": o.topic.0, "lane": o.lane.0, "format": 2, "count": o.batch.count(), "batch": hex(o.batch.bytes()),
        }),
        Operation::Backup(o) => json!({ "step": o.step as u8, "cut": o.cut }),
        Operation::MoveSlot(o) => json!({ "slot": o.slot.0, "to": o.to.0 }),
        Operation::Ingest(o) => json!({
            "topic": o.topic.0, "input": o.input.0, "slot": o.slot.0, "end": o.end, "prev": o.prev,
            "records": o.records.iter()
                .map(|record| json!([record.step, bytes(record.key), bytes(record.value)]))
                .collect::<Vec<_>>(),
        }),
        Operation::Read(o) | Operation::Fetch(o) => json!({
            "topic": o.topic.0, "lane": o.lane.0, "from": o.from.0, "max_records": o.max_records,
            "max_bytes": o.max_bytes, "wait_millis": o.wait_millis,
        }),
        Operation::Offsets(o) => json!({ "topic": o.topic.0, "lane": o.lane.0, "time": o.time }),
        Operation::Get(o) => json!({ "table": o.table.0, "key": bytes(o.key) }),
        Operation::Put(o) => json!({ "table": o.table.0, "key": bytes(o.key), "value": bytes(o.value) }),
        Operation::Delete(o) => json!({ "table": o.table.0, "key": bytes(o.key) }),
        Operation::ParkedShow(o) => json!({ "table": o.table.0, "key": bytes(o.key), "limit": o.limit }),
        Operation::Why(o) => json!({ "table": o.table.0, "key": bytes(o.key) }),
        Operation::SubscriptionPause(o) => json!({ "app": o.app, "name": o.name, "paused": o.paused }),
        Operation::SubscriptionList(o) => json!({ "app": o.app }),
        Operation::ParkedRetry(o) => json!({ "table": o.table.0, "key": bytes(o.key) }),
        Operation::ParkedSkip(o) => {
            let mut skip = json!({ "table": o.table.0, "key": bytes(o.key), "drop": o.drop, "retry": o.retry });
            if !o.expect.is_empty() {
                skip["expect"] = o.expect.into();
            }
            skip
        }
        Operation::ParkedEdit(o) => {
            json!({ "table": o.table.0, "key": bytes(o.key), "expect": o.expect, "payload": bytes(o.payload) })
        }
        Operation::Scan(o) | Operation::ParkedList(o) => json!({
            "table": o.table.0, "prefix": bytes(o.prefix), "after": o.after.map(bytes), "shard_local": o.shard_local,
            "limit": o.limit,
        }),
        Operation::Query(o) => json!({
            "table": o.table.0, "prefix": bytes(o.prefix), "after": o.after.map(bytes), "shard_local": o.shard_local,
            "scan": o.scan, "limit": o.limit, "filter": hex(o.filter),
        }),
        Operation::Invoke(o) => json!({
            "table": o.table.0, "handler": o.handler.0, "key": bytes(o.key), "payload": bytes(o.payload),
        }),
        Operation::Void(o) => json!({ "slot": o.slot.0 }),
        Operation::CompareSet(_) | Operation::GetVersioned(_) => version_fields(operation),
        Operation::MapGet(_)
        | Operation::MapPut(_)
        | Operation::MapDelete(_)
        | Operation::MapDeleteRange(_)
        | Operation::Range(_)
        | Operation::Watch(_) => map_fields(operation),
        _ => app_fields(operation),
    };
    operation.sequence().map_or(value.clone(), |sequence| sequenced(value, sequence))
}

fn app_fields(operation: &Operation<'_>) -> Value {
    match operation {
        Operation::Ping | Operation::Status | Operation::AppList | Operation::TopicList => json!({}),
        Operation::Hello(o) => json!({
            "version_min": o.version_min, "version_max": o.version_max, "session": o.session.0, "key": hex(&o.key.0), "client": o.client,
            "mechanism": o.mechanism, "credentials": bytes(o.credentials),
        }),
        Operation::Describe(o) => json!({ "app": o.app }),
        Operation::AppDelete(o) => json!({ "app": o.app }),
        Operation::AppLoad(o) => {
            json!({ "force": o.force, "dry_run": o.dry_run, "file_name": o.file_name, "file": o.file })
        }
        Operation::AppReplay(o) => {
            let (step, number) = step_of(o.step);
            json!({ "app": o.app, "step": step, "number": number, "tables": o.tables })
        }
        Operation::AppVersions(o) => json!({ "app": o.app, "version": o.version }),
        Operation::AppSettle(o) => json!({ "app": o.app, "wait_millis": o.wait_millis }),
        other => panic!("{other:?} is about no app"),
    }
}

fn version_fields(operation: &Operation<'_>) -> Value {
    let entry = |entry: Option<(gristmill_base::ids::MapId, &[u8])>| {
        entry.map(|(map, key)| json!({ "map": map.0, "entry_key": bytes(key) }))
    };
    match operation {
        Operation::CompareSet(o) => {
            let condition = match o.condition {
                Condition::Absent => json!("absent"),
                Condition::Version(version) => json!({ "version": bytes(version) }),
                Condition::Value(value) => json!({ "value": bytes(value) }),
            };
            json!({
                "table": o.table.0, "key": bytes(o.key), "entry": entry(o.entry), "condition": condition,
                "new": o.new.map(bytes),
            })
        }
        Operation::GetVersioned(o) => {
            let after = o.after.map(|it| {
                json!({ "topic": it.topic.0, "lane": it.lane.0, "offset": it.offset.0, "wait_millis": it.wait_millis })
            });
            json!({ "table": o.table.0, "key": bytes(o.key), "entry": entry(o.entry), "after": after })
        }
        other => panic!("{other:?} is about no version"),
    }
}

fn map_fields(operation: &Operation<'_>) -> Value {
    match operation {
        Operation::MapGet(o) => {
            json!({ "table": o.table.0, "map": o.map.0, "key": bytes(o.key), "entry_key": bytes(o.entry_key) })
        }
        Operation::MapPut(o) => json!({
            "table": o.table.0, "map": o.map.0, "key": bytes(o.key), "entry_key": bytes(o.entry_key),
            "entry_value": bytes(o.entry_value),
        }),
        Operation::MapDelete(o) => {
            json!({ "table": o.table.0, "map": o.map.0, "key": bytes(o.key), "entry_key": bytes(o.entry_key) })
        }
        Operation::MapDeleteRange(o) => json!({
            "table": o.table.0, "map": o.map.0, "key": bytes(o.key), "from": bytes(o.from), "to": o.to.map(bytes),
        }),
        Operation::Watch(o) => json!({
            "table": o.table.0, "is_key": o.is_key, "key": bytes(o.key), "max_changes": o.max_changes,
            "max_bytes": o.max_bytes, "wait_millis": o.wait_millis, "positions": positions(&o.positions),
        }),
        Operation::Range(o) => json!({
            "table": o.table.0, "map": o.map.0, "key": bytes(o.key), "from": bytes(o.from), "to": o.to.map(bytes),
            "reverse": o.reverse, "limit": o.limit,
        }),
        other => panic!("{other:?} works on no map"),
    }
}

fn failed(failure: &Failure<'_>) -> Value {
    let mut value = json!({ "status": failure.status().name(), "message": failure.message() });
    if let Some(expected) = failure.expected() {
        value["expected"] = json!(expected);
    }
    if let Some((oldest, newest)) = failure.versions() {
        value["versions"] = json!([oldest, newest]);
    }
    value
}

fn replied(reply: &Reply<'_>) -> Value {
    let value = match reply {
        Reply::Hello(hello) => greeted(hello),
        Reply::Empty => Value::Null,
        Reply::Produced(produced) => json!({ "lane": produced.lane.0, "offset": produced.offset.0 }),
        Reply::Ingested(received) => json!({ "received": received }),
        Reply::Offsets(it) => json!({ "start": it.start.0, "end": it.end.0, "at": it.at.0 }),
        Reply::Value(value) => bytes(value),
        Reply::Compared(it) => {
            json!({ "done": it.done, "version": it.version.map(bytes), "value": it.value.map(bytes) })
        }
        Reply::Versioned(Versioned::Row { version, value }) => {
            json!({ "version": bytes(version), "value": bytes(value) })
        }
        Reply::Versioned(Versioned::Absent) => json!("absent"),
        Reply::Versioned(Versioned::NotYet(what)) => json!({ "not_yet": what }),
        Reply::Json(text) => json!({ "json": serde_json::from_str::<Value>(text).expect("JSON") }),
        Reply::Read(page) => {
            let events: Value = page
                .events
                .iter()
                .map(|event| {
                    json!({
                        "offset": event.offset.0, "event_time": event.event_time, "append_time": event.append_time,
                        "key": bytes(event.key), "value": bytes(event.value), "headers": headers(&event.headers),
                    })
                })
                .collect();
            json!({ "end": page.end.0, "next": page.next.0, "events": events })
        }
        Reply::Fetch(page) => {
            let batch = |it: gristmill_wire::ReadBatch<'_>| {
                json!({
                    "format": 2, "first": it.first.0, "append_time": it.append_time, "count": it.batch.count(),
                    "batch": hex(it.batch.bytes()),
                })
            };
            json!({ "end": page.end.0, "next": page.next.0, "batches": page.batches().map(batch).collect::<Value>() })
        }
        Reply::Watch(page) => {
            let elsewhere: Value = page.elsewhere().map(|(slot, shard)| json!([slot.0, shard.0])).collect();
            let changes: Value = page.changes().map(|change| change_json(&change)).collect();
            json!({ "more": page.more, "positions": positions(&page.positions), "elsewhere": elsewhere, "changes": changes })
        }
        Reply::Range(page) => {
            let entries: Value =
                page.entries.iter().map(|entry| json!([bytes(entry.key), bytes(entry.value)])).collect();
            json!({ "more": page.more, "entries": entries })
        }
        Reply::Scan(page) => {
            let rows: Value = page.rows.iter().map(|row| json!([bytes(row.key), row.value.map(bytes)])).collect();
            json!({ "more": page.more, "rows": rows })
        }
        Reply::Query(page) => {
            let rows: Value = page.rows.iter().map(|row| json!([bytes(row.key), row.value.map(bytes)])).collect();
            json!({ "next": page.next.map(bytes), "looked": page.looked, "index": page.index, "rows": rows })
        }
    };
    json!({ "status": "ok", "reply": value })
}

fn positions(positions: &gristmill_wire::Positions<'_>) -> Value {
    let one = |position: &gristmill_base::watch::WatchPosition| {
        let behind = position.behind.map(|it| json!({ "term": it.term.0, "ssn": it.ssn.0, "skip": it.skip }));
        json!({ "slot": position.slot.0, "behind": behind })
    };
    positions.to_vec().iter().map(one).collect()
}

fn change_json(it: &gristmill_wire::Change<'_>) -> Value {
    use gristmill_wire::RowChange;
    let what = match it.change {
        RowChange::Value(value) => json!({ "value": bytes(value) }),
        RowChange::NoValue => json!({ "no_value": true }),
        RowChange::Entry(map, key, value) => {
            json!({ "map": map.0, "entry_key": bytes(key), "entry_value": bytes(value) })
        }
        RowChange::NoEntry(map, key) => json!({ "map": map.0, "no_entry": bytes(key) }),
        RowChange::NoRange(map, from, to) => {
            json!({ "map": map.0, "no_entries_from": bytes(from), "to": to.map(bytes) })
        }
        RowChange::NoGrain => json!({ "no_grain": true }),
        RowChange::GrainExpired => json!({ "grain_expired": true }),
        RowChange::EntryExpired(map, key) => json!({ "map": map.0, "entry_expired": bytes(key) }),
    };
    json!({ "slot": it.slot.0, "ssn": it.ssn.0, "time": it.time, "key": bytes(it.key), "change": what })
}

fn greeted(hello: &HelloReply) -> Value {
    json!({
        "version": hello.version, "server": hello.server, "data_directory": hex(&hello.data_directory),
        "session": hello.session.0, "key": hex(&hello.key.0), "credit_requests": hello.credit_requests, "credit_bytes": hello.credit_bytes,
        "frame_bytes_max": hello.frame_bytes_max, "frame_operations_max": hello.frame_operations_max,
        "key_bytes_max": hello.key_bytes_max, "value_bytes_max": hello.value_bytes_max, "shard": hello.shard.0,
        "placement_version": hello.placement_version, "ports": hello.ports,
        "slots": hello.slots.iter().map(|shard| shard.0).collect::<Vec<_>>(),
    })
}
