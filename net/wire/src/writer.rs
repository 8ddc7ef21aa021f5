//! Frames in the making: operations or results are appended to a byte vector that the caller owns and sends.

use gristmill_base::class::InputClass;
use gristmill_base::codec::{DecodeError, Put, Short, varint_bytes};
use gristmill_base::ids::Offset;
use gristmill_base::limits::{FRAME_BYTES_MAX, FRAME_OPERATIONS_MAX, VALUE_BYTES_MAX};

use crate::batch::write_batch;
use crate::frame::{FRAME_HEADER_BYTES, FrameKind, seal};
use crate::operation::Operation;
use crate::page::{Entry, Event, Row, write_items, write_query_head, write_read_head};
use crate::reply::{Failure, Reply};
use crate::request::{BULK_CODE, CORRELATION_NONE};
use crate::status::Status;
use crate::watch::{Change, write_watch_head};
use gristmill_base::ids::{ShardId, SlotId};
use gristmill_base::watch::WatchPosition;

/// Bytes before the body of a result: correlation, status, length.
pub const RESULT_HEADER_BYTES: usize = 10;

/// Appends whole frames to `out`; begins another frame when one is full.
#[derive(Debug)]
struct FrameWriter<'v> {
    out: &'v mut Vec<u8>,
    kind: FrameKind,
    /// Start of the open frame in `out`; meaningless while `items` is 0.
    start: usize,
    /// Items of the open frame; there is no open frame while it is 0.
    items: usize,
}

impl FrameWriter<'_> {
    /// Appends one item: `head`, the length of the body, and the body. On an error nothing was appended.
    fn item(
        &mut self,
        head: &[u8],
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if self.items == FRAME_OPERATIONS_MAX {
            self.seal();
        }
        let before = self.out.len();
        if self.items == 0 {
            self.start = before;
            self.out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        }
        let item = self.out.len();
        self.out.extend_from_slice(head);
        let length_at = self.out.len();
        self.out.put_u32(0);
        let body_at = self.out.len();
        let fits = body(self.out).and_then(|()| check_frame(FRAME_HEADER_BYTES + self.out.len() - item));
        if let Err(error) = fits {
            self.out.truncate(before);
            return Err(error);
        }
        let length = u32::try_from(self.out.len() - body_at).expect("an item that fits a frame fits 32 bits");
        self.out[length_at..body_at].copy_from_slice(&length.to_le_bytes());
        if self.out.len() - self.start > FRAME_BYTES_MAX {
            self.move_to_new_frame(item);
        }
        self.items += 1;
        Ok(())
    }

    /// Appends one item in one piece: its head, up to what comes before the last of its body, and that. On an error
    /// nothing was appended.
    #[inline]
    fn whole_item(&mut self, head: &[u8], body: &[u8]) -> Result<(), DecodeError> {
        let bytes = head.len() + body.len();
        let opens = self.items == 0
            || self.items == FRAME_OPERATIONS_MAX
            || self.out.len() - self.start + bytes > FRAME_BYTES_MAX;
        if opens {
            check_frame(FRAME_HEADER_BYTES + bytes)?;
            self.seal();
            self.start = self.out.len();
            self.out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        }
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(body);
        self.items += 1;
        Ok(())
    }

    /// The last item, which starts at `item`, does not fit behind the others: it opens a frame of its own.
    fn move_to_new_frame(&mut self, item: usize) {
        assert!(self.items > 0, "an item alone was held against the limit before");
        seal(&mut self.out[self.start..item], self.kind);
        self.out.splice(item..item, [0; FRAME_HEADER_BYTES]);
        self.start = item;
        self.items = 0;
    }

    fn seal(&mut self) {
        if self.items > 0 {
            seal(&mut self.out[self.start..], self.kind);
            self.items = 0;
        }
    }
}

fn check_frame(bytes: usize) -> Result<(), DecodeError> {
    if bytes > FRAME_BYTES_MAX {
        return Err(DecodeError::TooLarge { what: "frame", found: bytes as u64, allowed: FRAME_BYTES_MAX as u64 });
    }
    Ok(())
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        self.seal();
    }
}

/// Writes operations; the frames are complete once it is finished or dropped.
#[derive(Debug)]
pub struct RequestWriter<'v> {
    frames: FrameWriter<'v>,
}

