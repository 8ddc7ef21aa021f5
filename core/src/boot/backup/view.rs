//! One backup as the data directory that it is a copy of: a disk that only reads.

use super::BackupManifest;
use gristmill_base::env::{Completion, Disk, DiskError, DiskErrorKind, DiskOp, DiskOutcome, FileId, OpenMode, Ticket};
use gristmill_base::files::Files;
use gristmill_base::limits::BLOCK_BYTES;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
pub struct BackupDisk<'a> {
    disk: &'a mut dyn Disk,
    manifest: &'a BackupManifest,
    /// By path, the file in the manifest.
    paths: BTreeMap<&'a str, usize>,
    /// Open files: which, and those of its pieces.
    open: BTreeMap<FileId, (usize, Vec<FileId>)>,
    next: u32,
    done: Vec<Completion>,
}

impl<'a> BackupDisk<'a> {
    /// Shows the backup of a manifest, which lies on that disk.
    #[must_use]
    pub fn new(disk: &'a mut dyn Disk, manifest: &'a BackupManifest) -> Self {
        let paths = manifest.files.iter().enumerate().map(|(at, file)| (file.path.as_str(), at)).collect();
        Self { disk, manifest, paths, open: BTreeMap::new(), next: 0, done: Vec::new() }
    }

    fn open_file(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        if mode != OpenMode::Read {
            return Err(only_read(path));
        }
        let at = *self.paths.get(path).ok_or_else(|| DiskError {
            kind: DiskErrorKind::NotFound,
            what: format!("opening {path} of backup {}", self.manifest.number),
            code: 0,
        })?;
        let mut pieces = Vec::new();
        for piece in &self.manifest.files[at].pieces {
            match self.disk.open(&piece.file, OpenMode::Read) {
                Ok(file) => pieces.push(file),
                Err(error) => {
                    pieces.into_iter().for_each(|file| self.disk.close(file));
                    return Err(error);
                }
            }
        }
        let id = FileId(self.next);
        self.next += 1;
        self.open.insert(id, (at, pieces));
        Ok(id)
    }

    fn run(&mut self, op: DiskOp) -> Result<DiskOutcome, DiskError> {
        match op {
            DiskOp::Read { file, offset, mut buf } => {
                let bytes = self.read(file, offset, buf.as_mut_slice())?;
                Ok(DiskOutcome::Read { buf, bytes })
            }
            DiskOp::Length { file } => Ok(DiskOutcome::Length(self.manifest.files[self.open[&file].0].bytes)),
            DiskOp::List { path } => Ok(DiskOutcome::Names(self.list(&path))),
            other => Err(only_read(&format!("{other:?}"))),
        }
    }

    /// Fills a buffer of whole blocks; says how much of it the file has.
    fn read(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        buf.fill(0);
        let (at, pieces) = &self.open[&file];
        let entry = &self.manifest.files[*at];
        let end = (offset + buf.len() as u64).min(entry.bytes);
        let mut start = 0;
        for (piece, id) in entry.pieces.iter().zip(pieces) {
            let (from, until) = (offset.max(start), end.min(start + piece.bytes));
            if from < until {
                // Pieces begin at whole blocks, and so does what is read of them.
                let wanted = (until - from) as usize;
                let (bytes, found) = Files::new(self.disk).read(*id, from - start, wanted)?;
                let found = found.min(wanted);
                let to = (from - offset) as usize;
                buf[to..to + found].copy_from_slice(&bytes.as_slice()[..found]);
                if found < wanted {
                    return Ok(to + found);
                }
            }
            start += piece.bytes;
        }
        Ok(end.saturating_sub(offset) as usize)
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let inside = self.paths.keys().filter_map(|path| path.strip_prefix(prefix.as_str()));
        let names: BTreeSet<&str> = inside.filter_map(|rest| rest.split('/').next()).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

fn only_read(what: &str) -> DiskError {
    DiskError { kind: DiskErrorKind::Io, what: format!("a backup is only read: {what}"), code: 0 }
}

impl Disk for BackupDisk<'_> {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.open_file(path, mode)
    }

    fn close(&mut self, file: FileId) {
        for piece in self.open.remove(&file).into_iter().flat_map(|(_, pieces)| pieces) {
            self.disk.close(piece);
        }
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let result = self.run(op);
        self.done.push(Completion { ticket, result });
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.poll(done);
    }
}

const _: () = assert!(BLOCK_BYTES.is_power_of_two(), "blocks divide each other");
