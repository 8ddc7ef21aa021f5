//! Reading everything of a data directory that no server runs on, to say what of it is damaged: every range, by file,
//! position and what it held. Nothing is changed.
//!
//! First each file for itself, going on behind damage. Then all is recovered in memory as a start does it, as far as damage
//! lets it, which finds what only the files together tell: records that are missing, and a log that lost what another one
//! knows of.

mod store;

use super::layout::{log_config, shard_dir};
use super::sweep::{kept, unnamed};
use super::{BootConfig, BootError, Placement, crosscheck, damage, load_identity, missing, older, read_log};
use crate::catalog::Catalog;
use crate::jobs::{ChunkError, SLOTS_DIR, checkpoint_name, chunk_words, lane_path, load_chunk};
use crate::session_secret::{SECRET_FILE, SessionSecret};
use crate::shard::{CheckpointMark, RootContent, checkpoint_bytes, unseal_checkpoint};
use crate::store_files::MISSING;
use gristmill_base::env::{Disk, DiskErrorKind, Now};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneKey, Lsn, ShardId, SlotId};
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_base::placement::Owners;
use gristmill_io::calibration::Calibration;
use gristmill_io::identity::{IDENTITY_FILE, Identity};
use gristmill_io::log::verify as verify_log;
use gristmill_io::root::{Looked, RootFile};
use gristmill_state::lane::{Extent, Place};
use gristmill_state::slot::Slot;
use std::collections::{BTreeMap, BTreeSet};

/// A damaged range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The file, relative to the data directory.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// The byte behind the last one; `from` where only the beginning is known.
    pub to: u64,
    /// What it held.
    pub held: String,
    /// What was found instead.
    pub what: String,
}

/// What was read, and what of it is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that were read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records of the logs that a start would apply.
    pub records: u64,
    /// Bytes of torn tails of logs, which a start cuts; nobody was told of what they held.
    pub torn_bytes: u64,
    /// Files that nothing names any more, which a start removes; no damage.
    pub unnamed: Vec<String>,
    /// In the order of reading.
    pub damaged: Vec<Damaged>,
    /// What no single file tells: acknowledged data that is lost, or records that do not fit.
    pub lost: Option<String>,
}

/// Hears how far it is: files and bytes so far.
pub type Verifying<'a> = dyn FnMut(u64, u64) + 'a;

/// See the module. Blocking; `disk` may be any disk of the directory, which must be locked against servers.
///
/// # Errors
/// The folder is no data directory, or of a newer version; or what the disk says. Damage is no error, unless nothing can
/// be read for it: of the identity, the placement or the catalog neither copy is there.
pub fn verify(
    disk: &mut dyn Disk,
    config: &BootConfig,
    now: Now,
    progress: &mut Verifying<'_>,
) -> Result<Verified, BootError> {
    let mut files = Files::new(disk);
    let Some(identity) = load_identity(&mut files)? else {
        missing::identity(&mut files)?;
        return Err(BootError::Config(format!("this is no data directory: it has no file {IDENTITY_FILE}")));
    };
    let (verified, deleted) = (Verified::default(), BTreeSet::new());
    let mut reader = Reader { files, identity, config, now, has_catalog: false, deleted, verified, progress };
    let placement = reader.two_copies("", "placement", "which shards there are")?;
    let placement = Placement::from_bytes(&placement.ok_or_else(|| damage("placement", &"it is missing"))?)?;
    reader.plain_copies()?;
    let calibration = Calibration::look(&mut reader.files)?;
    reader.looked(calibration, "figures of the disk");
    let catalog = reader.two_copies("", "catalog", "apps with their numbers")?;
    reader.has_catalog = catalog.is_some();
    let catalog = match catalog {
        Some(bytes) => Catalog::from_bytes(&bytes).map_err(|error| damage("catalog", &error))?,
        None => Catalog::default(),
    };
    reader.deleted = catalog.deleted.iter().flat_map(|deleted| &deleted.topics).copied().collect();
    let owners = placement.owners(reader.identity.slot_count)?;
    for shard in (0..placement.shard_count).map(ShardId) {
        reader.shard((&placement, &owners), shard)?;
    }
    // Of one that cannot be read nobody can tell how old it is.
    let catalog_file = RootFile::load(&mut reader.files, "", "catalog", reader.identity.directory);
    reader.together((&placement, &owners), &catalog, catalog_file.map_or(u64::MAX, |(file, _)| file.sequence()))?;
    Ok(reader.verified)
}

struct Reader<'a, 'b> {
    files: Files<'a>,
    identity: Identity,
    config: &'a BootConfig,
    now: Now,
    has_catalog: bool,
    /// Topics that the catalog holds as deleted.
    deleted: BTreeSet<u32>,
    verified: Verified,
    progress: &'a mut Verifying<'b>,
}

