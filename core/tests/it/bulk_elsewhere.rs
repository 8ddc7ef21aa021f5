//! Bulk that comes from another shard and whose handler fails: it waits, and counts as waiting.

use crate::rig::{Folder, Rig, config};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{LaneId, SlotId, TopicId};
use gristmill_base::limits::BULK_INPUTS_MAX;
use gristmill_base::placement::{lane_home, shard_of, slot_of};
use gristmill_core::request::{Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};

const FILE: &str = "
app: fails
language: rust
topics: [{name: in, key: string, value: json, lanes: 1}]
tables:
  - name: there
    key: string
    handlers:
      - name: fail
        subscribe: [{name: in, topic: in, key: to}]
        retry: {attempts: 5, backoff: 10s, max: 10s}
";
const SLOTS: u16 = 16;

fn fail(_input: &Input<'_>, _context: &mut Context<'_>) -> Result<Reply, Failure> {
    Err(Failure::new("not today"))
}

#[test]
fn bulk_that_waits_to_be_tried_again_holds_more_of_it_back() {
    let folder = Folder::new("bulk-elsewhere");
    let mut rig = Rig::start(&folder.0, &config(2), || vec![App::new("fails", FILE).each("there", "fail", fail)]);
    let loaded = rig.load(FILE);
    let topic = TopicId(loaded["topics"][0]["id"].as_u64().expect("it has a number") as u32);
    let here = shard_of(lane_home(topic, LaneId(0), 1, SLOTS), SLOTS, 2);
    let is_there = |slot: SlotId| shard_of(slot, SLOTS, 2) != here;
    let there = 1 - here.0;
    let (session, _) = rig.open_session();
    let mut keys = (0..).map(|n| format!("grain {n}")).filter(|key| is_there(slot_of(key.as_bytes(), SLOTS)));
    let waiting = |rig: &Rig| -> usize {
        let slots = (0..SLOTS).map(SlotId).filter(|slot| is_there(*slot));
        slots.filter_map(|slot| rig.slot(slot)).map(|slot| slot.bulk_waiting.inputs).sum()
    };
    let mut seq = 0;
    for _ in 0..400 {
        for _ in 0..rig.bulk_room(here.0).min(200) {
            seq += 1;
            let produce = Operation::Produce {
                topic,
                sequence: Sequence { seq, ack: seq - 1 },
                key: b"k"[..].into(),
                value: format!("{{\"to\": \"{}\"}}", keys.next().expect("there are keys enough")).into_bytes().into(),
                headers: vec![],
                event_micros: 0,
            };
            rig.send_of(InputClass::Bulk, here.0, session, produce);
        }
        rig.step();
        if waiting(&rig) >= BULK_INPUTS_MAX {
            rig.step();
            assert_eq!(rig.bulk_room(there), 0, "{} bulk inputs wait", waiting(&rig));
            return;
        }
    }
    panic!("only {} of {seq} bulk inputs wait", waiting(&rig));
}
