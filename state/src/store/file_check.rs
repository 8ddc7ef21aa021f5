//! Reads everything of a sorted file, and the values that it points at, and tells every damage with what lay there. Goes on
//! behind a damage as far as the index leads.

use super::block::{Block, Entry, Payload};
use super::filter::{self, FilterPage, filter_hash};
use super::footer::Footer;
use super::frame::{FRAME_BYTES, Frames, Place};
use super::row_key::key_words;
use super::tail::Tail;
use super::{
    BlockKind, Content, Damage, Fault, FileNumber, KeyRange, Part, ValueRef, Wanted, open_value, value_wanted,
};
use gristmill_base::limits::BLOCK_BYTES;
use std::collections::VecDeque;
use std::fmt;

/// What lay where a damage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// What leads to all of the file.
    File,
    /// Rows between these keys.
    Rows(KeyRange),
    /// What leads to rows between these keys.
    Index(KeyRange),
    /// A part of the filter: rows of the file may be taken for absent, so it is not read on.
    Filter,
    /// The value of a row.
    Value(Vec<u8>),
}

/// A damaged range of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File, first byte, and what is wrong.
    pub damage: Damage,
    /// How many bytes.
    pub bytes: usize,
    /// What lay there.
    pub held: Held,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, offset, fault } = &self.damage;
        let end = offset + self.bytes.max(1) as u64 - 1;
        write!(f, "file {file} of the store, bytes {offset} to {end}, {}: {fault}", self.held)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("which lead to all of it"),
            Self::Rows(range) => write!(f, "rows behind {} up to {}", key_words(&range.from), key_words(&range.to)),
            Self::Index(range) => {
                write!(f, "which lead to rows behind {} up to {}", key_words(&range.from), key_words(&range.to))
            }
            Self::Filter => f.write_str("a part of its filter"),
            Self::Value(key) => write!(f, "the value of {}", key_words(key)),
        }
    }
}

/// What is read next.
#[derive(Clone, Debug)]
enum Next {
    Footer,
    Tail(Footer),
    /// A page of the filter.
    Filter(usize),
    /// A leaf, by its number.
    Leaf(usize),
    /// A data block, by the number of its leaf and its own.
    Data(usize, usize),
    Done,
}

/// See the module. Memory: the end of the file, its filter, a leaf, and the places of a block's values.
#[derive(Debug)]
pub struct FileCheck {
    place: Place,
    length: u64,
    frames: Frames,
    next: Next,
    tail: Option<Tail>,
    pages: Vec<Option<FilterPage>>,
    leaf: Option<Block>,
    /// Separator of the leaf, and of the block, before: keys are above it.
    leaf_from: Vec<u8>,
    block_from: Vec<u8>,
    values: VecDeque<(Vec<u8>, ValueRef)>,
    rows: u64,
    findings: Vec<Finding>,
    /// Whether values are read too.
    reads_values: bool,
}

impl FileCheck {
    /// Of a file of that length.
    #[must_use]
    pub fn new(directory: u128, file: FileNumber, length: u64) -> Self {
        Self {
            place: Place { directory, file },
            length,
            frames: Frames::default(),
            next: Next::Footer,
            tail: None,
            pages: Vec::new(),
            leaf: None,
            leaf_from: Vec::new(),
            block_from: Vec::new(),
            values: VecDeque::new(),
            rows: 0,
            findings: Vec::new(),
            reads_values: true,
        }
    }

    /// The same, but of the file alone: values in other files are not asked for.
    #[must_use]
    pub fn without_values(mut self) -> Self {
        self.reads_values = false;
        self
    }

