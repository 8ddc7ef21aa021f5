//! Watches: changes behind a position, once they are durable; nothing in silence where they are not kept; over restarts.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{MapId, SessionId, SlotId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_base::watch::{Behind, WatchKeys, WatchPosition};
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Changes, Code, Operation, Refusal, RowChange, Sequence, Watch};
use gristmill_sdk::App;
use std::collections::BTreeMap;

const FILE: &str = "
app: shop
language: rust
tables:
  - name: stock
    key: string
    value: bytes
    maps: [{id: 0, name: cells, key: string, value: bytes}]
  - name: other
    key: string
    value: bytes
";

fn apps() -> Vec<App> {
    vec![App::new("shop", FILE)]
}

struct Shop {
    rig: Rig,
    session: SessionId,
    table: TableId,
    other: TableId,
    sent: BTreeMap<SlotId, u64>,
}

impl Shop {
    fn start(folder: &Folder, config: &BootConfig) -> Self {
        let mut rig = Rig::start(&folder.0, config, apps);
        rig.load(FILE);
        let names = rig.json(Operation::Describe { name: "shop".into() });
        let id = |at: usize| TableId(names["tables"][at]["id"].as_u64().unwrap() as u32);
        let (table, other) = (id(0), id(1));
        let session = rig.open_session().0;
        Self { rig, session, table, other, sent: BTreeMap::new() }
    }

    fn sequence(&mut self, key: &str) -> Sequence {
        let seq = self.sent.entry(slot_of(key.as_bytes(), 16)).or_default();
        *seq += 1;
        Sequence { seq: *seq, ack: *seq - 1 }
    }

    fn put(&mut self, key: &str, value: &str) {
        self.put_in(self.table, key, value);
    }

    fn put_in(&mut self, table: TableId, key: &str, value: &str) {
        let sequence = self.sequence(key);
        let (key, value) = (key.as_bytes().into(), value.as_bytes().into());
        self.rig.ask(0, self.session, Operation::Put { table, sequence, key, value }).unwrap();
    }

    fn watch(&self, keys: WatchKeys, positions: Vec<WatchPosition>, wait_millis: u32) -> Operation {
        let (max_changes, max_bytes) = (100, 1 << 20);
        Operation::Watch(Box::new(Watch { table: self.table, keys, positions, max_changes, max_bytes, wait_millis }))
    }

    fn ask(&mut self, keys: WatchKeys, positions: Vec<WatchPosition>) -> Result<Changes, Refusal> {
        let watch = self.watch(keys, positions, 0);
        match self.rig.ask(0, self.session, watch)? {
            Answer::Changes(changes) => Ok(*changes),
            other => panic!("{other:?}"),
        }
    }
}

fn key(key: &str) -> WatchKeys {
    WatchKeys::Key(key.as_bytes().into())
}

fn now(name: &str) -> Vec<WatchPosition> {
    vec![WatchPosition { slot: slot_of(name.as_bytes(), 16), behind: None }]
}

fn shown(changes: &Changes) -> Vec<RowChange> {
    changes.changes.iter().map(|it| it.change.clone()).collect()
}

fn value(text: &str) -> RowChange {
    RowChange::Value(text.as_bytes().into())
}

#[test]
fn each_change_of_a_key_comes_once_and_others_do_not() {
    let folder = Folder::new("watch-key");
    let mut shop = Shop::start(&folder, &config(1));
    shop.put("a", "0");
    let mut at = shop.ask(key("a"), now("a")).unwrap();
    assert!(at.changes.is_empty(), "what was before is not of now");
    shop.put("a", "1");
    shop.put_in(shop.other, "a", "not this table");
    let (table, sequence) = (shop.table, shop.sequence("a"));
    let entry = Operation::MapPut {
        table,
        map: MapId(0),
        sequence,
        key: (*b"a").into(),
        entry: (*b"e").into(),
        value: (*b"2").into(),
    };
    shop.rig.ask(0, shop.session, entry).unwrap();
    let sequence = shop.sequence("a");
    shop.rig.ask(0, shop.session, Operation::Delete { table, sequence, key: (*b"a").into() }).unwrap();
    at = shop.ask(key("a"), at.positions).unwrap();
    let entry = RowChange::Entry(MapId(0), (*b"e").into(), (*b"2").into());
    assert_eq!(shown(&at), [value("1"), entry, RowChange::NoGrain]);
    assert!(shop.ask(key("a"), at.positions).unwrap().changes.is_empty());
}

