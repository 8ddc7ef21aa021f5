//! A position in a run, moved forward or backward over its files.

use super::block::{Block, Entry};
use super::{BlockKind, Blocks, FileNumber, Run, Stop, Version};
use std::rc::Rc;

/// The last leaf of a file, or the last block of a leaf.
const LAST: usize = usize::MAX;

/// Which way rows are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// Where a cursor is, or is about to be.
#[derive(Clone, Debug)]
enum At {
    /// At the first row from a key on, or behind it if not `inclusive`; backward: at the last row up to it.
    Seek { key: Vec<u8>, inclusive: bool },
    /// At the first row of a block, backward the last one: numbers of file, leaf and block.
    Block(usize, usize, usize),
    /// At a row of that block.
    Row(usize, usize, usize, Rc<Block>),
    /// Behind the last row.
    End,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct RunCursor {
    direction: Direction,
    at: At,
    entry: Entry,
    /// The leaf in use: file, number, and it. Held so that loading a data block cannot push it out.
    leaf: Option<(FileNumber, usize, Rc<Block>)>,
}

impl RunCursor {
    pub(super) fn new(direction: Direction, key: Vec<u8>, inclusive: bool) -> Self {
        Self { direction, at: At::Seek { key, inclusive }, entry: Entry::default(), leaf: None }
    }

    pub(super) fn seek(&mut self, key: Vec<u8>, inclusive: bool) {
        self.at = At::Seek { key, inclusive };
    }

    /// Comes to a row, if there is one.
    pub(super) fn settle(&mut self, run: &Run, blocks: &mut Blocks) -> Result<bool, Stop> {
        loop {
            self.at = match &self.at {
                At::Row(..) => return Ok(true),
                At::End => return Ok(false),
                At::Seek { key, inclusive } => {
                    let (key, inclusive) = (key.clone(), *inclusive);
                    match self.direction {
                        Direction::Forward => self.seek_forward(run, blocks, &key, inclusive)?,
                        Direction::Backward => self.seek_backward(run, blocks, &key, inclusive)?,
                    }
                }
                At::Block(file, leaf, block) => {
                    let (file, leaf, block) = (*file, *leaf, *block);
                    self.enter(run, blocks, file, leaf, block)?
                }
            };
        }
    }

    /// Key of the row that it is at.
    pub(super) fn key(&self) -> Option<&[u8]> {
        matches!(self.at, At::Row(..)).then_some(&*self.entry.key)
    }

    /// Number of the row's file in the run.
    pub(super) fn file(&self) -> usize {
        if let At::Row(file, ..) = &self.at { *file } else { LAST }
    }

    pub(super) fn version(&self) -> Version {
        let At::Row(_, _, _, block) = &self.at else { unreachable!("a row was just seen") };
        block.version(&self.entry)
    }

    /// Leaves the row.
    pub(super) fn advance(&mut self) {
        let At::Row(file, leaf, number, block) = &self.at else { return };
        let next = match self.direction {
            Direction::Forward if block.next(&mut self.entry) => return,
            Direction::Forward => At::Block(*file, *leaf, number + 1),
            Direction::Backward if self.entry.index > 0 => {
                let before = self.entry.index - 1;
                block.go(before, &mut self.entry);
                return;
            }
            Direction::Backward => before(*file, *leaf, *number),
        };
        self.at = next;
    }

    fn leaf(
        &mut self,
        run: &Run,
        blocks: &mut Blocks,
        file: usize,
        root: &Block,
        number: usize,
    ) -> Result<Rc<Block>, Stop> {
        let of = run.files[file].number;
        if let Some((held_file, held, leaf)) = &self.leaf
            && (*held_file, *held) == (of, number)
        {
            return Ok(Rc::clone(leaf));
        }
        let mut entry = Entry::default();
        root.go(number, &mut entry);
        let leaf = blocks.block(of, root.place(&entry), BlockKind::Leaf)?;
        self.leaf = Some((of, number, Rc::clone(&leaf)));
        Ok(leaf)
    }

    fn data(blocks: &mut Blocks, of: FileNumber, leaf: &Block, number: usize) -> Result<Rc<Block>, Stop> {
        let mut entry = Entry::default();
        leaf.go(number, &mut entry);
        blocks.block(of, leaf.place(&entry), BlockKind::Data)
    }

