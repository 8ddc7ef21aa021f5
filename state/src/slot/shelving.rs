//! Backlog rows leave memory once files hold them: which of them go, a bounded number at a time, and how they become a rest. See
//! [`super::backlog`].

use super::Slot;
use super::backlog::row_bytes;
use crate::backlog::{BacklogRest, session_of};
use crate::grain::{GrainId, Queued, Work};
use gristmill_base::limits::BACKLOG_AHEAD_BYTES;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use std::ops::Range;

/// What stays in memory of a backlog behind the inputs of the run under way: rows, or as many as have these bytes.
#[derive(Clone, Copy, Debug)]
struct Keep {
    rows: usize,
    bytes: usize,
}

/// What giving up rows of one grain did.
#[derive(Clone, Copy, Debug, Default)]
struct GivenUp {
    /// Rows that it looked at, those that stay included.
    looked: usize,
    rows: usize,
    /// Memory, bytes.
    freed: usize,
}

impl Slot {
    /// All backlog rows below a number are in files: what need not be in memory goes, by and by; see
    /// [`Self::shelve_backlogs`].
    pub(super) fn backlog_is_filed(&mut self, before: u64) {
        self.backlog_filed = before;
        let works = self.grains.with_work().into_iter().filter(|(_, work)| !work.backlog.is_empty());
        self.to_shelve = works.map(|(id, _)| id).collect();
    }

    /// Gives up backlog rows that files hold since lately and that are not handled soon: all of a parked grain, of others those
    /// behind the first ones. Looks at about `most` rows; how many it looked at, fewer than `most` if nothing is left to do.
    pub fn shelve_backlogs(&mut self, most: usize) -> usize {
        let mut looked = 0;
        while looked < most
            && let Some(id) = self.to_shelve.last().copied()
        {
            let work = if self.grains.exists(id) { self.grains.get(id).work() } else { None };
            let rows = match work {
                Some(work) if work.parked.is_some() => 0,
                _ => tuning().backlog_ahead,
            };
            let left = most - looked;
            let done = self.give_up_backlog(id, Keep { rows, bytes: BACKLOG_AHEAD_BYTES }, left);
            looked += done.looked.max(1);
            if done.rows < left {
                self.to_shelve.pop();
            } else {
                reached("backlog rows given up in pieces");
            }
        }
        looked
    }

    /// Gives up backlog rows where memory is short: looks at about `most`, until `bytes` are free. Of a grain that is not parked
    /// its first row stays, so that it goes on. How many it looked at, how many went, and the memory that this freed.
    pub(super) fn evict_backlogs(&mut self, most: usize, bytes: usize) -> (usize, usize, usize) {
        let (mut looked, mut rows, mut freed, mut last) = (0, 0, 0, None);
        let from = self.backlog_hand;
        let ids: Vec<(u64, GrainId)> =
            self.backlog.range(from..self.backlog_filed.max(from)).take(most).map(|(n, id)| (*n, *id)).collect();
        self.backlog_hand = if ids.len() < most { 0 } else { ids.last().map_or(0, |(n, _)| n + 1) };
        for (n, id) in ids {
            if freed >= bytes || looked >= most {
                self.backlog_hand = n;
                break;
            }
            looked += 1;
            if last.replace(id) == Some(id) || !self.backlog.contains_key(&n) {
                continue;
            }
            let keep = Keep { rows: usize::from(self.grains.get(id).parked().is_none()), bytes: usize::MAX };
            let gone = self.give_up_backlog(id, keep, most - looked + 1);
            looked += gone.rows.saturating_sub(1);
            (rows, freed) = (rows + gone.rows, freed + gone.freed);
        }
        (looked, rows, freed)
    }

