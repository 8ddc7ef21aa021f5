//! One of every operation.

use gristmill_base::ids::{
    HandlerId, LaneId, MapId, Offset, SessionId, SessionKey, ShardId, SlotId, Ssn, TableId, TaskId, Term, TopicId,
};
use gristmill_base::watch::{Behind, WatchPosition};
use gristmill_wire::{
    After, AppDelete, AppLoad, AppReplay, AppSettle, AppVersions, Backup, BackupStep, CompareSet, Condition, Delete,
    Describe, EditParked, Get, GetVersioned, Headers, Hello, Ingest, Invoke, MapDelete, MapDeleteRange, MapGet, MapPut,
    MoveSlot, Offsets, OpCode, Operation, PauseSubscription, PositionsBuf, Produce, Put, Query, Range, Read,
    RecordsBuf, ReplayFrom, ReplayStep, RetryParked, Scan, Sequence, ShowParked, SkipParked, Void, Watch, Why,
};

use super::{Content, Sample, request};

const TABLE: TableId = TableId(2);
const MAP: MapId = MapId(0);

fn at(seq: u64, ack: u64) -> Sequence {
    Sequence { seq, ack }
}

/// All of them.
pub fn samples() -> Vec<Sample> {
    let mut all = connection();
    all.extend(topics());
    all.extend(tables());
    all.extend(maps());
    all.extend(watches());
    all.extend(versions());
    all.extend(parked());
    all.push(many());
    all
}

fn connection() -> Vec<Sample> {
    let hello = Hello::new("vectors 1.0");
    let proven = Hello { version_max: 3, mechanism: "token", credentials: &[0xde, 0xad], ..hello };
    vec![
        request("hello", "the first operation: a new session, no credentials", Operation::Hello(hello)),
        request(
            "hello-again",
            "goes on with a session, whose key it shows, speaks newer versions too, proves who it is",
            Operation::Hello(Hello { session: SessionId(65_537), key: SessionKey(*b"fedcba9876543210"), ..proven }),
        ),
        request("ping", "no body", Operation::Ping),
        request("status", "no body", Operation::Status),
        request("describe", "numbers and types of an app", Operation::Describe(Describe { app: "word-count" })),
        request(
            "app-load",
            "an app file, with force",
            Operation::AppLoad(AppLoad {
                force: true,
                dry_run: false,
                file_name: "app.yaml",
                file: "app: word-count\nlanguage: rust\n",
            }),
        ),
        request("app-list", "no body", Operation::AppList),
        request("app-delete", "an app by name", Operation::AppDelete(AppDelete { app: "word-count" })),
        request(
            "app-diff",
            "an app file: what it would change",
            Operation::AppLoad(AppLoad {
                force: false,
                dry_run: true,
                file_name: "app.yaml",
                file: "app: word-count\nlanguage: rust\n",
            }),
        ),
        request(
            "app-versions",
            "the file of version 3",
            Operation::AppVersions(AppVersions { app: "word-count", version: 3 }),
        ),
        request(
            "app-replay",
            "two tables anew from an offset on",
            Operation::AppReplay(AppReplay {
                app: "word-count",
                step: ReplayStep::Begin(ReplayFrom::Offset(300)),
                tables: "words,docs",
            }),
        ),
        request("topic-list", "no body", Operation::TopicList),
        request(
            "app-settle",
            "waits up to a minute until an app has settled",
            Operation::AppSettle(AppSettle { app: "word-count", wait_millis: 60_000 }),
        ),
        request(
            "backup",
            "the logs of cut 2 are copied",
            Operation::Backup(Backup { step: BackupStep::LogsCopied, cut: 2 }),
        ),
        request("move-slot", "slot 94 to shard 1", Operation::MoveSlot(MoveSlot { slot: SlotId(94), to: ShardId(1) })),
        request(
            "void",
            "position 300 of slot 94 will not be used",
            Operation::Void(Void { slot: SlotId(94), sequence: at(300, 299) }),
        ),
    ]
}

/// Two events for lane 62, the first one at the server's time.
const BATCH: &[u8] = b"\0\0\0\0\0\0\0\0\x06foobar\x011\0\x05\0\0\0\0\0\0\0\x06foobar\x012\x01\x01h\x01x";

fn append() -> Sample {
    let mut body = b"\x01\0\0\0\x02\x01\x3e\0\x02\x02".to_vec();
    body.extend_from_slice(BATCH);
    let operation = Operation::decode(OpCode::Append, body.leak()).expect("a good body");
    request("append", "a batch of two events for lane 62", operation)
}

