//! Questions that all shards answer: whole-table scans and the status.

use super::Shard;
use super::fetches::slots_move;
use super::scans::{Found, Rows, ScanAsk, answer_of};
use crate::parcel::Item;
use crate::request::{Answer, Bytes, Refusal, Responder};
use gristmill_base::ids::{Lsn, ShardId, Term};
use gristmill_base::planted::{self, Bug};

/// How often a scan begins again because of moves before it is refused: it may be quicker than the news of one.
const SCAN_TRIES_MAX: u32 = 100;

/// An answer that is being put together. Each shard answers once.
#[derive(Debug)]
pub(super) struct Gather {
    responder: Responder,
    /// Answers that are missing.
    missing: u16,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    Scan {
        rows: Rows,
        /// Behind it a part that was cut may have rows that were not sent: nothing beyond it may be shown.
        last: Option<Bytes>,
        /// Grains that were looked at.
        looked: u64,
        /// Whether all of it was found by the index.
        by_index: bool,
        /// By which owners of slots the parts that have come chose theirs.
        term: Option<Term>,
        ask: ScanAsk,
        /// How often it was begun again, because slots moved meanwhile.
        tries: u32,
    },
    Status(Vec<String>),
}

impl Shard {
    fn gather(&mut self, responder: Responder, parts: Parts) -> u64 {
        let number = self.next_gather;
        self.next_gather += 1;
        self.gathers.insert(number, Gather { responder, missing: self.config.shard_count, parts });
        number
    }

    /// Begins a scan over all shards, or begins it again for the `tries`th time.
    pub(super) fn gather_scan(&mut self, responder: Responder, ask: ScanAsk, tries: u32) {
        let parts = Parts::Scan {
            rows: Rows::new(),
            last: None,
            looked: 0,
            by_index: true,
            term: None,
            ask: ask.clone(),
            tries,
        };
        let gather = self.gather(responder, parts);
        for shard in 0..self.config.shard_count {
            let ScanAsk { table, prefix, after, limit, parked, filter, index, may_scan } = ask.clone();
            let (from, limit) = ((self.config.shard, gather), limit as u32);
            self.say(
                ShardId(shard),
                Item::ScanAsk { from, table, prefix, after, limit, parked, filter, index, may_scan },
            );
        }
    }

    /// Asks all shards for their status.
    pub(super) fn status(&mut self, responder: Responder) {
        let gather = self.gather(responder, Parts::Status(Vec::new()));
        for shard in 0..self.config.shard_count {
            self.say(ShardId(shard), Item::StatusAsk { from: (self.config.shard, gather) });
        }
    }

    /// A shard's part of a scan has come.
    pub(super) fn scan_part(&mut self, number: u64, part: Found, of: Term) {
        let Some(gather) = self.gathers.get_mut(&number) else { return };
        gather.missing -= 1;
        if let Parts::Scan { rows, last, looked, by_index, term, ask, .. } = &mut gather.parts {
            let forgets = ask.filter.is_some() && planted::is(Bug::QueryForgetsMoves);
            if *term.get_or_insert(of) != of && !forgets {
                // A slot that went from one shard to the other may be in both parts, or in none.
                return self.scan_again(number);
            }
            if let Some(end) = part.end {
                *last = Some(last.take().map_or_else(|| end.clone(), |last| last.min(end.clone())));
            }
            *looked += part.looked;
            *by_index &= part.by_index;
            rows.extend(part.rows);
        }
        self.gathered(number);
    }

    /// A slot went from one shard to another while a scan was made: it begins again.
    pub(super) fn scan_again(&mut self, number: u64) {
        gristmill_base::sometimes::reached("scan beside a move made again");
        let Some(gather) = self.gathers.remove(&number) else { return };
        match gather.parts {
            Parts::Scan { ask, tries, .. } if tries < SCAN_TRIES_MAX => {
                let ask = ScanAsk { table: self.catalog.newest(ask.table), ..ask };
                self.gather_scan(gather.responder, ask, tries + 1);
            }
            _ => {
                let Refusal { code, message } = slots_move();
                self.refuse(gather.responder, code, message);
            }
        }
    }

    /// A shard's part of a scan will not come: the scan has failed.
    pub(super) fn scan_failed(&mut self, number: u64, why: Refusal) {
        if let Some(gather) = self.gathers.remove(&number) {
            self.refuse(gather.responder, why.code, why.message);
        }
    }

    /// A shard's status has come.
    pub(super) fn status_part(&mut self, number: u64, json: String) {
        let Some(gather) = self.gathers.get_mut(&number) else { return };
        gather.missing -= 1;
        if let Parts::Status(parts) = &mut gather.parts {
            parts.push(json);
        }
        self.gathered(number);
    }

    fn gathered(&mut self, number: u64) {
        if self.gathers.get(&number).is_none_or(|gather| gather.missing > 0) {
            return;
        }
        let gather = self.gathers.remove(&number).expect("it was just looked at");
        let answer = match gather.parts {
            Parts::Scan { rows, last, looked, by_index, ask, .. } => {
                answer_of(&self.catalog, &ask, Found { rows, end: last, looked, by_index })
            }
            Parts::Status(parts) => Answer::Json(self.whole_status(parts)),
        };
        self.reply(Lsn(0), gather.responder, Ok(answer));
    }
}
