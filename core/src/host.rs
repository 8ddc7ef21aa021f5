//! The handler host: where user code runs. In this process for linked handlers; in workers and in WASM later. Effects
//! are data, so a host may answer at once or later.

use crate::access::RunAccess;
use crate::catalog::{AppEntry, HandlerEntry, Table};
use crate::worker::News;
use gristmill_base::limits::{LOG_RECORD_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_sdk::{App, Context, Failed, Failure, Handler, HandlerFn, Input, Interrupt, Reply, Results, kinds};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What a call of a handler brought.
#[derive(Debug)]
pub enum Called {
    /// All inputs were handled; one reply per input, or none at all.
    Done(Vec<Reply>),
    /// The first inputs were handled, one reply each; the next one was deferred: it and what follows are presented again,
    /// after that time, or when more has come.
    Deferred(Vec<Reply>, Option<Duration>),
    /// So many inputs, not 0, were handled, but not what follows; the caller runs those alone first, because what the run did
    /// is not only theirs.
    Again(usize),
    /// The first `handled` inputs were handled, the next one failed. If `handled` is 0 the failure counts as an
    /// attempt; otherwise the caller runs those alone first.
    Failed {
        /// Inputs before the failing one.
        handled: usize,
        /// How it failed.
        failed: Box<Failed>,
    },
    /// State must be fetched before the handler can be called again.
    Interrupted(Interrupt),
}

/// How a started run goes on.
#[derive(Debug)]
pub enum Started {
    /// The run is over.
    Done(Called),
    /// The run is going on; its verdict comes into the inbox with the run's number.
    Pending,
    /// The same in another process: it leaves when what it shows is durable, and its time runs from when somebody has it.
    Elsewhere,
}

/// Which handler is called.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The app.
    pub app: &'a AppEntry,
    /// The table.
    pub table: &'a Table,
    /// The handler.
    pub handler: &'a HandlerEntry,
}

/// Runs handlers. One per shard, on its core.
pub trait HandlerHost: Send {
    /// Whether a handler exists here; else the names that do, for the error message.
    ///
    /// # Errors
    /// The handlers of that app that exist, as `table.handler`.
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>>;

    /// Starts run number `run`. Effects go into `access`.
    fn start(&mut self, run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started;

    /// A run that is pending took too long: its verdict is not waited for any more, and means nothing when it comes.
    fn give_up(&mut self, _run: u64) {}

    /// How many runs of an app may be started now. With 0 its grains wait until something is heard of it.
    fn room(&self, _app: &AppEntry) -> usize {
        usize::MAX
    }

    /// Whether somebody is there to run the handlers of an app.
    fn serves(&self, _app: &AppEntry) -> bool {
        true
    }

    /// Everything that a run which is [`Started::Elsewhere`] shows is durable: it may leave.
    fn leave(&mut self, _run: u64) {}

    /// Whether a run goes on elsewhere: what it asks for is fetched, and then it is started again with its number.
    fn has_run(&self, _run: u64) -> bool {
        false
    }

    /// Takes what workers say; of a run, it is started again with its number to deal with it. Whether it means anything.
    fn hear(&mut self, _news: News) -> bool {
        false
    }

    /// The worker that had a run is gone. Whether that has happened so often that it counts as a failure of its input.
    fn lost(&mut self, _run: u64) -> bool {
        false
    }
}

/// Handlers that are linked into this program.
#[derive(Clone, Default)]
pub struct LinkedApps {
    /// By app, table and handler name.
    handlers: BTreeMap<(String, String, String), Handler>,
    /// App files that came with the linked apps, by app name.
    files: BTreeMap<String, &'static str>,
}

impl LinkedApps {
    /// The handlers of these apps.
    #[must_use]
    pub fn new(apps: impl IntoIterator<Item = App>) -> Self {
        let mut linked = Self::default();
        for app in apps {
            linked.files.insert(app.name.to_owned(), app.file);
            for handler in app.handlers {
                linked
                    .handlers
                    .insert((app.name.to_owned(), handler.table.to_owned(), handler.name.to_owned()), handler);
            }
        }
        linked
    }

