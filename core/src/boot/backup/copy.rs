//! Taking a backup, in steps: the logs first, because a running server holds them only for a while, then checkpoints with
//! the lanes that they name, then the store; at last the manifest.
//!
//! Nothing that an earlier backup names is changed: files only grow, and new ones get their names when they are whole and
//! durable. So a backup that is broken off at any point leaves the former ones as they were, and is begun again.

use super::plan::{Copy, Known, READ_BYTES, There, blocks, crc_of};
use super::source::length_of;
use super::{BackupError, BackupFile, BackupManifest, BackupPiece, BackupSource, prepare, source, target};
use crate::boot::damage;
use crate::boot::layout::shard_dir;
use crate::catalog::Catalog;
use crate::jobs::{SLOTS_DIR, checkpoint_name, lane_path};
use crate::shard::{CheckpointMark, checkpoint_bytes, unseal_checkpoint};
use crate::store_files::MISSING;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::checksum::crc32c_append;
use gristmill_base::codec::DecodeError;
use gristmill_base::env::{DiskErrorKind, DiskOp, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneKey, ShardId, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_io::identity::IDENTITY_FILE;
use gristmill_io::log::extract;
use gristmill_io::root::RootFile;
use gristmill_state::record::{AppendRecord, Appended, RecordKind};
use gristmill_state::slot::Slot;
use gristmill_state::store::{FileKind, file_path};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Folder of the segments of all logs.
const LOG_DIR: &str = "log";
/// End of the name of a file that is not whole.
const PART: &str = ".part";
/// Bytes that a step copies.
const STEP_BYTES: u64 = 4 << 20;

enum Task {
    Copy(Copy),
    /// A checkpoint, and the lanes that it names.
    Slot(SlotId, CheckpointMark),
    /// Files with large batches, once all that names places in them is known.
    Large,
}

/// A file that is being copied.
struct Open {
    copy: Copy,
    from: FileId,
    to: FileId,
    at: u64,
    crc: u32,
    /// Whether it gets its name at the end.
    is_fresh: bool,
}

/// What a backup is, once it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Number of the backup in its folder.
    pub number: u32,
    /// Files of it.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that were copied; the rest was there.
    pub copied: u64,
}

/// See the module. The source and the target are the same disks in every step.
pub struct Backup {
    manifest: BackupManifest,
    known: Known,
    /// Topics that the catalog holds as deleted.
    deleted: BTreeSet<u32>,
    tasks: VecDeque<Task>,
    /// Files with large batches, and how much of each checkpoints and records name.
    large: BTreeMap<(LaneKey, u32), u64>,
    /// Tasks of logs that are left.
    logs: usize,
    open: Option<Open>,
    folders: BTreeSet<String>,
    planned: u64,
    done: u64,
    now_micros: u64,
}

impl Backup {
    /// Begins one. Blocking.
    ///
    /// # Errors
    /// The folder holds something else; or damage, or what a disk says.
    pub fn begin(
        from: &mut Files<'_>,
        to: &mut Files<'_>,
        what: &BackupSource,
        now_micros: u64,
    ) -> Result<Self, BackupError> {
        let directory = what.identity.directory;
        prepare(to, directory)?;
        let numbers = BackupManifest::numbers(to).map_err(BackupError::Target)?;
        let mut known = Known::default();
        for number in &numbers {
            let manifest = BackupManifest::load(to, *number)?;
            if manifest.boot > what.placement.boot {
                return Err(BackupError::Refused(format!(
                    "backup {number} there was taken in start {} of the data directory, which is in start {} now: it is \
                     an older copy of itself, whose files may differ; take another folder",
                    manifest.boot, what.placement.boot
                )));
            }
            known.add(&manifest);
        }
        let manifest = BackupManifest {
            number: numbers.last().map_or(1, |last| last + 1),
            directory,
            taken_micros: now_micros,
            boot: what.placement.boot,
            cut: what.cut,
            logs: what.shards.iter().map(|shard| (shard.root.log_from, shard.to)).collect(),
            copied: 0,
            files: Vec::new(),
        };
        let mut backup = Self {
            manifest,
            known,
            deleted: deleted_topics(what)?,
            tasks: VecDeque::new(),
            large: BTreeMap::new(),
            logs: 0,
            open: None,
            folders: BTreeSet::new(),
            planned: 0,
            done: 0,
            now_micros,
        };
        backup.own_files(to, what)?;
        backup.plan(from, to, what)?;
        Ok(backup)
    }

    /// Whether the logs are copied: a running server may use their segments again.
    #[must_use]
    pub fn logs_are_copied(&self) -> bool {
        self.logs == 0
    }

