//! Calls by name that wait for their result. Names are `APP/TOPIC` and `APP/TABLE`; their numbers are asked for once.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_base::ids::{LaneId, Offset, SlotId, TaskId, TopicId};
use gristmill_base::query::Filter;
use gristmill_wire::{EventBatchBuf, Headers, LaneOffsets, OpCode, RecordsBuf, Status};

use crate::client::{Client, Ticket};
use crate::error::Error;
use crate::names::{AppInfo, Table, Topic, split};
use crate::operation::OwnedOperation;
use crate::reply::{Entry, EventPage, OwnedReply, Page, Produced, QueryPage, Row};

/// Reads of so many events or more fetch batches: one has ten times as many at most.
const BATCHES_FROM_RECORDS: u32 = 1_000;

/// Part of a map that is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span<'a> {
    /// First key; empty for the first there is.
    pub from: &'a [u8],
    /// First key no longer wanted; none for up to the last.
    pub to: Option<&'a [u8]>,
    /// Last key first.
    pub reverse: bool,
    /// Most entries; 0 leaves it to the server.
    pub limit: u32,
}

/// Which page of a query is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueryFrom<'a> {
    /// Only grains whose key starts so; empty for all.
    pub prefix: &'a [u8],
    /// The `next` of the page before; none for the first page.
    pub after: Option<&'a [u8]>,
    /// Every grain may be looked at.
    pub scan: bool,
    /// Most grains; 0 leaves it to the server.
    pub limit: u32,
}

/// Records of a bounded input for one slot: see [`gristmill_wire::Ingest`].
#[derive(Clone, Debug)]
pub struct IngestChunk {
    /// The topic.
    pub topic: TopicId,
    /// The input's number.
    pub input: TaskId,
    /// Home slot of the lanes of all the keys.
    pub slot: SlotId,
    /// Nothing of the input is to be appended there any more, by anybody.
    pub end: bool,
    /// The input has nothing more for the slot up to here.
    pub prev: u64,
    /// The records, behind `prev`.
    pub records: RecordsBuf,
}

pub(crate) fn unexpected<R>(reply: &OwnedReply) -> Result<R, Error> {
    Err(Error::protocol(format!("a reply of another kind came: {reply:?}")))
}

fn done(reply: OwnedReply) -> Result<(), Error> {
    if reply == OwnedReply::Done { Ok(()) } else { unexpected(&reply) }
}

fn value(reply: OwnedReply) -> Result<Vec<u8>, Error> {
    if let OwnedReply::Value(value) = reply { Ok(value) } else { unexpected(&reply) }
}

pub(crate) fn json(reply: OwnedReply) -> Result<String, Error> {
    if let OwnedReply::Json(text) = reply { Ok(text) } else { unexpected(&reply) }
}

fn produced(reply: OwnedReply) -> Result<Produced, Error> {
    if let OwnedReply::Produced(produced) = reply { Ok(produced) } else { unexpected(&reply) }
}

pub(crate) fn found(result: Result<OwnedReply, Error>) -> Result<Option<Vec<u8>>, Error> {
    match result {
        Err(error) if error.status() == Some(Status::NotFound) => Ok(None),
        result => result.and_then(value).map(Some),
    }
}

/// What an operation gave, unless what it is about is not there.
fn if_there<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.status() == Some(Status::NotFound) => Ok(None),
        result => result.map(Some),
    }
}

impl Client {
    /// Numbers and types of an app; asked for once and then remembered.
    ///
    /// # Errors
    /// There is no such app, or the server cannot be asked.
    pub fn describe(&mut self, app: &str) -> Result<&AppInfo, Error> {
        if !self.apps.contains_key(app) {
            let text = json(self.call(OwnedOperation::Describe { app: app.to_owned() })?)?;
            self.apps.insert(app.to_owned(), AppInfo::from_json(&text)?);
        }
        Ok(&self.apps[app])
    }

    /// The topic `APP/TOPIC`.
    ///
    /// # Errors
    /// There is no such topic, or the server cannot be asked.
    pub fn topic(&mut self, path: &str) -> Result<Topic, Error> {
        let (app, name) = split(path)?;
        self.fresh(app, |app| app.topic(name).cloned())
    }

