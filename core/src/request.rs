//! What the doors speak to the shard: decoded requests in, replies out. Knows no bytes of any protocol.

mod measure;
mod refusal;
mod table;
mod version;
mod view;
mod watch;

pub use refusal::{Code, Refusal};
pub use version::RowVersion;
pub use view::{BatchView, EventView};
pub use watch::{ChangeView, Changes, RowChange, Watch};

use gristmill_base::class::InputClass;
use gristmill_base::ids::{
    HandlerId, LaneId, MapId, Offset, SessionId, SessionKey, ShardId, SlotId, TableId, TaskId, TopicId,
};

pub use crate::catalog::Begin;
pub use crate::shard::ReplayAct;
use gristmill_base::query::Filter;
use std::sync::Arc;

pub use gristmill_state::batch::{Batch, BatchFormat};
pub use gristmill_state::input::{Bytes, Responder};
pub use gristmill_state::key::Key;

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who waits for the reply.
    pub responder: Responder,
    /// The client's session; 0 before it has one. Sequenced operations need one.
    pub session: SessionId,
    /// Live or bulk.
    pub class: InputClass,
    /// What it wants.
    pub operation: Operation,
}

/// Place of a sequenced operation in its session: see the client session of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Dense per session and slot, from 1.
    pub seq: u64,
    /// The client has the replies of this slot up to here.
    pub ack: u64,
}

