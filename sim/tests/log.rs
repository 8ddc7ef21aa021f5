//! Crash points of the real log: everything reported durable comes back byte for byte at its place, nothing is
//! invented, and what one start has shown every later one shows.

use gristmill_base::env::{Disk, DiskError, Now, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId, SlotId, Ssn, Term};
use gristmill_base::limits::{BLOCK_BYTES, LOG_IDLE_MARK_NANOS, LOG_SEGMENT_BYTES_MIN};
use gristmill_base::planted::{Bug, plant};
use gristmill_io::log::format::BATCH_MAGIC;
use gristmill_io::log::{Log, LogConfig, LogError, RecordHead, flush_all, resume, run_segment_job, scan};
use gristmill_sim::clock::SimClock;
use gristmill_sim::crash_points::{Budget, Failure, Subject, Tally, Verdict, enumerate};
use gristmill_sim::disk::{CrashPlan, SimDisk};
use gristmill_sim::rng::SimRng;
use std::rc::Rc;

/// What the outside knows of a log.
#[derive(Clone)]
struct Audit {
    /// Bodies by LSN from 1: the history that holds.
    bodies: Vec<Rc<[u8]>>,
    /// Records up to here must come back.
    durable: u64,
    /// First record that no checkpoint covers.
    from: u64,
}

impl Audit {
    fn new() -> Self {
        Self { bodies: Vec::new(), durable: 0, from: 1 }
    }

    /// Holds what a scan found against the promises.
    fn check(&self, found: &[(u64, RecordHead, Vec<u8>)]) -> Result<(), Verdict> {
        let next = self.from + found.len() as u64;
        let wrong = |said: String| Err(Verdict::Wrong(said));
        if next <= self.durable {
            return wrong(format!("records {next} to {} were durable and are lost", self.durable));
        }
        if next > self.bodies.len() as u64 + 1 {
            return wrong(format!("records up to {} were found, {} were appended", next - 1, self.bodies.len()));
        }
        for (index, (lsn, head, body)) in found.iter().enumerate() {
            let wanted = self.from + index as u64;
            if (*lsn, *head) != (wanted, head_of(wanted)) || **body != *self.bodies[wanted as usize - 1] {
                return wrong(format!("record {wanted} came back as another, {lsn} with {head:?}"));
            }
        }
        Ok(())
    }

    /// What was found has been shown: it holds from now on, and nothing behind it.
    fn shown(&mut self, next: u64) {
        self.bodies.truncate(next as usize - 1);
        self.durable = next - 1;
    }
}

fn head_of(lsn: u64) -> RecordHead {
    RecordHead { kind: lsn as u8, slot: SlotId((lsn % 7) as u16), term: Term(1), ssn: Ssn(lsn) }
}

fn config() -> LogConfig {
    let mut config = LogConfig::new(7, ShardId(0)).with_segment_bytes(LOG_SEGMENT_BYTES_MIN);
    config.write_durable_bytes = 8 << 10;
    config
}

/// Starts the log of a disk, and holds what it shows against the promises.
fn start(disk: &mut SimDisk, audit: &mut Audit, rng: &mut SimRng) -> Result<Log, Failed> {
    let config = config();
    let mut files = Files::new(disk);
    files.make_dirs(&config.dir)?;
    let mut found = Vec::new();
    let mut each = |lsn: Lsn, head: &RecordHead, body: &[u8]| found.push((lsn.0, *head, body.to_vec()));
    let end = scan(&mut files, &config, Lsn(audit.from), &mut each)?;
    audit.check(&found).map_err(Failed)?;
    flush_all(&mut files, &config)?;
    audit.shown(end.next.0);
    Ok(resume(&mut files, end, config, rng)?)
}

/// Why a life ended.
struct Failed(Verdict);

impl From<DiskError> for Failed {
    fn from(error: DiskError) -> Self {
        Self(error.into())
    }
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Disk(error) => error.into(),
            other => Self(Verdict::Wrong(other.to_string())),
        }
    }
}