fn topics() -> Vec<Sample> {
    let produce = Produce {
        topic: TopicId(1),
        sequence: at(1, 0),
        event_time: 0,
        key: b"foobar",
        value: br#"{"doc":"GPL-3","text":"of the"}"#,
        headers: Headers::default(),
    };
    // Two headers: "trace" = "abc", "empty" = "".
    let headers = Headers::decode(b"\x02\x05trace\x03abc\x05empty\x00").expect("two headers");
    vec![
        request("produce", "an event at the server's time, without headers", Operation::Produce(produce)),
        request(
            "produce-headers",
            "an event from before 1970, with two headers",
            Operation::Produce(Produce { sequence: at(129, 127), event_time: -1, headers, ..produce }),
        ),
        ingest(),
        append(),
        request(
            "fetch",
            "batches of lane 62 from offset 1",
            Operation::Fetch(Read {
                topic: TopicId(1),
                lane: LaneId(62),
                from: Offset(1),
                max_records: 0,
                max_bytes: 1 << 20,
                wait_millis: 0,
            }),
        ),
        Sample {
            name: "produce-bulk",
            about: "an event of class bulk",
            content: Content::Bulk(vec![(7, Operation::Produce(produce))]),
        },
        request(
            "read",
            "lane 62 from offset 1, waiting up to half a second",
            Operation::Read(Read {
                topic: TopicId(1),
                lane: LaneId(62),
                from: Offset(1),
                max_records: 100,
                max_bytes: 1 << 20,
                wait_millis: 500,
            }),
        ),
        request(
            "offsets",
            "where lane 62 begins and ends",
            Operation::Offsets(Offsets { topic: TopicId(1), lane: LaneId(62), time: None }),
        ),
        request(
            "offsets-since",
            "and where its events of 2026 begin",
            Operation::Offsets(Offsets { topic: TopicId(1), lane: LaneId(62), time: Some(1_767_225_600_000_000) }),
        ),
    ]
}

