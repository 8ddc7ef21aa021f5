//! Sockets on the ring.

#![expect(unsafe_code, reason = "the kernel reads the buffers of sends in flight")]

use super::RingSettings;
use super::buffers::{Buffers, GROUP};
use super::conn::{Conns, Phase, Sending};
use super::gate::{Done, Gate, Kind};
use crate::sys;
use gristmill_base::env::{NetEvent, TurnedAway};
use gristmill_base::ids::ConnId;
use io_uring::{cqueue, opcode, types};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// Sends up to this many bytes are normally taken by the socket at once.
const QUIET_SEND_BYTES: usize = 16 << 10;
/// After an accept that failed for want of something, wait this long before the next.
const ACCEPT_AGAIN_NANOS: u64 = 100_000_000;
/// A closing connection is cut off after this long, whether its peer has read everything or not.
const CLOSING_NANOS: u64 = 1_000_000_000;
/// A closing connection is cut off when its peer still sends after this many bytes.
const CLOSING_DISCARD_BYTES: usize = 4 << 20;

/// Something that has happened and that the owner has not been told yet.
enum Event {
    Accepted {
        conn: ConnId,
        peer: SocketAddr,
        listener: usize,
    },
    /// The buffer goes back to the kernel when it was told. `bytes` is 0 if the owner has closed the connection.
    Received {
        conn: ConnId,
        buffer: u16,
        bytes: usize,
    },
    Sent {
        conn: ConnId,
        buf: Vec<u8>,
        quiet: bool,
    },
    Closed {
        conn: ConnId,
    },
}

impl Event {
    /// Whether the owner should be woken for it.
    fn is_loud(&self) -> bool {
        !matches!(self, Event::Sent { quiet: true, .. })
    }
}

/// A listening socket.
struct Listener {
    socket: TcpListener,
    /// An accept is with the kernel.
    accepting: bool,
}

/// Sockets of one shard.
pub(super) struct NetTable {
    listeners: Vec<Listener>,
    conns: Conns,
    buffers: Buffers,
    events: VecDeque<Event>,
    /// Events in the queue that the owner should be woken for.
    loud: usize,
    /// Places whose receive ended for want of a buffer.
    starved: Vec<u32>,
    /// Closing connections with the time at which they are cut off, oldest first.
    closing: VecDeque<(u64, ConnId)>,
    /// When accepts are started again, if some have failed.
    accept_again: Option<u64>,
    connections_max: usize,
    poll_bytes_max: usize,
    poll_events_max: usize,
    turned_away: TurnedAway,
    /// The ring is being dropped: nothing new starts.
    stopped: bool,
}

impl NetTable {
    pub(super) fn new(listeners: Vec<TcpListener>, buffers: Buffers, settings: &RingSettings) -> Self {
        let listeners = listeners.into_iter().map(|socket| Listener { socket, accepting: false }).collect();
        Self {
            listeners,
            conns: Conns::default(),
            buffers,
            events: VecDeque::new(),
            loud: 0,
            starved: Vec::new(),
            closing: VecDeque::new(),
            accept_again: None,
            connections_max: settings.connections_max,
            poll_bytes_max: settings.poll_bytes_max,
            poll_events_max: settings.poll_events_max,
            turned_away: TurnedAway::default(),
            stopped: false,
        }
    }

    /// Whether the owner has events to take that should not wait.
    pub(super) fn has_news(&self) -> bool {
        self.loud > 0
    }

    pub(super) fn live(&self) -> usize {
        self.conns.live()
    }

    pub(super) fn turned_away(&self) -> TurnedAway {
        self.turned_away
    }

    /// Has every operation end: cuts all connections off and cancels the accepts. For good.
    pub(super) fn stop(&mut self, gate: &mut Gate) {
        self.stopped = true;
        self.conns.cut_all();
        for (index, _) in self.listeners.iter().enumerate().filter(|(_, listener)| listener.accepting) {
            let index = u32::try_from(index).expect("few listeners");
            let entry = opcode::AsyncCancel::new(Kind::Accept.user_data(index)).build();
            // SAFETY: names no memory.
            unsafe { gate.push(entry, Kind::Cancel, index) };
        }
    }

    /// Never gives back the memory that the kernel may still touch.
    pub(super) fn leak(&mut self) {
        self.buffers.leak();
        std::mem::forget(std::mem::take(&mut self.conns));
    }

    fn tell(&mut self, event: Event) {
        self.loud += usize::from(event.is_loud());
        self.events.push_back(event);
    }