    /// What it found so far.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Rows that it has read.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What to read next; nothing at the end.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        if let Some((key, at)) = self.values.front() {
            return Some(value_wanted(*at, key));
        }
        let file = self.place.file;
        let block = |at: super::block::BlockPlace, kind| {
            Some(Wanted { file, offset: at.offset, bytes: at.bytes, part: Part::Block(kind) })
        };
        match &self.next {
            Next::Footer => Some(Tail::footer_wanted(file, self.length)),
            Next::Tail(footer) => Some(Tail::wanted(file, self.length, footer)),
            Next::Filter(page) => {
                let footer = self.tail.as_ref()?.footer;
                let offset = footer.filter_at + (page * BLOCK_BYTES) as u64;
                let bytes = FRAME_BYTES + filter::page_bytes(*page, footer.filter_lines);
                Some(Wanted { file, offset, bytes, part: Part::Block(BlockKind::Filter) })
            }
            Next::Leaf(leaf) => {
                let mut entry = Entry::default();
                let root = self.tail.as_ref()?.root.as_ref()?;
                root.go(*leaf, &mut entry);
                block(root.place(&entry), BlockKind::Leaf)
            }
            Next::Data(_, number) => {
                let mut entry = Entry::default();
                let leaf = self.leaf.as_ref()?;
                leaf.go(*number, &mut entry);
                block(leaf.place(&entry), BlockKind::Data)
            }
            Next::Done => None,
        }
    }

    /// Takes the bytes that were wanted; fewer, or none, where they cannot be read.
    pub fn fill(&mut self, bytes: &[u8]) {
        let Some(wanted) = self.wanted() else { return };
        if let Some((key, at)) = self.values.pop_front() {
            if let Err(damage) = open_value(self.place.directory, at, &key, bytes) {
                self.findings.push(Finding { damage, bytes: wanted.bytes, held: Held::Value(key) });
            }
            return;
        }
        match self.next.clone() {
            Next::Footer => match Footer::open(self.place, wanted.offset, bytes) {
                Ok(footer) => self.next = Next::Tail(footer),
                Err(damage) => self.end_with(damage, wanted),
            },
            Next::Tail(footer) => match Tail::open(self.place, footer, bytes, &mut self.frames) {
                Ok(tail) => {
                    self.tail = Some(tail);
                    self.next = if footer.filter_lines > 0 { Next::Filter(0) } else { self.leaf_or_end(0) };
                }
                Err(damage) => self.end_with(damage, wanted),
            },
            Next::Filter(page) => self.fill_filter(page, wanted, bytes),
            Next::Leaf(leaf) => self.fill_leaf(leaf, wanted, bytes),
            Next::Data(leaf, number) => self.fill_data(leaf, number, wanted, bytes),
            Next::Done => {}
        }
    }

    fn end_with(&mut self, damage: Damage, wanted: Wanted) {
        let bytes = (wanted.offset + wanted.bytes as u64).saturating_sub(damage.offset) as usize;
        self.findings.push(Finding { damage, bytes, held: Held::File });
        self.next = Next::Done;
    }

    fn open<T>(
        &mut self,
        wanted: Wanted,
        kind: BlockKind,
        bytes: &[u8],
        load: impl FnOnce(Vec<u8>) -> Result<T, Fault>,
    ) -> Result<T, Damage> {
        let body = self.frames.open(self.place, wanted.offset, kind, bytes)?;
        load(body).map_err(|fault| self.place.damage(wanted.offset, fault))
    }

    fn fill_filter(&mut self, page: usize, wanted: Wanted, bytes: &[u8]) {
        let loaded = self.open(wanted, BlockKind::Filter, bytes, FilterPage::load);
        if let Err(damage) = &loaded {
            let damage = damage.clone();
            self.findings.push(Finding { damage, bytes: wanted.bytes, held: Held::Filter });
        }
        self.pages.push(loaded.ok());
        let lines = self.tail.as_ref().map_or(0, |tail| tail.footer.filter_lines);
        self.next = if page + 1 < filter::page_count(lines) { Next::Filter(page + 1) } else { self.leaf_or_end(0) };
    }

    /// The leaf with that number, or the end of the check.
    fn leaf_or_end(&mut self, leaf: usize) -> Next {
        let Some(tail) = &self.tail else { return Next::Done };
        if tail.root.as_ref().is_some_and(|root| leaf < root.count()) {
            return Next::Leaf(leaf);
        }
        // Damaged blocks are told already; without any, what is said of the rows must be so.
        if self.findings.is_empty() && self.rows != tail.properties.rows {
            let damage = self.place.damage(tail.footer.properties.offset, Fault::Order);
            let bytes = tail.footer.properties.bytes;
            self.findings.push(Finding { damage, bytes, held: Held::File });
        }
        Next::Done
    }

    fn fill_leaf(&mut self, leaf: usize, wanted: Wanted, bytes: &[u8]) {
        let mut entry = Entry::default();
        if let Some(root) = self.tail.as_ref().and_then(|tail| tail.root.as_ref()) {
            root.go(leaf, &mut entry);
        }
        let range = KeyRange { from: std::mem::replace(&mut self.leaf_from, entry.key.clone()), to: entry.key };
        self.block_from.clone_from(&range.from);
        match self.open(wanted, BlockKind::Leaf, bytes, |body| Block::load(body, Payload::Place)) {
            Ok(block) => {
                self.leaf = Some(block);
                self.next = Next::Data(leaf, 0);
            }
            Err(damage) => {
                self.findings.push(Finding { damage, bytes: wanted.bytes, held: Held::Index(range) });
                self.next = self.leaf_or_end(leaf + 1);
            }
        }
    }

    fn fill_data(&mut self, leaf: usize, number: usize, wanted: Wanted, bytes: &[u8]) {
        let mut entry = Entry::default();
        let mut count = 0;
        if let Some(block) = &self.leaf {
            block.go(number, &mut entry);
            count = block.count();
        }
        let range = KeyRange { from: std::mem::replace(&mut self.block_from, entry.key.clone()), to: entry.key };
        let opened = self.open(wanted, BlockKind::Data, bytes, |body| Block::load(body, Payload::Row));
        let checked = opened.and_then(|block| self.check_rows(&block, &range, wanted.offset));
        if let Err(damage) = checked {
            self.findings.push(Finding { damage, bytes: wanted.bytes, held: Held::Rows(range) });
        }
        self.next = if number + 1 < count { Next::Data(leaf, number + 1) } else { self.leaf_or_end(leaf + 1) };
    }

    /// Rows lie where the index says, and the filter lets them pass.
    fn check_rows(&mut self, block: &Block, range: &KeyRange, offset: u64) -> Result<(), Damage> {
        let lines = self.tail.as_ref().map_or(0, |tail| tail.footer.filter_lines);
        let mut entry = Entry::default();
        block.go(0, &mut entry);
        loop {
            let is_inside = range.from < entry.key && entry.key <= range.to;
            let hash = filter_hash(&entry.key);
            let page = if lines == 0 { None } else { self.pages[filter::page_of(hash, lines)].as_ref() };
            if !is_inside || page.is_some_and(|page| !page.may_hold(hash, lines)) {
                return Err(self.place.damage(offset, Fault::Order));
            }
            if let Content::Stored(at) = block.version(&entry).content
                && self.reads_values
            {
                self.values.push_back((entry.key.clone(), at));
            }
            self.rows += 1;
            if !block.next(&mut entry) {
                return Ok(());
            }
        }
    }
}
