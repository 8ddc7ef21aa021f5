//! Tests of the log as a whole, over a disk in memory.

mod copy;
mod crash;
mod damage;
mod golden;
mod mem;
mod roots;
mod running;

use super::{Log, LogConfig, LogError, RecordHead, ScanEnd, flush_all, resume, run_segment_job, scan, verify};
use gristmill_base::env::{Completion, Disk, DiskError, Now, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId, SlotId, Ssn, Term};
use mem::{Dice, MemDisk};

const IDENTITY: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

fn config() -> LogConfig {
    LogConfig::new(IDENTITY, ShardId(0)).with_segment_bytes(64 << 10)
}

fn head(lsn: u64) -> RecordHead {
    RecordHead { kind: lsn as u8, slot: SlotId((lsn % 7) as u16), term: Term(1), ssn: Ssn(lsn) }
}

/// What a scan handed out.
type Records = Vec<(u64, RecordHead, Vec<u8>)>;

fn read(disk: &mut MemDisk, config: &LogConfig, from: u64) -> Result<(ScanEnd, Records), LogError> {
    let mut records = Vec::new();
    let mut files = Files::new(disk);
    let end = scan(&mut files, config, Lsn(from), &mut |lsn, head, body| records.push((lsn.0, *head, body.to_vec())))?;
    Ok((end, records))
}

fn open(disk: &mut MemDisk, config: &LogConfig, from: u64, dice: &mut Dice) -> Result<(Log, Records), LogError> {
    let (end, records) = read(disk, config, from)?;
    let mut files = Files::new(disk);
    flush_all(&mut files, config)?;
    let log = resume(&mut files, end, config.clone(), dice)?;
    Ok((log, records))
}

fn now(nanos: u64) -> Now {
    Now { monotonic_nanos: nanos, wall_micros: 0 }
}

/// One round of a shard: hands out at most one operation and takes its completion. Whether there was one.
fn step(log: &mut Log, disk: &mut MemDisk, nanos: u64) -> bool {
    let mut out = Vec::new();
    log.drive(now(nanos), nanos / 1_000, &mut out);
    let Some((ticket, op)) = out.pop() else { return false };
    assert!(out.is_empty() && Log::owns(ticket));
    disk.submit(ticket, op);
    let mut done: Vec<Completion> = Vec::new();
    disk.poll(&mut done);
    for completion in done {
        log.complete(completion.ticket, completion.result);
    }
    true
}

fn settle(log: &mut Log, disk: &mut MemDisk, nanos: u64) {
    while step(log, disk, nanos) {}
}

/// Makes the segments that the log asks for.
fn supply(log: &mut Log, disk: &mut MemDisk, dice: &mut Dice) -> Result<(), DiskError> {
    while let Some(job) = log.needs_segment(dice) {
        let made = run_segment_job(&mut Files::new(disk), &job).and_then(|ready| {
            let file = disk.open(&ready.path, OpenMode::Write)?;
            Ok((ready, file))
        });
        match made {
            Ok((ready, file)) => log.segment_ready(ready, file),
            Err(error) => {
                log.segment_failed();
                return Err(error);
            }
        }
    }
    while let Some(file) = log.next_closable() {
        disk.close(file);
    }
    Ok(())
}

fn append(log: &mut Log, bytes: &[u8]) -> u64 {
    let lsn = log.appended().0.0 + 1;
    log.append(head(lsn), |body| body.extend_from_slice(bytes)).0
}
