//! Grains: their rows, and the work that waits for them.

mod change;

pub(crate) use change::{Change, Changed, Discarded, allocated, entry_bytes};

use crate::backlog::BacklogRest;
use crate::input::{Bytes, GrainAddress, Input, Origin, StreamId};
use crate::key::Key;
use crate::record::{Parked, Spilled};
use crate::store::RangePage;
use crate::waits::Waits;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{HandlerId, MapId, Ssn, TableId};
use gristmill_base::limits::RUN_RANGE_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A value and the record that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number of the record in the slot.
    pub ssn: Ssn,
    /// The value.
    pub bytes: Bytes,
}

/// Place of a grain in its slot's slab. Means something only while the grain exists in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrainId(pub u32);

/// One input that waits, in the order of handling.
#[derive(Clone, Debug)]
pub enum Queued {
    /// From a stream; its position is pending there.
    Stream(StreamId, u64, Input),
    /// A row of the backlog.
    Backlog(u64),
    /// All rows of the backlog that lie in files alone: those of [`Work::rest`]. They come before what follows.
    Rest,
    /// A timer came due. Valid only while its row has this generation.
    Timer(Box<str>, Ssn),
    /// Nothing: the input of a stream that has ended since, or what a planted bug left behind.
    Nothing,
}

/// A run that has not committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number in the shard.
    pub run: u64,
    /// How many queued inputs, from the head, it holds.
    pub count: usize,
}

/// A failure of the input at the head of a queue. Nothing durable tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// What went wrong, in a word.
    pub kind: String,
    /// For people.
    pub message: String,
    /// Engine microseconds.
    pub at_micros: u64,
    /// The exception handler that the next run calls with that input; `None`: its own handler is tried again.
    pub call: Option<HandlerId>,
}

/// The input at the head of a queue was deferred by its handler. Nothing durable tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferred {
    /// How often, in a row.
    pub count: u32,
    /// Since when, engine microseconds.
    pub since_micros: u64,
    /// How many inputs waited, wherever they are; once there are more, the input is presented again. `u64::MAX`: not before
    /// its time.
    pub waiting: u64,
}

/// What waits for a grain. Exists only while there is something.
#[derive(Debug, Default)]
pub struct Work {
    /// Inputs in order; backlog rows come before what was queued after them.
    pub queue: VecDeque<Queued>,
    /// Durable copies of spilled inputs that are in memory, by number; each is in `queue` as `Backlog`.
    pub backlog: BTreeMap<u64, Spilled>,
    /// Those that lie in files alone, if there are some; they are in `queue` as `Rest`.
    pub rest: Option<Box<BacklogRest>>,
    /// Set while the grain must not run.
    pub parked: Option<Parked>,
    /// The run that holds the head of the queue, at most one.
    pub running: Option<Running>,
    /// Failed attempts at the head of the queue.
    pub attempts: u32,
    /// The last of them.
    pub failing: Option<Box<Failing>>,
    /// Set while the head of the queue is deferred.
    pub deferred: Option<Box<Deferred>>,
    /// What an operator has put in the place of a backlog row; durable, and gone with the row.
    pub edited: Option<Box<Spilled>>,
    /// After a failure: how many inputs the next run may take at most; 0 = no bound.
    pub run_limit: usize,
    /// Monotonic nanoseconds before which the grain is not run again; 0 = at once.
    pub not_before_nanos: u64,
    /// How many inputs of `queue` are bulk.
    pub bulk: usize,
    /// Whether the grain is in the slot's list of ready grains with live work.
    pub listed_live: bool,
    /// Whether it is in the list of those with bulk work alone; it stays there when something live comes and the other
    /// list takes it too.
    pub listed_bulk: bool,
    /// Monotonic nanoseconds when the queue last became non-empty or something was committed.
    pub waiting_since_nanos: u64,
    /// What was fetched from files for the run at the head of the queue. Nothing changes the grain's rows before that run
    /// commits, so it stays right until then.
    pub fetched: Option<Box<Fetched>>,
    /// Where the grain stands in the list of those with work, which [`crate::grains::Grains`] keeps.
    pub(crate) place: u32,
}

