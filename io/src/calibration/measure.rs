//! Measuring durable writes as a shard's log makes them: on its ring, past the page cache, into a file that was filled
//! with zeros before.

use crate::clock::SystemClock;
use crate::mesh::Waker;
use crate::ring::{RingSettings, ShardRing};
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Completion, Disk, DiskError, DiskOp, DiskOutcome, FileId, OpenMode, Park, Ticket};
use gristmill_base::files::Files;
use hdrhistogram::Histogram;
use std::io;
use std::path::Path;

/// Length of the measured file, and of the one that is written beside it: a log segment.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of one write of the other writer: a piece of a checkpoint.
const OTHER_BYTES: usize = 256 << 10;
/// Writes of the other writer between two of its flushes.
const OTHER_WRITES: u64 = 16;
/// The measured file, removed at the end, also by the next run if this one was killed.
const FILE: &str = "calibration.tmp";
/// The file of the other writer.
const OTHER_FILE: &str = "calibration-other.tmp";
/// Ticket of the other writer; others are places.
const OTHER_TICKET: Ticket = Ticket(1 << 32);
/// Longest time that is told apart, nanoseconds.
const NANOS_MAX: u64 = 60_000_000_000;

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A write, and when it has completed a flush (`fdatasync`).
    WriteThenFlush,
    /// One write that is durable when it completes (`RWF_DSYNC`).
    WriteDurable,
}

impl How {
    /// As it is printed; API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WriteThenFlush => "write+fdatasync",
            Self::WriteDurable => "write O_DSYNC",
        }
    }
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The operation.
    pub how: How,
    /// Bytes of a write.
    pub bytes: usize,
    /// Writes in flight at a time. A log has one.
    pub depth: usize,
    /// Least time between the starts of two writes, nanoseconds; 0 as fast as it goes.
    pub spacing_nanos: u64,
    /// Whether something else writes to the same disk, as a checkpoint does.
    pub beside_writer: bool,
}

/// What one round of a cell brought.
#[derive(Clone, Debug)]
pub struct Round {
    /// Nanoseconds of each write, from its submission until it was seen durable.
    pub nanos: Histogram<u64>,
    /// How long the round took, nanoseconds.
    pub elapsed_nanos: u64,
}

/// Everything that is worth measuring, in the order of the table.
#[must_use]
pub fn cells() -> Vec<Cell> {
    const KIB: usize = 1 << 10;
    let hows = [How::WriteThenFlush, How::WriteDurable];
    let plain = |how, bytes| Cell { how, bytes, depth: 1, spacing_nanos: 0, beside_writer: false };
    let mut cells = Vec::new();
    for kib in [4, 16, 64, 128, 256, 512, 1024] {
        cells.extend(hows.map(|how| plain(how, kib * KIB)));
    }
    for kib in [4, 64, 256, 1024] {
        cells.extend(hows.map(|how| Cell { beside_writer: true, ..plain(how, kib * KIB) }));
    }
    for depth in [2, 4] {
        for kib in [4, 64, 256] {
            cells.extend(hows.map(|how| Cell { depth, ..plain(how, kib * KIB) }));
        }
    }
    for spacing_nanos in [100_000, 250_000, 500_000, 1_000_000, 2_000_000] {
        cells.push(Cell { spacing_nanos, ..plain(How::WriteThenFlush, 4 * KIB) });
    }
    cells
}

