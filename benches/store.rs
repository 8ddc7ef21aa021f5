//! What the store costs a core: lookups of cached blocks, loading a block, cursors, flush and merge. In memory, without a
//! device.

use gristmill_base::ids::{ShardId, SlotId, Ssn, TableId, Term};
use gristmill_benches::{Numbers, Report, timed};
use gristmill_state::store::{
    Access, Blocks, Compression, Content, Cursor, Direction, FileKind, FileNumber, FileOptions, Flush, FlushMark,
    FlushRows, FlushStep, KeyRange, Lookup, Manifest, Memory, Merge, MergeStep, Part, Piece, RowKey, Run, Stop,
    Version, View, Wanted, plan,
};
use std::collections::BTreeMap;
use std::process::ExitCode;

const ROUNDS: usize = 5;
const DIRECTORY: u128 = 1;
const GROUP: u16 = 0;
const SLOT: SlotId = SlotId(0);
const TABLE: TableId = TableId(1);
/// Rows of the state.
const ROWS: u64 = 400_000;
/// Rows of one flush.
const FLUSHED: u64 = 100_000;
/// Bytes of a value, half of which repeat.
const VALUE: usize = 100;
const GETS: usize = 200_000;
const LOADS: usize = 2_000;
const STEP: usize = 256 << 10;

/// Files in memory.
#[derive(Default)]
struct Disk(BTreeMap<(FileNumber, FileKind), Vec<u8>>);

impl Disk {
    fn write(&mut self, piece: Piece) {
        self.0.entry((piece.file, piece.kind)).or_default().extend_from_slice(&piece.bytes);
    }

    fn read(&self, wanted: Wanted) -> &[u8] {
        let kind = if wanted.part == Part::Value { FileKind::Values } else { FileKind::Sorted };
        let file = self.0.get(&(wanted.file, kind)).expect("a file that is named is there");
        &file[wanted.offset as usize..][..wanted.bytes]
    }
}

struct Bench {
    disk: Disk,
    manifest: Manifest,
    numbers: Numbers,
    ssn: u64,
}

fn grain(n: u64) -> Vec<u8> {
    RowKey::Grain(SLOT, TABLE, format!("grain-{n:010}").into_bytes().into()).encode()
}

impl Bench {
    fn new() -> Self {
        let manifest = Manifest::new(ShardId(0), 0, [(GROUP, SLOT)]);
        Self { disk: Disk::default(), manifest, numbers: Numbers(7), ssn: 0 }
    }

    fn memory(&mut self, rows: impl Iterator<Item = u64>) -> Memory {
        let mut memory = Memory::default();
        for n in rows {
            self.ssn += 1;
            let mut value = vec![7; VALUE];
            for chunk in value[..VALUE / 2].chunks_mut(8) {
                chunk.copy_from_slice(&self.numbers.draw().to_le_bytes()[..chunk.len()]);
            }
            memory.put(grain(n), Version { ssn: Ssn(self.ssn), content: Content::Inline(value) });
        }
        memory
    }

    fn flush(&mut self, memory: &Memory) {
        self.flush_as(memory.into(), FileOptions::TOP);
    }

    fn flush_as(&mut self, rows: FlushRows, options: FileOptions) {
        let mut flush = Flush::new(DIRECTORY, GROUP, self.manifest.begin_job(), options, rows);
        let built = loop {
            match flush.step(STEP) {
                FlushStep::Write(piece) => self.disk.write(piece),
                FlushStep::Pause => {}
                FlushStep::Done(built) => break built,
            }
        };
        let marks = [(SLOT, FlushMark { term: Term(1), ssn: Ssn(self.ssn) })].into();
        self.manifest.groups.get_mut(&GROUP).expect("there is one group").flushed(&built, &marks);
    }

    /// Makes the merge that is due; gives the bytes of its inputs.
    fn merge(&mut self) -> Option<u64> {
        let plan = plan(GROUP, &self.manifest.groups[&GROUP])?;
        let bytes = plan.inputs.iter().map(Run::bytes).sum();
        let mut merge = Merge::new(DIRECTORY, self.manifest.begin_job(), &plan);
        let built = loop {
            match merge.step(STEP).expect("nothing is damaged") {
                MergeStep::Read(wanted) => merge.fill(wanted, self.disk.read(wanted)).expect("nothing is damaged"),
                MergeStep::Write(piece) => self.disk.write(piece),
                MergeStep::Pause => {}
                MergeStep::Done(built) => break built,
            }
        };
        for (file, kind) in self.manifest.groups.get_mut(&GROUP).expect("there is one group").merged(&plan, &built) {
            self.disk.0.remove(&(file, kind));
        }
        Some(bytes)
    }

    fn view(&self) -> View {
        self.manifest.groups[&GROUP].view(self.ssn)
    }

    fn get(&self, view: &View, blocks: &mut Blocks, n: u64) -> bool {
        let mut lookup = Lookup::new(grain(n));
        drive(&self.disk, blocks, |blocks| lookup.step(&[], view, blocks)).row.is_some()
    }
}

fn drive<T>(disk: &Disk, blocks: &mut Blocks, mut step: impl FnMut(&mut Blocks) -> Result<T, Stop>) -> T {
    loop {
        match step(blocks) {
            Ok(done) => return done,
            Err(Stop::Miss(wanted)) => {
                blocks.fill(wanted, disk.read(wanted), Access::Point).expect("nothing is damaged");
            }
            Err(Stop::Pause) => {}
            Err(Stop::Damage(damage)) => panic!("{damage}"),
        }
    }
}