    fn seek_forward(&mut self, run: &Run, blocks: &mut Blocks, key: &[u8], inclusive: bool) -> Result<At, Stop> {
        let file = run.files.partition_point(|file| &*file.range.to <= key);
        let Some(meta) = run.files.get(file) else { return Ok(At::End) };
        let tail = blocks.tail(meta.number, meta.bytes)?;
        let next_file = At::Block(file + 1, 0, 0);
        let Some(root) = &tail.root else { return Ok(next_file) };
        let mut entry = Entry::default();
        if !root.seek(key, !inclusive, &mut entry) {
            return Ok(next_file);
        }
        let leaf_number = entry.index;
        let leaf = self.leaf(run, blocks, file, root, leaf_number)?;
        if !leaf.seek(key, !inclusive, &mut entry) {
            return Ok(At::Block(file, leaf_number + 1, 0));
        }
        let number = entry.index;
        let data = Self::data(blocks, meta.number, &leaf, number)?;
        if data.seek(key, !inclusive, &mut self.entry) {
            Ok(At::Row(file, leaf_number, number, data))
        } else {
            Ok(At::Block(file, leaf_number, number + 1))
        }
    }

    fn seek_backward(&mut self, run: &Run, blocks: &mut Blocks, key: &[u8], inclusive: bool) -> Result<At, Stop> {
        let files = run
            .files
            .partition_point(|file| if inclusive { &*file.range.from <= key } else { &*file.range.from < key });
        let Some(file) = files.checked_sub(1) else { return Ok(At::End) };
        let meta = &run.files[file];
        let tail = blocks.tail(meta.number, meta.bytes)?;
        let Some(root) = &tail.root else { return Ok(before(file, 0, 0)) };
        let mut entry = Entry::default();
        if !root.seek(key, false, &mut entry) {
            return Ok(At::Block(file, LAST, LAST));
        }
        let leaf_number = entry.index;
        let leaf = self.leaf(run, blocks, file, root, leaf_number)?;
        if !leaf.seek(key, false, &mut entry) {
            return Ok(At::Block(file, leaf_number, LAST));
        }
        let number = entry.index;
        let data = Self::data(blocks, meta.number, &leaf, number)?;
        // The first row that is too far; the one before it is wanted.
        let behind = if data.seek(key, inclusive, &mut self.entry) { self.entry.index } else { data.count() };
        let Some(index) = behind.checked_sub(1) else { return Ok(before(file, leaf_number, number)) };
        data.go(index, &mut self.entry);
        Ok(At::Row(file, leaf_number, number, data))
    }

    fn enter(&mut self, run: &Run, blocks: &mut Blocks, file: usize, leaf: usize, block: usize) -> Result<At, Stop> {
        let forward = self.direction == Direction::Forward;
        let Some(meta) = run.files.get(file) else { return Ok(At::End) };
        let tail = blocks.tail(meta.number, meta.bytes)?;
        let Some(root) = tail.root.as_ref().filter(|root| leaf < root.count() || leaf == LAST) else {
            return Ok(if forward { At::Block(file + 1, 0, 0) } else { before(file, 0, 0) });
        };
        let leaf_number = leaf.min(root.count() - 1);
        let leaf = self.leaf(run, blocks, file, root, leaf_number)?;
        if block >= leaf.count() && block != LAST {
            return Ok(At::Block(file, leaf_number + 1, 0));
        }
        let number = block.min(leaf.count() - 1);
        let data = Self::data(blocks, meta.number, &leaf, number)?;
        data.go(if forward { 0 } else { data.count() - 1 }, &mut self.entry);
        Ok(At::Row(file, leaf_number, number, data))
    }
}

/// The last row before a block.
fn before(file: usize, leaf: usize, block: usize) -> At {
    match (file, leaf, block) {
        (0, 0, 0) => At::End,
        (file, 0, 0) => At::Block(file - 1, LAST, LAST),
        (file, leaf, 0) => At::Block(file, leaf - 1, LAST),
        (file, leaf, block) => At::Block(file, leaf, block - 1),
    }
}
