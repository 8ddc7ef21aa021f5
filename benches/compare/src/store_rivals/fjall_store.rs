//! fjall: its own settings, but for memory for all of the state.

use crate::Store;
use anyhow::Context;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

/// For the report.
pub(crate) fn name() -> String {
    "fjall crate 3".to_owned()
}

/// Bytes of its cache: more than the state has.
const CACHE_BYTES: u64 = 1 << 30;

pub(crate) struct Fjall {
    db: Database,
    rows: Keyspace,
}

impl Fjall {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let db = Database::builder(folder).cache_size(CACHE_BYTES).open().context("opening fjall")?;
        let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
        Ok(Self { db, rows })
    }
}

impl Store for Fjall {
    fn put_durably(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.rows.insert(key, value)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Ok(self.rows.insert(key, value)?)
    }

    fn get(&self, key: &[u8], check: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<bool> {
        Ok(self.rows.get(key)?.is_some_and(|value| check(&value)))
    }

    fn rest(&self) -> anyhow::Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
