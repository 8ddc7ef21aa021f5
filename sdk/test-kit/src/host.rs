//! Where handlers run: those that are linked, with failures on request, and with a note of what each run did.

use crate::names::{handler_name, map_name, table_name, topic_name};
use crate::run::{Message, MessageTo, Run, RunEnd};
use gristmill_base::ids::HandlerId;
use gristmill_core::LinkedApps;
use gristmill_core::access::{Effects, MissDice, RunAccess};
use gristmill_core::catalog::AppEntry;
use gristmill_core::host::{Called, HandlerHost, Started, Target};
use gristmill_sdk::{Failed, Input, kinds};
use gristmill_state::input::{GrainOperation, Target as To};
use gristmill_state::record::TimerChange;
use std::sync::{Arc, Mutex, MutexGuard};

/// Runs that are remembered; of more, the last ones.
pub(crate) const RUNS_MAX: usize = 100_000;

/// Failures that were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) table: String,
    pub(crate) handler: String,
    /// Only of this grain.
    pub(crate) key: Option<Vec<u8>>,
    /// For so many runs.
    pub(crate) times: u64,
    pub(crate) message: String,
}

/// What the hosts of all shards share with the test.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) faults: Vec<Fault>,
    pub(crate) runs: Vec<Run>,
    /// So many reads to come are interrupted.
    pub(crate) misses: u64,
    /// Number of the next interruption.
    next_miss: u64,
}

/// The same of all shards and of every start.
#[derive(Clone, Default)]
pub(crate) struct SharedHost(Arc<Mutex<Shared>>);

/// One shard's.
pub(crate) struct TestHost {
    linked: LinkedApps,
    shared: SharedHost,
}

/// One shard's reads.
pub(crate) struct Misses(pub(crate) SharedHost);

impl SharedHost {
    pub(crate) fn get(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}

impl Shared {
    /// The failure of this run, if one was asked for.
    fn take_fault(&mut self, table: &str, handler: &str, key: &[u8]) -> Option<String> {
        let is_of = |fault: &Fault| {
            fault.table == table && fault.handler == handler && fault.key.as_ref().is_none_or(|wanted| wanted == key)
        };
        let at = self.faults.iter().position(is_of)?;
        let fault = &mut self.faults[at];
        fault.times -= 1;
        let message = fault.message.clone();
        if fault.times == 0 {
            self.faults.remove(at);
        }
        Some(message)
    }
}

impl TestHost {
    pub(crate) fn new(linked: LinkedApps, shared: SharedHost) -> Self {
        Self { linked, shared }
    }
}

impl HandlerHost for TestHost {
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>> {
        self.linked.has(app, table, handler)
    }

    fn start(&mut self, _run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        let mut called = self.linked.call(target, inputs, access);
        let (table, handler, key) = (&target.table.name, &target.handler.name, access.grain_key());
        let mut shared = self.shared.get();
        if matches!(called, Called::Done(_))
            && let Some(message) = shared.take_fault(table, handler, key)
        {
            // As if the handler had failed at its end: of several inputs it is not known which one is to blame.
            let failed = Box::new(Failed::new(kinds::FAILED, message));
            called = Called::Failed { handled: usize::from(inputs.len() > 1), failed };
        }
        let end = match &called {
            Called::Done(_) => RunEnd::Done,
            Called::Deferred(replies, _) => RunEnd::Deferred(replies.len()),
            Called::Again(handled) => RunEnd::Again(*handled),
            Called::Failed { failed, .. } => RunEnd::Failed(failed.message().to_owned()),
            Called::Interrupted(_) => RunEnd::Interrupted,
        };
        let is_done = matches!(end, RunEnd::Done | RunEnd::Deferred(1..));
        let run = Run {
            table: table.clone(),
            key: key.to_vec(),
            handler: handler.clone(),
            inputs: inputs.len(),
            end,
            sent: if is_done { sent(target.app, &access.effects) } else { Vec::new() },
            timers: if is_done { timers(&access.effects) } else { Vec::new() },
        };
        if shared.runs.len() >= RUNS_MAX {
            shared.runs.drain(..RUNS_MAX / 2);
        }
        shared.runs.push(run);
        Started::Done(called)
    }
}

impl MissDice for Misses {
    fn roll(&mut self) -> Option<u64> {
        let mut shared = self.0.get();
        shared.misses = shared.misses.checked_sub(1)?;
        shared.next_miss += 1;
        Some(shared.next_miss)
    }
}

fn sent(app: &AppEntry, effects: &Effects) -> Vec<Message> {
    effects.sent.iter().map(|(_, target)| message(app, target)).collect()
}

/// A message in the words of the app file.
pub(crate) fn message(app: &AppEntry, target: &To) -> Message {
    let text = str::to_owned;
    match target {
        To::Lane(lane, _, key, value) => Message {
            to: MessageTo::Topic { topic: topic_name(app, lane.topic) },
            key: key.to_vec(),
            payload: value.to_vec(),
        },
        To::Grain(address, input) => {
            let table = table_name(app, address.table);
            let what = |handler: &HandlerId| handler_name(app, address.table, *handler);
            let (operation, payload) = match &input.operation {
                GrainOperation::Call(handler, payload) => (what(handler), payload.to_vec()),
                GrainOperation::Put(value) => (text("put"), value.to_vec()),
                GrainOperation::Delete => (text("delete"), Vec::new()),
                GrainOperation::MapPut(map, _, value) => {
                    (format!("put into {}", map_name(app, address.table, *map)), value.to_vec())
                }
                GrainOperation::MapDelete(map, _) => {
                    (format!("delete from {}", map_name(app, address.table, *map)), Vec::new())
                }
                GrainOperation::MapDeleteRange(map, ..) => {
                    (format!("delete a range of {}", map_name(app, address.table, *map)), Vec::new())
                }
                // No message is one.
                GrainOperation::Compare(compare) => {
                    (text("compare"), compare.new.clone().map_or_else(Vec::new, Vec::from))
                }
            };
            Message { to: MessageTo::Grain { table, operation }, key: address.key.to_vec(), payload }
        }
    }
}

fn timers(effects: &Effects) -> Vec<String> {
    let name = |change: &TimerChange| match change {
        TimerChange::Set { name, .. } => Some(name.to_string()),
        _ => None,
    };
    effects.timers.iter().filter_map(name).collect()
}
