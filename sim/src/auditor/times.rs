//! At which engine times reads began and ended, as far as it can be told from outside.

use super::Auditor;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Times {
    /// The least and the highest engine time of any core, microseconds.
    least: u64,
    most: u64,
    /// Moments, ascending, each with an engine time that had passed everywhere when it came.
    moments: Vec<(u64, u64)>,
}

impl Times {
    /// A time that no core has passed.
    pub(super) fn now(&self) -> u64 {
        self.most
    }

    /// A time that had passed everywhere when a moment came.
    pub(super) fn at(&self, moment: u64) -> u64 {
        let behind = self.moments.partition_point(|(other, _)| *other <= moment);
        behind.checked_sub(1).map_or(0, |at| self.moments[at].1)
    }
}

impl Auditor {
    /// Engine times, microseconds: one that every core had passed when it was told last, and one that none had.
    #[must_use]
    pub fn engine_times(&self) -> (u64, u64) {
        (self.times_of_reads.least, self.times_of_reads.most)
    }

    /// The cores have gone on: the least and the highest of their engine times, microseconds.
    pub fn time_is(&mut self, least: u64, most: u64) {
        let moment = self.moment;
        let times = &mut self.times_of_reads;
        if times.moments.last().is_none_or(|(last, _)| *last < moment) {
            times.moments.push((moment, times.least));
        }
        (times.least, times.most) = (least, times.most.max(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_later_than_what_was_known_before_it() {
        let mut auditor = Auditor::default();
        auditor.time_is(10, 12);
        auditor.moment = 4;
        auditor.time_is(20, 25);
        auditor.time_is(30, 24);
        auditor.moment = 9;
        auditor.time_is(40, 41);
        let at = [0, 3, 4, 8, 9, 100].map(|moment| auditor.times_of_reads.at(moment));
        assert_eq!((at, auditor.times_of_reads.now()), ([0, 0, 10, 10, 30, 30], 41));
    }
}
