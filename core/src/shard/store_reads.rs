//! Files of the store as a shard's core reads them: the block cache, the files of each slot group at this moment, and reads
//! of the device that are under way. What is read is checked before anybody sees it.
//!
//! Reads go over the shard's own ring, as many at once as there are fetches; nothing here waits.

use super::{Outbox, ShardParts};
use crate::store_files::{MISSING, kind_of};
use ahash::AHashMap;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, DiskOp, DiskOutcome, FileId, OpenMode, Ticket};
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_base::sometimes::reached;
use gristmill_state::store::{Access, Blocks, FileKind, FileNumber, Group, Part, View, Wanted, file_path};
use std::collections::BTreeMap;

/// Marks the tickets of these reads among those of the shard's disk.
const STORE_TICKET_TAG: u64 = 0x53 << 56;
const TICKET_TAG_MASK: u64 = 0xff << 56;

/// Buffers that are kept to be read into again, and bytes of the largest of them.
const SPARE_MAX: usize = 64;
const SPARE_BYTES: usize = 2 * BLOCK_BYTES;

type File = (FileNumber, FileKind);

/// A file that is open, or about to be.
#[derive(Debug)]
struct OpenFile {
    group: u16,
    /// `None` while it is being opened.
    id: Option<FileId>,
    /// Reads of it that the device has.
    in_flight: u32,
    /// Reads that wait for it to be open.
    queue: Vec<Wanted>,
    /// No manifest names it any more: it is closed as soon as nothing of it is in flight.
    is_left: bool,
}

impl OpenFile {
    /// Whether nobody reads it.
    fn is_idle(&self) -> bool {
        self.id.is_some() && self.in_flight == 0 && self.queue.is_empty()
    }
}

/// Bytes of a file that fetches wait for.
#[derive(Debug)]
struct Reading {
    access: Access,
    fetches: Vec<u64>,
}

/// Why bytes are not there, with the file's path.
#[derive(Clone, Debug)]
pub(super) enum Unread {
    /// They are not what was written there, or the disk does not give them.
    Damaged(String),
    /// The file cannot be opened or read now, which says nothing of the bytes: descriptors or memory are short.
    Later(String),
}

/// What came of a read.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) wanted: Wanted,
    /// The bytes, if they are a value.
    pub(super) bytes: Result<Vec<u8>, Unread>,
    /// Who waits for them.
    pub(super) fetches: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct StoreReads {
    directory: u128,
    blocks: Blocks,
    views: BTreeMap<u16, View>,
    generation: u64,
    files: BTreeMap<File, OpenFile>,
    /// As many may be open at once; more are closed when nothing of them is being read, and opened again.
    files_max: usize,
    opening: BTreeMap<String, File>,
    reading: AHashMap<Wanted, Reading>,
    in_flight: AHashMap<Ticket, Wanted>,
    /// Bytes of memory that they are read into.
    in_flight_bytes: usize,
    /// Buffers of reads that have ended, to be read into again.
    spare: Vec<AlignedBuf>,
    next_ticket: u64,
    operations: Vec<(Ticket, DiskOp)>,
    opens: Vec<(String, OpenMode)>,
    closes: Vec<FileId>,
    /// Reads of the device, and their bytes.
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
}

impl StoreReads {
    /// Nothing is open yet.
    ///
    /// # Panics
    /// The shard has no manifest, which recovery gives it.
    pub(super) fn of(parts: &ShardParts) -> Self {
        let manifest = parts.content.manifest.as_ref().expect("recovery gives a shard a manifest");
        let (directory, cache_bytes) = (parts.log.config().identity, parts.config.cache_bytes);
        let views = manifest.groups.iter().map(|(number, group)| (*number, group.view(0))).collect();
        Self {
            directory,
            blocks: Blocks::new(directory, cache_bytes),
            views,
            generation: 0,
            files: BTreeMap::new(),
            files_max: parts.config.store_files_max,
            opening: BTreeMap::new(),
            reading: AHashMap::new(),
            in_flight: AHashMap::new(),
            in_flight_bytes: 0,
            spare: Vec::new(),
            next_ticket: 0,
            operations: Vec::new(),
            opens: Vec::new(),
            closes: Vec::new(),
            reads: 0,
            read_bytes: 0,
        }
    }

    /// Identity of the data directory.
    pub(super) fn directory(&self) -> u128 {
        self.directory
    }

    /// What a read of a group's rows needs.
    pub(super) fn parts(&mut self, group: u16) -> (&View, &mut Blocks) {
        (&self.views[&group], &mut self.blocks)
    }

