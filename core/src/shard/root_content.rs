//! What a shard's root says, and how it lies on disk.

use gristmill_base::ids::{Lsn, ShardId, SlotId, Ssn, Term};
use gristmill_base::placement::Owners;
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
    /// The shard; none where an older version of the program wrote the root.
    pub shard: Option<ShardId>,
    /// The last term that the placement had given out when the root was made: the placement is never older.
    pub term: Term,
}

impl Default for RootContent {
    fn default() -> Self {
        Self { log_from: Lsn(1), time_micros: 0, marks: BTreeMap::new(), manifest: None, shard: None, term: Term(0) }
    }
}

/// Version of the archive of a root's content. Those before are read too.
const ROOT_CONTENT_VERSION: u32 = 4;

/// How a root's content lies on disk: an rkyv archive with its version outside.
#[derive(Archive, Serialize, Deserialize)]
struct StoredRoot {
    log_from: u64,
    time_micros: u64,
    /// Slot, number of its checkpoint, last record in it.
    marks: Vec<(u16, u64, u64)>,
    /// What [`Manifest::to_bytes`] gives; empty without a store.
    manifest: Vec<u8>,
    shard: Option<u16>,
    term: u32,
}

/// The same in version 3, which did not say whose it is.
#[derive(Archive, Serialize, Deserialize)]
struct StoredRootV3 {
    log_from: u64,
    time_micros: u64,
    /// As above.
    marks: Vec<(u16, u64, u64)>,
    /// As above.
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
        let (log_from, time_micros) = (self.log_from.0, self.time_micros);
        let (shard, term) = (self.shard.map(|shard| shard.0), self.term.0);
        let stored = StoredRoot { log_from, time_micros, marks, manifest, shard, term };
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
            3 => rkyv::from_bytes::<StoredRootV3, rkyv::rancor::Error>(&aligned).map(|old| StoredRoot {
                log_from: old.log_from,
                time_micros: old.time_micros,
                marks: old.marks,
                manifest: old.manifest,
                shard: None,
                term: 0,
            }),
            2 => rkyv::from_bytes::<StoredRootV2, rkyv::rancor::Error>(&aligned).map(|old| StoredRoot {
                log_from: old.log_from,
                time_micros: old.time_micros,
                marks: old.marks,
                manifest: Vec::new(),
                shard: None,
                term: 0,
            }),
            1 => rkyv::from_bytes::<StoredRootV1, rkyv::rancor::Error>(&aligned).map(|old| StoredRoot {
                log_from: old.log_from,
                time_micros: 0,
                marks: old.marks,
                manifest: Vec::new(),
                shard: None,
                term: 0,
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
            shard: stored.shard.map(ShardId),
            term: Term(stored.term),
        })
    }
}

