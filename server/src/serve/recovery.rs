//! Recovery of the data directory before the shards start.

use super::calibrated::Writing;
use crate::config::{Config, Sizes};
use crate::exit::{Exit, Failed};
use crate::messages::target;
use gristmill_base::env::Clock;
use gristmill_base::files::Files;
use gristmill_base::ids::ShardId;
use gristmill_core::boot::{BootConfig, BootError, Placement, ShardSeed, recover};
use gristmill_io::clock::SystemClock;
use gristmill_io::identity::Identity;
use gristmill_io::log::LogError;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::FileRing;
use gristmill_io::root::{RootFile, RootState};
use std::path::Path;

/// What a data directory held, ready to be opened by the shards.
pub(super) struct Recovered {
    /// One per shard, in order.
    pub(super) seeds: Vec<ShardSeed>,
    /// Id of the data directory.
    pub(super) directory: u128,
    /// Starts of the data directory so far: rises whenever slots or ports may have moved.
    pub(super) placement_version: u64,
    /// The shard of each slot.
    pub(super) slots: Vec<ShardId>,
}

impl Recovered {
    /// Recovers the data directory `root`, or makes it one. Blocking.
    ///
    /// # Errors
    /// Damage, a version that this program does not open, or what the disk says.
    pub(super) fn read(
        root: &Path,
        config: &Config,
        sizes: &Sizes,
        writing: &Writing,
        (shards, store_files): (usize, usize),
    ) -> Result<Self, Failed> {
        let failed = |error: &BootError| boot_failed(&root.display().to_string(), error);
        let shard_count = u16::try_from(shards).expect("the plan has at most 64 shards");
        let boot = BootConfig {
            shard_count,
            segment_bytes: config.log.segment_bytes,
            checkpoint_bytes: sizes.checkpoint_bytes,
            resident_bytes_max: sizes.resident_bytes,
            cache_bytes: sizes.cache_bytes,
            store_files_max: store_files,
            flush_spacing_nanos: writing.flush_spacing_micros * 1_000,
            queued_bytes_max: sizes.queued_bytes,
            computations_max: config.server.computations_per_shard,
            watch_bytes: sizes.watch_bytes,
            watch_always: config.memory.watch_always,
            session_idle_micros: config.sessions.idle_seconds * 1_000_000,
            ..BootConfig::default()
        };
        let mut disk = FileRing::new(root)
            .map_err(|error| Failed::new(Exit::Configuration, format!("the ring of recovery: {error}")))?;
        let seeds = recover(&mut disk, &boot, SystemClock.now(), &mut SystemRng::new()).map_err(|it| failed(&it))?;
        for notice in seeds.iter().flat_map(ShardSeed::notices) {
            tracing::warn!(target: target!(), "{notice}");
        }
        let mut files = Files::new(&mut disk);
        let (identity, placement) = placement_of(&mut files).map_err(|it| failed(&it))?;
        let slot_count = identity.slot_count;
        let slots = placement.owners(slot_count).map_err(|it| failed(&it))?.all().to_vec();
        let placement_version = u64::from(placement.term);
        Ok(Self { seeds, directory: identity.directory, placement_version, slots })
    }
}

/// What recovery has left on disk.
fn placement_of(files: &mut Files<'_>) -> Result<(Identity, Placement), BootError> {
    let gone = |file: &str| BootError::Damage { file: file.to_owned(), what: "it is gone after recovery".to_owned() };
    let identity = Identity::load(files)?.ok_or_else(|| gone("identity"))?;
    match RootFile::load(files, "", "placement", identity.directory)?.1 {
        RootState::Present { bytes, .. } => Ok((identity, Placement::from_bytes(&bytes)?)),
        _ => Err(gone("placement")),
    }
}

/// A start that failed: damage is an answer, anything else a matter of configuration.
pub(super) fn boot_failed(what: &str, error: &BootError) -> Failed {
    let exit = match error {
        BootError::Damage { .. } | BootError::LostData(_) | BootError::Log(LogError::Damage { .. }) => Exit::No,
        _ => Exit::Configuration,
    };
    Failed::new(exit, format!("{what}: {error}"))
}
