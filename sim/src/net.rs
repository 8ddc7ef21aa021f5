//! The simulated network: byte streams that arrive in arbitrary pieces and can be cut at any byte.

use crate::rng::SimRng;
use gristmill_base::env::{Net, NetEvent};
use gristmill_base::ids::ConnId;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

/// Bytes that one direction holds before its sender stalls.
const WINDOW_BYTES: usize = 256 << 10;

/// The sockets of one simulated shard. Every poll moves a little of everything, as the seed says, so polling goes on
/// until nothing has come for a while.
pub struct SimNet {
    wires: Rc<RefCell<Wires>>,
}

/// A client's end of one connection.
pub struct SimClient {
    conn: ConnId,
    wires: Rc<RefCell<Wires>>,
}

struct Wires {
    /// Those that the shard has not been told the end of, by number, and those whose client still holds them.
    conns: BTreeMap<ConnId, Wire>,
    next: u64,
    /// Longest piece that a poll tells.
    piece_max: u64,
    rng: SimRng,
}

struct Wire {
    listener: usize,
    accepted: bool,
    paused: bool,
    /// What the client sent and the shard has not been told.
    to_shard: VecDeque<u8>,
    /// What arrived at the client and it has not taken.
    to_client: Vec<u8>,
    /// What the shard sends, and how much of it has left.
    sending: Option<(Vec<u8>, usize)>,
    /// The shard wants it closed behind what is in flight.
    closing: bool,
    /// The client will send no more.
    client_left: bool,
    /// Nobody holds the client's end.
    abandoned: bool,
    /// Nothing moves any more.
    cut: bool,
    /// The shard was told that it is gone.
    closed: bool,
    /// Bytes towards the shard after which the wire is cut.
    cut_to_shard: Option<u64>,
    /// Bytes towards the client after which the wire is cut.
    cut_to_client: Option<u64>,
}

enum Event {
    Accepted { listener: usize },
    Received(Vec<u8>),
    Sent(Vec<u8>),
    Closed,
}

impl SimNet {
    /// Sockets without connections. Bytes are told in pieces of 1 to `piece_max`.
    ///
    /// # Panics
    /// If `piece_max` is 0.
    #[must_use]
    pub fn new(piece_max: u64, rng: SimRng) -> Self {
        assert!(piece_max > 0, "a piece has at least one byte");
        let wires = Wires { conns: BTreeMap::new(), next: 1, piece_max, rng };
        Self { wires: Rc::new(RefCell::new(wires)) }
    }

    /// A client connects to the listener with this number.
    #[must_use]
    pub fn connect(&self, listener: usize) -> SimClient {
        let mut wires = self.wires.borrow_mut();
        let conn = ConnId(wires.next);
        wires.next += 1;
        let wire = Wire {
            listener,
            accepted: false,
            paused: false,
            to_shard: VecDeque::new(),
            to_client: Vec::new(),
            sending: None,
            closing: false,
            client_left: false,
            abandoned: false,
            cut: false,
            closed: false,
            cut_to_shard: None,
            cut_to_client: None,
        };
        wires.conns.insert(conn, wire);
        SimClient { conn, wires: Rc::clone(&self.wires) }
    }

    /// Whether a poll may have something to tell.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.wires.borrow().conns.values().any(Wire::has_news)
    }

    /// Cuts every connection, as the death of the process does. The shard is told nothing.
    pub fn cut_all(&self) {
        for wire in self.wires.borrow_mut().conns.values_mut() {
            (wire.cut, wire.closed) = (true, true);
        }
    }
}

impl SimClient {
    /// The number that the shard knows this connection by.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// Sends bytes. Lost without a word if the connection is gone, as with TCP.
    pub fn send(&mut self, bytes: &[u8]) {
        self.with(|wire| {
            if !wire.is_over() {
                wire.to_shard.extend(bytes);
            }
        });
    }

    /// Takes what has arrived.
    pub fn receive(&mut self) -> Vec<u8> {
        self.with(|wire| std::mem::take(&mut wire.to_client)).unwrap_or_default()
    }

