//! Inputs that wait in a shard stay within their bytes.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{SessionId, SessionKey, SlotId, TopicId};
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};

const FILE: &str = "
app: later
language: rust
topics: [{name: in, key: string, value: bytes, lanes: 1}]
tables:
  - name: boxes
    key: string
    handlers:
      - name: fail
        subscribe: [{name: in, topic: in}]
        retry: {attempts: 9, backoff: 10s, max: 10s}
";

fn fail(_input: &Input<'_>, _context: &mut Context<'_>) -> Result<Reply, Failure> {
    Err(Failure::new("not today"))
}

fn apps() -> Vec<App> {
    vec![App::new("later", FILE).each("boxes", "fail", fail)]
}

fn queued(rig: &Rig) -> usize {
    (0..16).filter_map(|slot| rig.slot(SlotId(slot))).map(|slot| slot.queued_bytes).sum()
}

#[test]
fn a_feed_with_large_events_behind_it_hands_over_no_more_than_may_wait() {
    let folder = Folder::new("crowd");
    let event = 100 << 10;
    let most = 1 << 20;
    let config = BootConfig { segment_bytes: 16 << 20, checkpoint_bytes: 1 << 30, ..config(1) };
    {
        let mut rig = Rig::start(&folder.0, &config, apps);
        let loaded = rig.json(Operation::AppLoad { text: FILE.as_bytes().into(), force: false, dry_run: false });
        let topic = TopicId(loaded["topics"][0]["id"].as_u64().expect("it has a number") as u32);
        let open = Operation::OpenSession { key: SessionKey::default() };
        let Ok(Answer::Session(session, _)) = rig.ask(0, SessionId(0), open) else { panic!("no session") };
        for seq in 1..=80 {
            let produce = Operation::Produce {
                topic,
                sequence: Sequence { seq, ack: seq - 1 },
                key: format!("box {seq}").into_bytes().as_slice().into(),
                value: vec![7; event].into(),
                headers: vec![],
                event_micros: 0,
            };
            assert!(rig.ask(0, session, produce).is_ok());
        }
        assert!(queued(&rig) > 60 * event, "all wait to be tried again");
    }
    let mut rig = Rig::start(&folder.0, &BootConfig { queued_bytes_max: most, ..config }, apps);
    let mut seen = 0;
    for _ in 0..200 {
        rig.step();
        seen = seen.max(queued(&rig));
    }
    assert!((most..most + 3 * event).contains(&seen), "{seen} bytes of inputs waited, {most} may");
}