    /// Gives up `most` rows at most of a grain that files hold, behind those of the run under way and what is kept.
    fn give_up_backlog(&mut self, id: GrainId, keep: Keep, most: usize) -> GivenUp {
        let filed = if planted::is(Bug::DirtyRowEvicted) { self.next_backlog } else { self.backlog_filed };
        if !self.grains.exists(id) {
            return GivenUp::default();
        }
        let Some(work) = self.grains.get_mut(id).work_mut() else { return GivenUp::default() };
        let (from, kept) = end_of_kept(work, keep);
        let part = part_to_go(work, from, filed, most);
        let is_bulk =
            |queued: &&Queued| matches!(queued, Queued::Backlog(_) | Queued::Rest) && work.class_of(queued).is_bulk();
        let bulk = work.queue.range(part.clone()).filter(is_bulk).count();
        let at = part.start;
        let (mut gone, mut others) = (Vec::new(), Vec::new());
        for queued in work.queue.drain(part) {
            match queued {
                Queued::Backlog(n) => gone.push(n),
                Queued::Rest => {}
                // They come behind the rest.
                other => others.push(other),
            }
        }
        if gone.is_empty() {
            assert!(others.is_empty(), "only backlog rows are given up");
            return GivenUp { looked: kept, ..GivenUp::default() };
        }
        others.into_iter().rev().for_each(|other| work.queue.insert(at, other));
        work.queue.insert(at, Queued::Rest);
        let freed = self.shelve(id, &gone);
        let work = self.grains.work_or_new(id);
        work.bulk = work.bulk - bulk + usize::from(work.class_of(&Queued::Rest).is_bulk());
        GivenUp { looked: kept + gone.len(), rows: gone.len(), freed }
    }

    /// Rows of a grain, ascending and beside those that lie in files alone already, lie in files alone from now on.
    fn shelve(&mut self, id: GrainId, gone: &[u64]) -> usize {
        let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return 0 };
        reached("backlog rows given up");
        let work = self.grains.get_mut(id).work_mut().expect("a grain with backlog has work");
        let is_new = work.rest.is_none();
        let new = || BacklogRest { from: *first, end: last + 1, ..BacklogRest::default() };
        let mut rest = work.rest.take().unwrap_or_else(|| Box::new(new()));
        let mut freed = 0;
        for n in gone {
            let row = work.backlog.remove(n).expect("a queued backlog row is there");
            self.backlog.remove(n);
            freed += row_bytes(&row);
            rest.row_goes(&row);
            rest.count += 1;
            rest.has_live |= !row.input.class.is_bulk();
            rest.of_sessions.extend(session_of(&row).map(|of| (*n, of)));
        }
        (rest.from, rest.end) = (rest.from.min(*first), rest.end.max(last + 1));
        if is_new {
            rest.count_before(&work.backlog);
        }
        work.rest = Some(rest);
        self.backlog_bytes -= freed;
        self.resting.insert(id);
        self.resting_awake.insert(id);
        freed
    }
}

/// Behind which entry of a queue what stays ends, and how many rows that are.
fn end_of_kept(work: &Work, keep: Keep) -> (usize, usize) {
    let in_flight = work.running.map_or(0, |running| running.count).min(work.queue.len());
    let (mut rows, mut bytes) = (0, 0);
    for (at, queued) in work.queue.iter().enumerate().skip(in_flight) {
        match queued {
            Queued::Rest => return (at, rows),
            Queued::Backlog(_) if rows >= keep.rows || bytes >= keep.bytes => return (at, rows),
            Queued::Backlog(n) => {
                rows += 1;
                bytes += work.backlog.get(n).map_or(0, |row| row.input.weight());
            }
            _ => {}
        }
    }
    (work.queue.len(), rows)
}

/// The part of a queue, from a place on, whose backlog rows go: `most` at most, beside what lies in files alone already, which
/// so stays one part of the queue. Those behind it come first, the others from their end. Where nothing is in files alone yet
/// and there are many, all behind the place go in the end, and the first of them begin: then no long queue is looked through.
fn part_to_go(work: &Work, from: usize, filed: u64, most: usize) -> Range<usize> {
    let is_filed = |queued: &Queued| matches!(queued, Queued::Backlog(n) if *n < filed);
    let places = || work.queue.iter().enumerate().skip(from);
    let at = if work.rest.is_some() {
        places().find(|(_, queued)| matches!(queued, Queued::Rest)).map(|(at, _)| at)
    } else if work.backlog.len() <= tuning().backlog_ahead {
        // Few rows: the last one goes first.
        places().rev().find(|(_, queued)| is_filed(queued)).map(|(at, _)| at + 1)
    } else {
        None
    };
    let at = at.unwrap_or(from);
    let (mut begin, mut end, mut rows) = (at, at, 0);
    for (at, queued) in work.queue.iter().enumerate().skip(at) {
        match queued {
            Queued::Rest => end = at + 1,
            queued if is_filed(queued) && rows < most => (end, rows) = (at + 1, rows + 1),
            Queued::Backlog(_) | Queued::Stream(..) => break,
            Queued::Timer(..) | Queued::Nothing => {}
        }
    }
    for at in (from..at).rev() {
        if rows == most {
            break;
        }
        if is_filed(&work.queue[at]) {
            (begin, rows) = (at, rows + 1);
        }
    }
    if rows == 0 { at..at } else { begin..end }
}
