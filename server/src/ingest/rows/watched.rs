//! A reader that watches CSV go by: how much since the last row, and whether a quote is open.

use super::ROW_BYTES_MAX;
use gristmill_base::checksum::crc32c_append;
use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// Bytes that the CSV reader may have read ahead of the row.
const AHEAD_BYTES: usize = 64 << 10;

/// What is known of the bytes that went by.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Since the last row.
    pub(super) since: Cell<usize>,
    quote: Cell<Quote>,
    /// Whether the end was seen.
    ended: Cell<bool>,
    /// Of everything, where it is kept.
    pub(super) crc: Cell<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Quote {
    /// A field begins.
    #[default]
    Start,
    /// In a field without quotes.
    Plain,
    /// In quotes.
    Open,
    /// Behind a quote in quotes: the end, or the first of two.
    Half,
}

impl Seen {
    /// Whether the bytes are at their end, within quotes.
    pub(super) fn ends_open(&self) -> bool {
        self.ended.get() && self.is_open()
    }

    /// Whether the bytes so far end within quotes.
    fn is_open(&self) -> bool {
        self.quote.get() == Quote::Open
    }

    fn look(&self, bytes: &[u8]) {
        let mut quote = self.quote.get();
        for byte in bytes {
            quote = match (quote, byte) {
                (Quote::Open, b'"') => Quote::Half,
                (Quote::Open, _) => Quote::Open,
                (Quote::Start | Quote::Half, b'"') => Quote::Open,
                (_, b',' | b'\n' | b'\r') => Quote::Start,
                _ => Quote::Plain,
            };
        }
        self.quote.set(quote);
    }
}

/// See the module.
pub(super) struct Watched<R> {
    inner: R,
    seen: Rc<Seen>,
    sums: bool,
}

impl<R> Watched<R> {
    /// Watches a reader; `sums` keeps a checksum.
    pub(super) fn new(inner: R, sums: bool) -> (Self, Rc<Seen>) {
        let seen = Rc::new(Seen::default());
        (Self { inner, seen: Rc::clone(&seen), sums }, seen)
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let since = self.seen.since.get();
        if since > ROW_BYTES_MAX + AHEAD_BYTES {
            let hint = if self.seen.is_open() { "; is a quote not closed?" } else { "" };
            return Err(io::Error::other(format!("a row of more than {ROW_BYTES_MAX} bytes, which are allowed{hint}")));
        }
        let count = self.inner.read(buf)?;
        self.seen.ended.set(count == 0 && !buf.is_empty());
        self.seen.since.set(since + count);
        self.seen.look(&buf[..count]);
        if self.sums {
            self.seen.crc.set(crc32c_append(self.seen.crc.get(), &buf[..count]));
        }
        Ok(count)
    }
}

impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.seen.quote.set(Quote::Start);
        self.seen.since.set(0);
        self.inner.seek(to)
    }
}
