//! Memory of many deleted entries, given back piece by piece: a grain or a range of a map may have millions of them, and
//! dropping them all would hold the core for as long as that takes.

use super::Slot;
use crate::grain::{Discarded, GrainId, entry_bytes};

/// See the module. Nothing reads what is in here.
#[derive(Debug, Default)]
pub(super) struct Discards(Vec<Discarded>);

impl Discards {
    /// Takes what a change has left.
    #[inline]
    pub(super) fn take_in(&mut self, mut discarded: Vec<Discarded>) {
        if !discarded.is_empty() {
            self.0.append(&mut discarded);
        }
    }
}

impl Slot {
    /// What [`gristmill_base::planted::Bug::CountedWithoutCommit`] does.
    pub fn count_without_commit(&mut self, id: GrainId, counters: Vec<(Box<str>, i64)>) {
        let table = self.grains.get(id).table;
        counters.into_iter().for_each(|(series, by)| self.metrics.count(table, series, by));
    }

    /// Gives back memory of deleted entries, of so many at most, which are taken off `left`. Whether there is more.
    pub fn discard(&mut self, left: &mut usize) -> bool {
        while let Some(entries) = self.discards.0.last_mut() {
            if *left == 0 {
                return true;
            }
            match entries.pop_first() {
                Some((key, row)) => {
                    self.row_bytes = self.row_bytes.wrapping_sub(entry_bytes(&key, &row));
                    *left -= 1;
                }
                None => {
                    self.discards.0.pop();
                }
            }
        }
        false
    }
}