/// A range of entries that a run reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeKey {
    /// The map.
    pub map: MapId,
    /// From this key on.
    pub from: Bytes,
    /// Before this key, if there is one.
    pub to: Option<Bytes>,
    /// Rows that are wanted.
    pub rows: usize,
    /// From the last one backward.
    pub reverse: bool,
}

/// A row of any grain, as a run reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarKey {
    /// The grain.
    pub grain: GrainAddress,
    /// Map and key of the entry; `None` for the value.
    pub entry: Option<(MapId, Bytes)>,
}

/// What was fetched from files for a run and is not among the rows in memory.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Keys of rows that do not exist.
    pub absent: BTreeSet<Vec<u8>>,
    /// Pages of ranges.
    ranges: Vec<(RangeKey, RangePage)>,
    /// Rows of other grains, as they were when they were read.
    far: Vec<(FarKey, Option<Bytes>)>,
    /// Bytes of them.
    far_bytes: usize,
    /// What the run has waited for beside rows.
    pub waits: Waits,
}

impl Fetched {
    /// Keeps a page.
    pub fn put_range(&mut self, key: RangeKey, page: RangePage) {
        self.ranges.push((key, page));
    }

    /// Keeps a row of another grain. Beyond a bound only that there was one.
    pub fn put_far(&mut self, key: FarKey, value: Option<Bytes>) {
        self.far_bytes += value.as_ref().map_or(0, |value| value.len());
        let value = value.filter(|_| self.far_bytes <= RUN_RANGE_BYTES_MAX);
        self.far.push((key, value));
    }

    /// A row of another grain that was read; an error if all that were are too many bytes.
    #[must_use]
    pub fn far(&self, key: &FarKey) -> Option<Result<&Option<Bytes>, ()>> {
        let found = self.far.iter().find(|(known, _)| known == key).map(|(_, value)| value);
        found.map(|value| if self.far_bytes <= RUN_RANGE_BYTES_MAX { Ok(value) } else { Err(()) })
    }

    /// Rows of the grain have changed: what was fetched of them is fetched again.
    pub fn forget_rows(&mut self) {
        self.absent.clear();
        self.ranges.clear();
    }

    /// Another attempt reads other grains anew.
    pub fn forget_far(&mut self) {
        self.far.clear();
        self.far_bytes = 0;
    }

    /// The page that was asked for so.
    #[must_use]
    pub fn range(&self, key: &RangeKey) -> Option<&RangePage> {
        self.ranges.iter().find(|(known, _)| known == key).map(|(_, page)| page)
    }
}

/// What few grains have. Exists only while there is something.
#[derive(Debug, Default)]
struct More {
    /// Maps that have entries, few, in order of id.
    maps: Vec<(MapId, BTreeMap<Bytes, Row>)>,
    /// How many timers are set; a grain with timers is kept.
    timer_count: u32,
    /// What waits for the grain.
    work: Option<Work>,
}

/// One grain. Owned by its slot, hence by one core. It fills one line of a processor's cache, because a point read or
/// write of a grain that is not in the caches waits for each line once.
#[derive(Debug)]
#[repr(align(64))]
pub struct Grain {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: Option<Row>,
    /// Its table.
    pub table: TableId,
    more: Option<Box<More>>,
    heat: Heat,
}

/// Whether a grain was used since the hand of [`Slot::evict`](crate::slot::Slot::evict) came by. Its forbidden values tell
/// a free place in the slab, which so needs no word of its own beside the grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Heat {
    Cold = 1,
    Warm = 2,
}

const _: () = assert!(size_of::<Option<Grain>>() == 64, "a place in the slab is one line");

