//! What all measurements share: sizes, folders, what there is to compare with, and the report.

use crate::core::{Core, Settings};
use crate::fio::Fio;
use crate::sizes::Sizes;
use anyhow::Context as _;
use gristmill_benches::Report;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a write means everywhere here.
pub(crate) const DURABLE: &str = "every put flushed before its reply";
/// Why there is nothing to compare with.
pub(crate) const NO_FIO: &str = "not measured: there is no fio to compare with, or it was left out";

/// See the module.
pub(crate) struct Bench {
    pub(crate) sizes: Sizes,
    /// Everything that is written goes below it.
    pub(crate) folder: PathBuf,
    pub(crate) fio: Option<Fio>,
    /// The program of other stores.
    pub(crate) rivals: Option<PathBuf>,
    /// The CPU of the shard, and all CPUs.
    pub(crate) cpu: usize,
    pub(crate) cpus: Vec<usize>,
    pub(crate) report: Report,
}

impl Bench {
    /// The folder of one data directory.
    pub(crate) fn root(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A shard that begins no checkpoint before its log has so many bytes: two segments make one due, so these are large.
    pub(crate) fn log_only(&self, bytes: u64) -> Settings {
        let segment_bytes = self.sizes.segment_bytes.max(bytes / 2).next_multiple_of(1 << 20);
        Settings { checkpoint_bytes: u64::MAX, segment_bytes, memory_bytes: None, background: self.cpus.clone() }
    }

    /// A shard whose checkpoints begin when the log has so many bytes.
    pub(crate) fn with_checkpoints(&self, checkpoint_bytes: u64) -> Settings {
        Settings {
            checkpoint_bytes,
            segment_bytes: self.sizes.segment_bytes,
            memory_bytes: None,
            background: self.cpus.clone(),
        }
    }

    /// A shard with so much memory, and segments of the log that fit it: changed rows stay in memory until a checkpoint.
    pub(crate) fn with_memory(&self, bytes: u64) -> Settings {
        let segment_bytes = (bytes / 16).next_multiple_of(1 << 20).min(self.sizes.segment_bytes);
        Settings { segment_bytes, memory_bytes: Some(bytes), ..self.with_checkpoints(bytes / 8) }
    }

    /// The same with its background on the shard's own CPU: one core for everything.
    pub(crate) fn on_one_cpu(&self, settings: Settings) -> Settings {
        Settings { background: vec![self.cpu], ..settings }
    }

    /// A shard in a new data directory.
    pub(crate) fn fresh(&self, name: &str, settings: &Settings) -> anyhow::Result<Core> {
        Core::fresh(&self.root(name), settings)
    }

    /// Nanoseconds of one measurement.
    pub(crate) fn nanos(&self) -> u64 {
        (self.sizes.seconds * 1e9) as u64
    }
}

/// Forgets a data directory.
pub(crate) fn remove(root: &Path) {
    let _ = std::fs::remove_dir_all(root);
}

/// Bytes that this process has had written to devices.
pub(crate) fn written_bytes() -> anyhow::Result<u64> {
    own_io("write_bytes: ")
}

fn own_io(counter: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix(counter));
    Ok(line.unwrap_or_default().trim().parse()?)
}

/// Reads that the device below a folder has completed, whoever asked for them. Of a file system without such a device,
/// blocks of 4 KiB that this process has read.
pub(crate) fn device_reads(folder: &Path) -> anyhow::Result<u64> {
    let device = folder.metadata()?.dev();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    let Ok(text) = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")) else {
        return Ok(own_io("read_bytes: ")? / 4_096);
    };
    text.split_whitespace().next().context("the device has no counters")?.parse().context("its reads are a number")
}

/// Bytes of memory that are this process's own and resident.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
