//! Those who watch tables: how many there are in a run, and what is held against what they saw at its end.

use super::{Options, Run};
use crate::auditor::watched::Rows;
use crate::client::World;
use crate::rng::SimRng;
use crate::watcher::Watcher;
use gristmill_base::ids::{MapId, SessionId};
use gristmill_base::sometimes::reached;
use gristmill_core::request::Reply;

/// Answers that one slot may take at the end.
const ANSWERS_MAX: u32 = 20_000;

/// The watchers of a run, by dice of their own.
pub(super) fn draw(options: &Options) -> Vec<Watcher> {
    if options.workload != "watch" {
        return Vec::new();
    }
    let mut rng = SimRng::new(options.seed ^ 0x7761_7463);
    let count = rng.between(3, 6);
    (0..count).map(|number| Watcher::new(number, rng.fork())).collect()
}

impl Run {
    /// Watchers ask, now and then.
    pub(super) fn watchers_act(&mut self) {
        for at in 0..self.watchers.len() {
            let (watcher, mut world) = self.watcher(at);
            watcher.act(&mut world);
        }
    }

    /// A reply, unless it was for a watcher, who has it then.
    pub(super) fn unless_of_watcher(&mut self, reply: Reply) -> Result<Option<Reply>, String> {
        let Some(at) = self.watchers.iter().position(|watcher| watcher.hears(&reply)) else { return Ok(Some(reply)) };
        let (watcher, mut world) = self.watcher(at);
        watcher.hear(reply, &mut world).map(|()| None)
    }

    fn watcher(&mut self, at: usize) -> (&mut Watcher, World<'_>) {
        let names = self.names.as_ref().expect("watchers begin once the app is loaded");
        let world =
            World { machine: &mut self.machine, names, auditor: &mut self.auditor, workload: self.workload.as_mut() };
        (&mut self.watchers[at], world)
    }

    /// Everybody who watches takes what there is still; then all that they saw is held against what clients know, and against
    /// what is stored.
    pub(super) fn check_watches(&mut self) -> Result<(), String> {
        for at in 0..self.watchers.len() {
            let app = self.names.as_ref().map_or(0, |names| names.app_id());
            if !self.watchers[at].is_of(app) {
                // Nobody knows any more what it saw.
                continue;
            }
            let slots = self.machine.knobs.boot.slot_count;
            for (slot, _) in self.watchers[at].last_asks(app, slots) {
                for _ in 0..ANSWERS_MAX {
                    let asks = self.watchers[at].last_asks(app, slots);
                    let Some((_, ask)) = asks.into_iter().find(|(of, _)| *of == slot) else { break };
                    let outcome = self.ask_firmly(SessionId(0), &ask)?;
                    let (watcher, mut world) = self.watcher(at);
                    if !watcher.last_answer(outcome, &mut world)? {
                        break;
                    }
                }
            }
            self.check_lines(at)?;
        }
        Ok(())
    }

    fn check_lines(&self, at: usize) -> Result<(), String> {
        let names = self.names.as_ref().expect("the app is loaded");
        for line in self.watchers[at].lines() {
            let stored = |key: &str| -> Result<Rows, String> {
                let Some(grain) = self.machine.grain(names, line.table, key)? else { return Ok(Rows::new()) };
                let entries = grain.maps.get(&MapId(0)).into_iter().flatten();
                let entries = entries.map(|(entry, row)| (Some(entry.as_slice().into()), row.bytes.clone()));
                Ok(entries.chain(grain.value.as_ref().map(|row| (None, row.bytes.clone()))).collect())
            };
            let is_at_end = !line.is_gone;
            line.check(&self.auditor, names, is_at_end, &stored)?;
            if is_at_end && !line.is_empty() {
                reached("line of a watch held against all that was acked");
            }
        }
        Ok(())
    }
}