    /// The app file that came with a linked app.
    #[must_use]
    pub fn file(&self, app: &str) -> Option<&'static str> {
        self.files.get(app).copied()
    }

    /// Names of the linked apps.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Calls a linked handler. A panic in it is a failure of its input.
    pub fn call(&self, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Called {
        let key = (target.app.name.clone(), target.table.name.clone(), target.handler.name.clone());
        let Some(handler) = self.handlers.get(&key) else {
            let message = format!("handler {}.{} of app {} is not linked", key.1, key.2, key.0);
            return engine_failed(0, kinds::NO_HANDLER, message);
        };
        // The access is dropped with the run when the handler panics, so nothing half-done is seen.
        let called = catch_unwind(AssertUnwindSafe(|| match handler.call {
            HandlerFn::Each(call) => call_each(call, inputs, access),
            HandlerFn::Several(call) => call_several(call, inputs, access),
        }));
        called.unwrap_or_else(|panic| {
            engine_failed(0, kinds::PANIC, format!("the handler panicked: {}", panic_message(&*panic)))
        })
    }
}

/// A failure that the engine finds.
pub(crate) fn engine_failed(handled: usize, kind: &str, message: String) -> Called {
    Called::Failed { handled, failed: Box::new(Failed::new(kind, message)) }
}

/// A failure that a handler gives: its kind must be one that handlers may give.
pub(crate) fn handler_failed(handled: usize, failed: Box<Failed>) -> Called {
    if kinds::is_name(failed.kind()) && !kinds::RESERVED.contains(&failed.kind()) {
        return Called::Failed { handled, failed };
    }
    let shown = &failed.kind()[..failed.kind().floor_char_boundary(kinds::KIND_BYTES_MAX)];
    let message = format!(
        "the handler failed with kind {shown:?}; allowed: a name of lower-case letters, digits and '-', of at most {} bytes, and \
         none of {}; it says: {}",
        kinds::KIND_BYTES_MAX,
        kinds::RESERVED.join(", "),
        failed.message()
    );
    engine_failed(handled, kinds::BAD_KIND, message)
}

/// What is wrong with a reply of so many bytes.
pub(crate) fn reply_too_large(found: usize) -> String {
    format!("a reply of {found} bytes; at most {VALUE_BYTES_MAX} are allowed")
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn call_each(
    call: fn(&Input<'_>, &mut Context<'_>) -> Result<Reply, Failure>,
    inputs: &[Input<'_>],
    access: &mut RunAccess<'_>,
) -> Called {
    let mut replies = Vec::with_capacity(inputs.len());
    let mut bytes = 0;
    for (at, input) in inputs.iter().enumerate() {
        access.begin_input(at);
        match call(input, &mut Context::new(access)) {
            Ok(reply) => {
                let found = reply.0.as_ref().map_or(0, Vec::len);
                if found > VALUE_BYTES_MAX {
                    return engine_failed(at, kinds::TOO_LARGE, reply_too_large(found));
                }
                bytes += found;
                // No record holds them together.
                if bytes > LOG_RECORD_BYTES_MAX {
                    return Called::Again(at);
                }
                replies.push(reply);
            }
            // Those before it need not wait with it.
            Err(Failure::Interrupted(_)) if at > 0 && access.effects.wait.take().is_some() => {
                return Called::Again(at);
            }
            Err(Failure::Interrupted(interrupt)) => return Called::Interrupted(interrupt),
            Err(Failure::Failed(failed)) => return handler_failed(at, failed),
            // What this call did until it deferred its input must not be kept.
            Err(Failure::Deferred(_)) if at > 0 => return Called::Again(at),
            Err(Failure::Deferred(wait)) => return Called::Deferred(Vec::new(), wait),
        }
    }
    Called::Done(replies)
}

fn call_several(
    call: fn(&[Input<'_>], &mut Context<'_>) -> Result<Results, Failure>,
    inputs: &[Input<'_>],
    access: &mut RunAccess<'_>,
) -> Called {
    match call(inputs, &mut Context::new(access)) {
        Ok(results) => verdict_of(results, inputs.len()),
        Err(Failure::Interrupted(interrupt)) => Called::Interrupted(interrupt),
        Err(Failure::Deferred(wait)) => Called::Deferred(Vec::new(), wait),
        // Which input is to blame is not known: the caller tries them one by one.
        Err(Failure::Failed(failed)) => handler_failed(usize::from(inputs.len() > 1), failed),
    }
}

/// What the results of a handler of several inputs mean: one each and none deferred, or a deferred one at the end, or none
/// at all.
fn verdict_of(results: Results, inputs: usize) -> Called {
    let count = results.len();
    let deferred = |result: &Result<Reply, Failure>| matches!(result, Err(Failure::Deferred(_)));
    let first_deferred = results.iter().position(deferred);
    let fits = match first_deferred {
        Some(at) => at + 1 == count && count <= inputs,
        None => count == inputs || count == 0,
    };
    if !fits {
        let found = match first_deferred {
            Some(at) if at + 1 < count => format!("{count} results of which number {} is deferred", at + 1),
            _ => format!("{count} results"),
        };
        let message = format!(
            "the handler gave {found} for {inputs} inputs; allowed: one result each and none deferred, or a list of at most as \
             many whose last one is deferred, or none at all"
        );
        return engine_failed(0, kinds::BAD_RESULTS, message);
    }
    let mut replies = Vec::with_capacity(count);
    for (at, result) in results.into_iter().enumerate() {
        match result {
            Ok(reply) => replies.push(reply),
            Err(Failure::Interrupted(interrupt)) => return Called::Interrupted(interrupt),
            Err(Failure::Deferred(wait)) => return Called::Deferred(replies, wait),
            Err(Failure::Failed(failed)) => return handler_failed(at, failed),
        }
    }
    Called::Done(replies)
}

impl HandlerHost for LinkedApps {
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>> {
        if self.handlers.contains_key(&(app.to_owned(), table.to_owned(), handler.to_owned())) {
            return Ok(());
        }
        Err(self
            .handlers
            .keys()
            .filter(|(name, ..)| name == app)
            .map(|(_, table, handler)| format!("{table}.{handler}"))
            .collect())
    }

    fn start(&mut self, _run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        Started::Done(self.call(target, inputs, access))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Result<Reply, Failure> {
        Err(Failure::of("broken", "it broke"))
    }

    fn ok() -> Result<Reply, Failure> {
        Ok(Reply::none())
    }

    #[test]
    fn results_are_one_each_or_end_with_a_deferred_one() {
        assert!(matches!(verdict_of(vec![], 3), Called::Done(replies) if replies.is_empty()));
        assert!(matches!(verdict_of(vec![ok(), ok()], 2), Called::Done(replies) if replies.len() == 2));
        let last = |wait| Err(Failure::Deferred(wait));
        assert!(matches!(verdict_of(vec![ok(), last(None)], 3), Called::Deferred(replies, None) if replies.len() == 1));
        assert!(matches!(verdict_of(vec![ok(), failure(), ok()], 3), Called::Failed { handled: 1, .. }));
        assert!(matches!(verdict_of(vec![failure(), last(None)], 3), Called::Failed { handled: 0, .. }));
        for (results, found) in [
            (vec![ok()], "1 results for 2 inputs"),
            (vec![ok(), ok(), last(None)], "3 results for 2 inputs"),
            (vec![last(None), ok()], "2 results of which number 1 is deferred for 2 inputs"),
        ] {
            let Called::Failed { handled: 0, failed } = verdict_of(results, 2) else { panic!("{found}") };
            assert_eq!(failed.kind(), kinds::BAD_RESULTS);
            assert!(failed.message().contains(found), "{}", failed.message());
        }
    }

    #[test]
    fn a_handler_gives_only_kinds_of_its_own() {
        let kind = |kind: &str| match handler_failed(0, Box::new(Failed::new(kind, "why"))) {
            Called::Failed { failed, .. } => (failed.kind().to_owned(), failed.message().to_owned()),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind("no-funds"), ("no-funds".into(), "why".into()));
        for bad in ["panic", "", "Two words", &"x".repeat(500)] {
            let (kind, message) = kind(bad);
            assert_eq!(kind, kinds::BAD_KIND);
            assert!(message.ends_with("it says: why") && message.len() < 500, "{message}");
        }
    }
}
