//! The check across all logs: nobody may have received what its sender never issued, or a sender's log has lost acked
//! records; and a sender must hold all messages that their receiver has not handled.

use super::{BootError, Recovered};
use crate::catalog::Catalog;
use gristmill_base::ids::{LaneKey, SlotId, TopicId};
use gristmill_base::placement::lane_home;
use gristmill_state::input::StreamId;
use gristmill_state::slot::Slot;
use gristmill_state::stream::Stream;
use std::collections::BTreeMap;

/// Checks every cursor and done set against its sender.
pub(super) fn check(logs: &[Recovered], catalog: &Catalog, slot_count: u16) -> Result<(), BootError> {
    let slots: BTreeMap<SlotId, (&Slot, &str)> = logs
        .iter()
        .flat_map(|recovered| recovered.slots.iter().map(|(id, slot)| (*id, (slot, recovered.log.dir.as_str()))))
        .collect();
    for (slot, dir) in slots.values() {
        for (id, stream) in slot.streams() {
            let Some((sender, issued)) = issued(&slots, catalog, slot_count, slot.id, id) else { continue };
            if stream.highest_done() > issued {
                let from = slots.get(&sender).map_or("?", |(_, dir)| *dir);
                return Err(BootError::LostData(format!(
                    "slot {} in {dir} has consumed {} of {id:?}, but its sender, slot {sender} in {from}, issued only {issued}",
                    slot.id,
                    stream.highest_done()
                )));
            }
        }
        for (to, channel) in &slot.outbox {
            let handled = slots.get(to).and_then(|(receiver, _)| receiver.stream(StreamId::Slot(slot.id)));
            let handled = handled.map_or(0, Stream::cursor);
            if channel.first() > handled + 1 {
                return Err(BootError::LostData(format!(
                    "slot {} in {dir} holds messages to slot {to} from {} on, but that one has handled only those up to {handled}",
                    slot.id,
                    channel.first()
                )));
            }
        }
    }
    Ok(())
}

/// A stream's sender, and the last position that it ever issued; `None` where nobody here issued them.
fn issued(
    slots: &BTreeMap<SlotId, (&Slot, &str)>,
    catalog: &Catalog,
    slot_count: u16,
    receiver: SlotId,
    stream: StreamId,
) -> Option<(SlotId, u64)> {
    match stream {
        StreamId::Slot(from) => {
            let issued = slots
                .get(&from)
                .and_then(|(sender, _)| sender.outbox.get(&receiver))
                .map_or(0, |channel| channel.next() - 1);
            Some((from, issued))
        }
        StreamId::Topic { subscription, lane } => {
            let topic = TopicId(catalog.subscription(subscription)?.topic);
            let home = lane_home(topic, lane, catalog.lane_count(topic), slot_count);
            let lane = LaneKey { topic, lane };
            let end = slots.get(&home).and_then(|(sender, _)| sender.lanes.get(&lane)).map_or(0, |lane| lane.end().0);
            Some((home, end))
        }
        StreamId::Session(_) | StreamId::Task(_) | StreamId::Control { .. } => None,
    }
}
