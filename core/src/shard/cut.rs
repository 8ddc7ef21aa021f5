//! Consistent cuts for backups. Shard 0 leads; the cut's number goes to every other shard ahead of everything that is said
//! after it, and who hears of it first takes its own cut before it handles anything behind. So no shard's cut holds what
//! another one's does not know to have issued: docs/decisions/0012-backup.md has the argument.
//!
//! A cut is a position of the log and the files that count then. Until it is released, no such file is removed and no
//! segment of the log with its records is used again. Who copies the files asks for that again and again; when it is silent
//! for as long as the lease, it is over.

use super::{CutContent, Outbox, RootContent, Shard};
use crate::jobs::Job;
use crate::parcel::Item;
use crate::request::{Answer, BackupStep, Code, Responder};
use gristmill_base::env::DiskError;
use gristmill_base::ids::{Lsn, ShardId};
use gristmill_base::limits::BACKUP_LEASE_MILLIS;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use serde_json::json;

/// The shard that leads all cuts.
const LEADER: ShardId = ShardId(0);

/// A cut that this shard has taken and holds.
#[derive(Debug)]
struct Taken {
    number: u64,
    /// Last record that belongs to it.
    to: Lsn,
    /// Not written down yet: that waits until the record is durable, and the root whose files it names.
    unwritten: Option<Box<CutContent>>,
    /// Whether that root is still being written.
    awaits_root: bool,
}

/// A backup that this shard leads.
#[derive(Debug)]
struct Lead {
    number: u64,
    /// Who waits for the cut.
    responder: Option<Responder>,
    /// Shards that have not written down theirs.
    missing: u16,
    /// When the lease is over, monotonic nanoseconds.
    until_nanos: u64,
}

/// Everything about cuts in one shard.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// Number of the last cut that was taken; from 1 in each start.
    number: u64,
    taken: Option<Taken>,
    lead: Option<Lead>,
    /// A cut that a planted bug takes too late, and after how many turns.
    late: Option<(u64, u32)>,
}

impl Cuts {
    /// Whether files that count no longer must stay.
    pub(super) fn holds_files(&self) -> bool {
        self.taken.is_some() && !planted::is(Bug::CutHoldsNothing)
    }

    /// Whether this shard leads a backup.
    pub(super) fn is_leading(&self) -> bool {
        self.lead.is_some()
    }

    /// When the lease of a backup is over; `u64::MAX` without one.
    pub(super) fn deadline(&self) -> u64 {
        self.lead.as_ref().map_or(u64::MAX, |lead| lead.until_nanos)
    }
}

impl Shard {
    /// A step of a backup, asked for by a client. Only at the leader.
    pub(super) fn backup(&mut self, responder: Responder, step: BackupStep, cut: u64) {
        self.expire_backup();
        if step == BackupStep::Begin {
            return self.begin_backup(responder);
        }
        let until = self.lease_end();
        let lead = self.checkpoints.cuts.lead.as_mut().filter(|lead| lead.number == cut && lead.missing == 0);
        let Some(lead) = lead else {
            let message = format!(
                "cut {cut} is not held: the server was started again, or it heard nothing of the backup for {} s; begin anew",
                BACKUP_LEASE_MILLIS / 1_000
            );
            return self.refuse(responder, Code::UnknownName, message);
        };
        lead.until_nanos = until;
        match step {
            BackupStep::Begin | BackupStep::Hold => {}
            BackupStep::LogsCopied => self.release_cut(false),
            BackupStep::End => self.release_cut(true),
        }
        self.answer_backup(responder, cut);
    }

    fn answer_backup(&mut self, responder: Responder, cut: u64) {
        let json = json!({"cut": cut, "start": self.config.boot, "lease_ms": BACKUP_LEASE_MILLIS});
        self.reply(Lsn(0), responder, Ok(Answer::Json(json.to_string())));
    }

    fn lease_end(&self) -> u64 {
        self.now_nanos + BACKUP_LEASE_MILLIS * 1_000_000
    }

    fn begin_backup(&mut self, responder: Responder) {
        assert_eq!(self.config.shard, LEADER, "one shard leads, so numbers of cuts are its own");
        if let Some(lead) = &self.checkpoints.cuts.lead {
            let seconds = lead.until_nanos.saturating_sub(self.now_nanos) / 1_000_000_000;
            let message = format!(
                "another backup is under way (cut {}); if nothing is heard of it, it is over in {seconds} s",
                lead.number
            );
            return self.refuse(responder, Code::Capacity, message);
        }
        if self.change.is_some() {
            // Some shards may use the new catalog already: the cut would hold the old one.
            return self.refuse(responder, Code::Capacity, "a change of the apps is under way; try again");
        }
        if self.moves.is_leading() {
            return self.refuse(responder, Code::Capacity, "a slot is on its way to another shard; try again");
        }
        let number = self.checkpoints.cuts.number + 1;
        let (missing, until_nanos) = (self.config.shard_count, self.lease_end());
        self.checkpoints.cuts.lead = Some(Lead { number, responder: Some(responder), missing, until_nanos });
        self.take_cut(number);
    }

    /// A cut of that number was begun: this shard takes its own, unless it has.
    pub(super) fn cut_begun(&mut self, number: u64) {
        if planted::is(Bug::CutAfterItems) {
            self.checkpoints.cuts.late.get_or_insert((number, 20));
        } else {
            self.take_cut(number);
        }
    }