/// Measures every cell of `cells` over the data directory `root`, `rounds` times in turn, for so many nanoseconds each;
/// `each` is told of every round with the place of its cell. Blocking; the directory must be locked against other
/// processes. The files that it makes are gone afterwards.
///
/// # Errors
/// No ring, or what the disk says.
pub fn measure(
    root: &Path,
    cells: &[Cell],
    rounds: usize,
    cell_nanos: u64,
    each: &mut dyn FnMut(usize, Round),
) -> io::Result<()> {
    let ring = |split_durable_bytes| {
        let settings = RingSettings { split_durable_bytes, ..RingSettings::default() };
        ShardRing::new(&settings, root, Vec::new(), Waker::new()?).map_err(|error| io::Error::other(error.to_string()))
    };
    // As the log's ring is set: everything as write and flush, or nothing.
    let (mut split, mut whole) = (ring(usize::MAX)?, ring(0)?);
    let prepared = [FILE, OTHER_FILE].into_iter().try_for_each(|name| prepare(&mut split, name));
    let measured = prepared.and_then(|()| {
        for _ in 0..rounds {
            for (at, cell) in cells.iter().enumerate() {
                let ring = if cell.how == How::WriteDurable { &mut whole } else { &mut split };
                each(at, Run::new(ring, *cell)?.run(ring, cell_nanos)?);
            }
        }
        Ok(())
    });
    let mut files = Files::new(&mut split);
    for name in [FILE, OTHER_FILE] {
        let removed = files.remove(name);
        if measured.is_ok() {
            removed.map_err(failed)?;
        }
    }
    measured.map_err(failed)
}

fn failed(error: DiskError) -> io::Error {
    io::Error::other(error.to_string())
}

/// Makes a file of zeros that are on disk, so that no write has to find space first.
fn prepare(ring: &mut ShardRing, name: &str) -> Result<(), DiskError> {
    let mut files = Files::new(ring);
    // One that an earlier run could not remove.
    let _ = files.remove(name);
    let file = files.open(name, OpenMode::Create)?;
    let mut buf = AlignedBuf::zeroed(1 << 20);
    let mut written = Ok(());
    for offset in (0..FILE_BYTES).step_by(buf.len()) {
        match files.write(file, offset, buf) {
            Ok(back) => buf = back,
            Err(error) => {
                written = Err(error);
                break;
            }
        }
    }
    let flushed = written.and_then(|()| files.flush(file)).and_then(|()| files.flush_dir(""));
    files.close(file);
    flushed
}

/// One round of one cell.
struct Run {
    cell: Cell,
    file: FileId,
    other: Option<Other>,
    /// Where the next write goes.
    offset: u64,
    /// By place: when it was submitted, or the buffer that waits for its next write.
    places: Vec<Result<u64, AlignedBuf>>,
    /// When a write may start again.
    next_start: u64,
    nanos: Histogram<u64>,
}

/// The other writer.
struct Other {
    file: FileId,
    writes: u64,
}

impl Run {
    fn new(ring: &mut ShardRing, cell: Cell) -> Result<Self, DiskError> {
        let file = ring.open(FILE, OpenMode::Write)?;
        let other = if cell.beside_writer {
            Some(Other { file: ring.open(OTHER_FILE, OpenMode::Write)?, writes: 0 })
        } else {
            None
        };
        let mut buf = AlignedBuf::zeroed(cell.bytes);
        buf.as_mut_slice().iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
        let places = (0..cell.depth).map(|_| Err(AlignedBuf::copy_of(buf.as_slice()))).collect();
        let nanos = Histogram::new_with_bounds(100, NANOS_MAX, 3).expect("the bounds are valid");
        Ok(Self { cell, file, other, offset: 0, places, next_start: 0, nanos })
    }

    fn run(mut self, ring: &mut ShardRing, nanos: u64) -> Result<Round, DiskError> {
        let start = SystemClock::monotonic_nanos();
        let end = start + nanos;
        let mut done: Vec<Completion> = Vec::new();
        let mut busy = 0;
        if let Some(other) = &self.other {
            let file = other.file;
            busy += 1;
            ring.submit(
                OTHER_TICKET,
                DiskOp::Write { file, offset: 0, buf: AlignedBuf::zeroed(OTHER_BYTES), bytes: OTHER_BYTES },
            );
        }
        let mut failed = None;
        loop {
            let now = SystemClock::monotonic_nanos();
            let going = now < end && failed.is_none();
            if going {
                busy += self.start(ring, now);
            } else if busy == 0 {
                break;
            }
            // With nothing to start before then, it rests until the next start is due.
            let rest = if going && self.places.iter().any(Result::is_err) { self.next_start } else { u64::MAX };
            Disk::poll(ring, &mut done);
            if done.is_empty() {
                ring.park(rest);
                Disk::poll(ring, &mut done);
            }
            for completion in done.drain(..) {
                busy -= 1;
                match self.complete(ring, completion, going) {
                    Ok(more) => busy += more,
                    Err(error) => failed = Some(error),
                }
            }
        }
        let elapsed_nanos = SystemClock::monotonic_nanos() - start;
        ring.close(self.file);
        if let Some(other) = self.other {
            ring.close(other.file);
        }
        failed.map_or(Ok(Round { nanos: self.nanos, elapsed_nanos }), Err)
    }

