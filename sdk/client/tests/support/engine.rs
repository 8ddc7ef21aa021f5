//! What the small server keeps: grains, lanes, counters, and sessions by the rules of docs/protocol.md.

use std::collections::{BTreeMap, HashMap};

use gristmill_base::datatype::encode_u64;
use gristmill_base::ids::{LaneId, Offset, SlotId};
use gristmill_base::placement::lane_of;
use gristmill_wire::{
    Answer, Deframer, Entry, Event, Failure, FrameKind, HeadersBuf, Operation, Produced, Reply, ResultWriter, Route,
    Row, Sequence, Status,
};

pub const LANES: u16 = 64;

/// A result: status and body.
pub type Outcome = (Status, Vec<u8>);
/// Table, grain, map, entry.
type MapPlace = (u32, Vec<u8>, u16, Vec<u8>);
type EventRow = (Vec<u8>, Vec<u8>);

#[derive(Default)]
pub struct Session {
    received: u64,
    ack: u64,
    /// Replies above `ack`, and whether a restart keeps them.
    kept: BTreeMap<u64, (Outcome, bool)>,
    /// Positions carried out, by how often.
    pub runs: BTreeMap<u64, u32>,
}

#[derive(Default)]
pub struct Engine {
    pub grains: BTreeMap<(u32, Vec<u8>), Vec<u8>>,
    pub maps: BTreeMap<MapPlace, Vec<u8>>,
    pub lanes: HashMap<(u32, u16), Vec<EventRow>>,
    pub sessions: HashMap<(u64, u16), Session>,
    /// Sessions below this one have expired.
    pub floor: u64,
    pub slot_count: u16,
    pub runs: u64,
}

/// Body of a result as it goes over the wire.
fn encoded(result: Result<Reply<'_>, Failure<'_>>) -> Outcome {
    let mut bytes = Vec::new();
    let mut writer = ResultWriter::new(&mut bytes);
    match &result {
        Ok(reply) => writer.reply(0, reply).unwrap(),
        Err(failure) => writer.failure(0, failure),
    }
    writer.finish();
    let mut deframer = Deframer::new(FrameKind::Results);
    deframer.allow(usize::MAX);
    deframer.push(&bytes);
    let frame = deframer.next_frame().unwrap().unwrap();
    let Answer { status, body, .. } = frame.results().next().unwrap().unwrap();
    (status, body.to_vec())
}

pub fn refusal(status: Status, message: &str) -> Outcome {
    encoded(Err(Failure::new(status, message)))
}

fn json(text: String) -> Outcome {
    encoded(Ok(Reply::Json(text.into())))
}

impl Engine {
    fn slot(&self, operation: &Operation<'_>) -> Option<SlotId> {
        match operation.route() {
            Route::Here | Route::Control | Route::Everywhere => None,
            route => route.slot(self.slot_count, |_| Some(LANES)),
        }
    }

    /// Carries out an operation, a sequenced one once.
    pub fn run(&mut self, session: u64, operation: &Operation<'_>, full: bool) -> Outcome {
        let Some(Sequence { seq, ack }) = operation.sequence() else { return self.read(operation) };
        let slot = self.slot(operation).unwrap().0;
        if session < self.floor {
            return refusal(Status::Expired, "");
        }
        let entry = self.sessions.entry((session, slot)).or_default();
        entry.ack = entry.ack.max(ack.min(entry.received));
        entry.kept.retain(|kept, _| *kept > entry.ack);
        if seq <= entry.received {
            let kept = entry.kept.get(&seq).map(|(outcome, _)| outcome.clone());
            return kept.unwrap_or_else(|| refusal(Status::Forgotten, ""));
        }
        if seq > entry.received + 1 {
            return encoded(Err(Failure::gap(entry.received + 1, "")));
        }
        if full {
            return refusal(Status::Capacity, "by chance");
        }
        entry.received = seq;
        let (outcome, effect) = self.write(operation);
        let entry = self.sessions.get_mut(&(session, slot)).unwrap();
        if effect {
            *entry.runs.entry(seq).or_default() += 1;
            self.runs += 1;
        }
        entry.kept.insert(seq, (outcome.clone(), effect));
        outcome
    }

    /// What a restart forgets: refusals that no later record covers.
    pub fn restart(&mut self) {
        for session in self.sessions.values_mut() {
            let last = session.runs.last_key_value().map_or(0, |(seq, _)| *seq);
            session.kept.retain(|_, (_, durable)| *durable);
            session.received = last;
        }
    }