impl Work {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.backlog.is_empty()
            && self.rest.is_none()
            && self.parked.is_none()
            && self.running.is_none()
            && self.edited.is_none()
            && !self.listed_live
            && !self.listed_bulk
    }

    /// Nothing was tried of the head of the queue: it has changed, or is to be tried as if it were new.
    pub fn head_is_new(&mut self) {
        (self.attempts, self.run_limit, self.not_before_nanos) = (0, 0, 0);
        (self.failing, self.deferred) = (None, None);
        self.forget_waits();
    }

    /// The next run waits anew for whatever it waits for.
    pub fn forget_waits(&mut self) {
        if let Some(fetched) = &mut self.fetched {
            fetched.waits = Waits::default();
        }
    }

    /// The class of the grain's work: one live input, wherever it stands in the queue, makes it live, because all before
    /// it must be handled first.
    #[must_use]
    pub fn class(&self) -> InputClass {
        InputClass::from(self.bulk == self.queue.len())
    }

    /// How many rows its backlog has, wherever they are.
    #[must_use]
    pub fn backlog_count(&self) -> u64 {
        self.backlog.len() as u64 + self.rest.as_ref().map_or(0, |rest| rest.count)
    }

    /// How many inputs wait, wherever they are: rows of the backlog that leave memory or come back to it change nothing.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        // The rows in files are one entry of the queue.
        self.queue.len() as u64 + self.rest.as_ref().map_or(0, |rest| rest.count.saturating_sub(1))
    }

    /// The class of a queued entry. Timers are live, whoever set them; so are rows in files, unless all of them are bulk.
    #[must_use]
    pub fn class_of(&self, queued: &Queued) -> InputClass {
        if matches!(queued, Queued::Rest) {
            return InputClass::from(self.rest.as_ref().is_some_and(|rest| !rest.has_live));
        }
        self.input_of(queued).map_or(InputClass::Live, |input| input.class)
    }

    /// How many of the first `count` entries are bulk.
    pub(crate) fn bulk_among(&self, count: usize) -> usize {
        self.queue.iter().take(count).filter(|queued| self.class_of(queued).is_bulk()).count()
    }

    /// Counts the bulk entries again, after the queue was changed in its middle.
    pub(crate) fn count_bulk(&mut self) {
        self.bulk = self.bulk_among(self.queue.len());
    }

    /// What a queued entry is, whether it was copied into the backlog since or not: its place in a stream, or a timer.
    #[must_use]
    pub fn identity(&self, queued: &Queued) -> Option<Origin> {
        match queued {
            Queued::Backlog(n) => self.backlog.get(n).map(|row| row.origin.clone()),
            other => other.origin(),
        }
    }

    /// The input of a queued entry, if it carries one (timers do not).
    #[must_use]
    pub fn input_of<'a>(&'a self, queued: &'a Queued) -> Option<&'a Input> {
        match queued {
            Queued::Stream(_, _, input) => Some(input),
            Queued::Backlog(n) => {
                let edited = self.edited.as_deref().filter(|row| row.n == *n);
                edited.or_else(|| self.backlog.get(n)).map(|row| &row.input)
            }
            Queued::Timer(..) | Queued::Rest | Queued::Nothing => None,
        }
    }
}

impl Queued {
    /// What a commit of this input consumes; nothing for one whose stream has ended, and for what has to be read first.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Self::Stream(stream, pos, _) => Some(Origin::Stream(*stream, *pos)),
            Self::Backlog(n) => Some(Origin::Backlog(*n)),
            Self::Timer(name, generation) => Some(Origin::Timer(name.clone(), *generation)),
            Self::Rest | Self::Nothing => None,
        }
    }
}

impl Grain {
    /// A grain without rows.
    #[must_use]
    pub fn empty(table: TableId, key: &[u8]) -> Self {
        Self { key: key.into(), value: None, table, more: None, heat: Heat::Warm }
    }

    /// Its maps that have entries, in order of id.
    #[must_use]
    pub fn maps(&self) -> &[(MapId, BTreeMap<Bytes, Row>)] {
        self.more.as_ref().map_or(&[], |more| &more.maps)
    }

    /// Adds a map with its entries. False, and nothing is added, where it has no entries or its id is not above those
    /// that are there.
    #[must_use]
    pub fn push_map(&mut self, map: MapId, entries: BTreeMap<Bytes, Row>) -> bool {
        let fits = !entries.is_empty() && self.maps().last().is_none_or(|(last, _)| *last < map);
        if fits {
            self.more.get_or_insert_default().maps.push((map, entries));
        }
        fits
    }

    /// What waits for it.
    #[must_use]
    pub fn work(&self) -> Option<&Work> {
        self.more.as_ref()?.work.as_ref()
    }

