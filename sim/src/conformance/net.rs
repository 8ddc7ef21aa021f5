//! What every [`Net`] keeps: the life of a connection, the order of its bytes, back-pressure, and both ways to close.
//! The suite is the owner of the sockets and plays their clients too, in turns on one thread.

use gristmill_base::env::{Net, NetEvent};
use gristmill_base::ids::ConnId;
use std::collections::BTreeMap;

/// Steps without any event or progress after which what is waited for counts as lost.
const PATIENCE_STEPS: u32 = 10_000;
/// Steps for which something that must not happen is waited for.
const QUIET_STEPS: u32 = 40;

/// Sockets of one shard with clients that can reach them.
pub trait NetWorld {
    /// The sockets under test.
    fn net(&mut self) -> &mut dyn Net;

    /// A client connects to a listener, 0 to 2. The sockets need not have told of it yet.
    fn connect(&mut self, listener: usize) -> Box<dyn Peer>;

    /// Lets things happen: about a millisecond of a real network that is quiet, nothing for a simulated one.
    fn idle(&mut self);

    /// More bytes than a connection holds, in either direction, while its receiver takes nothing.
    fn large(&self) -> usize;
}

/// A client's end of one connection. Nothing waits; a drop closes both ways.
pub trait Peer {
    /// Sends what fits now, and says how many bytes that were. 0 if the connection is gone.
    fn send(&mut self, bytes: &[u8]) -> usize;

    /// Takes some of what has arrived; `None` once no more can come.
    fn receive(&mut self) -> Option<Vec<u8>>;
}

/// Makes worlds without connections.
pub type FreshNet<'a> = &'a mut dyn FnMut() -> Box<dyn NetWorld>;

/// Everything about [`Net`].
///
/// # Panics
/// On the first breach.
pub fn net(fresh: FreshNet<'_>) {
    let parts: [fn(&mut Owner); 9] = [
        connections_are_told_first,
        pieces_arrive_in_order,
        buffers_arrive_in_order,
        a_slow_reader_holds_a_send,
        a_pause_holds_the_client,
        a_pause_outlasts_the_client,
        a_client_closes,
        the_owner_closes,
        many_do_not_mix,
    ];
    for part in parts {
        part(&mut Owner { world: fresh(), conns: BTreeMap::new(), newest: None, events: 0 });
    }
}

/// What was told of one connection.
#[derive(Default)]
struct Told {
    listener: usize,
    bytes: Vec<u8>,
    /// Capacity of the buffer in flight.
    sending: Option<usize>,
    /// The owner has asked for the end.
    closing: bool,
    closed: bool,
}

/// The owner of the sockets. Checks with every event what holds for all of them.
struct Owner {
    world: Box<dyn NetWorld>,
    conns: BTreeMap<ConnId, Told>,
    newest: Option<ConnId>,
    /// Told so far.
    events: u64,
}

impl Owner {
    /// One poll and a little time.
    fn step(&mut self) {
        let Self { world, conns, newest, events } = self;
        world.net().poll(&mut |event| {
            *events += 1;
            take(conns, newest, event);
        });
        world.idle();
    }

    fn quiet_steps(&mut self) {
        (0..QUIET_STEPS).for_each(|_| self.step());
    }

