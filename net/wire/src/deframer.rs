//! Received bytes, out of which complete frames are taken.

use gristmill_base::limits::FRAME_BYTES_BEFORE_HELLO;

use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameKind};

/// Capacity that an emptied buffer keeps; more goes back, so that many idle connections stay small.
const KEPT_BYTES: usize = 64 << 10;

/// The receive buffer of one connection. It grows with what arrives, never by what a header declares.
///
/// ```
/// # use gristmill_wire::{Deframer, FrameKind};
/// # let received = &b""[..];
/// let mut deframer = Deframer::new(FrameKind::Requests);
/// deframer.push(received);
/// while let Some(frame) = deframer.next_frame()? {
///     for request in frame.requests() { /* ... */ }
/// }
/// # Ok::<(), gristmill_wire::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Deframer {
    kind: FrameKind,
    /// Longest frame that may come now, header included.
    allowed: usize,
    bytes: Vec<u8>,
    /// Start of what no frame was taken from yet; never beyond the end of `bytes`.
    start: usize,
}

impl Deframer {
    /// An empty buffer that gives frames of `kind`, at first none longer than before hello.
    #[must_use]
    pub fn new(kind: FrameKind) -> Self {
        Self { kind, allowed: FRAME_BYTES_BEFORE_HELLO, bytes: Vec::new(), start: 0 }
    }

    /// From now on frames of up to `bytes`, header included, may come. A server calls it after a good hello, a client
    /// at once.
    pub fn allow(&mut self, bytes: usize) {
        self.allowed = bytes.max(FRAME_HEADER_BYTES);
    }

    /// Adds received bytes.
    pub fn push(&mut self, received: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(received);
    }

    /// The next complete frame, or nothing until more bytes come.
    ///
    /// # Errors
    /// Bytes that are no frame: the connection cannot be read on, and every later call says so again.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        match Frame::split(&self.bytes[self.start..], self.kind, self.allowed)? {
            Some((frame, used)) => {
                self.start += used;
                Ok(Some(frame))
            }
            None => Ok(None),
        }
    }

    /// Whether [`Self::next_frame`] would give a frame or an error now.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        !matches!(Frame::split(&self.bytes[self.start..], self.kind, self.allowed), Ok(None))
    }

    /// Bytes of a frame that is not complete. A connection that keeps this above 0 for too long is closed.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Gives all memory back, if no byte waits.
    pub fn give_back(&mut self) {
        if self.waiting() == 0 {
            (self.bytes, self.start) = (Vec::new(), 0);
        }
    }

    /// Bytes that the buffer occupies.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives up taken bytes. What moves is at most as much as was taken, so each byte moves once on average.
    fn compact(&mut self) {
        let left = self.waiting();
        if left == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.start = 0;
        } else if self.start >= left {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;
    use crate::writer::RequestWriter;

    fn pings(count: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for correlation in 0..count {
            let mut writer = RequestWriter::new(&mut bytes);
            writer.push(correlation, &Operation::Ping).unwrap();
            writer.finish();
        }
        bytes
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let bytes = pings(50);
        for step in [1, 3, 7, 25, 64, bytes.len()] {
            let mut deframer = Deframer::new(FrameKind::Requests);
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                deframer.push(piece);
                while deframer.has_frame() {
                    let frame = deframer.next_frame().unwrap().expect("it has one");
                    seen.extend(frame.requests().map(|request| request.unwrap().correlation));
                }
            }
            assert_eq!(seen, (0..50).collect::<Vec<_>>(), "step {step}");
            assert_eq!(deframer.waiting(), 0);
        }
    }

    #[test]
    fn a_declared_length_reserves_nothing_and_an_over_long_one_ends_it() {
        let mut deframer = Deframer::new(FrameKind::Requests);
        let mut header = pings(1)[..FRAME_HEADER_BYTES].to_vec();
        header[8..12].copy_from_slice(&60_000_u32.to_le_bytes());
        deframer.push(&header);
        assert_eq!(deframer.next_frame(), Ok(None));
        assert!(deframer.bytes.capacity() < 1_000);
        header[8..12].copy_from_slice(&70_000_u32.to_le_bytes());
        let mut deframer = Deframer::new(FrameKind::Requests);
        deframer.push(&header);
        assert_eq!(
            deframer.next_frame(),
            Err(FrameError::TooLong { found: 70_016, allowed: FRAME_BYTES_BEFORE_HELLO })
        );
        assert!(deframer.has_frame(), "an error is worth a look");
        assert!(deframer.next_frame().is_err());
        deframer.allow(80_000);
        assert_eq!(deframer.next_frame(), Ok(None));
    }
}
