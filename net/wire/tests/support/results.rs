//! One of every reply and of every failure.

use gristmill_base::ids::{LaneId, Offset, SessionId, SessionKey, ShardId};
use gristmill_wire::{
    CORRELATION_NONE, Compared, Failure, HelloReply, LaneOffsets, OpCode, Produced, Reply, Status, Versioned,
};

use super::{Content, Sample, json_reply, reply};

/// All of them.
pub fn samples() -> Vec<Sample> {
    let mut all = replies();
    all.extend(versions());
    all.extend(pages());
    all.extend(documents());
    all.extend(failures());
    all.push(several());
    all
}

fn versions() -> Vec<Sample> {
    vec![
        reply(
            "ok-compare-set",
            "it was made",
            OpCode::CompareSet,
            Reply::Compared(Compared { done: true, version: Some(b"v2"), value: None }),
        ),
        reply(
            "ok-compare-set-conflict",
            "the condition did not hold",
            OpCode::CompareSet,
            Reply::Compared(Compared { done: false, version: Some(b"v2"), value: Some(b"two") }),
        ),
        reply(
            "ok-compare-set-none",
            "the condition did not hold, and there is no such row",
            OpCode::CompareSet,
            Reply::Compared(Compared { done: false, version: None, value: None }),
        ),
        reply(
            "ok-get-versioned",
            "a value with its version",
            OpCode::GetVersioned,
            Reply::Versioned(Versioned::Row { version: b"v2", value: b"two" }),
        ),
        reply("ok-get-versioned-none", "no such row", OpCode::GetVersioned, Reply::Versioned(Versioned::Absent)),
        reply(
            "ok-get-versioned-not-yet",
            "the event was not handled in time",
            OpCode::GetVersioned,
            Reply::Versioned(Versioned::NotYet("event 9 waits")),
        ),
    ]
}

fn replies() -> Vec<Sample> {
    let hello = HelloReply {
        version: 2,
        server: "gristmill 0.1.0".to_owned(),
        data_directory: *b"0123456789abcdef",
        session: SessionId(65_537),
        key: SessionKey(*b"fedcba9876543210"),
        credit_requests: 4_096,
        credit_bytes: 4 << 20,
        frame_bytes_max: 16 << 20,
        frame_operations_max: 4_096,
        key_bytes_max: 64 << 10,
        value_bytes_max: 8 << 20,
        shard: ShardId(1),
        placement_version: 3,
        ports: vec![7401, 7402],
        slots: [0, 1, 0, 1, 0, 1, 0, 1].map(ShardId).to_vec(),
    };
    let produced = Produced { lane: LaneId(62), offset: Offset(1_000_000) };
    vec![
        reply("ok-hello", "two shards, eight slots", OpCode::Hello, Reply::Hello(hello)),
        reply("ok-ping", "no body", OpCode::Ping, Reply::Empty),
        reply("ok-produce", "where the event went", OpCode::Produce, Reply::Produced(produced)),
        reply("ok-append", "where the first event of the batch went", OpCode::Append, Reply::Produced(produced)),
        reply("ok-ingest", "the slot has the input up to record 203", OpCode::Ingest, Reply::Ingested(203)),
        reply(
            "ok-offsets",
            "a lane with the events 5 to 8, of which 7 is the first since the time",
            OpCode::Offsets,
            Reply::Offsets(LaneOffsets { start: Offset(5), end: Offset(9), at: Offset(7) }),
        ),
        reply("ok-get", "a value", OpCode::Get, Reply::Value(b"one")),
        reply("ok-put", "no body", OpCode::Put, Reply::Empty),
        reply("ok-delete", "no body", OpCode::Delete, Reply::Empty),
        reply("ok-map-get", "a value: the u64 7", OpCode::MapGet, Reply::Value(&[0, 0, 0, 0, 0, 0, 0, 7])),
        reply("ok-map-put", "no body", OpCode::MapPut, Reply::Empty),
        reply("ok-map-delete", "no body", OpCode::MapDelete, Reply::Empty),
        reply("ok-map-delete-range", "no body", OpCode::MapDeleteRange, Reply::Empty),
        reply("ok-invoke", "a handler's reply", OpCode::Invoke, Reply::Value(b"15")),
        reply("ok-invoke-silent", "the handler gave no reply", OpCode::Invoke, Reply::Value(b"")),
        reply("ok-parked-retry", "no body", OpCode::ParkedRetry, Reply::Empty),
        reply("ok-parked-skip", "no body", OpCode::ParkedSkip, Reply::Empty),
        reply("ok-parked-edit", "no body", OpCode::ParkedEdit, Reply::Empty),
        reply("ok-void", "no body", OpCode::Void, Reply::Empty),
    ]
}

