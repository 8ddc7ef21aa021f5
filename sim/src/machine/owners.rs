//! Who drives which slot, as the simulator sees it after each turn, without asking the engine who should: at each instant at most
//! one core, and never one that lacks what another one has recorded.

use super::Core;
use gristmill_base::ids::{SlotId, Ssn, Term};

/// A slot as it was last driven.
#[derive(Clone, Copy, Debug)]
struct Driven {
    core: usize,
    term: Term,
    ssn: Ssn,
}

/// See the module. Of one life of the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Drivers {
    /// By slot; none of a slot that no core has driven yet.
    slots: Vec<Option<Driven>>,
}

impl Drivers {
    /// Looks at the slots of a core that has had its turn.
    ///
    /// # Errors
    /// Two cores drive a slot, or one drives a slot as it was before.
    pub(super) fn look(&mut self, cores: &[Core], at: usize, slot_count: u16) -> Result<(), String> {
        self.slots.resize(usize::from(slot_count), None);
        for (id, known) in (0..slot_count).map(SlotId).zip(&mut self.slots) {
            let Some(slot) = cores[at].shard.driven_slot(id) else { continue };
            let now = Driven { core: at, term: slot.term(), ssn: slot.last_ssn() };
            if let Some(before) = known {
                let is_other = before.core != at;
                if is_other && cores.get(before.core).is_some_and(|core| core.shard.driven_slot(id).is_some()) {
                    return Err(format!("P4: slot {id} is driven by two cores, {} and {at}", before.core));
                }
                if now.ssn < before.ssn || now.term < before.term || is_other && now.term == before.term {
                    return Err(format!("P4: slot {id} went on as it was before: {before:?}, then {now:?}"));
                }
            }
            *known = Some(now);
        }
        Ok(())
    }
}
