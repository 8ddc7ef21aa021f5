//! Files in memory, and what drives the state machines of the store over them.

use gristmill_base::ids::{MapId, SlotId, Ssn, TableId};
use gristmill_state::store::{
    Access, Answer, Blocks, Content, Cursor, Damage, Direction, FileEntry, FileKind, FileNumber, FileOptions,
    FileStream, FileWriter, KeyRange, Lookup, Memory, Part, Piece, RangeTombstone, RowKey, Run, Stop, Summary,
    Tombstones, Version, View, Wanted,
};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Identity of the tests' data directory.
pub(crate) const DIRECTORY: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

/// The device.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) files: BTreeMap<(FileNumber, FileKind), Vec<u8>>,
    pub(crate) written: u64,
    pub(crate) reads: Cell<u64>,
}

impl Disk {
    pub(crate) fn write(&mut self, piece: Piece) {
        assert!(piece.offset.is_multiple_of(4_096) && piece.bytes.len().is_multiple_of(4_096));
        let file = self.files.entry((piece.file, piece.kind)).or_default();
        assert_eq!(file.len() as u64, piece.offset, "pieces come in order");
        file.extend_from_slice(&piece.bytes);
        self.written += piece.bytes.len() as u64;
    }

    /// As the driver reads: whole blocks of the device, of which the wanted bytes are cut.
    pub(crate) fn read(&self, wanted: Wanted) -> Vec<u8> {
        self.reads.set(self.reads.get() + 1);
        let kind = if wanted.part == Part::Value { FileKind::Values } else { FileKind::Sorted };
        let file = self.files.get(&(wanted.file, kind)).map_or(&[][..], Vec::as_slice);
        let (offset, bytes) = wanted.device_range();
        let from = (offset as usize).min(file.len());
        wanted.slice_of(&file[from..(from + bytes).min(file.len())]).to_vec()
    }
}

/// Writes one file.
pub(crate) fn write_file(
    disk: &mut Disk,
    number: u64,
    options: FileOptions,
    rows: &BTreeMap<Vec<u8>, Version>,
    tombstones: &Tombstones,
) -> Summary {
    let mut writer = FileWriter::new(DIRECTORY, 3, FileNumber(number), options);
    for (key, version) in rows {
        writer.add(key, version);
        while let Some(piece) = writer.output() {
            disk.write(piece);
        }
    }
    let (piece, summary) = writer.finish(tombstones);
    disk.write(piece);
    summary
}

/// Rows with their keys, in the order of a walk.
pub(crate) type Rows = Vec<(Vec<u8>, Version)>;

/// All rows of a file, as a stream brings them.
pub(crate) fn stream_all(disk: &Disk, file: FileNumber, length: u64) -> Result<(Rows, Tombstones), Damage> {
    let mut stream = FileStream::new(DIRECTORY, file, length);
    let mut rows = Vec::new();
    loop {
        match stream.peek() {
            Ok(Some(key)) => {
                let key = key.to_vec();
                rows.push((key, stream.version()));
                stream.advance();
            }
            Ok(None) => return Ok((rows, stream.tombstones().expect("the end was seen").clone())),
            Err(Stop::Miss(wanted)) => stream.fill(wanted, &disk.read(wanted))?,
            Err(Stop::Damage(damage)) => return Err(damage),
            Err(Stop::Pause) => unreachable!("a stream does not pause"),
        }
    }
}

/// Drives something that may lack blocks.
pub(crate) fn drive<T>(
    disk: &Disk,
    blocks: &mut Blocks,
    mut step: impl FnMut(&mut Blocks) -> Result<T, Stop>,
) -> Result<T, Damage> {
    for _ in 0..1_000_000 {
        match step(blocks) {
            Ok(done) => return Ok(done),
            Err(Stop::Miss(wanted)) => blocks.fill(wanted, &disk.read(wanted), Access::Point)?,
            Err(Stop::Pause) => {}
            Err(Stop::Damage(damage)) => return Err(damage),
        }
    }
    panic!("it never ends")
}

pub(crate) fn look_up(
    disk: &Disk,
    blocks: &mut Blocks,
    memory: &[&Memory],
    view: &View,
    key: &[u8],
) -> Result<Answer, Damage> {
    let mut lookup = Lookup::new(key.to_vec());
    drive(disk, blocks, |blocks| lookup.step(memory, view, blocks))
}

pub(crate) fn walk(
    disk: &Disk,
    blocks: &mut Blocks,
    memory: &[&Memory],
    view: &View,
    range: &KeyRange,
    direction: Direction,
) -> Result<Rows, Damage> {
    let mut cursor = Cursor::new(range.clone(), direction);
    let mut rows = Vec::new();
    while let Some(row) = drive(disk, blocks, |blocks| cursor.next(memory, view, blocks))? {
        rows.push(row);
    }
    Ok(rows)
}

pub(crate) fn run_of(summaries: &[Summary]) -> Run {
    let run = Run { files: summaries.iter().map(|summary| FileEntry::new(summary, 0)).collect() };
    assert!(run.is_sorted());
    run
}

/// What rows there should be.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<Vec<u8>, Version>,
}

impl Model {
    pub(crate) fn put(&mut self, key: Vec<u8>, version: Version) {
        if version.is_deleted() {
            self.rows.remove(&key);
        } else {
            self.rows.insert(key, version);
        }
    }

    pub(crate) fn delete_range(&mut self, range: &KeyRange) {
        self.rows.retain(|key, _| !range.holds(key));
    }

    pub(crate) fn walk(&self, range: &KeyRange, direction: Direction) -> Rows {
        let within = self.rows.iter().filter(|(key, _)| range.holds(key));
        let rows = within.map(|(key, version)| (key.clone(), version.clone()));
        if direction == Direction::Forward { rows.collect() } else { rows.rev().collect() }
    }
}

pub(crate) fn inline(ssn: u64, bytes: &[u8]) -> Version {
    Version { ssn: Ssn(ssn), content: Content::Inline(bytes.to_vec()) }
}

pub(crate) fn deleted(ssn: u64) -> Version {
    Version { ssn: Ssn(ssn), content: Content::Deleted }
}

pub(crate) fn grain(slot: u16, name: u32) -> Vec<u8> {
    RowKey::Grain(SlotId(slot), TableId(1), name.to_string().into_bytes().into()).encode()
}

pub(crate) fn entry(slot: u16, grain: u32, name: u32) -> Vec<u8> {
    let (grain, name) = (grain.to_string().into_bytes(), format!("{name:05}").into_bytes());
    RowKey::Entry(SlotId(slot), TableId(1), grain.into(), MapId(0), name.into()).encode()
}

pub(crate) fn range_tombstone(range: KeyRange, ssn: u64) -> RangeTombstone {
    RangeTombstone { range, ssn: Ssn(ssn) }
}

/// Files so small that a few rows make several.
pub(crate) const SMALL: FileOptions = FileOptions { block_bytes: 200, file_bytes: 2_000, ..FileOptions::MIDDLE };