impl RootContent {
    /// What it says of the slots that the shard owns. The checksum of a root does not tell whose it is: by the root of
    /// another shard, slots whose checkpoints it does not name would begin empty.
    ///
    /// A slot that left, or that came by a move which was never completed, may still be named: until the next root.
    ///
    /// # Errors
    /// It is of another shard, or it does not name a slot that was moved here, or it is newer than the placement.
    pub(crate) fn of(mut self, shard: ShardId, slots: u16, owners: &Owners) -> Result<Self, String> {
        if self.term > owners.term() {
            return Err(format!(
                "it was made under term {}, but the placement gave out terms up to {}: the placement is an older copy",
                self.term,
                owners.term()
            ));
        }
        if let Some(other) = self.shard.filter(|other| *other != shard) {
            return Err(format!("it is of another shard: of shard {other}, not of shard {shard}"));
        }
        let is_here = |slot: SlotId| slot.0 < slots && owners.of(slot) == shard;
        let may_be_named = |slot: SlotId| slot.0 < slots && (self.shard.is_some() || owners.moved(slot).is_some());
        let stored = self.manifest.iter().flat_map(|manifest| manifest.groups.values());
        let stored = stored.flat_map(|group| group.slots.keys());
        if let Some(slot) = self.marks.keys().chain(stored).find(|slot| !is_here(**slot) && !may_be_named(**slot)) {
            return Err(format!("it is of another shard: it names slot {slot}, which shard {shard} does not hold"));
        }
        let moved_here = owners.moves().iter().filter(|(_, moved)| moved.owner == shard);
        for (slot, moved) in moved_here {
            if self.marks.get(slot).is_none_or(|mark| mark.ssn < moved.ssn) {
                return Err(format!(
                    "it names no checkpoint of slot {slot} as it was moved here, at record {}",
                    moved.ssn
                ));
            }
        }
        self.marks.retain(|slot, _| is_here(*slot));
        if let Some(manifest) = &mut self.manifest {
            manifest.retain_slots(is_here);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::placement::Moved;

    fn content() -> RootContent {
        let marks = [(SlotId(3), CheckpointMark { number: 7, ssn: Ssn(9) })].into();
        let manifest = Some(Manifest::new(ShardId(1), 0, [(12, SlotId(3))]));
        let (shard, term) = (Some(ShardId(1)), Term(4));
        RootContent { log_from: Lsn(5), time_micros: 1_700_000_000_000_001, marks, manifest, shard, term }
    }

    fn owners(moved: Option<Moved>) -> Owners {
        Owners::new(4, 2, Term(6), moved.into_iter().map(|moved| (SlotId(3), moved)).collect())
    }

    /// [`content`] in version 4, in version 3 without its shard, in version 2 without its store, and in version 1 without its
    /// time too.
    const GOLDEN: [&str; 4] = [
        "04000000000000000000000000000000030000000000000007000000000000000900000000000000010000000000000000000000\
         00000000030000000000000000000000000000000c000000ecffffff01000000000000000000000000000000e8ffffff00000000\
         e0ffffff00000000d8ffffff000000000100000000000000c8ffffff01000000050000000000000001401e18240a060078ffffff\
         0100000088ffffff600000000100010004000000",
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

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_roots_mean_what_they_meant() {
        let [new, unnamed, before, old] = GOLDEN.map(bytes);
        assert_eq!(hex(&content().to_bytes()), hex(&new));
        assert_eq!(RootContent::from_bytes(&new), Ok(content()));
        let same =
            |time_micros, manifest| RootContent { time_micros, manifest, shard: None, term: Term(0), ..content() };
        assert_eq!(RootContent::from_bytes(&unnamed), Ok(same(content().time_micros, content().manifest)));
        assert_eq!(RootContent::from_bytes(&before), Ok(same(content().time_micros, None)));
        assert_eq!(RootContent::from_bytes(&old), Ok(same(0, None)));
    }

    #[test]
    fn a_root_of_another_version_is_refused() {
        let mut bytes = content().to_bytes();
        bytes[0] = 5;
        let refusal = RootContent::from_bytes(&bytes).unwrap_err();
        assert_eq!(refusal, "version 5; this program reads versions 1 to 4");
    }

    #[test]
    fn the_root_of_another_shard_is_refused() {
        assert_eq!(content().of(ShardId(1), 4, &owners(None)), Ok(content()));
        let refusal = content().of(ShardId(0), 4, &owners(None)).unwrap_err();
        assert!(refusal.contains("of shard 1, not of shard 0"), "{refusal}");
        let foreign = Some(Manifest::new(ShardId(1), 0, [(0, SlotId(0))]));
        let refusal = RootContent { manifest: foreign, shard: None, ..content() }.of(ShardId(1), 4, &owners(None));
        let refusal = refusal.unwrap_err();
        assert!(refusal.contains("slot 0"), "{refusal}");
        let refusal = RootContent { term: Term(7), ..content() }.of(ShardId(1), 4, &owners(None)).unwrap_err();
        assert!(refusal.contains("the placement is an older copy"), "{refusal}");
    }

    #[test]
    fn slots_that_left_are_passed_over_and_those_that_came_must_be_named() {
        let left = owners(Some(Moved { owner: ShardId(0), term: Term(5), ssn: Ssn(9) }));
        for shard in [Some(ShardId(1)), None] {
            let content = RootContent { shard, ..content() }.of(ShardId(1), 4, &left).unwrap();
            assert!(content.marks.is_empty() && content.manifest.unwrap().groups.is_empty());
        }
        let came = |ssn| owners(Some(Moved { owner: ShardId(1), term: Term(5), ssn: Ssn(ssn) }));
        assert_eq!(content().of(ShardId(1), 4, &came(9)), Ok(content()));
        let refusal = content().of(ShardId(1), 4, &came(10)).unwrap_err();
        assert!(refusal.contains("no checkpoint of slot 3"), "{refusal}");
    }
}
