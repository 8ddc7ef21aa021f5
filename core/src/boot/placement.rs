//! The placement: how many shards the slots are spread over, which start of the data directory this is, and how far the other
//! files had come by then, so that an older copy of one of them is told from the newest.

use super::{BootError, damage};
use gristmill_base::ids::{Lsn, ShardId, SlotId, Ssn, Term};
use gristmill_base::placement::{Moved, Owners};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the archive.
const PLACEMENT_VERSION: u32 = 3;
/// Version without moved slots.
const PLACEMENT_VERSION_UNMOVED: u32 = 2;
/// Version that also lacks what the last start found.
const PLACEMENT_VERSION_OLDEST: u32 = 1;

/// See the module. An rkyv archive with its version outside, in the two-copy file `placement`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Starts of the data directory so far.
    pub boot: u32,
    /// Shards that own the slots.
    pub shard_count: u16,
    /// Number of the set of shard folders in use; raised when the shard count changes.
    pub layout: u32,
    /// What the last start found and made durable, by shard; nothing before the first start, and in directories of older
    /// versions. Whoever makes logs or roots anew, beside a start, empties it ([`Self::elsewhere`]).
    pub found: Vec<FoundShard>,
    /// Sequence of the catalog then; 0 if it was not there.
    pub catalog: u64,
    /// The last term that was given out: by a start to all slots, or by a move to one.
    pub term: u32,
    /// The last move of every slot that was moved since the number of shards changed last.
    pub moves: Vec<SlotMove>,
}

/// The last move of a slot.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMove {
    /// The slot.
    pub slot: u16,
    /// The shard that owns it since.
    pub owner: u16,
    /// The term that began.
    pub term: u32,
    /// The slot's last record of before.
    pub ssn: u64,
}

/// How far files of a shard had come.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundShard {
    /// The record behind the last one of its log.
    pub next: u64,
    /// Sequence of its root.
    pub root: u64,
}

/// Version 2.
#[derive(Archive, Serialize, Deserialize)]
struct PlacementUnmoved {
    boot: u32,
    shard_count: u16,
    layout: u32,
    found: Vec<FoundShard>,
    catalog: u64,
}

/// Version 1.
#[derive(Archive, Serialize, Deserialize)]
struct PlacementBefore {
    boot: u32,
    shard_count: u16,
    layout: u32,
}

