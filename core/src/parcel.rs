//! What shards say to each other: parcels of items over the mesh. Everything in an item is durable at its sender, or
//! needs not to be (requests, refusals, reads that waited).

use crate::catalog::Catalog;
use crate::request::{Refusal, Reply, Request};
use crate::shard::settle::{Drained, Need, RoundKey};
use crate::shard::{MoveItem, ReplayParts};
use gristmill_base::ids::{IndexId, ShardId, SlotId, TableId, Term};
use gristmill_base::query::Filter;
use gristmill_state::input::{Bytes, GrainAddress, Input, StreamId, Target};
use std::sync::Arc;

/// Items from one shard to another, in order.
pub type Parcel = Vec<Item>;

impl Item {
    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Message { target, .. } => target.weight(),
                Self::Event { grain, input, .. } => grain.key.len() + input.weight(),
                _ => 0,
            }
    }
}

/// One thing that a shard says to another.
#[derive(Clone, Debug)]
pub enum Item {
    /// A client's operation that the receiver owns.
    Request(Box<Request>),
    /// The reply to one.
    Reply(Box<Reply>),
    /// Row `seq` of the channel from one slot to another.
    Message {
        /// Sending slot.
        from: SlotId,
        /// Receiving slot.
        to: SlotId,
        /// Its number.
        seq: u64,
        /// What is sent where.
        target: Target,
    },
    /// An event of a lane for a subscriber.
    Event {
        /// The subscription's stream.
        stream: StreamId,
        /// Receiving slot.
        to: SlotId,
        /// Position before it in this stream and slot.
        prev: u64,
        /// Its position.
        pos: u64,
        /// The grain.
        grain: GrainAddress,
        /// What the grain gets.
        input: Box<Input>,
    },
    /// Nothing for a slot in `(prev, pos]` of a stream.
    Cover {
        /// The stream.
        stream: StreamId,
        /// Receiving slot.
        to: SlotId,
        /// Position before.
        prev: u64,
        /// Covered up to here.
        pos: u64,
    },
    /// Retention lets go of what a slot has not been sent in `(prev, pos]` of a stream: it is to be skipped by a record.
    Skip {
        /// The stream.
        stream: StreamId,
        /// Receiving slot.
        to: SlotId,
        /// Position before.
        prev: u64,
        /// Skipped up to here.
        pos: u64,
    },
    /// A receiver misses what lies behind `received`.
    Expected {
        /// The stream.
        stream: StreamId,
        /// Receiving slot.
        at: SlotId,
        /// Last position that it has.
        received: u64,
    },
    /// A receiver's durable records have consumed everything up to `cursor`.
    Report {
        /// The stream.
        stream: StreamId,
        /// Receiving slot.
        at: SlotId,
        /// Durable cursor.
        cursor: u64,
    },
    /// Another shard's part of a scan is wanted.
    ScanAsk {
        /// Who asks, and its number for it.
        from: (ShardId, u64),
        /// Table.
        table: TableId,
        /// Only keys that start so.
        prefix: Bytes,
        /// Only keys behind this one.
        after: Option<Bytes>,
        /// At most so many rows.
        limit: u32,
        /// Only parked grains.
        parked: bool,
        /// Only grains whose values match.
        filter: Option<Arc<Filter>>,
        /// Which index serves, where it can.
        index: Option<IndexId>,
        /// Whether every grain may be looked at where it cannot.
        may_scan: bool,
    },
    /// A part of a scan: rows in key order, and whether there are more.
    ScanPart {
        /// The asker's number.
        gather: u64,
        /// Key and value.
        rows: Vec<(Bytes, Option<Bytes>)>,
        /// The key up to which the part is all there is; `None` if it is the shard's last.
        end: Option<Bytes>,
        /// Grains that were looked at.
        looked: u64,
        /// Whether all of it was found by the index.
        by_index: bool,
        /// By which owners of slots it chose its own.
        term: Term,
    },
    /// A slot left while a part of a scan was made.
    ScanAgain {
        /// The asker's number.
        gather: u64,
    },
    /// A part of a scan cannot be shown.
    ScanFailed {
        /// The asker's number.
        gather: u64,
        /// Why.
        why: Box<Refusal>,
    },
    /// Another shard's status is wanted.
    StatusAsk {
        /// Who asks, and its number for it.
        from: (ShardId, u64),
    },
    /// A shard's status, as JSON.
    StatusPart {
        /// The asker's number.
        gather: u64,
        /// JSON object.
        json: String,
    },
    /// A round of a question whether an app has settled: take the cut.
    SettleCut {
        /// Which round.
        key: RoundKey,
        /// The app's number.
        app: u32,
        /// When the question is over, monotonic nanoseconds.
        until_nanos: u64,
    },
    /// Another shard's cut needs this to be handled here.
    SettleAsk {
        /// Which round.
        key: RoundKey,
        /// When the question is over, monotonic nanoseconds.
        until_nanos: u64,
        /// Streams of slots of the receiver, and up to which position.
        needs: Vec<Need>,
    },
    /// A slot has moved since a round began, so that its cut, or what that asks for, is not looked at any more. To the leader.
    SettleAgain {
        /// Which round.
        key: RoundKey,
    },
    /// What a cut needed of this shard is handled, durably.
    SettleMet {
        /// Which round.
        key: RoundKey,
    },
    /// A shard's cut is handled, durably.
    SettleDrained {
        /// Which round.
        key: RoundKey,
        /// What it tells the leader.
        drained: Box<Drained>,
    },
    /// A cut of that number was taken for a backup by the sender, before anything that comes behind this.
    Cut(u64),
    /// The sender's cut of that number is written down, or why not. To the leader.
    CutWritten(u64, Result<(), String>),
    /// A cut is not needed any longer. Only the leader sends it.
    CutReleased {
        /// Its number.
        number: u64,
        /// Whether nothing of it is; otherwise only the segments of its log.
        all: bool,
    },
    /// How far are the replays of the catalog? A round of that number of shard 0's.
    ReplayAsk(u64),
    /// The answer, once it is durable.
    ReplayParts(u64, Box<ReplayParts>),
    /// About a slot that moves to another shard.
    Move(Box<MoveItem>),
    /// A new snapshot of the catalog. Only shard 0 sends it.
    Catalog(Arc<Catalog>),
    /// The snapshot of that version is in use; after [`Item::CatalogShow`]: it is shown.
    CatalogUsed(u64),
    /// Every shard uses the snapshot of that version: show it to clients.
    CatalogShow(u64),
}