    /// Whether the connection is over: nothing more arrives.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.wires.borrow().conns.get(&self.conn).is_none_or(Wire::is_over)
    }

    /// Says that no more bytes come; what was sent still arrives.
    pub fn leave(&mut self) {
        self.with(|wire| wire.client_left = true);
    }

    /// Cuts the connection after so many more bytes towards the shard; 0 cuts before the next one.
    pub fn cut_to_shard_after(&mut self, bytes: u64) {
        self.with(|wire| wire.cut_to_shard = Some(bytes));
    }

    /// Cuts the connection after so many more bytes towards the client.
    pub fn cut_to_client_after(&mut self, bytes: u64) {
        self.with(|wire| wire.cut_to_client = Some(bytes));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Wire) -> T) -> Option<T> {
        self.wires.borrow_mut().conns.get_mut(&self.conn).map(change)
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        if let Ok(mut wires) = self.wires.try_borrow_mut()
            && let Some(wire) = wires.conns.get_mut(&self.conn)
        {
            (wire.client_left, wire.abandoned) = (true, true);
        }
    }
}

impl Wire {
    fn is_over(&self) -> bool {
        self.cut || self.closed
    }

    /// Whether a step may say something. A send that waits for its reader does not.
    fn has_news(&self) -> bool {
        let is_heard = !self.paused && !self.closing && !self.to_shard.is_empty();
        let is_sent = self.sending.is_some() && self.to_client.len() < WINDOW_BYTES;
        let is_left = self.client_left && self.to_shard.is_empty() && self.sending.is_none();
        let is_ending = self.cut || is_left || (self.closing && self.sending.is_none());
        !self.closed && (!self.accepted || is_heard || is_sent || is_ending)
    }

    /// Moves a little, and says what happened.
    fn step(&mut self, piece_max: u64, rng: &mut SimRng, events: &mut Vec<Event>) {
        if !self.accepted {
            self.accepted = true;
            events.push(Event::Accepted { listener: self.listener });
            return;
        }
        if !self.cut && rng.below(4) > 0 {
            self.step_to_client(piece_max, rng, events);
        }
        if !self.cut && !self.paused && !self.closing && rng.below(4) > 0 {
            self.step_to_shard(piece_max, rng, events);
        }
        let is_done = self.closing && self.sending.is_none();
        let has_left = self.client_left && self.to_shard.is_empty() && self.sending.is_none();
        if self.cut || is_done || has_left {
            self.closed = true;
            self.sending = None;
            events.push(Event::Closed);
        }
    }

    fn step_to_shard(&mut self, piece_max: u64, rng: &mut SimRng, events: &mut Vec<Event>) {
        let mut piece = rng.between(1, piece_max).min(self.to_shard.len() as u64);
        self.cut = spend(&mut self.cut_to_shard, &mut piece);
        if piece > 0 {
            events.push(Event::Received(self.to_shard.drain(..piece as usize).collect()));
        }
    }

    fn step_to_client(&mut self, piece_max: u64, rng: &mut SimRng, events: &mut Vec<Event>) {
        let Some((buf, sent)) = &mut self.sending else { return };
        let room = WINDOW_BYTES.saturating_sub(self.to_client.len());
        let mut piece = rng.between(1, piece_max).min((buf.len() - *sent).min(room) as u64);
        self.cut = spend(&mut self.cut_to_client, &mut piece);
        if !self.abandoned {
            self.to_client.extend_from_slice(&buf[*sent..*sent + piece as usize]);
        }
        *sent += piece as usize;
        if *sent == buf.len() {
            let mut buf = std::mem::take(buf);
            buf.clear();
            self.sending = None;
            events.push(Event::Sent(buf));
        }
    }
}

/// Takes a piece from what may still pass, and shortens it if need be. Whether the wire is cut now.
fn spend(left: &mut Option<u64>, piece: &mut u64) -> bool {
    let Some(left) = left else { return false };
    *piece = (*piece).min(*left);
    *left -= *piece;
    *left == 0
}

impl Net for SimNet {
    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        if let Some(wire) = self.wires.borrow_mut().conns.get_mut(&conn)
            && !wire.is_over()
            && !wire.closing
        {
            assert!(wire.sending.is_none(), "one send is in flight per connection");
            wire.sending = Some((buf, 0));
        }
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        if let Some(wire) = self.wires.borrow_mut().conns.get_mut(&conn) {
            wire.paused = paused;
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(wire) = self.wires.borrow_mut().conns.get_mut(&conn) {
            wire.closing = true;
        }
    }