/// What a client wants.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A session for this client. Of a request whose session is not 0: to go on with that one, which only its key
    /// allows. Answered by [`Answer::Session`].
    OpenSession {
        /// The key of the session to go on with; means nothing for a new one.
        key: SessionKey,
    },
    /// Append an event. Answered by [`Answer::Appended`].
    Produce {
        /// Topic.
        topic: TopicId,
        /// Sequenced at the slot that homes the key's lane.
        sequence: Sequence,
        /// The event's key.
        key: Bytes,
        /// The event's value.
        value: Bytes,
        /// The event's headers.
        headers: Vec<(Bytes, Bytes)>,
        /// When it happened, microseconds since 1970; 0 = when it is appended.
        event_micros: u64,
    },
    /// Append records of a bounded input to lanes that one slot homes. Answered by [`Answer::Ingested`].
    Ingest(Ingest),
    /// Append a batch: all of its events at consecutive offsets, or none. Answered by [`Answer::Appended`], with the offset
    /// of the first one.
    Append {
        /// Topic.
        topic: TopicId,
        /// Lane. Keys of native batches belong to it.
        lane: LaneId,
        /// Sequenced at the slot that homes the lane.
        sequence: Sequence,
        /// The events; their class is that of the request.
        batch: Batch,
    },
    /// Batches of a lane. Answered by [`Answer::Batches`].
    Fetch {
        /// Topic.
        topic: TopicId,
        /// Lane.
        lane: LaneId,
        /// First offset wanted; 0 for the first that is there. The first batch may begin before it.
        from: Offset,
        /// At most so many; the last batch is returned whole.
        max_events: u32,
        /// At most so many bytes; one batch is always returned.
        max_bytes: u32,
        /// Wait so long for the first event if there is none.
        wait_millis: u32,
        /// Batches of other formats than the native one as they are, and not as native ones.
        as_stored: bool,
    },
    /// Events of a lane. Answered by [`Answer::Events`].
    Read {
        /// Topic.
        topic: TopicId,
        /// Lane.
        lane: LaneId,
        /// First offset wanted; 0 for the first that is there.
        from: Offset,
        /// At most so many.
        max_events: u32,
        /// At most so many bytes; one event is always returned.
        max_bytes: u32,
        /// Wait so long for the first event if there is none.
        wait_millis: u32,
    },
    /// Where a lane begins and ends. Answered by [`Answer::Offsets`].
    Offsets {
        /// Topic.
        topic: TopicId,
        /// Lane.
        lane: LaneId,
        /// And its first event that was appended at this time or later, microseconds since 1970.
        time_micros: Option<u64>,
    },
    /// A value or a map entry with its version, perhaps only once the grain has handled what it gets of a lane. Answered by
    /// [`Answer::Row`], or by [`Answer::NotYet`].
    GetVersioned {
        /// Table.
        table: TableId,
        /// Grain.
        key: Key,
        /// Map and key of the entry; `None`: the value.
        entry: Option<(MapId, Bytes)>,
        /// What must be handled before.
        after: Option<After>,
    },
    /// Change a value or a map entry if it is as expected. Answered by [`Answer::Compared`].
    Compare {
        /// Table.
        table: TableId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// Map and key of the entry; `None`: the value.
        entry: Option<(MapId, Bytes)>,
        /// What it must be.
        condition: Condition,
        /// What it becomes; `None`: the entry goes, or, of the value, the whole grain.
        new: Option<Bytes>,
    },
    /// A grain's value. Answered by [`Answer::Value`].
    Get {
        /// Table.
        table: TableId,
        /// Grain.
        key: Key,
    },
    /// Set a grain's value. Answered by [`Answer::Done`].
    Put {
        /// Table.
        table: TableId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// Its new value.
        value: Bytes,
    },
    /// Delete a grain. Answered by [`Answer::Done`].
    Delete {
        /// Table.
        table: TableId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
    },
    /// A map entry. Answered by [`Answer::Value`].
    MapGet {
        /// Table.
        table: TableId,
        /// Map.
        map: MapId,
        /// Grain.
        key: Key,
        /// Entry.
        entry: Bytes,
    },
    /// Set a map entry. Answered by [`Answer::Done`].
    MapPut {
        /// Table.
        table: TableId,
        /// Map.
        map: MapId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// Entry.
        entry: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Delete a map entry. Answered by [`Answer::Done`].
    MapDelete {
        /// Table.
        table: TableId,
        /// Map.
        map: MapId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// Entry.
        entry: Bytes,
    },
    /// Delete the entries of a map from a key to before another. Answered by [`Answer::Done`].
    MapDeleteRange {
        /// Table.
        table: TableId,
        /// Map.
        map: MapId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// First entry key that goes.
        from: Bytes,
        /// First entry key that stays; `None` = to the end.
        to: Option<Bytes>,
    },
    /// Entries of a map. Answered by [`Answer::Entries`].
    Range {
        /// Table.
        table: TableId,
        /// Map.
        map: MapId,
        /// Grain.
        key: Key,
        /// First entry key wanted.
        from: Bytes,
        /// First entry key not wanted; `None` = to the end.
        to: Option<Bytes>,
        /// At most so many.
        limit: u32,
        /// From the end.
        reverse: bool,
    },
    /// Grains of a table in byte-wise key order. Answered by [`Answer::Rows`].
    Scan {
        /// Table.
        table: TableId,
        /// Only keys that start so.
        prefix: Bytes,
        /// Only keys after this one; `None` = from the start.
        after: Option<Bytes>,
        /// At most so many.
        limit: u32,
        /// Only this shard's grains; else all shards are asked and their answers merged.
        local: bool,
        /// Only parked grains; of each comes, as JSON, why it is parked and how much waits, in the place of its value.
        parked: bool,
    },
    /// Changes of a table's grains. Answered by [`Answer::Changes`].
    Watch(Box<Watch>),
    /// Grains of a table whose JSON values match, in byte-wise key order. Answered by [`Answer::Found`].
    Query {
        /// Table.
        table: TableId,
        /// Only keys that start so.
        prefix: Bytes,
        /// Only keys after this one; `None` = from the start.
        after: Option<Bytes>,
        /// At most so many.
        limit: u32,
        /// Only this shard's grains; else all shards are asked and their answers merged.
        local: bool,
        /// Also if every grain has to be looked at.
        scan: bool,
        /// What must be so.
        filter: Arc<Filter>,
    },
    /// Why a grain is parked, and the first inputs that wait for it. Answered by [`Answer::Json`].
    ShowParked {
        /// Table.
        table: TableId,
        /// Grain.
        key: Key,
        /// At most so many inputs.
        limit: u32,
    },
    /// Why a grain does not move. Answered by [`Answer::Json`].
    Why {
        /// Table.
        table: TableId,
        /// Grain.
        key: Key,
    },
    /// Let a parked grain run again. Answered by [`Answer::Done`].
    Retry {
        /// Table.
        table: TableId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
    },
    /// Give up the input that waits first for a parked grain. Answered by [`Answer::Done`].
    Skip {
        /// Table.
        table: TableId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// Also where its handler names no dead-letter topic.
        drop: bool,
        /// Let the grain run again from then on.
        retry: bool,
        /// The name of the input, as [`Operation::ShowParked`] tells it: refused if another one waits first. Empty: whatever
        /// does.
        expect: Box<str>,
    },
    /// Put another payload in the place of that of the input which waits first for a parked grain. Answered by
    /// [`Answer::Done`].
    Edit {
        /// Table.
        table: TableId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// What its handler gets.
        payload: Bytes,
        /// As that of [`Operation::Skip`].
        expect: Box<str>,
    },
    /// Call a handler and wait for its reply. Answered by [`Answer::Value`].
    Invoke {
        /// Table.
        table: TableId,
        /// Handler.
        handler: HandlerId,
        /// Sequenced at the key's slot.
        sequence: Sequence,
        /// Grain.
        key: Key,
        /// What the handler gets.
        payload: Bytes,
    },
    /// Fill a number of the session's sequence with nothing. Answered by [`Answer::Done`].
    Void {
        /// Slot whose sequence it is.
        slot: SlotId,
        /// Its place.
        sequence: Sequence,
    },
    /// Load an app file. Answered by [`Answer::Json`].
    AppLoad {
        /// YAML.
        text: Bytes,
        /// Also if the change destroys something.
        force: bool,
        /// Change nothing, say what would be otherwise.
        dry_run: bool,
    },
    /// Loaded apps. Answered by [`Answer::Json`].
    AppList,
    /// The versions of an app that are kept, or, unless it is 0, one with its file. Answered by [`Answer::Json`].
    AppVersions {
        /// The app's name.
        name: String,
        /// Which.
        version: u32,
    },
    /// Unload an app and delete what it holds. Answered by [`Answer::Json`].
    AppDelete {
        /// Its name.
        name: String,
    },
    /// Pause a subscription, or resume it. Answered by [`Answer::Json`].
    Pause {
        /// The app's name.
        app: String,
        /// The subscription's name, or `TABLE.HANDLER.NAME` where several have that.
        name: String,
        /// Whether its events wait from now on.
        paused: bool,
    },
    /// Build next versions of tables by running their subscriptions again, or tell of it. Answered by [`Answer::Json`].
    Replay {
        /// The app's name; empty for the state of all.
        app: String,
        /// What.
        act: ReplayAct,
    },
    /// Subscriptions of an app. Answered by [`Answer::Json`].
    SubscriptionList {
        /// The app's name.
        app: String,
    },
    /// Topics of all apps. Answered by [`Answer::Json`].
    TopicList,
    /// Ids and types of an app's things. Answered by [`Answer::Json`].
    Describe {
        /// The app's name.
        name: String,
    },
    /// How the server is. Answered by [`Answer::Json`].
    Status,
    /// A step of a backup: of a new one, or of that with the cut. Answered by [`Answer::Json`].
    Backup {
        /// Which.
        step: BackupStep,
        /// Number of the cut; 0 to begin.
        cut: u64,
    },
    /// Move a slot to another shard. Answered by [`Answer::Json`].
    Move {
        /// The slot.
        slot: SlotId,
        /// The shard.
        to: ShardId,
    },
    /// Wait until what an app was given before is handled, with all that it caused. Answered by [`Answer::Json`].
    Settle {
        /// The app's name.
        name: String,
        /// How long.
        wait_millis: u32,
    },
}

