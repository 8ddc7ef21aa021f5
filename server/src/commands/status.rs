//! `gristmill status`: how the server is.

use super::connect::{Server, failed};
use super::output::{Columns, Format, Mood, Output, Printer, grouped};
use crate::exit::{Exit, Failed};
use serde_json::Value;

/// Arguments of `status`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// Prints the status.
///
/// # Errors
/// The server does not answer.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let text = arguments.server.connect()?.status().map_err(failed)?;
    let status: Value = serde_json::from_str(&text)
        .map_err(|error| Failed::new(Exit::Internal, format!("the server's status is no JSON: {error}")))?;
    let mut printer = Printer::new();
    if arguments.output.output == Format::Json {
        printer.json(&status)?;
        return printer.flush();
    }
    for line in for_people(&status, printer.has_colours()) {
        printer.line(&line)?;
    }
    printer.flush()
}

fn number(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_u64).map_or_else(|| "?".to_owned(), grouped)
}

/// The parts that matter most; `--output json` has all.
fn for_people(status: &Value, colours: bool) -> Vec<String> {
    let none = Vec::new();
    let shards = status["shards"].as_array().unwrap_or(&none);
    let mut lines = vec![
        format!(
            "unsettled {}   parked {}   damaged {}   shards {}   slots {}",
            number(status, "/unsettled"),
            number(status, "/parked"),
            number(status, "/damaged"),
            shards.len(),
            number(status, "/slot_count"),
        ),
        format!("apps      {}", apps(status)),
        String::new(),
    ];
    let mut columns = Columns::new(&[
        "shard",
        "core",
        "NUMA node",
        "pinned",
        "slots",
        "grains",
        "events",
        "inputs",
        "messages",
        "parked",
        "log",
        "durable",
        "runs",
    ]);
    for shard in shards {
        let pinned = match shard.pointer("/net/pinned").and_then(Value::as_u64) {
            Some(0) => "no",
            Some(_) => "yes",
            None => "?",
        };
        columns.row(vec![
            number(shard, "/shard"),
            number(shard, "/net/cpu"),
            number(shard, "/net/numa_node"),
            pinned.to_owned(),
            number(shard, "/slots"),
            number(shard, "/grains"),
            number(shard, "/unsettled/events"),
            number(shard, "/unsettled/inputs"),
            number(shard, "/unsettled/messages"),
            number(shard, "/parked"),
            log(shard),
            number(shard, "/log/durable"),
            number(shard, "/runs"),
        ]);
        columns.mood("log", mood_of(&log(shard)));
        if shard["parked"].as_u64() > Some(0) {
            columns.mood("parked", Mood::Odd);
        }
    }
    lines.extend(columns.lines_in(colours));
    lines.extend(shards.first().and_then(writing));
    lines.push(String::new());
    lines.extend(shards.iter().flat_map(failing_work));
    lines.extend(shards.iter().flat_map(damage));
    lines.push("events, inputs, messages: what is unsettled; durable: records of the log on disk".to_owned());
    lines
}

/// A line for each kind of background work that fails.
fn failing_work(shard: &Value) -> Vec<String> {
    let none = Vec::new();
    let failing = shard.pointer("/disk/failing").and_then(Value::as_array).unwrap_or(&none);
    let line = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap_or("?").to_owned();
        let (number, times) = (number(shard, "/shard"), number(entry, "/times"));
        format!("shard {number}: {} fails ({times} times, tried again): {}", text("work"), text("error"))
    };
    failing.iter().map(line).collect()
}