    /// Steps until `done`, which says how far it has come as well, gives `true`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> (bool, usize)) {
        let (mut last, mut quiet) = ((self.events, 0), 0);
        while quiet < PATIENCE_STEPS {
            let (is_done, progress) = done(self);
            if is_done {
                return;
            }
            self.step();
            quiet = if last == (self.events, progress) { quiet + 1 } else { 0 };
            last = (self.events, progress);
        }
        panic!("this never came: {what}");
    }

    fn told(&self, conn: ConnId) -> &Told {
        &self.conns[&conn]
    }

    fn connect(&mut self, listener: usize) -> (Box<dyn Peer>, ConnId) {
        self.newest = None;
        let peer = self.world.connect(listener);
        self.until("a new connection", |owner| (owner.newest.is_some(), 0));
        let conn = self.newest.expect("it was waited for");
        assert_eq!(self.told(conn).listener, listener, "a connection names the listener that it came by");
        (peer, conn)
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        let buf = bytes.to_vec();
        self.conns.get_mut(&conn).expect("it was told").sending = Some(buf.capacity());
        self.world.net().send(conn, buf);
    }

    fn close(&mut self, conn: ConnId) {
        self.conns.get_mut(&conn).expect("it was told").closing = true;
        self.world.net().close(conn);
    }

    /// The client sends all of it, and the owner is told all of it, behind what it was told before.
    fn hear(&mut self, peer: &mut dyn Peer, conn: ConnId, bytes: &[u8]) {
        let (mut sent, before) = (0, self.told(conn).bytes.len());
        self.until("bytes of the client", |owner| {
            sent += peer.send(&bytes[sent..]);
            (owner.told(conn).bytes.len() >= before + bytes.len(), sent)
        });
        assert!(self.told(conn).bytes[before..] == *bytes, "bytes of the client arrive complete and in order");
    }

    /// The client takes what arrives until it has so much, and that is what it has to be.
    fn read(&mut self, peer: &mut dyn Peer, expected: &[u8]) {
        let mut taken = Vec::new();
        self.until("bytes of the owner", |_| {
            taken.extend(peer.receive().expect("the connection is open"));
            (taken.len() >= expected.len(), taken.len())
        });
        assert!(taken == expected, "bytes of the owner arrive complete and in order");
    }

    fn until_sent(&mut self, conn: ConnId) {
        self.until("the sent buffer", |owner| (owner.told(conn).sending.is_none(), 0));
    }

    fn until_closed(&mut self, conn: ConnId) {
        self.until("the end of a connection", |owner| (owner.told(conn).closed, 0));
    }
}

/// Takes in one event.
fn take(conns: &mut BTreeMap<ConnId, Told>, newest: &mut Option<ConnId>, event: NetEvent<'_>) {
    if let NetEvent::Accepted { conn, listener, .. } = event {
        let told = Told { listener, ..Told::default() };
        assert!(conns.insert(conn, told).is_none(), "the number of a connection is never used again: {conn:?}");
        *newest = Some(conn);
        return;
    }
    let words = format!("{event:?}").chars().take(80).collect::<String>();
    let (NetEvent::Received { conn, .. } | NetEvent::Sent { conn, .. } | NetEvent::Closed { conn }) = &event else {
        panic!("an unknown event: {words}")
    };
    let told = conns.get_mut(conn).unwrap_or_else(|| panic!("a connection is told of before anything of it: {words}"));
    assert!(!told.closed, "nothing comes after the end of a connection: {words}");
    match event {
        NetEvent::Received { bytes, .. } => {
            assert!(!bytes.is_empty(), "bytes that come in are at least one");
            assert!(!told.closing, "no bytes are told after the owner has closed");
            told.bytes.extend_from_slice(bytes);
        }
        NetEvent::Sent { buf, .. } => {
            let capacity = told.sending.take().unwrap_or_else(|| panic!("nothing was sent: {words}"));
            assert!(buf.is_empty(), "a sent buffer comes back cleared");
            assert!(buf.capacity() >= capacity, "a sent buffer keeps its memory");
        }
        NetEvent::Closed { .. } | NetEvent::Accepted { .. } => told.closed = true,
    }
}

/// Bytes that differ from connection to connection and from place to place.
fn pattern(client: usize, count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 + client * 7 + at / 251) as u8).collect()
}

fn connections_are_told_first(owner: &mut Owner) {
    for round in 0..24 {
        owner.newest = None;
        let mut peer = owner.world.connect(round % 3);
        let bytes = pattern(round, 1 + round * 10);
        assert_eq!(peer.send(&bytes), bytes.len(), "few bytes fit before anything was told");
        drop(peer);
        owner.until("a short connection", |owner| (owner.newest.is_some_and(|conn| owner.told(conn).closed), 0));
        let told = owner.told(owner.newest.expect("it was waited for"));
        assert_eq!((told.listener, &told.bytes), (round % 3, &bytes), "all of a short connection is told");
    }
    assert_eq!(owner.conns.len(), 24, "every connection is told once");
}

