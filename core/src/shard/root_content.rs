//! What a shard's root says, and how it lies on disk.

use gristmill_base::ids::{Lsn, ShardId, SlotId, Ssn};
use gristmill_base::placement::shard_of;
use gristmill_state::store::Manifest;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a slot's newest checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointMark {
    /// Number of its file.
    pub number: u64,
    /// Last record that it holds.
    pub ssn: Ssn,
}

/// What a shard's root says: which checkpoints count, and from where the log must be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootContent {
    /// First record that is not in a checkpoint.
    pub log_from: Lsn,
    /// Engine time when the root was made, microseconds, or earlier; 0 where an older version of the program wrote it.
    pub time_micros: u64,
    /// By slot.
    pub marks: BTreeMap<SlotId, CheckpointMark>,
    /// Files of the store with the rows of the slots; none where an older version of the program wrote the root.
    pub manifest: Option<Manifest>,
}

impl Default for RootContent {
    fn default() -> Self {
        Self { log_from: Lsn(1), time_micros: 0, marks: BTreeMap::new(), manifest: None }
    }
}

/// Version of the archive of a root's content. Those before are read too.
const ROOT_CONTENT_VERSION: u32 = 3;

/// How a root's content lies on disk: an rkyv archive with its version outside.
#[derive(Archive, Serialize, Deserialize)]
struct StoredRoot {
    log_from: u64,
    time_micros: u64,
    /// Slot, number of its checkpoint, last record in it.
    marks: Vec<(u16, u64, u64)>,
    /// What [`Manifest::to_bytes`] gives; empty without a store.
    manifest: Vec<u8>,
}

/// The same in version 2, which had no store.
#[derive(Archive, Serialize, Deserialize)]
struct StoredRootV2 {
    log_from: u64,
    time_micros: u64,
    /// As above.
    marks: Vec<(u16, u64, u64)>,
}

/// The same in version 1, which did not store engine time.
#[derive(Archive, Serialize, Deserialize)]
struct StoredRootV1 {
    log_from: u64,
    /// As above.
    marks: Vec<(u16, u64, u64)>,
}

impl RootContent {
    /// The bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let marks = self.marks.iter().map(|(slot, mark)| (slot.0, mark.number, mark.ssn.0)).collect();
        let manifest = self.manifest.as_ref().map_or_else(Vec::new, Manifest::to_bytes);
        let stored = StoredRoot { log_from: self.log_from.0, time_micros: self.time_micros, marks, manifest };
        let mut out = ROOT_CONTENT_VERSION.to_le_bytes().to_vec();
        out.resize(16, 0); // The archive starts aligned.
        out.extend_from_slice(
            &rkyv::to_bytes::<rkyv::rancor::Error>(&stored).expect("numbers in memory can be archived"),
        );
        out
    }

    /// The content that was stored.
    ///
    /// # Errors
    /// Another version, or bytes that are no content of a root.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let head = bytes.first_chunk::<4>().ok_or("it is empty")?;
        let version = u32::from_le_bytes(*head);
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes.get(16..).unwrap_or_default());
        let stored = match version {
            ROOT_CONTENT_VERSION => rkyv::from_bytes::<StoredRoot, rkyv::rancor::Error>(&aligned),
            2 => rkyv::from_bytes::<StoredRootV2, rkyv::rancor::Error>(&aligned).map(|old| StoredRoot {
                log_from: old.log_from,
                time_micros: old.time_micros,
                marks: old.marks,
                manifest: Vec::new(),
            }),
            1 => rkyv::from_bytes::<StoredRootV1, rkyv::rancor::Error>(&aligned).map(|old| StoredRoot {
                log_from: old.log_from,
                time_micros: 0,
                marks: old.marks,
                manifest: Vec::new(),
            }),
            _ => return Err(format!("version {version}; this program reads versions 1 to {ROOT_CONTENT_VERSION}")),
        }
        .map_err(|error| error.to_string())?;
        let manifest = match &*stored.manifest {
            [] => None,
            bytes => Some(Manifest::from_bytes(bytes).map_err(|what| format!("the manifest of the store: {what}"))?),
        };
        let mark = |(slot, number, ssn)| (SlotId(slot), CheckpointMark { number, ssn: Ssn(ssn) });
        Ok(Self {
            log_from: Lsn(stored.log_from),
            time_micros: stored.time_micros,
            marks: stored.marks.into_iter().map(mark).collect(),
            manifest,
        })
    }
}

impl RootContent {
    /// The same, if it is of this shard among so many. The checksum of a root does not tell: by the root of another shard,
    /// slots whose checkpoints it does not name would begin empty.
    ///
    /// # Errors
    /// It names a slot that the shard does not hold.
    pub(crate) fn of(self, shard: ShardId, slots: u16, shards: u16) -> Result<Self, String> {
        let is_here = |slot: SlotId| slot.0 < slots && shard_of(slot, slots, shards) == shard;
        let stored = self.manifest.iter().flat_map(|manifest| manifest.groups.values());
        let stored = stored.flat_map(|group| group.slots.keys());
        match self.marks.keys().chain(stored).find(|slot| !is_here(**slot)) {
            Some(slot) => {
                Err(format!("it is of another shard: it names slot {slot}, which shard {shard} does not hold"))
            }
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> RootContent {
        let marks = [(SlotId(3), CheckpointMark { number: 7, ssn: Ssn(9) })].into();
        let manifest = Some(Manifest::new(ShardId(1), 0, [(12, SlotId(3))]));
        RootContent { log_from: Lsn(5), time_micros: 1_700_000_000_000_001, marks, manifest }
    }

    /// [`content`] in version 3, in version 2 without its store, and in version 1 without its time too.
    const GOLDEN: [&str; 3] = [
        "030000000000000000000000000000000300000000000000070000000000000009000000000000000100000000000000000000000000\
         0000030000000000000000000000000000000c000000ecffffff01000000000000000000000000000000e8ffffff00000000e0ffffff\
         00000000d8ffffff000000000100000000000000c8ffffff01000000050000000000000001401e18240a060078ffffff0100000088ff\
         ffff60000000",
        "02000000000000000000000000000000030000000000000007000000000000000900000000000000050000000000000001401e18240a0600\
         d8ffffff01000000",
        "010000000000000000000000000000000300000000000000070000000000000009000000000000000500000000000000e0ffffff01000000",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn golden_roots_mean_what_they_meant() {
        let [new, before, old] = GOLDEN.map(bytes);
        assert_eq!(content().to_bytes(), new);
        assert_eq!(RootContent::from_bytes(&new), Ok(content()));
        assert_eq!(RootContent::from_bytes(&before), Ok(RootContent { manifest: None, ..content() }));
        assert_eq!(RootContent::from_bytes(&old), Ok(RootContent { time_micros: 0, manifest: None, ..content() }));
    }

    #[test]
    fn a_root_of_another_version_is_refused() {
        let mut bytes = content().to_bytes();
        bytes[0] = 4;
        let refusal = RootContent::from_bytes(&bytes).unwrap_err();
        assert_eq!(refusal, "version 4; this program reads versions 1 to 3");
    }

    #[test]
    fn slots_of_another_shard_are_refused() {
        assert_eq!(content().of(ShardId(1), 4, 2), Ok(content()));
        let foreign = Some(Manifest::new(ShardId(1), 0, [(0, SlotId(0))]));
        let refusal = RootContent { manifest: foreign, ..content() }.of(ShardId(1), 4, 2).unwrap_err();
        assert!(refusal.contains("slot 0"), "{refusal}");
    }
}
