//! The placement: how many shards the slots are spread over, which start of the data directory this is, and how far the other
//! files had come by then, so that an older copy of one of them is told from the newest.

use super::{BootError, damage};
use gristmill_base::ids::{Lsn, ShardId};
use rkyv::{Archive, Deserialize, Serialize};

/// Version of the archive.
const PLACEMENT_VERSION: u32 = 2;
/// Version without what the last start found.
const PLACEMENT_VERSION_OLDEST: u32 = 1;

/// See the module. An rkyv archive with its version outside, in the two-copy file `placement`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Starts of the data directory so far; each raises the term of every slot.
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
}

/// How far files of a shard had come.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundShard {
    /// The record behind the last one of its log.
    pub next: u64,
    /// Sequence of its root.
    pub root: u64,
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
                |PlacementBefore { boot, shard_count, layout }| Self { boot, shard_count, layout, ..Self::default() },
            ),
            PLACEMENT_VERSION => rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned),
            version => {
                let what = format!(
                    "version {version}; this program reads versions {PLACEMENT_VERSION_OLDEST} to {PLACEMENT_VERSION}"
                );
                return Err(damage("placement", &what));
            }
        };
        read.map_err(|error| damage("placement", &error))
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
