//! Operations that own their keys and values, so that they can be sent again.

use gristmill_base::ids::{HandlerId, LaneId, MapId, Offset, ShardId, SlotId, TableId, TaskId, TopicId};
use gristmill_wire as wire;
use gristmill_wire::{DecodeError, HeadersBuf, Operation, Sequence};

/// An operation of a client. Its position in the session is given when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the operations of the wire, documented there")]
pub enum OwnedOperation {
    /// See [`wire::Produce`].
    Produce {
        topic: TopicId,
        lanes: u16,
        event_time: i64,
        key: Vec<u8>,
        value: Vec<u8>,
        headers: Vec<(String, Vec<u8>)>,
    },
    /// See [`wire::Append`]. Of version 2 of the protocol.
    Append { topic: TopicId, lanes: u16, lane: LaneId, events: wire::EventBatchBuf },
    /// See [`wire::Operation::Fetch`]. Of version 2 of the protocol. The events of the first batch that lie before `from` come
    /// too.
    Fetch { topic: TopicId, lanes: u16, lane: LaneId, from: Offset, max_records: u32, max_bytes: u32, wait_millis: u32 },
    /// See [`wire::Read`].
    Read { topic: TopicId, lanes: u16, lane: LaneId, from: Offset, max_records: u32, max_bytes: u32, wait_millis: u32 },
    /// See [`wire::Offsets`].
    Offsets { topic: TopicId, lanes: u16, lane: LaneId, time: Option<i64> },
    /// See [`wire::Ingest`]. Not numbered in the session: it may be sent again.
    Ingest { topic: TopicId, input: TaskId, slot: SlotId, end: bool, prev: u64, records: wire::RecordsBuf },
    /// See [`wire::Get`].
    Get { table: TableId, key: Vec<u8> },
    /// See [`wire::Put`].
    Put { table: TableId, key: Vec<u8>, value: Vec<u8> },
    /// See [`wire::Delete`].
    Delete { table: TableId, key: Vec<u8> },
    /// See [`wire::MapGet`].
    MapGet { table: TableId, map: MapId, key: Vec<u8>, entry_key: Vec<u8> },
    /// See [`wire::MapPut`].
    MapPut { table: TableId, map: MapId, key: Vec<u8>, entry_key: Vec<u8>, entry_value: Vec<u8> },
    /// See [`wire::MapDelete`].
    MapDelete { table: TableId, map: MapId, key: Vec<u8>, entry_key: Vec<u8> },
    /// See [`wire::MapDeleteRange`].
    MapDeleteRange { table: TableId, map: MapId, key: Vec<u8>, from: Vec<u8>, to: Option<Vec<u8>> },
    /// See [`wire::CompareSet`]. Of version 2 of the protocol.
    CompareSet {
        table: TableId,
        key: Vec<u8>,
        entry: Option<(MapId, Vec<u8>)>,
        condition: OwnedCondition,
        new: Option<Vec<u8>>,
    },
    /// See [`wire::GetVersioned`]. Of version 2 of the protocol.
    GetVersioned { table: TableId, key: Vec<u8>, entry: Option<(MapId, Vec<u8>)>, after: Option<wire::After> },
    /// See [`wire::Range`].
    Range { table: TableId, map: MapId, key: Vec<u8>, from: Vec<u8>, to: Option<Vec<u8>>, reverse: bool, limit: u32 },
    /// See [`wire::Scan`]. The whole table is asked for; the server puts its shards together.
    Scan { table: TableId, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: u32 },
    /// See [`wire::Watch`]. Of version 2 of the protocol.
    Watch {
        table: TableId,
        is_key: bool,
        key: Vec<u8>,
        max_changes: u32,
        max_bytes: u32,
        wait_millis: u32,
        positions: wire::PositionsBuf,
    },
    /// See [`wire::Query`]. The whole table is asked for. Of version 2 of the protocol.
    Query { table: TableId, prefix: Vec<u8>, after: Option<Vec<u8>>, scan: bool, limit: u32, filter: Vec<u8> },
    /// See [`wire::Operation::ParkedList`]. The whole table is asked for. Of version 2 of the protocol, as all of these.
    ParkedList { table: TableId, after: Option<Vec<u8>>, limit: u32 },
    /// See [`wire::ShowParked`].
    ParkedShow { table: TableId, key: Vec<u8>, limit: u32 },
    /// See [`wire::Why`].
    Why { table: TableId, key: Vec<u8> },
    /// See [`wire::PauseSubscription`].
    SubscriptionPause { app: String, name: String, paused: bool },
    /// See [`wire::Operation::SubscriptionList`].
    SubscriptionList { app: String },
    /// See [`wire::RetryParked`].
    ParkedRetry { table: TableId, key: Vec<u8> },
    /// See [`wire::SkipParked`].
    ParkedSkip { table: TableId, key: Vec<u8>, drop: bool, retry: bool, expect: String },
    /// See [`wire::EditParked`].
    ParkedEdit { table: TableId, key: Vec<u8>, expect: String, payload: Vec<u8> },
    /// See [`wire::Invoke`].
    Invoke { table: TableId, handler: HandlerId, key: Vec<u8>, payload: Vec<u8> },
    /// See [`wire::AppLoad`].
    AppLoad { force: bool, dry_run: bool, file_name: String, file: String },
    /// See [`wire::AppVersions`].
    AppVersions { app: String, version: u32 },
    /// See [`wire::AppReplay`].
    AppReplay { app: String, step: wire::ReplayStep, tables: String },
    /// See [`wire::AppDelete`].
    AppDelete { app: String },
    /// See [`wire::AppSettle`].
    AppSettle { app: String, wait_millis: u32 },
    /// See [`wire::Backup`].
    Backup { step: wire::BackupStep, cut: u64 },
    /// See [`wire::MoveSlot`].
    MoveSlot { slot: SlotId, to: ShardId },
    /// See [`wire::Describe`].
    Describe { app: String },
    /// See [`wire::Operation::AppList`].
    AppList,
    /// See [`wire::Operation::TopicList`].
    TopicList,
    /// See [`wire::Operation::Status`].
    Status,
    /// See [`wire::Operation::Ping`].
    Ping,
}

