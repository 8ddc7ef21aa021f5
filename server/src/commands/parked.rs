//! `gristmill parked`: keys that failed for good and wait for a decision.

use super::connect::{Server, failed};
use super::output::{Columns, Format, Output, Printer, grouped};
use super::typed;
use crate::exit::{Exit, Failed};
use gristmill_client::{Client, Table};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `parked`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List the parked keys of a table, or of all tables of an app.
    List {
        /// The app, or one of its tables.
        #[arg(value_name = "APP[/TABLE]")]
        of: String,
        /// Stop after so many keys.
        #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
        limit: u64,
    },
    /// Show why a key is parked, and the first inputs that wait for it.
    Show {
        #[command(flatten)]
        grain: Grain,
        /// At most so many inputs.
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: u32,
    },
    /// Let parked keys run again: what waits is handled in its order, with attempts counted anew.
    Retry {
        /// The table.
        #[arg(value_name = "APP/TABLE")]
        table: String,
        /// Keys of the grains.
        #[arg(value_name = "KEY", allow_negative_numbers = true, required_unless_present = "all")]
        keys: Vec<String>,
        /// All keys of the table that are parked now.
        #[arg(long, conflicts_with = "keys")]
        all: bool,
    },
    /// Give up the first inputs that wait for a parked key: they go to the dead-letter topic of their handler.
    Skip {
        #[command(flatten)]
        grain: Grain,
        /// So many inputs.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Also where the handler names no dead-letter topic: nothing is left of them then.
        #[arg(long)]
        drop: bool,
        /// Then let the key run again.
        #[arg(long)]
        retry: bool,
    },
}

#[derive(clap::Args)]
struct Grain {
    /// The table.
    #[arg(value_name = "APP/TABLE")]
    table: String,
    /// Key of the grain.
    #[arg(allow_negative_numbers = true)]
    key: String,
}

/// Does it.
///
/// # Errors
/// As the server says; a name that does not exist; a key that is not parked.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut at = At { client: arguments.server.connect()?, format: arguments.output.output, printer: Printer::new() };
    match &arguments.action {
        Action::List { of, limit } => at.list(of, *limit)?,
        Action::Show { grain, limit } => at.show(grain, *limit)?,
        Action::Retry { table, all: true, .. } => at.retry_all(table)?,
        Action::Retry { table, keys, .. } => at.retry(table, keys)?,
        Action::Skip { grain, count, drop, retry } => at.skip(grain, *count, *drop, *retry)?,
    }
    at.printer.flush()
}

/// A server, and what is printed.
struct At {
    client: Client,
    format: Format,
    printer: Printer,
}

fn object(text: &[u8]) -> Result<Value, Failed> {
    serde_json::from_slice(text)
        .map_err(|error| Failed::new(Exit::Internal, format!("the server's answer is no JSON: {error}")))
}

