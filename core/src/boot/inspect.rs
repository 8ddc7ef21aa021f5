//! A look at a data directory that no server runs on: what lies in it, how large it is, and how much of that is needed.
//! Nothing is changed.
//!
//! Without counting rows only roots, checkpoints and heads of files are read, so it is quick, and says nothing of damage elsewhere.

use super::layout::log_config;
use super::rows::GroupRows;
use super::sweep::{kept, unnamed};
use super::{BootConfig, BootError, Placement, damage, load_slot, missing, read_root, readable};
use crate::catalog::Catalog;
use crate::jobs::{LANES_DIR, SLOTS_DIR, checkpoint_name};
use crate::shard::RootContent;
use gristmill_base::env::{Disk, DiskError, Now, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId, TableId};
use gristmill_base::placement::Owners;
use gristmill_io::identity::{IDENTITY_FILE, Identity};
use gristmill_io::log::{SegmentFile, list_segments};
use gristmill_io::root::RootFile;
use gristmill_state::lane::Lane;
use gristmill_state::slot::Slot;
use gristmill_state::store::{Content, FileEntry, Group, Level, RowKey, Run, Sizes};
use std::collections::BTreeMap;

/// Some files together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSum {
    /// How many.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A sorted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedFile {
    /// Its slot group.
    pub group: u16,
    /// Where it is.
    pub level: Level,
    /// The run in the level, the newest first, from 0.
    pub run: usize,
    /// What the manifest says of it.
    pub entry: FileEntry,
}

/// Rows of a table that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectedTable {
    /// Grains with a value.
    pub grains: u64,
    /// Entries of maps.
    pub entries: u64,
    /// Bytes of keys, as they lie in files, and of values.
    pub bytes: u64,
}

/// A shard's files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InspectedShard {
    /// First record that a start reads.
    pub log_from: u64,
    /// Segments of the log.
    pub segments: Vec<SegmentFile>,
    /// Checkpoints of slots.
    pub checkpoints: FileSum,
    /// Files of the store.
    pub store: Sizes,
    /// The sorted ones, by group, the newest first.
    pub sorted: Vec<InspectedFile>,
}

/// What lies in a data directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspected {
    /// Its id.
    pub directory: u128,
    /// Slots.
    pub slots: u16,
    /// Starts so far.
    pub starts: u32,
    /// Set of shard folders in use.
    pub layout: u32,
    /// By number.
    pub shards: Vec<InspectedShard>,
    /// Files of lanes.
    pub lanes: FileSum,
    /// What checkpoints name of them.
    pub chunks: InspectedChunks,
    /// Files that nothing names any more, which a start removes.
    pub unnamed: Vec<String>,
    /// By name, `app/table`, if rows were counted.
    pub tables: Option<BTreeMap<String, InspectedTable>>,
    /// What waits, if rows were counted; what the log holds beyond checkpoints is not among it.
    pub waiting: Option<InspectedWaiting>,
}

/// Chunks of lanes that checkpoints name. What else lies in their files means nothing any more, or not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectedChunks {
    /// Bytes of all.
    pub bytes: u64,
    /// Lanes that a compaction has been through.
    pub compacted_lanes: u64,
    /// Bytes of the chunks that compactions have made.
    pub compacted_bytes: u64,
    /// Offsets from the starts of these lanes to the last event of such a chunk, those included that have no event any more.
    pub compacted_offsets: u64,
}

/// Rows of what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectedWaiting {
    /// Timers.
    pub timers: u64,
    /// Inputs of backlogs.
    pub backlog: u64,
    /// Messages to slots.
    pub messages: u64,
    /// Bytes of their keys, as they lie in files, and contents.
    pub bytes: u64,
}

impl InspectedChunks {
    fn add(&mut self, lane: &Lane) {
        let made = || lane.extents().iter().filter(|extent| extent.has_holes);
        self.bytes += lane.filed_bytes() + lane.placed().map(|extent| extent.bytes).sum::<u64>();
        self.compacted_bytes += made().map(|extent| extent.bytes).sum::<u64>();
        if let Some(last) = made().next_back() {
            self.compacted_lanes += 1;
            self.compacted_offsets += last.last.0 + 1 - lane.start.0;
        }
    }
}

