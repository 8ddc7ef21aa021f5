//! Questions that all shards answer: whole-table scans and the status.

use super::Shard;
use super::reads::cut_page;
use crate::parcel::Item;
use crate::request::{Answer, Bytes, Refusal, Responder};
use gristmill_base::ids::{Lsn, ShardId};

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
    Scan { rows: Vec<(Bytes, Option<Bytes>)>, more: bool, limit: usize, last: Option<Bytes> },
    Status(Vec<String>),
}

impl Shard {
    fn gather(&mut self, responder: Responder, parts: Parts) -> u64 {
        let number = self.next_gather;
        self.next_gather += 1;
        self.gathers.insert(number, Gather { responder, missing: self.config.shard_count, parts });
        number
    }

    /// Begins a scan over all shards and says its number.
    pub(super) fn gather_scan(&mut self, responder: Responder, limit: u32) -> u64 {
        self.gather(responder, Parts::Scan { rows: Vec::new(), more: false, limit: limit as usize, last: None })
    }

    /// Asks all shards for their status.
    pub(super) fn status(&mut self, responder: Responder) {
        let gather = self.gather(responder, Parts::Status(Vec::new()));
        for shard in 0..self.config.shard_count {
            self.say(ShardId(shard), Item::StatusAsk { from: (self.config.shard, gather) });
        }
    }

    /// A shard's part of a scan has come.
    pub(super) fn scan_part(&mut self, number: u64, part: Vec<(Bytes, Option<Bytes>)>, part_more: bool) {
        let Some(gather) = self.gathers.get_mut(&number) else { return };
        gather.missing -= 1;
        if let Parts::Scan { rows, more, last, .. } = &mut gather.parts {
            // Behind the end of a cut part there may be rows that were not sent: nothing beyond it may be shown.
            if let (true, Some((end, _))) = (part_more, part.last()) {
                *last = Some(last.take().map_or_else(|| end.clone(), |last| last.min(end.clone())));
            }
            *more |= part_more;
            rows.extend(part);
        }
        self.gathered(number);
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
            Parts::Scan { mut rows, more, limit, last } => {
                if let Some(last) = last {
                    rows.retain(|(key, _)| *key <= last);
                }
                let (rows, cut) = cut_page(rows, limit);
                Answer::Rows { rows, more: more || cut }
            }
            Parts::Status(parts) => Answer::Json(self.whole_status(parts)),
        };
        self.reply(Lsn(0), gather.responder, Ok(answer));
    }
}
