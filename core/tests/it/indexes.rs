//! Indexes: queries by them say what a scan says, whatever lies in memory and whatever in files, across restarts, other core counts
//! and other versions of the app.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{SessionId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_base::query::parse;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Bytes, Code, Operation, Refusal, Sequence};
use gristmill_sdk::App;
use std::collections::BTreeMap;
use std::sync::Arc;

const ROWS: u32 = 240;
const CITIES: [&str; 4] = ["Bern", "Bex", "Zug", "Zürich"];

fn file(indexes: &str) -> String {
    format!("app: docs\nlanguage: rust\ntables:\n  - {{name: docs, key: string, value: json{indexes}}}\n")
}

const BY_CITY: &str = ", indexes: [{name: by-city, field: a.city}, {name: by-n, field: 'n'}]";

fn apps() -> Vec<App> {
    vec![App::new("docs", "app: docs\nlanguage: rust\ntables:\n  - {name: docs, key: string, value: json}\n")]
}

fn small(shards: u16) -> BootConfig {
    BootConfig {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 300 << 10,
        resident_bytes_max: 32 << 10,
        cache_bytes: 64 << 10,
        ..config(shards)
    }
}

/// What is there, and who writes it.
struct Docs {
    table: TableId,
    session: SessionId,
    next: BTreeMap<u16, u64>,
    sent: Vec<u64>,
    all: BTreeMap<String, String>,
}

impl Docs {
    fn new(rig: &mut Rig, file: &str) -> Self {
        let loaded = rig.load(file);
        let table = TableId(loaded["tables"][0]["id"].as_u64().unwrap() as u32);
        let (session, _) = rig.open_session();
        Self { table, session, next: BTreeMap::new(), sent: Vec::new(), all: BTreeMap::new() }
    }

    fn write(&mut self, rig: &mut Rig, key: &str, value: Option<String>) {
        let next = self.next.entry(slot_of(key.as_bytes(), 16).0).or_insert(1);
        let sequence = Sequence { seq: *next, ack: *next - 1 };
        *next += 1;
        let (table, bytes) = (self.table, key.as_bytes().into());
        let operation = match &value {
            Some(value) => Operation::Put { table, sequence, key: bytes, value: value.as_bytes().into() },
            None => Operation::Delete { table, sequence, key: bytes },
        };
        let tag = rig.send(0, self.session, operation);
        self.sent.push(tag);
        if self.sent.len() == 16 {
            self.settle(rig);
        }
        match value {
            Some(value) => self.all.insert(key.to_owned(), value),
            None => self.all.remove(key),
        };
    }

    fn settle(&mut self, rig: &mut Rig) {
        rig.settle();
        for tag in std::mem::take(&mut self.sent) {
            assert_eq!(rig.take(tag), Some(Ok(Answer::Done)));
        }
    }

