//! What handlers can do beside values and entries: ranges of maps, several rows at once, other grains, metrics, lines, timers that
//! repeat; and what is said where they ask for too much.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, MapId, SessionId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Operation, Sequence};
use gristmill_sdk::{App, Cause, Context, Failure, Input, LogLevel, ReadAt, Reply, Wanted};
use std::collections::BTreeMap;
use std::time::Duration;

const FILE: &str = "
app: things
language: rust
config: {place: app, other: app}
tables:
  - name: things
    key: string
    value: string
    maps:
      - {id: 0, name: rows, key: string, value: string}
      - {id: 7, name: seen, key: string, value: string}
    handlers:
      - name: go
        config: {place: handler}
      - name: tick
";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Does what the first word of the payload says.
fn go(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let payload = text(input.payload);
    let mut words = payload.split(' ');
    let word = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    match word {
        "fill" => {
            let from: u32 = rest[0].parse().map_err(|_| Failure::new("no number"))?;
            for n in from..from + 100 {
                context.map_put("rows", format!("r{n:06}").as_bytes(), "v".repeat(200))?;
            }
        }
        "cut" => context.map_delete_range(0, rest[0].as_bytes(), rest.get(1).map(|to| to.as_bytes()))?,
        "cuts" => (0..100_u8).try_for_each(|n| context.map_delete_range("rows", &[0, 0, 0, n], None))?,
        "othersx" => {
            let key = context.key().to_vec();
            (0..100).try_for_each(|_| context.read_value("things", &key).map(drop))?;
        }
        "big" => context.map_put("rows", rest[0].as_bytes(), "v".repeat(1 << 20))?,
        "nowhere" => drop(context.read_map_get("nothing", b"k", 0, b"e")?),
        "count" => context.count(rest[0], &[("kind", rest[1])], 2),
        "say" => {
            let config = [context.config("place"), context.config("other"), context.config("none")];
            let said = format!("{config:?}");
            context.log(LogLevel::Warn, said);
        }
        "fail" => {
            context.log(LogLevel::Info, "about to fail");
            context.count("failed", &[], 1);
            return Err(Failure::new("as asked"));
        }
        "every" => context.set_timer_every("t", Duration::from_secs(10), "tick", "p")?,
        "cron" => context.set_timer_cron("t", &rest.join(" "), "tick", "p")?,
        "stop" => context.cancel_timer("t"),
        "set" => context.set_value(rest[0]),
        "lines" => context.log(LogLevel::Info, "one\nERROR two \u{1b}[31m"),
        other => return read(other, &rest, context),
    }
    Ok(Reply::none())
}

/// What the word says, if it is to read.
fn read(word: &str, rest: &[&str], context: &mut Context<'_>) -> Result<Reply, Failure> {
    match word {
        "many" => {
            let keys: Vec<Vec<u8>> = (0..50).map(|n| format!("r{:06}", n * 7).into_bytes()).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let found = context.map_get_many("rows", &keys)?.iter().flatten().count();
            Ok(Reply::value(found.to_string()))
        }
        "others" => {
            let keys: Vec<Vec<u8>> = (0..8).map(|n| format!("k{n}").into_bytes()).collect();
            let wanted: Vec<ReadAt<'_>> =
                keys.iter().map(|key| ReadAt { table: "things", key, wanted: Wanted::Value }).collect();
            let rows = context.read_many(&wanted)?;
            let shown: Vec<String> = rows.iter().map(|row| row.as_deref().map_or("-".to_owned(), text)).collect();
            Ok(Reply::value(shown.join(",")))
        }
        "gaps" => {
            context.map_delete_range("rows", b"b09", Some(b"b09a"))?;
            let rows = context.map_range("rows", b"b", None, usize::MAX, rest.first() == Some(&"back"))?;
            Ok(Reply::value(rows.len().to_string()))
        }
        "bigmany" => {
            let keys: Vec<Vec<u8>> = (0..18).map(|n| format!("b{n:02}").into_bytes()).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            Ok(Reply::value(context.map_get_many("rows", &keys)?.len().to_string()))
        }
        "bigothers" => {
            let keys: Vec<Vec<u8>> = (0..18).map(|n| format!("b{n:02}").into_bytes()).collect();
            let wanted = |entry| ReadAt { table: "things", key: b"g", wanted: Wanted::Entry("rows".into(), entry) };
            let wanted: Vec<ReadAt<'_>> = keys.iter().map(|key| wanted(key)).collect();
            Ok(Reply::value(context.read_many(&wanted)?.len().to_string()))
        }
        other => Err(Failure::new(format!("no act {other}"))),
    }
}

