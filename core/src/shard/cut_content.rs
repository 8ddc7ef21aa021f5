//! What a shard writes down of its cut, for whoever copies the files that it names.

use super::RootContent;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::Lsn;

/// Version of the bytes.
const VERSION: u32 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutContent {
    /// Number of the start of the data directory.
    pub boot: u32,
    /// Number of the cut in that start.
    pub cut: u64,
    /// The last record of the log that belongs to the cut.
    pub to: Lsn,
    /// Files that count at the cut, and the first record of the log that is not in them.
    pub root: RootContent,
    /// The catalog at the cut; of shard 0 alone, if there ever was one.
    pub catalog: Option<Vec<u8>>,
}

impl CutContent {
    /// Name of the two-copy file in the folder of the shard.
    pub const NAME: &str = "cut";

    /// The bytes that are stored: u32 version; u32 start; u64 cut; u64 last record; u8 and bytes of the catalog; bytes of
    /// the root. Bytes have a varint length before them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32(VERSION);
        out.put_u32(self.boot);
        out.put_u64(self.cut);
        out.put_u64(self.to.0);
        out.put_u8(self.catalog.is_some().into());
        let parts = self.catalog.iter().cloned().chain([self.root.to_bytes()]);
        for part in parts {
            out.put_varint(part.len() as u64);
            out.extend_from_slice(&part);
        }
        out
    }

    /// The content that was stored.
    ///
    /// # Errors
    /// Another version, or bytes that are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut from = Reader::new(bytes);
        let mut parse = || -> Result<_, DecodeError> {
            let head = (from.u32()?, from.u32()?, from.u64()?, from.u64()?);
            let has_catalog = from.u8()? != 0;
            let mut part = || -> Result<Vec<u8>, DecodeError> {
                let length = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
                Ok(from.take(length)?.to_vec())
            };
            let catalog = if has_catalog { Some(part()?) } else { None };
            Ok((head, catalog, part()?))
        };
        let ((version, boot, cut, to), catalog, root) = parse().map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!("version {version}; this program reads version {VERSION}"));
        }
        Ok(Self { boot, cut, to: Lsn(to), root: RootContent::from_bytes(&root)?, catalog })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_no_cut_passes() {
        for catalog in [None, Some(vec![1, 2, 3])] {
            let content = CutContent { boot: 3, cut: 2, to: Lsn(77), root: RootContent::default(), catalog };
            let bytes = content.to_bytes();
            assert_eq!(CutContent::from_bytes(&bytes), Ok(content));
            assert!((0..bytes.len()).all(|end| CutContent::from_bytes(&bytes[..end]).is_err()));
        }
        assert!(CutContent::from_bytes(&[9; 60]).unwrap_err().contains("version"));
    }
}
