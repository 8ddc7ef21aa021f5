//! `gristmill topic skipped`: what hard retention took before subscriptions of a topic had got it.

use super::app::cell;
use super::connect::failed;
use super::output::{Columns, Format, Printer};
use crate::exit::{Exit, Failed};
use gristmill_client::Client;
use serde_json::Value;

/// Prints what subscriptions of a topic have skipped, by lane and slot.
///
/// # Errors
/// The server does not answer; there is no such topic.
pub(super) fn run(client: &mut Client, topic: &str, format: Format) -> Result<(), Failed> {
    // So that a topic that is not there is told from one of which nothing was skipped.
    client.offsets(topic, None).map_err(failed)?;
    let text = client.status().map_err(failed)?;
    let status: Value = serde_json::from_str(&text)
        .map_err(|error| Failed::new(Exit::Internal, format!("the server's status is no JSON: {error}")))?;
    let mut printer = Printer::new();
    let mut columns = Columns::new(&["subscription", "lane", "slot", "offsets", "all", "newest ranges"]);
    for row in of_topic(&status, topic) {
        if format == Format::Json {
            printer.json(row)?;
            continue;
        }
        let number = |name: &str| row[name].to_string();
        columns.row(vec![
            cell(row, "subscription"),
            number("lane"),
            number("slot"),
            number("positions"),
            number("count"),
            ranges(row),
        ]);
    }
    if format != Format::Json {
        printer.table(&columns)?;
    }
    printer.flush()
}

fn of_topic<'a>(status: &'a Value, topic: &'a str) -> impl Iterator<Item = &'a Value> {
    let shards = status["shards"].as_array().into_iter().flatten();
    let all = shards.filter_map(|shard| shard.pointer("/skipped/list")?.as_array()).flatten();
    all.filter(move |row| row["topic"] == topic)
}

fn ranges(row: &Value) -> String {
    let range = |range: &Value| format!("{}-{}", range[0], range[1]);
    let shown: Vec<String> = row["ranges"].as_array().into_iter().flatten().map(range).collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_of_a_topic_are_found_in_all_shards() {
        let row = |topic: &str, slot: u16| json!({"topic": topic, "slot": slot, "ranges": [[3, 9], [12, 12]]});
        let shard = |list: Value| json!({"skipped": {"list": list}});
        let status =
            json!({"shards": [shard(json!([row("a/t", 1), row("a/u", 2)])), {}, shard(json!([row("a/t", 3)]))]});
        let found: Vec<&Value> = of_topic(&status, "a/t").collect();
        assert_eq!(found.iter().map(|row| row["slot"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(3)]);
        assert_eq!(ranges(found[0]), "3-9 12-12");
    }
}
