//! What a copy of the state must keep that was taken at some time between an earlier moment and now.

use super::{Auditor, Cell, Fate};

impl Auditor {
    /// Promises to a copy that was begun when `then` was what clients knew: all that they knew then is in it; of what was
    /// answered since, it has each operation once or not at all.
    #[must_use]
    pub fn since(&self, then: &Self) -> Self {
        let mut operations = self.operations.clone();
        for (id, issued) in &mut operations {
            let was_acked = then.operations.get(id).is_some_and(|before| matches!(before.fate, Fate::Acked(_)));
            if matches!(issued.fate, Fate::Acked(_)) && !was_acked {
                issued.fate = Fate::Unknown;
            }
        }
        let cell = |(key, cell): (&_, &Cell)| {
            let floor = then.cells.get(key).map(|before| before.floor.clone()).unwrap_or_default();
            (Clone::clone(key), Cell { writes: cell.writes.clone(), floor })
        };
        Self {
            operations,
            past: self.past.clone(),
            life: self.life,
            is_between: false,
            events: then.events.clone(),
            ends: then.ends.clone(),
            starts: then.starts.clone(),
            times: then.times.clone(),
            holes: then.holes.clone(),
            times_of_reads: self.times_of_reads.clone(),
            counts: then.counts.clone(),
            moment: self.moment,
            cells: self.cells.iter().map(cell).collect(),
            versions: then.versions.clone(),
            lives: self.lives.since(&then.lives),
            reads: 0,
        }
    }
}
