//! All operations as one type, borrowed from the frame when decoded and from the caller when encoded.

use gristmill_base::codec::{DecodeError, Reader};

use crate::admin::{
    AppDelete, AppLoad, AppReplay, AppSettle, AppVersions, Backup, Describe, MoveSlot, PauseSubscription,
};
use crate::batch::Append;
use crate::compare::{CompareSet, GetVersioned};
use crate::fields::Sequence;
use crate::hello::Hello;
use crate::ingest::Ingest;
use crate::opcode::OpCode;
use crate::parked::{EditParked, RetryParked, ShowParked, SkipParked, Why};
use crate::query::Query;
use crate::table::{Delete, Get, Invoke, MapDelete, MapDeleteRange, MapGet, MapPut, Put, Range, Scan, Void};
use crate::topic::{Offsets, Produce, Read};
use crate::watch::Watch;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Opens the connection. Answered by `Reply::Hello`.
    Hello(Hello<'a>),
    /// Nothing. Answered by `Reply::Empty`.
    Ping,
    /// The server's state. Answered by `Reply::Json`.
    Status,
    /// Numbers and types of an app. Answered by `Reply::Json`.
    Describe(Describe<'a>),
    /// Loads an app file. Answered by `Reply::Json`.
    AppLoad(AppLoad<'a>),
    /// Lists apps. Answered by `Reply::Json`.
    AppList,
    /// Deletes an app. Answered by `Reply::Json`.
    AppDelete(AppDelete<'a>),
    /// The kept versions of an app, or the file of one. Answered by `Reply::Json`.
    AppVersions(AppVersions<'a>),
    /// Builds tables anew, or tells of it. Answered by `Reply::Json`.
    AppReplay(AppReplay<'a>),
    /// Lists topics. Answered by `Reply::Json`.
    TopicList,
    /// Waits until an app has settled. Answered by `Reply::Json`.
    AppSettle(AppSettle<'a>),
    /// A step of a backup. Answered by `Reply::Json`.
    Backup(Backup),
    /// Moves a slot to another shard. Answered by `Reply::Json`.
    MoveSlot(MoveSlot),
    /// Appends an event. Answered by `Reply::Produced`.
    Produce(Produce<'a>),
    /// Appends a batch. Answered by `Reply::Produced`, with the offset of its first event.
    Append(Append<'a>),
    /// Reads batches. Answered by `Reply::Fetch`.
    Fetch(Read),
    /// Reads events. Answered by `Reply::Read`.
    Read(Read),
    /// Appends records of a bounded input. Answered by `Reply::Ingested`.
    Ingest(Ingest<'a>),
    /// Where a lane begins and ends. Answered by `Reply::Offsets`.
    Offsets(Offsets),
    /// Reads a value. Answered by `Reply::Value`.
    Get(Get<'a>),
    /// Sets a value. Answered by `Reply::Empty`.
    Put(Put<'a>),
    /// Deletes a grain. Answered by `Reply::Empty`.
    Delete(Delete<'a>),
    /// Reads a map entry. Answered by `Reply::Value`.
    MapGet(MapGet<'a>),
    /// Sets a map entry. Answered by `Reply::Empty`.
    MapPut(MapPut<'a>),
    /// Deletes a map entry. Answered by `Reply::Empty`.
    MapDelete(MapDelete<'a>),
    /// See [`MapDeleteRange`].
    MapDeleteRange(MapDeleteRange<'a>),
    /// Reads map entries. Answered by `Reply::Range`.
    Range(Range<'a>),
    /// Reads grains. Answered by `Reply::Scan`.
    Scan(Scan<'a>),
    /// Waits for changes of grains. Answered by `Reply::Watch`.
    Watch(Watch<'a>),
    /// Reads grains by fields of their values. Answered by `Reply::Query`.
    Query(Query<'a>),
    /// Lists parked grains. Answered by `Reply::Scan`, with JSON in the place of values.
    ParkedList(Scan<'a>),
    /// Why a grain is parked. Answered by `Reply::Json`.
    ParkedShow(ShowParked<'a>),
    /// Why a grain does not move. Answered by `Reply::Json`.
    Why(Why<'a>),
    /// Pauses a subscription, or resumes it. Answered by `Reply::Json`.
    SubscriptionPause(PauseSubscription<'a>),
    /// Lists the subscriptions of an app. Answered by `Reply::Json`.
    SubscriptionList(Describe<'a>),
    /// Lets a parked grain run again. Answered by `Reply::Empty`.
    ParkedRetry(RetryParked<'a>),
    /// Gives up what waits first for a parked grain. Answered by `Reply::Empty`.
    ParkedSkip(SkipParked<'a>),
    /// Puts another payload in the place of that of what waits first for a parked grain. Answered by `Reply::Empty`.
    ParkedEdit(EditParked<'a>),
    /// Changes a row under a condition. Answered by `Reply::Compared`.
    CompareSet(CompareSet<'a>),
    /// Reads a row with its version. Answered by `Reply::Versioned`.
    GetVersioned(GetVersioned<'a>),
    /// Runs a handler. Answered by `Reply::Value`, empty when the handler gave no reply.
    Invoke(Invoke<'a>),
    /// Fills a position. Answered by `Reply::Empty`, or by what the position got when it was taken after all.
    Void(Void),
}

impl<'a> Operation<'a> {
    /// Reads the body of an operation to its end.
    ///
    /// # Errors
    /// Bytes that are no such body, or something in it over its limit.
    pub fn decode(code: OpCode, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let operation = match code {
            OpCode::Hello => Self::Hello(Hello::read(&mut from)?),
            OpCode::Ping => Self::Ping,
            OpCode::Status => Self::Status,
            OpCode::Describe => Self::Describe(Describe::read(&mut from)?),
            OpCode::AppLoad => Self::AppLoad(AppLoad::read(&mut from)?),
            OpCode::AppList => Self::AppList,
            OpCode::AppDelete => Self::AppDelete(AppDelete::read(&mut from)?),
            OpCode::TopicList => Self::TopicList,
            OpCode::Produce => Self::Produce(Produce::read(&mut from)?),
            OpCode::Append => Self::Append(Append::read(&mut from)?),
            OpCode::Fetch => Self::Fetch(Read::read(&mut from)?),
            OpCode::Read => Self::Read(Read::read(&mut from)?),
            OpCode::Offsets => Self::Offsets(Offsets::read(&mut from)?),
            OpCode::Get => Self::Get(Get::read(&mut from)?),
            OpCode::Put => Self::Put(Put::read(&mut from)?),
            OpCode::Delete => Self::Delete(Delete::read(&mut from)?),
            OpCode::MapGet => Self::MapGet(MapGet::read(&mut from)?),
            OpCode::MapPut => Self::MapPut(MapPut::read(&mut from)?),
            OpCode::MapDelete => Self::MapDelete(MapDelete::read(&mut from)?),
            OpCode::MapDeleteRange => Self::MapDeleteRange(MapDeleteRange::read(&mut from)?),
            OpCode::Range => Self::Range(Range::read(&mut from)?),
            OpCode::Scan => Self::Scan(Scan::read(&mut from)?),
            OpCode::Watch => Self::Watch(Watch::read(&mut from)?),
            OpCode::Query => Self::Query(Query::read(&mut from)?),
            OpCode::ParkedList => Self::ParkedList(Scan::read(&mut from)?),
            OpCode::ParkedShow => Self::ParkedShow(ShowParked::read(&mut from)?),
            OpCode::Why => Self::Why(Why::read(&mut from)?),
            OpCode::SubscriptionPause => Self::SubscriptionPause(PauseSubscription::read(&mut from)?),
            OpCode::SubscriptionList => Self::SubscriptionList(Describe::read(&mut from)?),
            OpCode::ParkedRetry => Self::ParkedRetry(RetryParked::read(&mut from)?),
            OpCode::ParkedSkip => Self::ParkedSkip(SkipParked::read(&mut from)?),
            OpCode::ParkedEdit => Self::ParkedEdit(EditParked::read(&mut from)?),
            OpCode::AppSettle => Self::AppSettle(AppSettle::read(&mut from)?),
            OpCode::AppVersions => Self::AppVersions(AppVersions::read(&mut from)?),
            OpCode::AppReplay => Self::AppReplay(AppReplay::read(&mut from)?),
            OpCode::Backup => Self::Backup(Backup::read(&mut from)?),
            OpCode::MoveSlot => Self::MoveSlot(MoveSlot::read(&mut from)?),
            OpCode::Ingest => Self::Ingest(Ingest::read(&mut from)?),
            OpCode::CompareSet => Self::CompareSet(CompareSet::read(&mut from)?),
            OpCode::GetVersioned => Self::GetVersioned(GetVersioned::read(&mut from)?),
            OpCode::Invoke => Self::Invoke(Invoke::read(&mut from)?),
            OpCode::Void => Self::Void(Void::read(&mut from)?),
        };
        from.end()?;
        Ok(operation)
    }

    /// Appends the body of the operation.
    ///
    /// # Errors
    /// Something in it is over its limit; what was appended so far is worth nothing then.
    pub fn encode(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self {
            Self::Ping | Self::Status | Self::AppList | Self::TopicList => Ok(()),
            Self::Hello(operation) => operation.write(to),
            Self::Describe(operation) => operation.write(to),
            Self::AppLoad(operation) => operation.write(to),
            Self::AppDelete(operation) => operation.write(to),
            Self::Produce(operation) => operation.write(to),
            Self::Append(operation) => operation.write(to),
            Self::Read(operation) | Self::Fetch(operation) => {
                operation.write(to);
                Ok(())
            }
            Self::Offsets(operation) => {
                operation.write(to);
                Ok(())
            }
            Self::AppSettle(operation) => operation.write(to),
            Self::AppVersions(operation) => operation.write(to),
            Self::AppReplay(operation) => operation.write(to),
            Self::Backup(operation) => {
                operation.write(to);
                Ok(())
            }
            Self::MoveSlot(operation) => {
                operation.write(to);
                Ok(())
            }
            Self::Ingest(operation) => {
                operation.write(to);
                Ok(())
            }
            Self::Get(operation) => operation.write(to),
            Self::Put(operation) => operation.write(to),
            Self::Delete(operation) => operation.write(to),
            Self::MapGet(operation) => operation.write(to),
            Self::MapPut(operation) => operation.write(to),
            Self::MapDelete(operation) => operation.write(to),
            Self::MapDeleteRange(operation) => operation.write(to),
            Self::Watch(operation) => operation.write(to),
            Self::Range(operation) => operation.write(to),
            Self::Scan(operation) | Self::ParkedList(operation) => operation.write(to),
            Self::Query(operation) => operation.write(to),
            Self::ParkedShow(operation) => operation.write(to),
            Self::Why(operation) => operation.write(to),
            Self::SubscriptionPause(operation) => operation.write(to),
            Self::SubscriptionList(operation) => operation.write(to),
            Self::ParkedRetry(operation) => operation.write(to),
            Self::ParkedSkip(operation) => operation.write(to),
            Self::ParkedEdit(operation) => operation.write(to),
            Self::CompareSet(operation) => operation.write(to),
            Self::GetVersioned(operation) => operation.write(to),
            Self::Invoke(operation) => operation.write(to),
            Self::Void(operation) => operation.write(to),
        }
    }

    /// What it asks for.
    #[must_use]
    pub fn code(&self) -> OpCode {
        match self {
            Self::Hello(_) => OpCode::Hello,
            Self::Ping => OpCode::Ping,
            Self::Status => OpCode::Status,
            Self::Describe(_) => OpCode::Describe,
            Self::AppLoad(_) => OpCode::AppLoad,
            Self::AppList => OpCode::AppList,
            Self::AppDelete(_) => OpCode::AppDelete,
            Self::TopicList => OpCode::TopicList,
            Self::Produce(_) => OpCode::Produce,
            Self::Append(_) => OpCode::Append,
            Self::Fetch(_) => OpCode::Fetch,
            Self::Read(_) => OpCode::Read,
            Self::Offsets(_) => OpCode::Offsets,
            Self::AppSettle(_) => OpCode::AppSettle,
            Self::AppVersions(_) => OpCode::AppVersions,
            Self::AppReplay(_) => OpCode::AppReplay,
            Self::Backup(_) => OpCode::Backup,
            Self::MoveSlot(_) => OpCode::MoveSlot,
            Self::Ingest(_) => OpCode::Ingest,
            Self::Get(_) => OpCode::Get,
            Self::Put(_) => OpCode::Put,
            Self::Delete(_) => OpCode::Delete,
            Self::MapGet(_) => OpCode::MapGet,
            Self::MapPut(_) => OpCode::MapPut,
            Self::MapDelete(_) => OpCode::MapDelete,
            Self::MapDeleteRange(_) => OpCode::MapDeleteRange,
            Self::Watch(_) => OpCode::Watch,
            Self::Range(_) => OpCode::Range,
            Self::Scan(_) => OpCode::Scan,
            Self::Query(_) => OpCode::Query,
            Self::ParkedList(_) => OpCode::ParkedList,
            Self::ParkedShow(_) => OpCode::ParkedShow,
            Self::Why(_) => OpCode::Why,
            Self::SubscriptionPause(_) => OpCode::SubscriptionPause,
            Self::SubscriptionList(_) => OpCode::SubscriptionList,
            Self::ParkedRetry(_) => OpCode::ParkedRetry,
            Self::ParkedSkip(_) => OpCode::ParkedSkip,
            Self::ParkedEdit(_) => OpCode::ParkedEdit,
            Self::CompareSet(_) => OpCode::CompareSet,
            Self::GetVersioned(_) => OpCode::GetVersioned,
            Self::Invoke(_) => OpCode::Invoke,
            Self::Void(_) => OpCode::Void,
        }
    }

    /// Its position in the session, if it changes state.
    #[must_use]
    pub fn sequence(&self) -> Option<Sequence> {
        match self {
            Self::Produce(operation) => Some(operation.sequence),
            Self::Append(operation) => Some(operation.sequence),
            Self::Put(operation) => Some(operation.sequence),
            Self::Delete(operation) => Some(operation.sequence),
            Self::MapPut(operation) => Some(operation.sequence),
            Self::MapDelete(operation) => Some(operation.sequence),
            Self::MapDeleteRange(operation) => Some(operation.sequence),
            Self::CompareSet(operation) => Some(operation.sequence),
            Self::Invoke(operation) => Some(operation.sequence),
            Self::ParkedRetry(operation) => Some(operation.sequence),
            Self::ParkedSkip(operation) => Some(operation.sequence),
            Self::ParkedEdit(operation) => Some(operation.sequence),
            Self::Void(operation) => Some(operation.sequence),
            _ => None,
        }
    }
}
