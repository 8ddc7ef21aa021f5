//! What is to be done: settings of a run, and the numbers that the server gave to the app's things.

use std::time::Duration;

use gristmill_base::ids::{HandlerId, ShardId, SlotId, TableId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_client::{AppInfo, Client, Error, Topology};

/// The operation that makes the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Op {
    /// Sets the value of a grain without a handler.
    Put,
    /// Reads the value of a grain; all are set first.
    Get,
    /// Appends an event.
    Append,
    /// Runs a handler that counts.
    Invoke,
}

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host and port of any shard.
    pub address: String,
    /// What makes the load.
    pub op: Op,
    /// Connections, each with a session and keys of its own.
    pub connections: usize,
    /// Operations in flight per connection.
    pub depth: usize,
    /// Bytes of a value; at least 16.
    pub size: usize,
    /// Keys, over all connections.
    pub keys: usize,
    /// How long load is made and measured.
    pub time: Duration,
    /// How long load is made before that, without being measured.
    pub warmup: Duration,
    /// Operations per second over all connections, started by the clock (open loop); none for as fast as results come.
    pub rate: Option<f64>,
    /// Threads that make the load.
    pub threads: usize,
    /// Every key is set already, by an earlier run with the same keys, connections and seed: gets begin at once.
    pub preloaded: bool,
    /// Read everything back afterwards.
    pub verify: bool,
    /// Chooses keys and their order. Two runs at the same time need different ones.
    pub seed: u64,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) topology: Topology,
    pub(crate) topic: TopicId,
    pub(crate) lanes: u16,
    pub(crate) kv: TableId,
    pub(crate) counter: TableId,
    pub(crate) count: HandlerId,
}

impl Plan {
    /// Asks the server for numbers and places.
    pub(crate) fn new(settings: &Settings, client: &mut Client) -> Result<Self, Error> {
        let app: AppInfo = client.describe(gristmill_loadgen_app::NAME)?.clone();
        let (topic, counter) = (app.topic("events")?, app.table("counter")?);
        Ok(Self {
            settings: settings.clone(),
            topology: client.topology().clone(),
            topic: topic.id,
            lanes: topic.lanes,
            kv: app.table("kv")?.id,
            counter: counter.id,
            count: counter.handler("count")?.id,
        })
    }

    /// The slot that an operation on this key belongs to.
    pub(crate) fn slot(&self, key: &[u8]) -> SlotId {
        let slots = self.topology.slot_count();
        match self.settings.op {
            Op::Append => lane_home(self.topic, lane_of(key, self.lanes), self.lanes, slots),
            _ => slot_of(key, slots),
        }
    }

    /// The shard that a connection goes to.
    pub(crate) fn shard(&self, connection: usize) -> ShardId {
        ShardId((connection % self.topology.shards.len()) as u16)
    }
}