impl<'v> RequestWriter<'v> {
    /// Appends to `out`, behind what is there.
    #[must_use]
    pub fn new(out: &'v mut Vec<u8>) -> Self {
        Self { frames: FrameWriter { out, kind: FrameKind::Requests, start: 0, items: 0 } }
    }

    /// Adds a live operation: see [`Self::push_of`].
    ///
    /// # Errors
    /// It is over a limit; nothing was added, and its position in the session is not used.
    pub fn push(&mut self, correlation: u32, operation: &Operation<'_>) -> Result<usize, DecodeError> {
        self.push_of(InputClass::Live, correlation, operation)
    }

    /// Adds an operation and gives the bytes that it takes of the connection's credit. `correlation` must be free on
    /// this connection and not [`CORRELATION_NONE`].
    ///
    /// # Errors
    /// It is over a limit; nothing was added, and its position in the session is not used.
    pub fn push_of(
        &mut self,
        class: InputClass,
        correlation: u32,
        operation: &Operation<'_>,
    ) -> Result<usize, DecodeError> {
        assert!(correlation != CORRELATION_NONE, "the last number is for results that answer no operation");
        let mut head = [0; 5];
        head[0] = operation.code().code() | if class.is_bulk() { BULK_CODE } else { 0 };
        head[1..].copy_from_slice(&correlation.to_le_bytes());
        let mut length = 0;
        self.frames.item(&head, |out| {
            let start = out.len();
            operation.encode(out)?;
            length = out.len() - start;
            Ok(())
        })?;
        Ok(crate::request::OPERATION_HEADER_BYTES + length)
    }

    /// Completes the frames.
    pub fn finish(self) {}
}

/// Writes results; the frames are complete once it is finished or dropped, but not if it [leaves](Self::leave) one open.
#[derive(Debug)]
pub struct ResultWriter<'v> {
    frames: FrameWriter<'v>,
}

/// Where the last frame of some bytes begins that takes more results, and how many it has. While it is open these bytes go
/// to nobody, and stay where they are.
#[derive(Debug, Default)]
pub struct OpenFrame {
    start: usize,
    items: usize,
}

impl<'v> ResultWriter<'v> {
    /// Appends to `out`, behind what is there.
    #[must_use]
    pub fn new(out: &'v mut Vec<u8>) -> Self {
        Self::go_on(out, OpenFrame::default())
    }

    /// Appends to `out`, to the frame that was left open there.
    #[must_use]
    pub fn go_on(out: &'v mut Vec<u8>, OpenFrame { start, items }: OpenFrame) -> Self {
        Self { frames: FrameWriter { out, kind: FrameKind::Results, start, items } }
    }

    /// Leaves the last frame open, for more.
    #[must_use]
    pub fn leave(mut self) -> OpenFrame {
        OpenFrame { start: self.frames.start, items: std::mem::take(&mut self.frames.items) }
    }

    fn ok(
        &mut self,
        correlation: u32,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.frames.item(&head(correlation, Status::Ok), body)
    }

    /// Adds [`Reply::Empty`].
    #[inline]
    pub fn empty(&mut self, correlation: u32) {
        let mut head = Short::default();
        put_head(&mut head, correlation, Status::Ok, 0);
        self.frames.whole_item(head.as_slice(), &[]).expect("a result without a body fits a frame");
    }

    /// Adds [`Reply::Value`].
    ///
    /// # Errors
    /// As [`Self::reply`].
    #[inline]
    pub fn value(&mut self, correlation: u32, value: &[u8]) -> Result<(), DecodeError> {
        if value.len() > VALUE_BYTES_MAX {
            return self.reply(correlation, &Reply::Value(value));
        }
        let mut head = Short::default();
        put_head(&mut head, correlation, Status::Ok, varint_bytes(value.len() as u64) + value.len());
        head.put_varint(value.len() as u64);
        self.frames.whole_item(head.as_slice(), value)
    }

    /// Adds a reply.
    ///
    /// # Errors
    /// It is over a limit; nothing was added, and a failure may be sent in its place.
    pub fn reply(&mut self, correlation: u32, reply: &Reply<'_>) -> Result<(), DecodeError> {
        self.ok(correlation, |out| reply.encode(out))
    }