fn tick(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Timer { due_micros, missed, .. } = input.cause else { return Err(Failure::new("no timer")) };
    context.map_put("seen", format!("{due_micros:020}").as_bytes(), missed.to_string())?;
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    vec![App::new("things", FILE).each("things", "go", go).each("things", "tick", tick)]
}

/// A client that invokes.
struct Caller {
    session: SessionId,
    table: TableId,
    handler: HandlerId,
    next: BTreeMap<u16, u64>,
}

impl Caller {
    fn new(rig: &mut Rig) -> Self {
        let loaded = rig.load(FILE);
        let table = &loaded["tables"][0];
        let handler = HandlerId(table["handlers"][0]["id"].as_u64().unwrap() as u32);
        Self {
            session: rig.open_session().0,
            table: TableId(table["id"].as_u64().unwrap() as u32),
            handler,
            next: BTreeMap::new(),
        }
    }

    fn sequence(&mut self, key: &str) -> Sequence {
        let next = self.next.entry(slot_of(key.as_bytes(), 16).0).or_default();
        *next += 1;
        Sequence { seq: *next, ack: *next - 1 }
    }

    fn call(&mut self, rig: &mut Rig, key: &str, payload: &str) -> Result<String, (Code, String)> {
        let sequence = self.sequence(key);
        let (table, handler) = (self.table, self.handler);
        let (key, payload) = (key.as_bytes().into(), payload.as_bytes().into());
        match rig.ask(0, self.session, Operation::Invoke { table, handler, sequence, key, payload }) {
            Ok(Answer::Value(value)) => Ok(value.map_or_else(String::new, |value| text(&value))),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err((refusal.code, refusal.message)),
        }
    }

    /// All entries of a map.
    fn entries(&self, rig: &mut Rig, key: &str, map: u16) -> Vec<(String, String)> {
        let (mut all, mut from) = (Vec::new(), Vec::new());
        loop {
            let (table, map, key) = (self.table, MapId(map), key.as_bytes().into());
            let range = Operation::Range {
                table,
                map,
                key,
                from: from.as_slice().into(),
                to: None,
                limit: 500,
                reverse: false,
            };
            let Ok(Answer::Entries { entries, more }) = rig.ask(0, self.session, range) else { panic!("no entries") };
            from = entries.last().map(|(key, _)| [key, &[0][..]].concat()).unwrap_or_default();
            all.extend(entries.iter().map(|(key, value)| (text(key), text(value))));
            if !more {
                return all;
            }
        }
    }
}

/// Little in memory, files soon.
fn small(shards: u16) -> BootConfig {
    BootConfig {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 300 << 10,
        resident_bytes_max: 256 << 10,
        cache_bytes: 64 << 10,
        ..config(shards)
    }
}

