//! The log alone on the ring, fed as fast as it takes records.

use anyhow::{Context as _, anyhow};
use gristmill_base::env::{Clock, Disk, DiskError, OpenMode, Park};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId, SlotId, Ssn, Term};
use gristmill_io::background::{Background, BackgroundSettings, Pending};
use gristmill_io::clock::SystemClock;
use gristmill_io::log::{
    FLUSH_SPACING_NANOS_DEFAULT, Log, LogConfig, ReadySegment, RecordHead, WRITE_DURABLE_BYTES_DEFAULT, resume,
    run_segment_job, scan,
};
use gristmill_io::mesh::Waker;
use gristmill_io::posix::PosixDisk;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::{RingSettings, ShardRing};
use std::path::Path;

/// Bytes of a record's body.
const RECORD_BYTES: usize = 100;
/// Records wait up to so many bytes: a few batches.
const QUEUE_BYTES: usize = 2 << 20;

/// See the module.
pub(crate) struct RawLog {
    log: Log,
    ring: ShardRing,
    background: Background,
    waker: Waker,
    making: Option<Pending<Result<ReadySegment, DiskError>>>,
}

/// What one run has brought.
pub(crate) struct Ran {
    /// Bytes of durable batches a second, as they lie on the disk.
    pub(crate) bytes_per_second: f64,
    /// Bytes of a batch on average.
    pub(crate) mean_write: f64,
}

impl RawLog {
    /// A new log in the folder.
    pub(crate) fn open(root: &Path, segment_bytes: u64, cpus: Vec<usize>) -> anyhow::Result<Self> {
        let _ = std::fs::remove_dir_all(root);
        let mut config = LogConfig::new(1, ShardId(0)).with_segment_bytes(segment_bytes);
        config.flush_spacing_nanos = FLUSH_SPACING_NANOS_DEFAULT;
        std::fs::create_dir_all(root.join(&config.dir))?;
        let end = scan(&mut Files::new(&mut PosixDisk::new(root)), &config, Lsn(1), &mut |_, _, _| {});
        let end = end.map_err(|error| anyhow!("a new log: {error}"))?;
        let background = Background::start("bench-segments", BackgroundSettings::new(root.to_owned(), cpus))?;
        let waker = Waker::new()?;
        let ring = RingSettings { split_durable_bytes: WRITE_DURABLE_BYTES_DEFAULT - 1, ..RingSettings::default() };
        let mut ring = ShardRing::new(&ring, root, Vec::new(), waker.clone())?;
        let log = resume(&mut Files::new(&mut ring), end, config, &mut SystemRng::new());
        let log = log.map_err(|error| anyhow!("a new log: {error}"))?;
        Ok(Self { log, ring, background, waker, making: None })
    }

    /// Bytes of a batch from which on it is one durable write.
    pub(crate) fn write_durable_bytes(&self) -> usize {
        self.log.config().write_durable_bytes
    }

    /// Appends for so many seconds.
    pub(crate) fn run(&mut self, seconds: f64) -> anyhow::Result<Ran> {
        let begun = SystemClock::monotonic_nanos();
        let until = begun + (seconds * 1e9) as u64;
        let (mut bytes, mut writes, mut now) = (0, 0, begun);
        let mut done = Vec::new();
        while now < until {
            Disk::poll(&mut self.ring, &mut done);
            for completion in done.drain(..) {
                let before = self.log.waiting_bytes();
                if self.log.complete(completion.ticket, completion.result) {
                    bytes += (before - self.log.waiting_bytes()) as u64;
                    writes += 1;
                }
            }
            if let Some(error) = self.log.failed() {
                return Err(anyhow!("the log has failed: {error}"));
            }
            self.log.free_before(self.log.durable().0.next());
            self.make_segments()?;
            // The device gets the next batch before others are filled.
            self.drive();
            while self.log.waiting_bytes() < QUEUE_BYTES && self.log.room(RECORD_BYTES) {
                let head = RecordHead { kind: 1, slot: SlotId(0), term: Term(1), ssn: Ssn(1) };
                self.log.append(head, |body| body.resize(body.len() + RECORD_BYTES, 7));
            }
            self.drive();
            while let Some(file) = self.log.next_closable() {
                Disk::close(&mut self.ring, file);
            }
            self.ring.park(self.log.next_deadline().unwrap_or(u64::MAX).min(until));
            now = SystemClock::monotonic_nanos();
        }
        let nanos = (now - begun) as f64;
        Ok(Ran {
            bytes_per_second: bytes as f64 * 1e9 / nanos,
            mean_write: bytes as f64 / f64::max(writes as f64, 1.0),
        })
    }

    fn drive(&mut self) {
        let time = SystemClock.now();
        let mut out = Vec::new();
        self.log.drive(time, time.wall_micros, &mut out);
        for (ticket, op) in out {
            self.ring.submit(ticket, op);
        }
    }

    fn make_segments(&mut self) -> anyhow::Result<()> {
        if let Some(pending) = &mut self.making {
            let Some(made) = pending.poll() else { return Ok(()) };
            let made = made.map_err(|_| anyhow!("making a segment has panicked"))?;
            let made = made.map_err(|error| anyhow!("making a segment: {error}"))?;
            let file = self.ring.open(&made.path, OpenMode::Write).map_err(|error| anyhow!("{error}"))?;
            self.log.segment_ready(made, file);
            self.making = None;
        }
        if let Some(job) = self.log.needs_segment(&mut SystemRng::new()) {
            let make = move |disk: &mut dyn Disk| run_segment_job(&mut Files::new(disk), &job);
            self.making = Some(self.background.run(self.waker.clone(), make).context("the background is full")?);
        }
        Ok(())
    }
}
