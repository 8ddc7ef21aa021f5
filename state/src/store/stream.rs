//! All rows of a sorted file, in order, read front to back in large windows: how merges read, and how a file is checked.
//! The index is not needed, because data blocks follow one another.

use super::block::{Block, Entry, Payload};
use super::footer::Footer;
use super::frame::{BLOCK_BYTES_MAX, FRAME_BYTES, Frames, Place, stored_bytes};
use super::tail::Tail;
use super::{BlockKind, Damage, Fault, FileNumber, Part, Properties, Stop, Tombstones, Version, Wanted};
use gristmill_base::limits::STORE_WINDOW_BYTES;

/// A stream over a file. Call [`Self::peek`], which may lack bytes; hand these to [`Self::fill`] and call again.
#[derive(Debug)]
pub struct FileStream {
    place: Place,
    length: u64,
    frames: Frames,
    footer: Option<Footer>,
    tail: Option<Tail>,
    window: Vec<u8>,
    window_at: u64,
    /// Where the next block is.
    at: u64,
    block: Option<Block>,
    entry: Entry,
    /// Last key of the block before.
    last: Vec<u8>,
}

impl FileStream {
    /// Over a file of that length.
    #[must_use]
    pub fn new(directory: u128, file: FileNumber, length: u64) -> Self {
        Self {
            place: Place { directory, file },
            length,
            frames: Frames::default(),
            footer: None,
            tail: None,
            window: Vec::new(),
            window_at: 0,
            at: 0,
            block: None,
            entry: Entry::default(),
            last: Vec::new(),
        }
    }

    /// Takes what a [`Stop::Miss`] wanted.
    ///
    /// # Errors
    /// The bytes are not what belongs there.
    pub fn fill(&mut self, wanted: Wanted, bytes: &[u8]) -> Result<(), Damage> {
        if bytes.len() != wanted.bytes {
            let fault = Fault::Ends { wanted: wanted.bytes, found: bytes.len() };
            return Err(self.place.damage(wanted.offset, fault));
        }
        match wanted.part {
            Part::Footer => self.footer = Some(Footer::open(self.place, wanted.offset, bytes)?),
            Part::Tail => {
                let footer = self.footer.expect("the tail is wanted once the footer is known");
                self.tail = Some(Tail::open(self.place, footer, bytes, &mut self.frames)?);
            }
            _ => {
                self.window.clear();
                self.window.extend_from_slice(bytes);
                self.window_at = wanted.offset;
            }
        }
        Ok(())
    }

    /// What the end of the file says.
    pub(super) fn tail(&self) -> Result<&Tail, Stop> {
        match (&self.tail, &self.footer) {
            (Some(tail), _) => Ok(tail),
            (None, Some(footer)) => Err(Stop::Miss(Tail::wanted(self.place.file, self.length, footer))),
            (None, None) => Err(Stop::Miss(Tail::footer_wanted(self.place.file, self.length))),
        }
    }

    /// Range tombstones of the file.
    ///
    /// # Errors
    /// What it lacks.
    pub fn tombstones(&self) -> Result<&Tombstones, Stop> {
        self.tail().map(|tail| &tail.tombstones)
    }

    /// What the file says of itself.
    ///
    /// # Errors
    /// What it lacks.
    pub fn properties(&self) -> Result<&Properties, Stop> {
        self.tail().map(|tail| &tail.properties)
    }

    /// Key of the row that the stream is at; none behind the last.
    ///
    /// # Errors
    /// What it lacks, or damage.
    pub fn peek(&mut self) -> Result<Option<&[u8]>, Stop> {
        if self.block.is_none() && !self.load_next()? {
            return Ok(None);
        }
        Ok(Some(&self.entry.key))
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> FileNumber {
        self.place.file
    }

    /// Key of the row that the last [`Self::peek`] found, unless it was left since.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.block.as_ref().map(|_| &*self.entry.key)
    }

    /// The row that the stream is at.
    ///
    /// # Panics
    /// The last [`Self::peek`] found none.
    #[must_use]
    pub fn version(&self) -> Version {
        self.block.as_ref().expect("a row was just seen").version(&self.entry)
    }

    /// Goes behind the row that the stream is at.
    pub fn advance(&mut self) {
        if let Some(block) = &self.block
            && !block.next(&mut self.entry)
        {
            self.last.clone_from(&self.entry.key);
            self.block = None;
        }
    }

    /// Loads the next block, if there is one.
    fn load_next(&mut self) -> Result<bool, Stop> {
        let footer = self.tail()?.footer;
        if self.at >= footer.data_end {
            return Ok(false);
        }
        let left = footer.data_end - self.at;
        let Some(head) = self.window_from(FRAME_BYTES).and_then(|bytes| bytes.first_chunk::<FRAME_BYTES>()) else {
            return Err(self.miss(left, FRAME_BYTES));
        };
        let bytes = stored_bytes(head);
        if bytes > BLOCK_BYTES_MAX || bytes as u64 > left {
            let fault = Fault::Size { found: bytes as u64, allowed: left.min(BLOCK_BYTES_MAX as u64) };
            return Err(self.place.damage(self.at, fault).into());
        }
        let from = (self.at - self.window_at) as usize;
        let Some(block) = self.window.get(from..from + bytes) else { return Err(self.miss(left, bytes)) };
        let body = self.frames.open(self.place, self.at, BlockKind::Data, block)?;
        let block = Block::load(body, Payload::Row).map_err(|fault| self.place.damage(self.at, fault))?;
        block.go(0, &mut self.entry);
        if self.at > 0 && self.last >= self.entry.key {
            return Err(self.place.damage(self.at, Fault::Order).into());
        }
        self.block = Some(block);
        self.at = (self.at + bytes as u64).next_multiple_of(u64::from(footer.alignment));
        Ok(true)
    }

    fn window_from(&self, bytes: usize) -> Option<&[u8]> {
        let from = usize::try_from(self.at.checked_sub(self.window_at)?).ok()?;
        self.window.get(from..from + bytes)
    }

    fn miss(&self, left: u64, least: usize) -> Stop {
        if left < least as u64 {
            return self.place.damage(self.at, Fault::Ends { wanted: least, found: left as usize }).into();
        }
        let bytes = left.min(STORE_WINDOW_BYTES.max(least) as u64) as usize;
        Stop::Miss(Wanted { file: self.place.file, offset: self.at, bytes, part: Part::Window })
    }
}
