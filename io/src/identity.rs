//! The file `identity`, which makes a folder a data directory: written once, two copies, at block 0 and block 1.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0, 8 | magic `GMDATDIR` |
//! | 8, 4 | format version of the data directory |
//! | 12, 2 | slot count |
//! | 14, 2 | zero |
//! | 16, 16 | data-directory id |
//! | 32, 4 | CRC32C of bytes 0 to 32 |

use crate::log::LogError;
use gristmill_base::checksum::crc32c;
use gristmill_base::codec::{Put, Reader};
use gristmill_base::env::DiskOp;
use gristmill_base::files::Files;
use gristmill_base::ids::Lsn;
use gristmill_base::limits::{BLOCK_BYTES, SLOT_COUNT_MAX};

/// Name of the file.
pub const IDENTITY_FILE: &str = "identity";
/// Version of the data directory that is made. Older ones down to [`DIRECTORY_VERSION_OLDEST`] are opened.
pub const DIRECTORY_VERSION: u32 = 1;
/// The oldest version that is opened.
pub const DIRECTORY_VERSION_OLDEST: u32 = 1;
const MAGIC: [u8; 8] = *b"GMDATDIR";
const BYTES: usize = 36;

/// What never changes about a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random id; part of every checksum of a log.
    pub directory: u128,
    /// Number of slots.
    pub slot_count: u16,
}

impl Identity {
    /// Reads the file; `None` if the folder is no data directory yet. Blocking.
    ///
    /// # Errors
    /// Both copies damaged, a newer version, or what the disk says.
    pub fn load(files: &mut Files<'_>) -> Result<Option<Self>, LogError> {
        let Some(bytes) = files.read_declared(IDENTITY_FILE, |_| 2 * BLOCK_BYTES as u64)? else { return Ok(None) };
        for at in [0, BLOCK_BYTES] {
            let copy = bytes.get(at..).and_then(|rest| rest.first_chunk::<BYTES>());
            let Some((version, identity)) = copy.and_then(Self::decode) else { continue };
            if !(DIRECTORY_VERSION_OLDEST..=DIRECTORY_VERSION).contains(&version) {
                return Err(LogError::Version {
                    file: IDENTITY_FILE.to_owned(),
                    found: version,
                    oldest: DIRECTORY_VERSION_OLDEST,
                    newest: DIRECTORY_VERSION,
                });
            }
            if identity.slot_count == 0 || identity.slot_count > SLOT_COUNT_MAX {
                let what = format!("{} slots, 1 to {SLOT_COUNT_MAX} are allowed", identity.slot_count);
                return Err(LogError::Foreign { file: IDENTITY_FILE.to_owned(), what });
            }
            return Ok(Some(identity));
        }
        let what = format!("neither copy of the identity is readable; the file has {} bytes", bytes.len());
        let file = IDENTITY_FILE.to_owned();
        Err(LogError::Damage { file, offset: 0, first: Lsn(1), last: Lsn(1), what })
    }

    /// Writes the file anew, durably, if one of its copies is not readable, and says so, for the operator. Blocking; after
    /// [`Self::load`] found the other one.
    ///
    /// # Errors
    /// What the disk says; the file is then the old or the new one.
    pub fn repair(files: &mut Files<'_>) -> Result<Option<String>, LogError> {
        let bytes = files.read_declared(IDENTITY_FILE, |_| 2 * BLOCK_BYTES as u64)?.unwrap_or_default();
        let copy = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<BYTES>());
        let readable = [0, BLOCK_BYTES].map(|at| copy(at).filter(|copy| Self::decode(copy).is_some()));
        let (bad, good) = match readable {
            [None, Some(good)] => (0, good),
            [Some(good), None] => (BLOCK_BYTES, good),
            _ => return Ok(None),
        };
        Self::replace(files, "", good)?;
        Ok(Some(format!("{IDENTITY_FILE}: the copy at byte {bad} is not readable ({} bytes)", bytes.len())))
    }

    /// Where a copy starts that cannot be read. Blocking.
    ///
    /// # Errors
    /// What the disk says.
    pub fn damaged_copies(files: &mut Files<'_>) -> Result<Vec<u64>, LogError> {
        let Some(bytes) = files.read_declared(IDENTITY_FILE, |_| 2 * BLOCK_BYTES as u64)? else {
            return Ok(Vec::new());
        };
        let is_good = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<BYTES>()).and_then(Self::decode);
        Ok([0, BLOCK_BYTES].into_iter().filter(|at| is_good(*at).is_none()).map(|at| at as u64).collect())
    }

    /// Makes the file, durably, in a folder that has none. Blocking.
    ///
    /// # Errors
    /// What the disk says; the folder is then a data directory or none, and this can be repeated.
    pub fn create(&self, files: &mut Files<'_>) -> Result<(), LogError> {
        self.create_in(files, "")
    }

    /// The same in a folder below: a copy of the file, as backups hold one.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_in(&self, files: &mut Files<'_>, folder: &str) -> Result<(), LogError> {
        Self::replace(files, folder, &self.encode())
    }

    /// Makes a file of two copies and puts it in the place of the one that is there.
    fn replace(files: &mut Files<'_>, folder: &str, copy: &[u8]) -> Result<(), LogError> {
        let slash = if folder.is_empty() { "" } else { "/" };
        let path = format!("{folder}{slash}{IDENTITY_FILE}");
        let name = format!("{IDENTITY_FILE}.new");
        let fresh = format!("{path}.new");
        files.remove_if_there(&fresh)?;
        let mut bytes = copy.to_vec();
        bytes.resize(BLOCK_BYTES, 0);
        bytes.extend_from_slice(copy);
        files.create_file(folder, &name, &bytes)?;
        files.run(DiskOp::Rename { from: fresh, to: path })?;
        files.flush_dir(folder)?;
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 * BLOCK_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.put_u32(DIRECTORY_VERSION);
        bytes.put_u16(self.slot_count);
        bytes.put_u16(0);
        bytes.extend_from_slice(&self.directory.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes.put_u32(crc);
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<(u32, Self)> {
        let mut reader = Reader::new(bytes);
        let magic = reader.take(8).ok()?;
        let version = reader.u32().ok()?;
        let slot_count = reader.u16().ok()?;
        reader.u16().ok()?;
        let directory = u128::from_le_bytes(reader.take(16).ok()?.try_into().ok()?);
        let valid = magic == MAGIC && reader.u32().ok()? == crc32c(&bytes[..BYTES - 4]);
        valid.then_some((version, Self { directory, slot_count }))
    }
}