    /// Files that are done, bytes that are copied, and bytes that are known to be copied.
    #[must_use]
    pub fn progress(&self) -> (u64, u64, u64) {
        (self.manifest.files.len() as u64, self.done, self.planned.max(self.done))
    }

    /// Writes what only this backup names: the small files, in the format of a data directory.
    fn own_files(&mut self, to: &mut Files<'_>, what: &BackupSource) -> Result<(), BackupError> {
        let folder = BackupManifest::folder(self.manifest.number);
        to.make_dirs(&folder).map_err(BackupError::Target)?;
        what.identity.create_in(to, &folder).map_err(target)?;
        self.name_own(to, &folder, IDENTITY_FILE)?;
        let placement = what.placement.clone().elsewhere().to_bytes();
        self.two_copies(to, &folder, "", "placement", &placement)?;
        if let Some(catalog) = &what.catalog {
            self.two_copies(to, &folder, "", "catalog", catalog)?;
        }
        for (shard, cut) in (0..).map(ShardId).zip(&what.shards) {
            let dir = shard_dir(what.placement.layout, shard);
            to.make_dirs(&format!("{folder}/{dir}")).map_err(BackupError::Target)?;
            self.two_copies(to, &folder, &dir, "root", &cut.root.to_bytes())?;
        }
        Ok(())
    }

    fn two_copies(
        &mut self,
        to: &mut Files<'_>,
        folder: &str,
        dir: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), BackupError> {
        let slash = if dir.is_empty() { "" } else { "/" };
        let (mut file, _) =
            RootFile::load(to, &format!("{folder}{slash}{dir}"), name, self.manifest.directory).map_err(target)?;
        file.store(to, bytes).map_err(BackupError::Target)?;
        self.name_own(to, folder, &format!("{dir}{slash}{name}.a"))?;
        self.name_own(to, folder, &format!("{dir}{slash}{name}.b"))
    }

    fn name_own(&mut self, to: &mut Files<'_>, folder: &str, path: &str) -> Result<(), BackupError> {
        let file = format!("{folder}/{path}");
        let bytes = length_of(to, &file)?;
        let crc = crc_of(to, &file, bytes)?;
        self.manifest.copied += bytes;
        let pieces = vec![BackupPiece { file, bytes, crc }];
        self.manifest.files.push(BackupFile { path: path.to_owned(), bytes, pieces });
        Ok(())
    }

    /// Finds out what is to be copied, and writes the cut ends of the logs.
    fn plan(&mut self, from: &mut Files<'_>, to: &mut Files<'_>, what: &BackupSource) -> Result<(), BackupError> {
        let folder = BackupManifest::folder(self.manifest.number);
        let owners = what.placement.owners(what.identity.slot_count)?;
        for (shard, cut) in (0..).map(ShardId).zip(&what.shards) {
            let log = what.log(shard);
            let mut wrong = None;
            let parts = extract(from, &log, cut.root.log_from, cut.to, &mut |head, body| {
                // What a checkpoint holds is named by it, or by nothing any more.
                let is_known = cut.root.marks.get(&head.slot).is_some_and(|mark| head.ssn <= mark.ssn);
                if head.kind == RecordKind::AppendPlace as u8 && !is_known && owners.of(head.slot) == shard {
                    wrong = self.note_place(body).err().or(wrong.take());
                }
            })?;
            if let Some(error) = wrong {
                return Err(damage(&log.dir, &format!("a record's body is malformed: {error}")).into());
            }
            for part in parts {
                let file = format!(
                    "{LOG_DIR}/{}-{:03}-{:010}-{:016x}.seg",
                    what.placement.layout, shard.0, part.number.0, part.epoch
                );
                let mut tail = None;
                if let Some(bytes) = &part.tail {
                    let name = format!("{:03}-{}.tail", shard.0, part.name);
                    let path = format!("{folder}/{name}");
                    to.remove_if_there(&path).map_err(BackupError::Target)?;
                    to.create_file(&folder, &name, bytes).map_err(BackupError::Target)?;
                    let (bytes, crc) = (bytes.len() as u64, crc32c_append(0, bytes));
                    self.manifest.copied += bytes;
                    tail = Some(BackupPiece { file: path, bytes, crc });
                }
                self.add(Copy { path: part.path, file, bytes: part.whole, length: part.bytes, tail });
                self.logs += 1;
            }
        }
        for (slot, mark) in what.shards.iter().flat_map(|shard| &shard.root.marks) {
            self.tasks.push_back(Task::Slot(*slot, *mark));
        }
        self.tasks.push_back(Task::Large);
        let manifests = what.shards.iter().filter_map(|shard| shard.root.manifest.as_ref());
        // A file that a moved slot shares with the part it has left is named twice.
        let mut store: BTreeMap<String, u64> = BTreeMap::new();
        for (group, files) in manifests.flat_map(|manifest| &manifest.groups) {
            let sorted = files.files().map(|file| (file_path(*group, file.number, FileKind::Sorted), file.bytes));
            let values = files.values.iter().map(|(file, bytes)| (file_path(*group, *file, FileKind::Values), *bytes));
            store.extend(sorted.chain(values));
        }
        for (path, bytes) in store {
            self.add(Copy { file: path.clone(), path, bytes, length: bytes, tail: None });
        }
        Ok(())
    }

