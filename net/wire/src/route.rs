//! Which slot or shard an operation belongs to.

use gristmill_base::ids::{LaneId, SlotId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};

use crate::operation::Operation;

/// What decides where an operation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// The shard that serves the connection.
    Here,
    /// The one writer of the control plane, shard 0.
    Control,
    /// All shards, whose answers are put together.
    Everywhere,
    /// The slot of this key.
    Key(&'a [u8]),
    /// The home slot of the lane that this key has in this topic.
    TopicKey(TopicId, &'a [u8]),
    /// The home slot of this lane.
    Lane(TopicId, LaneId),
    /// This slot.
    Slot(SlotId),
}

impl Route<'_> {
    /// The slot, where there is one. `lanes` gives the number of lanes of a topic, which is at least 1, or nothing for
    /// an unknown topic; then there is no slot either.
    pub fn slot(&self, slot_count: u16, lanes: impl FnOnce(TopicId) -> Option<u16>) -> Option<SlotId> {
        match *self {
            Self::Here | Self::Control | Self::Everywhere => None,
            Self::Key(key) => Some(slot_of(key, slot_count)),
            Self::TopicKey(topic, key) => {
                let count = lanes(topic)?;
                Some(lane_home(topic, lane_of(key, count), count, slot_count))
            }
            Self::Lane(topic, lane) => lanes(topic).map(|count| lane_home(topic, lane, count, slot_count)),
            Self::Slot(slot) => Some(slot),
        }
    }
}

impl<'a> Operation<'a> {
    /// What decides where it is carried out.
    #[must_use]
    pub fn route(&self) -> Route<'a> {
        match self {
            Self::Hello(_)
            | Self::Ping
            | Self::Describe(_)
            | Self::SubscriptionList(_)
            | Self::AppList
            | Self::AppVersions(_)
            | Self::TopicList => Route::Here,
            Self::AppLoad(_) | Self::AppDelete(_) | Self::Backup(_) | Self::MoveSlot(_) => Route::Control,
            Self::SubscriptionPause(_) | Self::AppReplay(_) => Route::Control,
            Self::Status | Self::AppSettle(_) => Route::Everywhere,
            Self::Scan(scan) | Self::ParkedList(scan) if scan.shard_local => Route::Here,
            Self::Query(query) if query.shard_local => Route::Here,
            Self::Scan(_) | Self::ParkedList(_) | Self::Query(_) => Route::Everywhere,
            Self::ParkedShow(operation) => Route::Key(operation.key),
            Self::Why(operation) => Route::Key(operation.key),
            Self::ParkedRetry(operation) => Route::Key(operation.key),
            Self::ParkedSkip(operation) => Route::Key(operation.key),
            Self::ParkedEdit(operation) => Route::Key(operation.key),
            Self::Produce(operation) => Route::TopicKey(operation.topic, operation.key),
            Self::Append(operation) => Route::Lane(operation.topic, operation.lane),
            Self::Read(operation) | Self::Fetch(operation) => Route::Lane(operation.topic, operation.lane),
            Self::Offsets(operation) => Route::Lane(operation.topic, operation.lane),
            Self::Ingest(operation) => Route::Slot(operation.slot),
            Self::Get(operation) => Route::Key(operation.key),
            Self::Put(operation) => Route::Key(operation.key),
            Self::Delete(operation) => Route::Key(operation.key),
            Self::MapGet(operation) => Route::Key(operation.key),
            Self::MapPut(operation) => Route::Key(operation.key),
            Self::MapDelete(operation) => Route::Key(operation.key),
            Self::MapDeleteRange(operation) => Route::Key(operation.key),
            Self::Range(operation) => Route::Key(operation.key),
            Self::CompareSet(operation) => Route::Key(operation.key),
            Self::GetVersioned(operation) => Route::Key(operation.key),
            Self::Invoke(operation) => Route::Key(operation.key),
            Self::Watch(operation) => Route::Slot(operation.slot()),
            Self::Void(operation) => Route::Slot(operation.slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_key_and_lane() {
        // murmur2("foobar") & 0x7fffffff is 1357151166.
        assert_eq!(Route::Key(b"foobar").slot(256, |_| None), Some(SlotId(1_357_151_166_u32.rem_euclid(256) as u16)));
        let slot = Route::TopicKey(TopicId(3), b"foobar").slot(256, |_| Some(64));
        assert_eq!(slot, Some(SlotId((1_357_151_166_u32 % 64) as u16 + 3 * 64)));
        assert_eq!(Route::TopicKey(TopicId(3), b"foobar").slot(256, |_| None), None);
        assert_eq!(Route::Lane(TopicId(1), LaneId(5)).slot(256, |_| Some(64)), Some(SlotId(69)));
        assert_eq!(Route::Slot(SlotId(7)).slot(256, |_| None), Some(SlotId(7)));
        assert_eq!(Route::Everywhere.slot(256, |_| None), None);
    }
}
