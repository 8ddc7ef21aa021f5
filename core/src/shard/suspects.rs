//! Grains in whose handlers the process ended before: run with care, and parked if it did so twice in a row.

use super::Shard;
use crate::catalog::Exhausted;
use crate::notes::{RunNote, RunNotes, Suspect, encode_suspects, noted_key};
use gristmill_base::ids::{HandlerId, SlotId};
use gristmill_base::sometimes::reached;
use gristmill_sdk::{Failed, kinds};
use gristmill_state::grain::{Grain, GrainId};

/// Ends of the process in a row after which a grain is parked.
const ENDS_MAX: u8 = 2;

/// Where a shard's notes go, and whom it suspects.
#[derive(Default)]
pub(super) struct Suspects {
    notes: Option<Box<dyn RunNotes>>,
    list: Vec<Suspect>,
    /// Where notes are made up.
    note: Vec<u8>,
    input: Vec<u8>,
}

impl Suspects {
    /// Whether somebody is suspected.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A run of a grain begins now, with its inputs at the head of the queue.
    pub(super) fn run_begins(&mut self, slot: SlotId, here: &Grain, handler: HandlerId, count: usize) {
        let Self { notes: Some(notes), note, input, .. } = self else { return };
        note.clear();
        input.clear();
        RunNote::put(note, (slot, here.table, handler), count as u32, &here.key);
        let work = here.work().expect("a grain that runs has work");
        if let Some(origin) = work.queue.front().and_then(|first| work.identity(first)) {
            origin.encode(input);
        }
        RunNote::put_input(note, input);
        notes.begin(note);
    }

    /// User code has given the core back.
    pub(super) fn run_ended(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.end();
        }
    }

    fn changed(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.suspect(&encode_suspects(&self.list));
        }
    }
}

impl Shard {
    /// Notes each run of user code from now on, and suspects these grains, in whose handlers the process has ended. Before the
    /// first turn.
    pub fn keep_notes(&mut self, notes: Box<dyn RunNotes>, suspects: Vec<Suspect>) {
        self.suspects = Suspects { notes: Some(notes), list: suspects, ..Suspects::default() };
        self.suspects.changed();
    }

    /// Grains that are suspected, for tests.
    #[must_use]
    pub fn suspected(&self) -> &[Suspect] {
        &self.suspects.list
    }

    fn suspect_at(&self, slot: SlotId, grain: GrainId) -> Option<usize> {
        let here = self.slots[usize::from(slot.0)].as_deref()?.grains.get(grain);
        let key = noted_key(&here.key);
        let is_it = |it: &Suspect| (it.note.slot, it.note.table) == (slot, here.table) && it.note.key == key;
        self.suspects.list.iter().position(is_it)
    }

    /// How many of so many inputs a grain may run, where some are suspected: one if it is; none if the process ended twice in
    /// its first one, which parks it.
    pub(super) fn careful(&mut self, slot: SlotId, grain: GrainId, count: usize) -> Option<usize> {
        let Some(at) = self.suspect_at(slot, grain) else { return Some(count) };
        let suspect = &self.suspects.list[at];
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = state.grains.get(grain).work().expect("a ready grain has work");
        let mut first = Vec::new();
        if let Some(origin) = work.queue.front().and_then(|first| work.identity(first)) {
            origin.encode(&mut first);
        }
        let is_known = suspect.note.input.is_empty() || suspect.note.input == first;
        if suspect.ends < ENDS_MAX || !is_known {
            reached("grain in whose handler the process ended runs again");
            return Some(1);
        }
        reached("grain parked because the process ended in its handler");
        let (ends, table) = (suspect.ends, suspect.note.table);
        let handler = self.catalog.handler(table, suspect.note.handler);
        let name = handler
            .map_or_else(String::new, |(app, table, handler)| format!(" {}/{}.{}", app.name, table.name, handler.name));
        self.suspects.list.remove(at);
        self.suspects.changed();
        let message = format!(
            "the process ended {ends} times in a row in the handler{name} of this input: it held the core for too long, aborted, or \
             was killed; the messages of the server before its last starts say which"
        );
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("it was just looked at");
        work.attempts = u32::from(ends);
        let failed = Failed::new(kinds::INTERRUPTED, message);
        self.exhausted(slot, grain, 1, &failed, Some((Some(Exhausted::Park), None)));
        None
    }

    /// A grain has committed so many inputs, where some are suspected.
    pub(super) fn suspect_committed(&mut self, slot: SlotId, grain: GrainId, count: usize) {
        let Some(at) = self.suspect_at(slot, grain) else { return };
        let suspect = &mut self.suspects.list[at];
        suspect.left = suspect.left.saturating_sub(count as u32);
        if suspect.left == 0 {
            self.suspects.list.remove(at);
        }
        self.suspects.changed();
    }

    /// A slot has left: whoever owns it now suspects none of its grains.
    pub(super) fn forget_suspects(&mut self, slot: SlotId) {
        if !self.suspects.is_empty() {
            self.suspects.list.retain(|it| it.note.slot != slot);
            self.suspects.changed();
        }
    }
}
