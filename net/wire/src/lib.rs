//! The native protocol, version 2, as a pure codec: bytes in, messages out, and back. No sockets, no clock, no state
//! beyond one receive buffer. `docs/protocol.md` has the byte layout for clients in other languages.
//!
//! Decoding borrows from the frame and allocates nothing for operations that carry data. No input makes it panic, and
//! nothing is allocated by a declared size.
//!
//! Server: [`Deframer`] → [`Frame::requests`] → [`Request::operation`], answers through [`ResultWriter`].
//! Client: [`RequestWriter`], answers through [`Deframer`] → [`Frame::results`] → [`Answer::outcome`].

mod admin;
mod answer;
mod batch;
mod compare;
mod deframer;
mod fields;
mod frame;
pub mod fuzz;
mod hello;
mod ingest;
mod opcode;
mod operation;
mod page;
mod parked;
mod query;
mod reply;
mod request;
mod route;
mod status;
mod table;
mod topic;
mod watch;
mod writer;

pub use admin::{
    AppDelete, AppLoad, AppReplay, AppSettle, AppVersions, Backup, BackupStep, Describe, MoveSlot, PauseSubscription,
    ReplayFrom, ReplayStep,
};
pub use answer::{Answer, Answers};
pub use batch::{Append, EventBatch, EventBatchBuf, FetchPage, ReadBatch};
pub use compare::{After, CompareSet, Compared, Condition, GetVersioned, Versioned};
pub use deframer::Deframer;
pub use fields::Sequence;
pub use frame::{FRAME_HEADER_BYTES, FRAME_VERSION, Frame, FrameError, FrameKind, MAGIC};
pub use gristmill_base::codec::DecodeError;
pub use hello::{CredentialsMechanism, Hello, HelloReply, PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST};
pub use ingest::{Ingest, Record, Records, RecordsBuf};
pub use opcode::OpCode;
pub use operation::Operation;
pub use page::{Entries, Entry, Event, Events, QueryPage, RangePage, ReadPage, Row, Rows, ScanPage};
pub use parked::{EditParked, RetryParked, ShowParked, SkipParked, Why};
pub use query::Query;
pub use reply::{Failure, LaneOffsets, Produced, Reply};
pub use request::{BULK_CODE, CORRELATION_NONE, Common, OPERATION_HEADER_BYTES, Refusal, Request, Requests};
pub use route::Route;
pub use status::{Position, Retry, Status};
pub use table::{Delete, Get, Invoke, MapDelete, MapDeleteRange, MapGet, MapPut, Put, Range, Scan, Void};
pub use topic::{Headers, HeadersBuf, Offsets, Produce, Read};
pub use watch::{Change, Positions, PositionsBuf, RowChange, Watch, WatchPage};
pub use writer::{OpenFrame, RESULT_HEADER_BYTES, RequestWriter, ResultWriter};
