//! The class of an input goes on to everything that it causes, through messages, events and restarts.

use crate::rig::{Folder, Rig, config};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{LaneKey, SlotId, TopicId};
use gristmill_core::request::{Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use gristmill_state::lane::{EntryRead, LaneEntry};

const FILE: &str = "
app: chain
language: rust
topics:
  - {name: in, key: string, value: string, lanes: 1}
  - {name: out, key: string, value: string, lanes: 1}
tables:
  - name: first
    key: string
    handlers:
      - name: pass
        subscribe: [{name: in, topic: in}]
  - name: second
    key: string
    handlers: [{name: pass}]
";

/// To another grain, whose run appends.
fn first(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.invoke("second", b"far away".to_vec(), "pass", input.payload)?;
    Ok(Reply::none())
}

fn second(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.append("out", input.payload.to_vec(), input.payload)?;
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    vec![App::new("chain", FILE).each("first", "pass", first).each("second", "pass", second)]
}

/// Classes of the events of a topic with one lane, by their values.
fn classes(rig: &Rig, topic: u32) -> Vec<(String, InputClass)> {
    let lane = LaneKey { topic: TopicId(topic), lane: gristmill_base::ids::LaneId(0) };
    let slot = (0..16).find_map(|slot| rig.slot(SlotId(slot)).filter(|slot| slot.lanes.contains_key(&lane)));
    let lane = &slot.expect("the lane has a home").lanes[&lane];
    let mut found = Vec::new();
    for offset in 1..=lane.end().0 {
        let entry = lane.entry(gristmill_base::ids::Offset(offset));
        let EntryRead::Ready(LaneEntry::Event(event)) = entry else { panic!("it is in memory") };
        found.push((String::from_utf8(event.event.value.to_vec()).unwrap(), event.event.class));
    }
    found.sort();
    found
}

#[test]
fn what_a_bulk_event_causes_is_bulk() {
    let folder = Folder::new("class");
    let expected = vec![("bulk".to_owned(), InputClass::Bulk), ("live".to_owned(), InputClass::Live)];
    let ids: Vec<u32>;
    {
        let mut rig = Rig::start(&folder.0, &config(2), apps);
        let loaded = rig.load(FILE);
        ids = loaded["topics"].as_array().unwrap().iter().map(|it| it["id"].as_u64().unwrap() as u32).collect();
        let (session, _) = rig.open_session();
        for (seq, (value, class)) in expected.iter().enumerate() {
            let operation = Operation::Produce {
                topic: TopicId(ids[0]),
                sequence: Sequence { seq: seq as u64 + 1, ack: seq as u64 },
                key: b"k"[..].into(),
                value: value.as_bytes().into(),
                headers: vec![],
                event_micros: 0,
            };
            let tag = rig.send_of(*class, seq as u16, session, operation);
            rig.settle_reply(tag);
            rig.settle();
        }
        assert_eq!(classes(&rig, ids[0]), expected);
        assert_eq!(classes(&rig, ids[1]), expected);
    }
    let rig = Rig::start(&folder.0, &config(2), apps);
    assert_eq!(classes(&rig, ids[0]), expected, "after a restart");
    assert_eq!(classes(&rig, ids[1]), expected, "after a restart");
}
