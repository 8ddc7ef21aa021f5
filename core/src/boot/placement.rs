//! The placement: how many shards the slots are spread over, and which start of the data directory this is.

use super::{BootError, damage};
use rkyv::{Archive, Deserialize, Serialize};

/// Version of the archive.
const PLACEMENT_VERSION: u32 = 1;

/// See the module. An rkyv archive with its version outside, in the two-copy file `placement`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Starts of the data directory so far; each raises the term of every slot.
    pub boot: u32,
    /// Shards that own the slots.
    pub shard_count: u16,
    /// Number of the set of shard folders in use; raised when the shard count changes.
    pub layout: u32,
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
        let version = u32::from_le_bytes(*head);
        if version != PLACEMENT_VERSION {
            return Err(damage(
                "placement",
                &format!("version {version}; this program reads version {PLACEMENT_VERSION}"),
            ));
        }
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes.get(16..).unwrap_or_default());
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned).map_err(|error| damage("placement", &error))
    }
}