/// The time by this machine's clock, microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "shown to a person as an age; nothing else sees it")]
pub(super) fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// How long ago a time was.
pub(super) fn age(now: u64, micros: u64) -> String {
    let seconds = now.saturating_sub(micros) / 1_000_000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn not_parked(table: &str, key: &str) -> Failed {
    Failed::new(Exit::No, format!("{key:?} of {table} is not parked"))
}

impl At {
    /// The table and the bytes of a key.
    fn key(&mut self, name: &str, key: &str) -> Result<(Table, Vec<u8>), Failed> {
        let table = self.client.table(name).map_err(failed)?;
        let key = typed::encode(&format!("the key of {name}"), table.key, key)?;
        Ok((table, key))
    }

    /// Calls `each` on the parked keys of a table, at most `left` of them; how many there were.
    fn each_parked(
        &mut self,
        name: &str,
        left: u64,
        mut each: impl FnMut(&mut Self, &Table, Vec<u8>, Value) -> Result<(), Failed>,
    ) -> Result<u64, Failed> {
        let table = self.client.table(name).map_err(failed)?;
        let (mut after, mut seen): (Option<Vec<u8>>, u64) = (None, 0);
        while seen < left {
            let wanted = u32::try_from(left - seen).unwrap_or(0);
            let page = self.client.parked(name, after.as_deref(), wanted).map_err(failed)?;
            let more = page.more;
            for row in page.items.into_iter().take(usize::try_from(left - seen).unwrap_or(usize::MAX)) {
                let what = object(row.value.as_deref().unwrap_or(b"{}"))?;
                after = Some(row.key.clone());
                seen += 1;
                each(self, &table, row.key, what)?;
            }
            if !more {
                break;
            }
        }
        Ok(seen)
    }

    fn list(&mut self, of: &str, limit: u64) -> Result<(), Failed> {
        let tables: Vec<String> = match of.split_once('/') {
            Some(_) => vec![of.to_owned()],
            None => {
                let app = self.client.describe(of).map_err(failed)?;
                app.tables.iter().map(|table| format!("{of}/{}", table.name)).collect()
            }
        };
        let mut columns = Columns::new(&["table", "key", "waiting", "attempts", "parked for", "reason"]);
        let mut left = limit;
        for name in tables {
            let seen = self.each_parked(&name, left, |at, table, key, what| {
                if at.format == Format::Json {
                    let mut line = json!({"table": name, "key": typed::to_json(table.key, &key)});
                    for field in ["reason", "attempts", "since_micros", "waiting"] {
                        line[field] = what[field].clone();
                    }
                    return at.printer.json(&line);
                }
                let number = |name: &str| what[name].as_u64().unwrap_or(0);
                columns.row(vec![
                    name.clone(),
                    table.key.decode_text(&key),
                    grouped(number("waiting")),
                    grouped(number("attempts")),
                    age(now_micros(), number("since_micros")),
                    text(&what["reason"]).replace('\n', " "),
                ]);
                Ok(())
            })?;
            left = left.saturating_sub(seen);
        }
        if self.format == Format::Text { self.printer.table(&columns) } else { Ok(()) }
    }

    fn show(&mut self, grain: &Grain, limit: u32) -> Result<(), Failed> {
        let (table, key) = self.key(&grain.table, &grain.key)?;
        let found = self.client.parked_show(&grain.table, &key, limit.max(1)).map_err(failed)?;
        let what = object(found.ok_or_else(|| not_parked(&grain.table, &grain.key))?.as_bytes())?;
        if self.format == Format::Json {
            let mut line = json!({"table": grain.table, "key": typed::to_json(table.key, &key)});
            if let (Some(line), Value::Object(what)) = (line.as_object_mut(), what) {
                line.extend(what);
            }
            return self.printer.json(&line);
        }
        let number = |name: &str| what[name].as_u64().unwrap_or(0);
        self.printer.line(&format!(
            "{} {} is parked for {}",
            grain.table,
            grain.key,
            age(now_micros(), number("since_micros"))
        ))?;
        self.printer.line(&format!("reason: {}", text(&what["reason"])))?;
        let (waiting, attempts) = (number("waiting"), number("attempts"));
        self.printer.line(&format!(
            "{} inputs wait; attempts at the first: {}",
            grouped(waiting),
            grouped(attempts)
        ))?;
        for (at, input) in what["inputs"].as_array().into_iter().flatten().enumerate() {
            self.printer.line(&format!("{:>3}  {}", at + 1, input_line(input)))?;
        }
        Ok(())
    }

    fn retry(&mut self, name: &str, keys: &[String]) -> Result<(), Failed> {
        let mut missing = Vec::new();
        for key in keys {
            let (table, bytes) = self.key(name, key)?;
            if self.client.parked_retry(name, &bytes).map_err(failed)? {
                self.retried(name, &table, &bytes)?;
            } else {
                missing.push(format!("{key:?}"));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.printer.flush()?;
        let are = if missing.len() == 1 { "is" } else { "are" };
        Err(Failed::new(Exit::No, format!("{} of {name} {are} not parked", missing.join(", "))))
    }

    fn retry_all(&mut self, name: &str) -> Result<(), Failed> {
        self.each_parked(name, u64::MAX, |at, table, key, _| {
            // One that somebody else let go meanwhile is not parked any more, as was wanted.
            if at.client.parked_retry(name, &key).map_err(failed)? { at.retried(name, table, &key) } else { Ok(()) }
        })?;
        Ok(())
    }

    fn retried(&mut self, name: &str, table: &Table, key: &[u8]) -> Result<(), Failed> {
        match self.format {
            Format::Text => self.printer.line(&format!("{name} {} runs again", table.key.decode_text(key))),
            Format::Json => {
                self.printer.json(&json!({"table": name, "key": typed::to_json(table.key, key), "retried": true}))
            }
        }
    }

    fn skip(&mut self, grain: &Grain, count: u64, drop: bool, retry: bool) -> Result<(), Failed> {
        let (table, key) = self.key(&grain.table, &grain.key)?;
        let mut skipped = 0;
        while skipped < count {
            let is_last = skipped + 1 == count;
            if !self.client.parked_skip(&grain.table, &key, drop, retry && is_last).map_err(failed)? {
                break;
            }
            skipped += 1;
        }
        match self.format {
            Format::Text => {
                let then = if retry && skipped == count { "; it runs again" } else { "" };
                self.printer.line(&format!(
                    "{} inputs of {} {} skipped{then}",
                    grouped(skipped),
                    grain.table,
                    grain.key
                ))?;
            }
            Format::Json => self.printer.json(&json!({
                "table": grain.table, "key": typed::to_json(table.key, &key), "skipped": skipped,
                "retried": retry && skipped == count,
            }))?,
        }
        if skipped == count {
            return Ok(());
        }
        self.printer.flush()?;
        let message = format!(
            "{:?} of {} is not parked, or no more inputs wait for it: {skipped} of {count} were skipped",
            grain.key, grain.table
        );
        Err(Failed::new(Exit::No, message))
    }
}

/// An input in one line.
fn input_line(input: &Value) -> String {
    let mut line = text(&input["cause"]);
    match input["cause"].as_str() {
        Some("event") => {
            line.push_str(&format!(" {} {}:{}", text(&input["topic"]), input["lane"], input["offset"]));
        }
        Some("timer") => line.push_str(&format!(" {}", text(&input["timer"]))),
        _ => {}
    }
    match (input["handler"].as_str(), input["operation"].as_str()) {
        (Some(handler), _) => line.push_str(&format!(" to {handler}")),
        (None, Some(operation)) => line.push_str(&format!(" {operation}")),
        (None, None) => {}
    }
    for (name, shown) in [("map", "map"), ("entry", "entry"), ("from", "from"), ("to", "to"), ("cookie", "cookie")] {
        if let Some(found) = input[name].as_str() {
            line.push_str(&format!(" {shown} {found}"));
        }
    }
    if let Some(payload) = input["payload"].as_str() {
        line.push_str(&format!(": {payload}"));
    }
    if let Some(bytes) = input["payload_bytes"].as_u64() {
        line.push_str(&format!("... ({} bytes)", grouped(bytes)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_fits_one_line() {
        let event = json!({
            "cause": "event", "topic": "orders", "lane": 3, "offset": 17, "operation": "call", "handler": "take",
            "payload": "5", "payload_bytes": 5_000,
        });
        assert_eq!(input_line(&event), "event orders 3:17 to take: 5... (5,000 bytes)");
        let put = json!({"cause": "message", "operation": "map_put", "map": "sold", "entry": "a", "payload": "7"});
        assert_eq!(input_line(&put), "message map_put map sold entry a: 7");
        assert_eq!(input_line(&json!({"cause": "timer", "timer": "t", "handler": "tick"})), "timer t to tick");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = 1_700_000_000_000_000;
        let ago = |seconds: u64| age(now, now - seconds * 1_000_000);
        assert_eq!([ago(90), ago(600), ago(9_000), ago(400_000)], ["90s", "10m", "2h", "4d"]);
        assert_eq!(age(now, u64::MAX), "0s", "a clock that is behind");
    }
}