fn pages() -> Vec<Sample> {
    // end 4, next 3; one event at offset 2: event time 1, append time 2, key "k", value "v", one header "h" = "x".
    const EVENTS: &[u8] = &[
        4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0,
        0, 0, 0, 1, b'k', 1, b'v', 1, 1, b'h', 1, b'x',
    ];
    const NO_EVENTS: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    const ENTRIES: &[u8] = b"\x01\x01a\x011\x02bc\x00";
    const ROWS: &[u8] = b"\x00\x01a\x01\x011\x01b\x00";
    const FOUND: &[u8] = b"\x01\x01b\x09\x01a\x01\x02{}";
    const FOUND_BY_INDEX: &[u8] = b"\x02\x01\x07by-city\x01a\x01\x02{}";
    const PARKED: &[u8] =
        b"\x00\x01k\x01\x4c{\"attempts\":2,\"reason\":\"out of stock\",\"since_micros\":1753900000,\"waiting\":3}";
    const WATCHED: &[u8] = b"\x01\x01\x01\0\x01\x03\xac\x02\0\x01\x5e\0\x01\0\
        \x01\0\xa5\x02\x07\0\0\0\0\0\0\0\x01k\x01\x01v\
        \x01\0\xa6\x02\x07\0\0\0\0\0\0\0\x01k\x02\
        \x01\0\xa7\x02\x07\0\0\0\0\0\0\0\x01k\x03\x02\0\x01a\x011\
        \x01\0\xa7\x02\x07\0\0\0\0\0\0\0\x01k\x04\x02\0\x01a\
        \x01\0\xa8\x02\x07\0\0\0\0\0\0\0\x01k\x05\x02\0\x01a\x01c\
        \x01\0\xa9\x02\x07\0\0\0\0\0\0\0\x01k\x06\x02\0\0\
        \x01\0\xaa\x02\x07\0\0\0\0\0\0\0\x01k\x07\
        \x01\0\xab\x02\x07\0\0\0\0\0\0\0\x01k\x08\
        \x01\0\xac\x02\x07\0\0\0\0\0\0\0\x01k\x09\x02\0\x01a";
    let page = |name, about, code, body| reply(name, about, code, Reply::decode(code, body).expect("a good body"));
    let mut batches = b"\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x02\x28".to_vec();
    batches.extend_from_slice(b"\0\0\0\0\0\0\0\0\x06foobar\x011\0\x05\0\0\0\0\0\0\0\x06foobar\x012\x01\x01h\x01x");
    vec![
        page("ok-fetch", "one batch of two events, and none behind it", OpCode::Fetch, batches.leak()),
        page("ok-read", "one event, and one more behind it", OpCode::Read, EVENTS),
        page("ok-read-empty", "an empty lane", OpCode::Read, NO_EVENTS),
        page("ok-range", "two entries, and more behind them", OpCode::Range, ENTRIES),
        page("ok-watch", "changes of every kind, slot 94 is at shard 1, and there is more", OpCode::Watch, WATCHED),
        page("ok-parked-list", "one parked grain, and no more", OpCode::ParkedList, PARKED),
        page("ok-query", "one grain of nine that were looked at, and perhaps more", OpCode::Query, FOUND),
        page(
            "ok-query-index",
            "one grain, which the index by-city has found, and no more",
            OpCode::Query,
            FOUND_BY_INDEX,
        ),
        page("ok-scan", "two grains, the second without a value, and no more", OpCode::Scan, ROWS),
    ]
}

