//! What a handler in Rust is written against. An app is a crate that depends on this one and exports an [`App`].
//!
//! A handler gets inputs of one grain and a [`Context`] on that grain, which nobody else touches meanwhile. What it
//! does through the context (state, messages, timers, counters) becomes durable together with the consumption of its
//! inputs, or not at all. Handlers must not block, sleep or read clocks by themselves: time comes from the context,
//! and so do sleep and long computation, which do not hold the core.

mod app;
mod context;
mod failed;
mod input;
pub mod testing;

pub use app::{App, Handler, HandlerFn, Results};
pub use context::{
    Access, Callback, Compute, Context, Entry, Every, Interrupt, LogLevel, MapName, MapRef, MessageOperation,
    MessageTarget, MetricChange, ReadAt, Send, Wanted,
};
pub use failed::{Caught, Failed, Retry, kinds, status_of};
pub use gristmill_base::datatype;
pub use input::{Cause, Failure, Input, Reply};
