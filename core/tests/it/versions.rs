//! Versions of an app as inputs: each is heard of once, whatever ends in between, and who is deleted hears of nothing.

use crate::rig::{Folder, Rig, config};
use gristmill_base::datatype::encode_u64;
use gristmill_base::ids::{SessionId, SlotId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_core::request::{Answer, Operation};
use gristmill_sdk::{App, Cause, Context, Failure, Input, Reply};
use gristmill_state::input::StreamId;

/// An app whose two handlers hear of versions in one grain; `more` makes another version.
fn file(more: &str) -> String {
    format!(
        "app: told\nlanguage: rust\nconfig: {{more: {more}}}\ntables:\n  - name: notes\n    key: u64\n    value: string\n    handlers:\n\
         \x20     - {{name: hear, control: {{key: \"7\"}}}}\n      - {{name: listen, control: {{key: \"7\"}}}}\n"
    )
}

/// Puts what it hears of behind what there is.
fn note(name: &str, input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Control { version, from, rolled_back } = input.cause else { return Err(Failure::new("no version")) };
    let mut value = context.value()?.unwrap_or_default();
    value.extend_from_slice(format!("{name} {from}-{version}{} ", if rolled_back { "<" } else { "" }).as_bytes());
    context.set_value(value);
    Ok(Reply::none())
}

fn hear(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    note("h", input, context)
}

fn listen(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    note("l", input, context)
}

fn apps() -> Vec<App> {
    vec![App::new("told", "").each("notes", "hear", hear).each("notes", "listen", listen)]
}

fn load(rig: &mut Rig, file: &str) -> TableId {
    let loaded = rig.load(file);
    rig.pass(2_000_000);
    TableId(loaded["tables"][0]["id"].as_u64().unwrap() as u32)
}

/// What the handlers have noted, in order of their notes.
fn heard(rig: &mut Rig, table: TableId) -> Vec<String> {
    let get = Operation::Get { table, key: encode_u64(7).as_slice().into() };
    let Ok(Answer::Value(value)) = rig.ask(1, SessionId(0), get) else { panic!("a value") };
    let text = String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
    let mut notes: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    notes.sort_unstable();
    notes
}

fn streams(rig: &Rig) -> usize {
    let of_versions = |slot: u16| {
        let slot = rig.slot(SlotId(slot)).expect("a slot of one of the shards");
        slot.streams().iter().filter(|(id, _)| matches!(id, StreamId::Control { .. })).count()
    };
    (0..16).map(of_versions).sum()
}

#[test]
fn each_handler_hears_of_each_version_once_over_restarts() {
    let folder = Folder::new("told");
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let table = load(&mut rig, &file("one"));
    assert_eq!(heard(&mut rig, table).join(" "), "0-1 0-1 h l");
    load(&mut rig, &file("two"));
    drop(rig);
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    rig.pass(2_000_000);
    // The first one's text again, which is a roll back whoever loads it; and the same text changes nothing.
    load(&mut rig, &file("one"));
    load(&mut rig, &file("one"));
    let all = ["0-1", "0-1", "1-2", "1-2", "2-3<", "2-3<", "h", "h", "h", "l", "l", "l"];
    assert_eq!(heard(&mut rig, table), all);
    assert_eq!(streams(&rig), 2);
    let slot = slot_of(&encode_u64(7), 16);
    let noted = rig.slot(slot).unwrap().sources_of(table).map(|source| format!("{source:?}")).collect::<Vec<_>>();
    assert_eq!(noted, ["Control"], "what no event brings again is known to replays");
    rig.json(Operation::AppDelete { name: "told".to_owned() });
    rig.pass(2_000_000);
    assert_eq!(streams(&rig), 0, "a deleted app takes its streams along");
    let table = load(&mut rig, &file("one"));
    assert_eq!(heard(&mut rig, table).join(" "), "0-1 0-1 h l", "an app that is loaded anew begins anew");
}

#[test]
fn a_key_that_is_none_is_refused_with_its_place() {
    let folder = Folder::new("told-key");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let text = file("one").replace("\"7\"", "seven");
    let tag =
        rig.send(0, SessionId(0), Operation::AppLoad { text: text.as_bytes().into(), force: false, dry_run: false });
    rig.settle_reply(tag);
    let refusal = rig.take(tag).expect("it is answered").unwrap_err();
    assert!(
        refusal.message.contains("control.key") && refusal.message.contains("no key of table notes"),
        "{refusal:?}"
    );
}