    fn add(&mut self, copy: Copy) {
        self.planned += copy.bytes;
        self.tasks.push_back(Task::Copy(copy));
    }

    /// Whether everything is copied: [`Self::finish`] makes it a backup.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        self.open.is_none() && self.tasks.is_empty()
    }

    /// Copies a few mebibytes more. Blocking.
    ///
    /// # Errors
    /// Damage, or what a disk says. What was copied stays, for the next attempt.
    pub fn step(&mut self, from: &mut Files<'_>, to: &mut Files<'_>) -> Result<(), BackupError> {
        let until = self.done + STEP_BYTES;
        while self.done < until {
            if self.open.is_some() {
                self.go_on(from, to)?;
                continue;
            }
            match self.tasks.pop_front() {
                Some(Task::Copy(copy)) => self.open(from, to, copy)?,
                Some(Task::Slot(slot, mark)) => {
                    self.slot(from, slot, mark)?;
                    return Ok(());
                }
                Some(Task::Large) => self.add_large(),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes note of the place that a record of the log names.
    fn note_place(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let record = AppendRecord::decode(body, true)?;
        if let Appended::Place(placed) = record.appended
            && !self.deleted.contains(&record.lane.topic.0)
            && !planted::is(Bug::PlacesNotCopied)
        {
            self.needs_large((record.lane, placed.place.file), placed.place.position + placed.bytes);
        }
        Ok(())
    }

    fn needs_large(&mut self, file: (LaneKey, u32), end: u64) {
        let known = self.large.entry(file).or_default();
        *known = end.max(*known);
    }

    /// All places are known: the files are to be copied as far as these go.
    fn add_large(&mut self) {
        for ((lane, file), end) in std::mem::take(&mut self.large) {
            self.add_lane_file(lane, file, end);
        }
    }

    fn add_lane_file(&mut self, lane: LaneKey, file: u32, end: u64) {
        let path = lane_path(lane, file);
        let bytes = blocks(end);
        self.planned += bytes;
        self.tasks.push_front(Task::Copy(Copy { file: path.clone(), path, bytes, length: bytes, tail: None }));
    }

    /// Looks into a checkpoint for the lanes that it names.
    fn slot(&mut self, from: &mut Files<'_>, slot: SlotId, mark: CheckpointMark) -> Result<(), BackupError> {
        let path = format!("{SLOTS_DIR}/{}", checkpoint_name(slot, mark.number));
        let bytes = from.read_declared(&path, checkpoint_bytes).map_err(source)?;
        let bytes = bytes.ok_or_else(|| damage(&path, &MISSING))?;
        let dump = unseal_checkpoint(self.manifest.directory, slot, mark.number, &bytes);
        let loaded = dump
            .and_then(|dump| Slot::load(slot, dump, self.now_micros).map_err(|error| error.to_string()))
            .map_err(|what| damage(&path, &what))?;
        let mut ends: BTreeMap<(LaneKey, u32), u64> = BTreeMap::new();
        // A start may have removed the files of deleted topics before any checkpoint holds the deletion.
        for lane in loaded.lanes.values() {
            if self.deleted.contains(&lane.key.topic.0) {
                continue;
            }
            for extent in lane.extents() {
                let end = extent.place.position + extent.bytes;
                if extent.place.is_large() {
                    // Records behind the checkpoint may name more of the same file.
                    self.needs_large((lane.key, extent.place.file), end);
                    continue;
                }
                let known = ends.entry((lane.key, extent.place.file)).or_default();
                *known = end.max(*known);
            }
        }
        for ((lane, file), end) in ends {
            self.add_lane_file(lane, file, end);
        }
        let length = blocks(bytes.len() as u64);
        self.planned += length;
        self.tasks.push_front(Task::Copy(Copy { file: path.clone(), path, bytes: length, length, tail: None }));
        Ok(())
    }

    fn open(&mut self, from: &mut Files<'_>, to: &mut Files<'_>, copy: Copy) -> Result<(), BackupError> {
        let folder = copy.file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        if self.folders.insert(folder.clone()) {
            to.make_dirs(&folder).map_err(BackupError::Target)?;
        }
        let (at, crc) = match self.known.there(to, &copy.file, copy.bytes)? {
            There::Whole(crc) => {
                self.planned -= copy.bytes;
                self.copied(copy, crc);
                return Ok(());
            }
            There::Prefix(bytes, crc) => (bytes, crc),
            There::Nothing => (0, 0),
        };
        self.planned -= at;
        let source_file = match from.open(&copy.path, OpenMode::Read) {
            Err(error) if error.kind == DiskErrorKind::NotFound => return Err(damage(&copy.path, &MISSING).into()),
            opened => opened.map_err(source)?,
        };
        let is_fresh = at == 0;
        let opened = if is_fresh {
            let part = format!("{}{PART}", copy.file);
            to.remove_if_there(&part).and_then(|()| to.open(&part, OpenMode::Create))
        } else {
            to.open(&copy.file, OpenMode::Write)
        };
        match opened {
            Ok(target_file) => {
                self.open = Some(Open { copy, from: source_file, to: target_file, at, crc, is_fresh });
                Ok(())
            }
            Err(error) => {
                from.close(source_file);
                Err(BackupError::Target(error))
            }
        }
    }

    /// Copies the next piece of the open file.
    fn go_on(&mut self, from: &mut Files<'_>, to: &mut Files<'_>) -> Result<(), BackupError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let before = open.at;
        let copied = open.copy_on(from, to);
        self.done += open.at - before;
        self.manifest.copied += open.at - before;
        if copied.is_ok() && open.at < open.copy.bytes {
            self.open = Some(open);
            return Ok(());
        }
        from.close(open.from);
        to.close(open.to);
        copied?;
        if open.is_fresh {
            let (from, to_name) = (format!("{}{PART}", open.copy.file), open.copy.file.clone());
            to.run(DiskOp::Rename { from, to: to_name }).map_err(BackupError::Target)?;
        }
        self.copied(open.copy, open.crc);
        Ok(())
    }

    /// Takes note of a file that is there.
    fn copied(&mut self, copy: Copy, crc: u32) {
        if copy.file.starts_with(LOG_DIR) {
            self.logs -= 1;
        }
        let pieces = [BackupPiece { file: copy.file, bytes: copy.bytes, crc }].into_iter().chain(copy.tail).collect();
        self.manifest.files.push(BackupFile { path: copy.path, bytes: copy.length, pieces });
    }

    /// Makes a backup of what was copied, durably: its manifest. If a server held the files, it must have been asked after
    /// the last step whether it still does. Blocking.
    ///
    /// # Panics
    /// Not everything is copied.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(self, to: &mut Files<'_>) -> Result<BackupReport, BackupError> {
        assert!(self.is_copied(), "a backup names what is there");
        for folder in &self.folders {
            to.flush_dir(folder).map_err(BackupError::Target)?;
        }
        self.manifest.store(to).map_err(BackupError::Target)?;
        let manifest = &self.manifest;
        Ok(BackupReport {
            number: manifest.number,
            files: manifest.files.len() as u64,
            bytes: manifest.bytes(),
            copied: manifest.copied,
        })
    }
}