/// What a row must be so that it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is none.
    Absent,
    /// It is still the one that had this version.
    Version(RowVersion),
    /// It has these bytes.
    Value(Bytes),
}

/// An event whose effect on a grain must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// A topic that the grain's table subscribes to.
    pub topic: TopicId,
    /// A lane of it.
    pub lane: LaneId,
    /// Up to this event.
    pub offset: Offset,
    /// Wait so long for it.
    pub wait_millis: u32,
}

/// What whoever copies a data directory asks of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupStep {
    /// Take a cut and hold it.
    Begin,
    /// Hold it on.
    Hold,
    /// Hold it on, but for the logs, which are copied.
    LogsCopied,
    /// It is not needed any longer.
    End,
}

/// Records of a bounded input. Without records it only asks how far the input has come in the slot.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Topic.
    pub topic: TopicId,
    /// The input.
    pub input: TaskId,
    /// Home slot of the lanes of all the keys.
    pub slot: SlotId,
    /// The input is over here: nothing of it is appended any more.
    pub end: bool,
    /// The input has nothing more for the slot up to here.
    pub prev: u64,
    /// Positions, keys and values; positions ascend from behind `prev`.
    pub records: Vec<(u64, Bytes, Bytes)>,
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, and durable.
    Done,
    /// The session's id, and the key that a client must show to go on with it.
    Session(SessionId, SessionKey),
    /// The event is appended, and durable.
    Appended {
        /// Lane it went to.
        lane: LaneId,
        /// Its position there.
        offset: Offset,
    },
    /// The slot has the bounded input up to this position, durably.
    Ingested(u64),
    /// A value or a handler's reply; `None`: there is none.
    Value(Option<Bytes>),
    /// A value or entry with its version; `None`: there is none.
    Row(Option<(RowVersion, Bytes)>),
    /// What was to be handled before has not come in time: what has not.
    NotYet(String),
    /// How a change under a condition has ended.
    Compared {
        /// Whether it was made.
        done: bool,
        /// The row as it was left; `None`: there is none.
        version: Option<RowVersion>,
        /// Of a condition that did not hold: the bytes of the row, if they are few.
        value: Option<Bytes>,
    },
    /// Events in order.
    Events {
        /// Position after the last durable event of the lane.
        end: Offset,
        /// Position to read from next.
        next: Offset,
        /// The events.
        events: Vec<EventView>,
    },
    /// Batches in order.
    Batches {
        /// Position after the last durable event of the lane.
        end: Offset,
        /// Position to read from next.
        next: Offset,
        /// The batches.
        batches: Vec<BatchView>,
    },
    /// Places in a lane.
    Offsets {
        /// The first event that can be read.
        start: Offset,
        /// Behind the last one that can be read.
        end: Offset,
        /// The first one since the time that was asked for, `end` if there is none; 0 if no time was.
        at: Offset,
    },
    /// Entries of a map.
    Entries {
        /// Key and value, in the order asked for.
        entries: Vec<(Bytes, Bytes)>,
        /// Whether the range holds more.
        more: bool,
    },
    /// Grains of a table.
    Rows {
        /// Key and value (`None`: the grain has maps only), in byte-wise key order.
        rows: Vec<(Bytes, Option<Bytes>)>,
        /// Whether there are more.
        more: bool,
    },
    /// What has changed, and where the watch is now.
    Changes(Box<Changes>),
    /// Grains of a table that match a filter.
    Found {
        /// Key and value, in byte-wise key order.
        rows: Vec<(Bytes, Option<Bytes>)>,
        /// Where to go on; `None` if there are no more.
        next: Option<Bytes>,
        /// Grains that were looked at.
        looked: u64,
        /// Name of the index that has found all of it; `None`: every grain was looked at, of some slots at least.
        index: Option<String>,
    },
    /// A JSON text.
    Json(String),
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where it goes.
    pub responder: Responder,
    /// What it says.
    pub outcome: Result<Answer, Refusal>,
}

impl Request {
    /// What it is, with nothing left here that is to be done: for who has it in a list.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let operation = std::mem::replace(&mut self.operation, Operation::Status);
        Self { responder: self.responder, session: self.session, class: self.class, operation }
    }
}
