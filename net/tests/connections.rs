//! Connections of a shard together: what they hold is known, whatever becomes of one.

mod support;

use gristmill_base::env::{Net, NetEvent};
use gristmill_base::ids::{ConnId, SessionId, SessionKey};
use gristmill_base::limits::UNREAD_SECONDS_MAX;
use gristmill_core::request::{Answer, Operation, Reply};
use gristmill_net::connections::{Connections, Shares};
use support::{frame, get, greeting, hello};

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
    connections.take_requests(now, 0, &mut requests);
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
