//! Bulk yields to live, is never starved, and overtakes nothing and is overtaken by nothing at its own grain.

use crate::rig::{Folder, Rig, config};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{HandlerId, SessionId, SlotId, TableId};
use gristmill_base::limits::BULK_INPUTS_MAX;
use gristmill_base::placement::slot_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::BTreeMap;

const FILE: &str = "
app: notes
language: rust
tables:
  - name: notes
    key: string
    value: string
    handlers: [{name: note, retry: {attempts: 9, backoff: 100s, max: 100s}}, {name: swell}]
";
const SLOTS: u16 = 16;

/// Adds the first byte of its payload to what the grain has; fails with one of `!`.
fn note(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload[0] == b'!' {
        return Err(Failure::new("it is told to"));
    }
    let mut value = context.value()?.unwrap_or_default();
    value.push(input.payload[0]);
    context.set_value(value);
    Ok(Reply::none())
}

/// Makes the value as long as a record of the log should not be often.
fn swell(_input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_value(vec![b's'; 16 << 10]);
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    vec![App::new("notes", FILE).each("notes", "note", note).each("notes", "swell", swell)]
}

/// One client of one shard.
struct Client {
    rig: Rig,
    session: SessionId,
    table: TableId,
    /// `note` and `swell`.
    handlers: [HandlerId; 2],
    next: BTreeMap<SlotId, u64>,
    _folder: Folder,
}

impl Client {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let config = BootConfig { slot_count: SLOTS, segment_bytes: 8 << 20, checkpoint_bytes: 1 << 30, ..config(1) };
        let mut rig = Rig::start(&folder.0, &config, apps);
        let loaded = rig.load(FILE);
        let table = &loaded["tables"][0];
        let id = |value: &serde_json::Value| value["id"].as_u64().expect("it has a number") as u32;
        let handlers = [0, 1].map(|at| HandlerId(id(&table["handlers"][at])));
        let table = TableId(id(table));
        let (session, _) = rig.open_session();
        Self { rig, session, table, handlers, next: BTreeMap::new(), _folder: folder }
    }

    fn sequence(&mut self, key: &str) -> Sequence {
        let seq = self.next.entry(slot_of(key.as_bytes(), SLOTS)).or_default();
        *seq += 1;
        Sequence { seq: *seq, ack: 0 }
    }

    fn call(&mut self, class: InputClass, handler: HandlerId, key: &str, payload: &[u8]) -> u64 {
        let (table, sequence) = (self.table, self.sequence(key));
        let (key, payload) = (key.as_bytes().into(), payload.into());
        self.rig.send_of(class, 0, self.session, Operation::Invoke { table, handler, sequence, key, payload })
    }

    fn invoke(&mut self, class: InputClass, key: &str, payload: &[u8]) -> u64 {
        self.call(class, self.handlers[0], key, payload)
    }

    fn put(&mut self, key: &str, value: &[u8]) -> u64 {
        let (table, sequence) = (self.table, self.sequence(key));
        let (key, value) = (key.as_bytes().into(), value.into());
        self.rig.send(0, self.session, Operation::Put { table, sequence, key, value })
    }

    fn value(&mut self, key: &str) -> Vec<u8> {
        let get = Operation::Get { table: self.table, key: key.as_bytes().into() };
        match self.rig.ask(0, self.session, get) {
            Ok(Answer::Value(Some(value))) => value.to_vec(),
            other => panic!("{key}: {other:?}"),
        }
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.rig.step();
        }
    }

    /// Inputs that wait: all of them, and those of bulk.
    fn waiting(&self) -> (usize, usize) {
        let slots = (0..SLOTS).filter_map(|slot| self.rig.slot(SlotId(slot)));
        slots.fold((0, 0), |(all, bulk), slot| (all + slot.queued_inputs, bulk + slot.bulk_waiting.inputs))
    }
}

#[test]
fn a_live_input_takes_the_bulk_before_it_along_and_nothing_else() {
    let mut client = Client::new("bulk-inherits");
    for n in 0..3_000 {
        client.invoke(InputClass::Bulk, &format!("other {n}"), b"b");
    }
    for n in [b"1", b"2", b"3"] {
        client.invoke(InputClass::Bulk, "mine", n);
    }
    let live = client.invoke(InputClass::Live, "mine", b"4");
    client.invoke(InputClass::Bulk, "mine", b"5");
    client.rig.settle_reply(live);
    let (_, bulk) = client.waiting();
    assert!(bulk > 1_000, "only {bulk} bulk inputs waited behind the live one");
    client.rig.settle();
    assert_eq!(client.value("mine"), b"12345");
    assert_eq!(client.waiting(), (0, 0));
}

