//! What a trace hears of a shard's turns.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::TableId;
use gristmill_core::request::{Operation, Sequence};
use gristmill_sdk::App;

const FILE: &str = "
app: values
language: rust
tables: [{name: values, key: string, value: string}]
";

#[test]
fn each_reply_that_begins_to_wait_is_told_in_its_turn_also_in_a_second_trace() {
    let folder = Folder::new("traced");
    let mut rig = Rig::start(&folder.0, &config(1), || vec![App::new("values", FILE)]);
    let loaded = rig.load(FILE);
    let table = TableId(loaded["tables"][0]["id"].as_u64().expect("it has a number") as u32);
    let (session, _) = rig.open_session();
    let mut seq = 0;
    let mut put = |rig: &mut Rig| {
        seq += 1;
        let sequence = Sequence { seq, ack: 0 };
        rig.send(
            0,
            session,
            Operation::Put { table, sequence, key: b"k".as_slice().into(), value: b"v".as_slice().into() },
        )
    };
    for round in 0..2 {
        rig.settle();
        // Before the trace began: nothing of it.
        put(&mut rig);
        rig.step();
        rig.set_traced(true);
        let mut sent = Vec::new();
        for count in [3, 1, 0, 2] {
            sent.extend((0..count).map(|_| put(&mut rig)));
            rig.step();
        }
        assert_eq!(rig.take_traced(), sent, "round {round}");
        rig.set_traced(false);
        rig.step();
    }
}
