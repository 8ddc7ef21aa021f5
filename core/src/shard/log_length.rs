//! Writers yield to checkpoints where the log grows faster than these can free it: whatever a start would have to replay
//! stays bounded by time, also under the heaviest load.
//!
//! In ordinary times a log is as long as what one round of checkpoints takes in, and what comes while it is written. Where
//! more than that is kept, writers may write so much in each [`LOG_YIELD_PERIOD_NANOS`] only: a part of what they wrote
//! before anybody yielded, the smaller the longer the log is. So there is no cliff, and core and disk have something left
//! for the checkpoint. Bulk yields first. A tenth is always theirs, so nobody waits for long, and that is little enough for
//! the next round to be shorter. Reads never wait.
//!
//! Doors keep operations that write where they are; runs, and events that come from lanes, wait in the shard. Nobody is
//! refused but what another shard's door passed on when the log is as long as it may be. Where checkpoints fail nobody
//! yields: it would free nothing, and a full disk is met by admission.

use super::Shard;
use gristmill_base::limits::{LOG_YIELD_MOST, LOG_YIELD_PERIOD_NANOS};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;

/// What a rate is less after each period that has written less: so that what is known of it is forgotten in some seconds.
const FORGOTTEN: u64 = 256;

/// Who has to yield in this turn. Invariant: bulk does whenever live does.
#[derive(Debug, Default)]
pub(super) struct LogYield {
    /// Number of this period of time.
    period: u64,
    /// Bytes that the log had placed when that was looked at last.
    placed: u64,
    /// Bytes written in this period.
    written: u64,
    /// Bytes written that the periods did not allow, and those of this one.
    spent: u64,
    /// Most bytes that a period wrote of late while nobody yielded.
    rate: u64,
    /// Parts of a thousand of it that live and bulk leave.
    parts: [u64; 2],
    /// Until when they wait, monotonic nanoseconds; 0 for not at all.
    until: [u64; 2],
    /// The log is as long as it may be, and doors were told before this turn to keep back what writes until later than now.
    is_shut: bool,
}

const LIVE: usize = 0;
const BULK: usize = 1;

/// Parts of a thousand that writers leave, where `kept` bytes are between the two bounds.
fn part(kept: u64, from: u64, to: u64) -> u64 {
    let over = u128::from(kept.saturating_sub(from));
    let part = over * 1_000 / u128::from(to.saturating_sub(from).max(1));
    u64::try_from(part).unwrap_or(u64::MAX).min(LOG_YIELD_MOST)
}

impl LogYield {
    /// Looks at the log as it is now: `kept` bytes of it, where a round of checkpoints begins at `due` and `placed` have
    /// been written since the start. No bytes are `due` where nobody is to yield.
    fn look(&mut self, now_nanos: u64, kept: u64, due: Option<u64>, placed: u64) {
        let bytes = placed - std::mem::replace(&mut self.placed, placed);
        self.written += bytes;
        self.spent += bytes;
        let period = now_nanos / LOG_YIELD_PERIOD_NANOS;
        if period != self.period {
            self.next_period(period);
        }
        let told = self.until[LIVE];
        (self.parts, self.is_shut) = match due {
            Some(due) if kept > due => {
                let (some, most) = (due.saturating_mul(2), due.saturating_mul(3));
                ([part(kept, some, most), part(kept, due, some)], kept >= most && now_nanos < told)
            }
            _ => ([0, 0], false),
        };
        let end = (period + 1) * LOG_YIELD_PERIOD_NANOS;
        let waits = |part: u64| part > 0 && self.spent >= self.allowed(part);
        self.until = self.parts.map(|part| if waits(part) { end } else { 0 });
    }

    fn next_period(&mut self, period: u64) {
        let passed = period - std::mem::replace(&mut self.period, period);
        if self.parts[LIVE] == 0 {
            self.rate = self.written.max(self.rate - self.rate / FORGOTTEN);
            self.spent = 0;
        } else {
            // What one turn wrote beyond what was allowed, the next periods have less.
            self.spent = self.spent.saturating_sub(self.allowed(self.parts[LIVE]).saturating_mul(passed));
        }
        self.written = 0;
    }

    /// Bytes that a period may write.
    fn allowed(&self, part: u64) -> u64 {
        self.rate.max(tuning().yield_bytes) / 1_000 * (1_000 - part)
    }
}

impl Shard {
    /// A turn begins.
    pub(super) fn look_at_log_length(&mut self) {
        // Less than two segments cannot be freed: the log is in one, and another one holds where it came from.
        let due = self.config.checkpoint_bytes.max(2 * self.log.0.config().segment_bytes);
        let frees = due < u64::MAX && self.failing_work.count() == 0;
        let (kept, placed) = (self.log.0.bytes_kept(), self.log.0.bytes_placed());
        self.log_yield.look(self.now_nanos, kept, frees.then_some(due), placed);
        if !self.may_lengthen() {
            reached("writers yield to checkpoints");
            self.counts.yielded += 1;
        }
    }

