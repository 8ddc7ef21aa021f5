//! Where a key lives: key → slot → shard, and lane → home slot. Pure functions that clients may repeat.
//!
//! Slot and lane use the hash of Kafka's default partitioner (murmur2 with seed 0x9747b28c over the serialised key, as
//! published in Apache Kafka's `Utils.murmur2`), so that an event from an ordinary Kafka producer is appended on the
//! core that owns its grain.

use crate::ids::{LaneId, ShardId, SlotId, Ssn, Term, TopicId};
use crate::limits::{SLOT_COUNT_MAX, SLOT_GROUPS};
use std::collections::BTreeMap;

/// MurmurHash2 (Austin Appleby, public domain), 32 bit, with the seed that Kafka's clients use.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ (bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(MIX);
        k ^= k >> 24;
        k = k.wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ k;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

/// The non-negative hash of a key, from which slot and lane are taken.
#[must_use]
pub fn key_hash(key: &[u8]) -> u32 {
    murmur2(key) & 0x7fff_ffff
}

/// The slot of a key. Tables are not hashed in: grains of one key live together.
#[must_use]
pub fn slot_of(key: &[u8], slot_count: u16) -> SlotId {
    SlotId((key_hash(key) % u32::from(slot_count)) as u16)
}

/// The lane into which native, gRPC and task producers, and Kafka producers with the default partitioner, put a key.
#[must_use]
pub fn lane_of(key: &[u8], lane_count: u16) -> LaneId {
    LaneId((key_hash(key) % u32::from(lane_count)) as u16)
}

/// The slot that homes a lane: one of those whose keys the lane carries, spread by topic id.
#[must_use]
pub fn lane_home(topic: TopicId, lane: LaneId, lane_count: u16, slot_count: u16) -> SlotId {
    if slot_count.is_multiple_of(lane_count) {
        let turns = u32::from(slot_count / lane_count);
        return SlotId((u32::from(lane.0) + u32::from(lane_count) * (topic.0 % turns)) as u16);
    }
    SlotId(((u32::from(lane.0) + topic.0) % u32::from(slot_count)) as u16)
}

/// The shard that owns a slot when a data directory of `slot_count` slots runs on `shard_count` shards and the slot was not
/// moved: see [`Owners`].
///
/// Slots are put in the order of their bit-reversed numbers and each shard takes a contiguous range of that order, so
/// that the slots of one lane of a power-of-two topic are one range. `slot_count` must be a power of two.
#[must_use]
pub fn shard_of(slot: SlotId, slot_count: u16, shard_count: u16) -> ShardId {
    ShardId((u32::from(rank_of(slot, slot_count)) * u32::from(shard_count) / u32::from(slot_count)) as u16)
}

/// The group of a slot in the store: [`SLOT_GROUPS`] contiguous ranges of the same order, so that a shard of a power of
/// two owns whole groups. `slot_count` must be a power of two.
#[must_use]
pub fn slot_group(slot: SlotId, slot_count: u16) -> u16 {
    (u32::from(rank_of(slot, slot_count)) * u32::from(SLOT_GROUPS) / u32::from(slot_count)) as u16
}

/// The slot group of a part of one. What a shard holds of a group since a start with this number of shards is the part of
/// the group's number; each slot that was moved to it is a part of its own: see [`part_of_moved`].
#[must_use]
pub fn group_of_part(part: u16) -> u16 {
    part % SLOT_GROUPS
}

/// The part that a slot is by itself at a shard to which it was moved. Files that it shares with other slots keep their
/// place in the order of this part's files, whatever the shard has of those slots.
#[must_use]
pub fn part_of_moved(slot: SlotId, slot_count: u16) -> u16 {
    (slot.0 + 1) * SLOT_GROUPS + slot_group(slot, slot_count)
}

const _: () = assert!((SLOT_COUNT_MAX as u32 + 1) * (SLOT_GROUPS as u32) < 1 << 16, "parts have numbers of 16 bits");

/// Place of a slot in the order in which slots are dealt.
fn rank_of(slot: SlotId, slot_count: u16) -> u16 {
    assert!(slot_count.is_power_of_two(), "slot counts are powers of two, found {slot_count}");
    assert!(slot.0 < slot_count, "slot {slot} of {slot_count}");
    let bits = slot_count.trailing_zeros();
    if bits == 0 { 0 } else { slot.0.reverse_bits() >> (16 - bits) }
}

/// The last move of a slot from one shard to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The shard that owns it since.
    pub owner: ShardId,
    /// The ownership period that began; records of the slot in other logs are of periods before.
    pub term: Term,
    /// The slot's last record of before.
    pub ssn: Ssn,
}

/// Which shard owns which slot: as [`shard_of`] says, but for slots that were moved. A snapshot that never changes; every
/// shard uses the newest one that it has heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    /// By slot.
    owners: Vec<ShardId>,
    shards: u16,
    term: Term,
    moved: BTreeMap<SlotId, Moved>,
}

