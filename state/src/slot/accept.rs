//! Accepting positions of streams: see ACCEPT of the design's section 4.1.

use super::Slot;
use crate::grain::{GrainId, Queued};
use crate::input::{Input, StreamId};
use crate::record::{Consumed, Control, Journal, RecordKind};
use crate::stream::Offered;
use gristmill_base::ids::Lsn;
use gristmill_base::limits::CURSOR_RECORD_POSITIONS;
use gristmill_base::planted::{self, Bug};
use gristmill_base::tuning::tuning;

/// What became of an item of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Taken; the caller must see to its input.
    Taken,
    /// Known already; nothing to do.
    Known,
    /// Something is missing; the sender must hear that what lies behind this position is expected. Said once until the
    /// stream moves on.
    Expected(u64),
    /// Something is missing, and the sender has heard it.
    Dropped,
    /// The stream's window is full.
    Full,
}

impl Slot {
    /// Accepts position `pos` of a stream that is not a session's.
    pub fn accept(&mut self, stream: StreamId, prev: u64, pos: u64) -> Acceptance {
        assert!(!matches!(stream, StreamId::Session(_)), "sessions are offered with their replies");
        if let Some(end) =
            self.end_of_stream(stream).filter(|end| pos > *end && !planted::is(Bug::OldGoesOnAfterSwitch))
        {
            return self.pass_end(stream, prev, end);
        }
        if self.has_skipped(stream, pos) {
            let covered = self.cover(stream, prev, pos);
            return if covered == Acceptance::Taken { Acceptance::Known } else { covered };
        }
        let entry = self.streams.entry(stream).or_default();
        match entry.offer(prev, pos) {
            Offered::Fresh => Acceptance::Taken,
            Offered::Known => Acceptance::Known,
            Offered::Full => Acceptance::Full,
            Offered::Expected(received) if entry.complain_once() => Acceptance::Expected(received),
            Offered::Expected(_) => Acceptance::Dropped,
        }
    }

    /// Queues an input that was accepted.
    pub fn enqueue_accepted(&mut self, grain: GrainId, stream: StreamId, pos: u64, input: Input, now_nanos: u64) {
        debug_assert!(
            self.stream(stream).is_some_and(|stream| stream.is_pending(pos)),
            "only accepted inputs are queued"
        );
        self.enqueue(grain, Queued::Stream(stream, pos, input), now_nanos);
    }

    /// Takes note that a stream has nothing for this slot in `(prev, pos]`.
    pub fn cover(&mut self, stream: StreamId, prev: u64, pos: u64) -> Acceptance {
        let end = self.end_of_stream(stream).filter(|_| !planted::is(Bug::OldGoesOnAfterSwitch)).unwrap_or(u64::MAX);
        let pos = pos.min(end);
        if self.streams.get(&stream).is_some_and(|stream| stream.received() >= end) {
            return Acceptance::Known;
        }
        let entry = self.streams.entry(stream).or_default();
        if entry.cover(prev, pos) {
            self.note_moved(stream);
            return Acceptance::Taken;
        }
        if entry.complain_once() { Acceptance::Expected(entry.received()) } else { Acceptance::Dropped }
    }

    /// Remembers that a cursor may have moved without a commit.
    pub(super) fn note_moved(&mut self, stream: StreamId) {
        if !self.moved.contains(&stream) {
            self.moved.push(stream);
        }
    }

    /// Whether a cursor has moved far enough without a commit that it should be recorded now. A sender of messages has a window
    /// and waits for the record before it goes on.
    #[must_use]
    pub fn cursors_are_far(&self) -> bool {
        let window = CURSOR_RECORD_POSITIONS.min(tuning().channel_window.div_ceil(2));
        let far = |id: &StreamId| if matches!(id, StreamId::Slot(_)) { window } else { CURSOR_RECORD_POSITIONS };
        self.moved.iter().any(|id| self.stream(*id).is_some_and(|stream| stream.cursor_lag() >= far(id)))
    }

    /// Whether any cursor has moved without a record.
    #[must_use]
    pub fn has_moved_cursors(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Records all cursors that moved without a commit, in one record. `None` if none did.
    pub fn record_cursors(&mut self, journal: &mut impl Journal) -> Option<Lsn> {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        let cursors: Vec<Consumed> = moved
            .into_iter()
            .filter_map(|id| self.stream(id).map(|stream| (id, stream)))
            .filter(|(_, stream)| stream.cursor_lag() > 0)
            .map(|(id, stream)| Consumed { stream: id, cursor: stream.cursor_now(), positions: Vec::new() })
            .collect();
        if cursors.is_empty() {
            return None;
        }
        let control = Control::Cursors(cursors);
        let (_, lsn) = self.write(journal, RecordKind::Control, |out| control.encode(out));
        self.apply_control(control);
        Some(lsn)
    }
}
