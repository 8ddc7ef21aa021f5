//! What lives for a time: shown until its end and not a moment longer, also where it lies in files alone and over restarts; and
//! the space of what is over comes back.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, MapId, SessionId, SlotId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const FILE: &str = "
app: lives
language: rust
tables:
  - name: visits
    key: string
    value: bytes
    ttl: 60s
    maps: [{id: 0, name: pages, key: string, value: bytes}]
    handlers: [{name: visit}, {name: ring}]
  - name: limits
    key: string
    value: bytes
    maps: [{id: 7, name: hits, key: string, value: bytes, ttl: 10s}]
    handlers: [{name: visit}]
  - name: noise
    key: string
    value: bytes
";

/// `for N` keeps what it writes for so many seconds, `drop` deletes the grain, anything else is written.
fn visit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let before = context.value()?;
    let text = String::from_utf8_lossy(input.payload).into_owned();
    match text.strip_prefix("for ").map(str::parse::<u64>) {
        Some(Ok(seconds)) => context.set_value_for("short", Duration::from_secs(seconds))?,
        _ if text == "ring" => context.set_timer("bell", context.now_micros() + 1_000_000_000, "ring", "")?,
        _ if text == "drop" => context.delete_grain(),
        _ => context.set_value(text),
    }
    Ok(Reply(before))
}

fn ring(_: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_value("rung");
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    vec![
        App::new("lives", FILE)
            .each("visits", "visit", visit)
            .each("visits", "ring", ring)
            .each("limits", "visit", visit),
    ]
}

/// Little memory, and checkpoints all the time.
fn small() -> BootConfig {
    BootConfig {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 300 << 10,
        resident_bytes_max: 64 << 10,
        cache_bytes: 16 << 10,
        ..config(1)
    }
}

/// A client of the app.
struct User {
    rig: Rig,
    session: SessionId,
    tables: Vec<TableId>,
    /// The handler `visit` of each table that has it.
    visits: Vec<HandlerId>,
    next: BTreeMap<u16, u64>,
}

impl User {
    fn new(mut rig: Rig) -> Self {
        let loaded = rig.load(FILE);
        let id = |table: usize| TableId(loaded["tables"][table]["id"].as_u64().unwrap() as u32);
        let visit = |table: usize| HandlerId(loaded["tables"][table]["handlers"][0]["id"].as_u64().unwrap() as u32);
        let (session, _) = rig.open_session();
        Self {
            rig,
            session,
            tables: (0..3).map(id).collect(),
            visits: (0..2).map(visit).collect(),
            next: BTreeMap::new(),
        }
    }

    fn sequence(&mut self, key: &str) -> Sequence {
        let seq = self.next.entry(slot_of(key.as_bytes(), 16).0).or_default();
        *seq += 1;
        Sequence { seq: *seq, ack: *seq - 1 }
    }

    fn send_put(&mut self, table: usize, key: &str, value: &[u8]) -> u64 {
        let (table, sequence) = (self.tables[table], self.sequence(key));
        let operation = Operation::Put { table, sequence, key: key.as_bytes().into(), value: value.into() };
        self.rig.send(0, self.session, operation)
    }

    fn put(&mut self, table: usize, key: &str, value: &[u8]) {
        let tag = self.send_put(table, key, value);
        self.done(tag);
    }

    fn map_put(&mut self, table: usize, map: u16, key: &str, entry: &str, value: &[u8]) {
        let (table, sequence, map) = (self.tables[table], self.sequence(key), MapId(map));
        let (key, entry, value) = (key.as_bytes().into(), entry.as_bytes().into(), value.into());
        let tag = self.rig.send(0, self.session, Operation::MapPut { table, map, sequence, key, entry, value });
        self.done(tag);
    }

    fn done(&mut self, tag: u64) {
        self.rig.settle_reply(tag);
        assert_eq!(self.rig.take(tag), Some(Ok(Answer::Done)));
    }

