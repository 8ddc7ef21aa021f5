//! How a manifest lies on disk: an rkyv archive with its version outside.

use super::manifest::{FlushMark, Group, Manifest, range_of};
use super::{FileEntry, FileNumber, Run};
use gristmill_base::ids::{SlotId, Ssn, Term};
use rkyv::{Archive, Deserialize, Serialize};

/// Version of the archive.
const VERSION: u32 = 1;

#[derive(Archive, Serialize, Deserialize)]
struct StoredFile {
    number: u64,
    bytes: u64,
    from: Vec<u8>,
    to: Vec<u8>,
    rows: u64,
    tombstones: u64,
    range_tombstones: u64,
    tombstones_since: u64,
    /// Value file, bytes pointed at.
    values: Vec<(u64, u64)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredGroup {
    number: u16,
    /// Slot, term and ssn of its flush mark.
    slots: Vec<(u16, u32, u64)>,
    flushes: u64,
    /// By tier, by run, newest first.
    tiers: Vec<Vec<Vec<StoredFile>>>,
    last: Vec<StoredFile>,
    /// Value file, bytes.
    values: Vec<(u64, u64)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredManifest {
    next_job: u64,
    groups: Vec<StoredGroup>,
}

fn stored_file(file: &FileEntry) -> StoredFile {
    StoredFile {
        number: file.number.0,
        bytes: file.bytes,
        from: file.range.from.clone(),
        to: file.range.to.clone(),
        rows: file.rows,
        tombstones: file.tombstones,
        range_tombstones: file.range_tombstones,
        tombstones_since: file.tombstones_since,
        values: file.values.iter().map(|(file, bytes)| (file.0, *bytes)).collect(),
    }
}

fn file(stored: &StoredFile) -> FileEntry {
    FileEntry {
        number: FileNumber(stored.number),
        bytes: stored.bytes,
        range: range_of(&stored.from, &stored.to),
        rows: stored.rows,
        tombstones: stored.tombstones,
        range_tombstones: stored.range_tombstones,
        tombstones_since: stored.tombstones_since,
        values: stored.values.iter().map(|(file, bytes)| (FileNumber(*file), *bytes)).collect(),
    }
}

fn stored_run(run: &Run) -> Vec<StoredFile> {
    run.files.iter().map(stored_file).collect()
}

fn run(stored: &[StoredFile]) -> Run {
    Run { files: stored.iter().map(file).collect() }
}

fn stored_group(number: u16, group: &Group) -> StoredGroup {
    StoredGroup {
        number,
        slots: group.slots.iter().map(|(slot, mark)| (slot.0, mark.term.0, mark.ssn.0)).collect(),
        flushes: group.flushes,
        tiers: group.tiers.iter().map(|runs| runs.iter().map(stored_run).collect()).collect(),
        last: stored_run(&group.last),
        values: group.values.iter().map(|(file, bytes)| (file.0, *bytes)).collect(),
    }
}

fn group(stored: &StoredGroup) -> Group {
    let mark = |term, ssn| FlushMark { term: Term(term), ssn: Ssn(ssn) };
    Group {
        slots: stored.slots.iter().map(|(slot, term, ssn)| (SlotId(*slot), mark(*term, *ssn))).collect(),
        flushes: stored.flushes,
        tiers: stored.tiers.iter().map(|runs| runs.iter().map(|files| run(files)).collect()).collect(),
        last: run(&stored.last),
        values: stored.values.iter().map(|(file, bytes)| (FileNumber(*file), *bytes)).collect(),
    }
}

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let groups = manifest.groups.iter().map(|(number, group)| stored_group(*number, group)).collect();
    let stored = StoredManifest { next_job: manifest.next_job(), groups };
    let mut out = VERSION.to_le_bytes().to_vec();
    out.resize(16, 0); // The archive starts aligned.
    out.extend_from_slice(&rkyv::to_bytes::<rkyv::rancor::Error>(&stored).expect("numbers in memory can be archived"));
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, String> {
    let head = bytes.first_chunk::<4>().ok_or("it is empty")?;
    let version = u32::from_le_bytes(*head);
    if version != VERSION {
        return Err(format!("version {version}; this program reads version {VERSION}"));
    }
    let mut aligned = rkyv::util::AlignedVec::<16>::new();
    aligned.extend_from_slice(bytes.get(16..).unwrap_or_default());
    let stored =
        rkyv::from_bytes::<StoredManifest, rkyv::rancor::Error>(&aligned).map_err(|error| error.to_string())?;
    let groups = stored.groups.iter().map(|stored| (stored.number, group(stored))).collect();
    Manifest::restored(stored.next_job, groups)
}