/// Three records of a bounded input; the second is for another slot.
fn ingest() -> Sample {
    let mut records = RecordsBuf::default();
    records.push(1, b"foobar", br#"{"n":1}"#).expect("a small record");
    records.push(2, b"foobar", br#"{"n":3}"#).expect("a small record");
    // Samples are never given back.
    let records = Box::leak(Box::new(records)).as_records();
    let ingest = Ingest { topic: TopicId(1), input: TaskId(9), slot: SlotId(126), end: false, prev: 200, records };
    Sample {
        name: "ingest",
        about: "records 201 and 203 of a bounded input, of class bulk",
        content: Content::Bulk(vec![(7, Operation::Ingest(ingest))]),
    }
}

fn tables() -> Vec<Sample> {
    let scan = Scan { table: TABLE, prefix: b"", after: None, shard_local: false, limit: 0 };
    vec![
        request("get", "the value of a grain", Operation::Get(Get { table: TABLE, key: b"foobar" })),
        request("get-empty-key", "the empty key is a key", Operation::Get(Get { table: TABLE, key: b"" })),
        request(
            "put",
            "position 1 of its slot, nothing received yet",
            Operation::Put(Put { table: TABLE, sequence: at(1, 0), key: b"foobar", value: b"one" }),
        ),
        request(
            "delete",
            "a whole grain",
            Operation::Delete(Delete { table: TABLE, sequence: at(2, 1), key: b"foobar" }),
        ),
        request("scan", "a whole table from its start", Operation::Scan(scan)),
        request(
            "scan-on",
            "the next page of a prefix, of this shard only",
            Operation::Scan(Scan { prefix: b"foo", after: Some(b"foobar"), shard_local: true, limit: 10, ..scan }),
        ),
        request(
            "query",
            "two grains at most of those with city = \"Bern\", whatever has to be looked at",
            Operation::Query(Query {
                table: TABLE,
                prefix: b"",
                after: Some(b"foobar"),
                shard_local: false,
                scan: true,
                limit: 2,
                filter: b"\x01\x04city\x01\x01\x06\"Bern\"",
            }),
        ),
        request(
            "invoke",
            "a handler with a payload",
            Operation::Invoke(Invoke {
                table: TABLE,
                handler: HandlerId(5),
                sequence: at(3, 2),
                key: b"foobar",
                payload: b"5",
            }),
        ),
    ]
}

fn versions() -> Vec<Sample> {
    let (sequence, key, entry) = (at(8, 7), b"foobar", Some((MAP, &b"the"[..])));
    let compare = CompareSet {
        table: TABLE,
        sequence,
        key,
        entry: None,
        condition: Condition::Version(b"v1"),
        new: Some(b"two"),
    };
    let (topic, lane, offset) = (TopicId(1), LaneId(62), Offset(1_000_000));
    let get = GetVersioned { table: TABLE, key, entry: None, after: None };
    vec![
        request("compare-set", "a value, if it still has a version", Operation::CompareSet(compare)),
        request(
            "compare-set-absent",
            "a map entry, if there is none",
            Operation::CompareSet(CompareSet { entry, condition: Condition::Absent, ..compare }),
        ),
        request(
            "compare-set-delete",
            "a map entry is deleted, if it has a value",
            Operation::CompareSet(CompareSet { entry, condition: Condition::Value(b"one"), new: None, ..compare }),
        ),
        request("get-versioned", "a value and its version", Operation::GetVersioned(get)),
        request(
            "get-versioned-after",
            "a map entry, once an event was handled; at most half a second is waited",
            Operation::GetVersioned(GetVersioned {
                entry,
                after: Some(After { topic, lane, offset, wait_millis: 500 }),
                ..get
            }),
        ),
    ]
}

fn parked() -> Vec<Sample> {
    let list = Scan { table: TABLE, prefix: b"", after: Some(b"foobar"), shard_local: false, limit: 100 };
    let (sequence, key) = (at(6, 5), b"foobar");
    vec![
        request("parked-list", "the next hundred parked grains of a table", Operation::ParkedList(list)),
        request(
            "parked-show",
            "why a grain is parked, and the first ten inputs that wait for it",
            Operation::ParkedShow(ShowParked { table: TABLE, key, limit: 10 }),
        ),
        request("why", "why a grain does not move", Operation::Why(Why { table: TABLE, key })),
        request(
            "subscription-pause",
            "a subscription hands no more events over",
            Operation::SubscriptionPause(PauseSubscription { app: "shop", name: "orders", paused: true }),
        ),
        request(
            "subscription-list",
            "the subscriptions of an app",
            Operation::SubscriptionList(Describe { app: "shop" }),
        ),
        request(
            "parked-retry",
            "a grain runs again",
            Operation::ParkedRetry(RetryParked { table: TABLE, sequence, key }),
        ),
        request(
            "parked-skip",
            "the first input is given up, without a dead letter if its handler has no topic for them, and the grain runs again",
            Operation::ParkedSkip(SkipParked { table: TABLE, sequence, drop: true, retry: true, key, expect: "" }),
        ),
        request(
            "parked-skip-named",
            "the first input is given up if it is the event at offset 17",
            Operation::ParkedSkip(SkipParked {
                table: TABLE,
                sequence,
                drop: false,
                retry: false,
                key,
                expect: "event:7:0:17",
            }),
        ),
        request(
            "parked-edit",
            "the first input gets another payload if it is the event at offset 17",
            Operation::ParkedEdit(EditParked { table: TABLE, sequence, key, expect: "event:7:0:17", payload: b"5" }),
        ),
    ]
}

fn watch_positions() -> gristmill_wire::Positions<'static> {
    let behind = Some(Behind { term: Term(3), ssn: Ssn(300), skip: 0 });
    let positions = [WatchPosition { slot: SlotId(1), behind }, WatchPosition { slot: SlotId(94), behind: None }];
    Box::leak(Box::new(PositionsBuf::new(&positions))).as_positions()
}

fn watches() -> Vec<Sample> {
    vec![request(
        "watch",
        "all grains whose keys begin with ab: of slot 1 behind record 300, of slot 94 from now on",
        Operation::Watch(Watch {
            table: TABLE,
            is_key: false,
            key: b"ab",
            max_changes: 0,
            max_bytes: 0,
            wait_millis: 10_000,
            positions: watch_positions(),
        }),
    )]
}

fn maps() -> Vec<Sample> {
    let range = Range { table: TABLE, map: MAP, key: b"t", from: b"", to: None, reverse: false, limit: 0 };
    vec![
        request(
            "map-get",
            "one entry",
            Operation::MapGet(MapGet { table: TABLE, map: MAP, key: b"t", entry_key: b"the" }),
        ),
        request(
            "map-put",
            "one entry; the value is the u64 7",
            Operation::MapPut(MapPut {
                table: TABLE,
                map: MAP,
                sequence: at(4, 3),
                key: b"t",
                entry_key: b"the",
                entry_value: &[0, 0, 0, 0, 0, 0, 0, 7],
            }),
        ),
        request(
            "map-delete",
            "one entry",
            Operation::MapDelete(MapDelete {
                table: TABLE,
                map: MapId(258),
                sequence: at(5, 3),
                key: b"t",
                entry_key: b"the",
            }),
        ),
        request(
            "map-delete-range",
            "from m up to but not including tz",
            Operation::MapDeleteRange(MapDeleteRange {
                table: TABLE,
                map: MAP,
                sequence: at(6, 3),
                key: b"t",
                from: b"m",
                to: Some(b"tz"),
            }),
        ),
        request(
            "map-delete-range-all",
            "a whole map",
            Operation::MapDeleteRange(MapDeleteRange {
                table: TABLE,
                map: MAP,
                sequence: at(7, 3),
                key: b"t",
                from: b"",
                to: None,
            }),
        ),
        request("range", "a whole map", Operation::Range(range)),
        request(
            "range-reverse",
            "from m up to but not including tz, last first, ten at most",
            Operation::Range(Range { from: b"m", to: Some(b"tz"), reverse: true, limit: 10, ..range }),
        ),
    ]
}

fn many() -> Sample {
    let put = Put { table: TABLE, sequence: at(1, 0), key: b"a", value: b"1" };
    let list = vec![
        (1, Operation::Put(put)),
        (2, Operation::Put(Put { sequence: at(2, 0), value: b"2", ..put })),
        (3, Operation::Get(Get { table: TABLE, key: b"a" })),
    ];
    Sample { name: "many", about: "three operations in one frame", content: Content::Requests(list) }
}