fn pieces_arrive_in_order(owner: &mut Owner) {
    let (mut peer, conn) = owner.connect(1);
    let bytes = pattern(1, 60_000);
    let (mut at, mut sizes) = (0, [1, 2, 700, 1, 16_384, 33, 4_096, 9].into_iter().cycle());
    while at < bytes.len() {
        let size = sizes.next().expect("a cycle goes on").min(bytes.len() - at);
        at += peer.send(&bytes[at..at + size]);
        if size % 2 == 1 {
            owner.step();
        }
    }
    owner.until("all pieces", |owner| (owner.told(conn).bytes.len() >= bytes.len(), 0));
    assert!(owner.told(conn).bytes == bytes, "pieces arrive complete and in order");
    owner.quiet_steps();
    assert_eq!(owner.told(conn).bytes.len(), bytes.len(), "nothing arrives twice");
}

fn buffers_arrive_in_order(owner: &mut Owner) {
    let (mut peer, conn) = owner.connect(0);
    let mut expected = Vec::new();
    for (round, count) in [1, 5_000, 17, 70_000, 1, 300, 4_096].into_iter().enumerate() {
        let bytes = pattern(round, count);
        expected.extend_from_slice(&bytes);
        owner.send(conn, &bytes);
        owner.until_sent(conn);
    }
    owner.read(&mut *peer, &expected);
    owner.quiet_steps();
    assert_eq!(peer.receive(), Some(Vec::new()), "nothing arrives twice");
}

fn a_slow_reader_holds_a_send(owner: &mut Owner) {
    let (mut peer, conn) = owner.connect(2);
    let bytes = pattern(3, owner.world.large());
    owner.send(conn, &bytes);
    owner.quiet_steps();
    assert!(owner.told(conn).sending.is_some(), "a buffer does not come back before it was sent whole");
    let (mut taken, mut step) = (Vec::new(), 0);
    owner.until("a large buffer", |_| {
        step += 1;
        if taken.len() > bytes.len() / 8 || step % 3 == 0 {
            taken.extend(peer.receive().expect("the connection is open"));
        }
        (taken.len() >= bytes.len(), taken.len())
    });
    assert!(taken == bytes, "a large buffer arrives complete and in order");
    owner.until_sent(conn);
    owner.send(conn, b"next");
    owner.read(&mut *peer, b"next");
}

fn a_pause_holds_the_client(owner: &mut Owner) {
    let (mut peer, conn) = owner.connect(0);
    owner.hear(&mut *peer, conn, b"before");
    owner.world.net().pause(conn, true);
    let bytes = pattern(4, owner.world.large());
    let (mut sent, mut seen, mut quiet) = (0, (0, 0), 0);
    while quiet < QUIET_STEPS {
        sent += peer.send(&bytes[sent..]);
        owner.step();
        let now = (sent, owner.told(conn).bytes.len());
        quiet = if seen == now { quiet + 1 } else { 0 };
        seen = now;
    }
    assert!(owner.told(conn).bytes.len() < bytes.len() / 2, "a pause stops what is told before long");
    owner.send(conn, b"meanwhile");
    owner.read(&mut *peer, b"meanwhile");
    assert_eq!(owner.told(conn).bytes.len(), seen.1, "nothing is told while paused");
    owner.world.net().pause(conn, false);
    owner.until("what was held back", |owner| {
        sent += peer.send(&bytes[sent..]);
        (owner.told(conn).bytes.len() >= bytes.len() + b"before".len(), sent)
    });
    assert!(owner.told(conn).bytes[b"before".len()..] == bytes, "a pause loses nothing");
}

fn a_pause_outlasts_the_client(owner: &mut Owner) {
    let (mut peer, conn) = owner.connect(0);
    owner.world.net().pause(conn, true);
    let bytes = pattern(5, 20_000);
    let mut sent = 0;
    owner.until("room for few bytes", |_| {
        sent += peer.send(&bytes[sent..]);
        (sent == bytes.len(), sent)
    });
    drop(peer);
    owner.quiet_steps();
    for paused in [false, true, false] {
        owner.world.net().pause(conn, paused);
    }
    owner.until_closed(conn);
    assert!(owner.told(conn).bytes == bytes, "what a client sent before it left is told before its end");
}

