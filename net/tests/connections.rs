//! Connections of a shard together: what they hold is known, whatever becomes of one.

mod support;

use gristmill_base::env::{Net, NetEvent};
use gristmill_base::ids::{ConnId, SessionId, SessionKey};
use gristmill_base::limits::UNREAD_SECONDS_MAX;
use gristmill_core::request::{Answer, Operation, Reply, Request};
use gristmill_net::connection::Room;
use gristmill_net::connections::{Connections, Shares};
use support::{frame, get, greeting, hello, put};

const CONN: ConnId = ConnId(9);
const SECOND: u64 = 1_000_000_000;

/// Sockets whose clients take nothing.
#[derive(Default)]
struct Deaf {
    sends: usize,
    is_closed: bool,
}

impl Net for Deaf {
    fn send(&mut self, _conn: ConnId, _buf: Vec<u8>) {
        self.sends += 1;
    }
    fn pause(&mut self, _conn: ConnId, _paused: bool) {}
    fn close(&mut self, _conn: ConnId) {
        self.is_closed = true;
    }
    fn poll(&mut self, _each: &mut dyn FnMut(NetEvent<'_>)) {}
}

/// The shard answers what has come; reads with a value of a MiB.
fn answer(connections: &mut Connections, now: u64) {
    let mut requests = Vec::new();
    connections.take_requests(now, Room { bulk: 0, ..Room::ALL }, &mut requests);
    reply(connections, requests);
}

fn reply(connections: &mut Connections, requests: Vec<Request>) {
    let replies = requests.into_iter().map(|request| {
        let answer = match request.operation {
            Operation::OpenSession { .. } => Answer::Session(SessionId(65), SessionKey([9; 16])),
            _ => Answer::Value(Some(vec![3; 1 << 20].into())),
        };
        Reply { responder: request.responder, outcome: Ok(answer) }
    });
    connections.reply(replies.collect::<Vec<_>>().into_iter());
}

#[test]
fn a_client_that_takes_nothing_leaves_nothing_in_the_sums() {
    let (mut connections, mut net) = (Connections::new(greeting(), Shares::default()), Deaf::default());
    connections.event(NetEvent::Accepted { conn: CONN, peer: ([127, 0, 0, 1], 40_000).into(), listener: 0 }, 0);
    for bytes in [frame(&[(1, hello())]), frame(&[(2, get(b"k"))]), frame(&[(3, get(b"k"))])] {
        connections.event(NetEvent::Received { conn: CONN, bytes: &bytes }, 0);
        answer(&mut connections, 0);
        connections.flush(&mut net);
    }
    assert!(net.sends == 1 && !connections.is_quiet(), "the first piece is with the socket, more waits");
    for second in 1..=UNREAD_SECONDS_MAX + 10 {
        connections.tick(second * SECOND);
        connections.flush(&mut net);
    }
    assert!(net.is_closed);
    connections.event(NetEvent::Closed { conn: CONN }, 0);
    assert!(connections.is_quiet() && connections.is_empty());
    let mut gauges = Vec::new();
    connections.gauges(&mut gauges);
    assert!(gauges.contains(&("net_output_bytes_waiting", 0)), "{gauges:?}");
}

/// What is taken of the connections, as (connection, whether it is a put).
fn taken(connections: &mut Connections, writes: bool) -> Vec<(ConnId, bool)> {
    let mut requests = Vec::new();
    connections.take_requests(0, Room { writes, ..Room::ALL }, &mut requests);
    let seen = |request: &Request| (request.responder.conn, matches!(request.operation, Operation::Put { .. }));
    requests.iter().map(seen).collect()
}

#[test]
fn a_write_stays_at_the_door_while_none_are_taken_and_reads_of_others_pass() {
    let mut connections = Connections::new(greeting(), Shares::default());
    let conns = [ConnId(1), ConnId(2)];
    for conn in conns {
        connections.event(NetEvent::Accepted { conn, peer: ([127, 0, 0, 1], 40_000).into(), listener: 0 }, 0);
        connections.event(NetEvent::Received { conn, bytes: &frame(&[(1, hello())]) }, 0);
    }
    answer(&mut connections, 0);
    // The first one's puts have a get before them; the other one only reads.
    let [writer, reader] = conns;
    let frames = [frame(&[(2, get(b"k")), (3, put(1, b"k", b"v"))]), frame(&[(4, put(2, b"k", b"w"))])];
    for bytes in &frames {
        connections.event(NetEvent::Received { conn: writer, bytes }, 0);
    }
    connections.event(NetEvent::Received { conn: reader, bytes: &frame(&[(2, get(b"k"))]) }, 0);
    let mut first = taken(&mut connections, false);
    first.sort_unstable();
    assert_eq!(first, [(writer, false), (reader, false)]);
    assert!(connections.has_held());
    let (held, open) = (Room { writes: false, ..Room::ALL }, Room::ALL);
    assert!(
        !connections.has_frames(held) && connections.has_frames(open),
        "nothing is to be done before writes are taken"
    );
    // More comes meanwhile, and nothing passes it on its own connection.
    connections.event(NetEvent::Received { conn: writer, bytes: &frame(&[(5, put(3, b"k", b"x"))]) }, 0);
    assert_eq!(taken(&mut connections, false), []);
    assert_eq!(taken(&mut connections, true), [(writer, true); 3]);
    assert!(!connections.has_held() && !connections.has_frames(open));
}
