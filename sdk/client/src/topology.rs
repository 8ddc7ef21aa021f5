//! Where everything lives, as hello tells it.

use gristmill_base::ids::{ShardId, SlotId};
use gristmill_wire::HelloReply;

/// Shards, their addresses and their slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Which data directory this is.
    pub data_directory: [u8; 16],
    /// Address of each shard, by its number.
    pub shards: Vec<String>,
    /// The shard of each slot, by its number.
    pub slots: Vec<ShardId>,
}

impl Topology {
    /// As a server says it that was reached at `address`; shards without a port of their own are reached there too.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub fn new(hello: &HelloReply, address: &str) -> Result<Self, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        if hello.ports.is_empty() || hello.slots.is_empty() {
            return Err(format!("hello names {} shards and {} slots", hello.ports.len(), hello.slots.len()));
        }
        if let Some(shard) = hello.slots.iter().find(|shard| usize::from(shard.0) >= hello.ports.len()) {
            return Err(format!("hello gives a slot to shard {shard}, there are {}", hello.ports.len()));
        }
        let of_port = |port: &u16| if *port == 0 { address.to_owned() } else { format!("{host}:{port}") };
        Ok(Self {
            data_directory: hello.data_directory,
            shards: hello.ports.iter().map(of_port).collect(),
            slots: hello.slots.clone(),
        })
    }

    /// How many slots there are.
    #[must_use]
    pub fn slot_count(&self) -> u16 {
        self.slots.len() as u16
    }

    /// The shard of a slot.
    #[must_use]
    pub fn shard_of(&self, slot: SlotId) -> ShardId {
        self.slots[usize::from(slot.0)]
    }

    /// Whether shards, addresses and slots are the same.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.shards == other.shards && self.slots == other.slots
    }
}