#[test]
fn one_that_waits_is_answered_when_something_changes_or_when_its_time_is_over() {
    let folder = Folder::new("watch-waits");
    let mut shop = Shop::start(&folder, &config(1));
    let at = shop.ask(key("a"), now("a")).unwrap();
    let watch = shop.watch(key("a"), at.positions, 1_000);
    let tag = shop.rig.send(0, shop.session, watch);
    shop.put("b", "of another key");
    assert!(shop.rig.take(tag).is_none());
    shop.put("a", "1");
    shop.rig.settle_reply(tag);
    let Some(Ok(Answer::Changes(at))) = shop.rig.take(tag) else { panic!("no answer") };
    assert_eq!(shown(&at), [value("1")]);
    let watch = shop.watch(key("a"), at.positions.clone(), 1_000);
    let tag = shop.rig.send(0, shop.session, watch);
    shop.rig.pass(1_100_000_000);
    shop.rig.settle_reply(tag);
    let Some(Ok(Answer::Changes(later))) = shop.rig.take(tag) else { panic!("no answer") };
    assert!(later.changes.is_empty());
    assert_eq!(later.positions, at.positions);
}

#[test]
fn a_restart_keeps_what_the_log_holds_and_what_is_gone_is_said() {
    let folder = Folder::new("watch-restart");
    let mut shop = Shop::start(&folder, &config(1));
    let all: Vec<WatchPosition> = (0..16).map(|slot| WatchPosition { slot: SlotId(slot), behind: None }).collect();
    let prefix = WatchKeys::Prefix(Box::default());
    let at = shop.ask(prefix.clone(), all).unwrap();
    assert_eq!(at.positions.len(), 16);
    for number in 0..20 {
        shop.put(&format!("k{number}"), "1");
    }
    drop(shop);
    let mut shop = Shop::start(&folder, &config(2));
    let mut found = Vec::new();
    let mut positions = at.positions;
    let mut left: Vec<WatchPosition> = positions.clone();
    while !left.is_empty() {
        let page = shop.ask(prefix.clone(), left.clone()).unwrap();
        found.extend(page.changes.iter().map(|it| it.key.clone()));
        left.retain(|it| page.elsewhere.iter().any(|(slot, _)| *slot == it.slot));
        for position in page.positions {
            *positions.iter_mut().find(|it| it.slot == position.slot).unwrap() = position;
        }
    }
    found.sort();
    let mut keys: Vec<Box<[u8]>> = (0..20).map(|number| format!("k{number}").into_bytes().into()).collect();
    keys.sort();
    assert_eq!(found, keys);
    let slot = slot_of(b"k0", 16);
    let own = positions.iter().find(|it| it.slot == slot).unwrap().behind.unwrap();
    let ahead = WatchPosition { slot, behind: Some(Behind { ssn: own.ssn.next(), ..own }) };
    let refusal = shop.ask(key("k0"), vec![ahead]).unwrap_err();
    assert_eq!(refusal.code, Code::Gone);
    assert!(refusal.message.starts_with("position is gone, read anew"), "{}", refusal.message);
}

#[test]
fn what_does_not_fit_the_budget_is_gone() {
    let folder = Folder::new("watch-budget");
    let mut shop = Shop::start(&folder, &BootConfig { watch_bytes: 2_000, ..config(1) });
    let at = shop.ask(key("a"), now("a")).unwrap();
    for number in 0..40 {
        shop.put("a", &format!("{number:0100}"));
    }
    assert_eq!(shop.ask(key("a"), at.positions).unwrap_err().code, Code::Gone);
    let folder = Folder::new("watch-off");
    let mut shop = Shop::start(&folder, &BootConfig { watch_bytes: 0, ..config(1) });
    assert_eq!(shop.ask(key("a"), now("a")).unwrap_err().code, Code::Unsupported);
}

#[test]
fn bad_watches_are_refused() {
    let folder = Folder::new("watch-bad");
    let mut shop = Shop::start(&folder, &config(1));
    let at = |slot: u16| WatchPosition { slot: SlotId(slot), behind: None };
    let prefix = || WatchKeys::Prefix(Box::default());
    assert_eq!(shop.ask(prefix(), Vec::new()).unwrap_err().code, Code::BadRequest);
    assert_eq!(shop.ask(prefix(), vec![at(16)]).unwrap_err().code, Code::BadRequest);
    assert_eq!(shop.ask(prefix(), vec![at(2), at(1)]).unwrap_err().code, Code::BadRequest);
    assert_eq!(shop.ask(key("a"), vec![at(slot_of(b"a", 16).0 ^ 1)]).unwrap_err().code, Code::BadRequest);
    shop.table = TableId(77);
    assert_eq!(shop.ask(prefix(), vec![at(1)]).unwrap_err().code, Code::UnknownName);
}