/// See [`wire::Condition`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "those of the wire, documented there")]
pub enum OwnedCondition {
    Absent,
    Version(Vec<u8>),
    Value(Vec<u8>),
}

impl OwnedOperation {
    /// Calls `with` on the operation at that position; those that take none ignore it.
    pub(crate) fn with_wire<R>(
        &self,
        sequence: Sequence,
        with: impl FnOnce(&Operation<'_>) -> Result<R, DecodeError>,
    ) -> Result<R, DecodeError> {
        if let Self::Produce { topic, event_time, key, value, headers, .. } = self {
            let mut buf = HeadersBuf::default();
            for (name, value) in headers {
                buf.push(name, value)?;
            }
            let (topic, event_time, headers) = (*topic, *event_time, buf.as_headers());
            return with(&Operation::Produce(wire::Produce { topic, sequence, event_time, key, value, headers }));
        }
        with(&self.wire(sequence))
    }

    /// All but produce.
    fn wire(&self, sequence: Sequence) -> Operation<'_> {
        match self {
            Self::Produce { .. } => unreachable!("a produce borrows its headers from the caller"),
            Self::Append { topic, lane, events, .. } => {
                Operation::Append(wire::Append { topic: *topic, sequence, lane: *lane, batch: events.as_batch() })
            }
            &Self::Fetch { topic, lane, from, max_records, max_bytes, wait_millis, .. } => {
                Operation::Fetch(wire::Read { topic, lane, from, max_records, max_bytes, wait_millis })
            }
            &Self::Read { topic, lane, from, max_records, max_bytes, wait_millis, .. } => {
                Operation::Read(wire::Read { topic, lane, from, max_records, max_bytes, wait_millis })
            }
            &Self::Offsets { topic, lane, time, .. } => Operation::Offsets(wire::Offsets { topic, lane, time }),
            Self::Ingest { topic, input, slot, end, prev, records } => Operation::Ingest(wire::Ingest {
                topic: *topic,
                input: *input,
                slot: *slot,
                end: *end,
                prev: *prev,
                records: records.as_records(),
            }),
            Self::Get { table, key } => Operation::Get(wire::Get { table: *table, key }),
            Self::Put { table, key, value } => Operation::Put(wire::Put { table: *table, sequence, key, value }),
            Self::Delete { table, key } => Operation::Delete(wire::Delete { table: *table, sequence, key }),
            Self::MapGet { .. }
            | Self::MapPut { .. }
            | Self::MapDelete { .. }
            | Self::MapDeleteRange { .. }
            | Self::Range { .. } => self.wire_of_map(sequence),
            Self::CompareSet { .. } | Self::GetVersioned { .. } => self.wire_of_row(sequence),
            Self::Watch { .. } => self.wire_of_watch(),
            Self::Scan { table, prefix, after, limit } => Operation::Scan(wire::Scan {
                table: *table,
                prefix,
                after: after.as_deref(),
                shard_local: false,
                limit: *limit,
            }),
            Self::Query { table, prefix, after, scan, limit, filter } => Operation::Query(wire::Query {
                table: *table,
                prefix,
                after: after.as_deref(),
                shard_local: false,
                scan: *scan,
                limit: *limit,
                filter,
            }),
            Self::Invoke { table, handler, key, payload } => {
                Operation::Invoke(wire::Invoke { table: *table, handler: *handler, sequence, key, payload })
            }
            other => other.wire_of_parked(sequence),
        }
    }