    /// Starts what may start; gives how much it was.
    fn start(&mut self, ring: &mut ShardRing, now: u64) -> usize {
        let mut started = 0;
        for at in 0..self.places.len() {
            if now < self.next_start || self.places[at].is_ok() {
                continue;
            }
            let Err(buf) = std::mem::replace(&mut self.places[at], Ok(SystemClock::monotonic_nanos())) else {
                continue;
            };
            if self.offset + self.cell.bytes as u64 > FILE_BYTES {
                self.offset = 0;
            }
            let (file, offset, bytes) = (self.file, self.offset, self.cell.bytes);
            ring.submit(Ticket(at as u64), DiskOp::WriteDurable { file, offset, buf, bytes });
            self.offset += bytes as u64;
            self.next_start = now + self.cell.spacing_nanos;
            started += 1;
        }
        started
    }

    /// Takes a completion in; gives how many operations were submitted for it.
    fn complete(&mut self, ring: &mut ShardRing, completion: Completion, going: bool) -> Result<usize, DiskError> {
        let outcome = completion.result?;
        if completion.ticket == OTHER_TICKET {
            let other = self.other.as_mut().expect("it is the other writer's ticket");
            if !going {
                return Ok(0);
            }
            let file = other.file;
            other.writes += 1;
            let op = if other.writes.is_multiple_of(OTHER_WRITES) {
                DiskOp::Flush { file }
            } else {
                let offset = other.writes * OTHER_BYTES as u64 % FILE_BYTES;
                DiskOp::Write { file, offset, buf: AlignedBuf::zeroed(OTHER_BYTES), bytes: OTHER_BYTES }
            };
            ring.submit(OTHER_TICKET, op);
            return Ok(1);
        }
        let DiskOutcome::Written { buf } = outcome else { unreachable!("a durable write answered {outcome:?}") };
        let place = &mut self.places[completion.ticket.0 as usize];
        if let Ok(start) = std::mem::replace(place, Err(buf)) {
            self.nanos.saturating_record(SystemClock::monotonic_nanos() - start);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_cell_is_measured_and_leaves_nothing() {
        let root = std::env::temp_dir().join(format!("gristmill-measure-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let plain = Cell { how: How::WriteThenFlush, bytes: 4_096, depth: 1, spacing_nanos: 0, beside_writer: false };
        let cells = [
            plain,
            Cell { how: How::WriteDurable, bytes: 65_536, depth: 2, ..plain },
            Cell { beside_writer: true, ..plain },
            Cell { spacing_nanos: 10_000_000, ..plain },
        ];
        let mut rounds = Vec::new();
        measure(&root, &cells, 1, 60_000_000, &mut |at, round| rounds.push((at, round))).unwrap();
        assert_eq!(rounds.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(rounds.iter().all(|(_, round)| !round.nanos.is_empty() && round.elapsed_nanos >= 60_000_000));
        assert!(rounds[3].1.nanos.len() <= 7, "{} writes in 60 ms, 10 ms apart", rounds[3].1.nanos.len());
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        std::fs::remove_dir_all(&root).unwrap();
        assert!(measure(&root, &cells, 1, 1, &mut |_, _| {}).is_err(), "the folder is gone");
    }

    #[test]
    fn cells_differ() {
        let mut all = cells();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
