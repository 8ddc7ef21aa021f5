//! A simulated sender of a bounded input: numbered records, sent in chunks per slot, sent again, killed and begun again
//! from nothing but its source.

use crate::auditor::Auditor;
use crate::client::{World, is_passing};
use crate::machine::Machine;
use crate::rng::SimRng;
use crate::workload::{Act, Names};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{ConnId, SessionId, ShardId, SlotId, TaskId};
use gristmill_base::placement::lane_of;
use gristmill_base::sometimes::reached;
use gristmill_core::request::{Answer, Code, Ingest, Operation, Refusal, Reply, Request, Responder};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Topic of the records.
const TOPIC: &str = "lines";
/// Ids of records have this in their upper half, and the number of their input.
const IDS: u64 = 1 << 62;

/// A record: its number in the auditor's books, key and value.
type Record = (u64, Box<[u8]>, Box<[u8]>);

/// The records of one slot.
#[derive(Default)]
struct Share {
    /// By position in the input.
    records: BTreeMap<u64, Record>,
    /// Up to where the slot has them, if this sender knows.
    received: Option<u64>,
    /// Up to where a slot said that it has them, before the sender was killed last.
    floor: u64,
    /// Last position that was sent since it was asked.
    sent: u64,
    /// Requests without an answer.
    open: u32,
    /// When it is asked again, nanoseconds.
    retry: u64,
}

/// See the module.
pub struct Ingester {
    rng: SimRng,
    number: u64,
    /// Inputs begun so far.
    begun: u32,
    conn: u64,
    next_tag: u64,
    tags: BTreeMap<u64, SlotId>,
    names: Option<Rc<Names>>,
    shares: BTreeMap<SlotId, Share>,
    count: u64,
    kills: u32,
    wake: u64,
}

impl Ingester {
    /// A sender of an input with so many records, which is killed a few times.
    #[must_use]
    pub fn new(number: u64, mut rng: SimRng) -> Self {
        let (count, kills) = (rng.between(20, 200), rng.below(4) as u32);
        let conn = (1 << 40) + (number << 20);
        let (names, tags, shares) = (None, BTreeMap::new(), BTreeMap::new());
        Self { rng, number, begun: 0, conn, next_tag: 1, tags, names, shares, count, kills, wake: 0 }
    }

    /// Whether every record is appended to the app with that number, as far as it knows.
    #[must_use]
    pub fn is_done(&self, app: u32) -> bool {
        let has_all =
            |share: &Share| share.received.is_some_and(|received| share.records.keys().all(|at| *at <= received));
        self.names.as_ref().is_some_and(|names| names.app_id() == app) && self.shares.values().all(has_all)
    }