    fn take_cut(&mut self, number: u64) {
        if number <= self.checkpoints.cuts.number {
            return;
        }
        self.checkpoints.cuts.number = number;
        let here = self.config.shard;
        for shard in (0..self.config.shard_count).map(ShardId).filter(move |shard| *shard != here) {
            self.say(shard, Item::Cut(number));
        }
        self.log.0.hold_segments(!planted::is(Bug::CutHoldsNothing));
        let to = self.log.0.appended().0;
        // What a start would find now. Newer files are durable too, but no root names them: after a crash others get their
        // names, and the next backup would take those of this one for them.
        let (published, awaits_root) = self.checkpoints.root_content();
        let (time_micros, shard, term) = (self.engine_micros, Some(self.config.shard), self.moves.owners.term());
        let root = RootContent { time_micros, shard, term, ..published.clone() };
        let catalog = (self.config.shard == LEADER).then(|| self.catalog.to_bytes());
        let content = CutContent { boot: self.config.boot, cut: number, to, root, catalog };
        self.checkpoints.cuts.taken = Some(Taken { number, to, unwritten: Some(Box::new(content)), awaits_root });
        reached("cut for a backup");
        if self.log.0.has_undurable() {
            reached("cut for a backup before its records were durable");
        }
    }

    /// Goes on with what is open. Called in every turn; costs nothing when nothing is.
    pub(super) fn cut_step(&mut self, outbox: &mut Outbox) {
        if let Some((number, turns)) = self.checkpoints.cuts.late.take() {
            match turns {
                0 => self.take_cut(number),
                _ => self.checkpoints.cuts.late = Some((number, turns - 1)),
            }
        }
        let failed = self.log.0.failed().map(ToString::to_string);
        if let Some(taken) = &mut self.checkpoints.cuts.taken
            && taken.unwritten.is_some()
        {
            if let Some(what) = failed {
                taken.unwritten = None;
                let number = taken.number;
                self.say(LEADER, Item::CutWritten(number, Err(what)));
            } else if !taken.awaits_root
                && self.log.0.durable().covers(taken.to)
                && let Some(content) = taken.unwritten.take()
            {
                let log = self.log.0.config();
                let folder = log.dir.strip_suffix("/log").unwrap_or(&log.dir).to_owned();
                let (directory, number, bytes) = (log.identity, content.cut, content.to_bytes());
                outbox.jobs.push(Job::Cut { directory, folder, number, bytes });
            }
        }
        self.expire_backup();
    }

    /// The root that was being written is durable, or could not be written, and with it the cut that names its files.
    pub(super) fn cut_is_rooted(&mut self, is_durable: bool) {
        let Some(taken) = self.checkpoints.cuts.taken.as_mut().filter(|taken| taken.awaits_root) else { return };
        taken.awaits_root = false;
        reached("cut for a backup while a root was being written");
        if !is_durable && taken.unwritten.take().is_some() {
            let number = taken.number;
            self.say(LEADER, Item::CutWritten(number, Err("its root could not be written".to_owned())));
        }
    }

    fn expire_backup(&mut self) {
        if self.checkpoints.cuts.deadline() <= self.now_nanos {
            reached("lease of a backup ran out");
            self.end_backup("the cut did not come about in time: a shard's log makes nothing durable");
        }
    }

    /// This shard's cut is written down, or cannot be.
    pub(super) fn cut_stored(&mut self, number: u64, done: Result<(), DiskError>) {
        self.say(LEADER, Item::CutWritten(number, done.map_err(|error| error.to_string())));
    }

    /// A shard has written down its cut.
    pub(super) fn cut_written(&mut self, number: u64, done: Result<(), String>) {
        let Some(lead) = self.checkpoints.cuts.lead.as_mut().filter(|lead| lead.number == number) else { return };
        if let Err(what) = done {
            return self.end_backup(&format!("a shard cannot take a cut: {what}"));
        }
        lead.missing -= 1;
        if lead.missing > 0 {
            return;
        }
        let responder = lead.responder.take();
        let until = self.lease_end();
        if let Some(lead) = &mut self.checkpoints.cuts.lead {
            lead.until_nanos = until;
        }
        if let Some(responder) = responder {
            self.answer_backup(responder, number);
        }
    }

    /// The backup that is led here is over; who waits for its cut is told why.
    fn end_backup(&mut self, why: &str) {
        let waiting = self.checkpoints.cuts.lead.as_mut().and_then(|lead| lead.responder.take());
        if let Some(responder) = waiting {
            self.refuse(responder, Code::Failed, why);
        }
        self.release_cut(true);
    }

    /// Tells every shard that segments of the logs, or `all` that the cut holds, are needed no longer.
    fn release_cut(&mut self, all: bool) {
        let number = match all {
            true => self.checkpoints.cuts.lead.take().map(|lead| lead.number),
            false => self.checkpoints.cuts.lead.as_ref().map(|lead| lead.number),
        };
        let Some(number) = number else { return };
        for shard in (0..self.config.shard_count).map(ShardId) {
            self.say(shard, Item::CutReleased { number, all });
        }
    }

    /// A cut needs its segments, or nothing of it, any longer.
    pub(super) fn cut_released(&mut self, number: u64, all: bool) {
        if self.checkpoints.cuts.taken.as_ref().is_none_or(|taken| taken.number != number) {
            return;
        }
        self.log.0.hold_segments(false);
        if all {
            self.checkpoints.cuts.taken = None;
            self.checkpoints.stale_may_go();
            if self.moves.shared.wait_for_root() {
                self.checkpoints.root_is_due();
            }
        }
    }
}
