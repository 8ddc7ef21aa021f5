//! `gristmill app replay`: tables built anew from their topics, while the present ones serve.

use super::app::{cell, report};
use super::connect::{Server, failed};
use super::output::{Format, Printer};
use super::parked::now_micros;
use super::topic::When;
use crate::exit::{Exit, Failed};
use gristmill_client::Client;
use gristmill_client::wire::ReplayFrom;
use serde_json::Value;
use std::time::Duration;

/// Time between two looks at a replay.
const LOOK: Duration = Duration::from_millis(250);
/// Time between two lines that tell how far it is.
const TELL: Duration = Duration::from_secs(1);

/// Arguments of `app replay`.
#[derive(clap::Args)]
pub(super) struct Replay {
    /// Tables that are built anew together, as APP/TABLE, all of one app. With --status or --cancel: the app.
    #[arg(value_name = "APP/TABLE")]
    tables: Vec<String>,
    /// With which events: `beginning` (the first ones that are kept), an offset, which is that of every lane, or since when they
    /// were appended: so long ago, such as 15m, 2h or 7d, or microseconds since 1970 with `us` behind.
    #[arg(long, value_name = "beginning|OFFSET|TIME", value_parser = parse_from, required_unless_present_any = ["status", "cancel"],
          conflicts_with_all = ["status", "cancel"])]
    from: Option<From>,
    /// Say that it has begun, and do not wait for its end.
    #[arg(long)]
    detach: bool,
    /// Tell which replays are under way, how far they are, and which have ended since the server started.
    #[arg(long, conflicts_with = "cancel")]
    status: bool,
    /// Give up the replay of the app. Not possible any more once slots switch.
    #[arg(long)]
    cancel: bool,
}

/// Where a replay begins, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Wire(ReplayFrom),
    Ago(When),
}

fn parse_from(text: &str) -> Result<From, String> {
    let allowed = || "allowed are beginning, an offset, a time ago such as 15m, 2h or 7d, or microseconds since 1970 as 1767225600000000us";
    if text == "beginning" {
        return Ok(From::Wire(ReplayFrom::Beginning));
    }
    if let Ok(offset) = text.parse() {
        return Ok(From::Wire(ReplayFrom::Offset(offset)));
    }
    if let Some(micros) = text.strip_suffix("us") {
        return micros.parse().map(|micros| From::Wire(ReplayFrom::Time(micros))).map_err(|_| allowed().to_owned());
    }
    When::parse(text).map(From::Ago).map_err(|_| allowed().to_owned())
}

impl From {
    fn wire(self) -> ReplayFrom {
        match self {
            Self::Wire(from) => from,
            Self::Ago(when) => {
                let now = i64::try_from(now_micros()).unwrap_or(i64::MAX);
                ReplayFrom::Time(u64::try_from(when.micros(now)).unwrap_or(0))
            }
        }
    }
}

/// Does it.
///
/// # Errors
/// The server does not answer, or refuses; the replay was given up.
pub(super) fn run(replay: &Replay, server: &Server, format: Format) -> Result<(), Failed> {
    let usage = |text: String| Failed::new(Exit::Usage, text);
    if replay.status {
        let app = replay.tables.first().map_or("", |name| name.split('/').next().unwrap_or_default());
        return status(&mut server.connect()?, app, format);
    }
    let mut app: Option<&str> = None;
    let mut tables = Vec::new();
    for name in &replay.tables {
        let (of, table) = name.split_once('/').unwrap_or((name, ""));
        if app.is_some_and(|app| app != of) {
            return Err(usage(format!(
                "{name} is of another app than {}; tables of one app are replayed together",
                replay.tables[0]
            )));
        }
        app = Some(of);
        if !replay.cancel && table.is_empty() {
            return Err(usage(format!("{name} names no table; allowed: APP/TABLE")));
        }
        tables.push(table.to_owned());
    }
    let app =
        app.ok_or_else(|| usage("it is not said of which app; allowed: APP/TABLE, or APP with --cancel".to_owned()))?;
    let mut client = server.connect()?;
    if replay.cancel {
        let reply = client.app_replay_cancel(app).map_err(failed)?;
        return report(format, &reply, &format!("the replay of app {app} is given up; its tables serve as before"));
    }
    let from = replay.from.map_or(ReplayFrom::Beginning, From::wire);
    let reply = client.app_replay(app, &tables, from).map_err(failed)?;
    if replay.detach {
        let told = format!(
            "{} of app {app} are built anew; `gristmill app replay {app} --status` tells how far",
            tables.join(", ")
        );
        return report(format, &reply, &told);
    }
    let id = json(&reply)?["id"].clone();
    follow(&mut client, app, &id, format)
}

fn json(reply: &str) -> Result<Value, Failed> {
    let wrong = |error| Failed::new(Exit::Internal, format!("the server's answer is no JSON ({error}): {reply}"));
    serde_json::from_str(reply).map_err(wrong)
}

