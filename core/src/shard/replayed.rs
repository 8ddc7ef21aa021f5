//! Which inputs are those of a replay: what their runs do outside the tables that are rebuilt is suppressed.

use super::Shard;
use crate::catalog::{Catalog, Replay};
use crate::request::{Operation, Refusal};
use gristmill_base::ids::SlotId;
use gristmill_base::planted::{self, Bug};
use gristmill_state::grain::{GrainId, Queued, Work};
use gristmill_state::input::{Origin, StreamId, Target};
use gristmill_state::slot::Slot;

/// Whether a queued input of a grain is of a replay. `replay` is that which builds the grain's table.
///
/// Of an event its place says so, once and for all: what a slot has accepted when it switches lies before the ends that it writes
/// down. A message says so itself. A timer is one as long as its slot has not switched.
pub(super) fn is_replayed(replay: &Replay, state: &Slot, work: &Work, queued: &Queued) -> bool {
    let event = match queued {
        Queued::Stream(StreamId::Topic { subscription, lane }, pos, _) => Some((*subscription, *lane, *pos)),
        Queued::Backlog(_) => match work.identity(queued) {
            Some(Origin::Stream(StreamId::Topic { subscription, lane }, pos)) => Some((subscription, lane, pos)),
            _ => None,
        },
        Queued::Timer(..) => return !has_switched(replay, state),
        Queued::Stream(..) | Queued::Rest | Queued::Nothing => None,
    };
    let Some((subscription, lane, pos)) = event else {
        return work.input_of(queued).is_some_and(|input| input.replayed);
    };
    let Some(old) = replay.old_of(subscription) else { return false };
    state.end_of(old, lane).is_none_or(|end| pos <= end)
}

/// The replay that builds the table of a grain that is about to run, and whether the run is one of it.
pub(super) fn replay_of_run<'a>(catalog: &'a Catalog, state: &Slot, grain: GrainId) -> (Option<&'a Replay>, bool) {
    let here = state.grains.get(grain);
    let Some(replay) = catalog.replay_into(here.table) else { return (None, false) };
    let front = here.work().and_then(|work| Some((work, work.queue.front()?)));
    (Some(replay), front.is_some_and(|(work, queued)| is_replayed(replay, state, work, queued)))
}

/// Whether a slot has switched to what a replay builds.
pub(super) fn has_switched(replay: &Replay, state: &Slot) -> bool {
    replay.subscriptions.first().is_some_and(|it| state.has_switched_from(gristmill_base::ids::SubscriptionId(it.old)))
}

impl Shard {
    /// Whether the first input of a grain is one of a replay.
    pub(super) fn head_is_replayed(&self, slot: SlotId, grain: GrainId) -> bool {
        self.slot(slot).is_some_and(|state| replay_of_run(&self.catalog, state, grain).1)
    }

    /// Whether a grain's first input is one of a replay, and what it sends outside is not sent.
    pub(super) fn is_suppressed(&self, slot: SlotId, grain: GrainId) -> bool {
        !planted::is(Bug::ReplaySuppressesNothing) && self.head_is_replayed(slot, grain)
    }

    /// Why a run may not end as it did: it has sent something to a table that has begun to be replayed meanwhile.
    pub(super) fn sends_to_closed(&self, slot: SlotId, grain: GrainId, sent: &[(SlotId, Target)]) -> Option<String> {
        let mut replays = self.catalog.replays().peekable();
        replays.peek()?;
        let from = self.slot(slot)?.grains.get(grain).table;
        let is_inside = |replay: &Replay| replay.has_old(from) || replay.has_new(from);
        for (_, replay) in replays.filter(|(_, replay)| !is_inside(replay)) {
            let to = sent.iter().find_map(|(_, target)| match target {
                Target::Grain(to, _) if replay.has_old(to.table) => {
                    replay.tables.iter().find(|it| it.old == to.table.0)
                }
                _ => None,
            });
            if let Some(to) = to {
                return Some(format!(
                    "table {} is being replayed: until that is over it takes messages only from tables that are replayed with it",
                    to.new.name
                ));
            }
        }
        None
    }

    /// Refuses what clients write to a table that is being replayed.
    ///
    /// # Errors
    /// It is.
    pub(super) fn takes_writes(&self, operation: &Operation) -> Result<(), Refusal> {
        use Operation::{Compare, Delete, Invoke, MapDelete, MapDeleteRange, MapPut, Put};
        let table = match operation {
            Put { table, .. } | Delete { table, .. } | MapPut { table, .. } | MapDelete { table, .. } => *table,
            MapDeleteRange { table, .. } | Compare { table, .. } | Invoke { table, .. } => *table,
            _ => return Ok(()),
        };
        self.catalog.closed_for(table).map_or(Ok(()), Err)
    }

    /// Takes note that a commit may have moved a replay: see [`super::replays::Part::activity`].
    pub(super) fn note_replay(&mut self, slot: SlotId, grain: GrainId) {
        if self.catalog.replays().next().is_none() {
            return;
        }
        let table = self.slot_mut(slot).grains.get(grain).table;
        let is_mine = |replay: &Replay| replay.has_old(table) || replay.has_new(table);
        if self.catalog.replays().any(|(_, replay)| is_mine(replay))
            && (self.catalog.replay_of(table).is_some() || self.head_is_replayed(slot, grain))
        {
            self.replays.activity += 1;
        }
    }
}