impl Placement {
    /// The bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = PLACEMENT_VERSION.to_le_bytes().to_vec();
        bytes.resize(16, 0); // The archive starts aligned.
        bytes.extend_from_slice(
            &rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("a placement in memory can be archived"),
        );
        bytes
    }

    /// The placement that was stored.
    ///
    /// # Errors
    /// Another version, or bytes that are no placement.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BootError> {
        let head = bytes.first_chunk::<4>().ok_or_else(|| damage("placement", &"it is empty"))?;
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes.get(16..).unwrap_or_default());
        let read = match u32::from_le_bytes(*head) {
            PLACEMENT_VERSION_OLDEST => rkyv::from_bytes::<PlacementBefore, rkyv::rancor::Error>(&aligned).map(
                // Every start gave out one term, and nothing else did.
                |PlacementBefore { boot, shard_count, layout }| Self {
                    boot,
                    shard_count,
                    layout,
                    term: boot,
                    ..Self::default()
                },
            ),
            PLACEMENT_VERSION_UNMOVED => rkyv::from_bytes::<PlacementUnmoved, rkyv::rancor::Error>(&aligned).map(
                |PlacementUnmoved { boot, shard_count, layout, found, catalog }| Self {
                    boot,
                    shard_count,
                    layout,
                    found,
                    catalog,
                    term: boot,
                    moves: Vec::new(),
                },
            ),
            PLACEMENT_VERSION => rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned),
            version => {
                let what = format!(
                    "version {version}; this program reads versions {PLACEMENT_VERSION_OLDEST} to {PLACEMENT_VERSION}"
                );
                return Err(damage("placement", &what));
            }
        };
        let read = read.map_err(|error| damage("placement", &error))?;
        match read.moves.iter().find(|it| it.owner >= read.shard_count || it.term > read.term) {
            Some(it) => Err(damage("placement", &format!("a move that cannot be: {it:?}"))),
            None => Ok(read),
        }
    }

    /// Who owns which of so many slots.
    ///
    /// # Errors
    /// It names a slot that is none of these.
    pub fn owners(&self, slot_count: u16) -> Result<Owners, BootError> {
        if let Some(it) = self.moves.iter().find(|it| it.slot >= slot_count) {
            return Err(damage("placement", &format!("it names slot {}; slots are 0 to {}", it.slot, slot_count - 1)));
        }
        let moved = |it: &SlotMove| Moved { owner: ShardId(it.owner), term: Term(it.term), ssn: Ssn(it.ssn) };
        let moved: BTreeMap<SlotId, Moved> = self.moves.iter().map(|it| (SlotId(it.slot), moved(it))).collect();
        Ok(Owners::new(slot_count, self.shard_count, Term(self.term), moved))
    }

    /// The same with these owners.
    #[must_use]
    pub(crate) fn with(&self, owners: &Owners) -> Self {
        let moves = owners.moves().iter().map(|(slot, it)| SlotMove {
            slot: slot.0,
            owner: it.owner.0,
            term: it.term.0,
            ssn: it.ssn.0,
        });
        Self { term: owners.term().0, moves: moves.collect(), ..self.clone() }
    }

    /// The same for a copy of the directory whose small files and logs are stored anew: nothing was found of these yet.
    #[must_use]
    pub(super) fn elsewhere(self) -> Self {
        Self { found: Vec::new(), catalog: 0, ..self }
    }

    /// How often the root of a shard was stored at least.
    pub(super) fn root_sequence(&self, shard: ShardId) -> u64 {
        self.found.get(usize::from(shard.0)).map_or(0, |found| found.root)
    }

    /// The record that the log of a shard must reach at least: what the last start found is durable.
    pub(super) fn reached(&self, shard: ShardId) -> Lsn {
        Lsn(self.found.get(usize::from(shard.0)).map_or(1, |found| found.next.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement() -> Placement {
        let moves = vec![SlotMove { slot: 3, owner: 1, term: 8, ssn: 77 }];
        let found = vec![FoundShard { next: 5, root: 6 }, FoundShard { next: 7, root: 8 }];
        Placement { boot: 4, shard_count: 2, layout: 1, found, catalog: 9, term: 8, moves }
    }

    #[test]
    fn a_placement_of_each_version_is_read() {
        let now = placement();
        assert_eq!(Placement::from_bytes(&now.to_bytes()).unwrap(), now);
        let stored = |version: u32, archive: &[u8]| {
            let mut bytes = version.to_le_bytes().to_vec();
            bytes.resize(16, 0);
            bytes.extend_from_slice(archive);
            Placement::from_bytes(&bytes).unwrap()
        };
        let Placement { boot, shard_count, layout, found, catalog, .. } = now;
        let unmoved = PlacementUnmoved { boot, shard_count, layout, found: found.clone(), catalog };
        let read = stored(2, &rkyv::to_bytes::<rkyv::rancor::Error>(&unmoved).unwrap());
        assert_eq!(read, Placement { term: 4, moves: Vec::new(), ..placement() });
        let before = PlacementBefore { boot, shard_count, layout };
        let read = stored(1, &rkyv::to_bytes::<rkyv::rancor::Error>(&before).unwrap());
        assert_eq!(read, Placement { boot, shard_count, layout, term: 4, ..Placement::default() });
        let error = Placement::from_bytes(&[4; 16]).unwrap_err().to_string();
        assert!(error.contains("reads versions 1 to 3"), "{error}");
    }

    #[test]
    fn owners_come_back_and_moves_that_cannot_be_are_refused() {
        let owners = placement().owners(8).unwrap();
        assert_eq!(owners.moved(SlotId(3)), Some(Moved { owner: ShardId(1), term: Term(8), ssn: Ssn(77) }));
        assert_eq!(placement().with(&owners), placement());
        assert!(placement().owners(2).unwrap_err().to_string().contains("slot 3"));
        let wrong = Placement { shard_count: 1, ..placement() };
        assert!(Placement::from_bytes(&wrong.to_bytes()).unwrap_err().to_string().contains("owner: 1"));
        let wrong = Placement { term: 7, ..placement() };
        assert!(Placement::from_bytes(&wrong.to_bytes()).is_err());
    }
}
