//! What is backed up: what the two-copy files of a data directory say at a cut, and where each log ends there.

use super::{BackupError, source};
use crate::boot::layout::{log_config, shard_dir};
use crate::boot::{BootConfig, BootError, Placement, damage, missing, read_root};
use crate::shard::{CutContent, RootContent};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId};
use gristmill_io::identity::{IDENTITY_FILE, Identity};
use gristmill_io::log::{LogConfig, scan};
use gristmill_io::root::RootFile;

/// One shard at the cut.
#[derive(Clone, Debug)]
pub struct ShardSource {
    /// Files that count, and the first record that a start reads.
    pub root: RootContent,
    /// The last record that counts.
    pub to: Lsn,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct BackupSource {
    /// The data directory.
    pub identity: Identity,
    /// Its placement.
    pub placement: Placement,
    /// Number of the cut; 0 if no server runs.
    pub cut: u64,
    /// The catalog's bytes, if there ever was one.
    pub catalog: Option<Vec<u8>>,
    /// By shard.
    pub shards: Vec<ShardSource>,
}

impl BackupSource {
    /// Of a data directory that no server runs on: everything that a start would find. Blocking.
    ///
    /// # Errors
    /// Damage, or what the disk says.
    pub fn at_rest(files: &mut Files<'_>, config: &BootConfig) -> Result<Self, BackupError> {
        let (identity, placement) = whose(files)?;
        let owners = placement.owners(identity.slot_count)?;
        let catalog = newest(files, "", "catalog", identity.directory)?;
        let mut shards = Vec::new();
        for shard in (0..placement.shard_count).map(ShardId) {
            let (_, root, _) = read_root(files, &identity, (&placement, &owners), shard)?;
            let log = log_config(config, &identity, placement.layout, shard);
            let end = scan(files, &log, root.log_from, &mut |_, _, _| {})?;
            shards.push(ShardSource { root, to: Lsn(end.next.0 - 1) });
        }
        Ok(Self { identity, placement, cut: 0, catalog, shards })
    }

    /// Of a data directory whose server has taken that cut and holds what it names. Blocking.
    ///
    /// # Errors
    /// Damage, another cut, or what the disk says.
    pub fn at_cut(files: &mut Files<'_>, cut: u64) -> Result<Self, BackupError> {
        let (identity, placement) = whose(files)?;
        let owners = placement.owners(identity.slot_count)?;
        let mut catalog = None;
        let mut shards = Vec::new();
        for shard in (0..placement.shard_count).map(ShardId) {
            let dir = shard_dir(placement.layout, shard);
            let name = format!("{dir}/{}", CutContent::NAME);
            let bytes = newest(files, &dir, CutContent::NAME, identity.directory)?;
            let bytes = bytes.ok_or_else(|| damage(&name, &"it is missing, but the server has taken a cut"))?;
            let content = CutContent::from_bytes(&bytes).map_err(|what| damage(&name, &what))?;
            if (content.boot, content.cut) != (placement.boot, cut) {
                let what = format!("it is of cut {}, not of {cut}: another backup was begun", content.cut);
                return Err(BackupError::Refused(what));
            }
            catalog = catalog.or(content.catalog);
            // A shard may have taken its cut before it heard that the last slot that left it is another one's.
            let root = content.root.of(shard, identity.slot_count, &owners).map_err(|what| damage(&name, &what))?;
            shards.push(ShardSource { root, to: content.to });
        }
        Ok(Self { identity, placement, cut, catalog, shards })
    }

    pub(super) fn log(&self, shard: ShardId) -> LogConfig {
        log_config(&BootConfig::default(), &self.identity, self.placement.layout, shard)
    }
}

fn whose(files: &mut Files<'_>) -> Result<(Identity, Placement), BackupError> {
    let Some(identity) = Identity::load(files)? else {
        missing::identity(files)?;
        return Err(BootError::Config(format!("this is no data directory: it has no file {IDENTITY_FILE}")).into());
    };
    let placement = newest(files, "", "placement", identity.directory)?;
    let placement = placement.ok_or_else(|| damage("placement", &"it is missing"))?;
    Ok((identity, Placement::from_bytes(&placement)?))
}

/// What the better copy of a two-copy file says.
fn newest(files: &mut Files<'_>, dir: &str, name: &str, directory: u128) -> Result<Option<Vec<u8>>, BackupError> {
    let (bytes, damaged) = RootFile::look(files, dir, name, directory)?;
    match (bytes, damaged.is_empty()) {
        (None, false) => {
            let whats: Vec<String> = damaged.into_iter().map(|(_, what)| what).collect();
            Err(damage(&format!("{dir}/{name}"), &whats.join("; ")).into())
        }
        (bytes, _) => Ok(bytes),
    }
}

/// Length of a file of the source.
pub(super) fn length_of(files: &mut Files<'_>, path: &str) -> Result<u64, BackupError> {
    let file = files.open(path, gristmill_base::env::OpenMode::Read).map_err(source)?;
    let length = files.length(file);
    files.close(file);
    length.map_err(source)
}
