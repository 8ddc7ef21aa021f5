//! Backups under load: begun at a drawn time, copied in steps while everything goes on, broken off by crashes. Each that
//! comes about is checked, restored on another disk, and brought to rest there; then it must be what a cut may be: all that
//! clients knew before it was begun, and of the rest each effect whole or not at all.

use super::{Options, Run};
use crate::auditor::Auditor;
use crate::disk::SimDisk;
use crate::machine::Knobs;
use crate::rng::SimRng;
use gristmill_base::env::{Clock, Rng};
use gristmill_base::files::Files;
use gristmill_base::planted::Bug;
use gristmill_base::sometimes::reached;
use gristmill_core::boot::backup::{Backup, BackupError, BackupSource, check, restore};
use gristmill_core::boot::{BootConfig, BootError};
use gristmill_core::request::{Answer, BackupStep, Operation};
use gristmill_io::log::LogError;

/// Rounds between the end of one and the next, about.
const PAUSE_ROUNDS: u64 = 1_500;
/// Rounds between two steps of one, about.
const STEP_ROUNDS: u64 = 12;

/// The backups of a run.
pub(super) struct Backups {
    rng: SimRng,
    left: u32,
    /// Where they lie; none before the first.
    to: Option<SimDisk>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    cut: u64,
    backup: Backup,
    /// The machine's disk.
    from: SimDisk,
    /// What clients knew when it was begun.
    then: Auditor,
    are_logs_told: bool,
}

impl Backups {
    /// Those of a seed, by dice of its own. None where files rot: what is damaged is copied as it is.
    pub(super) fn draw(options: &Options, knobs: &Knobs) -> Self {
        let mut rng = SimRng::new(options.seed ^ 0x6261_636b);
        let is_aimed = matches!(
            options.aim,
            Some(Bug::CutAfterItems | Bug::CutHoldsNothing | Bug::CutAheadOfRoot | Bug::PlacesNotCopied)
        );
        let some = (is_aimed || options.seed % 5 == 3) && knobs.rots == 0 && knobs.rests == 0;
        let left = if some { 1 + rng.below(3) as u32 } else { 0 };
        let more = if options.aim == Some(Bug::CutAheadOfRoot) { 40 } else { 4 };
        Self { rng, left: if is_aimed { left + more } else { left }, to: None, under_way: None }
    }

    /// The machine went down, and who copied with it.
    pub(super) fn break_off(&mut self) {
        if self.under_way.take().is_some() {
            reached("backup broken off");
        }
    }
}

/// Whether an error is a fault of the disk, which ends a backup and says nothing against it.
fn is_fault(error: &BackupError) -> bool {
    matches!(
        error,
        BackupError::Source(BootError::Disk(_) | BootError::Log(LogError::Disk(_))) | BackupError::Target(_)
    )
}

impl Run {
    /// Goes on with a backup, or begins one, now and then.
    pub(super) fn backup_step(&mut self) -> Result<(), String> {
        let is_idle = self.backups.left == 0 && self.backups.under_way.is_none();
        if is_idle || self.machine.disk.is_down() || self.machine.failed() {
            return Ok(());
        }
        if let Some(under_way) = self.backups.under_way.take() {
            if self.backups.rng.below(STEP_ROUNDS) > 0 {
                self.backups.under_way = Some(under_way);
                return Ok(());
            }
            return self.backup_on(under_way);
        }
        if self.backups.rng.below(PAUSE_ROUNDS) > 0 {
            return Ok(());
        }
        self.backups.left -= 1;
        let then = self.auditor.clone();
        let begun = self.ask(Operation::Backup { step: BackupStep::Begin, cut: 0 })?;
        let Some(Ok(Answer::Json(text))) = begun.filter(|_| !self.machine.disk.is_down()) else { return Ok(()) };
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let cut = json["cut"].as_u64().ok_or("a backup was begun without a cut")?;
        match self.begin_backup(cut, then) {
            Err(error) if is_fault(&error) => Ok(()),
            done => done.map_err(|error| format!("backup: it cannot be begun: {error}")),
        }
    }

    fn begin_backup(&mut self, cut: u64, then: Auditor) -> Result<(), BackupError> {
        let clock = self.machine.clock.fork();
        let seed = self.backups.rng.next_u64();
        let mut from = self.machine.disk.handle();
        let to = self.backups.to.get_or_insert_with(|| SimDisk::new(seed, clock));
        let now = self.machine.clock.now().wall_micros;
        let source = BackupSource::at_cut(&mut Files::new(&mut from), cut)?;
        let backup = Backup::begin(&mut Files::new(&mut from), &mut Files::new(to), &source, now)?;
        self.backups.under_way = Some(UnderWay { cut, backup, from, then, are_logs_told: false });
        Ok(())
    }