    /// The outcome, and whether it has an effect.
    fn write(&mut self, operation: &Operation<'_>) -> (Outcome, bool) {
        let done = encoded(Ok(Reply::Empty));
        match operation {
            Operation::Put(put) if put.key.starts_with(b"bad") => (refusal(Status::WrongType, "a bad key"), false),
            Operation::Put(put) => {
                self.grains.insert((put.table.0, put.key.to_vec()), put.value.to_vec());
                (done, true)
            }
            Operation::Delete(delete) => {
                self.grains.remove(&(delete.table.0, delete.key.to_vec()));
                (done, true)
            }
            Operation::MapPut(put) => {
                let place = (put.table.0, put.key.to_vec(), put.map.0, put.entry_key.to_vec());
                self.maps.insert(place, put.entry_value.to_vec());
                (done, true)
            }
            Operation::MapDelete(delete) => {
                self.maps.remove(&(delete.table.0, delete.key.to_vec(), delete.map.0, delete.entry_key.to_vec()));
                (done, true)
            }
            Operation::MapDeleteRange(delete) => {
                let place = (delete.table.0, delete.key.to_vec(), delete.map.0);
                let is_within = |entry: &[u8]| entry >= delete.from && delete.to.is_none_or(|to| entry < to);
                self.maps.retain(|(table, key, map, entry), _| {
                    (*table, key, *map) != (place.0, &place.1, place.2) || !is_within(entry)
                });
                (done, true)
            }
            Operation::Invoke(invoke) => {
                let value = self.grains.entry((invoke.table.0, invoke.key.to_vec())).or_insert(vec![0; 8]);
                let count = u64::from_str_radix(&hex(value), 16).unwrap() + 1;
                *value = encode_u64(count).to_vec();
                (encoded(Ok(Reply::Value(value))), true)
            }
            Operation::Produce(produce) => {
                let lane = lane_of(produce.key, LANES);
                let events = self.lanes.entry((produce.topic.0, lane.0)).or_default();
                events.push((produce.key.to_vec(), produce.value.to_vec()));
                let offset = Offset(events.len() as u64);
                (encoded(Ok(Reply::Produced(Produced { lane, offset }))), true)
            }
            Operation::Void(_) => (done, false),
            other => panic!("{other:?} takes no position"),
        }
    }

    fn read(&self, operation: &Operation<'_>) -> Outcome {
        match operation {
            Operation::Get(get) => match self.grains.get(&(get.table.0, get.key.to_vec())) {
                Some(value) => encoded(Ok(Reply::Value(value))),
                None => refusal(Status::NotFound, ""),
            },
            Operation::MapGet(get) => {
                match self.maps.get(&(get.table.0, get.key.to_vec(), get.map.0, get.entry_key.to_vec())) {
                    Some(value) => encoded(Ok(Reply::Value(value))),
                    None => refusal(Status::NotFound, ""),
                }
            }
            Operation::Describe(describe) if describe.app == "nope" => refusal(Status::UnknownName, "no app \"nope\""),
            Operation::Describe(describe) => json(format!(
                r#"{{"app": "{}", "id": 1, "topics": [{{"name": "events", "id": 1, "key": "string", "value": "bytes",
                "lanes": {LANES}}}], "tables": [{{"name": "kv", "id": 2, "key": "bytes", "value": "bytes",
                "maps": [{{"name": "m", "id": 0, "key": "string", "value": "u64"}}], "handlers": []}},
                {{"name": "counter", "id": 3, "key": "string", "value": "u64", "maps": [],
                "handlers": [{{"name": "count", "id": 9}}]}}]}}"#,
                describe.app
            )),
            Operation::Status => json(format!(
                r#"{{"shards": [{{"log": {{"records": {0}, "flushes": {0}}}}}, {{"log": {{"records": {0}, "flushes": 0}}}}]}}"#,
                self.runs
            )),
            Operation::AppLoad(_) | Operation::AppDelete(_) => json(r#"{"app": "x", "id": 1}"#.to_owned()),
            Operation::AppList | Operation::TopicList => json("[]".to_owned()),
            Operation::Ping => encoded(Ok(Reply::Empty)),
            page => self.page(page),
        }
    }

    fn page(&self, operation: &Operation<'_>) -> Outcome {
        let mut bytes = Vec::new();
        let mut writer = ResultWriter::new(&mut bytes);
        match operation {
            Operation::Read(read) => {
                let none = Vec::new();
                let events = self.lanes.get(&(read.topic.0, read.lane.0)).unwrap_or(&none);
                let from = read.from.0.max(1);
                let end = events.len() as u64 + 1;
                let next = (from + 100).min(end);
                let headers = HeadersBuf::default();
                let page = (from..next).map(|offset| {
                    let (key, value) = &events[offset as usize - 1];
                    let (event_time, append_time, headers) = (1, 2, headers.as_headers());
                    Event { offset: Offset(offset), event_time, append_time, key, value, headers }
                });
                writer.read(0, Offset(end), Offset(next), page).unwrap();
            }
            Operation::Range(range) => {
                let entries: Vec<_> = self
                    .maps
                    .iter()
                    .filter(|((table, key, map, entry), _)| {
                        (*table, key.as_slice(), *map) == (range.table.0, range.key, range.map.0)
                            && entry.as_slice() >= range.from
                    })
                    .collect();
                let page = entries.iter().map(|((_, _, _, key), value)| Entry { key, value });
                writer.range(0, false, page).unwrap();
            }
            Operation::Scan(scan) => {
                let rows: Vec<_> = self
                    .grains
                    .iter()
                    .filter(|((table, key), _)| {
                        *table == scan.table.0
                            && key.starts_with(scan.prefix)
                            && scan.after.is_none_or(|after| key.as_slice() > after)
                    })
                    .collect();
                let page = rows.iter().take(10).map(|((_, key), value)| Row { key, value: Some(value) });
                writer.scan(0, rows.len() > 10, page).unwrap();
            }
            other => panic!("{other:?} is not served"),
        }
        writer.finish();
        let mut deframer = Deframer::new(FrameKind::Results);
        deframer.allow(usize::MAX);
        deframer.push(&bytes);
        let frame = deframer.next_frame().unwrap().unwrap();
        let answer = frame.results().next().unwrap().unwrap();
        (answer.status, answer.body.to_vec())
    }

    /// Where an event of that key goes.
    pub fn events_of(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let LaneId(lane) = lane_of(key, LANES);
        let events = self.lanes.get(&(1, lane));
        events.into_iter().flatten().filter(|(own, _)| own == key).map(|(_, value)| value.clone()).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
