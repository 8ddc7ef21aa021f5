//! Versions of apps as inputs: a handler that wants to hear of them (`control` in the app file) gets each one that is shown, on a
//! stream of its own whose positions are the numbers of the versions.
//!
//! Nothing is kept for it beside the catalog: whoever has the slot of the key offers the version that is shown, at the start, when
//! a version is shown and when the slot has come, and the stream's cursor tells what was heard. A version that another one has
//! replaced before it was heard of is left out.

use super::Shard;
use crate::catalog::Catalog;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{HandlerId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_base::sometimes::reached;
use gristmill_state::input::{GrainAddress, GrainOperation, Input, InputCause, StreamId};
use gristmill_state::slot::Acceptance;
use gristmill_state::stream::Stream;

impl Shard {
    /// Lets handlers hear of versions, if one may not have.
    pub(super) fn tell_versions(&mut self) {
        // A catalog that is used and not shown yet comes here once it is: what it tells can be found on every shard then.
        if !self.versions_due || self.shown.version != self.catalog.version {
            return;
        }
        self.versions_due = false;
        let shown = self.shown.clone();
        self.tell_versions_of(&shown);
    }

    /// The same of a catalog.
    pub(super) fn tell_versions_of(&mut self, catalog: &Catalog) {
        for app in &catalog.apps {
            let cause = |from| InputCause::Control { version: app.version, from, rolled_back: app.rolled_back };
            for table in &app.tables {
                for handler in &table.handlers {
                    let Some(key) = &handler.control else { continue };
                    self.tell_version(TableId(table.id), HandlerId(handler.id), key, app.version, cause);
                }
            }
        }
    }

    fn tell_version(
        &mut self,
        table: TableId,
        handler: HandlerId,
        key: &[u8],
        version: u32,
        cause: impl Fn(u32) -> InputCause,
    ) {
        let slot = slot_of(key, self.config.slot_count);
        if self.owner(slot) != self.config.shard {
            return;
        }
        if !self.owns(slot) {
            // It may leave, or stay after all.
            self.versions_due = true;
            return;
        }
        let stream = StreamId::Control { table, handler };
        let heard = self.slot_mut(slot).stream(stream).map_or(0, Stream::received);
        if heard >= u64::from(version) {
            return;
        }
        let from = u32::try_from(heard).expect("positions of the stream are versions");
        let input = Input::new(cause(from), GrainOperation::Call(handler, [].into())).of(InputClass::Live);
        let grain = GrainAddress { table, key: key.into() };
        match self.deliver_event(stream, slot, heard, version.into(), grain, input) {
            Acceptance::Taken => reached("handler hears of a version"),
            Acceptance::Known => {}
            Acceptance::Expected(_) | Acceptance::Dropped | Acceptance::Full => self.versions_due = true,
        }
    }

    /// The highest version of an app that a grain of one of its tables here has been told of; 0 if none has. For tests.
    #[must_use]
    pub fn version_told(&self, tables: &[u32]) -> u64 {
        let of_app = |id: &StreamId| matches!(id, StreamId::Control { table, .. } if tables.contains(&table.0));
        let streams = self.slots.iter().flatten().flat_map(|slot| slot.streams());
        streams.filter(|(id, _)| of_app(id)).map(|(_, stream)| stream.received()).max().unwrap_or(0)
    }
}
