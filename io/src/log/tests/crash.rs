//! Power cuts and killed processes at every operation: everything durable comes back, nothing is invented, order is
//! kept.

use super::*;
use gristmill_base::env::{DiskErrorKind, Rng as _};
use gristmill_base::limits::LOG_IDLE_MARK_NANOS;

/// What the outside knows of a log.
struct Auditor {
    /// Bodies by LSN from 1, of the history that holds.
    bodies: Vec<Vec<u8>>,
    /// Records that must come back.
    durable: u64,
    /// First record that is not covered by a checkpoint.
    from: u64,
}

impl Auditor {
    fn check(&mut self, records: &Records) {
        let next = self.from + records.len() as u64;
        assert!(next > self.durable, "records {next} to {} were durable and are lost", self.durable);
        assert!(next <= self.bodies.len() as u64 + 1, "records up to {next} were never appended");
        for (index, (lsn, found, body)) in records.iter().enumerate() {
            assert_eq!(*lsn, self.from + index as u64);
            assert_eq!(*found, head(*lsn));
            assert_eq!(*body, self.bodies[*lsn as usize - 1], "record {lsn}");
        }
        self.bodies.truncate(next as usize - 1);
        self.durable = next - 1;
    }
}

/// Starts, runs `rounds` rounds, and ends when the disk does. Panics if a promise is broken.
fn live(disk: &mut MemDisk, dice: &mut Dice, auditor: &mut Auditor, rounds: u64) -> Result<(), LogError> {
    let mut settings = config();
    settings.write_durable_bytes = 8 << 10;
    let (end, records) = read(disk, &settings, auditor.from)?;
    flush_all(&mut Files::new(disk), &settings)?;
    auditor.check(&records);
    let mut log = resume(&mut Files::new(disk), end, settings, dice)?;
    let mut nanos = 0;
    for _ in 0..rounds {
        for _ in 0..dice.below(4) {
            let size = if dice.below(8) == 0 { dice.below(20_000) } else { dice.below(400) };
            if log.room(size as usize) {
                auditor.bodies.push((0..size).map(|_| dice.next_u64() as u8).collect());
                append(&mut log, auditor.bodies.last().unwrap());
            }
        }
        for _ in 0..dice.below(4) {
            step(&mut log, disk, nanos);
            auditor.durable = log.durable().0.0;
        }
        nanos += dice.below(3) * LOG_IDLE_MARK_NANOS;
        if dice.below(8) == 0 {
            let durable = log.durable().0.0;
            let covered = if dice.below(2) == 0 { durable } else { dice.below(durable + 1) };
            auditor.from = auditor.from.max(covered + 1);
            log.free_before(Lsn(auditor.from));
        }
        if let Some(error) = log.failed() {
            return Err(error.clone().into());
        }
        supply(&mut log, disk, dice)?;
    }
    Ok(())
}

fn expect_crash(result: Result<(), LogError>) {
    match result {
        Ok(()) => {}
        Err(LogError::Disk(error)) if error.kind == DiskErrorKind::Crashed => {}
        Err(error) => panic!("{error}"),
    }
}

fn end_life(disk: &mut MemDisk, dice: &mut Dice) {
    if dice.below(3) == 0 { disk.kill() } else { disk.power_cut(dice) }
}

/// Some lives of one data directory. Panics if a promise is broken.
fn lives(seed: u64) {
    let mut dice = Dice(seed);
    let (mut disk, mut auditor) = (MemDisk::default(), Auditor { bodies: Vec::new(), durable: 0, from: 1 });
    for _ in 0..12 {
        let length = if dice.below(3) == 0 { 60 } else { 600 };
        disk.crash_at = Some(disk.ops + 1 + dice.below(length));
        let rounds = dice.below(120);
        expect_crash(live(&mut disk, &mut dice, &mut auditor, rounds));
        end_life(&mut disk, &mut dice);
    }
    expect_crash(live(&mut disk, &mut dice, &mut auditor, 40));
}

#[test]
fn lives_that_end_at_random_lose_nothing() {
    (0..300).for_each(lives);
}

#[cfg(feature = "planted")]
#[test]
fn a_skipped_directory_sync_is_found() {
    use gristmill_base::planted::{Bug, plant};
    plant(Some(Bug::SkippedDirectorySync));
    let found = (0..300).any(|seed| std::panic::catch_unwind(|| lives(seed)).is_err());
    plant(None);
    assert!(found);
}

#[test]
fn a_power_cut_at_every_operation_loses_nothing() {
    let mut at = 1;
    loop {
        let mut finished = false;
        for image in 0..3 {
            let mut dice = Dice(77);
            let (mut disk, mut auditor) = (MemDisk::default(), Auditor { bodies: Vec::new(), durable: 0, from: 1 });
            disk.crash_at = Some(at);
            let result = live(&mut disk, &mut dice, &mut auditor, 220);
            finished = result.is_ok();
            expect_crash(result);
            let mut dice = Dice(at * 3 + image);
            end_life(&mut disk, &mut dice);
            // The recovery ends early as well, once.
            disk.crash_at = Some(disk.ops + 1 + dice.below(80));
            expect_crash(live(&mut disk, &mut dice, &mut auditor, 5));
            end_life(&mut disk, &mut dice);
            live(&mut disk, &mut dice, &mut auditor, 5).unwrap();
        }
        if finished {
            break;
        }
        at += 1;
    }
    assert!(at > 300, "{at} operations");
}