    /// What is about parked grains.
    fn wire_of_parked(&self, sequence: Sequence) -> Operation<'_> {
        match self {
            Self::ParkedList { table, after, limit } => Operation::ParkedList(wire::Scan {
                table: *table,
                prefix: b"",
                after: after.as_deref(),
                shard_local: false,
                limit: *limit,
            }),
            Self::ParkedShow { table, key, limit } => {
                Operation::ParkedShow(wire::ShowParked { table: *table, key, limit: *limit })
            }
            Self::Why { table, key } => Operation::Why(wire::Why { table: *table, key }),
            Self::ParkedRetry { table, key } => {
                Operation::ParkedRetry(wire::RetryParked { table: *table, sequence, key })
            }
            Self::ParkedSkip { table, key, drop, retry, expect } => {
                let (table, drop, retry) = (*table, *drop, *retry);
                Operation::ParkedSkip(wire::SkipParked { table, sequence, drop, retry, key, expect })
            }
            Self::ParkedEdit { table, key, expect, payload } => {
                Operation::ParkedEdit(wire::EditParked { table: *table, sequence, key, expect, payload })
            }
            other => other.wire_of_app(),
        }
    }

    /// What is about apps and the server.
    fn wire_of_app(&self) -> Operation<'_> {
        match self {
            Self::SubscriptionPause { app, name, paused } => {
                Operation::SubscriptionPause(wire::PauseSubscription { app, name, paused: *paused })
            }
            Self::SubscriptionList { app } => Operation::SubscriptionList(wire::Describe { app }),
            Self::AppLoad { force, dry_run, file_name, file } => {
                Operation::AppLoad(wire::AppLoad { force: *force, dry_run: *dry_run, file_name, file })
            }
            Self::AppVersions { app, version } => Operation::AppVersions(wire::AppVersions { app, version: *version }),
            Self::AppReplay { app, step, tables } => Operation::AppReplay(wire::AppReplay { app, step: *step, tables }),
            Self::AppDelete { app } => Operation::AppDelete(wire::AppDelete { app }),
            Self::AppSettle { app, wait_millis } => {
                Operation::AppSettle(wire::AppSettle { app, wait_millis: *wait_millis })
            }
            Self::Backup { step, cut } => Operation::Backup(wire::Backup { step: *step, cut: *cut }),
            Self::MoveSlot { slot, to } => Operation::MoveSlot(wire::MoveSlot { slot: *slot, to: *to }),
            Self::Describe { app } => Operation::Describe(wire::Describe { app }),
            Self::AppList => Operation::AppList,
            Self::TopicList => Operation::TopicList,
            Self::Status => Operation::Status,
            Self::Ping => Operation::Ping,
            other => unreachable!("{other:?} is of a topic or a table"),
        }
    }

    fn wire_of_map(&self, sequence: Sequence) -> Operation<'_> {
        match self {
            Self::MapGet { table, map, key, entry_key } => {
                Operation::MapGet(wire::MapGet { table: *table, map: *map, key, entry_key })
            }
            Self::MapPut { table, map, key, entry_key, entry_value } => {
                Operation::MapPut(wire::MapPut { table: *table, map: *map, sequence, key, entry_key, entry_value })
            }
            Self::MapDelete { table, map, key, entry_key } => {
                Operation::MapDelete(wire::MapDelete { table: *table, map: *map, sequence, key, entry_key })
            }
            Self::MapDeleteRange { table, map, key, from, to } => Operation::MapDeleteRange(wire::MapDeleteRange {
                table: *table,
                map: *map,
                sequence,
                key,
                from,
                to: to.as_deref(),
            }),
            Self::Range { table, map, key, from, to, reverse, limit } => Operation::Range(wire::Range {
                table: *table,
                map: *map,
                key,
                from,
                to: to.as_deref(),
                reverse: *reverse,
                limit: *limit,
            }),
            _ => unreachable!("only operations on maps come here"),
        }
    }

    /// What is about rows and their versions.
    fn wire_of_row(&self, sequence: Sequence) -> Operation<'_> {
        match self {
            Self::CompareSet { table, key, entry, condition, new } => Operation::CompareSet(wire::CompareSet {
                table: *table,
                sequence,
                key,
                entry: entry.as_ref().map(|(map, key)| (*map, &key[..])),
                condition: match condition {
                    OwnedCondition::Absent => wire::Condition::Absent,
                    OwnedCondition::Version(version) => wire::Condition::Version(version),
                    OwnedCondition::Value(value) => wire::Condition::Value(value),
                },
                new: new.as_deref(),
            }),
            Self::GetVersioned { table, key, entry, after } => Operation::GetVersioned(wire::GetVersioned {
                table: *table,
                key,
                entry: entry.as_ref().map(|(map, key)| (*map, &key[..])),
                after: *after,
            }),
            _ => unreachable!("only operations on rows come here"),
        }
    }

    fn wire_of_watch(&self) -> Operation<'_> {
        let Self::Watch { table, is_key, key, max_changes, max_bytes, wait_millis, positions } = self else {
            unreachable!("only watches come here")
        };
        Operation::Watch(wire::Watch {
            table: *table,
            is_key: *is_key,
            key,
            max_changes: *max_changes,
            max_bytes: *max_bytes,
            wait_millis: *wait_millis,
            positions: positions.as_positions(),
        })
    }

    /// The slot it belongs to, where there is one.
    pub(crate) fn slot(&self, slot_count: u16) -> Option<SlotId> {
        let lane_count = match self {
            Self::Produce { lanes, .. }
            | Self::Append { lanes, .. }
            | Self::Fetch { lanes, .. }
            | Self::Read { lanes, .. }
            | Self::Offsets { lanes, .. } => Some(*lanes),
            _ => None,
        };
        if let Self::Produce { topic, key, .. } = self {
            return wire::Route::TopicKey(*topic, key).slot(slot_count, |_| lane_count);
        }
        self.wire(Sequence { seq: 1, ack: 0 }).route().slot(slot_count, |_| lane_count)
    }

    /// What the operation asks for.
    pub(crate) fn code(&self) -> wire::OpCode {
        if let Self::Produce { .. } = self {
            return wire::OpCode::Produce;
        }
        self.wire(Sequence { seq: 1, ack: 0 }).code()
    }

    /// Bytes that it occupies, about.
    pub(crate) fn bytes(&self) -> usize {
        let own = match self {
            Self::Produce { key, value, headers, .. } => {
                key.len() + value.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
            Self::Get { key, .. }
            | Self::Delete { key, .. }
            | Self::ParkedShow { key, .. }
            | Self::Why { key, .. }
            | Self::ParkedRetry { key, .. }
            | Self::ParkedSkip { key, .. } => key.len(),
            Self::Put { key, value, .. }
            | Self::Invoke { key, payload: value, .. }
            | Self::ParkedEdit { key, payload: value, .. } => key.len() + value.len(),
            Self::MapGet { key, entry_key, .. } | Self::MapDelete { key, entry_key, .. } => key.len() + entry_key.len(),
            Self::MapPut { key, entry_key, entry_value, .. } => key.len() + entry_key.len() + entry_value.len(),
            Self::Range { key, from, to, .. } | Self::MapDeleteRange { key, from, to, .. } => {
                key.len() + from.len() + to.as_ref().map_or(0, Vec::len)
            }
            Self::GetVersioned { key, entry, .. } => key.len() + entry.as_ref().map_or(0, |(_, key)| key.len()),
            Self::CompareSet { key, entry, condition, new, .. } => {
                let condition = match condition {
                    OwnedCondition::Absent => 0,
                    OwnedCondition::Version(bytes) | OwnedCondition::Value(bytes) => bytes.len(),
                };
                let entry = entry.as_ref().map_or(0, |(_, key)| key.len());
                key.len() + entry + condition + new.as_ref().map_or(0, Vec::len)
            }
            Self::Watch { key, positions, .. } => key.len() + positions.bytes(),
            Self::Scan { prefix, after, .. } => prefix.len() + after.as_ref().map_or(0, Vec::len),
            Self::Query { prefix, after, filter, .. } => {
                prefix.len() + after.as_ref().map_or(0, Vec::len) + filter.len()
            }
            Self::AppLoad { file, .. } => file.len(),
            Self::Ingest { records, .. } => records.bytes(),
            Self::Append { events, .. } => events.bytes(),
            _ => 0,
        };
        own + size_of::<Self>()
    }

    /// The time that it may wait at the server by its own wish, in milliseconds.
    pub(crate) fn wait_millis(&self) -> u64 {
        match self {
            Self::Watch { wait_millis, .. } => u64::from(*wait_millis),
            Self::Read { wait_millis, .. } | Self::Fetch { wait_millis, .. } | Self::AppSettle { wait_millis, .. } => {
                u64::from(*wait_millis)
            }
            Self::GetVersioned { after: Some(after), .. } => u64::from(after.wait_millis),
            _ => 0,
        }
    }
}