    /// The table `APP/TABLE`.
    ///
    /// # Errors
    /// There is no such table, or the server cannot be asked.
    pub fn table(&mut self, path: &str) -> Result<Table, Error> {
        let (app, name) = split(path)?;
        self.fresh(app, |app| app.table(name).cloned())
    }

    /// Something of an app; what is not known is looked for once more in a fresh description.
    fn fresh<R>(&mut self, app: &str, find: impl Fn(&AppInfo) -> Result<R, Error>) -> Result<R, Error> {
        let known = self.apps.contains_key(app);
        let first = find(self.describe(app)?);
        if first.is_ok() || !known {
            return first;
        }
        self.apps.remove(app);
        find(self.describe(app)?)
    }

    /// Calls an operation on a thing of an app. When the server does not know the number, which was remembered from
    /// before the app was deleted and loaded again, the number is asked for once more.
    pub(crate) fn call_named(
        &mut self,
        path: &str,
        operation: impl Fn(&mut Self) -> Result<OwnedOperation, Error>,
    ) -> Result<OwnedReply, Error> {
        let first = operation(self)?;
        match self.call(first.clone()) {
            Err(error) if error.status() == Some(Status::UnknownName) => {
                self.apps.remove(split(path)?.0);
                match operation(self)? {
                    again if again == first => Err(error),
                    again => self.call(again),
                }
            }
            result => result,
        }
    }

