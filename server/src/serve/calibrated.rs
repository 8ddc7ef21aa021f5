//! How the logs write: as configured, else as the disk was measured, else in a way that no disk is bad at.

use crate::config::Log;
use crate::messages::target;
use gristmill_base::files::Files;
use gristmill_io::calibration::Calibration;
use gristmill_io::log::{FLUSH_SPACING_NANOS_DEFAULT, WRITE_DURABLE_BYTES_DEFAULT};
use gristmill_io::posix::PosixDisk;
use std::path::Path;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writing {
    /// Batches of at least so many bytes are one durable write; `usize::MAX` for never.
    pub(super) write_durable_bytes: usize,
    /// Least time between the starts of two flushes, microseconds.
    pub(super) flush_spacing_micros: u64,
    /// When the disk was measured, seconds since 1970-01-01 UTC; 0 if it was not, or not this one.
    pub(super) calibrated_seconds: u64,
}

impl Writing {
    /// For the data directory `root`. A calibration that cannot be used is told and passed over.
    pub(super) fn of(root: &Path, config: &Log) -> Self {
        let mut disk = PosixDisk::new(root);
        let loaded = Calibration::load(&mut Files::new(&mut disk));
        let here = Calibration::place_of(root);
        let found = loaded.and_then(|found| match found {
            Some(found) if found.place != here => Err(format!("it is of {}, this is {here}", found.place)),
            found => Ok(found),
        });
        let found = found.unwrap_or_else(|why| {
            tracing::warn!(
                target: target!(),
                "the disk's calibration is not used: {why}; gristmill bench disk makes it anew"
            );
            None
        });
        Self::choose(config, found.as_ref())
    }

    fn choose(config: &Log, found: Option<&Calibration>) -> Self {
        let measured = found
            .map_or(WRITE_DURABLE_BYTES_DEFAULT, |it| usize::try_from(it.write_durable_bytes).unwrap_or(usize::MAX));
        // The measurement looks for a disk that wants a longer pause; the shorter one is for the requests' sake.
        let spacing = found.map_or(0, |it| it.flush_spacing_nanos).max(FLUSH_SPACING_NANOS_DEFAULT) / 1_000;
        Self {
            write_durable_bytes: config.write_durable_bytes.unwrap_or(measured),
            flush_spacing_micros: config.flush_spacing_micros.unwrap_or(spacing),
            calibrated_seconds: found.map_or(0, |it| it.unix_seconds),
        }
    }

    /// The ring's limit: durable writes up to this many bytes are made as a write and a flush.
    pub(super) fn split_durable_bytes(&self) -> usize {
        match self.write_durable_bytes {
            usize::MAX => usize::MAX,
            bytes => bytes.saturating_sub(1),
        }
    }

    /// For the status.
    pub(super) fn facts(&self) -> [(&'static str, u64); 3] {
        [
            ("log_write_durable_bytes", self.write_durable_bytes as u64),
            ("log_flush_spacing_micros", self.flush_spacing_micros),
            ("log_calibrated_seconds", self.calibrated_seconds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_set_beats_what_was_measured_and_that_beats_the_defaults() {
        let mut config = Config::default().log;
        let none = Writing { write_durable_bytes: 131_072, flush_spacing_micros: 300, calibrated_seconds: 0 };
        assert_eq!(Writing::choose(&config, None), none);
        assert_eq!(none.split_durable_bytes(), 131_071);
        let mut measured = Calibration::new(9, String::new(), String::new(), Vec::new());
        (measured.write_durable_bytes, measured.flush_spacing_nanos) = (65_536, 500_000);
        let found = Writing::choose(&config, Some(&measured));
        assert_eq!(found, Writing { write_durable_bytes: 65_536, flush_spacing_micros: 500, calibrated_seconds: 9 });
        assert_eq!(found.split_durable_bytes(), 65_535);
        (config.write_durable_bytes, config.flush_spacing_micros) = (Some(0), Some(0));
        let set = Writing::choose(&config, Some(&measured));
        assert_eq!((set.write_durable_bytes, set.split_durable_bytes(), set.flush_spacing_micros), (0, 0, 0));
    }

    #[test]
    fn one_of_another_disk_is_passed_over() {
        let root = std::env::temp_dir().join(format!("gristmill-calibrated-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let mut disk = PosixDisk::new(&root);
        let mut files = Files::new(&mut disk);
        let here = Calibration::place_of(&root);
        for (place, used) in [(here, 7), ("another disk".to_owned(), 0)] {
            Calibration::new(7, String::new(), place, Vec::new()).store(&mut files).unwrap();
            assert_eq!(Writing::of(&root, &Config::default().log).calibrated_seconds, used);
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
