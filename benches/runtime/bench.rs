//! What all measurements share.

use crate::app::{self, NAME};
use crate::core::{Core, Settings};
use crate::drive::{Callers, Extent, Measured, Work};
use crate::sizes::Sizes;
use gristmill_base::ids::{HandlerId, SlotId, TableId, TopicId};
use gristmill_base::limits::SLOT_COUNT_DEFAULT;
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_benches::{Report, key};
use gristmill_core::request::{Operation, Sequence};
use gristmill_sdk::App;
use std::path::{Path, PathBuf};

/// What a run means everywhere here.
pub(crate) const DURABLE: &str = "every run's commit record flushed before its reply";
/// Callers under group commit, each with one operation in flight.
pub(crate) const CALLERS: usize = 1_024;
/// Operations in flight where as many are as a server lets 50 connections have.
pub(crate) const DEEP: usize = 16_384;

/// See the module.
pub(crate) struct Bench {
    pub(crate) sizes: Sizes,
    /// Everything that is written goes below it.
    pub(crate) folder: PathBuf,
    /// CPUs that may be used; the first one is that of the first shard.
    pub(crate) cpus: Vec<usize>,
    pub(crate) report: Report,
}

/// A handler that is invoked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invoked {
    pub(crate) table: TableId,
    pub(crate) handler: HandlerId,
}

impl Bench {
    /// So many shards, with the background on the first one's CPU: one core for everything where there is one shard.
    pub(crate) fn settings(&self, shards: usize) -> Settings {
        Settings {
            cpus: self.cpus[..shards].to_vec(),
            background: vec![self.cpus[0]],
            segment_bytes: self.sizes.segment_bytes,
            memory_bytes: None,
            has_workers: false,
        }
    }

    /// Shards in a new data directory, with the app that is measured.
    pub(crate) fn fresh(&self, name: &str, settings: &Settings) -> anyhow::Result<Core> {
        self.fresh_with(name, settings, app::app)
    }

    /// The same with another app.
    pub(crate) fn fresh_with(&self, name: &str, settings: &Settings, app: fn() -> App) -> anyhow::Result<Core> {
        Core::fresh(&self.folder.join(name), settings, app)
    }

    /// Forgets a data directory.
    pub(crate) fn forget(&self, name: &str) {
        remove(&self.folder.join(name));
    }

    /// Nanoseconds of one measurement.
    pub(crate) fn nanos(&self) -> u64 {
        (self.sizes.seconds * 1e9) as u64
    }
}

/// Forgets a folder.
pub(crate) fn remove(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
}

impl Core {
    /// A handler of the app, by names.
    pub(crate) fn handler(&self, table: &str, handler: &str) -> Invoked {
        self.handler_of(NAME, table, handler)
    }

    /// A handler of any app, by names.
    pub(crate) fn handler_of(&self, app: &str, table: &str, handler: &str) -> Invoked {
        let app = self.shard().catalog().app(app).expect("the app was loaded");
        let table = app.tables.iter().find(|known| known.name == table).expect("the app has it");
        let handler = table.handler_named(handler).expect("the table has it");
        Invoked { table: TableId(table.id), handler: HandlerId(handler.id) }
    }

    /// The topic of events, and its lanes.
    pub(crate) fn events(&self) -> (TopicId, u16) {
        let app = self.shard().catalog().app(self.app_name()).expect("the app was loaded");
        let topic = app.topics.iter().find(|topic| topic.name == "events").expect("the app has it");
        (TopicId(topic.id), topic.lanes)
    }

    /// Invokes a handler of the grains `key(n)` with the payload of `n`.
    pub(crate) fn invoke(
        &mut self,
        callers: &mut Callers,
        invoked: Invoked,
        numbers: u64,
        payload: &dyn Fn(u64) -> Box<[u8]>,
        counts: &dyn Fn(u64) -> bool,
        extent: Extent,
    ) -> anyhow::Result<Measured> {
        let operation = |number: u64, sequence: Sequence, _: u64| Operation::Invoke {
            table: invoked.table,
            handler: invoked.handler,
            sequence,
            key: key(number).into(),
            payload: payload(number),
        };
        let work = Work { numbers, slot: &slot_of_number, operation: &operation, counts };
        callers.run(self, &work, extent)
    }

    /// Appends events with the keys `key(keys(n))` and the values of `n`, each with the time when it was meant to be
    /// appended. What `counts` of the numbers is measured.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the load")]
    pub(crate) fn append(
        &mut self,
        callers: &mut Callers,
        numbers: u64,
        keys: &dyn Fn(u64) -> u64,
        value: &dyn Fn(u64) -> u8,
        counts: &dyn Fn(u64) -> bool,
        extent: Extent,
        wall_of: &dyn Fn(u64) -> u64,
    ) -> anyhow::Result<Measured> {
        let (topic, lanes) = self.events();
        let home = |number: u64| lane_home(topic, lane_of(&key(keys(number)), lanes), lanes, SLOT_COUNT_DEFAULT);
        let operation = |number: u64, sequence: Sequence, since: u64| Operation::Produce {
            topic,
            sequence,
            key: key(keys(number)).as_slice().into(),
            value: Box::new([value(number)]),
            headers: Vec::new(),
            event_micros: wall_of(since),
        };
        let work = Work { numbers, slot: &home, operation: &operation, counts };
        callers.run(self, &work, extent)
    }
}

/// The slot of the grain `key(n)`.
pub(crate) fn slot_of_number(number: u64) -> SlotId {
    slot_of(&key(number), SLOT_COUNT_DEFAULT)
}
