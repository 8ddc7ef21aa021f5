//! What a connection writes: results of the shard as they come, its own last in a turn, and pieces of that for the socket.

use super::{Desk, PIECE_BYTES};
use crate::counters::Counters;
use crate::fault;
use crate::greeting::Greeting;
use crate::phase::Phase;
use crate::queued::Queued;
use crate::translate::{self, Tag, is_read, write_small};
use gristmill_base::limits::CONNECTION_OUTPUT_BYTES_SLOW;
use gristmill_core::request::{Answer, Refusal};
use gristmill_wire::{Failure, OpCode, Reply, ResultWriter, Status};
use std::mem;

impl Desk {
    /// The next buffer for the socket. What fits one goes without a copy.
    pub(super) fn take_piece(&mut self) -> Vec<u8> {
        let left = self.output.len() - self.output_taken;
        if self.output_taken == 0 && left <= PIECE_BYTES {
            return mem::replace(&mut self.output, mem::take(&mut self.spare));
        }
        let end = self.output_taken + left.min(PIECE_BYTES);
        let piece = self.output[self.output_taken..end].to_vec();
        self.output_taken = end;
        if end == self.output.len() {
            self.output = Vec::new();
            self.output_taken = 0;
        } else if end >= CONNECTION_OUTPUT_BYTES_SLOW && end >= self.output.len() / 2 {
            // Results that go on coming never let it run empty; what is gone must not be kept.
            self.output.drain(..end);
            self.output_taken = 0;
        }
        piece
    }

    /// Writes an answer of the shard.
    pub(super) fn write_outcome(
        &mut self,
        tag: Tag,
        outcome: &Result<Answer, Refusal>,
        output_max: usize,
        counters: &mut Counters,
    ) {
        if self.phase == Phase::Closed {
            return;
        }
        let unread = self.output_bytes();
        let mut writer = ResultWriter::go_on(&mut self.output, mem::take(&mut self.open));
        match outcome {
            Ok(answer) => {
                let bytes = translate::answer_bytes(answer);
                if unread + bytes > output_max
                    && (is_read(tag.code)
                        || matches!(tag.code, OpCode::Read | OpCode::Fetch | OpCode::GetVersioned | OpCode::Watch))
                {
                    counters.unread_refused += 1;
                    let message = format!(
                        "{unread} bytes of results wait for this client and {bytes} more are too many, allowed are \
                         {output_max}; take them and ask again"
                    );
                    writer.failure(tag.correlation, &Failure::new(Status::Capacity, &message));
                } else {
                    translate::write_outcome(&mut writer, tag, outcome);
                }
            }
            Err(refusal) => match fault::note(&mut self.fault, (self.shard, self.conn, self.session), tag, refusal) {
                Some(named) => writer.failure(tag.correlation, &Failure::new(Status::Internal, &named)),
                None => translate::write_outcome(&mut writer, tag, outcome),
            },
        }
        self.open = writer.leave();
    }

    /// Writes what the connection itself says, and completes the frames.
    pub(super) fn write_rest(&mut self, greeting: &Greeting) {
        let mut writer = ResultWriter::go_on(&mut self.output, mem::take(&mut self.open));
        if self.phase == Phase::Closed {
            self.queued.clear();
        }
        for queued in self.queued.drain(..) {
            match queued {
                Queued::Pong(correlation) => write_small(&mut writer, correlation, &Reply::Empty),
                Queued::Welcome(correlation, session, key) => {
                    write_small(&mut writer, correlation, &Reply::Hello(greeting.reply(self.version, session, key)));
                }
                Queued::Refused(correlation, status, message) => {
                    writer.failure(correlation, &Failure::new(status, &message));
                }
            }
        }
        writer.finish();
    }
}
