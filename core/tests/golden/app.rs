//! The app of the golden data directory: its handlers must go on doing what they did when the directory was made.

use gristmill_sdk::datatype::{decode_u64, encode_u64};
use gristmill_sdk::{App, Context, Failure, Input, Reply, Results};

pub(crate) const FILE: &str = "
app: golden
language: rust
topics:
  - {name: lines, key: string, value: string, lanes: 4}
  - {name: orders, key: string, value: string, lanes: 2}
tables:
  - name: splitter
    key: string
    handlers:
      - name: split
        subscribe: [{name: lines, topic: lines}]
  - name: letters
    key: string
    maps: [{id: 0, name: counts, key: string, value: u64}]
    handlers: [{name: add}]
  - name: kv
    key: string
    value: bytes
  - name: counter
    key: string
    value: u64
    handlers: [{name: count}, {name: alarm}]
  - name: picky
    key: string
    value: u64
    handlers:
      - name: take
        subscribe: [{name: orders, topic: orders}]
        on_exhausted: park
";

fn split(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    for input in inputs {
        let text = std::str::from_utf8(input.payload).map_err(|_| Failure::new("no text"))?;
        for word in text.split(' ') {
            context.invoke("letters", &word.as_bytes()[..1], "add", word)?;
        }
    }
    Ok(Vec::new())
}

fn add(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let count = context.map_get_u64("counts", input.payload)?;
    context.map_put_u64("counts", input.payload, count + 1)?;
    Ok(Reply::none())
}

fn counted(context: &mut Context<'_>) -> Result<u64, Failure> {
    let old = context.value()?.map_or(0, |bytes| decode_u64(bytes.try_into().unwrap_or_default()));
    context.set_value(encode_u64(old + 1));
    Ok(old + 1)
}

fn count(_: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    Ok(Reply::value(encode_u64(counted(context)?)))
}

/// Sets a timer so many microseconds from now, which counts.
fn alarm(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let wait = decode_u64(input.payload.try_into().map_err(|_| Failure::new("no u64"))?);
    let due = context.now_micros() + wait;
    context.set_timer(&format!("in {wait}"), due, "count", "")?;
    Ok(Reply::none())
}

/// Refuses some, which parks the grain.
fn take(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload == b"bad" {
        return Err(Failure::new("bad order"));
    }
    counted(context)?;
    Ok(Reply::none())
}

pub(crate) fn apps() -> Vec<App> {
    vec![
        App::new("golden", FILE)
            .several("splitter", "split", split)
            .each("letters", "add", add)
            .each("counter", "count", count)
            .each("counter", "alarm", alarm)
            .each("picky", "take", take),
    ]
}
