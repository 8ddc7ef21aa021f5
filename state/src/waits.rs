//! What a run waits for beside rows: that time passes, and results of computations. A run that waits is not under way: it is made
//! again from its beginning, and is told then what is over.

use gristmill_base::limits::RUN_WAITS_MAX;

/// How a computation ended: its result, or kind and message of its failure.
pub type Computed = Result<Vec<u8>, (String, String)>;

/// Something that a run waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Until a time, monotonic nanoseconds.
    Time(u64),
    /// For a computation.
    Result {
        /// Of what is computed and from what.
        digest: [u8; 32],
        /// Names it to the shard; 0 until it has been handed over.
        ticket: u64,
        /// How it has ended.
        computed: Option<Computed>,
    },
}

impl Waited {
    /// Whether it is over at a time, monotonic nanoseconds.
    #[must_use]
    pub fn is_over(&self, now_nanos: u64) -> bool {
        match self {
            Self::Time(until) => *until <= now_nanos,
            Self::Result { computed, .. } => computed.is_some(),
        }
    }
}

/// What the run at the head of a queue has waited for, in the order in which it asked. Nothing durable tells of it.
#[derive(Debug, Default)]
pub struct Waits {
    /// When the run began, engine microseconds and monotonic nanoseconds.
    began: (u64, u64),
    list: Vec<Waited>,
    /// Engine times at which they were found to be over: all but the last one, or all.
    over_micros: Vec<u64>,
}

impl Waits {
    /// Whether the run has waited for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// When the run began, engine microseconds and monotonic nanoseconds, if it has waited.
    #[must_use]
    pub fn began(&self) -> Option<(u64, u64)> {
        (!self.is_empty()).then_some(self.began)
    }

    /// One of them that is over, with the engine time at which that was found.
    #[must_use]
    pub fn over(&self, at: usize) -> Option<(&Waited, u64)> {
        Some((self.list.get(at)?, *self.over_micros.get(at)?))
    }

    /// The one that the run waits for now.
    #[must_use]
    pub fn current(&self) -> Option<&Waited> {
        self.list.get(self.over_micros.len())
    }

    /// As [`Self::current`], to be changed.
    pub fn current_mut(&mut self) -> Option<&mut Waited> {
        self.list.get_mut(self.over_micros.len())
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Bytes of the results that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |waited: &Waited| match waited {
            Waited::Result { computed: Some(Ok(result)), .. } => result.len(),
            _ => 0,
        };
        self.list.iter().map(of).sum()
    }

    /// The run, which began then, waits for one more as its number `at`. Whatever was noted from there on is forgotten: the run
    /// has taken another way.
    pub fn begin(&mut self, at: usize, waited: Waited, began: (u64, u64)) {
        assert!(at < RUN_WAITS_MAX, "who asks for more is told so");
        if self.is_empty() {
            self.began = began;
        }
        self.list.truncate(at);
        self.over_micros.truncate(at);
        assert_eq!(self.over_micros.len(), self.list.len(), "a run waits for one at a time");
        self.list.push(waited);
    }

    /// Notes that the current one is over, if it is.
    pub fn look(&mut self, now_nanos: u64, engine_micros: u64) {
        if self.current().is_some_and(|waited| waited.is_over(now_nanos)) {
            self.over_micros.push(engine_micros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_takes_another_way_forgets_what_it_waited_for_there() {
        let mut waits = Waits::default();
        assert_eq!((waits.began(), waits.current()), (None, None));
        waits.begin(0, Waited::Time(10), (1, 2));
        waits.look(9, 5);
        assert_eq!((waits.over(0), waits.current()), (None, Some(&Waited::Time(10))));
        waits.look(10, 6);
        assert_eq!((waits.over(0), waits.current()), (Some((&Waited::Time(10), 6)), None));
        let digest = [7; 32];
        waits.begin(1, Waited::Result { digest, ticket: 1, computed: None }, (8, 8));
        let Some(Waited::Result { computed, .. }) = waits.current_mut() else { panic!("it waits for a result") };
        *computed = Some(Ok(vec![1, 2]));
        waits.look(11, 7);
        assert_eq!((waits.bytes(), waits.count(), waits.began()), (2, 2, Some((1, 2))));
        waits.begin(1, Waited::Time(20), (8, 8));
        assert_eq!((waits.bytes(), waits.count()), (0, 2));
        assert_eq!((waits.over(0).map(|(_, at)| at), waits.over(1)), (Some(6), None));
    }
}
