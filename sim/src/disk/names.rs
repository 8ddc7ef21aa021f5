//! The names of files and folders: as they are seen now, as they are on the platter, and the changes in between.

use crate::disk::crash::{Fate, Loose, LooseKind};
use gristmill_base::env::DiskErrorKind;
use std::collections::BTreeMap;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    File(u32),
}

/// All names of one file system.
#[derive(Clone, Default)]
pub(crate) struct Names {
    live: BTreeMap<String, Node>,
    /// What is left if every change that was not flushed is lost.
    durable: BTreeMap<String, Node>,
    /// In the order of completion.
    loose: Vec<LooseName>,
}

#[derive(Clone)]
struct LooseName {
    /// Place among all completions of the machine.
    order: u64,
    change: Change,
}

#[derive(Clone)]
enum Change {
    Make { path: String, node: Node },
    Remove { path: String },
    Rename { from: String, to: String, file: u32 },
}

impl Names {
    pub(crate) fn file(&self, path: &str) -> Option<u32> {
        match self.live.get(path) {
            Some(Node::File(file)) => Some(*file),
            _ => None,
        }
    }

    fn is_folder(&self, path: &str) -> bool {
        path.is_empty() || self.live.get(path) == Some(&Node::Folder)
    }

    /// Every file with its path, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, u32)> {
        self.live.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path.as_str(), *file)),
            Node::Folder => None,
        })
    }

    /// Whether a crash could bring a file back, or a reader can open it.
    pub(crate) fn mentions(&self, file: u32) -> bool {
        let node = Node::File(file);
        self.live.values().any(|found| *found == node)
            || self.durable.values().any(|found| *found == node)
            || self.loose.iter().any(|loose| match loose.change {
                Change::Make { node: found, .. } => found == node,
                Change::Rename { file: found, .. } => found == file,
                Change::Remove { .. } => false,
            })
    }

    pub(crate) fn create(&mut self, order: u64, path: &str, file: u32) -> Result<(), DiskErrorKind> {
        if path.is_empty() || self.live.contains_key(path) {
            return Err(DiskErrorKind::Exists);
        }
        self.make(order, path, Node::File(file))
    }

    pub(crate) fn make_dir(&mut self, order: u64, path: &str) -> Result<(), DiskErrorKind> {
        if self.is_folder(path) {
            return Ok(());
        }
        if self.live.contains_key(path) {
            return Err(DiskErrorKind::Exists);
        }
        self.make(order, path, Node::Folder)
    }

    fn make(&mut self, order: u64, path: &str, node: Node) -> Result<(), DiskErrorKind> {
        if !self.is_folder(parent(path)) {
            return Err(DiskErrorKind::NotFound);
        }
        self.change(order, Change::Make { path: path.to_owned(), node });
        Ok(())
    }

    pub(crate) fn remove(&mut self, order: u64, path: &str) -> Result<(), DiskErrorKind> {
        self.file(path).ok_or(DiskErrorKind::NotFound)?;
        self.change(order, Change::Remove { path: path.to_owned() });
        Ok(())
    }

    pub(crate) fn rename(&mut self, order: u64, from: &str, to: &str) -> Result<(), DiskErrorKind> {
        let file = self.file(from).ok_or(DiskErrorKind::NotFound)?;
        assert_eq!(parent(from), parent(to), "a rename stays in its folder");
        if self.is_folder(to) {
            return Err(DiskErrorKind::Io);
        }
        if from != to {
            self.change(order, Change::Rename { from: from.to_owned(), to: to.to_owned(), file });
        }
        Ok(())
    }

    fn change(&mut self, order: u64, change: Change) {
        apply(&mut self.live, &change);
        self.loose.push(LooseName { order, change });
    }

    pub(crate) fn list(&self, folder: &str) -> Result<Vec<String>, DiskErrorKind> {
        if !self.is_folder(folder) {
            return Err(DiskErrorKind::NotFound);
        }
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = self.live.range(prefix.clone()..).map_while(|(path, _)| path.strip_prefix(&prefix));
        Ok(below.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    /// Makes every change in a folder with an order up to `mark` durable.
    pub(crate) fn flush(&mut self, mark: u64, folder: &str) -> Result<(), DiskErrorKind> {
        if !self.is_folder(folder) {
            return Err(DiskErrorKind::NotFound);
        }
        let durable = &mut self.durable;
        self.loose.retain(|loose| {
            let covered = loose.order <= mark && parent(loose.change.path()) == folder;
            if covered {
                apply(durable, &loose.change);
            }
            !covered
        });
        Ok(())
    }

    /// Forgets changes of a folder unflushed, as a failing flush may: `lost` says which.
    pub(crate) fn flush_failing(&mut self, mark: u64, folder: &str, lost: &mut dyn FnMut() -> bool) {
        self.loose.retain(|loose| loose.order > mark || parent(loose.change.path()) != folder || !lost());
    }

    /// Names every loose change, in order.
    pub(crate) fn each_loose(&self, each: &mut dyn FnMut(Loose)) {
        for loose in &self.loose {
            let (inode, text) = match &loose.change {
                Change::Make { path, node: Node::File(file) } => (*file, format!("create {path}")),
                Change::Make { path, node: Node::Folder } => (u32::MAX, format!("make folder {path}")),
                Change::Remove { path } => (u32::MAX, format!("remove {path}")),
                Change::Rename { from, to, file } => (*file, format!("rename {from} to {to}")),
            };
            each(Loose { inode, kind: LooseKind::Name { text } });
        }
    }

    /// What a crash leaves. Asks for fates in the order of [`Self::each_loose`].
    pub(crate) fn survive(mut self, fate: &mut dyn FnMut() -> Fate) -> Self {
        for loose in &self.loose {
            if fate() == Fate::Kept {
                apply(&mut self.durable, &loose.change);
            }
        }
        let mut live: BTreeMap<String, Node> = BTreeMap::new();
        for (path, node) in self.durable {
            let above = parent(&path);
            if above.is_empty() || live.get(above) == Some(&Node::Folder) {
                live.insert(path, node);
            }
        }
        Self { durable: live.clone(), live, loose: Vec::new() }
    }
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Self::Make { path, .. } | Self::Remove { path } | Self::Rename { to: path, .. } => path,
        }
    }
}

/// One change, atomically. What it starts from may not be there: an earlier change was lost.
fn apply(names: &mut BTreeMap<String, Node>, change: &Change) {
    match change {
        Change::Make { path, node } => {
            names.insert(path.clone(), *node);
        }
        Change::Remove { path } => {
            names.remove(path);
        }
        Change::Rename { from, to, file } => {
            if names.get(from) == Some(&Node::File(*file)) {
                names.remove(from);
            }
            names.insert(to.clone(), Node::File(*file));
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
