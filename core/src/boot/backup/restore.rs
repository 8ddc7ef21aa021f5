//! Making a data directory of a backup: another one than that which was backed up, with an id of its own.
//!
//! Every checksum of a data directory includes its id, so that no file of one is ever taken for one of another. Therefore
//! each file is written under the new id, which checks all of it once more. What is made counts when the identity is there,
//! which comes last.

use super::plan::READ_BYTES;
use super::{BackupDisk, BackupError, BackupManifest, source, target};
use crate::boot::layout::make_store;
use crate::boot::missing::UNFINISHED_RESTORE;
use crate::boot::{BootError, Placement, damage, readable};
use crate::jobs::{LANES_DIR, SLOTS_DIR};
use crate::session_secret::SessionSecret;
use crate::shard::{SESSION_BOOTS_MAX, seal_checkpoint, unseal_checkpoint};
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Disk, DiskError, FileId, OpenMode, Rng};
use gristmill_base::files::Files;
use gristmill_base::ids::{ShardId, SlotId};
use gristmill_io::identity::{IDENTITY_FILE, Identity};
use gristmill_io::log::LogReseal;
use gristmill_io::root::RootFile;
use gristmill_state::store::{Damage, FileKind, ValueReseal, parse_file_name, reseal_sorted};
use std::collections::{BTreeMap, BTreeSet};

/// By so much a restore raises the number of starts, and with it the term of every slot. So nothing that the data directory
/// gave out after the backup, in as many starts, has the name of something that the restored one gives out.
pub const RESTORE_STARTS: u32 = 1_024;

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Id of the new data directory.
    pub directory: u128,
    /// The start that it will have next, and the term of its slots.
    pub boot: u32,
    /// Files that were written.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Makes a data directory of a backup that [`check`](super::check) has found well, in an empty folder. `rng` gives its id.