fn count(rig: &mut Rig, name: &str) -> u64 {
    rig.measure(0).counts.iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn a_range_that_does_not_fit_memory_is_deleted_without_reading_it() {
    let folder = Folder::quick("context-range");
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut caller = Caller::new(&mut rig);
    for n in 0..60 {
        caller.call(&mut rig, "g", &format!("fill {}", n * 100)).unwrap();
        rig.settle();
    }
    assert_eq!(caller.entries(&mut rig, "g", 0).len(), 6_000);
    let reads = count(&mut rig, "store_reads");
    caller.call(&mut rig, "g", "cut r001000 r005000").unwrap();
    assert_eq!(count(&mut rig, "store_reads"), reads, "nothing is read to delete it");
    let sequence = caller.sequence("g");
    let (from, to) = (b"r0055".as_slice().into(), None);
    let (table, map, key) = (caller.table, MapId(0), b"g".as_slice().into());
    let delete = Operation::MapDeleteRange { table, map, sequence, key, from, to };
    assert_eq!(rig.ask(0, caller.session, delete), Ok(Answer::Done));
    let check = |rig: &mut Rig, caller: &Caller| {
        let found = caller.entries(rig, "g", 0);
        assert_eq!((found.len(), &*found[999].0, &*found[1_000].0), (1_500, "r000999", "r005000"));
        assert_eq!(found[1_499].0, "r005499");
    };
    check(&mut rig, &caller);
    rig.settle();
    drop(rig);
    for shards in [1, 2] {
        let mut rig = Rig::start(&folder.0, &small(shards), apps);
        rig.settle();
        check(&mut rig, &caller);
    }
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    caller.session = rig.open_session().0;
    caller.next.clear();
    caller.call(&mut rig, "g", "cut a").unwrap();
    assert_eq!(caller.entries(&mut rig, "g", 0), []);
}

#[test]
fn memory_of_many_deleted_entries_comes_back_piece_by_piece() {
    let folder = Folder::quick("context-discard");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    for n in 0..60 {
        caller.call(&mut rig, "g", &format!("fill {}", n * 100)).unwrap();
    }
    let slot = slot_of(b"g", 16);
    let before = rig.slot(slot).unwrap().row_bytes();
    caller.call(&mut rig, "g", "cut r001000 r005999").unwrap();
    assert_eq!(caller.entries(&mut rig, "g", 0).len(), 1_001);
    rig.settle();
    let after = rig.slot(slot).unwrap().row_bytes();
    assert!(after < before / 5, "{after} bytes of {before}");
    caller.call(&mut rig, "g", "cut a").unwrap();
    rig.settle();
    assert_eq!(rig.slot(slot).unwrap().row_bytes(), 0);
}

#[test]
fn rows_that_are_not_in_memory_are_fetched_together() {
    let folder = Folder::quick("context-many");
    {
        let mut rig = Rig::start(&folder.0, &small(1), apps);
        let mut caller = Caller::new(&mut rig);
        for n in 0..30 {
            caller.call(&mut rig, "g", &format!("fill {}", n * 100)).unwrap();
            rig.settle();
        }
    }
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    rig.settle();
    let mut caller = Caller::new(&mut rig);
    let made = |rig: &mut Rig| rig.json(Operation::Status)["shards"][0]["runs"].as_u64().unwrap();
    let runs = made(&mut rig);
    assert_eq!(caller.call(&mut rig, "g", "many").unwrap(), "50");
    assert_eq!(made(&mut rig) - runs, 2, "once to see what is lacking, once with it");
}

#[test]
fn other_grains_are_read_wherever_they_are() {
    let folder = Folder::quick("context-others");
    let mut rig = Rig::start(&folder.0, &config(3), apps);
    let mut caller = Caller::new(&mut rig);
    assert_eq!(caller.call(&mut rig, "reader", "others").unwrap(), "-,-,-,-,-,-,-,-");
    for n in 0..8 {
        caller.call(&mut rig, &format!("k{n}"), &format!("set v{n}")).unwrap();
    }
    assert_eq!(caller.call(&mut rig, "reader", "others").unwrap(), "v0,v1,v2,v3,v4,v5,v6,v7");
    // Its own grain as well, as it was committed.
    assert_eq!(caller.call(&mut rig, "k3", "others").unwrap(), "v0,v1,v2,v3,v4,v5,v6,v7");
    rig.settle();
    drop(rig);
    let mut rig = Rig::start(&folder.0, &small(2), apps);
    caller.session = rig.open_session().0;
    caller.next.clear();
    assert_eq!(caller.call(&mut rig, "reader", "others").unwrap(), "v0,v1,v2,v3,v4,v5,v6,v7");
}

#[test]
fn what_is_counted_is_counted_once_and_survives() {
    let folder = Folder::quick("context-metrics");
    let shown = |rig: &mut Rig| -> Vec<(String, String, i64)> {
        let told = rig.measure(0).app_metrics.into_iter().chain(rig.measure(1).app_metrics);
        let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
        told.for_each(|metric| *sums.entry((metric.app, metric.series)).or_default() += metric.sum);
        sums.into_iter().map(|((app, series), sum)| (app, series, sum)).collect()
    };
    let expected = [("things".to_owned(), "made{kind=\"a\"}".to_owned(), 8)];
    {
        let mut rig = Rig::start(&folder.0, &config(2), apps);
        let mut caller = Caller::new(&mut rig);
        for key in ["a", "b", "c", "d"] {
            caller.call(&mut rig, key, "count made a").unwrap();
            assert_eq!(caller.call(&mut rig, key, "fail").unwrap_err().0, Code::HandlerFailed);
        }
        assert_eq!(shown(&mut rig), expected);
        rig.settle();
    }
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    assert_eq!(shown(&mut rig), expected);
    let slots: usize = (0..2).map(|shard| rig.measure(shard).slots.len()).sum();
    assert_eq!((slots, rig.measure(0).slot_count), (16, 16));
}

#[test]
fn lines_are_told_of_runs_that_committed_and_of_attempts() {
    let folder = Folder::quick("context-lines");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    caller.call(&mut rig, "k", "say").unwrap();
    caller.call(&mut rig, "k", "fail").unwrap_err();
    rig.settle();
    let lines = rig.take_logs();
    let [said, failed] = &lines[..] else { panic!("{lines:?}") };
    let place = (&*said.app, &*said.table, &*said.key, &*said.handler, &*said.input);
    assert_eq!(place, ("things", "things", "k", "go", "invoke"));
    assert_eq!(said.message, "[Some(\"handler\"), Some(\"app\"), None]");
    assert_eq!((said.level, said.attempt), (LogLevel::Warn, None));
    assert_eq!((failed.message.as_str(), failed.attempt), ("about to fail", Some(1)));
}

#[test]
fn a_timer_that_repeats_keeps_its_beat() {
    let folder = Folder::quick("context-timers");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    caller.call(&mut rig, "k", "every").unwrap();
    rig.settle();
    let due = |rig: &Rig| rig.slot(slot_of(b"k", 16)).unwrap().timers.next_due();
    let first = due(&rig).unwrap();
    rig.pass(10_000_000_000);
    rig.settle();
    drop(rig);
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    caller.session = rig.open_session().0;
    caller.next.clear();
    assert_eq!(due(&rig), Some(first + 10_000_000), "the timer is there after a start");
    rig.pass(45_000_000_000);
    rig.settle();
    let seen = caller.entries(&mut rig, "k", 7);
    let [(one, none), (two, missed)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((one.parse(), &**none), (Ok(first), "0"));
    assert_eq!(two.parse(), Ok(first + 10_000_000));
    let missed: u64 = missed.parse().unwrap();
    assert!(missed >= 1, "{missed}");
    assert_eq!(due(&rig), Some(first + 10_000_000 * (missed + 2)));
    caller.call(&mut rig, "k", "stop").unwrap();
    assert_eq!(due(&rig), None);
    caller.call(&mut rig, "k", "cron 0 0 29 feb *").unwrap();
    assert!(due(&rig).unwrap() > rig.engine_micros());
}

#[test]
fn what_is_too_much_is_told() {
    let folder = Folder::quick("context-limits");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    for (act, wanted) in [
        ("cuts", "at most 64 ranges"),
        ("othersx", "at most 64"),
        ("nowhere", "app things has no table nothing; its tables: things"),
        ("count made_total a", "names that end with _total"),
        ("count a-b a", "\"a-b\""),
        ("cron * * * *", "4 fields"),
        ("cron 0 0 30 feb *", "no day of the next nine years"),
    ] {
        let (code, message) = caller.call(&mut rig, "k", act).unwrap_err();
        assert_eq!(code, Code::HandlerFailed);
        assert!(message.contains(wanted), "{act}: {message}");
    }
}

#[test]
fn what_one_read_brings_is_bounded_wherever_it_lies_and_whatever_was_deleted_between() {
    let folder = Folder::quick("context-bytes");
    let large = BootConfig { segment_bytes: 32 << 20, checkpoint_bytes: 64 << 20, ..config(2) };
    let mut rig = Rig::start(&folder.0, &large, apps);
    let mut caller = Caller::new(&mut rig);
    for n in 0..18 {
        caller.call(&mut rig, "g", &format!("big b{n:02}")).unwrap();
    }
    for act in ["gaps", "gaps back"] {
        let (code, message) = caller.call(&mut rig, "g", act).unwrap_err();
        assert_eq!(code, Code::HandlerFailed);
        assert!(message.contains("the range has more than 16777216 bytes"), "{message}");
    }
    let (_, message) = caller.call(&mut rig, "g", "bigmany").unwrap_err();
    assert!(message.contains("the rows have more than 16777216 bytes"), "{message}");
    // From the shard of the rows, and from the other one.
    for reader in ["a", "b", "c", "d", "e", "g"] {
        let (_, message) = caller.call(&mut rig, reader, "bigothers").unwrap_err();
        assert!(message.contains("more than 16777216 bytes of other grains"), "{reader}: {message}");
    }
}

#[test]
fn nobody_makes_a_line_that_looks_like_another() {
    let folder = Folder::quick("context-hostile-lines");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    caller.call(&mut rig, "k\n2026 ERROR", "lines").unwrap();
    rig.settle();
    let lines = rig.take_logs();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&*line.key, &*line.message), ("k\\n2026 ERROR", "one\\nERROR two \\u{1b}[31m"));
}