impl Reader<'_, '_> {
    /// Takes note of a file that was read.
    fn read(&mut self, bytes: u64) {
        self.verified.files += 1;
        self.verified.bytes += bytes;
        (self.progress)(self.verified.files, self.verified.bytes);
    }

    fn damaged(&mut self, file: &str, range: (u64, u64), held: impl Into<String>, what: impl Into<String>) {
        let (from, to) = range;
        self.verified.damaged.push(Damaged { file: file.to_owned(), from, to, held: held.into(), what: what.into() });
    }

    /// The files that hold two copies in themselves.
    fn plain_copies(&mut self) -> Result<(), BootError> {
        let block = BLOCK_BYTES as u64;
        for at in Identity::damaged_copies(&mut self.files)? {
            self.damaged(IDENTITY_FILE, (at, at + block), "a copy of the identity", "it cannot be read; the other can");
        }
        // A directory of an older version has none; a start makes it.
        for at in SessionSecret::damaged_copies(&mut self.files)? {
            self.damaged(SECRET_FILE, (at, at + block), "a copy of the secret of sessions", "it cannot be read");
        }
        self.read(2 * block);
        self.read(2 * block);
        Ok(())
    }

    /// A file of two copies: its content, and what is wrong with either.
    fn two_copies(&mut self, dir: &str, name: &str, held: &str) -> Result<Option<Vec<u8>>, BootError> {
        let (bytes, damaged) = RootFile::look(&mut self.files, dir, name, self.identity.directory)?;
        if bytes.is_none() && !damaged.is_empty() && dir.is_empty() {
            // What depends on it cannot be looked at.
            let whats: Vec<String> = damaged.into_iter().map(|(_, what)| what).collect();
            return Err(damage(name, &whats.join("; ")));
        }
        Ok(self.looked((bytes, damaged), held))
    }

    /// Takes note of a file of two copies.
    fn looked(&mut self, (bytes, damaged): Looked, held: &str) -> Option<Vec<u8>> {
        for (file, what) in damaged {
            self.damaged(&file, (0, 0), format!("a copy of {held}"), what);
        }
        let length = bytes.as_ref().map_or(0, Vec::len) as u64;
        self.read(length);
        self.read(length);
        bytes
    }

    /// Root, checkpoints, lanes and log of a shard.
    fn shard(&mut self, (placement, owners): (&Placement, &Owners), shard: ShardId) -> Result<(), BootError> {
        let dir = shard_dir(placement.layout, shard);
        let held = format!("the root of shard {shard}: which checkpoints count, and from where its log is read");
        let root = self.two_copies(&dir, "root", &held)?;
        let slots = self.identity.slot_count;
        let content = |bytes: Vec<u8>| RootContent::from_bytes(&bytes).and_then(|it| it.of(shard, slots, owners));
        let content = root.map(content).transpose();
        let content = match content {
            Ok(Some(content)) => Some(content),
            Ok(None) => {
                let what = "no copy is readable: nothing says which checkpoints count, and they are not looked at";
                self.damaged(&format!("{dir}/root"), (0, 0), held, what);
                None
            }
            Err(what) => {
                self.damaged(&format!("{dir}/root"), (0, 0), held, what);
                None
            }
        };
        for (slot, mark) in content.iter().flat_map(|content| &content.marks) {
            self.checkpoint(*slot, *mark)?;
        }
        for (number, group) in content.iter().filter_map(|content| content.manifest.as_ref()).flat_map(|it| &it.groups)
        {
            self.group(*number, group)?;
        }
        self.log(placement, shard, content.map(|content| content.log_from))
    }