impl Open {
    fn copy_on(&mut self, from: &mut Files<'_>, to: &mut Files<'_>) -> Result<(), BackupError> {
        if self.at < self.copy.bytes {
            let wanted = (self.copy.bytes - self.at).min(READ_BYTES) as usize;
            let (buf, found) = from.read(self.from, self.at, wanted).map_err(source)?;
            if found.min(wanted) < wanted {
                let what = format!("it ends at byte {}, but {} are needed", self.at + found as u64, self.copy.bytes);
                return Err(damage(&self.copy.path, &what).into());
            }
            let bytes = &buf.as_slice()[..wanted];
            self.crc = crc32c_append(self.crc, bytes);
            to.write(self.to, self.at, AlignedBuf::copy_of(bytes)).map_err(BackupError::Target)?;
            self.at += wanted as u64;
        }
        if self.at == self.copy.bytes {
            to.flush(self.to).map_err(BackupError::Target)?;
        }
        Ok(())
    }
}

/// Topics that the catalog of a source holds as deleted.
fn deleted_topics(what: &BackupSource) -> Result<BTreeSet<u32>, BackupError> {
    let Some(bytes) = &what.catalog else { return Ok(BTreeSet::new()) };
    let catalog = Catalog::from_bytes(bytes).map_err(|error| damage("catalog", &error))?;
    Ok(catalog.deleted.iter().flat_map(|deleted| &deleted.topics).copied().collect())
}
