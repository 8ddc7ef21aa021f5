//! How much is kept of what has changed, and for how long: no more than the shard's budget for it, and nothing where nobody has
//! watched for a while.

use super::Shard;
use gristmill_base::ids::{Lsn, SlotId};
use gristmill_base::limits::{WATCH_LINGER_NANOS, WATCH_RECOVERED_LINGER_NANOS};
use gristmill_base::sometimes::reached;
use gristmill_state::slot::Slot;
use gristmill_state::tail::Tail;

/// Parts of the budget that stay where the process is near its memory budget, and over it.
const TIGHT_SHARE: usize = 2;
const SHORT_SHARE: usize = 8;

impl Shard {
    /// Memory of changes that are kept, bytes.
    pub(super) fn tail_bytes(&self) -> usize {
        self.all_slots().filter_map(Slot::tail).map(Tail::bytes).sum()
    }

    /// Gives up the oldest changes of those slots that keep most, until what is kept is within the budget.
    pub(super) fn trim_tails(&mut self) {
        let share = match (self.process_short, self.process_tight) {
            (true, _) => SHORT_SHARE,
            (false, true) => TIGHT_SHARE,
            (false, false) => 1,
        };
        let budget = self.config.watch_bytes / share;
        let durable = self.log.0.durable();
        let mut tails: Vec<&mut Tail> = self.slots.iter_mut().flatten().filter_map(|slot| slot.tail_mut()).collect();
        let mut over = tails.iter().map(|tail| tail.bytes()).sum::<usize>().saturating_sub(budget);
        while over > 0 {
            let Some(at) = (0..tails.len()).max_by_key(|at| tails[*at].bytes()) else { return };
            let most = &mut tails[at];
            // Half of it at most, before others are looked at.
            let freed = most.forget(over.min(most.bytes() / 2 + 1), |lsn: Lsn| durable.covers(lsn));
            if freed == 0 {
                // Its oldest changes are not durable yet; those of others may be.
                tails.swap_remove(at);
                continue;
            }
            over = over.saturating_sub(freed);
        }
    }

    /// Forgets the changes of slots that nobody has watched for a while.
    pub(super) fn tend_tails(&mut self) {
        let now = self.now_nanos;
        let Self { watches, slots, config, .. } = self;
        for slot in slots.iter_mut().flatten() {
            if config.watch_always && config.watch_bytes > 0 {
                slot.begin_tail(config.watch_bytes);
                continue;
            }
            if slot.tail().is_none() {
                continue;
            }
            if watches.is_watched(slot.id) {
                watches.kept.insert(slot.id, now + WATCH_LINGER_NANOS);
                continue;
            }
            // What recovery has found is kept for a shorter time: nobody may have watched.
            let until = *watches.kept.entry(slot.id).or_insert(now + WATCH_RECOVERED_LINGER_NANOS);
            if now > until {
                reached("changes that nobody watches forgotten");
                slot.drop_tail();
                watches.kept.remove(&slot.id);
            }
        }
    }

    /// A slot has left: who watches it here hears who has it.
    pub(super) fn watched_slot_left(&mut self, slot: SlotId) {
        self.watches.kept.remove(&slot);
        self.watches.wake(slot);
    }

    /// A slot has come, with what it kept.
    pub(super) fn watched_slot_came(&mut self, slot: SlotId) {
        self.watches.kept.insert(slot, self.now_nanos + WATCH_LINGER_NANOS);
    }
}