#[test]
fn bulk_has_its_tenth_however_much_live_there_is() {
    let mut client = Client::new("bulk-starves");
    for n in 0..2_000 {
        client.invoke(InputClass::Bulk, &format!("bulk {n}"), b"b");
    }
    let (mut live, mut ran) = (0, [0, 0]);
    let payload = [b'l'; 600];
    for turn in 0..12 {
        while client.waiting().0 - client.waiting().1 + live < 700 {
            client.invoke(InputClass::Live, &format!("live {}", live % 900), &payload);
            live += 1;
        }
        let (sent, (all, bulk)) = (std::mem::take(&mut live), client.waiting());
        client.rig.step();
        let (all_after, bulk_after) = client.waiting();
        // The first turns take bulk in, and the log is not full yet.
        if turn >= 3 {
            assert!(all_after - bulk_after > 0, "live work is left in turn {turn}");
            ran[0] += all - bulk + sent - (all_after - bulk_after);
            ran[1] += bulk - bulk_after;
        }
    }
    let share = ran[1] as f64 / (ran[0] + ran[1]) as f64;
    assert!((0.09..0.5).contains(&share), "of {ran:?} inputs, live and bulk, bulk had {share:.3}");
}

#[test]
fn bulk_has_its_tenth_also_while_live_fills_all_the_room_that_the_log_has() {
    let mut client = Client::new("bulk-no-room");
    for n in 0..400 {
        client.invoke(InputClass::Bulk, &format!("bulk {n}"), b"b");
    }
    let swell = client.handlers[1];
    for n in 0..3_000 {
        client.call(InputClass::Live, swell, &format!("live {n}"), b"l");
    }
    // The first turns take all in and fill the log.
    client.steps(3);
    let (all, bulk) = client.waiting();
    client.steps(60);
    let (all_after, bulk_after) = client.waiting();
    assert!(all_after - bulk_after > 100, "live work is left");
    let (live, bulk) = (all - bulk - (all_after - bulk_after), bulk - bulk_after);
    let share = bulk as f64 / (live + bulk) as f64;
    assert!((0.09..0.5).contains(&share), "of {live} live and {bulk} bulk inputs bulk had {share:.3}");
}

#[test]
fn bulk_comes_in_beside_few_large_live_inputs_that_keep_the_log_full() {
    let mut client = Client::new("bulk-large-live");
    let value = vec![b'v'; 300 << 10];
    let mut taken = 0;
    for n in 0..120 {
        // A batch is on its way and several wait, always.
        for put in 0..if n == 0 { 5 } else { 1 } {
            client.put(&format!("live {n} {put}"), &value);
        }
        // A door with bulk that waits.
        let room = client.rig.bulk_room(0);
        if n > 2 && room > 0 {
            taken += 1;
            client.invoke(InputClass::Bulk, &format!("bulk {n}"), b"b");
        }
        client.rig.step();
    }
    assert!((5..40).contains(&taken), "beside 120 live inputs, {taken} of bulk came in");
    client.rig.settle();
    assert_eq!(client.waiting(), (0, 0));
}

#[test]
fn bulk_is_refused_before_live_is() {
    let mut client = Client::new("bulk-refused");
    let most = 2 * BULK_INPUTS_MAX;
    let tags: Vec<u64> = (0..most + 10).map(|n| client.invoke(InputClass::Bulk, &format!("{n}"), b"b")).collect();
    client.rig.step();
    assert_eq!(client.rig.bulk_room(0), 0, "doors hold bulk back");
    let refused: Vec<_> = tags[most..].iter().map(|tag| client.rig.take(*tag)).collect();
    let for_now = |reply: &Option<Result<Answer, _>>| {
        matches!(reply, Some(Err(gristmill_core::request::Refusal { code: Code::Capacity, .. })))
    };
    assert!(refused.iter().all(for_now), "{refused:?}");
    // In a session of its own: where a position was refused for now, the next one has to wait for it.
    (client.session, client.next) = (client.rig.open_session().0, BTreeMap::new());
    let late = client.invoke(InputClass::Live, "late", b"l");
    client.rig.settle_reply(late);
    client.rig.settle();
    assert!(client.rig.bulk_room(0) > 0, "there is room again");
}

#[test]
fn who_waits_for_a_turn_is_not_spilled_and_who_fails_is() {
    let mut client = Client::new("bulk-spilled");
    client.invoke(InputClass::Bulk, "fails", b"!");
    client.steps(8);
    client.invoke(InputClass::Bulk, "fails", b"behind it");
    for n in 0..3_000 {
        client.invoke(InputClass::Bulk, &format!("{n}"), b"b");
    }
    // Turns so long apart that grains wait for seconds.
    for _ in 0..4 {
        client.rig.pass(1_500_000_000);
        client.rig.step();
    }
    let (_, bulk) = client.waiting();
    assert!(bulk > 1_000, "only {bulk} bulk inputs waited for their turn");
    let backlogs: usize = (0..SLOTS).filter_map(|slot| client.rig.slot(SlotId(slot))).map(backlog).sum();
    assert_eq!(backlogs, 2, "both inputs of the grain that fails, and no others");
    client.steps(2_000);
    assert_eq!(client.value("2999"), b"b");
}

/// Inputs of a slot in backlogs.
fn backlog(slot: &gristmill_state::slot::Slot) -> usize {
    let works = slot.grains.iter().filter_map(|(_, grain)| grain.work());
    works.map(|work| work.backlog_count() as usize).sum()
}
