//! Where a key lives: key → slot → shard, and lane → home slot. Pure functions that clients may repeat.
//!
//! Slot and lane use the hash of Kafka's default partitioner (murmur2 with seed 0x9747b28c over the serialised key, as
//! published in Apache Kafka's `Utils.murmur2`), so that an event from an ordinary Kafka producer is appended on the
//! core that owns its grain.

use crate::ids::{LaneId, ShardId, SlotId, TopicId};
use crate::limits::SLOT_GROUPS;

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

/// The shard that owns a slot when a data directory of `slot_count` slots runs on `shard_count` shards.
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

/// Place of a slot in the order in which slots are dealt.
fn rank_of(slot: SlotId, slot_count: u16) -> u16 {
    assert!(slot_count.is_power_of_two(), "slot counts are powers of two, found {slot_count}");
    assert!(slot.0 < slot_count, "slot {slot} of {slot_count}");
    let bits = slot_count.trailing_zeros();
    if bits == 0 { 0 } else { slot.0.reverse_bits() >> (16 - bits) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!((slot_group(SlotId(0), 1), slot_group(SlotId(1), 2), slot_group(SlotId(3), 4)), (0, 8, 12));
    }
}
