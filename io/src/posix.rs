//! Files with plain blocking system calls, for boot, recovery and background jobs.

use crate::folder::{Folder, check_blocks, disk_error};
use crate::sys;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Completion, Disk, DiskError, DiskOp, DiskOutcome, FileId, OpenMode, Ticket};
use gristmill_base::limits::BLOCK_BYTES;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// [`Disk`] that does each operation when it is submitted and blocks its thread meanwhile. Never on a shard that
/// serves.
pub struct PosixDisk {
    folder: Folder,
    done: Vec<Completion>,
}

impl PosixDisk {
    /// The files of the data directory `root`, which must be there when the first operation comes.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { folder: Folder::new(root), done: Vec::new() }
    }

    /// Another disk over the same data directory, without open files.
    pub(crate) fn fresh(&self) -> Self {
        Self { folder: self.folder.fresh(), done: Vec::new() }
    }

    fn run(&mut self, op: DiskOp) -> Result<DiskOutcome, DiskError> {
        match op {
            DiskOp::Read { file, offset, buf } => self.read(file, offset, buf),
            DiskOp::Write { file, offset, buf, bytes } => self.write(file, offset, buf, bytes, false),
            DiskOp::WriteDurable { file, offset, buf, bytes } => self.write(file, offset, buf, bytes, true),
            DiskOp::Flush { file } => {
                let open = self.folder.file(file);
                open.file.sync_data().map_err(|error| disk_error(format!("flushing {}", open.path), &error))?;
                Ok(DiskOutcome::Done)
            }
            DiskOp::FlushDir { path } => self.folder.flush_dir(&path),
            DiskOp::MakeDir { path } => self.folder.make_dir(&path),
            DiskOp::List { path } => self.folder.list(&path),
            DiskOp::Remove { path } => self.folder.remove(&path),
            DiskOp::Rename { from, to } => self.folder.rename(&from, &to),
            DiskOp::Length { file } => self.folder.length(file),
            DiskOp::Room => self.folder.room(),
        }
    }

    fn read(&mut self, file: FileId, offset: u64, mut buf: AlignedBuf) -> Result<DiskOutcome, DiskError> {
        check_blocks(offset, buf.len(), &buf);
        let open = self.folder.file(file);
        let want = buf.len();
        let mut bytes = 0;
        while bytes < want && bytes.is_multiple_of(BLOCK_BYTES) {
            match open.file.read_at(&mut buf.as_mut_slice()[bytes..], offset + bytes as u64) {
                Ok(0) => break,
                Ok(got) => bytes += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(disk_error(format!("reading {want} bytes at {offset} of {}", open.path), &error));
                }
            }
        }
        buf.as_mut_slice()[bytes..].fill(0);
        Ok(DiskOutcome::Read { buf, bytes })
    }

    fn write(
        &mut self,
        file: FileId,
        offset: u64,
        buf: AlignedBuf,
        bytes: usize,
        durable: bool,
    ) -> Result<DiskOutcome, DiskError> {
        check_blocks(offset, bytes, &buf);
        let open = self.folder.file(file);
        let mut done = 0;
        while done < bytes {
            let (rest, at) = (&buf.as_slice()[done..bytes], offset + done as u64);
            let wrote =
                if durable { sys::write_durable_at(&open.file, rest, at) } else { open.file.write_at(rest, at) };
            let error = match wrote {
                Ok(0) => io::Error::from_raw_os_error(libc::EIO),
                Ok(wrote) => {
                    done += wrote;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            return Err(disk_error(format!("writing {bytes} bytes at {offset} of {}", open.path), &error));
        }
        Ok(DiskOutcome::Written { buf })
    }
}

impl Disk for PosixDisk {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.folder.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        self.folder.close(file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let result = self.run(op);
        self.give_way();
        self.done.push(Completion { ticket, result });
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.poll(done);
    }

    /// A thread that shares its core with a shard keeps it until the next tick of the clock, milliseconds later, however low
    /// its priority, once the scheduler has given it its turn.
    fn give_way(&mut self) {
        std::thread::yield_now();
    }
}
