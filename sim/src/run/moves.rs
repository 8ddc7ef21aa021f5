//! Slots that move between the shards under load: begun at drawn times, beside everything else that happens, and left alone.
//! What becomes of them nobody waits for; clients and auditors must not notice.

use super::{Options, Run};
use crate::rng::SimRng;
use gristmill_base::class::InputClass;
use gristmill_base::env::Rng;
use gristmill_base::ids::{ConnId, SessionId, ShardId, SlotId};
use gristmill_base::planted::Bug;
use gristmill_base::sometimes::reached;
use gristmill_core::request::{Operation, Reply, Request};
use gristmill_state::input::Responder;

/// Who asks for moves.
pub(super) const MOVER: ConnId = ConnId(u64::MAX - 1);

/// The moves of a run.
pub(super) struct SlotMoves {
    rng: SimRng,
    /// Rounds in a million before which one is begun.
    per_million: u64,
}

/// Whether a bug is one of moves.
pub(crate) fn is_of_moves(bug: Option<Bug>) -> bool {
    use Bug::{MoveForgetsSessions, MovedRowsRemoved, MovedSlotServed, PlacementBeforeSlotIn, SendersGoOnAfterMove};
    matches!(
        bug,
        Some(MoveForgetsSessions | MovedRowsRemoved | MovedSlotServed | PlacementBeforeSlotIn | SendersGoOnAfterMove)
    )
}

impl SlotMoves {
    /// Those of a seed, by dice of its own.
    pub(super) fn draw(options: &Options) -> Self {
        let mut rng = SimRng::new(options.seed ^ 0x6d6f_7665);
        let drawn = [400, 2_000, 10_000][rng.below(3) as usize];
        let some = is_of_moves(options.aim) || options.seed % 2 == 1;
        Self { rng, per_million: if some { drawn } else { 0 } }
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
        let slot = SlotId(moves.rng.below(u64::from(self.machine.knobs.boot.slot_count)) as u16);
        let to = ShardId(moves.rng.below(cores) as u16);
        let door = moves.rng.below(cores) as usize;
        let responder = Responder { shard: ShardId(door as u16), conn: MOVER, tag: moves.rng.next_u64() };
        let operation = Operation::Move { slot, to };
        let (session, class) = (SessionId(0), InputClass::Live);
        self.machine.request(door, Request { responder, session, class, operation });
        reached("move of a slot asked for");
    }
}

/// Takes note of how one went.
pub(super) fn note(reply: &Reply) {
    reached(if reply.outcome.is_ok() { "move of a slot done" } else { "move of a slot refused" });
}