/// Lets the log and its disk do what they can in `nanos` nanoseconds.
fn drive(log: &mut Log, disk: &mut SimDisk, audit: &mut Audit, nanos: u64) -> Result<(), DiskError> {
    let clock = disk.clock();
    let until = clock.nanos() + nanos;
    loop {
        let (mut out, mut done) = (Vec::new(), Vec::new());
        log.drive(Now { monotonic_nanos: clock.nanos(), wall_micros: 0 }, clock.nanos() / 1_000, &mut out);
        out.into_iter().for_each(|(ticket, op)| disk.submit(ticket, op));
        disk.poll(&mut done);
        if done.is_empty() {
            match disk.next_due().or(log.next_deadline()) {
                Some(due) if due <= until => clock.advance_to(due),
                _ => {
                    clock.advance_to(until);
                    return Ok(());
                }
            }
        }
        for completion in done {
            log.complete(completion.ticket, completion.result);
        }
        audit.durable = log.durable().0.0;
        if let Some(error) = log.failed() {
            return Err(error.clone());
        }
    }
}

/// Makes the segments that the log asks for, beside what it has in flight.
fn supply(log: &mut Log, disk: &mut SimDisk, rng: &mut SimRng) -> Result<(), DiskError> {
    if disk.is_down() {
        return Ok(());
    }
    let mut background = disk.handle();
    while let Some(job) = log.needs_segment(rng) {
        let ready = run_segment_job(&mut Files::new(&mut background), &job)?;
        let file = disk.open(&ready.path, OpenMode::Write)?;
        log.segment_ready(ready, file);
    }
    while let Some(file) = log.next_closable() {
        disk.close(file);
    }
    Ok(())
}

/// One life of a shard's log. Ends after its rounds, or when the machine goes down.
fn live(disk: &mut SimDisk, audit: &mut Audit, rounds: u64, rng: &mut SimRng) -> Result<(), Failed> {
    let mut log = start(disk, audit, rng)?;
    for round in 0..rounds {
        for _ in 0..rng.below(4) {
            let size = if rng.below(6) == 0 { rng.below(14_000) } else { rng.below(300) } as usize;
            if log.room(size) {
                let body: Rc<[u8]> = vec![rng.below(256) as u8; size].into();
                let lsn = log.appended().0.next();
                audit.bodies.push(Rc::clone(&body));
                log.append(head_of(lsn.0), |bytes| bytes.extend_from_slice(&body));
            }
        }
        drive(&mut log, disk, audit, rng.below(300_000))?;
        if rng.below(8) == 0 {
            drive(&mut log, disk, audit, 2 * LOG_IDLE_MARK_NANOS)?;
        }
        if round % 8 == 7 {
            audit.from = audit.from.max(log.durable().0.0.saturating_sub(rng.below(12)));
            log.free_before(Lsn(audit.from));
        }
        supply(&mut log, disk, rng)?;
    }
    // The process ends when the kernel has nothing of it in flight.
    let mut done = Vec::new();
    while disk.next_due().is_some() {
        disk.wait(&mut done);
    }
    Ok(())
}

fn enumerate_log(seed: u64, rounds: u64, budget: Budget) -> Result<Tally, Box<Failure>> {
    let mut work = |mut disk: SimDisk| {
        let mut audit = Audit::new();
        match live(&mut disk, &mut audit, rounds, &mut SimRng::new(seed)) {
            Ok(()) | Err(Failed(Verdict::Crashed)) => audit,
            Err(Failed(Verdict::Wrong(said))) => panic!("without any crash: {said}"),
        }
    };
    // The epochs of segments are random: every start has its own.
    let mut open = |mut disk: SimDisk, audit: &mut Audit| {
        let mut rng = SimRng::new(seed ^ disk.ops() << 32);
        live(&mut disk, audit, 2, &mut rng).map_err(|failed| failed.0)
    };
    enumerate(seed, budget, &mut Subject { work: &mut work, open: &mut open })
}

#[test]
fn every_crash_point_of_a_short_log() {
    let budget = Budget { random_images: 8, stride: 1, recovery_crashes: 2 };
    let tally = enumerate_log(1, 20, budget).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally:?}");
    assert!(tally.points > 70 && tally.images > 600, "{tally:?}");
}

#[test]
fn crash_points_of_logs_that_roll_and_use_segments_again() {
    for seed in 2..5 {
        let budget = Budget { random_images: 8, stride: 3, recovery_crashes: 1 };
        let tally = enumerate_log(seed, 150, budget).unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed}: {tally:?}");
        assert!(tally.points > 80, "{tally:?}");
    }
}