    /// Whether runs, and events for them, may write records now, as far as the log's length goes.
    pub(super) fn may_lengthen(&self) -> bool {
        self.log_yield.until[LIVE] == 0
    }

    /// The same for bulk.
    pub(super) fn may_lengthen_by_bulk(&self) -> bool {
        self.log_yield.until[BULK] == 0
    }

    /// Whether what clients write is refused: they were kept at their door, so it comes through another shard's.
    pub(super) fn is_log_shut(&self) -> bool {
        self.log_yield.is_shut
    }

    /// When doors may hand over operations that write again, monotonic nanoseconds; 0 for now.
    pub(super) fn writes_not_before(&self) -> u64 {
        self.log_yield.until[LIVE]
    }

    /// When those who yield go on.
    pub(super) fn log_yield_deadline(&self) -> u64 {
        self.log_yield.until.into_iter().filter(|until| *until > 0).min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: u64 = 1 << 30;
    /// Bytes of a turn, and of a period while nobody yields.
    const TURN: u64 = 64 << 10;
    const RATE: u64 = 4 << 20;

    /// Writes as much as a class may, for so many periods; gives the bytes of a period.
    fn write(log: &mut LogYield, class: usize, kept: u64, periods: u64) -> u64 {
        let (begun, turns) = ((log.period + 1) * LOG_YIELD_PERIOD_NANOS, RATE / TURN);
        let (from, mut placed) = (log.placed, log.placed);
        for turn in 0..periods * turns {
            log.look(begun + turn * LOG_YIELD_PERIOD_NANOS / turns, kept, Some(DUE), placed);
            placed += if log.until[class] == 0 { TURN } else { 0 };
            assert!(log.until[LIVE] == 0 || log.until[BULK] > 0, "bulk yields whenever live does");
        }
        log.look(begun + periods * LOG_YIELD_PERIOD_NANOS - 1, kept, Some(DUE), placed);
        (placed - from) / periods
    }

    fn full_speed() -> LogYield {
        let mut log = LogYield::default();
        assert_eq!(write(&mut log, LIVE, DUE, 3), RATE, "a round is due, and nobody waits for it");
        log
    }

    /// Whether a rate is so many thousandths of the full one, give or take some turns.
    fn is_about(rate: u64, thousandths: u64) -> bool {
        rate.abs_diff(RATE / 1_000 * thousandths) <= 3 * TURN
    }

    #[test]
    fn the_longer_the_log_the_less_is_written_and_never_nothing() {
        for (kept, live, bulk) in [
            (DUE + DUE / 2, 1_000, 500),
            (2 * DUE, 1_000, 100),
            (2 * DUE + DUE / 2, 500, 100),
            (3 * DUE, 100, 100),
            (100 * DUE, 100, 100),
        ] {
            let found = [LIVE, BULK].map(|class| write(&mut full_speed(), class, kept, 50));
            assert!(is_about(found[LIVE], live) && is_about(found[BULK], bulk), "{kept}: {found:?}");
        }
    }

    #[test]
    fn what_a_turn_writes_too_much_the_next_periods_have_less() {
        let mut log = full_speed();
        let begun = (log.period + 1) * LOG_YIELD_PERIOD_NANOS;
        let until_at = |log: &mut LogYield, period: u64, placed| {
            log.look(begun + period * LOG_YIELD_PERIOD_NANOS, 3 * DUE, Some(DUE), placed);
            log.until[LIVE]
        };
        let placed = log.placed;
        assert_eq!(until_at(&mut log, 0, placed), 0);
        let waited = (1..100).find(|period| until_at(&mut log, *period, placed + RATE) == 0);
        assert!(waited.is_some_and(|periods| (9..=12).contains(&periods)), "{waited:?}");
    }

    #[test]
    fn what_doors_were_not_told_to_keep_is_taken() {
        let mut log = full_speed();
        write(&mut log, LIVE, 3 * DUE, 2);
        let next = (log.period + 1) * LOG_YIELD_PERIOD_NANOS;
        log.look(next, 3 * DUE, Some(DUE), log.placed);
        assert!(!log.is_shut, "a period has begun since they were told");
        log.look(next + 1, 3 * DUE, Some(DUE), log.placed + RATE);
        assert!(log.until[LIVE] > 0 && !log.is_shut, "this turn tells them");
        log.look(next + 2, 3 * DUE, Some(DUE), log.placed);
        assert!(log.is_shut, "they were told");
    }

    #[test]
    fn where_it_would_free_nothing_nobody_yields() {
        let mut log = full_speed();
        log.look((log.period + 1) * LOG_YIELD_PERIOD_NANOS, 100 * DUE, None, log.placed + 2 * RATE);
        assert_eq!(log.until, [0, 0]);
    }
}