    /// Adds a reply to read from events that lie elsewhere.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn read<'i>(
        &mut self,
        correlation: u32,
        end: Offset,
        next: Offset,
        events: impl IntoIterator<Item = Event<'i>>,
    ) -> Result<(), DecodeError> {
        self.ok(correlation, |out| {
            write_read_head(out, end, next);
            write_items(out, events)
        })
    }

    /// Adds a reply to fetch from batches that lie elsewhere: offset of the first event, append time, number of events,
    /// bytes.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn fetch<'i>(
        &mut self,
        correlation: u32,
        end: Offset,
        next: Offset,
        batches: impl IntoIterator<Item = (Offset, i64, u32, &'i [u8])>,
    ) -> Result<(), DecodeError> {
        self.ok(correlation, |out| {
            write_read_head(out, end, next);
            batches.into_iter().try_for_each(|(first, time, count, bytes)| write_batch(out, first, time, count, bytes))
        })
    }

    /// Adds a reply to range from entries that lie elsewhere.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn range<'i>(
        &mut self,
        correlation: u32,
        more: bool,
        entries: impl IntoIterator<Item = Entry<'i>>,
    ) -> Result<(), DecodeError> {
        self.ok(correlation, |out| {
            out.put_u8(u8::from(more));
            write_items(out, entries)
        })
    }

    /// Adds a reply to scan from grains that lie elsewhere.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn scan<'i>(
        &mut self,
        correlation: u32,
        more: bool,
        rows: impl IntoIterator<Item = Row<'i>>,
    ) -> Result<(), DecodeError> {
        self.ok(correlation, |out| {
            out.put_u8(u8::from(more));
            write_items(out, rows)
        })
    }

    /// Adds a reply to watch from changes that lie elsewhere.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn watch<'i>(
        &mut self,
        correlation: u32,
        more: bool,
        positions: &[WatchPosition],
        elsewhere: &[(SlotId, ShardId)],
        changes: impl IntoIterator<Item = Change<'i>>,
    ) -> Result<(), DecodeError> {
        self.ok(correlation, |out| {
            write_watch_head(out, more, positions, elsewhere);
            write_items(out, changes)
        })
    }

    /// Adds a reply to query from grains that lie elsewhere.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn query<'i>(
        &mut self,
        correlation: u32,
        next: Option<&[u8]>,
        (looked, index): (u64, Option<&str>),
        rows: impl IntoIterator<Item = Row<'i>>,
    ) -> Result<(), DecodeError> {
        self.ok(correlation, |out| {
            write_query_head(out, next, looked, index)?;
            write_items(out, rows)
        })
    }

    /// Adds a failure.
    pub fn failure(&mut self, correlation: u32, failure: &Failure<'_>) {
        let added = self.frames.item(&head(correlation, failure.status()), |out| {
            failure.encode(out);
            Ok(())
        });
        assert!(added.is_ok(), "a failure is cut to less than a frame");
    }

    /// Completes the frames.
    pub fn finish(self) {}
}

fn head(correlation: u32, status: Status) -> [u8; 6] {
    let mut head = [0; 6];
    head[..4].copy_from_slice(&correlation.to_le_bytes());
    head[4..].copy_from_slice(&status.code().to_le_bytes());
    head
}

