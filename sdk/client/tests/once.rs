//! Nothing twice, nothing lost, nothing out of order: the client against a server that cuts connections, refuses for
//! capacity, answers twice, restarts and forgets sessions.

#![allow(clippy::unwrap_used, reason = "a test may stop where something is missing")]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use gristmill_base::datatype::encode_u64;
use gristmill_client::clock::now;
use gristmill_client::{Client, Config, ErrorKind, OwnedOperation, Ticket};
use support::{Faults, Server};

fn config(server: &Server) -> Config {
    let mut config = Config::new(&server.address);
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(4);
    config.connect_wait = Duration::from_secs(5);
    config
}

/// How many keys the operations are spread over.
const KEYS: u64 = 23;

fn key(number: u64) -> Vec<u8> {
    format!("key-{}", number % KEYS).into_bytes()
}

fn drain(client: &mut Client, ended: &mut Vec<(Ticket, bool)>, wait: Duration) {
    while let Some((ticket, ending)) = client.take_ended(wait) {
        if let Err(error) = &ending {
            assert!(!matches!(error.kind, ErrorKind::Protocol | ErrorKind::Invalid), "{error}");
        }
        ended.push((ticket, ending.is_ok()));
    }
}

/// Nothing was carried out twice.
fn assert_once(server: &Server) {
    server.with(|world| {
        for (place, session) in &world.engine.sessions {
            assert!(session.runs.values().all(|runs| *runs == 1), "session and slot {place:?}");
        }
    });
}

/// Invokes and events under `faults`; `midway` happens every 500 operations.
fn storm(seed: u64, faults: Faults, credit: (u32, u32), midway: impl Fn(&Server)) {
    let server = Server::start(3, seed, faults, credit);
    let mut client = Client::connect(config(&server)).unwrap();
    let topic = client.topic("a/events").unwrap();
    let counter = client.table("a/counter").unwrap();
    let handler = counter.handler("count").unwrap().id;
    let (mut ended, mut submitted, mut sent) = (Vec::new(), Vec::new(), HashMap::<u64, u64>::new());
    for number in 0..3_000_u64 {
        let ticket = if number % 2 == 0 {
            *sent.entry(number % KEYS).or_default() += 1;
            let (table, payload) = (counter.id, Vec::new());
            client.submit(OwnedOperation::Invoke { table, handler, key: key(number), payload }).unwrap()
        } else {
            client.submit_produce(&topic, key(number), encode_u64(number).to_vec()).unwrap()
        };
        submitted.push(ticket);
        if number % 500 == 250 {
            client.flush();
            midway(&server);
        }
        drain(&mut client, &mut ended, Duration::ZERO);
    }
    drain(&mut client, &mut ended, Duration::from_secs(20));
    assert_eq!(ended.len(), submitted.len());
    assert!(ended.iter().all(|(_, ok)| *ok), "every operation ends well");
    assert_once(&server);
    for number in 0..KEYS {
        let count = client.get("a/counter", &key(number)).unwrap();
        assert_eq!(count, sent.get(&number).map(|sent| encode_u64(*sent).to_vec()));
        let events = server.with(|world| world.engine.events_of(&key(number)));
        assert!(events.windows(2).all(|pair| pair[0] < pair[1]), "in the order sent, none twice");
        let expected = (0..3_000).filter(|n| n % 2 == 1 && n % KEYS == number).count();
        assert_eq!(events.len(), expected);
    }
}

#[test]
fn nothing_is_doubled_by_cut_connections() {
    for seed in 0..6 {
        let faults = Faults { cut_before: 2, cut_after: 30, not_ready: 100, ..Faults::default() };
        storm(seed, faults, (4_096, 4 << 20), |_| {});
    }
}

#[test]
fn refusals_for_capacity_keep_the_order() {
    for seed in 10..14 {
        storm(seed, Faults { capacity: 20, ..Faults::default() }, (100, 4_000), |_| {});
    }
}

#[test]
fn everything_at_once_and_restarts_too() {
    for seed in 20..26 {
        let faults = Faults { cut_before: 1, cut_after: 15, capacity: 10, twice: 10, not_ready: 50 };
        storm(seed, faults, (64, 1 << 20), Server::restart);
    }
}

#[test]
fn a_restart_that_forgets_refusals_is_filled_with_void() {
    let server = Server::start(1, 5, Faults::default(), (4_096, 4 << 20));
    let mut client = Client::connect(config(&server)).unwrap();
    let kv = client.table("a/kv").unwrap().id;
    // All in the slot of one key: the bad ones are refused, and a restart forgets that.
    let good = b"good".to_vec();
    let slot = gristmill_base::placement::slot_of(&good, support::SLOTS);
    let bad: Vec<Vec<u8>> = (0..)
        .map(|n| format!("bad{n}").into_bytes())
        .filter(|key| gristmill_base::placement::slot_of(key, support::SLOTS) == slot)
        .take(3)
        .collect();
    client.call(OwnedOperation::Put { table: kv, key: good.clone(), value: b"1".to_vec() }).unwrap();
    for key in bad {
        assert!(client.call(OwnedOperation::Put { table: kv, key, value: Vec::new() }).is_err());
    }
    server.restart();
    client.call(OwnedOperation::Put { table: kv, key: good.clone(), value: b"2".to_vec() }).unwrap();
    assert_eq!(client.get("a/kv", &good).unwrap(), Some(b"2".to_vec()));
    assert_once(&server);
}