impl FileSum {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl Inspected {
    /// Bytes of keys and values that are there, if rows were counted.
    #[must_use]
    pub fn live_bytes(&self) -> Option<u64> {
        let tables = self.tables.as_ref()?.values().map(|table| table.bytes).sum::<u64>();
        Some(tables + self.waiting.map_or(0, |waiting| waiting.bytes))
    }

    /// Bytes of all files of the store.
    #[must_use]
    pub fn store_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.store.bytes()).sum()
    }
}

/// See the module. Blocking; `disk` may be any disk of the directory, which must be locked against servers. With
/// `counts_rows` all files of the store are read.
///
/// # Errors
/// The folder is no data directory, or of a newer version, or what was looked at is damaged; or what the disk says.
pub fn inspect(disk: &mut dyn Disk, config: &BootConfig, counts_rows: bool) -> Result<Inspected, BootError> {
    let mut files = Files::new(disk);
    let Some(identity) = Identity::load(&mut files)? else {
        missing::identity(&mut files)?;
        return Err(BootError::Config(format!("this is no data directory: it has no file {IDENTITY_FILE}")));
    };
    let mut look = Look { files, identity, config };
    let placement = look.two_copies("placement")?.ok_or_else(|| damage("placement", &"it is missing"))?;
    let placement = Placement::from_bytes(&placement)?;
    let catalog = match look.two_copies("catalog")? {
        Some(bytes) => Catalog::from_bytes(&bytes).map_err(|error| damage("catalog", &error))?,
        None => Catalog::default(),
    };
    let owners = placement.owners(look.identity.slot_count)?;
    let roots: Vec<RootContent> = (0..placement.shard_count)
        .map(|shard| look.root((&placement, &owners), ShardId(shard)))
        .collect::<Result<_, _>>()?;
    let mut found = Inspected {
        directory: look.identity.directory,
        slots: look.identity.slot_count,
        starts: placement.boot,
        layout: placement.layout,
        lanes: look.lanes()?,
        ..Inspected::default()
    };
    for (root, shard) in roots.iter().zip(0..) {
        found.shards.push(look.shard(&placement, ShardId(shard), root)?);
    }
    if counts_rows {
        let (tables, waiting) = look.rows(&roots, &catalog)?;
        (found.tables, found.waiting) = (Some(tables), Some(waiting));
    }
    let slots = look.slots(&roots)?;
    slots.iter().flat_map(|slot| slot.lanes.values()).for_each(|lane| found.chunks.add(lane));
    let lanes = (&catalog, &kept(slots.iter()));
    found.unnamed = unnamed(&mut look.files, &placement, &roots.iter().collect::<Vec<_>>(), lanes)?;
    Ok(found)
}

struct Look<'a> {
    files: Files<'a>,
    identity: Identity,
    config: &'a BootConfig,
}

