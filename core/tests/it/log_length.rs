//! Writers yield where checkpoints do not keep pace with them, and nobody else does.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, SessionId, SlotId, TableId};
use gristmill_base::limits::LOG_YIELD_PERIOD_NANOS;
use gristmill_base::placement::slot_of;
use gristmill_core::request::{Answer, Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::BTreeMap;

const FILE: &str = "
app: notes
language: rust
tables:
  - {name: notes, key: string, value: string, handlers: [{name: note}]}
";
/// Bytes of a segment of the log.
const SEGMENT: u64 = 512 << 10;

fn note(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_value(input.payload.to_vec());
    Ok(Reply::none())
}

struct Client {
    rig: Rig,
    session: SessionId,
    table: TableId,
    handler: HandlerId,
    next: BTreeMap<SlotId, u64>,
    due: u64,
    _folder: Folder,
}

impl Client {
    fn new(name: &str) -> Self {
        let (folder, config) = (Folder::new(name), config(1));
        let apps = || vec![App::new("notes", FILE).each("notes", "note", note)];
        let mut rig = Rig::start(&folder.0, &config, apps);
        let loaded = rig.load(FILE);
        let id = |value: &serde_json::Value| value["id"].as_u64().expect("it has a number") as u32;
        let table = &loaded["tables"][0];
        let (handler, table) = (HandlerId(id(&table["handlers"][0])), TableId(id(table)));
        let (session, _) = rig.open_session();
        let due = config.checkpoint_bytes.max(2 * SEGMENT);
        Self { rig, session, table, handler, next: BTreeMap::new(), due, _folder: folder }
    }

    fn sequence(&mut self, key: &str) -> Sequence {
        let seq = self.next.entry(slot_of(key.as_bytes(), 16)).or_default();
        *seq += 1;
        Sequence { seq: *seq, ack: 0 }
    }

    fn put(&mut self, key: &str) -> Result<Answer, gristmill_core::request::Refusal> {
        let (table, sequence) = (self.table, self.sequence(key));
        let (key, value) = (key.as_bytes().into(), vec![b'v'; 4 << 10].into());
        self.rig.ask(0, self.session, Operation::Put { table, sequence, key, value })
    }

    fn kept(&mut self) -> u64 {
        let kept = self.rig.measure(0).gauges.iter().find(|(name, _)| *name == "log_kept_bytes").map(|(_, kept)| *kept);
        kept.expect("it is measured")
    }

    /// Puts, each at a time at which doors let it through, until the log has so many bytes.
    fn fill(&mut self, bytes: u64) {
        for n in 0.. {
            if self.kept() >= bytes {
                return;
            }
            while self.rig.writes_wait(0) > 0 {
                self.rig.step();
            }
            self.put(&format!("{}", n % 40)).expect("it is written");
        }
    }

    /// Puts as often as doors let one through, for so many periods.
    fn puts_in(&mut self, periods: u64) -> u64 {
        let until = self.rig.now_nanos() + periods * LOG_YIELD_PERIOD_NANOS;
        let mut puts = 0;
        while self.rig.now_nanos() < until {
            if self.rig.writes_wait(0) > 0 {
                self.rig.step();
                continue;
            }
            self.put(&format!("{}", puts % 40)).expect("it is written");
            puts += 1;
        }
        puts
    }
}

#[test]
fn who_writes_yields_while_checkpoints_cannot_keep_pace() {
    let mut client = Client::new("log-length");
    client.rig.idle = true;
    let all = client.puts_in(1);
    assert!(client.kept() < client.due, "{} bytes", client.kept());
    client.fill(4 * client.due);
    let some = client.puts_in(20);
    assert!((1..=all * 8).contains(&some), "{some} in 20 periods, {all} in one before");
    // Runs wait as well, whoever has let their inputs in; reads do not.
    while client.rig.writes_wait(0) < LOG_YIELD_PERIOD_NANOS / 2 {
        client.put("1").expect("it is written");
    }
    let (table, handler, sequence) = (client.table, client.handler, Sequence { seq: 1, ack: 0 });
    let (session, _) = client.rig.open_session();
    let invoke = Operation::Invoke { table, handler, sequence, key: b"1"[..].into(), payload: b"late"[..].into() };
    assert!(client.rig.writes_wait(0) > 0);
    let refused = client.rig.ask(0, session, invoke);
    let refused = refused.expect_err("it cannot have come through a door of this shard");
    assert!(refused.message.contains("send it again"), "{refused:?}");
    let get = Operation::Get { table, key: b"1"[..].into() };
    assert!(client.rig.writes_wait(0) > 0);
    assert!(matches!(client.rig.ask(0, client.session, get), Ok(Answer::Value(Some(_)))));
    // The checkpoint goes on, and everything is as it was.
    client.rig.idle = false;
    client.rig.settle();
    assert!(client.kept() <= client.due + SEGMENT, "{} bytes", client.kept());
    assert_eq!(client.puts_in(1), all);
}

#[test]
fn nobody_yields_to_checkpoints_that_fail() {
    let mut client = Client::new("log-length-broken");
    let all = client.puts_in(1);
    client.rig.idle = true;
    client.fill(3 * client.due);
    assert!(client.puts_in(10) < 4 * all);
    (client.rig.idle, client.rig.broken) = (false, true);
    for _ in 0..3 {
        client.rig.step();
    }
    assert_eq!(client.puts_in(1), all, "it would free nothing");
    client.rig.broken = false;
    client.rig.pass(20_000_000_000);
    client.rig.settle();
    assert!(client.kept() <= client.due + SEGMENT, "{} bytes", client.kept());
}