    /// What waits for it, to change.
    pub fn work_mut(&mut self) -> Option<&mut Work> {
        self.more.as_mut()?.work.as_mut()
    }

    /// What waits for it; made by `make` if nothing does. Only for [`crate::grains::Grains`], which lists the grain then.
    pub(crate) fn work_or_else(&mut self, make: impl FnOnce() -> Work) -> &mut Work {
        self.more.get_or_insert_default().work.get_or_insert_with(make)
    }

    /// Forgets what waits for it. Only for [`crate::grains::Grains`], which lists the grain no more.
    pub(crate) fn end_work(&mut self) {
        if let Some(more) = &mut self.more {
            more.work = None;
        }
        self.drop_empty();
    }

    /// How many timers are set.
    #[must_use]
    pub fn timer_count(&self) -> u32 {
        self.more.as_ref().map_or(0, |more| more.timer_count)
    }

    /// Takes note of how many timers are set.
    pub fn set_timer_count(&mut self, count: u32) {
        if count != self.timer_count() {
            self.more.get_or_insert_default().timer_count = count;
            self.drop_empty();
        }
    }

    /// Whether it has a value or a map entry: whether a reader sees it.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        self.value.is_some() || !self.maps().is_empty()
    }

    /// Whether it may be forgotten.
    #[must_use]
    pub fn is_forgettable(&self) -> bool {
        !self.has_rows() && self.timer_count() == 0 && self.work().is_none_or(Work::is_empty)
    }

    /// Whether an input can be handled at once, ahead of nobody.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.work().is_none_or(|work| work.queue.is_empty() && work.parked.is_none() && work.running.is_none())
    }

    /// Why it does not run, if it is parked.
    #[must_use]
    pub fn parked(&self) -> Option<&Parked> {
        self.work().and_then(|work| work.parked.as_ref())
    }

    /// A map that has entries.
    #[must_use]
    pub fn map(&self, map: MapId) -> Option<&BTreeMap<Bytes, Row>> {
        let maps = self.maps();
        maps.binary_search_by_key(&map, |(id, _)| *id).ok().map(|at| &maps[at].1)
    }

    /// A map, made if it has no entries yet.
    fn map_mut(&mut self, map: MapId) -> &mut BTreeMap<Bytes, Row> {
        let maps = &mut self.more.get_or_insert_default().maps;
        let at = match maps.binary_search_by_key(&map, |(id, _)| *id) {
            Ok(at) => at,
            Err(at) => {
                maps.insert(at, (map, BTreeMap::new()));
                at
            }
        };
        &mut maps[at].1
    }

    /// Takes note that it is used.
    #[inline]
    pub fn warm(&mut self) {
        if self.heat == Heat::Cold {
            self.heat = Heat::Warm;
        }
    }

    /// It counts as not used.
    pub(crate) fn chill(&mut self) {
        self.heat = Heat::Cold;
    }

    /// The hand comes by: whether it was used since the last time.
    pub(crate) fn cool(&mut self) -> bool {
        std::mem::replace(&mut self.heat, Heat::Cold) == Heat::Warm
    }

    /// Gives back the memory of what is not there any more.
    fn drop_empty(&mut self) {
        if let Some(more) = &mut self.more {
            more.maps.retain(|(_, entries)| !entries.is_empty());
            if more.maps.is_empty() && more.timer_count == 0 && more.work.is_none() {
                self.more = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_the_same_wherever_it_lies() {
        let mut work = Work { queue: (0..9).map(Queued::Backlog).collect(), ..Work::default() };
        assert_eq!(work.waiting(), 9);
        let rest = |count| Some(Box::new(BacklogRest { count, ..BacklogRest::default() }));
        (work.queue, work.rest) = ([Queued::Backlog(0), Queued::Rest].into(), rest(8));
        assert_eq!(work.waiting(), 9, "given up");
        (work.queue, work.rest) = ([Queued::Backlog(0), Queued::Backlog(1), Queued::Rest].into(), rest(7));
        assert_eq!(work.waiting(), 9, "read back");
        work.queue.push_back(Queued::Backlog(9));
        assert_eq!(work.waiting(), 10, "more has come");
    }
}
