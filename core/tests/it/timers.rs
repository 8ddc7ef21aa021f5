//! More timers than memory may hold: those that come due late lie in files, and fire in time, also after a restart.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, SessionId, SessionKey, SlotId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::BTreeMap;

const TIMERS: u32 = 400;
const RING_MICROS: u64 = 600_000_000;
const MEMORY: usize = 24 << 10;
const FILE: &str = "
app: clocks
language: rust
tables:
  - name: clocks
    key: string
    value: u64
    handlers: [{name: wind}, {name: ring}]
";

/// Sets the clock to ring in ten minutes; `off` stops it.
fn wind(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload == b"off" {
        context.cancel_timer("bell");
    } else {
        context.set_timer("bell", context.now_micros() + RING_MICROS, "ring", vec![7; 200])?;
    }
    Ok(Reply::none())
}

fn ring(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let old =
        context.value()?.map_or(0, |bytes| gristmill_sdk::datatype::decode_u64(bytes.try_into().unwrap_or_default()));
    assert_eq!(input.payload, [7; 200]);
    context.set_value(gristmill_sdk::datatype::encode_u64(old + 1));
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    vec![App::new("clocks", FILE).each("clocks", "wind", wind).each("clocks", "ring", ring)]
}

fn small() -> BootConfig {
    BootConfig {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 300 << 10,
        resident_bytes_max: MEMORY,
        cache_bytes: 16 << 10,
        ..config(1)
    }
}

fn key(n: u32) -> String {
    format!("clock{n:05}")
}

fn in_memory(rig: &Rig) -> usize {
    (0..16).filter_map(|slot| rig.slot(SlotId(slot))).map(|slot| slot.timers.count()).sum()
}

/// Lets time pass until then, engine microseconds.
fn until(rig: &mut Rig, micros: u64) {
    while rig.engine_micros() < micros {
        rig.pass(8_000_000_000);
        rig.settle();
    }
}

#[test]
fn timers_that_do_not_fit_memory_fire_once_and_in_time() {
    let folder = Folder::new("timers");
    let mut rig = Rig::start(&folder.0, &small(), apps);
    let loaded = rig.json(Operation::AppLoad { text: FILE.as_bytes().into(), force: false, dry_run: false });
    let table = TableId(loaded["tables"][0]["id"].as_u64().unwrap() as u32);
    let handler = HandlerId(loaded["tables"][0]["handlers"][0]["id"].as_u64().unwrap() as u32);
    let Ok(Answer::Session(session, _)) =
        rig.ask(0, SessionId(0), Operation::OpenSession { key: SessionKey::default() })
    else {
        panic!("no session")
    };
    let mut next: BTreeMap<u16, u64> = BTreeMap::new();
    let mut tell = |rig: &mut Rig, n: u32, payload: &[u8]| {
        let seq = next.entry(slot_of(key(n).as_bytes(), 16).0).or_default();
        *seq += 1;
        let sequence = Sequence { seq: *seq, ack: *seq - 1 };
        let key = key(n).as_bytes().into();
        rig.send(0, session, Operation::Invoke { table, handler, sequence, key, payload: payload.into() })
    };
    let first = rig.engine_micros();
    let tags: Vec<u64> = (0..TIMERS).map(|n| tell(&mut rig, n, b"on")).collect();
    rig.settle();
    tags.into_iter().for_each(|tag| assert_eq!(rig.take(tag), Some(Ok(Answer::Value(None)))));
    let last = rig.engine_micros();
    until(&mut rig, last + 40_000_000);
    let found = in_memory(&rig);
    assert!(found < TIMERS as usize / 2, "{found} timers are in memory");
    // Some of these are in files alone.
    let tags: Vec<u64> = (0..TIMERS).step_by(10).map(|n| tell(&mut rig, n, b"off")).collect();
    rig.settle();
    tags.into_iter().for_each(|tag| assert_eq!(rig.take(tag), Some(Ok(Answer::Value(None)))));
    drop(rig);
    let mut rig = Rig::start(&folder.0, &small(), apps);
    assert!(in_memory(&rig) < TIMERS as usize / 2);
    let rung = |rig: &mut Rig| {
        let all = (0..TIMERS).map(|n| crate::get(rig, table, &key(n)));
        let times = |value: Vec<u8>| gristmill_sdk::datatype::decode_u64(value.as_slice().try_into().unwrap());
        all.map(|value| value.map_or(0, times)).collect::<Vec<u64>>()
    };
    assert!(rung(&mut rig).iter().all(|times| *times == 0) || rig.engine_micros() > first + RING_MICROS);
    until(&mut rig, last + RING_MICROS + 20_000_000);
    let wanted: Vec<u64> = (0..TIMERS).map(|n| u64::from(n % 10 != 0)).collect();
    assert_eq!(rung(&mut rig), wanted);
    assert!((0..16).filter_map(|slot| rig.slot(SlotId(slot))).all(|slot| !slot.has_timers()));
}