    /// A checkpoint, and the lanes that it names.
    fn checkpoint(&mut self, slot: SlotId, mark: CheckpointMark) -> Result<(), BootError> {
        let path = format!("{SLOTS_DIR}/{}", checkpoint_name(slot, mark.number));
        let held = format!("what belongs to slot {slot} as a whole, up to its record {}", mark.ssn);
        let file = match self.files.read_declared(&path, checkpoint_bytes) {
            Ok(Some(file)) => file,
            Ok(None) => {
                self.damaged(&path, (0, 0), held, MISSING);
                return Ok(());
            }
            Err(error) if error.kind == DiskErrorKind::Io => {
                self.damaged(&path, (0, 0), held, error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = file.len() as u64;
        self.read(bytes);
        let loaded = unseal_checkpoint(self.identity.directory, slot, mark.number, &file)
            .and_then(|dump| Slot::load(slot, dump, self.now.wall_micros).map_err(|error| error.to_string()));
        let loaded = match loaded {
            Ok(loaded) if loaded.last_ssn() == mark.ssn => loaded,
            Ok(loaded) => {
                let what = format!("it ends at record {}, but the root says {}", loaded.last_ssn(), mark.ssn);
                self.damaged(&path, (0, bytes), held, what);
                return Ok(());
            }
            Err(what) => {
                self.damaged(&path, (0, bytes), held, what);
                return Ok(());
            }
        };
        // A start may have removed the files of deleted topics before any checkpoint holds the deletion.
        let lanes = loaded.lanes.values().filter(|lane| !self.deleted.contains(&lane.key.topic.0));
        for lane in lanes.collect::<Vec<_>>() {
            self.chunks(lane.key, lane.extents())?;
        }
        Ok(())
    }

    /// Chunks of a lane, file by file.
    fn chunks(&mut self, lane: LaneKey, extents: &[Extent]) -> Result<(), BootError> {
        let mut files: BTreeMap<u32, u64> = BTreeMap::new();
        for extent in extents {
            *files.entry(extent.place.file).or_default() += extent.bytes;
            match load_chunk(&mut self.files, lane, *extent) {
                Ok(_) => {}
                Err(ChunkError::Disk(error)) if error.kind != DiskErrorKind::Io => return Err(error.into()),
                Err(error) => {
                    let what = match error {
                        ChunkError::Disk(error) => error.to_string(),
                        ChunkError::Damaged(what) => what,
                    };
                    let Place { file, position } = extent.place;
                    let range = (position, position + extent.bytes);
                    self.damaged(&lane_path(lane, file), range, chunk_words(lane, *extent), what);
                }
            }
        }
        files.into_values().for_each(|bytes| self.read(bytes));
        Ok(())
    }

    fn log(&mut self, placement: &Placement, shard: ShardId, from: Option<Lsn>) -> Result<(), BootError> {
        let mut log = log_config(self.config, &self.identity, placement.layout, shard);
        log.reached = placement.reached(shard);
        let report = verify_log(&mut self.files, &log, from, &mut |_, _, _| {})?;
        self.verified.files += report.segments;
        self.verified.bytes += report.bytes;
        (self.progress)(self.verified.files, self.verified.bytes);
        self.verified.records += report.records;
        self.verified.torn_bytes += report.torn_bytes;
        for (file, at) in report.headers {
            let range = (at, at + BLOCK_BYTES as u64);
            self.damaged(&file, range, "a copy of the header of a log segment", "it cannot be read; the other can");
        }
        for range in report.damage {
            let held = format!("records {} to {} of the log of shard {shard}", range.first, range.last);
            self.damaged(&range.file, (range.from, range.to), held, range.what);
        }
        Ok(())
    }

    /// What a start would find out, short of changing anything.
    fn together(
        &mut self,
        (placement, owners): (&Placement, &Owners),
        catalog: &Catalog,
        catalog_sequence: u64,
    ) -> Result<(), BootError> {
        if let Err(error) = older::check_file("catalog", catalog_sequence, placement.catalog, None) {
            return self.lost(error);
        }
        let mut logs = Vec::new();
        for shard in (0..placement.shard_count).map(ShardId) {
            let placement = (placement, owners);
            match read_log(&mut self.files, self.config, &self.identity, placement, shard, catalog, self.now) {
                Ok(recovered) => logs.push(recovered),
                Err(error) => return self.lost(error),
            }
        }
        // Large batches that records name and no checkpoint does.
        for lane in logs.iter().flat_map(|recovered| recovered.slots.values()).flat_map(|slot| slot.lanes.values()) {
            if !self.deleted.contains(&lane.key.topic.0) {
                self.chunks(lane.key, &lane.placed().collect::<Vec<_>>())?;
            }
        }
        if !self.has_catalog
            && let Err(error) = missing::catalog(&logs)
        {
            return self.lost(error);
        }
        if let Err(error) = older::check_placement(placement, &logs) {
            return self.lost(error);
        }
        if let Err(error) = crosscheck::check(&logs, catalog, self.identity.slot_count) {
            return self.lost(error);
        }
        let roots: Vec<&RootContent> = logs.iter().map(|recovered| &recovered.content).collect();
        let kept = kept(logs.iter().flat_map(|recovered| recovered.slots.values()));
        match unnamed(&mut self.files, placement, &roots, (catalog, &kept)) {
            Ok(unnamed) => self.verified.unnamed = unnamed,
            Err(error) => return self.lost(error.into()),
        }
        Ok(())
    }

    /// An error that tells of the data is an answer, unless it tells of a file that is named already.
    fn lost(&mut self, error: BootError) -> Result<(), BootError> {
        let is_known = !self.verified.damaged.is_empty();
        match error {
            BootError::Disk(_) if is_known => Ok(()),
            BootError::Disk(_) | BootError::Config(_) => Err(error),
            BootError::Damage { .. } | BootError::LostData(_) | BootError::Log(_) => {
                let what = error.to_string();
                if !self.verified.damaged.iter().any(|range| what.contains(&range.file)) {
                    self.verified.lost = Some(what);
                }
                Ok(())
            }
        }
    }
}
