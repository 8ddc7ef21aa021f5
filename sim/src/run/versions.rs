//! Other versions of the app.

use super::{Names, Run};
use gristmill_base::sometimes;
use std::rc::Rc;

impl Run {
    /// Another version of the app under load, across crashes and a full disk as they come.
    pub(super) fn change_version(&mut self, is_last: bool) -> Result<(), String> {
        self.reloads_left = self.reloads_left.saturating_sub(1);
        self.draw_reload();
        let most = self.machine.cores.iter().map(|core| core.shard.engine_micros()).max().unwrap_or(0);
        if !self.workload.version_begins(most, is_last, &mut self.rng) {
            return Ok(());
        }
        sometimes::reached("another version of the app under load");
        if !is_last && self.rng.below(3) == 0 {
            self.machine.disk.crash_at_op(self.machine.disk.ops() + self.rng.between(1, 80));
        }
        self.put_app()?;
        self.workload.version_used();
        if is_last && self.rng.below(2) == 0 {
            // Nothing of what begins by itself with a version may be lost.
            sometimes::reached("crash behind the load of a version");
            self.restart()?;
        }
        Ok(())
    }

    /// A version may be told to handlers once every shard uses it.
    pub(super) fn versions_are_used(&self) -> Result<(), String> {
        let cores = || self.machine.cores.iter().map(|core| &core.shard);
        let name = self.workload.app().name;
        let used = cores().map(|shard| shard.catalog().app(name).map_or(0, |app| app.version)).min().unwrap_or(0);
        for shard in cores() {
            let Some(app) = shard.catalog().app(name) else { continue };
            let tables: Vec<u32> = app.tables.iter().map(|table| table.id).collect();
            let told = shard.version_told(&tables);
            if told > u64::from(used) {
                return Err(format!("order: version {told} is told to a handler, and a shard uses version {used}"));
            }
        }
        Ok(())
    }

    /// Goes by the version of the app that the machine has, if it has one.
    pub(super) fn take_names(&mut self) {
        let catalog = self.machine.cores[0].shard.catalog().clone();
        if let Some(entry) = catalog.app(self.workload.app().name) {
            self.names = Some(Rc::new(Names::new(entry.clone(), self.machine.knobs.boot.slot_count)));
        }
    }
}