impl Owners {
    /// Of so many slots on so many shards, when `term` is the last ownership period that was given out.
    ///
    /// # Panics
    /// A moved slot is none of these, or its owner none of the shards.
    #[must_use]
    pub fn new(slots: u16, shards: u16, term: Term, moved: BTreeMap<SlotId, Moved>) -> Self {
        let mut owners: Vec<ShardId> = (0..slots).map(|slot| shard_of(SlotId(slot), slots, shards)).collect();
        for (slot, it) in &moved {
            assert!(slot.0 < slots && it.owner.0 < shards, "slot {slot} of {slots} at shard {} of {shards}", it.owner);
            owners[usize::from(slot.0)] = it.owner;
        }
        Self { owners, shards, term, moved }
    }

    /// The shard that owns a slot.
    #[must_use]
    pub fn of(&self, slot: SlotId) -> ShardId {
        self.owners[usize::from(slot.0)]
    }

    /// The owners of all slots, in order.
    #[must_use]
    pub fn all(&self) -> &[ShardId] {
        &self.owners
    }

    /// The slots of a shard, in order.
    pub fn slots_of(&self, shard: ShardId) -> impl Iterator<Item = SlotId> + '_ {
        (0..).map(SlotId).zip(&self.owners).filter(move |(_, owner)| **owner == shard).map(|(slot, _)| slot)
    }

    /// The last move of a slot, if it was ever moved on so many shards.
    #[must_use]
    pub fn moved(&self, slot: SlotId) -> Option<Moved> {
        self.moved.get(&slot).copied()
    }

    /// All last moves, by slot.
    #[must_use]
    pub fn moves(&self) -> &BTreeMap<SlotId, Moved> {
        &self.moved
    }

    /// The last ownership period that was given out. Each move gives one out, so of two snapshots of one start the one with
    /// the higher term is the newer.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Slots that are not where [`shard_of`] puts them, with their owner.
    pub fn elsewhere(&self) -> impl Iterator<Item = (SlotId, ShardId)> + '_ {
        let slots = self.owners.len() as u16;
        let moved = self.moved.iter().map(|(slot, it)| (*slot, it.owner));
        moved.filter(move |(slot, owner)| shard_of(*slot, slots, self.shards) != *owner)
    }

    /// The same after another move.
    #[must_use]
    pub fn after(&self, slot: SlotId, to: Moved) -> Self {
        let mut moved = self.moved.clone();
        moved.insert(slot, to);
        Self::new(self.owners.len() as u16, self.shards, self.term.max(to.term), moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_slots_have_other_owners() {
        let before = Owners::new(8, 2, Term(3), BTreeMap::new());
        assert_eq!(before.slots_of(ShardId(0)).map(|slot| slot.0).collect::<Vec<_>>(), [0, 2, 4, 6]);
        let to = Moved { owner: ShardId(1), term: Term(4), ssn: Ssn(9) };
        let after = before.after(SlotId(2), to);
        assert_eq!((after.of(SlotId(2)), after.moved(SlotId(2)), after.term()), (ShardId(1), Some(to), Term(4)));
        assert_eq!(after.slots_of(ShardId(1)).map(|slot| slot.0).collect::<Vec<_>>(), [1, 2, 3, 5, 7]);
        assert_eq!(after.elsewhere().collect::<Vec<_>>(), [(SlotId(2), ShardId(1))]);
        let back = after.after(SlotId(2), Moved { owner: ShardId(0), term: Term(5), ssn: Ssn(11) });
        assert_eq!((back.elsewhere().count(), back.moves().len(), back.all()), (0, 1, before.all()));
    }

    #[test]
    fn hash_agrees_with_kafka() {
        // The vectors of Apache Kafka's own UtilsTest.
        for (key, hash) in
            [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536), ("abc", 479470107)]
        {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn every_shard_owns_slots_and_a_lane_stays_on_one() {
        for shards in [1_u16, 2, 4, 8] {
            let mut seen = vec![0; usize::from(shards)];
            for slot in 0..256 {
                seen[usize::from(shard_of(SlotId(slot), 256, shards).0)] += 1;
            }
            assert!(seen.iter().all(|&count| count == 256 / shards), "{seen:?}");
            for lane in 0..64_u16 {
                let owners: Vec<_> = (0..4).map(|turn| shard_of(SlotId(lane + 64 * turn), 256, shards)).collect();
                assert!(owners.windows(2).all(|pair| pair[0] == pair[1]));
                for topic in 0..8 {
                    assert!(owners.contains(&shard_of(lane_home(TopicId(topic), LaneId(lane), 64, 256), 256, shards)));
                }
            }
        }
    }

    #[test]
    fn a_group_of_slots_has_one_owner() {
        for shards in [1, 2, 4, 8, 16] {
            for group in 0..SLOT_GROUPS {
                let slots = (0..256).map(SlotId).filter(|slot| slot_group(*slot, 256) == group);
                let owners: Vec<_> = slots.map(|slot| shard_of(slot, 256, shards)).collect();
                assert_eq!(owners.len(), 16);
                assert!(owners.windows(2).all(|pair| pair[0] == pair[1]), "{shards} shards, group {group}");
            }
        }
        for slot in (0..256).map(SlotId) {
            assert_eq!(group_of_part(part_of_moved(slot, 256)), slot_group(slot, 256));
        }
        assert_eq!((slot_group(SlotId(0), 1), slot_group(SlotId(1), 2), slot_group(SlotId(3), 4)), (0, 8, 12));
    }
}