    fn poll(&mut self, each: &mut dyn FnMut(NetEvent<'_>)) {
        let mut happened = Vec::new();
        {
            let wires = &mut *self.wires.borrow_mut();
            wires.conns.retain(|_, wire| !(wire.closed && wire.abandoned));
            let mut order: Vec<ConnId> = wires.conns.keys().copied().collect();
            wires.rng.shuffle(&mut order);
            for conn in order {
                let wire = wires.conns.get_mut(&conn).expect("its number was just read");
                let mut events = Vec::new();
                if !wire.closed {
                    wire.step(wires.piece_max, &mut wires.rng, &mut events);
                }
                happened.extend(events.into_iter().map(|event| (conn, event)));
            }
        }
        // The caller may use clients of this very net meanwhile.
        for (conn, event) in happened {
            match event {
                Event::Accepted { listener } => {
                    let port = 1_024 + (conn.0 % 60_000) as u16;
                    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    each(NetEvent::Accepted { conn, peer, listener });
                }
                Event::Received(bytes) => each(NetEvent::Received { conn, bytes: &bytes }),
                Event::Sent(buf) => each(NetEvent::Sent { conn, buf }),
                Event::Closed => each(NetEvent::Closed { conn }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls `times` times; sends back whatever comes.
    fn echo(net: &mut SimNet, times: u32, waiting: &mut BTreeMap<ConnId, (bool, Vec<u8>)>, closed: &mut u32) {
        for _ in 0..times {
            net.poll(&mut |event| match event {
                NetEvent::Accepted { conn, .. } => drop(waiting.insert(conn, (false, Vec::new()))),
                NetEvent::Received { conn, bytes } => waiting.get_mut(&conn).unwrap().1.extend_from_slice(bytes),
                NetEvent::Sent { conn, buf } => {
                    assert!(buf.is_empty());
                    waiting.get_mut(&conn).unwrap().0 = false;
                }
                NetEvent::Closed { conn } => {
                    waiting.remove(&conn).unwrap();
                    *closed += 1;
                }
            });
            for (conn, (busy, bytes)) in &mut *waiting {
                if !*busy && !bytes.is_empty() {
                    *busy = true;
                    net.send(*conn, std::mem::take(bytes));
                }
            }
        }
    }

    #[test]
    fn bytes_come_back_in_order_in_pieces() {
        let mut net = SimNet::new(7, SimRng::new(1));
        let mut clients: Vec<SimClient> = (0..5).map(|listener| net.connect(listener)).collect();
        let (mut waiting, mut closed) = (BTreeMap::new(), 0);
        let sent: Vec<u8> = (0..500_u32).map(|byte| byte as u8).collect();
        clients.iter_mut().for_each(|client| client.send(&sent));
        echo(&mut net, 2_000, &mut waiting, &mut closed);
        assert!(clients.iter_mut().all(|client| client.receive() == sent));
        assert_eq!(closed, 0);
        drop(clients);
        echo(&mut net, 10, &mut waiting, &mut closed);
        assert_eq!((closed, waiting.len()), (5, 0));
    }

    #[test]
    fn a_wire_is_cut_at_the_byte_that_was_named() {
        for cut in 0..40 {
            let mut net = SimNet::new(5, SimRng::new(cut));
            let mut client = net.connect(0);
            let (mut waiting, mut closed) = (BTreeMap::new(), 0);
            client.send(&[7; 30]);
            client.cut_to_client_after(cut);
            echo(&mut net, 300, &mut waiting, &mut closed);
            assert_eq!(client.receive().len() as u64, cut.min(30));
            assert_eq!(u64::from(closed), u64::from(cut <= 30));
            assert_eq!(client.is_over(), cut <= 30);
        }
    }

    #[test]
    fn a_paused_wire_waits_and_a_closed_one_sends_its_last_words() {
        let mut net = SimNet::new(64, SimRng::new(3));
        let mut client = net.connect(0);
        net.poll(&mut |_| {});
        net.pause(client.conn(), true);
        client.send(b"hello");
        (0..50).for_each(|_| net.poll(&mut |event| panic!("{event:?}")));
        net.pause(client.conn(), false);
        net.send(client.conn(), vec![1; 100]);
        net.close(client.conn());
        let mut closed = false;
        (0..50).for_each(|_| net.poll(&mut |event| closed |= matches!(event, NetEvent::Closed { .. })));
        assert!(closed && client.is_over());
        assert_eq!(client.receive(), [1; 100]);
    }
}
