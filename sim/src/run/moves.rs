//! Slots that move between the shards under load: begun at drawn times, beside everything else that happens, and left alone.
//! What becomes of them nobody waits for; clients and auditors must not notice.

use super::{Options, Run};
use crate::machine::Knobs;
use crate::rng::SimRng;
use gristmill_base::class::InputClass;
use gristmill_base::env::Rng;
use gristmill_base::ids::{ConnId, SessionId, ShardId, SlotId};
use gristmill_base::placement::slot_group;
use gristmill_base::planted::Bug;
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::Tuning;
use gristmill_core::request::{Operation, Reply, Request};
use gristmill_state::input::Responder;

/// Who asks for moves.
pub(super) const MOVER: ConnId = ConnId(u64::MAX - 1);

/// The moves of a run.
pub(super) struct SlotMoves {
    rng: SimRng,
    /// Rounds in a million before which one is begun.
    per_million: u64,
    /// Slots that are moved mostly, so that they come back to where they were while the files that they share are still there.
    favourites: Vec<SlotId>,
    /// Of how many moves that came about one is followed by a crash, before the shard that gave the slot away has forgotten it; 0:
    /// of none.
    crash_of: u64,
}

/// Whether a bug is one of moves.
pub(crate) fn is_of_moves(bug: Option<Bug>) -> bool {
    use Bug::{
        FirstWordOnSharedFiles, LeavingSlotNotLate, MoveForgetsSessions, MovedRowsRemoved, MovedSlotServed,
        PlacementBeforeSlotIn, SendersGoOnAfterMove,
    };
    let of_files = [FirstWordOnSharedFiles, MovedRowsRemoved];
    let others =
        [LeavingSlotNotLate, MoveForgetsSessions, MovedSlotServed, PlacementBeforeSlotIn, SendersGoOnAfterMove];
    bug.is_some_and(|bug| of_files.contains(&bug) || others.contains(&bug))
}

impl SlotMoves {
    /// Those of a seed, by dice of its own. Half of the runs with moves have so many slots that the groups of the store hold several.
    pub(super) fn draw(options: &Options, knobs: &mut Knobs) -> Self {
        let mut rng = SimRng::new(options.seed ^ 0x6d6f_7665);
        let drawn = [400, 2_000, 10_000][rng.below(3) as usize];
        let is_aimed = is_of_moves(options.aim) || options.aim == Some(Bug::WatchMoveForgets);
        let some = is_aimed || options.seed % 2 == 1;
        if !some {
            return Self { rng, per_million: 0, favourites: Vec::new(), crash_of: 0 };
        }
        if rng.below(2) == 0 {
            knobs.boot.slot_count = [32, 64][rng.below(2) as usize];
        }
        knobs.tuning.move_items = [0, 1, Tuning::DEFAULT.move_items][rng.below(3) as usize];
        let slots = knobs.boot.slot_count;
        let group = slot_group(SlotId(rng.below(u64::from(slots)) as u16), slots);
        let favourites = (0..slots).map(SlotId).filter(|slot| slot_group(*slot, slots) == group).collect();
        let crash_of = [0, 4][rng.below(2) as usize];
        Self { rng, per_million: if is_aimed { 10_000 } else { drawn }, favourites, crash_of }
    }
}

impl Run {
    /// Begins to move a slot, now and then.
    pub(super) fn move_step(&mut self) {
        let cores = self.machine.cores.len() as u64;
        let moves = &mut self.moves;
        if moves.per_million == 0 || cores < 2 || self.machine.disk.is_down() {
            return;
        }
        if moves.rng.below(1_000_000) >= moves.per_million {
            return;
        }
        let any = SlotId(moves.rng.below(u64::from(self.machine.knobs.boot.slot_count)) as u16);
        let favourite = moves.rng.pick(&moves.favourites).copied().filter(|_| moves.rng.below(2) == 0);
        let slot = favourite.unwrap_or(any);
        let to = ShardId(moves.rng.below(cores) as u16);
        let door = moves.rng.below(cores) as usize;
        let responder = Responder { shard: ShardId(door as u16), conn: MOVER, tag: moves.rng.next_u64() };
        let operation = Operation::Move { slot, to };
        let (session, class) = (SessionId(0), InputClass::Live);
        self.machine.request(door, Request { responder, session, class, operation });
        reached("move of a slot asked for");
    }

    /// Takes note of how one went.
    pub(super) fn move_ended(&mut self, reply: &Reply) {
        reached(if reply.outcome.is_ok() { "move of a slot done" } else { "move of a slot refused" });
        let moves = &mut self.moves;
        if reply.outcome.is_ok() && moves.crash_of > 0 && moves.rng.below(moves.crash_of) == 0 {
            self.next_crash = self.next_crash.min(self.machine.turns + moves.rng.between(0, 20));
        }
    }
}
