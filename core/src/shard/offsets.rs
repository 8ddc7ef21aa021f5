//! Where lanes begin, end, and where they were at a time.

use super::Shard;
use super::lane_reads::READS_WAITING_MAX;
use crate::request::{Answer, Code, Operation, Refusal, Request};
use gristmill_base::ids::{LaneKey, Offset, SlotId};
use gristmill_state::lane::LaneSearch;

impl Shard {
    /// Answers a question for offsets of a lane of this shard. One that takes a look at a chunk waits for it.
    ///
    /// # Errors
    /// No such topic, or damage.
    pub(super) fn offsets(&mut self, slot: SlotId, request: Request) -> Result<(), Refusal> {
        let Operation::Offsets { topic, lane, time_micros } = request.operation else {
            return Err(Refusal::new(Code::Internal, "this is no question for offsets"));
        };
        self.catalog.topic(topic).ok_or_else(|| self.unknown("topic", topic.0))?;
        let key = LaneKey { topic, lane };
        let durable = self.log.0.durable();
        let state = self.slot_mut(slot).lanes.get_mut(&key);
        let (start, end) =
            state.map_or((Offset(1), Offset(1)), |lane| (lane.start, Offset(lane.durable_end(durable).0 + 1)));
        let state = self.slot(slot).and_then(|slot| slot.lanes.get(&key));
        let at = match state.zip(time_micros).map(|(lane, micros)| lane.first_since(micros)) {
            None => time_micros.map_or(Offset(0), |_| end),
            Some(LaneSearch::At(at)) => at.min(end),
            Some(LaneSearch::Miss(extent)) => {
                if let Some(what) = self.damage.of(key, extent) {
                    return Err(Refusal::new(Code::Damaged, what));
                }
                if self.waiting_reads.len() >= READS_WAITING_MAX {
                    let message = format!("{READS_WAITING_MAX} reads of topics wait already; send it again");
                    return Err(Refusal::new(Code::Capacity, message));
                }
                self.fetch_chunk(slot, key, extent);
                self.waiting_reads.push((u64::MAX, request));
                return Ok(());
            }
        };
        // The start's record may not be durable yet.
        let lsn = self.slot_mut(slot).last_lsn();
        self.reply(lsn, request.responder, Ok(Answer::Offsets { start, end, at }));
        Ok(())
    }
}
