//! The file system of one simulated machine: names and files, without time or operations in flight.

use crate::disk::content::Content;
use crate::disk::crash::{CrashPlan, Loose};
use crate::disk::names::Names;
use gristmill_base::env::DiskErrorKind;

/// Everything that a power loss can leave something of. A clone shares unchanged blocks.
#[derive(Clone, Default)]
pub(crate) struct FileSystem {
    pub(crate) names: Names,
    /// By number; `None` once no name and no reader is left. Numbers are never used twice.
    files: Vec<Option<Content>>,
    /// Place of the last completion that changed something.
    order: u64,
    blocks_used: u64,
}

impl FileSystem {
    /// The place of the next change.
    fn next(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// What a flush that starts now covers.
    pub(crate) fn mark(&self) -> u64 {
        self.order
    }

    pub(crate) fn file(&mut self, file: u32) -> &mut Content {
        self.files[file as usize].as_mut().expect("a file with a name or a reader stays")
    }

    /// The bytes of a file as they read now.
    pub(crate) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let content = self.files[self.names.file(path)? as usize].as_ref()?;
        let mut bytes = vec![0; content.length() as usize];
        content.read(0, &mut bytes);
        Some(bytes)
    }

    pub(crate) fn create(&mut self, path: &str) -> Result<u32, DiskErrorKind> {
        let file = u32::try_from(self.files.len()).expect("a run makes fewer files");
        let order = self.next();
        self.names.create(order, path, file)?;
        self.files.push(Some(Content::default()));
        Ok(file)
    }

    pub(crate) fn make_dir(&mut self, path: &str) -> Result<(), DiskErrorKind> {
        let order = self.next();
        self.names.make_dir(order, path)
    }

    pub(crate) fn remove(&mut self, path: &str) -> Result<(), DiskErrorKind> {
        let order = self.next();
        self.names.remove(order, path)
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskErrorKind> {
        let order = self.next();
        self.names.rename(order, from, to)
    }

    /// Blocks that all files take.
    pub(crate) fn blocks_used(&self) -> u64 {
        self.blocks_used
    }

    /// Whether a write fits; takes the room if so.
    pub(crate) fn take_room(&mut self, file: u32, offset: u64, bytes: usize, capacity: Option<u64>) -> bool {
        let wanted = self.file(file).blocks_wanted(offset, bytes);
        if capacity.is_some_and(|capacity| wanted > 0 && self.blocks_used + wanted > capacity) {
            return false;
        }
        self.blocks_used += wanted;
        true
    }

    pub(crate) fn write(&mut self, file: u32, offset: u64, bytes: &[u8]) {
        let order = self.next();
        self.file(file).write(order, offset, bytes);
    }

    pub(crate) fn write_sectors(&mut self, file: u32, offset: u64, bytes: &[u8], keep: &mut dyn FnMut() -> bool) {
        let order = self.next();
        self.file(file).write_sectors(order, offset, bytes, keep);
    }

    pub(crate) fn write_durable(&mut self, file: u32, offset: u64, bytes: &[u8]) {
        let order = self.next();
        self.file(file).write_durable(order, offset, bytes);
    }

    /// Forgets a file that nobody can reach any more.
    pub(crate) fn collect(&mut self, file: u32, is_open: bool) {
        if is_open || self.names.mentions(file) {
            return;
        }
        if let Some(content) = self.files[file as usize].take() {
            self.blocks_used -= content.blocks_used();
        }
    }

    /// Files that are kept although no name leads to them now.
    pub(crate) fn unnamed(&self) -> Vec<u32> {
        let held = (0..self.files.len() as u32).filter(|file| self.files[*file as usize].is_some());
        let named: std::collections::BTreeSet<u32> = self.names.files().map(|(_, file)| file).collect();
        held.filter(|file| !named.contains(file)).collect()
    }

    /// Everything that a crash may lose or keep: names first, then files by number.
    pub(crate) fn loose(&self) -> Vec<Loose> {
        let mut all = Vec::new();
        self.names.each_loose(&mut |loose| all.push(loose));
        for (file, content) in self.files.iter().enumerate() {
            if let Some(content) = content {
                content.each_loose(file as u32, &mut |loose| all.push(loose));
            }
        }
        all
    }

    /// What a crash leaves.
    pub(crate) fn survive(mut self, plan: CrashPlan) -> Self {
        let mut fates = plan.fates();
        self.names = self.names.survive(&mut fates);
        self.files = self.files.into_iter().map(|file| file.map(|content| content.survive(&mut fates))).collect();
        for file in self.unnamed() {
            self.files[file as usize] = None;
        }
        self.blocks_used = self.files.iter().flatten().map(Content::blocks_used).sum();
        self
    }
}