    /// When it wants to act, nanoseconds.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.wake
    }

    /// Whether a reply is for it.
    #[must_use]
    pub fn hears(&self, reply: &Reply) -> bool {
        reply.responder.conn == ConnId(self.conn)
    }

    /// It is killed, or the machine went down: all that is left is the source.
    pub fn forget(&mut self) {
        self.conn += 1;
        self.tags.clear();
        for share in self.shares.values_mut() {
            share.floor = share.floor.max(share.received.unwrap_or(0));
            (share.received, share.sent, share.open, share.retry) = (None, 0, 0, 0);
        }
    }

    /// Reads its source: the records, each to the slot that homes its lane.
    fn begin(&mut self, world: &mut World<'_>) {
        self.forget();
        self.begun += 1;
        self.shares.clear();
        let (_, lanes) = world.names.topic(TOPIC);
        for position in 1..=self.count {
            let id = IDS | self.number << 48 | u64::from(self.begun) << 32 | position;
            let (key, value, act) = loop {
                let act = world.workload.act(90 + self.number as usize, id, 0, &mut self.rng);
                if let Act::Produce(TOPIC, key, value) = &act {
                    break (key.clone(), value.clone(), act);
                }
            };
            world.auditor.issue(id, &act);
            let home = world.names.home(TOPIC, lane_of(key.as_bytes(), lanes).0).0;
            let record = (id, key.into_bytes().into(), value.into());
            self.shares.entry(home).or_default().records.insert(position, record);
        }
        self.names = Some(Rc::clone(world.names));
    }

    /// Does what is due.
    pub fn act(&mut self, world: &mut World<'_>) {
        let now = world.machine.clock.nanos();
        if now < self.wake {
            return;
        }
        self.wake = now + self.rng.between(10_000, 2_000_000);
        if world.machine.cores.is_empty() || world.auditor.is_past(world.auditor.life()) {
            return;
        }
        let is_mine = |names: &Rc<Names>| names.app_id() == world.names.app_id();
        if !self.names.as_ref().is_some_and(is_mine) {
            self.begin(world);
        }
        if self.kills > 0 && self.rng.below(40) == 0 {
            self.kills -= 1;
            reached("sender of a bounded input killed");
            self.forget();
        }
        let slots: Vec<SlotId> = self.shares.keys().copied().collect();
        for slot in slots {
            self.send_next(world.machine, slot, now);
        }
        if self.is_done(world.names.app_id()) {
            self.wake = now + 50_000_000;
            if self.rng.below(4) == 0 {
                self.send_again(world.machine);
            }
        }
    }

    /// Asks how far a slot has come, or sends it the next records.
    fn send_next(&mut self, machine: &mut Machine, slot: SlotId, now: u64) {
        let share = self.shares.get_mut(&slot).expect("it was just listed");
        if share.open > 0 && share.retry <= now {
            // No answer came, or a refusal: from where the slot is, whatever that is now.
            (share.received, share.open) = (None, 0);
        }
        let Some(received) = share.received else {
            if share.open == 0 {
                share.retry = now + 300_000_000;
                share.open = 1;
                self.send(machine, slot, 0, Vec::new(), false);
            }
            return;
        };
        let prev = share.sent.max(received);
        let size = self.rng.between(1, 8) as usize;
        let next: Vec<u64> = share.records.range(prev.saturating_add(1)..).map(|(at, _)| *at).take(size).collect();
        if next.is_empty() || share.open >= 3 {
            return;
        }
        share.open += 1;
        share.retry = now + 300_000_000;
        share.sent = next.last().copied().unwrap_or(prev);
        // Now and then with some that were sent before, as one who has lost count does.
        let (prev, next) = if self.rng.below(8) == 0 { (0, (1..=share.sent).collect()) } else { (prev, next) };
        self.send(machine, slot, prev, next, false);
    }

    /// Everything once more, as somebody who was thought dead does.
    fn send_again(&mut self, machine: &mut Machine) {
        reached("all of a bounded input sent again");
        let slots: Vec<SlotId> = self.shares.keys().copied().collect();
        let end = self.rng.below(2) == 0;
        for slot in slots {
            self.send(machine, slot, 0, (1..=self.count).collect(), end);
        }
    }

    fn send(&mut self, machine: &mut Machine, slot: SlotId, prev: u64, positions: Vec<u64>, end: bool) {
        let names = self.names.as_ref().expect("what is sent was begun");
        let share = &self.shares[&slot];
        let records = positions
            .into_iter()
            .filter_map(|at| share.records.get(&at).map(|(_, key, value)| (at, key.clone(), value.clone())))
            .collect();
        let input = TaskId(self.number as u32 * 1_000 + self.begun);
        let ingest = Ingest { topic: names.topic(TOPIC).0, input, slot, end, prev, records };
        self.tags.insert(self.next_tag, slot);
        let door = self.rng.below(machine.cores.len() as u64) as usize;
        let responder = Responder { shard: ShardId(door as u16), conn: ConnId(self.conn), tag: self.next_tag };
        self.next_tag += 1;
        let (session, class, operation) = (SessionId(0), InputClass::Bulk, Operation::Ingest(ingest));
        machine.request(door, Request { responder, session, class, operation });
    }

    /// Hears a reply.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn hear(&mut self, reply: &Reply, world: &mut World<'_>) -> Result<(), String> {
        let slot = self.tags.remove(&reply.responder.tag).ok_or("P2: records were answered twice")?;
        let now = world.machine.clock.nanos();
        let share = self.shares.get_mut(&slot).expect("only slots with records are asked");
        match &reply.outcome {
            Ok(Answer::Ingested(received)) => {
                share.open = share.open.saturating_sub(1);
                // Replies of this connection were all sent after the floor was known.
                if *received < share.floor {
                    return Err(format!("P1: slot {slot} had a bounded input up to {}, now {received}", share.floor));
                }
                if *received < share.sent && share.open == 0 {
                    share.sent = *received;
                }
                share.received = share.received.max(Some(*received));
                let acked: Vec<u64> = share.records.range(..=*received).map(|(_, (id, ..))| *id).collect();
                acked.into_iter().try_for_each(|id| world.auditor.answer(id, &Ok(Answer::Done)))
            }
            Err(Refusal { code, .. }) if is_passing(*code) || *code == Code::UnknownName => {
                share.retry = now + self.rng.between(100_000, 5_000_000);
                Ok(())
            }
            other => Err(format!("records for slot {slot}: {other:?}")),
        }
    }

    /// Checks that records of an input lie in each lane in their order.
    ///
    /// # Errors
    /// They do not.
    pub fn check_order(auditor: &Auditor) -> Result<(), String> {
        let mut last: BTreeMap<(u16, u64), u64> = BTreeMap::new();
        for (lane, _, _, value) in auditor.events_of(TOPIC) {
            let json: serde_json::Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
            let id = json["id"].as_u64().unwrap_or(0);
            if id & IDS == 0 {
                continue;
            }
            if let Some(before) = last.insert((lane, id >> 32), id)
                && before >= id
            {
                return Err(format!("P3: record {id} of a bounded input follows {before} in lane {lane}"));
            }
        }
        Ok(())
    }
}