    /// Each row in a city of its own kind, by its number and the round.
    fn fill(&mut self, rig: &mut Rig, round: u32) {
        for row in 0..ROWS {
            if (row + round).is_multiple_of(11) {
                self.write(rig, &format!("k{row:04}"), None);
                continue;
            }
            let (city, n) = (CITIES[((row + round) % 4) as usize], (row * 7 + round) % ROWS);
            let value = format!(r#"{{"n":{n},"a":{{"city":"{city}"}},"pad":"{}","round":{round}}}"#, "x".repeat(900));
            self.write(rig, &format!("k{row:04}"), Some(value));
        }
        self.settle(rig);
    }

    /// Looks at every page of a query that allows no scan; the index that served.
    fn look(&self, rig: &mut Rig, expression: &str, limit: u32) -> Result<Option<String>, Refusal> {
        let filter = Arc::new(parse(expression).unwrap());
        let (mut found, mut after, mut by) = (Vec::<(Bytes, Bytes)>::new(), None, None);
        loop {
            let query = Operation::Query {
                table: self.table,
                prefix: b"k"[..].into(),
                after: after.clone(),
                limit,
                local: false,
                scan: false,
                filter: filter.clone(),
            };
            let Answer::Found { rows, next, index, .. } = rig.ask(0, SessionId(0), query)? else { panic!("no page") };
            assert!(rows.len() <= limit as usize);
            found.extend(rows.into_iter().map(|(key, value)| (key, value.unwrap())));
            assert!(by.is_none() || by == Some(index.clone()), "all pages are served alike");
            by = Some(index);
            if next.is_none() {
                break;
            }
            after = next;
        }
        let wanted = self.all.iter().filter(|(_, value)| filter.matches(value.as_bytes()));
        let wanted: Vec<(Bytes, Bytes)> =
            wanted.map(|(key, value)| (key.as_bytes().into(), value.as_bytes().into())).collect();
        assert!(found == wanted, "{expression}: {} found, {} wanted", found.len(), wanted.len());
        Ok(by.flatten())
    }

    fn look_at_all(&self, rig: &mut Rig, city: &str, n: &str) {
        let by = |index: &str| Ok(Some(index.to_owned()));
        assert_eq!(self.look(rig, "a.city = \"Bern\"", 1_000), by(city));
        assert_eq!(self.look(rig, "a.city = \"Zürich\" and n < 100", 7), by(city));
        assert_eq!(self.look(rig, "a.city in (\"Bex\", \"Zug\", \"Rome\")", 100), by(city));
        assert_eq!(self.look(rig, "a.city prefix \"Be\"", 10_000), by(city));
        assert_eq!(self.look(rig, "n >= 100 and n < 140", 5), by(n));
        assert_eq!(self.look(rig, "n = 77", 5), by(n));
        assert_eq!(self.look(rig, "n > 230", 100), by(n));
        assert_eq!(self.look(rig, "n = 1.5", 100), by(n));
    }
}

fn state_of(rig: &mut Rig, index: &str) -> String {
    let status = rig.json(Operation::Status);
    let all = status["indexes"].as_array().unwrap();
    let found = all.iter().find(|it| it["index"] == index).unwrap_or_else(|| panic!("{index} is not told: {status}"));
    found["state"].as_str().unwrap().to_owned()
}

#[test]
fn indexes_say_what_scans_say_across_restarts_and_core_counts() {
    let folder = Folder::new("indexes-restart");
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut docs = Docs::new(&mut rig, &file(BY_CITY));
    for (round, shards) in [(0, 2), (1, 2), (2, 1)] {
        docs.fill(&mut rig, round);
        docs.look_at_all(&mut rig, "by-city", "by-n");
        drop(rig);
        rig = Rig::start(&folder.0, &small(shards), apps);
        docs.look_at_all(&mut rig, "by-city", "by-n");
        let (session, _) = rig.open_session();
        (docs.session, docs.next) = (session, BTreeMap::new());
    }
    assert_eq!(state_of(&mut rig, "by-city"), "ready");
}

#[test]
fn an_index_comes_over_rows_that_are_there_and_goes() {
    let folder = Folder::new("indexes-later");
    let mut rig = Rig::start(&folder.0, &small(2), apps);
    let mut docs = Docs::new(&mut rig, &file(""));
    docs.fill(&mut rig, 0);
    let refused = docs.look(&mut rig, "n = 1", 10).unwrap_err();
    assert!(refused.code == Code::BadRequest && refused.message.contains("no field of the filter"), "{refused:?}");
    rig.load(&file(BY_CITY));
    docs.fill(&mut rig, 1);
    for _ in 0..40 {
        rig.pass(25_000_000);
        rig.settle();
    }
    assert_eq!(state_of(&mut rig, "by-n"), "ready");
    docs.look_at_all(&mut rig, "by-city", "by-n");
    drop(rig);
    rig = Rig::start(&folder.0, &small(1), apps);
    for _ in 0..40 {
        rig.pass(25_000_000);
        rig.settle();
    }
    docs.look_at_all(&mut rig, "by-city", "by-n");
    rig.load(&file(", indexes: [{name: by-city, field: a.city}], auto_index: true"));
    for _ in 0..40 {
        rig.pass(25_000_000);
        rig.settle();
    }
    docs.look_at_all(&mut rig, "by-city", "auto_index");
    let (session, _) = rig.open_session();
    (docs.session, docs.next) = (session, BTreeMap::new());
    let many: Vec<String> = (0..50).map(|field| format!("\"f{field}\":{field}")).collect();
    docs.write(&mut rig, "k-many", Some(format!("{{{},\"n\":77}}", many.join(","))));
    docs.settle(&mut rig);
    assert_eq!(docs.look(&mut rig, "f49 = 49", 10), Ok(Some("auto_index".to_owned())));
    docs.look_at_all(&mut rig, "by-city", "auto_index");
    rig.load(&file(""));
    let refused = docs.look(&mut rig, "a.city = \"Bern\"", 10).unwrap_err();
    assert!(refused.message.contains("no field of the filter"), "{refused:?}");
}
