//! RocksDB: its own settings, but for what makes it faster here: memory for all of the state, and its write path for many
//! callers.

use crate::Store;
use anyhow::Context;
use rocksdb::{BlockBasedOptions, Cache, DB, Options, WriteOptions};
use std::path::Path;
use std::process::Command;

/// For the report: the crate, and the library that it is linked with.
pub(crate) fn name() -> String {
    let asked = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "librocksdb-dev"]).output();
    let library = asked.ok().filter(|output| output.status.success());
    let library = library.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    format!("rocksdb crate 0.20, library {}", library.as_deref().unwrap_or("unknown"))
}

/// Bytes of the cache of blocks: more than the state has.
const CACHE_BYTES: usize = 1 << 30;

pub(crate) struct Rocks {
    db: DB,
    synced: WriteOptions,
}

impl Rocks {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES)?);
        blocks.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        // A log file whose length is known needs no flush of the file's own data at each sync.
        options.set_recycle_log_file_num(4);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Self { db: DB::open(&options, folder).context("opening RocksDB")?, synced })
    }
}

impl Store for Rocks {
    fn put_durably(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Ok(self.db.put_opt(key, value, &self.synced)?)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Ok(self.db.put(key, value)?)
    }

    fn get(&self, key: &[u8], check: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<bool> {
        Ok(self.db.get_pinned(key)?.is_some_and(|value| check(&value)))
    }

    fn rest(&self) -> anyhow::Result<()> {
        Ok(self.db.flush_wal(true)?)
    }
}
