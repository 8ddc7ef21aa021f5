//! The stored calibration: the two-copy file `calibration`, an rkyv archive with its version outside.

use super::choice::{Choice, choose};
use super::measure::{Cell, How, Round};
use crate::log::LogError;
use crate::log::{FLUSH_SPACING_NANOS_DEFAULT, WRITE_DURABLE_BYTES_DEFAULT};
use crate::root::{Looked, RootFile, RootState};
use gristmill_base::env::DiskError;
use gristmill_base::files::Files;
use rkyv::{Archive, Deserialize, Serialize};

/// Name of the two-copy file in the data directory.
pub const CALIBRATION_FILE: &str = "calibration";
/// Version of the archive; the only one that is read.
const CALIBRATION_VERSION: u32 = 1;
/// Bytes before the archive: the version, and zeros that align it.
const HEAD_BYTES: usize = 16;
/// A calibration belongs to a disk, not to the data: it may be made before the data directory has an id.
const NO_IDENTITY: u128 = 0;

/// What was measured of one cell over all its rounds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// One durable write; otherwise a write and a flush.
    pub whole: bool,
    /// Bytes of a write.
    pub bytes: u64,
    /// Writes in flight.
    pub depth: u32,
    /// Least time between two starts, nanoseconds.
    pub spacing_nanos: u64,
    /// Whether something else wrote.
    pub beside_writer: bool,
    /// Writes made.
    pub writes: u64,
    /// Of them in a second.
    pub per_second: u64,
    /// Nanoseconds of one, on average.
    pub mean_nanos: u64,
    /// Half were faster.
    pub p50_nanos: u64,
    /// 99 % were faster.
    pub p99_nanos: u64,
    /// The slowest.
    pub max_nanos: u64,
}

impl Figure {
    /// Of the rounds of a cell.
    ///
    /// # Panics
    /// If there is no round.
    #[must_use]
    pub fn of(cell: &Cell, rounds: &[Round]) -> Self {
        let mut all = rounds.first().expect("every cell has a round").nanos.clone();
        for round in &rounds[1..] {
            all.add(&round.nanos).expect("histograms of one kind add up");
        }
        let elapsed: u64 = rounds.iter().map(|round| round.elapsed_nanos).sum();
        Self {
            whole: cell.how == How::WriteDurable,
            bytes: cell.bytes as u64,
            depth: cell.depth as u32,
            spacing_nanos: cell.spacing_nanos,
            beside_writer: cell.beside_writer,
            writes: all.len(),
            per_second: (u128::from(all.len()) * 1_000_000_000 / u128::from(elapsed.max(1))) as u64,
            mean_nanos: all.mean() as u64,
            p50_nanos: all.value_at_quantile(0.5),
            p99_nanos: all.value_at_quantile(0.99),
            max_nanos: all.max(),
        }
    }

    /// The operation.
    #[must_use]
    pub fn how(&self) -> How {
        if self.whole { How::WriteDurable } else { How::WriteThenFlush }
    }
}

/// What a data directory knows of its disk.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// When it was measured, seconds since 1970-01-01 UTC.
    pub unix_seconds: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// File system and device, as [`Self::place_of`] names them: on another one it means nothing.
    pub place: String,
    /// Batches of at least so many bytes are one durable write; `u64::MAX` for never.
    pub write_durable_bytes: u64,
    /// Least time between two flushes, nanoseconds.
    pub flush_spacing_nanos: u64,
    /// What was measured.
    pub figures: Vec<Figure>,
}

impl Calibration {
    /// Of figures that were just measured.
    #[must_use]
    pub fn new(unix_seconds: u64, kernel: String, place: String, figures: Vec<Figure>) -> Self {
        let Choice { write_durable_bytes, flush_spacing_nanos } = choose(&figures);
        Self { unix_seconds, kernel, place, write_durable_bytes, flush_spacing_nanos, figures }
    }

    /// The same with the settings of a disk that was never measured, for figures that nothing should be built on.
    #[must_use]
    pub fn cautious(self) -> Self {
        Self {
            write_durable_bytes: WRITE_DURABLE_BYTES_DEFAULT as u64,
            flush_spacing_nanos: FLUSH_SPACING_NANOS_DEFAULT,
            ..self
        }
    }

