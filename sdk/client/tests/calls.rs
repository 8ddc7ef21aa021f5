//! The calls, against a small server.

#![allow(clippy::unwrap_used, reason = "a test may stop where something is missing")]

mod support;

use std::time::Duration;

use gristmill_base::datatype::encode_u64;
use gristmill_base::ids::{LaneId, Offset, SessionId, SessionKey};
use gristmill_client::{Client, Config, Connection, ErrorKind, Span};
use gristmill_wire::{Operation, Reply, Status};
use support::{Faults, Server};

fn client(server: &Server) -> Client {
    Client::connect(Config::new(&server.address)).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let server = Server::start(3, 1, Faults::default(), (4_096, 4 << 20));
    let mut client = client(&server);
    for key in 0..40 {
        client.put("a/kv", format!("k{key:02}").as_bytes(), &[key]).unwrap();
    }
    assert_eq!(client.get("a/kv", b"k07").unwrap(), Some(vec![7]));
    client.delete("a/kv", b"k07").unwrap();
    assert_eq!(client.get("a/kv", b"k07").unwrap(), None);
    let page = client.scan("a/kv", b"k1", None, 0).unwrap();
    assert_eq!((page.items.len(), page.more), (10, false));
    assert!(client.scan("a/kv", b"k", Some(b"k11"), 0).unwrap().more);
    client.map_put("a/kv", b"k", "m", b"e", &encode_u64(5)).unwrap();
    assert_eq!(client.map_get("a/kv", b"k", "m", b"e").unwrap(), Some(encode_u64(5).to_vec()));
    let range = client.range("a/kv", b"k", "m", &Span::default()).unwrap();
    assert_eq!(range.items[0].key, b"e");
    client.map_delete("a/kv", b"k", "m", b"e").unwrap();
    assert_eq!(client.map_get("a/kv", b"k", "m", b"e").unwrap(), None);
    assert_eq!(client.invoke("a/counter", b"c", "count", b"").unwrap(), encode_u64(1));
    assert_eq!(client.invoke("a/counter", b"c", "count", b"").unwrap(), encode_u64(2));
    assert_eq!(server.with(|world| world.hellos), 3, "one connection per shard");
    assert!(client.status().unwrap().contains("log"));
}

#[test]
fn events_are_read_from_their_lane() {
    let server = Server::start(2, 2, Faults::default(), (16, 4_096));
    let mut client = client(&server);
    let events = (0..1_000_u32).map(|n| (b"foobar".to_vec(), n.to_string().into_bytes()));
    let mut ended = 0;
    client.produce_many("a/events", events, |_, result| ended += u32::from(result.is_ok())).unwrap();
    assert_eq!(ended, 1_000);
    let place = client.produce("a/events", b"foobar", b"last").unwrap();
    assert_eq!((place.lane, place.offset), (LaneId(62), Offset(1_001)));
    let topic = client.topic("a/events").unwrap();
    let (mut from, mut seen) = (Offset(1), Vec::new());
    loop {
        let page = client.read(&topic, LaneId(62), from, 0, Duration::ZERO).unwrap();
        seen.extend(page.events.into_iter().map(|event| String::from_utf8(event.value).unwrap()));
        if page.next == page.end {
            break;
        }
        from = page.next;
    }
    assert_eq!(seen.len(), 1_001);
    assert!(seen.iter().take(1_000).enumerate().all(|(n, value)| *value == n.to_string()), "in the order sent");
}

#[test]
fn refusals_are_certain_and_name_what_exists() {
    let server = Server::start(1, 3, Faults::default(), (4_096, 4 << 20));
    let mut client = client(&server);
    let error = client.put("a/kx", b"k", b"v").unwrap_err();
    assert_eq!(error.message, "no table \"kx\" in a; there are: kv, counter");
    assert!(error.is_certain());
    assert_eq!(client.get("nope/kv", b"k").unwrap_err().status(), Some(Status::UnknownName));
    assert_eq!(client.put("a/kv", b"bad", b"v").unwrap_err().status(), Some(Status::WrongType));
    let error = client.put("a/kv", &vec![0; (64 << 10) + 1], b"v").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, "key of 65537 bytes, at most 65536 allowed"));
    client.put("a/kv", b"good", &vec![1; 5 << 20]).unwrap();
    let mut config = Config::new("127.0.0.1:1");
    config.connect_timeout = Duration::from_millis(200);
    assert_eq!(Client::connect(config).unwrap_err().kind, ErrorKind::Unreachable);
}

#[test]
fn a_bare_connection_has_many_in_flight() {
    let server = Server::start(1, 4, Faults::default(), (4_096, 4 << 20));
    let mut connection = {
        let (session, key) = (SessionId(0), SessionKey::default());
        Connection::connect(&server.address, session, key, "test", Duration::from_secs(5)).unwrap()
    };
    assert_eq!(connection.hello().session, SessionId(100));
    let mut requests = connection.requests();
    for correlation in 0..100 {
        requests.push(correlation, &Operation::Ping).unwrap();
    }
    requests.finish();
    connection.flush().unwrap();
    let mut seen = [false; 100];
    while !seen.iter().all(|seen| *seen) {
        connection.receive(|answer| seen[answer.correlation as usize] = true).unwrap();
    }
    let text = connection
        .call(&Operation::Status, |reply| match reply {
            Ok(Reply::Json(text)) => Ok(text.into_owned()),
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert!(text.contains("flushes"));
}