impl Look<'_> {
    fn two_copies(&mut self, name: &str) -> Result<Option<Vec<u8>>, BootError> {
        let (_, state) = RootFile::load(&mut self.files, "", name, self.identity.directory)?;
        Ok(readable(state, name)?.map(|(bytes, _)| bytes))
    }

    fn root(&mut self, placement: (&Placement, &Owners), shard: ShardId) -> Result<RootContent, BootError> {
        read_root(&mut self.files, &self.identity, placement, shard).map(|(_, content, _)| content)
    }

    fn length(&mut self, path: &str) -> Result<u64, DiskError> {
        let file = self.files.open(path, OpenMode::Read)?;
        let length = self.files.length(file);
        self.files.close(file);
        length
    }

    fn lanes(&mut self) -> Result<FileSum, BootError> {
        let mut lanes = FileSum::default();
        for name in self.files.list(LANES_DIR)? {
            lanes.add(self.length(&format!("{LANES_DIR}/{name}"))?);
        }
        Ok(lanes)
    }

    /// Slots as their checkpoints have them, without rows.
    fn slots(&mut self, roots: &[RootContent]) -> Result<Vec<Slot>, BootError> {
        let now = Now { monotonic_nanos: 0, wall_micros: 0 };
        let marks = roots.iter().flat_map(|root| root.marks.keys().map(move |slot| (root, *slot)));
        marks.map(|(root, slot)| load_slot(&mut self.files, &self.identity, slot, root, now)).collect()
    }

    fn shard(
        &mut self,
        placement: &Placement,
        shard: ShardId,
        root: &RootContent,
    ) -> Result<InspectedShard, BootError> {
        let log = log_config(self.config, &self.identity, placement.layout, shard);
        let segments = list_segments(&mut self.files, &log, root.log_from)?;
        let Lsn(log_from) = root.log_from;
        let mut found = InspectedShard { log_from, segments, ..InspectedShard::default() };
        for (slot, mark) in &root.marks {
            let path = format!("{SLOTS_DIR}/{}", checkpoint_name(*slot, mark.number));
            found.checkpoints.add(self.length(&path)?);
        }
        for (number, group) in root.manifest.iter().flat_map(|manifest| &manifest.groups) {
            found.store.add(group);
            found.sorted.extend(sorted_files(*number, group));
        }
        Ok(found)
    }

    /// Counts the rows that are there: those of grains by table, and what waits.
    fn rows(
        &mut self,
        roots: &[RootContent],
        catalog: &Catalog,
    ) -> Result<(BTreeMap<String, InspectedTable>, InspectedWaiting), BootError> {
        let mut tables: BTreeMap<TableId, InspectedTable> = BTreeMap::new();
        let mut waiting = InspectedWaiting::default();
        let groups = roots.iter().filter_map(|root| root.manifest.as_ref()).flat_map(|manifest| &manifest.groups);
        for (number, group) in groups {
            let mut rows = GroupRows::new(self.identity.directory, *number, group);
            let counted = count(&mut self.files, &mut rows, &mut tables, &mut waiting);
            rows.close(&mut self.files);
            counted?;
        }
        let name = |table| match catalog.table(table) {
            Some((app, table)) => format!("{}/{}", app.name, table.name),
            // Deleted, and not merged away yet.
            None => format!("table {table}"),
        };
        Ok((tables.into_iter().map(|(table, rows)| (name(table), rows)).collect(), waiting))
    }
}

fn sorted_files(number: u16, group: &Group) -> impl Iterator<Item = InspectedFile> {
    let tiers = group.tiers.iter().enumerate();
    let runs =
        tiers.flat_map(|(tier, runs)| runs.iter().enumerate().map(move |(at, run)| (Level::Tier(tier), at, run)));
    let runs = runs.chain([(Level::Last, 0, &group.last)]);
    runs.flat_map(move |(level, at, Run { files })| {
        files.iter().map(move |entry| InspectedFile { group: number, level, run: at, entry: entry.clone() })
    })
}

fn count(
    files: &mut Files<'_>,
    rows: &mut GroupRows<'_>,
    tables: &mut BTreeMap<TableId, InspectedTable>,
    waiting: &mut InspectedWaiting,
) -> Result<(), BootError> {
    while let Some((key, version)) = rows.next(files)? {
        let value = match &version.content {
            Content::Inline(bytes) => bytes.len(),
            Content::Stored(at) => at.bytes,
            Content::Present | Content::Deleted => 0,
        };
        let bytes = (key.len() + value) as u64;
        let is_empty = matches!(version.content, Content::Present | Content::Deleted);
        match rows.key(&key)? {
            Some(RowKey::Grain(_, table, _) | RowKey::Entry(_, table, ..)) if is_empty => {
                tables.entry(table).or_default();
            }
            Some(RowKey::Grain(_, table, _)) => {
                let found = tables.entry(table).or_default();
                (found.grains, found.bytes) = (found.grains + 1, found.bytes + bytes);
            }
            Some(RowKey::Entry(_, table, ..)) => {
                let found = tables.entry(table).or_default();
                (found.entries, found.bytes) = (found.entries + 1, found.bytes + bytes);
            }
            Some(RowKey::Timer(..)) => (waiting.timers, waiting.bytes) = (waiting.timers + 1, waiting.bytes + bytes),
            Some(RowKey::Due(..)) => waiting.bytes += bytes,
            Some(RowKey::Backlog(..) | RowKey::OldBacklog(..)) => {
                (waiting.backlog, waiting.bytes) = (waiting.backlog + 1, waiting.bytes + bytes);
            }
            Some(RowKey::Outbox(..)) => {
                (waiting.messages, waiting.bytes) = (waiting.messages + 1, waiting.bytes + bytes);
            }
            _ => {}
        }
    }
    Ok(())
}
