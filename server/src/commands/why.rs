//! `gristmill why`: why a key does not move, on one screen.

use super::connect::{Server, failed};
use super::output::{Format, Output, Printer, grouped};
use super::typed;
use crate::exit::{Exit, Failed};
use serde_json::{Value, json};

/// Arguments of `why`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The table.
    #[arg(value_name = "APP/TABLE")]
    table: String,
    /// Key of the grain.
    #[arg(allow_negative_numbers = true)]
    key: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// Asks, and prints the answer.
///
/// # Errors
/// The server does not answer; there is no such table; the key is not of its type.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut client = arguments.server.connect()?;
    let table = client.table(&arguments.table).map_err(failed)?;
    let key = typed::encode(&format!("the key of {}", arguments.table), table.key, &arguments.key)?;
    let text = client.why(&arguments.table, &key).map_err(failed)?;
    let found: Value = serde_json::from_str(&text)
        .map_err(|error| Failed::new(Exit::Internal, format!("the server's answer is no JSON: {error}")))?;
    let mut printer = Printer::new();
    if arguments.output.output == Format::Json {
        let mut line = json!({"table": arguments.table, "key": typed::to_json(table.key, &key)});
        if let (Some(line), Value::Object(found)) = (line.as_object_mut(), found) {
            line.extend(found);
        }
        printer.json(&line)?;
    } else {
        for line in screen(&arguments.table, &arguments.key, &found) {
            printer.line(&line)?;
        }
    }
    printer.flush()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// How long from one time to another, microseconds since 1970.
