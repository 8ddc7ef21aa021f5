//! What a run sends: names become numbers, and what is sent is checked as if it were written here.

use super::RunAccess;
use super::check::{check_entry, check_size, check_type, check_value, too_large};
use super::effects::MESSAGE_BYTES;
use crate::catalog::Table;
use gristmill_base::ids::{LaneKey, MapId, TableId, TopicId};
use gristmill_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_base::planted::{self, Bug};
use gristmill_sdk::{Failure, MapName, MessageOperation, Send};
use gristmill_state::input::{CallbackAddress, GrainAddress, GrainOperation, Input, InputCause, Target};

impl<'a> RunAccess<'a> {
    fn grain_operation(table: &'a Table, operation: MessageOperation) -> Result<GrainOperation, Failure> {
        let of = |map: &MapName| Self::map_of(table, map.into());
        Ok(match operation {
            MessageOperation::Put(value) => {
                check_value(table, &value)?;
                GrainOperation::Put(value.into())
            }
            MessageOperation::Delete => GrainOperation::Delete,
            MessageOperation::MapPut { map, key, value } => {
                let map = of(&map)?;
                check_entry(map, &key, &value)?;
                GrainOperation::MapPut(MapId(map.id), key.into(), value.into())
            }
            MessageOperation::MapDelete { map, key } => {
                check_size("a map key", key.len(), KEY_BYTES_MAX)?;
                GrainOperation::MapDelete(MapId(of(&map)?.id), key.into())
            }
            MessageOperation::MapDeleteRange { map, from, to } => {
                check_size("a map key", from.len().max(to.as_ref().map_or(0, Vec::len)), KEY_BYTES_MAX)?;
                GrainOperation::MapDeleteRange(MapId(of(&map)?.id), from.into(), to.map(Into::into))
            }
            MessageOperation::Invoke { handler, payload } => {
                GrainOperation::Call(Self::handler_id(table, &handler)?, payload.into())
            }
        })
    }

    pub(super) fn send_to_grain(&mut self, table: &str, key: Vec<u8>, send: Send) -> Result<(), Failure> {
        let target = self.table_named(table)?;
        let operation = Self::grain_operation(target, send.operation)?;
        check_size("a message", operation.weight(), VALUE_BYTES_MAX)?;
        let callback = match send.callback {
            None => None,
            Some(callback) if callback.cookie.len() > KEY_BYTES_MAX => {
                return Err(too_large("a callback's cookie", callback.cookie.len(), KEY_BYTES_MAX));
            }
            Some(callback) => Some(CallbackAddress {
                grain: GrainAddress { table: self.grain.table, key: (&*self.grain.key).into() },
                handler: Self::handler_id(self.table, &callback.handler)?,
                cookie: callback.cookie.into(),
                only_on_error: callback.only_on_error,
            }),
        };
        let address = GrainAddress { table: TableId(target.id), key: key.into() };
        self.is_open(target, &address)?;
        if self.is_suppressed(Some(address.table)) {
            return Ok(());
        }
        let to = slot_of(&address.key, self.slot_count);
        let replayed = self.is_replay && !planted::is(Bug::ReplayedForgotten);
        let (cause, hops, class) = (InputCause::Message, self.hops, self.class);
        let input = Input { cause, operation, hops, class, callback, replayed };
        self.effects.grow(MESSAGE_BYTES + address.key.len() + input.weight())?;
        self.effects.sent.push((to, Target::Grain(address, Box::new(input))));
        Ok(())
    }

    /// Whether what a run does to a table, or to something that is none, stays without effect.
    pub(super) fn is_suppressed(&self, table: Option<TableId>) -> bool {
        let is_inside = table.is_some_and(|table| self.replay.is_some_and(|replay| replay.has_new(table)));
        self.is_replay && !is_inside && !planted::is(Bug::ReplaySuppressesNothing)
    }

    /// A table that is about to be replaced takes nothing but events, and what its own kind sends: what others sent would be
    /// gone with it.
    fn is_open(&self, target: &Table, to: &GrainAddress) -> Result<(), Failure> {
        let replay = self.app.replay.as_ref().filter(|replay| replay.has_old(to.table));
        match replay.is_none_or(|replay| replay.has_old(TableId(self.table.id)) || self.replay.is_some()) {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "table {} is being replayed: until that is over it takes messages only from tables that are replayed with it",
                target.name
            ))),
        }
    }

    pub(super) fn send_to_topic(&mut self, topic: &str, key: Vec<u8>, send: Send) -> Result<(), Failure> {
        let entry = self.app.topics.iter().find(|entry| entry.name == topic);
        let entry = entry.ok_or_else(|| Failure::new(format!("app {} has no topic {topic}", self.app.name)))?;
        let MessageOperation::Put(value) = send.operation else {
            return Err(Failure::new("a message to a topic appends an event: its operation is put"));
        };
        check_type("an event's key", entry.key, &key, KEY_BYTES_MAX)?;
        // In a compacted topic an event without a value deletes its key.
        if !(entry.compact && value.is_empty()) {
            check_type("an event's value", entry.value, &value, VALUE_BYTES_MAX)?;
        }
        if self.is_suppressed(None) {
            return Ok(());
        }
        let lane = LaneKey { topic: TopicId(entry.id), lane: lane_of(&key, entry.lanes) };
        let home = lane_home(lane.topic, lane.lane, entry.lanes, self.slot_count);
        self.effects.grow(MESSAGE_BYTES + key.len() + value.len())?;
        self.effects.sent.push((home, Target::Lane(lane, self.class, key.into(), value.into())));
        Ok(())
    }
}
