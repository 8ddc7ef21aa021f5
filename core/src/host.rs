//! The handler host: where user code runs. In this process for linked handlers; in workers and in WASM later. Effects
//! are data, so a host may answer at once or later.

use crate::access::RunAccess;
use crate::catalog::{AppEntry, HandlerEntry, Table};
use gristmill_sdk::{App, Context, Failure, Handler, HandlerFn, Input, Interrupt, Reply};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call of a handler brought.
#[derive(Debug)]
pub enum Called {
    /// All inputs were handled; one reply per input, or none at all.
    Done(Vec<Reply>),
    /// The first `handled` inputs were handled, the next one failed. If `handled` is 0 the failure counts as an
    /// attempt; otherwise the caller runs those alone first.
    Failed {
        /// Inputs before the failing one.
        handled: usize,
        /// For people.
        message: String,
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
            return failed(0, format!("handler {}.{} of app {} is not linked", key.1, key.2, key.0));
        };
        // The access is dropped with the run when the handler panics, so nothing half-done is seen.
        let called = catch_unwind(AssertUnwindSafe(|| match handler.call {
            HandlerFn::Each(call) => call_each(call, inputs, access),
            HandlerFn::Several(call) => call_several(call, inputs, access),
        }));
        called.unwrap_or_else(|panic| failed(0, format!("the handler panicked: {}", panic_message(&*panic))))
    }
}

fn failed(handled: usize, message: String) -> Called {
    Called::Failed { handled, message }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn call_each(
    call: fn(&Input<'_>, &mut Context<'_>) -> Result<Reply, Failure>,
    inputs: &[Input<'_>],
    access: &mut RunAccess<'_>,
) -> Called {
    let mut replies = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.iter().enumerate() {
        match call(input, &mut Context::new(access)) {
            Ok(reply) => replies.push(reply),
            Err(Failure::Interrupted(interrupt)) => return Called::Interrupted(interrupt),
            Err(Failure::Failed { message }) => return failed(at, message),
        }
    }
    Called::Done(replies)
}

fn call_several(
    call: fn(&[Input<'_>], &mut Context<'_>) -> Result<Vec<Reply>, Failure>,
    inputs: &[Input<'_>],
    access: &mut RunAccess<'_>,
) -> Called {
    match call(inputs, &mut Context::new(access)) {
        Ok(replies) if replies.is_empty() || replies.len() == inputs.len() => Called::Done(replies),
        Ok(replies) => failed(
            0,
            format!("the handler gave {} replies for {} inputs; one each, or none at all", replies.len(), inputs.len()),
        ),
        Err(Failure::Interrupted(interrupt)) => Called::Interrupted(interrupt),
        // Which input is to blame is not known: the caller tries them one by one.
        Err(Failure::Failed { message }) if inputs.len() > 1 => failed(1, message),
        Err(Failure::Failed { message }) => failed(0, message),
    }
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