fn apart(from: u64, to: u64) -> String {
    let millis = to.saturating_sub(from) / 1_000;
    match millis {
        0..=9_999 => format!("{millis} ms"),
        10_000..=119_999 => format!("{} s", millis / 1_000),
        120_000..=7_199_999 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

/// The lines that a person sees. Times are by the server's clock, which is in the answer.
fn screen(table: &str, key: &str, found: &Value) -> Vec<String> {
    let now = found["now_micros"].as_u64().unwrap_or(0);
    let number = |value: &Value| grouped(value.as_u64().unwrap_or(0));
    let ago = |value: &Value| value.as_u64().map(|then| format!("{} ago", apart(then, now)));
    let mut lines = vec![
        format!("{table} {key}: {}", text(&found["state"])),
        format!("  because   {}", text(&found["because"])),
        format!("  next      {}", text(&found["next"])),
    ];
    let mut add = |name: &str, what: String| lines.push(format!("  {name:<9} {what}"));
    let in_files = match found["backlog_in_files"].as_u64().unwrap_or(0) {
        0 => String::new(),
        rows => format!(", {} of them in files alone", grouped(rows)),
    };
    add(
        "waiting",
        format!("{} inputs, {} of them in its backlog{in_files}", number(&found["queued"]), number(&found["backlog"])),
    );
    if let Some(since) = ago(&found["waiting_since_micros"]) {
        add("since", format!("nothing was handled since {since}"));
    }
    if let Some(first) = found["first"].as_str() {
        add("first", first.to_owned());
    }
    let parked = &found["parked"];
    if parked.is_object() {
        let since = ago(&parked["since_micros"]).unwrap_or_else(|| "?".to_owned());
        let failed = parked["failed"].as_str().map_or_else(String::new, |failed| format!("; failed: {failed}"));
        add("parked", format!("{since}, after {} attempts{failed}", number(&parked["attempts"])));
    }
    let failure = &found["failure"];
    if failure.is_object() {
        let at = ago(&failure["at_micros"]).unwrap_or_else(|| "?".to_owned());
        let attempts = number(&found["attempts"]);
        add("failed", format!("{at}, attempt {attempts}: {}: {}", text(&failure["kind"]), text(&failure["message"])));
    }
    if let Some(due) = found["next_try_micros"].as_u64() {
        add("next try", format!("in {}", apart(now, due)));
    }
    let deferred = &found["deferred"];
    if deferred.is_object() {
        let since = ago(&deferred["since_micros"]).unwrap_or_else(|| "?".to_owned());
        add("deferred", format!("{} times, first {since}", number(&deferred["count"])));
    }
    let running = &found["running"];
    if running.is_object() {
        let since = ago(&running["since_micros"]).map_or_else(String::new, |since| format!(", begun {since}"));
        add("running", format!("{} inputs{since}", number(&running["inputs"])));
    }
    let fed = found["subscriptions"].as_array().into_iter().flatten();
    let fed: Vec<String> = fed
        .map(|one| format!("{}{}", text(&one["name"]), if one["paused"] == true { " (paused)" } else { "" }))
        .collect();
    if !fed.is_empty() {
        add("fed by", fed.join(", "));
    }
    add(
        "around",
        format!(
            "slot {} on shard {}; {} inputs wait in the slot, {} messages are on their way to it from here",
            found["slot"],
            found["shard"],
            number(&found["slot_inputs"]),
            number(&found["messages_to_slot"])
        ),
    );
    if let Some(ssn) = found["last_write_ssn"].as_u64() {
        add("written", format!("its value, last by record {ssn} of the slot"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_key_on_one_screen() {
        let found = json!({
            "state": "parked", "because": "it is parked (broken): after 2 attempts: out of paper",
            "next": "gristmill parked show shop/stock a; then parked retry, parked edit or parked skip",
            "slot": 94, "shard": 1, "now_micros": 1_000_000_000, "queued": 1_203, "backlog": 1_200, "backlog_in_files": 900,
            "waiting_since_micros": 700_000_000, "first": "event:7:0:17", "last_write_ssn": 55, "slot_inputs": 1_300,
            "messages_to_slot": 4, "subscriptions": [{"name": "orders", "paused": false}, {"name": "b", "paused": true}],
            "parked": {"reason": "r", "attempts": 2, "since_micros": 880_000_000, "failed": "event:7:0:17"},
        });
        let lines = screen("shop/stock", "a", &found).join("\n");
        assert_eq!(
            lines,
            "shop/stock a: parked\n  \
             because   it is parked (broken): after 2 attempts: out of paper\n  \
             next      gristmill parked show shop/stock a; then parked retry, parked edit or parked skip\n  \
             waiting   1,203 inputs, 1,200 of them in its backlog, 900 of them in files alone\n  \
             since     nothing was handled since 5 min ago\n  \
             first     event:7:0:17\n  \
             parked    2 min ago, after 2 attempts; failed: event:7:0:17\n  \
             fed by    orders, b (paused)\n  \
             around    slot 94 on shard 1; 1,300 inputs wait in the slot, 4 messages are on their way to it from here\n  \
             written   its value, last by record 55 of the slot"
        );
    }

    #[test]
    fn a_key_that_is_tried_again_says_when() {
        let found = json!({
            "state": "retrying", "because": "b", "next": "n", "slot": 1, "shard": 0, "now_micros": 5_000_000, "queued": 1,
            "backlog": 0, "attempts": 3, "next_try_micros": 5_400_000, "slot_inputs": 1, "messages_to_slot": 0,
            "failure": {"kind": "failed", "message": "not now", "at_micros": 4_900_000}, "subscriptions": [],
            "deferred": {"count": 7, "since_micros": 1_000_000}, "running": {"inputs": 2, "since_micros": 4_000_000},
        });
        let lines = screen("a/b", "k", &found);
        assert!(lines.contains(&"  failed    100 ms ago, attempt 3: failed: not now".to_owned()), "{lines:?}");
        assert!(lines.contains(&"  next try  in 400 ms".to_owned()), "{lines:?}");
        assert!(lines.contains(&"  deferred  7 times, first 4000 ms ago".to_owned()), "{lines:?}");
        assert!(lines.contains(&"  running   2 inputs, begun 1000 ms ago".to_owned()), "{lines:?}");
    }
}