fn reads(bench: &mut Bench, view: &View, report: &mut Report, what: &str) {
    let mut warm = Blocks::new(DIRECTORY, usize::MAX / 2);
    for (id, from) in [("there", 0), ("absent", ROWS)] {
        let wanted: Vec<u64> = (0..GETS).map(|_| from + bench.numbers.draw() % ROWS).collect();
        let gets = |blocks: &mut Blocks| wanted.iter().filter(|n| bench.get(view, blocks, **n)).count();
        gets(&mut warm);
        let (nanos, found) = timed(|| gets(&mut warm));
        assert_eq!(found > 0, from == 0, "grains from {ROWS} on are absent");
        report.row(&format!("get, {id}, cached, {what}"), "ns").round(nanos / GETS as f64);
    }
    let wanted: Vec<u64> = (0..LOADS).map(|_| bench.numbers.draw() % ROWS).collect();
    // The smallest cache holds the index and loads nearly every data block anew.
    let mut small = Blocks::new(DIRECTORY, 1 << 20);
    let gets = |blocks: &mut Blocks| wanted.iter().filter(|n| bench.get(view, blocks, **n)).count();
    gets(&mut small);
    let (nanos, _) = timed(|| gets(&mut small));
    report.row(&format!("get, there, cache of 1 MiB, {what}"), "ns").round(nanos / LOADS as f64);
    let (nanos, rows) = timed(|| {
        let mut cursor = Cursor::new(KeyRange::of_grains(SLOT, TABLE), Direction::Forward);
        let mut rows = 0_u64;
        while drive(&bench.disk, &mut warm, |blocks| cursor.next(&[], view, blocks)).is_some() {
            rows += 1;
        }
        rows
    });
    assert_eq!(rows, ROWS, "every row is walked once");
    report.row(&format!("cursor, a row, cached, {what}"), "ns").round(nanos / rows as f64);
}

/// How the last level could be laid out: what a row takes, and what a get costs a core that must load its block.
fn layouts(report: &mut Report) {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        for kib in [4, 8, 16, 32] {
            let mut bench = Bench::new();
            let memory = bench.memory(0..ROWS);
            let options = FileOptions { compression, block_bytes: kib << 10, ..FileOptions::LAST };
            let plain = memory.bytes() as f64;
            let rows = FlushRows::from(&memory);
            let (written, ()) = timed(|| bench.flush_as(rows, options));
            let view = bench.view();
            let bytes: u64 = bench.manifest.groups[&GROUP].files().map(|file| file.bytes).sum();
            let id = format!("{compression:?}, blocks of {kib} KiB");
            report.row(&format!("{id}: written"), "MB/s").round(plain * 1e3 / written);
            report.row(&format!("{id}: a row of {} B", VALUE + 16), "B").round(bytes as f64 / ROWS as f64);
            let wanted: Vec<u64> = (0..LOADS).map(|_| bench.numbers.draw() % ROWS).collect();
            let mut small = Blocks::new(DIRECTORY, 1 << 20);
            let gets = |blocks: &mut Blocks| wanted.iter().filter(|n| bench.get(&view, blocks, **n)).count();
            gets(&mut small);
            let (nanos, _) = timed(|| gets(&mut small));
            report.row(&format!("{id}: get, cache of 1 MiB"), "ns").round(nanos / LOADS as f64);
        }
    }
}

fn merge(bench: &mut Bench, report: &mut Report, id: &str) {
    let rows: u64 = bench.manifest.groups[&GROUP].files().map(|file| file.rows).sum();
    let (nanos, bytes) = timed(|| bench.merge());
    let bytes = bytes.expect("a merge is due");
    report.row(&format!("{id}, bytes of inputs"), "MB/s").round(bytes as f64 * 1e3 / nanos);
    report.row(&format!("{id}, a row"), "ns").round(nanos / rows as f64);
}

fn main() -> std::io::Result<ExitCode> {
    let mut report = Report::new("store");
    for _ in 0..ROUNDS {
        let mut bench = Bench::new();
        for part in 0..ROWS / FLUSHED {
            let memory = bench.memory(part * FLUSHED..(part + 1) * FLUSHED);
            let bytes = memory.bytes() as f64;
            let (nanos, ()) = timed(|| bench.flush(&memory));
            report.row("flush", "MB/s").round(bytes * 1e3 / nanos);
        }
        merge(&mut bench, &mut report, "merge of 4 runs of the first tier into an empty last level");
        let view = bench.view();
        reads(&mut bench, &view, &mut report, "last level alone");
        for _ in 0..3 {
            let some: Vec<u64> = (0..FLUSHED / 10).map(|_| bench.numbers.draw() % ROWS).collect();
            let memory = bench.memory(some.into_iter());
            bench.flush(&memory);
        }
        let view = bench.view();
        reads(&mut bench, &view, &mut report, "last level and 3 runs");
        let some: Vec<u64> = (0..FLUSHED).map(|_| bench.numbers.draw() % ROWS).collect();
        let memory = bench.memory(some.into_iter());
        bench.flush(&memory);
        merge(&mut bench, &mut report, "merge of 4 runs and the last level");
        layouts(&mut report);
    }
    report.finish()
}
