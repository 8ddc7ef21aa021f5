//! Handlers that are called with a mark: the watchdog can tell which one holds a core.

use gristmill_core::LinkedApps;
use gristmill_core::access::RunAccess;
use gristmill_core::host::{HandlerHost, Started, Target};
use gristmill_io::watchdog::{Running, while_running};
use gristmill_sdk::{Cause, Input};

/// See the module.
pub(super) struct MarkedApps(pub(super) LinkedApps);

impl HandlerHost for MarkedApps {
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>> {
        self.0.has(app, table, handler)
    }

    fn start(&mut self, run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        let (cause, offset) = inputs.first().map_or(("nothing", 0), |input| match &input.cause {
            Cause::Event { offset, .. } => ("event", *offset),
            Cause::Invoke => ("invoke", 0),
            Cause::Message => ("message", 0),
            Cause::Response { .. } => ("response", 0),
            Cause::Timer { .. } => ("timer", 0),
            Cause::Control { .. } => ("control", 0),
        });
        let key = access.grain_key();
        let running = Running {
            app: &target.app.name,
            table: &target.table.name,
            handler: &target.handler.name,
            key,
            cause,
            offset,
            inputs: inputs.len(),
        };
        while_running(&running, || self.0.start(run, target, inputs, access))
    }
}