    /// Bytes of cached blocks, and of the ends of open files.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.blocks.cached_bytes(), self.blocks.pinned_bytes())
    }

    /// Bytes of memory that reads under way are made into.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// The files of a group have changed: reads see the new ones from now on.
    pub(super) fn renew(&mut self, number: u16, group: &Group) {
        self.generation += 1;
        let view = group.view(self.generation);
        let numbers = |view: &View| -> Vec<FileNumber> {
            view.runs.iter().flat_map(|run| &run.files).map(|file| file.number).collect()
        };
        let old = self.views.get(&number).map(numbers).unwrap_or_default();
        let mut new = numbers(&view);
        new.sort_unstable();
        for file in old {
            if new.binary_search(&file).is_err() {
                self.blocks.forget(file);
            }
        }
        self.views.insert(number, view);
        let is_named = |(file, kind): &File| match kind {
            FileKind::Sorted => new.binary_search(file).is_ok(),
            FileKind::Values => group.values.contains_key(file),
        };
        let left: Vec<File> = self
            .files
            .iter()
            .filter(|(file, open)| open.group == number && !is_named(file))
            .map(|(file, _)| *file)
            .collect();
        for file in left {
            self.files.get_mut(&file).expect("it was just listed").is_left = true;
            self.close_if_left(file);
        }
    }

    /// A part of a group is another shard's now.
    pub(super) fn forget_part(&mut self, number: u16) {
        let Some(view) = self.views.remove(&number) else { return };
        for file in view.runs.iter().flat_map(|run| &run.files) {
            self.blocks.forget(file.number);
        }
        let of_part: Vec<File> =
            self.files.iter().filter(|(_, open)| open.group == number).map(|(file, _)| *file).collect();
        for file in of_part {
            self.files.get_mut(&file).expect("it was just listed").is_left = true;
            self.close_if_left(file);
        }
    }

    fn close_if_left(&mut self, file: File) {
        let Some(open) = self.files.get(&file) else { return };
        if open.is_left && open.is_idle() {
            self.close(file);
        }
    }

    fn close(&mut self, file: File) {
        if let Some(open) = self.files.remove(&file) {
            self.closes.extend(open.id);
        }
    }

    /// A fetch lacks bytes of a file: it is told when they have come, by [`Self::completed`] or [`Self::opened`].
    pub(super) fn want(&mut self, group: u16, wanted: Wanted, access: Access, fetch: u64) {
        let reading = self.reading.entry(wanted).or_insert(Reading { access, fetches: Vec::new() });
        reading.fetches.push(fetch);
        if reading.fetches.len() > 1 {
            reached("block that another fetch had asked for");
            return;
        }
        let file = (wanted.file, kind_of(wanted));
        // A part that let it go may have another one beside it that names it: what is wanted is of a view that counts.
        if let Some(open) = self.files.get_mut(&file) {
            (open.is_left, open.group) = (false, group);
        }
        match self.files.get_mut(&file) {
            Some(OpenFile { id: Some(id), in_flight, .. }) => {
                let id = *id;
                *in_flight += 1;
                self.submit(id, wanted);
            }
            Some(open) => open.queue.push(wanted),
            None => {
                self.make_room();
                let path = file_path(group, file.0, file.1);
                self.opens.push((path.clone(), OpenMode::Read));
                self.opening.insert(path, file);
                let open = OpenFile { group, id: None, in_flight: 0, queue: vec![wanted], is_left: false };
                self.files.insert(file, open);
            }
        }
    }

    /// Closes a file that nobody reads, if there are many.
    fn make_room(&mut self) {
        if self.files.len() < self.files_max {
            return;
        }
        let start = self.next_ticket as usize % self.files.len();
        let around = self.files.iter().skip(start).chain(self.files.iter().take(start));
        if let Some(file) = around.filter(|(_, open)| open.is_idle()).map(|(file, _)| *file).next() {
            self.close(file);
        }
    }

    fn submit(&mut self, file: FileId, wanted: Wanted) {
        self.next_ticket += 1;
        let ticket = Ticket(STORE_TICKET_TAG | self.next_ticket);
        let (offset, bytes) = wanted.device_range();
        self.in_flight.insert(ticket, wanted);
        self.in_flight_bytes += bytes;
        self.reads += 1;
        self.read_bytes += bytes as u64;
        let at = self.spare.iter().rposition(|buf| buf.len() == bytes);
        let buf = at.map_or_else(|| AlignedBuf::to_fill(bytes), |at| self.spare.swap_remove(at));
        self.operations.push((ticket, DiskOp::Read { file, offset, buf }));
    }

    /// Keeps the buffer of a read of a block or two: most are such.
    fn keep(&mut self, buf: AlignedBuf) {
        if self.spare.len() < SPARE_MAX && buf.len() <= SPARE_BYTES {
            self.spare.push(buf);
        }
    }

    /// Whether a completion belongs here.
    pub(super) fn owns(ticket: Ticket) -> bool {
        ticket.0 & TICKET_TAG_MASK == STORE_TICKET_TAG
    }

    /// Whether a path is one of those that it asked to be opened.
    pub(super) fn is_opening(&self, path: &str) -> bool {
        self.opening.contains_key(path)
    }

    /// A file is open, or cannot be: what cannot be read then.
    pub(super) fn opened(&mut self, path: &str, id: Result<FileId, DiskError>) -> Vec<Arrived> {
        let Some(file) = self.opening.remove(path) else { return Vec::new() };
        let open = self.files.get_mut(&file).expect("a file that is being opened is listed");
        match id {
            Ok(id) => {
                open.id = Some(id);
                let queue = std::mem::take(&mut open.queue);
                open.in_flight += queue.len() as u32;
                queue.into_iter().for_each(|wanted| self.submit(id, wanted));
                self.close_if_left(file);
                Vec::new()
            }
            Err(error) => {
                let OpenFile { queue, is_left, .. } = self.files.remove(&file).expect("it was just looked at");
                if is_left {
                    // As in a read of it that ends: who waits begins again with the files that there are now. Of a value
                    // there is nothing to begin again with.
                    reached("file left before it was open");
                    let later = format!("{path}: it has gone; send it again");
                    let found = |wanted: &Wanted| match wanted.part {
                        Part::Value => Err(Unread::Later(later.clone())),
                        _ => Ok(Vec::new()),
                    };
                    return queue.into_iter().filter_map(|wanted| self.arrived(wanted, found(&wanted))).collect();
                }
                let what = match error.kind {
                    DiskErrorKind::NotFound => Unread::Damaged(format!("{path}: {MISSING}")),
                    _ if error.may_pass() => {
                        reached("file not opened for want of something");
                        Unread::Later(format!("{path}: it cannot be opened now ({error}); send it again"))
                    }
                    _ => Unread::Damaged(format!("{path}: it cannot be opened ({error})")),
                };
                queue.into_iter().filter_map(|wanted| self.arrived(wanted, Err(what.clone()))).collect()
            }
        }
    }

    /// A read has ended.
    pub(super) fn completed(&mut self, ticket: Ticket, result: Result<DiskOutcome, DiskError>) -> Option<Arrived> {
        let wanted = self.in_flight.remove(&ticket).expect("a completion belongs to a read");
        self.in_flight_bytes -= wanted.device_range().1;
        let file = (wanted.file, kind_of(wanted));
        let open = self.files.get_mut(&file).expect("a file that is read is open");
        open.in_flight -= 1;
        let (group, is_left) = (open.group, open.is_left);
        let path = || file_path(group, file.0, file.1);
        let access = self.reading.get(&wanted).map_or(Access::Point, |reading| reading.access);
        let bytes = match result {
            Ok(DiskOutcome::Read { buf, bytes }) => {
                let range = wanted.device_range().1;
                let found = wanted.slice_of(&buf.as_slice()[..bytes.min(range)]);
                let found = match wanted.part {
                    Part::Value => Ok(found.to_vec()),
                    // Nobody looks at it any more: who waits begins again with the files that there are now.
                    _ if is_left => Ok(Vec::new()),
                    _ => match self.blocks.fill(wanted, found, access) {
                        Ok(()) => Ok(Vec::new()),
                        Err(damage) => Err(Unread::Damaged(format!("{}: {damage}", path()))),
                    },
                };
                self.keep(buf);
                found
            }
            Ok(other) => unreachable!("a read brings bytes, not {other:?}"),
            Err(error) => {
                let what = format!("{}, bytes from {}: they cannot be read ({error})", path(), wanted.offset);
                Err(if error.may_pass() {
                    Unread::Later(format!("{what}; send it again"))
                } else {
                    Unread::Damaged(what)
                })
            }
        };
        self.close_if_left(file);
        if self.files.len() > self.files_max && self.files.get(&file).is_some_and(OpenFile::is_idle) {
            self.close(file);
        }
        self.arrived(wanted, bytes)
    }

    fn arrived(&mut self, wanted: Wanted, bytes: Result<Vec<u8>, Unread>) -> Option<Arrived> {
        let Reading { fetches, .. } = self.reading.remove(&wanted)?;
        Some(Arrived { wanted, bytes, fetches })
    }

    /// Hands out what the disk is to do.
    pub(super) fn give_out(&mut self, outbox: &mut Outbox) {
        outbox.disk.append(&mut self.operations);
        outbox.open.append(&mut self.opens);
        outbox.close.append(&mut self.closes);
    }
}