fn documents() -> Vec<Sample> {
    const APP: &str = concat!(
        r#"{"app":"shop","id":1,"topics":[{"name":"orders","id":1,"key":"string","value":"json","lanes":64}],"#,
        r#""tables":[{"name":"stock","id":2,"key":"string","value":"i64","#,
        r#""maps":[{"name":"sold","id":0,"key":"string","value":"u64"}],"handlers":[{"name":"take","id":5}]}]}"#
    );
    vec![
        json_reply("ok-status", "one object; members may be added", OpCode::Status, r#"{"unsettled":0}"#),
        json_reply("ok-app-settle", "it has settled", OpCode::AppSettle, r#"{"settled":true,"parked":0,"grains":[]}"#),
        json_reply("ok-backup", "a cut is held", OpCode::Backup, r#"{"cut":2,"start":7,"lease_ms":30000}"#),
        json_reply("ok-move-slot", "it has moved", OpCode::MoveSlot, r#"{"slot":94,"from":0,"to":1,"moved":true}"#),
        json_reply(
            "ok-parked-show",
            "why, and the first input that waits; members may be added",
            OpCode::ParkedShow,
            concat!(
                r#"{"attempts":2,"reason":"out of stock","since_micros":1753900000,"waiting":3,"inputs":[{"cause":"event","#,
                r#""topic":"orders","lane":4,"offset":9,"event_micros":1,"operation":"call","handler":"take","payload":"5"}]}"#
            ),
        ),
        json_reply(
            "ok-why",
            "it is parked; members may be added",
            OpCode::Why,
            r#"{"state":"parked","because":"it is parked: out of stock","next":"gristmill parked show shop/stock a"}"#,
        ),
        json_reply(
            "ok-subscription-pause",
            "it is paused",
            OpCode::SubscriptionPause,
            r#"{"app":"shop","name":"orders","paused":true,"changed":true}"#,
        ),
        json_reply(
            "ok-subscription-list",
            "a list",
            OpCode::SubscriptionList,
            r#"[{"app":"shop","name":"orders","paused":true}]"#,
        ),
        json_reply("ok-describe", "numbers and types", OpCode::Describe, APP),
        json_reply("ok-app-load", "what was loaded", OpCode::AppLoad, r#"{"app":"shop","id":1}"#),
        json_reply(
            "ok-app-versions",
            "a version with its file",
            OpCode::AppVersions,
            r#"{"app":"shop","version":3,"file":"app: shop\n"}"#,
        ),
        json_reply(
            "ok-app-replay",
            "what is built anew",
            OpCode::AppReplay,
            r#"{"app":"shop","tables":["orders"],"id":9,"phase":"checking"}"#,
        ),
        json_reply("ok-app-list", "a list", OpCode::AppList, r#"[{"app":"shop","id":1}]"#),
        json_reply("ok-app-delete", "what was deleted", OpCode::AppDelete, r#"{"app":"shop","id":1}"#),
        json_reply(
            "ok-topic-list",
            "a list",
            OpCode::TopicList,
            r#"[{"app":"shop","name":"orders","id":1,"lanes":64}]"#,
        ),
    ]
}

fn failures() -> Vec<Sample> {
    let failure =
        |name, about, code, failure| Sample { name, about, content: Content::Results(vec![(7, code, Err(failure))]) };
    let plain = |name, about, code, status, message| failure(name, about, code, Failure::new(status, message));
    vec![
        plain("not-found", "no message", OpCode::Get, Status::NotFound, ""),
        plain("bad-request", "final", OpCode::Put, Status::BadRequest, "the session is 0: say hello with one"),
        plain("unknown-name", "final", OpCode::Describe, Status::UnknownName, "no app \"shup\"; there are: shop"),
        plain("wrong-type", "final", OpCode::Put, Status::WrongType, "a value of 3 bytes is not a i64"),
        plain("too-large", "free", OpCode::Put, Status::TooLarge, "put: key of 65537, at most 65536 allowed"),
        plain("parked", "final", OpCode::Invoke, Status::Parked, "the grain is parked since 12:00"),
        plain("capacity", "free", OpCode::Put, Status::Capacity, "8192 results wait for the client's ack"),
        failure("gap", "position 300 is expected", OpCode::Put, Failure::gap(300, "position 302 came")),
        plain("expired", "a new session is needed", OpCode::Put, Status::Expired, "session 65537 expired"),
        plain("not-ready", "free", OpCode::Get, Status::NotReady, "the shard is recovering"),
        plain(
            "unsupported-version",
            "the server speaks 1 to 2",
            OpCode::Hello,
            Status::UnsupportedVersion,
            "versions 3 to 4 asked for",
        ),
        plain("unauthenticated", "no hello yet", OpCode::Get, Status::Unauthenticated, "say hello first"),
        plain("failed", "unknown outcome", OpCode::Put, Status::Failed, "shard 0 stopped after a failed write"),
        plain("handler-failed", "final", OpCode::Invoke, Status::HandlerFailed, "not enough in stock"),
        plain("unsupported", "free", OpCode::Void, Status::Unsupported, "operation code 99 is not known"),
        plain("internal", "unknown outcome", OpCode::Put, Status::Internal, "a fault"),
        plain("unknown-outcome", "unknown outcome", OpCode::Put, Status::UnknownOutcome, "the shard went away"),
        plain("malformed", "free", OpCode::Put, Status::Malformed, "put: 1 bytes behind the end"),
        plain("forgotten", "final", OpCode::Put, Status::Forgotten, "position 3 was acked"),
        plain(
            "damaged",
            "final",
            OpCode::Read,
            Status::Damaged,
            "lanes/3-0.lane, bytes 0 to 99: events 1 to 9 are damaged",
        ),
        plain(
            "gone",
            "final",
            OpCode::Read,
            Status::Gone,
            "offset 7 of topic 3, lane 0 is gone: its first event that is there is 100",
        ),
        plain(
            "key-full",
            "final",
            OpCode::Put,
            Status::KeyFull,
            "key k of shop/stock has 3 inputs waiting, allowed are 3",
        ),
    ]
}

fn several() -> Sample {
    let list = vec![
        (3, OpCode::Get, Ok(Reply::Value(b"2"))),
        (1, OpCode::Put, Ok(Reply::Empty)),
        (CORRELATION_NONE, OpCode::Ping, Err(Failure::new(Status::Malformed, "the frame ends within an operation"))),
    ];
    Sample {
        name: "several",
        about: "results in another order than their operations, and one for the connection, which is then closed",
        content: Content::Results(list),
    }
}