    fn backup_on(&mut self, mut under_way: UnderWay) -> Result<(), String> {
        let to = self.backups.to.as_mut().expect("it was made when the backup was begun");
        let stepped = under_way.backup.step(&mut Files::new(&mut under_way.from), &mut Files::new(to));
        let cut = under_way.cut;
        let is_copied = under_way.backup.is_copied();
        let step = match under_way.backup.logs_are_copied() && !under_way.are_logs_told {
            true if !is_copied => BackupStep::LogsCopied,
            _ => BackupStep::Hold,
        };
        under_way.are_logs_told = under_way.backup.logs_are_copied();
        let Some(held) = self.ask(Operation::Backup { step, cut })? else { return Ok(()) };
        if held.is_err() {
            reached("backup whose cut was not held");
            return Ok(());
        }
        match stepped {
            Err(error) if is_fault(&error) => return Ok(()),
            Err(error) => return Err(format!("backup: a held file cannot be copied: {error}")),
            Ok(()) if !is_copied => {
                self.backups.under_way = Some(under_way);
                return Ok(());
            }
            Ok(()) => {}
        }
        let UnderWay { backup, then, .. } = under_way;
        let to = self.backups.to.as_mut().expect("it is there");
        let report = backup.finish(&mut Files::new(to)).map_err(|error| format!("backup: {error}"))?;
        if self.backups.rng.below(4) > 0 {
            self.ask(Operation::Backup { step: BackupStep::End, cut })?;
        }
        reached(if report.number == 1 { "backup" } else { "backup after another one" });
        self.audit_backup(report.number, &then)
    }

    /// Resumes what was paused when the backup was begun: nothing else would in the restored machine.
    fn resume_restored(&mut self) -> Result<(), String> {
        let name = self.workload.app().name;
        let catalog = self.machine.cores[0].shard.catalog().clone();
        let Some(app) = catalog.app(name) else { return Ok(()) };
        for subscription in app.subscriptions.iter().filter(|it| it.paused) {
            reached("restored subscription resumed");
            self.resume_for_certain(name, &app.subscription_name(subscription))?;
        }
        Ok(())
    }

    /// Checks a backup, restores it, and lets a machine of its own come to rest over it.
    fn audit_backup(&mut self, number: u32, then: &Auditor) -> Result<(), String> {
        let wrong = |what: &dyn std::fmt::Display| format!("backup {number}: {what}");
        let now = self.machine.clock.now();
        let config: BootConfig = self.machine.knobs.boot.clone();
        let to = self.backups.to.as_mut().expect("it is there");
        let checked = check(to, Some(number), &config, now, &mut |_, _| {}).map_err(|error| wrong(&error))?;
        let verified = &checked.verified;
        if !checked.is_well() {
            return Err(wrong(&format!("{:?}, lost: {:?}", verified.damaged, verified.lost)));
        }
        let manifest = checked.manifest.ok_or_else(|| wrong(&"there is no manifest"))?;
        let mut disk = SimDisk::new(self.backups.rng.next_u64(), self.machine.clock.fork());
        restore(to, &manifest, &mut disk, &mut self.backups.rng, &mut |_, _| {}).map_err(|error| wrong(&error))?;
        if self.auditor.is_past(then.life()) || then.is_past(then.life()) {
            // The app was deleted meanwhile: what of it is in the backup, nobody can say.
            return Ok(());
        }
        let mut knobs = self.machine.knobs.clone();
        knobs.boot.shard_count = self.backups.rng.between(1, u64::from(knobs.cores_max)) as u16;
        let machine = self.machine.beside(disk, knobs, self.backups.rng.fork());
        let auditor = self.auditor.since(then);
        let machine = std::mem::replace(&mut self.machine, machine);
        let auditor = std::mem::replace(&mut self.auditor, auditor);
        let (clients, ingesters) = (std::mem::take(&mut self.clients), std::mem::take(&mut self.ingesters));
        let network = std::mem::take(&mut self.network);
        self.workload.other_directory();
        let names = self.names.clone();
        let rested = self.machine.start(false).and_then(|()| {
            self.take_names();
            self.resume_restored()?;
            self.replays_end()?;
            self.settle().and_then(|()| self.final_check())
        });
        self.workload.other_directory();
        (self.machine, self.auditor, self.names) = (machine, auditor, names);
        (self.clients, self.ingesters, self.network) = (clients, ingesters, network);
        reached("backup restored and audited");
        rested.map_err(|what| wrong(&format!("restored: {what}")))
    }
}