#[test]
#[ignore = "takes minutes: every crash point of long logs, every operation of many recoveries"]
fn every_crash_point_of_long_logs() {
    for seed in 100..110 {
        let budget = Budget { random_images: 8, stride: 1, recovery_crashes: 3 };
        let tally = enumerate_log(seed, 250, budget).unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed}: {tally:?}");
    }
}

#[test]
fn the_workload_rolls_marks_and_uses_segments_again() {
    let disk = SimDisk::new(2, SimClock::new());
    disk.record(true);
    let mut audit = Audit::new();
    assert!(live(&mut disk.handle(), &mut audit, 90, &mut SimRng::new(2)).is_ok());
    let creates = disk.trace().iter().filter(|entry| entry.kind == "create").count();
    let headers = disk.trace().iter().filter(|entry| entry.kind == "write" && entry.offset == 0).count();
    let durable = disk.trace().iter().filter(|entry| entry.kind == "write-durable").count();
    assert!(headers > creates + 5, "{headers} headers for {creates} files: no segment was used again");
    assert!(durable > 0, "no batch was large enough to be one operation");
    assert!(audit.from > 1 && audit.durable > 50);
}

#[test]
fn a_skipped_directory_sync_is_found() {
    plant(Some(Bug::SkippedDirectorySync));
    let found = enumerate_log(1, 6, Budget { random_images: 4, stride: 1, recovery_crashes: 0 });
    plant(None);
    let failure = found.expect_err("the names of segments were never durable");
    assert!(failure.said.contains("lost") || failure.said.contains("damage"), "{failure}");
}

/// Turns over stored bits of a log that stopped idle, one at a time, and starts it. How many starts showed less than
/// was promised, and how many refused.
fn rot_the_log(seed: u64) -> (u32, u32) {
    let disk = SimDisk::new(seed, SimClock::new());
    let (mut audit, mut rng) = (Audit::new(), SimRng::new(seed));
    let mut handle = disk.handle();
    let Ok(mut log) = start(&mut handle, &mut audit, &mut rng) else { panic!("a new disk has no faults") };
    for fill in 0..10_u8 {
        let body: Rc<[u8]> = vec![fill; 200].into();
        log.append(head_of(u64::from(fill) + 1), |bytes| bytes.extend_from_slice(&body));
        audit.bodies.push(body);
        drive(&mut log, &mut handle, &mut audit, 5_000_000).unwrap_or_else(|error| panic!("{error}"));
    }
    // An idle log marks what it has made durable, so that no batch looks like a torn tail.
    drive(&mut log, &mut handle, &mut audit, 10 * LOG_IDLE_MARK_NANOS).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(audit.durable, 10);
    let (mut silent, mut refused) = (0, 0);
    disk.power_off();
    for (path, batch) in batches_of(&disk) {
        for byte in [0, 9, 30, 71, 75, 150, 280] {
            let image = disk.fork();
            image.crash(CrashPlan::KeepAll);
            let mut up = image.restart();
            assert!(up.rot_at(&path, batch + byte, 3));
            match start(&mut up, &mut audit.clone(), &mut rng) {
                Ok(_) => {}
                Err(Failed(Verdict::Wrong(said))) if said.contains("damage in the log") => refused += 1,
                Err(_) => silent += 1,
            }
        }
    }
    (silent, refused)
}

/// Where the batches of a log start.
fn batches_of(disk: &SimDisk) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for path in disk.paths() {
        let bytes = disk.peek(&path).unwrap_or_default();
        let starts = (0..bytes.len()).step_by(BLOCK_BYTES).filter(|start| bytes[*start..].starts_with(&BATCH_MAGIC));
        found.extend(starts.map(|start| (path.clone(), start as u64)));
    }
    found
}

#[test]
fn rot_in_the_log_is_refused_and_cutting_there_is_found() {
    let (silent, refused) = rot_the_log(3);
    assert_eq!(silent, 0, "damage was taken for the end of the log");
    assert_eq!(refused, 70, "each of seven bytes of ten batches is covered");
    plant(Some(Bug::TruncateAtFirstBadChecksum));
    let (silent, _) = rot_the_log(3);
    plant(None);
    assert!(silent > 30, "{silent} of 77 starts showed less than was promised");
}