fn a_client_closes(owner: &mut Owner) {
    let (mut peer, conn) = owner.connect(1);
    let (mut other_peer, other) = owner.connect(1);
    owner.hear(&mut *peer, conn, &pattern(6, 3_000));
    drop(peer);
    owner.until_closed(conn);
    assert!(!owner.told(other).closed, "the end of one connection is not that of another");
    // The end was told: whatever the owner still asks for is ignored, and nothing more is told.
    owner.world.net().send(conn, vec![1; 100]);
    owner.world.net().pause(conn, true);
    owner.world.net().close(conn);
    owner.quiet_steps();
    owner.hear(&mut *other_peer, other, b"still here");
    let (_peer, newer) = owner.connect(1);
    owner.send(newer, b"hello");
    owner.until_sent(newer);
}

fn the_owner_closes(owner: &mut Owner) {
    for count in [0, 10, 400_000] {
        let (mut peer, conn) = owner.connect(1);
        owner.hear(&mut *peer, conn, b"goodbye?");
        let last_words = pattern(7, count);
        peer.send(&[9; 500]);
        if count > 0 {
            owner.send(conn, &last_words);
        }
        owner.close(conn);
        owner.world.net().close(conn);
        owner.world.net().send(conn, vec![2; 50]);
        let mut taken = Vec::new();
        owner.until("the end at the client", |_| match peer.receive() {
            Some(bytes) => {
                taken.extend(bytes);
                (false, taken.len())
            }
            None => (true, 0),
        });
        assert!(taken == last_words, "what is in flight is sent first: {} of {count} bytes came", taken.len());
        drop(peer);
        owner.until_closed(conn);
        assert!(owner.told(conn).sending.is_none(), "what was sent whole comes back before the end");
        owner.quiet_steps();
    }
}

fn many_do_not_mix(owner: &mut Owner) {
    const COUNT: usize = 48;
    const BYTES: usize = 5_000;
    let mut peers: Vec<_> = (0..COUNT).map(|client| owner.world.connect(client % 3)).collect();
    let patterns: Vec<Vec<u8>> = (0..COUNT).map(|client| pattern(client, BYTES)).collect();
    let (mut sent, mut taken) = (vec![0; COUNT], vec![Vec::new(); COUNT]);
    let mut echoed: BTreeMap<ConnId, usize> = BTreeMap::new();
    owner.until("every echo", |owner| {
        for (client, peer) in peers.iter_mut().enumerate() {
            let end = (sent[client] + 100 + client).min(BYTES);
            sent[client] += peer.send(&patterns[client][sent[client]..end]);
            taken[client].extend(peer.receive().expect("the connection is open"));
        }
        echo(owner, &mut echoed);
        let total: usize = taken.iter().map(Vec::len).sum();
        (total >= COUNT * BYTES, total + sent.iter().sum::<usize>())
    });
    assert!(taken == patterns, "every client has its own bytes back");
    let mut clients: Vec<usize> = Vec::new();
    for told in owner.conns.values() {
        let client = patterns.iter().position(|bytes| *bytes == told.bytes).expect("connections do not mix");
        assert_eq!(told.listener, client % 3, "a connection names the listener that it came by");
        clients.push(client);
    }
    clients.sort_unstable();
    assert_eq!(clients, (0..COUNT).collect::<Vec<_>>(), "every client is told of once");
}

/// Sends back what has come and has not been sent back, one buffer at a time.
fn echo(owner: &mut Owner, echoed: &mut BTreeMap<ConnId, usize>) {
    let conns: Vec<ConnId> = owner.conns.keys().copied().collect();
    for conn in conns {
        let told = owner.told(conn);
        let from = echoed.entry(conn).or_default();
        if told.sending.is_none() && told.bytes.len() > *from {
            let rest = told.bytes[*from..].to_vec();
            *from += rest.len();
            owner.send(conn, &rest);
        }
    }
}
