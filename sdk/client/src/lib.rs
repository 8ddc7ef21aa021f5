//! The Rust client: synchronous, over TCP, with threads of the standard library only.
//!
//! Two layers. [`Connection`] is one socket: hello, many operations in flight, results matched by their correlation.
//! [`Client`] goes straight to the shard that owns a key, numbers every state-changing operation in one session,
//! connects again after a cut connection or a restart of the server, and sends again what has no result, so that
//! nothing happens twice. Every operation ends in one of three ways: done, failed for certain, or unknown; see
//! [`Error::is_certain`].
//!
//! ```no_run
//! use gristmill_client::{Client, Config};
//!
//! let mut client = Client::connect(Config::new("127.0.0.1:7400"))?;
//! client.put("shop/stock", b"apple", b"7")?;
//! assert_eq!(client.get("shop/stock", b"apple")?, Some(b"7".to_vec()));
//! # Ok::<(), gristmill_client::Error>(())
//! ```

mod apps;
mod calls;
mod client;
pub mod clock;
mod config;
mod connection;
mod error;
mod flow;
mod link;
mod names;
mod operation;
mod pending;
mod reply;
mod room;
mod sequencer;
mod shard;
mod topology;
mod versions;
mod watch;

pub use calls::{IngestChunk, QueryFrom, Span};
pub use client::{Client, Ticket};
pub use config::Config;
pub use connection::Connection;
pub use error::{Error, ErrorKind};
pub use gristmill_base::query;
pub use gristmill_wire as wire;
pub use gristmill_wire::Status;
pub use names::{AppInfo, Handler, Map, Table, Topic};
pub use operation::{OwnedCondition, OwnedOperation};
pub use reply::{Entry, Event, EventPage, LaneOffsets, OwnedReply, Page, Produced, QueryPage, Row};
pub use sequencer::{Refused, Sequencer, ToSend};
pub use topology::Topology;
pub use versions::{Compared, Condition, Token, Version};
pub use watch::{
    Behind, Change, ChangePage, RowChange, TokenError, Watch, WatchFrom, WatchKeys, WatchPosition, WatchToken, Watched,
};
