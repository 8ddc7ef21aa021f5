//! Decisions about parked grains whose first input is a timer, whose handler names no dead-letter topic: it is shown, given up
//! only when told, once, and what comes later is handled.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, SessionId, TableId};
use gristmill_core::request::{Answer, Code, Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};

const FILE: &str = "
app: clocks
language: rust
tables:
  - name: clocks
    key: string
    value: bytes
    handlers: [{name: wind}, {name: ring}]
";

fn wind(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_timer("bell", context.now_micros() + 1_000, "ring", input.payload.to_vec())?;
    Ok(Reply::none())
}

fn ring(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload == b"broken" {
        return Err(Failure::new("the bell is broken"));
    }
    context.set_value(input.payload.to_vec());
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    vec![App::new("clocks", FILE).each("clocks", "wind", wind).each("clocks", "ring", ring)]
}

/// A rig with one session, whose operations all concern one key.
struct World {
    rig: Rig,
    session: SessionId,
    table: TableId,
    wind: HandlerId,
    seq: u64,
}

impl World {
    fn next(&mut self) -> Sequence {
        self.seq += 1;
        Sequence { seq: self.seq, ack: self.seq - 1 }
    }

    fn wind(&mut self, payload: &[u8]) -> Result<Answer, Code> {
        let (table, handler, sequence, payload) = (self.table, self.wind, self.next(), payload.into());
        self.ask(Operation::Invoke { table, handler, sequence, key: b"a"[..].into(), payload })
    }

    fn skip(&mut self, sequence: Sequence, drop: bool) -> Result<Answer, Code> {
        self.ask(Operation::Skip {
            table: self.table,
            sequence,
            key: b"a"[..].into(),
            drop,
            retry: false,
            expect: "".into(),
        })
    }

    fn retry(&mut self) -> Result<Answer, Code> {
        let sequence = self.next();
        self.ask(Operation::Retry { table: self.table, sequence, key: b"a"[..].into() })
    }

    fn show(&mut self) -> Result<Answer, Code> {
        self.ask(Operation::ShowParked { table: self.table, key: b"a"[..].into(), limit: 9 })
    }

    fn ask(&mut self, operation: Operation) -> Result<Answer, Code> {
        let answer = self.rig.ask(0, self.session, operation).map_err(|refusal| refusal.code);
        self.rig.pass(10_000_000);
        self.rig.settle();
        answer
    }
}

#[test]
fn a_timer_that_fails_for_good_is_given_up_once_and_only_when_told() {
    let folder = Folder::new("parked");
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let loaded = rig.load(FILE);
    let table = TableId(loaded["tables"][0]["id"].as_u64().unwrap() as u32);
    let wind = HandlerId(loaded["tables"][0]["handlers"][0]["id"].as_u64().unwrap() as u32);
    let (session, _) = rig.open_session();
    let mut world = World { rig, session, table, wind, seq: 0 };

    assert_eq!(world.retry(), Err(Code::NotThere), "nothing is parked yet");
    assert_eq!(world.show(), Err(Code::NotThere));
    assert_eq!(world.wind(b"broken"), Ok(Answer::Value(None)));
    assert_eq!(world.wind(b"fine"), Err(Code::Parked));
    let Ok(Answer::Json(text)) = world.show() else { panic!("it is parked") };
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&shown["waiting"], &shown["attempts"]), (&1.into(), &1.into()), "{shown}");
    let input = &shown["inputs"][0];
    let found = ["cause", "timer", "handler", "payload"].map(|name| input[name].as_str().unwrap());
    assert_eq!(found, ["timer", "bell", "ring", "broken"]);

    let sequence = world.next();
    assert_eq!(world.skip(sequence, false), Err(Code::BadRequest), "no dead-letter topic");
    assert_eq!(world.retry(), Ok(Answer::Done));
    let Ok(Answer::Json(text)) = world.show() else { panic!("it is parked again: {text}") };
    assert!(text.contains("\"waiting\":1"), "{text}");
    let sequence = world.next();
    assert_eq!(world.skip(sequence, true), Ok(Answer::Done));
    assert_eq!(world.skip(sequence, true), Ok(Answer::Done), "the same operation again has the same answer");
    let Ok(Answer::Json(text)) = world.show() else { panic!("it stays parked") };
    assert!(text.contains("\"waiting\":0") && text.contains("\"attempts\":0"), "{text}");
    let sequence = world.next();
    assert_eq!(world.skip(sequence, true), Err(Code::NotThere), "nothing waits");

    // What was decided is there after a restart: the timer is gone, and the grain parked until it is let go.
    drop(world.rig);
    world.rig = Rig::start(&folder.0, &config(1), apps);
    world.rig.settle();
    assert_eq!(world.wind(b"fine"), Err(Code::Parked));
    assert_eq!(world.retry(), Ok(Answer::Done));
    assert_eq!(world.wind(b"fine"), Ok(Answer::Value(None)));
    assert_eq!(crate::get(&mut world.rig, table, "a").as_deref(), Some(&b"fine"[..]));
    assert!(
        (0..16)
            .filter_map(|slot| world.rig.slot(gristmill_base::ids::SlotId(slot)))
            .all(|slot| slot.parked_grains == 0)
    );
}
