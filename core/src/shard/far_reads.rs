//! What a run reads of other grains: their last committed state, as a client would get it. What lies on this shard and is durable
//! is there at once. Anything else is asked for as clients ask, so it finds its way to wherever the slot is, waits for files
//! and for the log as their reads do, and the run is made again with the answer.

use super::Shard;
use super::requests::Spot;
use crate::access::Elsewhere;
use crate::request::{Answer, Operation, Refusal, Request, Responder};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{ConnId, Lsn, SessionId, ShardId, SlotId};
use gristmill_base::limits::{RUN_RANGE_BYTES_MAX, SHARD_COUNT_MAX};
use gristmill_base::placement::slot_of;
use gristmill_base::position::Durable;
use gristmill_base::sometimes::reached;
use gristmill_sdk::{Failure, Interrupt};
use gristmill_state::grain::{FarKey, Fetched};
use gristmill_state::input::Bytes;
use gristmill_state::slot::{Held, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// Bit of a responder's shard that says that a run of that shard waits, and no connection.
const OF_RUN: u16 = 1 << 15;
const _: () = assert!(SHARD_COUNT_MAX < OF_RUN, "no shard has the bit");
/// Ticket of a run that was interrupted to read other grains; which, [`FarReads::missed`] says.
const TICKET: u64 = u64::MAX - 1;
/// How long a run waits before it asks again for what it was refused.
const RETRY_NANOS: u64 = 2_000_000;

/// See the module. Lives for one call of a handler.
pub(super) struct FarReads<'a> {
    pub(super) slots: &'a [Option<Box<Slot>>],
    pub(super) durable: Durable,
    pub(super) appended: Lsn,
    /// Slots in which something has expired that no record has deleted yet.
    pub(super) late: &'a BTreeSet<SlotId>,
    /// What was read for this run before.
    pub(super) fetched: Option<&'a Fetched>,
    /// What the run lacks.
    pub(super) missed: Vec<FarKey>,
    /// Bytes of rows that it has got.
    pub(super) bytes: usize,
}

fn too_many_bytes() -> Failure {
    let most = RUN_RANGE_BYTES_MAX;
    Failure::new(format!("the run reads more than {most} bytes of other grains; read less in one run"))
}

impl<'a> FarReads<'a> {
    /// Over these slots, of a log that is durable and appended up to there.
    pub(super) fn new(
        slots: &'a [Option<Box<Slot>>],
        (durable, appended): (Durable, Lsn),
        late: &'a BTreeSet<SlotId>,
        fetched: Option<&'a Fetched>,
    ) -> Self {
        Self { slots, durable, appended, late, fetched, missed: Vec::new(), bytes: 0 }
    }

    /// Gives a row to the run. The bound is the same wherever rows lie.
    fn give(&mut self, value: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Failure> {
        self.bytes += value.as_ref().map_or(0, Vec::len);
        if self.bytes > RUN_RANGE_BYTES_MAX { Err(too_many_bytes()) } else { Ok(value) }
    }

    /// What lies on this shard and may be shown; `None` if it has to be asked for.
    fn near(&self, key: &FarKey) -> Option<Option<Bytes>> {
        let slot = slot_of(&key.grain.key, self.slots.len() as u16);
        let state = self.slots[usize::from(slot.0)].as_deref().filter(|_| !self.late.contains(&slot))?;
        let grain = state.grains.find(key.grain.table, &key.grain.key);
        let held = match &key.entry {
            None => state.value(grain),
            Some((map, entry)) => state.entry(grain, *map, entry),
        };
        let (lsn, value) = match held {
            Held::Row(row) => (state.lsn_of(row.ssn), Some(row.bytes.clone())),
            Held::Nothing => (self.appended, None),
            Held::Unknown => return None,
        };
        self.durable.covers(lsn).then_some(value)
    }
}

impl Elsewhere for FarReads<'_> {
    fn row(&mut self, key: FarKey) -> Result<Option<Vec<u8>>, Failure> {
        if let Some(known) = self.fetched.and_then(|fetched| fetched.far(&key)) {
            let value = known.map(|value| value.as_ref().map(|value| value.to_vec()));
            return self.give(value.map_err(|()| too_many_bytes())?);
        }
        if let Some(value) = self.near(&key) {
            return self.give(value.map(|value| value.into_vec()));
        }
        self.missed.push(key);
        Err(Interrupt(TICKET).into())
    }
}

/// Reads of runs that are under way.
#[derive(Debug, Default)]
pub(super) struct FarWaiting {
    next: u64,
    /// By the responder's tag: the run, and what it reads.
    asked: BTreeMap<u64, (u64, FarKey)>,
    /// What came in answer, until the shard looks at it.
    answers: Vec<(u64, Result<Answer, Refusal>)>,
}

impl FarWaiting {
    /// Whether answers are there.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }
}

/// The shard whose run waits for a reply; `None` if a connection does.
pub(super) fn run_of(responder: Responder) -> Option<ShardId> {
    (responder.shard.0 & OF_RUN != 0).then_some(ShardId(responder.shard.0 & !OF_RUN))
}

impl Shard {
    /// Asks for what a run lacks of other grains.
    pub(super) fn ask_far(&mut self, run: u64, missed: Vec<FarKey>) {
        for key in missed {
            if !self.pending_runs.contains_key(&run) {
                return;
            }
            reached("run reads another grain from elsewhere");
            let tag = self.far.next;
            self.far.next += 1;
            let slot = slot_of(&key.grain.key, self.config.slot_count);
            let table = key.grain.table;
            let operation = match key.entry.clone() {
                None => Operation::Get { table, key: (&*key.grain.key).into() },
                Some((map, entry)) => Operation::MapGet { table, map, key: (&*key.grain.key).into(), entry },
            };
            self.far.asked.insert(tag, (run, key));
            let responder = Responder { shard: ShardId(self.config.shard.0 | OF_RUN), conn: ConnId(0), tag };
            self.far_request(slot, Request { responder, session: SessionId(0), class: InputClass::Live, operation });
        }
    }

    /// A read of a run. A slot that is here serves it also while it waits to move: it may be waiting for this very run to end.
    pub(super) fn far_request(&mut self, slot: SlotId, mut request: Request) {
        if self.slots[usize::from(slot.0)].is_some() {
            self.read(Spot::of(slot), &mut request);
        } else {
            self.request(request);
        }
    }

    /// A run's read was answered. It is looked at when the turn goes on, or in the next one.
    pub(super) fn far_answered(&mut self, tag: u64, outcome: Result<Answer, Refusal>) {
        self.far.answers.push((tag, outcome));
    }

    /// Gives runs what they have read of other grains.
    pub(super) fn take_far_answers(&mut self) {
        for (tag, outcome) in std::mem::take(&mut self.far.answers) {
            let Some((run, key)) = self.far.asked.remove(&tag) else { continue };
            match outcome {
                Ok(Answer::Value(value)) => self.run_fetched(run, |fetched| fetched.put_far(key, value)),
                // The slot is on its way, there is no room, a file cannot be read: it is asked again.
                _ => {
                    reached("read of another grain refused");
                    self.run_not_fetched(run, RETRY_NANOS);
                }
            }
        }
    }
}