    /// Calls `visit`: what was there before it.
    fn visit(&mut self, table: usize, key: &str, payload: &str) -> Result<Option<Vec<u8>>, String> {
        let (table, sequence, handler) = (self.tables[table], self.sequence(key), self.visits[table]);
        let (key, payload) = (key.as_bytes().into(), payload.as_bytes().into());
        match self.rig.ask(0, self.session, Operation::Invoke { table, handler, sequence, key, payload }) {
            Ok(Answer::Value(before)) => Ok(before.map(Into::into)),
            Err(refusal) => Err(refusal.message),
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, table: usize, key: &str) -> Option<Vec<u8>> {
        crate::get(&mut self.rig, self.tables[table], key)
    }

    fn entries(&mut self, table: usize, map: u16, key: &str) -> Vec<String> {
        let (table, map, key) = (self.tables[table], MapId(map), key.as_bytes().into());
        let range = Operation::Range { table, map, key, from: [].into(), to: None, limit: 100, reverse: false };
        match self.rig.ask(0, SessionId(0), range) {
            Ok(Answer::Entries { entries, .. }) => {
                entries.iter().map(|(entry, _)| String::from_utf8_lossy(entry).into_owned()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn scan(&mut self, table: usize) -> usize {
        let table = self.tables[table];
        let scan = Operation::Scan { table, prefix: [].into(), after: None, limit: 1_000, local: false, parked: false };
        match self.rig.ask(0, SessionId(0), scan) {
            Ok(Answer::Rows { rows, .. }) => rows.len(),
            other => panic!("{other:?}"),
        }
    }

    /// Lets time pass.
    fn pass(&mut self, seconds: u64) {
        self.rig.pass(seconds * 1_000_000_000);
    }

    /// Writes what fills the log, so that checkpoints and merges come.
    fn make_noise(&mut self, rounds: u32) {
        for n in 0..rounds {
            let tag = self.send_put(2, &format!("noise{}", n % 64), &[n as u8; 900]);
            if n % 20 == 0 {
                self.done(tag);
            }
        }
        self.rig.settle();
    }
}

#[test]
fn rows_are_shown_to_the_end_of_their_lives_and_a_write_begins_them_anew() {
    let folder = Folder::quick("expiry");
    let mut user = User::new(Rig::start(&folder.0, &config(1), apps));
    user.put(0, "a", b"1");
    user.map_put(0, 0, "a", "p", b"2");
    user.put(1, "a", b"1");
    user.map_put(1, 7, "a", "old", b"2");
    user.pass(8);
    user.map_put(1, 7, "a", "new", b"2");
    assert_eq!(user.entries(1, 7, "a"), ["new", "old"]);
    user.pass(5);
    assert_eq!(user.entries(1, 7, "a"), ["new"], "the other one is 13 s old");
    user.pass(6);
    assert!(user.entries(1, 7, "a").is_empty());
    assert_eq!(user.get(1, "a").as_deref(), Some(&b"1"[..]), "grains of that table stay");
    // A write to the map is one to the grain.
    user.pass(31);
    user.map_put(0, 0, "a", "q", b"2");
    user.pass(50);
    assert_eq!((user.get(0, "a").is_some(), user.entries(0, 0, "a").len(), user.scan(0)), (true, 2, 1));
    user.pass(11);
    assert_eq!((user.get(0, "a"), user.entries(0, 0, "a").len(), user.scan(0)), (None, 0, 0));
    // What comes then finds an empty grain.
    assert_eq!(user.visit(0, "a", "x"), Ok(None));
    assert_eq!(user.visit(0, "a", "y").unwrap().as_deref(), Some(&b"x"[..]));
    assert!(user.entries(0, 0, "a").is_empty());
}

#[test]
fn a_handler_may_say_another_time_and_timers_go_with_their_grain() {
    let folder = Folder::quick("expiry-handlers");
    let mut user = User::new(Rig::start(&folder.0, &config(1), apps));
    user.visit(0, "a", "for 5").unwrap();
    user.visit(0, "b", "for 500").unwrap();
    user.visit(0, "b", "ring").unwrap();
    user.pass(6);
    assert_eq!((user.get(0, "a"), user.get(0, "b").as_deref()), (None, Some(&b"short"[..])));
    user.pass(480);
    assert!(user.get(0, "b").is_some());
    user.pass(20);
    assert!(user.get(0, "b").is_none());
    // Its timer would have rung 1,000 s after it was set.
    user.pass(1_000);
    user.rig.settle();
    assert_eq!(user.get(0, "b"), None);
    for (table, wrong, says) in [
        (0, "for 0", "a time to live of 0 microseconds; 1 s to 36500 days are allowed"),
        (1, "for 5", "table limits has no ttl in the app file"),
    ] {
        let message = user.visit(table, "c", wrong).unwrap_err();
        assert!(message.contains(says), "{message}");
    }
    // A deleted grain begins anew.
    user.visit(0, "d", "1").unwrap();
    user.pass(50);
    user.visit(0, "d", "drop").unwrap();
    user.visit(0, "d", "2").unwrap();
    user.pass(50);
    assert_eq!(user.get(0, "d").as_deref(), Some(&b"2"[..]));
    assert!((0..16).filter_map(|slot| user.rig.slot(SlotId(slot))).any(|slot| slot.timers.count() > 0));
    user.pass(11);
    assert_eq!(user.get(0, "d"), None);
    assert!((0..16).filter_map(|slot| user.rig.slot(SlotId(slot))).all(|slot| !slot.has_timers()));
}

/// Bytes of the store's files.
fn stored(root: &Path) -> u64 {
    let groups = std::fs::read_dir(root.join("store")).unwrap().map(|entry| entry.unwrap().path());
    let files = groups.flat_map(|group| std::fs::read_dir(group).unwrap().map(|entry| entry.unwrap()));
    files.map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn what_is_over_is_hidden_after_a_restart_and_its_space_comes_back() {
    const GRAINS: u32 = 3_000;
    let folder = Folder::quick("expiry-space");
    let mut user = User::new(Rig::start(&folder.0, &small(), apps));
    // What the other rows take with files of several ages, of which none is full.
    user.make_noise(6_000);
    let others = stored(&folder.0);
    for n in 0..GRAINS {
        // Half of the values are large enough for a value file.
        let tag = user.send_put(0, &format!("grain{n}"), &vec![n as u8; if n % 2 == 0 { 1_200 } else { 300 }]);
        if n % 10 == 0 {
            user.done(tag);
        }
        if n % 100 == 0 {
            // These are written again later.
            user.map_put(0, 0, &format!("grain{n}"), "p", b"page");
        }
    }
    user.make_noise(600);
    let full = stored(&folder.0);
    let in_memory: usize = (0..16).filter_map(|slot| user.rig.slot(SlotId(slot))).map(|slot| slot.grains.count()).sum();
    assert!(full > others + 1_000_000 && in_memory < GRAINS as usize / 2, "{full} bytes, {in_memory} grains in memory");
    for n in (0..GRAINS).step_by(100) {
        user.pass(1);
        user.put(0, &format!("grain{n}"), b"again");
    }
    let User { rig, .. } = user;
    let micros = rig.engine_micros();
    drop(rig);
    // The machine is down for the rest of the lives of the most of them.
    let mut rig = Rig::start(&folder.0, &small(), apps);
    // The clock of a rig begins where it began: engine time, which goes on from where it was, is waited for.
    while rig.engine_micros() < micros + 45_000_000 {
        rig.pass(1_000_000_000);
        let _ = rig.step();
    }
    let mut user = User::new(rig);
    let late = user.rig.engine_micros();
    for n in (0..GRAINS).step_by(7) {
        let is_there = user.get(0, &format!("grain{n}")).is_some();
        let is_again = n % 100 == 0;
        assert!(is_again || !is_there, "grain{n} is shown at {late}, {} us after the last write", late - micros);
    }
    user.pass(70);
    assert_eq!(user.scan(0), 0);
    user.rig.settle();
    for slot in 0..16 {
        let rows = user.rig.rows(&folder.0, SlotId(slot)).unwrap();
        let table = user.tables[0];
        let is_of_table = |key: &Vec<u8>| {
            use gristmill_state::store::RowKey;
            matches!(RowKey::decode(key), Ok(RowKey::Grain(_, of, _) | RowKey::Entry(_, of, ..) | RowKey::Timer(_, of, ..)) if of == table)
        };
        assert!(!rows.keys().any(is_of_table), "rows of slot {slot} are left");
    }
    // Each group is flushed some times more, and merged.
    let mut empty = 0;
    for _ in 0..12 {
        user.make_noise(1_500);
        empty = stored(&folder.0);
        if empty < others + (full - others) / 8 {
            return;
        }
    }
    panic!("{empty} of {full} bytes are left, and {others} are of other rows");
}
