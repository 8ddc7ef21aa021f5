//! Connections of one shard: their states, and numbers that are never used again.

use gristmill_base::ids::ConnId;
use std::net::{Shutdown, TcpStream};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Both ways open.
    Open,
    /// Being closed by either side: what is in flight is sent, what comes in is thrown away.
    Closing,
    /// Cut off: only waits for its operations to end.
    Cut,
}

/// A buffer on its way out.
pub(super) struct Sending {
    /// Owned here for the kernel; never touched until the send has ended.
    pub(super) buf: Vec<u8>,
    /// Bytes that the kernel has taken, less than the length.
    pub(super) sent: usize,
    /// Small enough that it is normally done when it is submitted, so that nobody need wake for its completion.
    pub(super) quiet: bool,
}

/// One connection.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) socket: TcpStream,
    pub(super) phase: Phase,
    /// A receive is with the kernel.
    pub(super) receiving: bool,
    /// The owner does not want to read.
    pub(super) paused: bool,
    /// The peer will send no more.
    pub(super) ended: bool,
    pub(super) sending: Option<Sending>,
    /// Bytes thrown away while closing.
    pub(super) discarded: usize,
}

impl Conn {
    /// Whether a receive should be with the kernel.
    pub(super) fn wants_receive(&self) -> bool {
        match self.phase {
            Phase::Open => !self.paused && !self.ended,
            Phase::Closing => !self.ended,
            Phase::Cut => false,
        }
    }

    /// Tells the peer that no more will come, once everything was sent. An error means that the peer is gone, which
    /// the receive will find out too.
    pub(super) fn finish_sending(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Cuts both ways off, so that the operations in flight end.
    pub(super) fn cut(&mut self) {
        self.phase = Phase::Cut;
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Whether nothing more can happen to it.
    pub(super) fn is_over(&self) -> bool {
        let idle = !self.receiving && self.sending.is_none();
        idle && (self.phase == Phase::Cut || (self.phase == Phase::Closing && self.ended))
    }
}

/// A place for a connection.
struct Place {
    /// Upper half of the number of the connection in it, or of the next one. Raised by every one that leaves.
    generation: u32,
    conn: Option<Conn>,
}

/// All connections, by place and by number.
#[derive(Default)]
pub(super) struct Conns {
    places: Vec<Place>,
    free: Vec<u32>,
    live: usize,
}

impl Conns {
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Puts a connection in and gives its place; its number is made of both halves.
    pub(super) fn insert(&mut self, socket: TcpStream) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 1, conn: None });
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 places")
        });
        let place = &mut self.places[index as usize];
        let id = ConnId(u64::from(place.generation) << 32 | u64::from(index));
        place.conn = Some(Conn {
            id,
            socket,
            phase: Phase::Open,
            receiving: false,
            paused: false,
            ended: false,
            sending: None,
            discarded: 0,
        });
        self.live += 1;
        index
    }

    /// The connection in a place, which operations of the ring name.
    pub(super) fn at(&mut self, index: u32) -> &mut Conn {
        self.places[index as usize].conn.as_mut().expect("a place is kept until its operations have ended")
    }

    /// Cuts every connection off.
    pub(super) fn cut_all(&mut self) {
        for conn in self.places.iter_mut().filter_map(|place| place.conn.as_mut()) {
            conn.cut();
        }
    }

    /// The place of a connection, if it is still there.
    pub(super) fn find(&self, id: ConnId) -> Option<u32> {
        let index = id.0 as u32;
        let conn = self.places.get(index as usize)?.conn.as_ref()?;
        (conn.id == id).then_some(index)
    }

    /// Takes a connection out; its socket closes when it is dropped.
    pub(super) fn remove(&mut self, index: u32) -> Conn {
        let place = &mut self.places[index as usize];
        let conn = place.conn.take().expect("only a connection that is there leaves");
        self.live -= 1;
        // A place whose numbers are used up is left empty for ever.
        if let Some(next) = place.generation.checked_add(1) {
            place.generation = next;
            self.free.push(index);
        }
        conn
    }
}
