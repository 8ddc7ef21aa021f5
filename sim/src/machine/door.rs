//! The door of a simulated core: the connections of `net`, as in production, over the simulated network.

use crate::net::{SimClient, SimNet};
use crate::rng::SimRng;
use gristmill_base::ids::{ConnId, ShardId};
use gristmill_base::placement::Owners;
use gristmill_core::Inbox;
use gristmill_core::request::Reply;
use gristmill_net::connection::Room;
use gristmill_net::connections::{Connections, Shares};
use gristmill_net::greeting::Greeting;

/// Connections with higher numbers are not of the network: who has them speaks to the shard directly.
const NETWORK_CONN_MAX: u64 = 1 << 31;
/// How often connections are looked after, as in production.
const TICK_NANOS: u64 = 1_000_000_000;

/// See the module.
pub(super) struct Door {
    net: SimNet,
    connections: Connections,
    next_tick: u64,
    /// Bulk operations that the shard takes in its next turn.
    pub(super) bulk_room: usize,
    /// And when it takes operations that write, monotonic nanoseconds.
    pub(super) writes_not_before: u64,
}

impl Door {
    /// The door of a shard; bytes come in pieces of up to `piece_max`.
    pub(super) fn new(shard: ShardId, owners: &Owners, piece_max: u64, rng: SimRng) -> Self {
        let greeting = Greeting {
            shard,
            data_directory: 1,
            placement_version: 1,
            ports: vec![0; usize::from(owners.shards())],
            slots: owners.all().to_vec(),
        };
        Self {
            net: SimNet::new(piece_max, rng),
            connections: Connections::new(greeting, Shares::default()),
            next_tick: 0,
            bulk_room: 0,
            writes_not_before: 0,
        }
    }

    /// Clients that come from now on are told of other owners.
    pub(super) fn hear_of(&mut self, owners: &Owners) {
        self.connections.hear_of(owners);
    }

    /// A client's end of a new connection.
    pub(super) fn connect(&self) -> SimClient {
        self.net.connect(0)
    }

    /// Whether something of the network waits for the shard.
    pub(super) fn has_news(&self, now: u64) -> bool {
        self.net.has_news() || self.connections.has_frames(self.room(now))
    }

    fn room(&self, now: u64) -> Room {
        Room { bulk: self.bulk_room, writes: now >= self.writes_not_before }
    }

    /// When connections that have stopped at a write go on; `u64::MAX` if none has.
    pub(super) fn deadline(&self) -> u64 {
        if self.connections.has_held() { self.writes_not_before } else { u64::MAX }
    }

    /// What it holds, in words.
    pub(super) fn waits(&self) -> String {
        let mut gauges = Vec::new();
        self.connections.gauges(&mut gauges);
        gauges.retain(|(_, value)| *value > 0);
        format!("{gauges:?}, news: {}, frames: {}", self.net.has_news(), self.connections.has_frames(Room::ALL))
    }

    /// What has come since the last turn.
    pub(super) fn poll(&mut self, now: u64, inbox: &mut Inbox) {
        use gristmill_base::env::Net;
        let connections = &mut self.connections;
        self.net.poll(&mut |event| connections.event(event, now));
        connections.take_closed(&mut inbox.closed);
        if now >= self.next_tick {
            self.next_tick = now + TICK_NANOS;
            connections.tick(now);
        }
        let room = Room { bulk: self.bulk_room, writes: now >= self.writes_not_before };
        connections.take_requests(now, room, &mut inbox.requests);
    }

    /// Takes the replies that are for its connections out of `replies`, and does on the sockets what is to be done.
    pub(super) fn answer(&mut self, replies: &mut Vec<Reply>) {
        let is_mine = |reply: &mut Reply| reply.responder.conn <= ConnId(NETWORK_CONN_MAX);
        let mine: Vec<Reply> = replies.extract_if(.., is_mine).collect();
        self.connections.reply(mine.into_iter());
        self.connections.flush(&mut self.net);
    }
}
