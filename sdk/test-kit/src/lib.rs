//! Tests of whole apps without a server: the real engine on a disk in memory, with a clock that a test moves.
//!
//! ```
//! use gristmill_sdk::{App, Context, Failure, Input, Reply};
//! use gristmill_test_kit::TestApp;
//! use std::time::Duration;
//!
//! fn greet(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
//!     context.set_value(input.payload);
//!     let due = context.now_micros() + 60_000_000;
//!     context.set_timer("forget", due, "forget", "")?;
//!     Ok(Reply::value("hello"))
//! }
//!
//! fn forget(_: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
//!     context.delete_grain();
//!     Ok(Reply::none())
//! }
//!
//! let file = "
//! app: greeter
//! language: rust
//! tables:
//!   - {name: guests, key: string, value: string, handlers: [{name: greet}, {name: forget}]}
//! ";
//! let mut app = TestApp::new(App::new("greeter", file).each("guests", "greet", greet).each("guests", "forget", forget));
//! assert_eq!(app.invoke("guests", "ann", "greet", "at noon").unwrap().unwrap(), b"hello");
//! assert_eq!(app.value("guests", "ann"), "at noon");
//! app.advance(Duration::from_secs(60));
//! assert!(app.value("guests", "ann").is_null());
//! ```
//!
//! Nothing happens by itself: what is given to the app ([`TestApp::append`], [`TestApp::invoke`], [`TestApp::put`]) is
//! handled at once with all that follows from it at that moment, and time passes with [`TestApp::advance`] alone. The engine
//! is the one that serves: order, exactly-once effects, retries with backoff, dead letters, parking, messages, callbacks,
//! timers and times to live are what they will be. The same test does the same each time.
//!
//! [`gristmill_sdk::testing`] tests a single handler instead, which is all that many need.

mod app;
mod control;
mod engine;
mod given;
mod host;
mod memory;
mod names;
mod run;
mod shown;

/// The examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing-apps.md")]
mod guide {}

pub use app::{Call, Options, Outcome, START_MICROS, TestApp};
pub use given::Given;
pub use gristmill_core::request::{Code, Refusal};
pub use run::{Message, MessageTo, ParkedGrain, Run, RunEnd, SetTimer, TopicEvent};