/// What comes before the body of a result, with the body's length.
#[inline]
fn put_head(to: &mut Short, correlation: u32, status: Status, body: usize) {
    to.put_u32(correlation);
    to.put_u16(status.code());
    to.put_u32(body as u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deframer::Deframer;
    use crate::opcode::OpCode;
    use gristmill_base::limits::VALUE_BYTES_MAX;

    fn frames(bytes: &[u8], kind: FrameKind) -> Vec<usize> {
        let mut deframer = Deframer::new(kind);
        deframer.allow(FRAME_BYTES_MAX);
        deframer.push(bytes);
        let mut counts = Vec::new();
        while let Some(frame) = deframer.next_frame().unwrap() {
            counts.push(match kind {
                FrameKind::Requests => {
                    frame.requests().filter(|item| item.as_ref().unwrap().operation().is_ok()).count()
                }
                FrameKind::Results => frame.results().filter(Result::is_ok).count(),
            });
        }
        assert_eq!(deframer.waiting(), 0);
        counts
    }

    #[test]
    fn many_operations_share_frames_up_to_the_count_allowed() {
        let mut bytes = b"before".to_vec();
        let mut writer = RequestWriter::new(&mut bytes);
        for correlation in 0..=FRAME_OPERATIONS_MAX as u32 {
            assert_eq!(writer.push(correlation, &Operation::Ping), Ok(9));
        }
        drop(writer);
        assert_eq!(&bytes[..6], b"before");
        assert_eq!(frames(&bytes[6..], FrameKind::Requests), [FRAME_OPERATIONS_MAX, 1]);
    }

    #[test]
    fn a_frame_left_open_takes_more_and_ends_as_one() {
        let (mut at_once, mut in_parts) = (b"before".to_vec(), b"before".to_vec());
        let count = FRAME_OPERATIONS_MAX as u32 + 3;
        let mut writer = ResultWriter::new(&mut at_once);
        (0..count).for_each(|correlation| writer.empty(correlation));
        writer.finish();
        let mut open = OpenFrame::default();
        for correlation in 0..count {
            let mut writer = ResultWriter::go_on(&mut in_parts, open);
            writer.empty(correlation);
            open = writer.leave();
        }
        assert_ne!(at_once, in_parts);
        ResultWriter::go_on(&mut in_parts, open).finish();
        assert_eq!(at_once, in_parts);
        assert_eq!(frames(&in_parts[6..], FrameKind::Results), [FRAME_OPERATIONS_MAX, 3]);
    }

    #[test]
    fn the_short_ways_write_the_same_bytes() {
        let big = vec![9; VALUE_BYTES_MAX];
        let over = vec![9; VALUE_BYTES_MAX + 1];
        let values: [&[u8]; 6] = [b"", b"v", &big[..127], &big[..128], &big, &over];
        let (mut short, mut long) = (Vec::new(), Vec::new());
        let (mut one, mut other) = (ResultWriter::new(&mut short), ResultWriter::new(&mut long));
        for round in 0..3_000_u32 {
            one.empty(round);
            other.reply(round, &Reply::Empty).unwrap();
            let value = values[if round % 500 == 0 { 4 + round as usize % 2 } else { round as usize % 4 }];
            assert_eq!(one.value(round, value), other.reply(round, &Reply::Value(value)));
        }
        assert_eq!(one.value(1, &over), other.reply(1, &Reply::Value(&over)));
        drop((one, other));
        assert!(short == long);
    }

    #[test]
    fn what_does_not_fit_opens_a_frame_of_its_own() {
        let value = vec![7; VALUE_BYTES_MAX];
        let mut bytes = Vec::new();
        let mut writer = ResultWriter::new(&mut bytes);
        for correlation in 0..3 {
            writer.reply(correlation, &Reply::Value(&value)).unwrap();
            writer.reply(correlation, &Reply::Empty).unwrap();
        }
        writer.finish();
        assert_eq!(frames(&bytes, FrameKind::Results), [2, 2, 2]);
    }

    #[test]
    fn what_is_over_a_limit_leaves_nothing_behind() {
        let value = vec![7; VALUE_BYTES_MAX + 1];
        let mut bytes = Vec::new();
        let mut writer = ResultWriter::new(&mut bytes);
        assert!(writer.reply(1, &Reply::Value(&value)).is_err());
        let big = vec![1; VALUE_BYTES_MAX];
        let event = Entry { key: b"k", value: &big };
        assert!(matches!(writer.range(2, false, [event, event]), Err(DecodeError::TooLarge { what: "frame", .. })));
        writer.failure(3, &Failure::new(Status::Internal, "too large"));
        assert!(writer.reply(4, &Reply::Value(&value)).is_err());
        writer.finish();
        assert_eq!(frames(&bytes, FrameKind::Results), [1]);
        assert!(bytes.len() < 100);
        let mut nothing = Vec::new();
        RequestWriter::new(&mut nothing).finish();
        assert!(nothing.is_empty());
    }

    #[test]
    fn pages_are_written_from_what_lies_elsewhere() {
        let mut bytes = Vec::new();
        let mut writer = ResultWriter::new(&mut bytes);
        writer.scan(9, true, [Row { key: b"k", value: None }]).unwrap();
        writer.finish();
        let mut deframer = Deframer::new(FrameKind::Results);
        deframer.push(&bytes);
        let frame = deframer.next_frame().unwrap().unwrap();
        let answer = frame.results().next().unwrap().unwrap();
        let Ok(Ok(Reply::Scan(page))) = answer.outcome(OpCode::Scan) else { panic!("{answer:?}") };
        assert_eq!(page.rows.iter().collect::<Vec<_>>(), [Row { key: b"k", value: None }]);
        assert_eq!(RESULT_HEADER_BYTES, frame.body.len() - answer.body.len());
    }
}