/// `progress` hears files and bytes. Blocking.
///
/// # Errors
/// The folder is not empty; damage of the backup, by its path in the data directory; or what a disk says. What was made
/// then is no data directory.
pub fn restore(
    from: &mut dyn Disk,
    manifest: &BackupManifest,
    to: &mut dyn Disk,
    rng: &mut dyn Rng,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, BackupError> {
    let mut view = BackupDisk::new(from, manifest);
    let (mut from, mut to) = (Files::new(&mut view), Files::new(to));
    let is_foreign = |name: &String| name != gristmill_io::lock::LOCK_FILE;
    if let Some(name) = to.list("").map_err(BackupError::Target)?.into_iter().find(is_foreign) {
        let what = format!("it is not empty: there is {name}; a backup is restored into an empty folder");
        return Err(BackupError::Refused(what));
    }
    let identity = Identity::load(&mut from)?.ok_or_else(|| damage(IDENTITY_FILE, &"it is missing"))?;
    let directory = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
    let boot = manifest.boot.saturating_add(RESTORE_STARTS);
    if boot + 1 >= SESSION_BOOTS_MAX {
        let what = format!("it would be start {boot} of the data directory; ids of sessions allow {SESSION_BOOTS_MAX}");
        return Err(BackupError::Refused(what));
    }
    to.create_file("", UNFINISHED_RESTORE, b"gristmill\n").map_err(BackupError::Target)?;
    for dir in [SLOTS_DIR, LANES_DIR] {
        to.make_dirs(dir).map_err(BackupError::Target)?;
    }
    make_store(&mut to)?;
    let mut writer = Writer {
        old: identity.directory,
        new: directory,
        from,
        to,
        logs: BTreeMap::new(),
        folders: [SLOTS_DIR.to_owned(), LANES_DIR.to_owned()].into(),
        restored: Restored { directory, boot: boot + 1, files: 0, bytes: 0 },
    };
    for file in &manifest.files {
        writer.file(&file.path, file.bytes, file.pieces.iter().map(|piece| piece.bytes).sum(), boot)?;
        writer.restored.files += 1;
        writer.restored.bytes += file.bytes;
        progress(writer.restored.files, writer.restored.bytes);
    }
    let Writer { mut to, folders, restored, .. } = writer;
    for folder in folders {
        to.flush_dir(&folder).map_err(BackupError::Target)?;
    }
    // Sessions of the data directory that was backed up end with it: nobody can show a key.
    SessionSecret::load_or_make(&mut to, rng).map_err(BackupError::Target)?;
    Identity { directory, ..identity }.create(&mut to).map_err(target)?;
    to.remove(UNFINISHED_RESTORE).and_then(|()| to.flush_dir("")).map_err(BackupError::Target)?;
    Ok(restored)
}

struct Writer<'a, 'b> {
    old: u128,
    new: u128,
    from: Files<'a>,
    to: Files<'b>,
    /// By folder of the shard.
    logs: BTreeMap<String, LogReseal>,
    /// Those with new names.
    folders: BTreeSet<String>,
    restored: Restored,
}

impl Writer<'_, '_> {
    fn file(&mut self, path: &str, bytes: u64, used: u64, boot: u32) -> Result<(), BackupError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.folders.insert(folder.to_owned()) && !folder.is_empty() {
            self.to.make_dirs(folder).map_err(BackupError::Target)?;
        }
        match (folder, name) {
            ("", IDENTITY_FILE) => Ok(()),
            ("", "placement.a") => self.two_copies("", "placement", |bytes| {
                let before = Placement::from_bytes(&bytes)?;
                let term = before.term.saturating_add(RESTORE_STARTS);
                Ok(Placement { boot, term, ..before }.elsewhere().to_bytes())
            }),
            ("", "catalog.a") => self.two_copies("", "catalog", Ok),
            (folder, "root.a") => self.two_copies(folder, "root", Ok),
            (_, "placement.b" | "catalog.b" | "root.b") => Ok(()),
            (SLOTS_DIR, _) => self.checkpoint(path, name),
            (LANES_DIR, _) => self.as_it_is(path, bytes),
            (folder, _) if folder.starts_with("store/") => self.store(path, name, bytes),
            (folder, _) if folder.ends_with("/log") => self.segment(folder, path, used),
            _ => Err(damage(path, &"no data directory has such a file").into()),
        }
    }

    fn two_copies(
        &mut self,
        folder: &str,
        name: &str,
        change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, BootError>,
    ) -> Result<(), BackupError> {
        let (_, state) = RootFile::load(&mut self.from, folder, name, self.old)?;
        let path = format!("{folder}/{name}");
        let (bytes, _) = readable(state, &path)?.ok_or_else(|| damage(&path, &"it is missing"))?;
        let (mut root, _) = RootFile::load(&mut self.to, folder, name, self.new).map_err(target)?;
        root.store(&mut self.to, &change(bytes)?).map_err(BackupError::Target)?;
        Ok(())
    }

    fn checkpoint(&mut self, path: &str, name: &str) -> Result<(), BackupError> {
        let numbers = name.strip_suffix(".ckpt").and_then(|name| name.split_once('-'));
        let numbers = numbers.and_then(|(slot, number)| Some((SlotId(slot.parse().ok()?), number.parse().ok()?)));
        let (slot, number) = numbers.ok_or_else(|| damage(path, &"its name is that of no checkpoint"))?;
        let file = self.from.read_declared(path, crate::shard::checkpoint_bytes).map_err(source)?.unwrap_or_default();
        let dump = unseal_checkpoint(self.old, slot, number, &file).map_err(|what| damage(path, &what))?;
        let sealed = seal_checkpoint(self.new, slot, number, dump);
        self.to.create_file(SLOTS_DIR, name, &sealed).map_err(BackupError::Target)
    }

    fn segment(&mut self, folder: &str, path: &str, used: u64) -> Result<(), BackupError> {
        let (old, new) = (self.old, self.new);
        let shard = folder.split('/').nth(1).and_then(|name| name.strip_prefix("shard-")?.parse().ok());
        let shard = ShardId(shard.ok_or_else(|| damage(path, &"its folder is that of no shard"))?);
        let log = self.logs.entry(folder.to_owned()).or_insert_with(|| LogReseal::new(old, new, shard));
        log.segment(&mut self.from, (path, used), &mut self.to, path).map_err(BackupError::from)
    }

    fn store(&mut self, path: &str, name: &str, bytes: u64) -> Result<(), BackupError> {
        let (number, kind) =
            parse_file_name(name).ok_or_else(|| damage(path, &"its name is that of no file of the store"))?;
        if kind == FileKind::Sorted {
            let mut file = self.from.read_file(path).map_err(source)?.unwrap_or_default();
            reseal_sorted(&mut file, self.old, number, self.new).map_err(|it| damage(path, &it))?;
            return self.write(path, |to, id| {
                for (at, piece) in (0..).zip(file.chunks(READ_BYTES as usize)) {
                    to.write(id, at * READ_BYTES, AlignedBuf::copy_of(piece))?;
                }
                Ok(())
            });
        }
        let mut reseal = ValueReseal::new(self.old, self.new, number);
        let (source_file, mut at) = (self.from.open(path, OpenMode::Read).map_err(source)?, 0);
        let target_file = self.to.open(path, OpenMode::Create).map_err(BackupError::Target)?;
        let (mut out, mut written) = (Vec::new(), 0);
        while at < bytes {
            let wanted = (bytes - at).min(READ_BYTES) as usize;
            let (buf, found) = self.from.read(source_file, at, wanted).map_err(source)?;
            let piece: Result<Vec<u8>, Damage> = reseal.push(&buf.as_slice()[..found.min(wanted)]);
            out.extend(piece.map_err(|it| damage(path, &it))?);
            at += wanted as u64;
            written += write_blocks(&mut self.to, target_file, written, &mut out).map_err(BackupError::Target)?;
        }
        out.extend(reseal.finish().map_err(|it| damage(path, &it))?);
        written += write_blocks(&mut self.to, target_file, written, &mut out).map_err(BackupError::Target)?;
        if !out.is_empty() || written != bytes {
            return Err(damage(path, &format!("{bytes} bytes are expected")).into());
        }
        let flushed = self.to.flush(target_file);
        self.from.close(source_file);
        self.to.close(target_file);
        flushed.map_err(BackupError::Target)
    }

    /// A file without checksums of its own.
    fn as_it_is(&mut self, path: &str, bytes: u64) -> Result<(), BackupError> {
        let source_file = self.from.open(path, OpenMode::Read).map_err(source)?;
        let target_file = self.to.open(path, OpenMode::Create).map_err(BackupError::Target)?;
        let mut at = 0;
        while at < bytes {
            let wanted = (bytes - at).min(READ_BYTES) as usize;
            let (buf, _) = self.from.read(source_file, at, wanted).map_err(source)?;
            self.to.write(target_file, at, buf).map_err(BackupError::Target)?;
            at += wanted as u64;
        }
        let flushed = self.to.flush(target_file);
        self.from.close(source_file);
        self.to.close(target_file);
        flushed.map_err(BackupError::Target)
    }

    fn write(
        &mut self,
        path: &str,
        fill: impl FnOnce(&mut Files<'_>, FileId) -> Result<(), DiskError>,
    ) -> Result<(), BackupError> {
        let file = self.to.open(path, OpenMode::Create).map_err(BackupError::Target)?;
        let filled = fill(&mut self.to, file).and_then(|()| self.to.flush(file));
        self.to.close(file);
        filled.map_err(BackupError::Target)
    }
}

/// Writes the whole blocks of `out` behind what was written; says how much.
fn write_blocks(files: &mut Files<'_>, file: FileId, at: u64, out: &mut Vec<u8>) -> Result<u64, DiskError> {
    let whole = out.len() / gristmill_base::limits::BLOCK_BYTES * gristmill_base::limits::BLOCK_BYTES;
    if whole > 0 {
        files.write(file, at, AlignedBuf::copy_of(&out[..whole]))?;
        out.drain(..whole);
    }
    Ok(whole as u64)
}