/// A line for each damaged piece of a file, and one for the subscriptions that wait before them.
fn damage(shard: &Value) -> Vec<String> {
    let none = Vec::new();
    let array = |path: &str| shard.pointer(path).and_then(Value::as_array).unwrap_or(&none);
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut lines: Vec<String> =
        array("/damaged/list").iter().map(|entry| format!("DAMAGED: {}", text(&entry["what"]))).collect();
    lines.extend(array("/damaged/groups").iter().map(|entry| format!("DAMAGED: {}", text(&entry["what"]))));
    let waiting: Vec<String> = array("/damaged/waiting").iter().map(text).collect();
    if !waiting.is_empty() {
        lines.push(format!("DAMAGED: these subscriptions get no more events of those lanes: {}", waiting.join(", ")));
    }
    lines
}

fn apps(status: &Value) -> String {
    let none = Vec::new();
    let apps = status["apps"].as_array().unwrap_or(&none);
    let names: Vec<&str> = apps.iter().filter_map(|app| app["name"].as_str()).collect();
    if names.is_empty() { "none is loaded".to_owned() } else { names.join(", ") }
}

/// How the logs write, the same for all shards.
fn writing(shard: &Value) -> Option<String> {
    let fact = |name: &str| shard["net"][name].as_u64();
    let writes = match fact("log_write_durable_bytes")? {
        u64::MAX => "a write and then a flush".to_owned(),
        bytes => format!("one durable write from {} bytes on, else a write and then a flush", grouped(bytes)),
    };
    let spacing = match fact("log_flush_spacing_micros")? {
        0 => String::new(),
        micros => format!(", {micros} us apart at least"),
    };
    let measured = match fact("log_calibrated_seconds")? {
        0 => "the disk was not measured (gristmill bench disk)",
        _ => "the disk was measured",
    };
    Some(format!("log writes: {writes}{spacing}; {measured}"))
}

/// How a log is: `ok`, or what is wrong.
pub(super) fn log(shard: &Value) -> String {
    match shard.pointer("/log/failed").and_then(Value::as_str) {
        Some(why) => format!("FAILED: {why}"),
        None if shard.pointer("/disk/full").and_then(Value::as_bool) == Some(true) => "DISK FULL".to_owned(),
        None if shard.pointer("/log/crowded").and_then(Value::as_bool) == Some(true) => "full".to_owned(),
        None => "ok".to_owned(),
    }
}

/// What the word of [`log`] tells.
pub(super) fn mood_of(log: &str) -> Mood {
    match log {
        "ok" => Mood::Good,
        "full" => Mood::Odd,
        _ => Mood::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_shard_has_a_line_with_its_core() {
        let status = json!({"unsettled": 12, "parked": 0, "slot_count": 256, "apps": [{"name": "word-count"}],
        "shards": [
            {"shard": 0, "slots": 128, "net": {"cpu": 3, "numa_node": 0, "pinned": 1}, "log": {"failed": null}},
            {"shard": 1, "slots": 128, "net": {"cpu": 5, "numa_node": 1, "pinned": 0}, "log": {"failed": "EIO"}},
            {"shard": 3, "log": {"failed": null}, "damaged": {"chunks": 1, "waiting": ["shop/lines"], "list": [
                {"what": "lanes/3-0.lane, bytes 0 to 99: events 1 to 9 are damaged"}]}},
            {"shard": 2, "log": {"failed": null}, "disk": {"full": true, "failing": [
                {"work": "log segment", "times": 7, "error": "no space left"}]}},
        ]});
        let lines = for_people(&status, false).join("\n");
        assert!(lines.contains("unsettled 12") && lines.contains("word-count"), "{lines}");
        assert!(lines.contains("FAILED: EIO"), "{lines}");
        assert!(lines.contains("DISK FULL"), "{lines}");
        assert!(lines.contains("DAMAGED: lanes/3-0.lane, bytes 0 to 99: events 1 to 9 are damaged"), "{lines}");
        assert!(lines.contains("no more events of those lanes: shop/lines"), "{lines}");
        assert!(lines.contains("shard 2: log segment fails (7 times, tried again): no space left"), "{lines}");
        let second = lines.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap();
        assert_eq!(second.split_whitespace().take(4).collect::<Vec<_>>(), ["1", "5", "1", "no"]);
    }
}
