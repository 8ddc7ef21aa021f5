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