/// Tells how far a replay is until it has ended.
fn follow(client: &mut Client, app: &str, id: &Value, format: Format) -> Result<(), Failed> {
    let began = now_micros();
    let since = |micros: u64| Duration::from_micros(now_micros().saturating_sub(micros));
    let (mut told, mut first) = (None::<u64>, None::<u64>);
    loop {
        let all = json(&client.app_replays(app).map_err(failed)?)?;
        let of = |list: &str| all[list].as_array().and_then(|list| list.iter().find(|it| it["id"] == *id).cloned());
        let Some(now) = of("replays") else {
            let ended = of("ended");
            let how = ended.as_ref().map_or_else(|| "unknown".to_owned(), |ended| cell(ended, "how"));
            if how != "done" {
                // The server has started again since: the names tell.
                return Err(Failed::new(Exit::No, format!("the replay has ended: {how}")));
            }
            let reply = ended.unwrap_or_default().to_string();
            return report(
                format,
                &reply,
                &format!("done in {:.1} s: the new tables serve", since(began).as_secs_f64()),
            );
        };
        let done = now["events"]["done"].as_u64().unwrap_or(0);
        let first = *first.get_or_insert(done);
        if told.is_none_or(|told| since(told) >= TELL) {
            told = Some(now_micros());
            let mut printer = Printer::new();
            if format == Format::Json {
                printer.json(&now)?;
            } else {
                printer.line(&line(&now, rate(done - first.min(done), since(began))))?;
            }
            printer.flush()?;
        }
        std::thread::sleep(LOOK);
    }
}

/// Events in a second, if that can be told.
fn rate(events: u64, time: Duration) -> Option<f64> {
    (events > 0 && time > Duration::ZERO).then(|| events as f64 / time.as_secs_f64())
}

/// How far a replay is, and how long it still takes at that pace.
fn line(replay: &Value, rate: Option<f64>) -> String {
    let tables: Vec<&str> = replay["tables"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let head = format!("{} of {}: {}", tables.join(", "), cell(replay, "app"), cell(replay, "phase"));
    let (Some(done), Some(total)) = (replay["events"]["done"].as_u64(), replay["events"]["total"].as_u64()) else {
        return head;
    };
    let percent = if total == 0 { 100.0 } else { 100.0 * done as f64 / total as f64 };
    let pace = rate.map_or_else(String::new, |rate| {
        format!(", {rate:.0} events/s, {:.0} s to go", total.saturating_sub(done) as f64 / rate)
    });
    let parked = replay["parked"].as_u64().filter(|parked| *parked > 0);
    let parked = parked.map_or_else(String::new, |many| format!(", waits for {many} parked grains"));
    let slots = &replay["slots"];
    let switched = slots["switched"].as_u64().filter(|switched| *switched > 0);
    let switched = switched.map_or_else(String::new, |switched| {
        format!(
            ", {switched} of {} slots have switched, {} inputs to finish",
            cell(slots, "total"),
            cell(replay, "unfinished")
        )
    });
    format!("{head}, {done} of {total} events ({percent:.1} %){pace}{switched}{parked}")
}

fn status(client: &mut Client, app: &str, format: Format) -> Result<(), Failed> {
    let reply = client.app_replays(app).map_err(failed)?;
    let all = json(&reply)?;
    let mut printer = Printer::new();
    if format == Format::Json {
        printer.line(&reply)?;
        return printer.flush();
    }
    let now = all["now_micros"].as_u64().unwrap_or(0);
    for replay in all["replays"].as_array().into_iter().flatten() {
        let time = Duration::from_micros(now.saturating_sub(replay["began_micros"].as_u64().unwrap_or(now)));
        printer.line(&line(replay, rate(replay["events"]["done"].as_u64().unwrap_or(0), time)))?;
    }
    for ended in all["ended"].as_array().into_iter().flatten() {
        let tables: Vec<&str> = ended["tables"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        printer.line(&format!("{} of {}: ended: {}", tables.join(", "), cell(ended, "app"), cell(ended, "how")))?;
    }
    printer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn beginnings_are_words_offsets_and_times() {
        assert_eq!(parse_from("beginning"), Ok(From::Wire(ReplayFrom::Beginning)));
        assert_eq!(parse_from("300"), Ok(From::Wire(ReplayFrom::Offset(300))));
        assert_eq!(parse_from("1767225600000000us"), Ok(From::Wire(ReplayFrom::Time(1_767_225_600_000_000))));
        assert!(matches!(parse_from("2h"), Ok(From::Ago(_))));
        for wrong in ["", "begin", "3w", "-1", "us"] {
            assert!(parse_from(wrong).unwrap_err().starts_with("allowed are"), "{wrong}");
        }
    }

    #[test]
    fn a_line_says_how_far_and_how_long() {
        let replay = json!({"app": "a", "tables": ["t", "u"], "phase": "building", "events": {"done": 30, "total": 90},
                            "slots": {"switched": 0, "total": 16}, "parked": 2});
        assert_eq!(
            line(&replay, Some(10.0)),
            "t, u of a: building, 30 of 90 events (33.3 %), 10 events/s, 6 s to go, waits for 2 parked grains"
        );
    }
}