    /// Appends an event and waits until it is durable.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn produce(&mut self, topic: &str, key: &[u8], value: &[u8]) -> Result<Produced, Error> {
        self.call_named(topic, |client| Ok(client.topic(topic)?.event(key.to_vec(), value.to_vec()))).and_then(produced)
    }

    /// Submits an event; its ending is to be taken with [`Self::wait`] or [`Self::take_ended`].
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_produce(&mut self, topic: &Topic, key: Vec<u8>, value: Vec<u8>) -> Result<Ticket, Error> {
        self.submit(topic.event(key, value))
    }

    /// Appends events, many in flight, and tells each ending with the event's place in `events`, in the order that they
    /// come. Events of one key stay in order. Returns when all have ended. Nothing else may be in flight.
    ///
    /// # Errors
    /// An unknown topic. What becomes of each event is told to `each` alone.
    pub fn produce_many(
        &mut self,
        topic: &str,
        events: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        mut each: impl FnMut(u64, Result<Produced, Error>),
    ) -> Result<(), Error> {
        let topic = self.topic(topic)?;
        let mut places = std::collections::HashMap::new();
        for (place, (key, value)) in (0_u64..).zip(events) {
            match self.submit_patiently(topic.event(key, value)) {
                Ok(ticket) => drop(places.insert(ticket, place)),
                Err(error) => each(place, Err(error)),
            }
            while let Some((ticket, ending)) = self.pending.take_any() {
                if let Some(place) = places.remove(&Ticket(ticket)) {
                    each(place, ending.and_then(produced));
                }
            }
        }
        while !places.is_empty() {
            let Some((ticket, ending)) = self.take_ended(Duration::from_millis(500)) else { continue };
            if let Some(place) = places.remove(&ticket) {
                each(place, ending.and_then(produced));
            }
        }
        Ok(())
    }

    /// Events of a lane from an offset on. Waits at most so long for the first one when there is none.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn read(
        &mut self,
        topic: &Topic,
        lane: LaneId,
        from: Offset,
        max_records: u32,
        wait: Duration,
    ) -> Result<EventPage, Error> {
        let (topic, lanes, max_bytes) = (topic.id, topic.lanes, 0);
        let wait_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        // Batches come whole: for a few events at a time most of each would come in vain.
        let is_large = max_records == 0 || max_records >= BATCHES_FROM_RECORDS;
        let reply = self.call(if is_large && self.speaks_batches() {
            OwnedOperation::Fetch { topic, lanes, lane, from, max_records, max_bytes, wait_millis }
        } else {
            OwnedOperation::Read { topic, lanes, lane, from, max_records, max_bytes, wait_millis }
        })?;
        let OwnedReply::Events(mut page) = reply else { return unexpected(&reply) };
        // Batches come whole.
        page.events.retain(|event| event.offset >= from);
        if max_records > 0 && page.events.len() > max_records as usize {
            page.next = page.events[max_records as usize].offset;
            page.events.truncate(max_records as usize);
        }
        Ok(page)
    }

    /// Whether the server takes and gives batches.
    #[must_use]
    pub fn speaks_batches(&self) -> bool {
        self.limits.version >= OpCode::Append.since()
    }

    /// Appends events and waits until all are durable: those of each lane as one batch, at consecutive offsets, all of them or
    /// none. Gives the place of each, in the order of `events`. An older server gets them one by one.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name; more events or bytes for one lane than a batch may have: 10,000, and 4 MiB. Larger
    /// events are produced one by one. Batches of other lanes may have been
    /// appended.
    pub fn append(&mut self, topic: &str, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<Produced>, Error> {
        let topic = self.topic(topic)?;
        if !self.speaks_batches() {
            let submit =
                |(key, value): &(Vec<u8>, Vec<u8>)| self.submit_patiently(topic.event(key.clone(), value.clone()));
            let asked: Vec<Ticket> = events.iter().map(submit).collect::<Result<_, _>>()?;
            return asked.into_iter().map(|ticket| self.wait(ticket).and_then(produced)).collect();
        }
        let mut batches: BTreeMap<LaneId, EventBatchBuf> = BTreeMap::new();
        let lane_of = |key: &[u8]| gristmill_base::placement::lane_of(key, topic.lanes);
        for (key, value) in events {
            let batch = batches.entry(lane_of(key)).or_default();
            batch.push(0, key, value, &Headers::default()).map_err(|error| Error::invalid(error.to_string()))?;
        }
        let mut asked = Vec::new();
        for (lane, events) in batches {
            let (topic, lanes) = (topic.id, topic.lanes);
            asked.push((lane, self.submit_patiently(OwnedOperation::Append { topic, lanes, lane, events })?));
        }
        let mut next = BTreeMap::new();
        for (lane, ticket) in asked {
            next.insert(lane, self.wait(ticket).and_then(produced)?.offset);
        }
        let place = |(key, _): &(Vec<u8>, Vec<u8>)| {
            let lane = lane_of(key);
            let at = next.get_mut(&lane).expect("its batch was appended");
            let offset = *at;
            at.0 += 1;
            Produced { lane, offset }
        };
        Ok(events.iter().map(place).collect())
    }

    /// A grain's value; none if it has none.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn get(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        found(
            self.call_named(table, |client| {
                Ok(OwnedOperation::Get { table: client.table(table)?.id, key: key.to_vec() })
            }),
        )
    }

    /// Sets a grain's value and waits until that is durable.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn put(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.call_named(table, |client| {
            let table = client.table(table)?.id;
            Ok(OwnedOperation::Put { table, key: key.to_vec(), value: value.to_vec() })
        })
        .and_then(done)
    }

    /// Deletes a grain: its value, maps and timers.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn delete(&mut self, table: &str, key: &[u8]) -> Result<(), Error> {
        self.call_named(table, |client| {
            Ok(OwnedOperation::Delete { table: client.table(table)?.id, key: key.to_vec() })
        })
        .and_then(done)
    }

    /// A map entry; none if there is none.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn map_get(&mut self, table: &str, key: &[u8], map: &str, entry: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        found(self.call_named(table, |client| {
            let table = client.table(table)?;
            let map = table.map(map)?.id;
            Ok(OwnedOperation::MapGet { table: table.id, map, key: key.to_vec(), entry_key: entry.to_vec() })
        }))
    }

    /// Sets a map entry.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn map_put(&mut self, table: &str, key: &[u8], map: &str, entry: &[u8], value: &[u8]) -> Result<(), Error> {
        self.call_named(table, |client| {
            let table = client.table(table)?;
            let map = table.map(map)?.id;
            let (key, entry_key, entry_value) = (key.to_vec(), entry.to_vec(), value.to_vec());
            Ok(OwnedOperation::MapPut { table: table.id, map, key, entry_key, entry_value })
        })
        .and_then(done)
    }

    /// Deletes a map entry.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn map_delete(&mut self, table: &str, key: &[u8], map: &str, entry: &[u8]) -> Result<(), Error> {
        self.call_named(table, |client| {
            let table = client.table(table)?;
            let map = table.map(map)?.id;
            Ok(OwnedOperation::MapDelete { table: table.id, map, key: key.to_vec(), entry_key: entry.to_vec() })
        })
        .and_then(done)
    }

    /// Deletes the entries of a map from `from` to before `to` (none: to the end), however many they are.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn map_delete_range(
        &mut self,
        table: &str,
        key: &[u8],
        map: &str,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.call_named(table, |client| {
            let table = client.table(table)?;
            let map = table.map(map)?.id;
            let (key, from, to) = (key.to_vec(), from.to_vec(), to.map(<[u8]>::to_vec));
            Ok(OwnedOperation::MapDeleteRange { table: table.id, map, key, from, to })
        })
        .and_then(done)
    }

    /// Entries of a map in byte order of their keys, one page.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn range(&mut self, table: &str, key: &[u8], map: &str, span: &Span<'_>) -> Result<Page<Entry>, Error> {
        let reply = self.call_named(table, |client| {
            let table = client.table(table)?;
            Ok(OwnedOperation::Range {
                table: table.id,
                map: table.map(map)?.id,
                key: key.to_vec(),
                from: span.from.to_vec(),
                to: span.to.map(<[u8]>::to_vec),
                reverse: span.reverse,
                limit: span.limit,
            })
        })?;
        if let OwnedReply::Entries(page) = reply { Ok(page) } else { unexpected(&reply) }
    }

    /// Grains of a whole table in byte order of their keys, those that start with `prefix` and come after `after`, one
    /// page. A limit of 0 leaves it to the server.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn scan(&mut self, table: &str, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Page<Row>, Error> {
        let reply = self.call_named(table, |client| {
            let table = client.table(table)?.id;
            Ok(OwnedOperation::Scan { table, prefix: prefix.to_vec(), after: after.map(<[u8]>::to_vec), limit })
        })?;
        if let OwnedReply::Rows(page) = reply { Ok(page) } else { unexpected(&reply) }
    }

    /// Grains of a whole table whose JSON values match `filter`, in byte order of their keys, one page. A limit of 0 leaves it to
    /// the server. A page may end before it has found as many, or any: `next` says where to go on. Because no field is indexed, every grain is
    /// looked at, which `scan` allows.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name; a table whose values are no JSON (status `wrong_type`); `scan` is false (status
    /// `bad_request`); a server of an older version (status `unsupported`).
    pub fn query(&mut self, table: &str, filter: &Filter, page: &QueryFrom<'_>) -> Result<QueryPage, Error> {
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        let reply = self.call_named(table, |client| {
            Ok(OwnedOperation::Query {
                table: client.table(table)?.id,
                prefix: page.prefix.to_vec(),
                after: page.after.map(<[u8]>::to_vec),
                scan: page.scan,
                limit: page.limit,
                filter: bytes.clone(),
            })
        })?;
        if let OwnedReply::Found(page) = reply { Ok(page) } else { unexpected(&reply) }
    }

    /// Parked grains of a whole table in byte order of their keys, those that come after `after`, one page: each with a JSON
    /// object that says the `reason`, the `attempts` at the input that waits first, `since_micros` (since 1970), and how many
    /// inputs are `waiting`. A limit of 0 leaves it to the server.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name; a server of an older version (status `unsupported`).
    pub fn parked(&mut self, table: &str, after: Option<&[u8]>, limit: u32) -> Result<Page<Row>, Error> {
        let reply = self.call_named(table, |client| {
            let table = client.table(table)?.id;
            Ok(OwnedOperation::ParkedList { table, after: after.map(<[u8]>::to_vec), limit })
        })?;
        if let OwnedReply::Rows(page) = reply { Ok(page) } else { unexpected(&reply) }
    }

    /// Why a grain is parked: a JSON object as that of [`Self::parked`], with the first `inputs` that wait, at most `limit`. None
    /// if it is not parked.
    ///
    /// # Errors
    /// As [`Self::parked`].
    pub fn parked_show(&mut self, table: &str, key: &[u8], limit: u32) -> Result<Option<String>, Error> {
        let reply = self.call_named(table, |client| {
            Ok(OwnedOperation::ParkedShow { table: client.table(table)?.id, key: key.to_vec(), limit })
        });
        if_there(reply.and_then(json))
    }

    /// Why a grain does not move: a JSON object with its `state` in a word, `because` and `next` for people, and numbers of what
    /// waits.
    ///
    /// # Errors
    /// As [`Self::parked`].
    pub fn why(&mut self, table: &str, key: &[u8]) -> Result<String, Error> {
        self.call_named(table, |client| Ok(OwnedOperation::Why { table: client.table(table)?.id, key: key.to_vec() }))
            .and_then(json)
    }

    /// Lets a parked grain run again; false if it is not parked.
    ///
    /// # Errors
    /// As [`Self::parked`].
    pub fn parked_retry(&mut self, table: &str, key: &[u8]) -> Result<bool, Error> {
        let reply = self.call_named(table, |client| {
            Ok(OwnedOperation::ParkedRetry { table: client.table(table)?.id, key: key.to_vec() })
        });
        if_there(reply.and_then(done)).map(|done| done.is_some())
    }

    /// Gives up the input that waits first for a parked grain: it goes to the dead-letter topic of its handler, or nowhere if
    /// that names none and `drop` says so. With `retry` the grain runs again from then on. `expect` is the name of the input
    /// (`id` of [`Self::parked_show`]); empty: whatever waits first. False if the grain is not parked, or nothing waits for it.
    ///
    /// # Errors
    /// As [`Self::parked`]; the handler names no dead-letter topic, or another input waits first (status `bad_request`).
    pub fn parked_skip(
        &mut self,
        table: &str,
        key: &[u8],
        drop: bool,
        retry: bool,
        expect: &str,
    ) -> Result<bool, Error> {
        let reply = self.call_named(table, |client| {
            let (table, expect) = (client.table(table)?.id, expect.to_owned());
            Ok(OwnedOperation::ParkedSkip { table, key: key.to_vec(), drop, retry, expect })
        });
        if_there(reply.and_then(done)).map(|done| done.is_some())
    }

    /// Puts another payload in the place of that of the input which waits first for a parked grain; it stays parked. `expect` is
    /// as that of [`Self::parked_skip`]. False if the grain is not parked, or nothing waits for it.
    ///
    /// # Errors
    /// As [`Self::parked`]; the input is no call of a handler, or another one waits first (status `bad_request`).
    pub fn parked_edit(&mut self, table: &str, key: &[u8], expect: &str, payload: &[u8]) -> Result<bool, Error> {
        let reply = self.call_named(table, |client| {
            let (table, expect, payload) = (client.table(table)?.id, expect.to_owned(), payload.to_vec());
            Ok(OwnedOperation::ParkedEdit { table, key: key.to_vec(), expect, payload })
        });
        if_there(reply.and_then(done)).map(|done| done.is_some())
    }

    /// Runs a handler of a grain and waits for its reply; empty when it gave none.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn invoke(&mut self, table: &str, key: &[u8], handler: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
        self.call_named(table, |client| {
            let table = client.table(table)?;
            let handler = table.handler(handler)?.id;
            Ok(OwnedOperation::Invoke { table: table.id, handler, key: key.to_vec(), payload: payload.to_vec() })
        })
        .and_then(value)
    }

    /// Where the lanes of a topic begin and end, lane by lane; with a time (microseconds since 1970) also their first events
    /// that were appended then or later.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name; a server of an older version (status `unsupported`).
    pub fn offsets(&mut self, topic: &str, time: Option<i64>) -> Result<Vec<LaneOffsets>, Error> {
        let Topic { id, lanes, .. } = self.topic(topic)?;
        let ask = |lane| OwnedOperation::Offsets { topic: id, lanes, lane: LaneId(lane), time };
        let asked: Vec<Ticket> = (0..lanes).map(|lane| self.submit(ask(lane))).collect::<Result<_, _>>()?;
        let mut all = Vec::new();
        for ticket in asked {
            match self.wait(ticket)? {
                OwnedReply::Offsets(offsets) => all.push(offsets),
                other => return unexpected(&other),
            }
        }
        Ok(all)
    }

    /// Submits records of a bounded input, all for lanes of one slot; without records it asks how far the input has come
    /// there. Ends as [`OwnedReply::Ingested`].
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_ingest(&mut self, chunk: IngestChunk) -> Result<Ticket, Error> {
        let IngestChunk { topic, input, slot, end, prev, records } = chunk;
        self.submit(OwnedOperation::Ingest { topic, input, slot, end, prev, records })
    }
}