    /// Name of the place that `path` is in.
    #[must_use]
    pub fn place_of(path: &std::path::Path) -> String {
        let Some(found) = crate::host::file_system(path) else { return "unknown".to_owned() };
        let device = found.device.map_or_else(|| "no device".to_owned(), |device| device.number);
        format!("{} of {} bytes on {device}", found.kind, found.total_bytes)
    }

    /// Stores it. Blocking.
    ///
    /// # Errors
    /// What the disk says.
    pub fn store(&self, files: &mut Files<'_>) -> Result<(), LogError> {
        let (mut file, _) = RootFile::load(files, "", CALIBRATION_FILE, NO_IDENTITY)?;
        file.store(files, &self.to_bytes()).map(drop).map_err(|error: DiskError| error.into())
    }

    /// The stored one, if there is one. Blocking.
    ///
    /// # Errors
    /// Why it cannot be used; a server then goes on without.
    pub fn load(files: &mut Files<'_>) -> Result<Option<Self>, String> {
        match RootFile::load(files, "", CALIBRATION_FILE, NO_IDENTITY) {
            Ok((_, RootState::Empty)) => Ok(None),
            Ok((_, RootState::Present { bytes, .. })) => Self::from_bytes(&bytes).map(Some),
            Ok((_, RootState::Unreadable { what })) => Err(what),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Looks at both copies, for who wants to know of damage. Blocking.
    ///
    /// # Errors
    /// As [`RootFile::look`].
    pub fn look(files: &mut Files<'_>) -> Result<Looked, LogError> {
        RootFile::look(files, "", CALIBRATION_FILE, NO_IDENTITY)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = CALIBRATION_VERSION.to_le_bytes().to_vec();
        bytes.resize(HEAD_BYTES, 0);
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("a calibration in memory can be archived");
        bytes.extend_from_slice(&archive);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let head = bytes.first_chunk::<4>().ok_or("it is empty")?;
        let version = u32::from_le_bytes(*head);
        if version != CALIBRATION_VERSION {
            return Err(format!("it has version {version}, this program reads version {CALIBRATION_VERSION}"));
        }
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes.get(HEAD_BYTES..).unwrap_or_default());
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posix::PosixDisk;
    use std::fs;

    fn some() -> Calibration {
        let figure = Figure {
            whole: true,
            bytes: 4_096,
            depth: 1,
            spacing_nanos: 0,
            beside_writer: false,
            writes: 9,
            per_second: 8,
            mean_nanos: 7,
            p50_nanos: 6,
            p99_nanos: 5,
            max_nanos: 4,
        };
        Calibration::new(1_700_000_000, "6.1".to_owned(), "ext4 of 9 bytes on 8:0".to_owned(), vec![figure])
    }

    #[test]
    fn it_comes_back_and_damage_is_told() {
        let root = std::env::temp_dir().join(format!("gristmill-calibration-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let mut disk = PosixDisk::new(&root);
        let mut files = Files::new(&mut disk);
        assert_eq!(Calibration::load(&mut files), Ok(None));
        some().store(&mut files).unwrap();
        assert_eq!(Calibration::load(&mut files), Ok(Some(some())));
        for copy in ["calibration.a", "calibration.b"] {
            let mut bytes = fs::read(root.join(copy)).unwrap();
            bytes[60] ^= 1;
            fs::write(root.join(copy), bytes).unwrap();
        }
        assert!(Calibration::load(&mut files).unwrap_err().contains("checksum"));
        some().store(&mut files).unwrap();
        assert_eq!(Calibration::load(&mut files), Ok(Some(some())), "measuring again mends it");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn another_version_and_cut_bytes_are_no_calibration() {
        let mut bytes = some().to_bytes();
        for end in 0..bytes.len() {
            assert!(Calibration::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
        bytes[0] = 2;
        assert!(Calibration::from_bytes(&bytes).unwrap_err().contains("version 2"));
    }

    #[test]
    fn a_place_has_a_name() {
        assert!(Calibration::place_of(&std::env::temp_dir()).contains(" bytes on "));
        assert_eq!(Calibration::place_of(std::path::Path::new("/nonexistent")), "unknown");
    }
}
