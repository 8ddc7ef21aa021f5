//! Versions of rows as clients see them.

use gristmill_base::checksum::crc32c;
use gristmill_base::ids::Ssn;

/// Which record wrote a row: no two states of a row that anybody was shown have the same one. It names the record in its slot, which
/// the key tells, and the data directory: a restored one has others, because it may give numbers again that the
/// first one has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowVersion {
    directory: u32,
    ssn: Ssn,
}

impl RowVersion {
    /// The version of nothing: no row has it.
    pub const NONE: Self = Self { directory: 0, ssn: Ssn(0) };

    /// Its bytes.
    pub const BYTES: usize = 12;

    /// Of the record of a slot in that data directory.
    pub(crate) fn new(directory: u128, ssn: Ssn) -> Self {
        Self { directory: crc32c(&directory.to_le_bytes()), ssn }
    }

    /// The record, in that data directory; 0, which wrote nothing, where it is of another one.
    pub(crate) fn ssn_in(self, directory: u128) -> Ssn {
        if self.directory == Self::new(directory, self.ssn).directory { self.ssn } else { Ssn(0) }
    }

    /// As a client gets it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.directory.to_le_bytes());
        bytes[4..].copy_from_slice(&self.ssn.0.to_le_bytes());
        bytes
    }

    /// What [`Self::to_bytes`] gave; `None` for other bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (directory, ssn) = bytes.split_at_checked(4)?;
        let directory = u32::from_le_bytes(directory.try_into().ok()?);
        Some(Self { directory, ssn: Ssn(u64::from_le_bytes(ssn.try_into().ok()?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_back_and_mean_nothing_elsewhere() {
        let version = RowVersion::new(7, Ssn(300));
        assert_eq!(RowVersion::from_bytes(&version.to_bytes()), Some(version));
        assert_eq!((version.ssn_in(7), version.ssn_in(8)), (Ssn(300), Ssn(0)));
        assert_eq!(RowVersion::from_bytes(&version.to_bytes()[..11]), None);
        assert_eq!(RowVersion::from_bytes(&[0; 13]), None);
    }
}