    /// Starts accepting on every listener that does not.
    pub(super) fn accept_all(&mut self, gate: &mut Gate) {
        if self.stopped {
            return;
        }
        for (index, listener) in self.listeners.iter_mut().enumerate().filter(|(_, listener)| !listener.accepting) {
            let entry = opcode::AcceptMulti::new(types::Fd(listener.socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
            let index = u32::try_from(index).expect("few listeners");
            // SAFETY: names no memory; the listener stays open until the ring has drained.
            unsafe { gate.push(entry.build(), Kind::Accept, index) };
            listener.accepting = true;
        }
    }

    /// Takes in the completion of an accept.
    pub(super) fn accepted(&mut self, gate: &mut Gate, item: Done, now: u64) {
        self.listeners[item.index as usize].accepting = item.more();
        if item.result >= 0 {
            self.welcome(gate, sys::accepted(item.result), item.index as usize);
        }
        if item.more() || item.result == -libc::ECANCELED {
            return;
        }
        // A peer that was gone before it was accepted is no reason to wait; no descriptors or no memory are.
        if item.result >= 0 || [libc::ECONNABORTED, libc::EINTR, libc::EAGAIN, libc::EPROTO].contains(&-item.result) {
            self.accept_all(gate);
        } else {
            self.turned_away.accepts_failed += 1;
            self.accept_again = Some(now + ACCEPT_AGAIN_NANOS);
        }
    }

    fn welcome(&mut self, gate: &mut Gate, socket: TcpStream, listener: usize) {
        if self.conns.live() >= self.connections_max || self.stopped {
            self.turned_away.too_many += 1;
            return;
        }
        // Both fail only if the peer is gone already.
        let (Ok(peer), Ok(())) = (socket.peer_addr(), socket.set_nodelay(true)) else { return };
        let index = self.conns.insert(socket);
        let conn = self.conns.at(index).id;
        self.tell(Event::Accepted { conn, peer, listener });
        self.receive(gate, index);
    }

    /// Starts receiving if the connection wants to and does not.
    fn receive(&mut self, gate: &mut Gate, index: u32) {
        let conn = self.conns.at(index);
        if conn.receiving || !conn.wants_receive() {
            return;
        }
        let entry = opcode::RecvMulti::new(types::Fd(conn.socket.as_raw_fd()), GROUP).build();
        // SAFETY: received bytes go to the registered buffers, which outlive the ring's use of them; the socket stays
        // open until its operations have ended.
        unsafe { gate.push(entry, Kind::Receive, index) };
        conn.receiving = true;
    }

    /// Takes in a completion of a receive.
    pub(super) fn received(&mut self, gate: &mut Gate, item: Done, now: u64) {
        let buffer = cqueue::buffer_select(item.flags);
        if let Some(number) = buffer {
            self.buffers.taken(number);
        }
        let conn = self.conns.at(item.index);
        conn.receiving = item.more();
        match (item.result, buffer) {
            (bytes @ 1.., Some(number)) => {
                let bytes = bytes as usize;
                if conn.phase == Phase::Open {
                    let conn = conn.id;
                    self.tell(Event::Received { conn, buffer: number, bytes });
                } else {
                    conn.discarded += bytes;
                    if conn.discarded > CLOSING_DISCARD_BYTES {
                        conn.cut();
                    }
                    self.buffers.give_back(number);
                }
            }
            (result, buffer) => {
                buffer.into_iter().for_each(|number| self.buffers.give_back(number));
                self.receive_failed(item.index, result, now);
            }
        }
        if !item.more() && item.result != -libc::ENOBUFS {
            self.receive(gate, item.index);
        }
        self.bury(item.index);
    }

    /// What a receive that brought no bytes means.
    fn receive_failed(&mut self, index: u32, result: i32, now: u64) {
        let conn = self.conns.at(index);
        match -result {
            0 => {
                conn.ended = true;
                self.begin_close(index, now);
            }
            libc::ENOBUFS => self.starved.push(index),
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            _ => conn.cut(),
        }
    }

    /// Starts sending. Ignored if the connection is gone or going. Whether it went to the ring.
    pub(super) fn send(&mut self, gate: &mut Gate, id: ConnId, buf: Vec<u8>) -> bool {
        let Some(index) = self.conns.find(id) else { return false };
        let conn = self.conns.at(index);
        if conn.phase != Phase::Open {
            return false;
        }
        assert!(conn.sending.is_none(), "one send is in flight per connection");
        if buf.is_empty() {
            self.tell(Event::Sent { conn: id, buf, quiet: false });
            return false;
        }
        let quiet = buf.len() <= QUIET_SEND_BYTES;
        conn.sending = Some(Sending { buf, sent: 0, quiet });
        self.push_send(gate, index);
        quiet
    }

    /// Queues what is left of a send.
    fn push_send(&mut self, gate: &mut Gate, index: u32) {
        let conn = self.conns.at(index);
        let fd = types::Fd(conn.socket.as_raw_fd());
        let sending = conn.sending.as_ref().expect("what is pushed is there");
        let rest = &sending.buf[sending.sent..];
        let bytes = u32::try_from(rest.len().min(1 << 30)).expect("at most 1 GiB");
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(fd, rest.as_ptr(), bytes).flags(flags).build();
        // SAFETY: the buffer is owned by the connection and not touched until the send has ended; a table that is
        // dropped earlier is leaked by the ring. The socket stays open until its operations have ended.
        unsafe { gate.push(entry, Kind::Send, index) };
    }

    /// Takes in the completion of a send.
    pub(super) fn sent(&mut self, gate: &mut Gate, item: Done) {
        let conn = self.conns.at(item.index);
        let id = conn.id;
        let sending = conn.sending.as_mut().expect("a completed send was in flight");
        let again = [libc::EINTR, libc::EAGAIN].contains(&-item.result);
        match usize::try_from(item.result) {
            Ok(bytes @ 1..) => sending.sent += bytes,
            _ if again => {}
            _ => {
                conn.sending = None;
                conn.cut();
                return self.bury(item.index);
            }
        }
        if sending.sent < sending.buf.len() {
            if conn.phase == Phase::Cut {
                conn.sending = None;
                return self.bury(item.index);
            }
            sending.quiet = false;
            return self.push_send(gate, item.index);
        }
        let Some(Sending { mut buf, quiet, .. }) = conn.sending.take() else { return };
        if conn.phase == Phase::Closing {
            conn.finish_sending();
        }
        buf.clear();
        self.tell(Event::Sent { conn: id, buf, quiet });
        self.bury(item.index);
    }

    /// Stops or resumes reading.
    pub(super) fn pause(&mut self, gate: &mut Gate, id: ConnId, paused: bool) {
        let Some(index) = self.conns.find(id) else { return };
        let conn = self.conns.at(index);
        let changed = conn.paused != paused;
        conn.paused = paused;
        if changed && paused && conn.receiving && conn.phase == Phase::Open {
            let entry = opcode::AsyncCancel::new(Kind::Receive.user_data(index)).build();
            // SAFETY: names no memory.
            unsafe { gate.push(entry, Kind::Cancel, index) };
        }
        self.receive(gate, index);
    }

    /// Closes a connection on behalf of its owner, who hears no more of its bytes.
    pub(super) fn close(&mut self, gate: &mut Gate, id: ConnId, now: u64) {
        for event in &mut self.events {
            if let Event::Received { conn, bytes, .. } = event
                && *conn == id
            {
                *bytes = 0;
            }
        }
        if let Some(index) = self.conns.find(id) {
            self.begin_close(index, now);
            self.receive(gate, index);
            self.bury(index);
        }
    }

    /// Begins to close a connection that is open.
    fn begin_close(&mut self, index: u32, now: u64) {
        let conn = self.conns.at(index);
        if conn.phase != Phase::Open {
            return;
        }
        conn.phase = Phase::Closing;
        if conn.sending.is_none() {
            conn.finish_sending();
        }
        self.closing.push_back((now + CLOSING_NANOS, conn.id));
    }

    /// Lets a connection go if nothing more can happen to it.
    fn bury(&mut self, index: u32) {
        if self.conns.at(index).is_over() {
            let conn = self.conns.remove(index);
            self.starved.retain(|&place| place != index);
            self.tell(Event::Closed { conn: conn.id });
        }
    }

    /// Does what is due; gives the time of the next thing to do.
    pub(super) fn upkeep(&mut self, gate: &mut Gate, now: u64) -> u64 {
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.accept_all(gate);
        }
        while let Some(&(at, id)) = self.closing.front() {
            let Some(index) = self.conns.find(id) else {
                self.closing.pop_front();
                continue;
            };
            if at > now {
                break;
            }
            self.closing.pop_front();
            self.conns.at(index).cut();
            self.bury(index);
        }
        let closing = self.closing.front().map_or(u64::MAX, |&(at, _)| at);
        closing.min(self.accept_again.unwrap_or(u64::MAX))
    }

    /// Whether [`NetTable::upkeep`] may have something to do, now or later.
    pub(super) fn needs_upkeep(&self) -> bool {
        !self.closing.is_empty() || self.accept_again.is_some()
    }

    /// Tells the owner what has happened, up to a bound, so that a turn stays short.
    pub(super) fn poll(&mut self, gate: &mut Gate, each: &mut dyn FnMut(NetEvent<'_>)) {
        let mut bytes_told = 0;
        for _ in 0..self.poll_events_max {
            if bytes_told >= self.poll_bytes_max {
                break;
            }
            let Some(event) = self.events.pop_front() else { break };
            self.loud -= usize::from(event.is_loud());
            match event {
                Event::Accepted { conn, peer, listener } => each(NetEvent::Accepted { conn, peer, listener }),
                Event::Received { conn, buffer, bytes } => {
                    if bytes > 0 {
                        each(NetEvent::Received { conn, bytes: self.buffers.received(buffer, bytes) });
                    }
                    self.buffers.give_back(buffer);
                    bytes_told += bytes;
                }
                Event::Sent { conn, buf, .. } => each(NetEvent::Sent { conn, buf }),
                Event::Closed { conn } => each(NetEvent::Closed { conn }),
            }
        }
        self.feed_starved(gate);
    }

    /// Starts the receives again that ended for want of a buffer, if there is one.
    pub(super) fn feed_starved(&mut self, gate: &mut Gate) {
        if self.buffers.some_left() {
            for index in std::mem::take(&mut self.starved) {
                self.receive(gate, index);
            }
        }
    }
}