#[test]
fn a_repeated_timer_whose_handler_is_gone_ends_when_its_firing_is_skipped() {
    let folder = Folder::quick("context-timer-gone");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    caller.call(&mut rig, "k", "every").unwrap();
    rig.settle();
    let text = FILE.replace("      - name: tick\n", "").as_bytes().into();
    rig.json(Operation::AppLoad { text, force: true, dry_run: false });
    rig.pass(10_000_000_000);
    rig.settle();
    let due = |rig: &Rig| rig.slot(slot_of(b"k", 16)).unwrap().timers.next_due();
    let (table, key) = (caller.table, || b"k".as_slice().into());
    let (code, _) = caller.call(&mut rig, "k", "set a").unwrap_err();
    assert_eq!(code, Code::Parked, "the firing waits for its handler");
    let sequence = caller.sequence("k");
    let skip = Operation::Skip { table, sequence, key: key(), drop: true, retry: true, expect: "".into() };
    assert_eq!(rig.ask(0, caller.session, skip), Ok(Answer::Done));
    assert_eq!(due(&rig), None, "nobody would handle the next one either");
    rig.pass(100_000_000_000);
    rig.settle();
    caller.call(&mut rig, "k", "set a").unwrap();
}

#[test]
fn what_a_run_counts_is_told_once_it_is_durable() {
    let folder = Folder::quick("context-early");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    rig.settle();
    let mut begin = |rig: &mut Rig, payload: &str| {
        let sequence = caller.sequence("k");
        let (table, handler) = (caller.table, caller.handler);
        let (key, payload) = (b"k".as_slice().into(), payload.as_bytes().into());
        rig.send(0, caller.session, Operation::Invoke { table, handler, sequence, key, payload })
    };
    let tag = begin(&mut rig, "count made a");
    let counted = |rig: &Rig| rig.slot(slot_of(b"k", 16)).unwrap().metrics.iter().count();
    while counted(&rig) == 0 {
        rig.step();
    }
    assert_eq!(rig.measure(0).app_metrics, [], "its record is on its way to the disk");
    rig.settle_reply(tag);
    assert_eq!(rig.measure(0).app_metrics[0].sum, 2, "who was answered sees it");
}