#[test]
fn an_expired_session_is_replaced_and_nothing_is_run_twice() {
    let server = Server::start(2, 6, Faults::default(), (4_096, 4 << 20));
    let mut client = Client::connect(config(&server)).unwrap();
    let first = client.session();
    client.put("a/kv", b"k", b"1").unwrap();
    server.with(|world| world.engine.floor = first.0 + 1);
    client.put("a/kv", b"k", b"2").unwrap();
    client.put("a/kv", b"l", b"3").unwrap();
    assert_ne!(client.session(), first);
    // Expired while nobody was connected: hello itself is refused.
    let second = client.session();
    server.with(|world| world.engine.floor = second.0 + 1);
    server.restart();
    // The read notices that the connection is gone; a put that was sent into it would be unknown.
    client.get("a/kv", b"k").unwrap();
    client.put("a/kv", b"k", b"4").unwrap();
    assert_eq!(client.get("a/kv", b"k").unwrap(), Some(b"4".to_vec()));
    assert_once(&server);
}

#[test]
fn what_was_sent_in_an_expired_session_is_unknown() {
    // Every result is lost, so the put is sent, and then the session is gone.
    let server = Server::start(1, 7, Faults::default(), (4_096, 4 << 20));
    let mut client = Client::connect(config(&server)).unwrap();
    let table = client.table("a/kv").unwrap().id;
    server.with(|world| world.faults.cut_after = 1_000);
    let ticket = client.submit(OwnedOperation::Put { table, key: b"k".to_vec(), value: b"v".to_vec() }).unwrap();
    client.flush();
    while server.with(|world| world.engine.runs) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let session = client.session();
    server.with(|world| {
        world.engine.floor = session.0 + 1;
        world.faults.cut_after = 0;
    });
    let error = client.wait(ticket).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unknown);
    assert!(!error.is_certain());
    assert_eq!(server.with(|world| world.engine.runs), 1);
    client.put("a/kv", b"k", b"w").unwrap();
}

#[test]
fn time_runs_out_as_unknown_or_for_certain() {
    let server = Server::start(1, 8, Faults::default(), (4_096, 4 << 20));
    let mut config = config(&server);
    config.request_timeout = Duration::from_millis(300);
    let mut client = Client::connect(config).unwrap();
    client.put("a/kv", b"k", b"1").unwrap();
    server.with(|world| world.faults.capacity = 1_000);
    let refused = client.put("a/kv", b"k", b"2").unwrap_err();
    assert_eq!(refused.kind, ErrorKind::TimedOut, "{refused}");
    assert!(refused.is_certain());
    assert!(refused.message.contains("by chance"), "it says why the server has no room: {refused}");
    server.with(|world| world.faults = Faults { cut_after: 1_000, ..Faults::default() });
    let cut = client.put("a/kv", b"k", b"3").unwrap_err();
    assert_eq!(cut.kind, ErrorKind::Unknown, "{cut}");
    server.with(|world| world.faults = Faults::default());
    client.put("a/kv", b"k", b"4").unwrap();
    assert_eq!(client.get("a/kv", b"k").unwrap(), Some(b"4".to_vec()), "the numbers given up were filled");
    assert_once(&server);
}

#[test]
fn another_data_directory_is_noticed() {
    let server = Server::start(1, 9, Faults::default(), (4_096, 4 << 20));
    let mut client = Client::connect(config(&server)).unwrap();
    client.put("a/kv", b"k", b"1").unwrap();
    server.with(|world| world.data_directory = *b"another one here");
    server.restart();
    let error = client.put("a/kv", b"k", b"2").unwrap_err();
    assert_eq!(error.message, "the server has another data directory now");
    client.put("a/kv", b"k", b"3").unwrap();
}

#[test]
fn a_full_window_waits_for_no_server_that_is_gone() {
    let server = Server::start(2, 11, Faults::default(), (4_096, 4 << 20));
    let mut config = config(&server);
    (config.window, config.room_wait) = (32, Duration::from_millis(200));
    config.request_timeout = Duration::from_secs(60);
    let mut client = Client::connect(config).unwrap();
    let counter = client.table("a/counter").unwrap();
    let (table, handler) = (counter.id, counter.handler("count").unwrap().id);
    let invoke = |number| OwnedOperation::Invoke { table, handler, key: key(number), payload: Vec::new() };
    // Some of what fills the window was carried out, and its result lost.
    server.with(|world| world.faults.cut_after = 1_000);
    let mut tickets: Vec<Ticket> = (0..8).map(|number| client.submit(invoke(number)).unwrap()).collect();
    client.flush();
    while server.with(|world| world.engine.runs) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let start_again = server.gone();
    tickets.extend((8..32).map(|number| client.submit(invoke(number)).unwrap()));
    for _ in 0..2 {
        let asked = now();
        let error = client.submit(invoke(32)).unwrap_err();
        assert!(now() - asked < Duration::from_secs(5), "it waits for no time-out");
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        assert!(error.is_certain() && error.message.contains("32 operations"), "{error}");
        assert_eq!(client.in_flight(), 32);
    }
    let server = start_again();
    server.with(|world| world.faults = Faults::default());
    client.set_address(server.address.clone());
    tickets.push(client.submit(invoke(32)).unwrap());
    tickets.into_iter().for_each(|ticket| drop(client.wait(ticket).unwrap()));
    assert_once(&server);
    for number in 0..KEYS {
        let count = (0..33).filter(|n| n % KEYS == number).count() as u64;
        assert_eq!(client.get("a/counter", &key(number)).unwrap(), Some(encode_u64(count).to_vec()));
    }
}
