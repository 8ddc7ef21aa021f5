//! `gristmill parked`: keys that failed for good and wait for a decision.

use super::connect::{Server, failed};
use super::output::{Columns, Format, Output, Printer, grouped};
use super::typed;
use crate::exit::{Exit, Failed};
use filter::Filter;
use gristmill_base::datatype::DataType;
use gristmill_client::{Client, Table};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

mod filter;

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
        #[command(flatten)]
        filter: Filter,
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
        /// All keys of the table that are parked now and that the filters leave.
        #[arg(long, conflicts_with = "keys")]
        all: bool,
        #[command(flatten)]
        filter: Filter,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Give up the first inputs that wait for a parked key: they go to the dead-letter topic of their handler.
    Skip {
        /// The table.
        #[arg(value_name = "APP/TABLE")]
        table: String,
        /// Key of the grain.
        #[arg(value_name = "KEY", allow_negative_numbers = true, required_unless_present = "all")]
        key: Option<String>,
        /// Of all keys of the table that are parked now and that the filters leave the input that failed.
        #[arg(long, conflicts_with_all = ["key", "count", "expect"])]
        all: bool,
        /// So many inputs.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Only if this input waits first: its name, as `show` tells it.
        #[arg(long = "if", value_name = "ID", conflicts_with = "count")]
        expect: Option<String>,
        #[command(flatten)]
        filter: Filter,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Also where the handler names no dead-letter topic: nothing is left of them then.
        #[arg(long)]
        drop: bool,
        /// Then let the key run again.
        #[arg(long)]
        retry: bool,
    },
    /// Put another payload in the place of that of the first input that waits for a parked key.
    Edit {
        #[command(flatten)]
        grain: Grain,
        /// The payload.
        #[arg(required_unless_present = "file", conflicts_with = "file", allow_hyphen_values = true)]
        payload: Option<String>,
        /// Take the payload from a file.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only if this input waits first: its name, as `show` tells it.
        #[arg(long = "if", value_name = "ID")]
        expect: Option<String>,
        /// Only if it was tried so often.
        #[arg(long, value_name = "N")]
        if_attempts: Option<u64>,
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
        Action::List { of, limit, filter } => at.list(of, *limit, filter)?,
        Action::Show { grain, limit } => at.show(grain, *limit)?,
        Action::Retry { table, all: true, filter, dry_run, .. } => at.retry_all(table, filter, *dry_run)?,
        Action::Retry { table, keys, filter, dry_run, .. } => {
            filter.none()?;
            at.retry(table, keys, *dry_run)?;
        }
        Action::Skip { table, key, count, expect, filter, dry_run, drop, retry, .. } => {
            let how = How { drop: *drop, retry: *retry, dry_run: *dry_run };
            match key {
                Some(key) => {
                    filter.none()?;
                    at.skip(table, key, *count, expect.as_deref(), how)?;
                }
                None => at.skip_all(table, filter, how)?,
            }
        }
        Action::Edit { grain, payload, file, expect, if_attempts, retry } => {
            let payload = match (payload, file) {
                (Some(text), _) => Payload::Text(text.clone()),
                (None, file) => Payload::Bytes(read(file.as_ref())?),
            };
            at.edit(grain, &payload, expect.as_deref(), *if_attempts, *retry)?;
        }
    }
    at.printer.flush()
}

/// A server, and what is printed.
struct At {
    client: Client,
    format: Format,
    printer: Printer,
}

/// How inputs are given up.
#[derive(Clone, Copy)]
struct How {
    drop: bool,
    retry: bool,
    dry_run: bool,
}

/// What the handler is to get.
enum Payload {
    /// As a person types it, by the type that the payload has.
    Text(String),
    Bytes(Vec<u8>),
}

fn read(file: Option<&PathBuf>) -> Result<Vec<u8>, Failed> {
    let Some(file) = file else { return Err(Failed::new(Exit::Usage, "neither a payload nor a file".to_owned())) };
    std::fs::read(file).map_err(|error| Failed::new(Exit::No, format!("{}: {error}", file.display())))
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
        filter: &Filter,
        mut each: impl FnMut(&mut Self, &Table, Vec<u8>, Value) -> Result<(), Failed>,
    ) -> Result<u64, Failed> {
        let table = self.client.table(name).map_err(failed)?;
        let (mut after, mut seen): (Option<Vec<u8>>, u64) = (None, 0);
        while seen < left {
            let wanted = u32::try_from(left - seen).unwrap_or(0);
            let page = self.client.parked(name, after.as_deref(), wanted).map_err(failed)?;
            let more = page.more;
            for row in page.items {
                let what = object(row.value.as_deref().unwrap_or(b"{}"))?;
                after = Some(row.key.clone());
                if seen == left || !filter.takes(&what, now_micros()) {
                    continue;
                }
                seen += 1;
                each(self, &table, row.key, what)?;
            }
            if !more {
                break;
            }
        }
        Ok(seen)
    }

    fn list(&mut self, of: &str, limit: u64, filter: &Filter) -> Result<(), Failed> {
        let tables: Vec<String> = match of.split_once('/') {
            Some(_) => vec![of.to_owned()],
            None => {
                let app = self.client.describe(of).map_err(failed)?;
                app.tables.iter().map(|table| format!("{of}/{}", table.name)).collect()
            }
        };
        let mut columns = Columns::new(&["table", "key", "waiting", "attempts", "parked for", "kind", "reason"]);
        let mut left = limit;
        for name in tables {
            let seen = self.each_parked(&name, left, filter, |at, table, key, what| {
                if at.format == Format::Json {
                    let mut line = json!({"table": name, "key": typed::to_json(table.key, &key)});
                    for field in ["reason", "kind", "attempts", "since_micros", "waiting", "failed"] {
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
                    what["kind"].as_str().unwrap_or("-").to_owned(),
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
        if let Some(kind) = what["kind"].as_str() {
            self.printer.line(&format!("kind: {kind}"))?;
        }
        let (waiting, attempts) = (number("waiting"), number("attempts"));
        self.printer.line(&format!(
            "{} inputs wait; attempts at the one that failed: {}",
            grouped(waiting),
            grouped(attempts)
        ))?;
        let is_shown = what["inputs"].as_array().into_iter().flatten().any(|input| input["failed"] == true);
        if let Some(failed) = what["failed"].as_str().filter(|_| !is_shown) {
            self.printer.line(&format!("{failed} failed, and waits behind these:"))?;
        }
        for (at, input) in what["inputs"].as_array().into_iter().flatten().enumerate() {
            let id = input["id"].as_str().unwrap_or("?");
            self.printer.line(&format!("{:>3}  {id}  {}", at + 1, input_line(input)))?;
        }
        Ok(())
    }

    fn retry(&mut self, name: &str, keys: &[String], dry_run: bool) -> Result<(), Failed> {
        let mut missing = Vec::new();
        for key in keys {
            let (table, bytes) = self.key(name, key)?;
            let is_parked = match dry_run {
                true => self.client.parked_show(name, &bytes, 1).map_err(failed)?.is_some(),
                false => self.client.parked_retry(name, &bytes).map_err(failed)?,
            };
            if is_parked {
                self.retried(name, &table, &bytes, dry_run)?;
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

    fn retry_all(&mut self, name: &str, filter: &Filter, dry_run: bool) -> Result<(), Failed> {
        self.each_parked(name, u64::MAX, filter, |at, table, key, _| {
            // One that somebody else let go meanwhile is not parked any more, as was wanted.
            if dry_run || at.client.parked_retry(name, &key).map_err(failed)? {
                return at.retried(name, table, &key, dry_run);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn retried(&mut self, name: &str, table: &Table, key: &[u8], dry_run: bool) -> Result<(), Failed> {
        match self.format {
            Format::Text => {
                let would = if dry_run { "would run again" } else { "runs again" };
                self.printer.line(&format!("{name} {} {would}", table.key.decode_text(key)))
            }
            Format::Json => self.printer.json(
                &json!({"table": name, "key": typed::to_json(table.key, key), "retried": !dry_run, "dry_run": dry_run}),
            ),
        }
    }

    /// Gives up the first inputs of a key, each by its name, so that it is the one that was looked at.
    fn skip(&mut self, name: &str, key: &str, count: u64, expect: Option<&str>, how: How) -> Result<(), Failed> {
        let (table, bytes) = self.key(name, key)?;
        let mut skipped = 0;
        let mut ids = Vec::new();
        while skipped < count {
            let is_last = skipped + 1 == count;
            let at = if how.dry_run { skipped } else { 0 };
            let limit = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let Some(shown) = self.client.parked_show(name, &bytes, limit).map_err(failed)? else { break };
            let first = &object(shown.as_bytes())?["inputs"][usize::try_from(at).unwrap_or(usize::MAX)];
            let Some(id) = first["id"].as_str() else { break };
            let id = expect.unwrap_or(id).to_owned();
            let retry = how.retry && is_last;
            if !how.dry_run && !self.client.parked_skip(name, &bytes, how.drop, retry, &id).map_err(failed)? {
                break;
            }
            if self.format == Format::Text {
                let verb = if how.dry_run { "would skip" } else { "skipped" };
                self.printer.line(&format!("{verb} {id}  {}", input_line(first)))?;
            }
            ids.push(id);
            skipped += 1;
        }
        self.skipped(name, (&table, &bytes), &ids, how.retry && skipped == count, how)?;
        if skipped == count {
            return Ok(());
        }
        self.printer.flush()?;
        let message = format!(
            "{key:?} of {name} is not parked, or no more inputs wait for it: {skipped} of {count} were skipped"
        );
        Err(Failed::new(Exit::No, message))
    }

    fn skipped(
        &mut self,
        name: &str,
        (table, key): (&Table, &[u8]),
        ids: &[String],
        retried: bool,
        how: How,
    ) -> Result<(), Failed> {
        match self.format {
            Format::Text => {
                let then = if retried { "; it runs again" } else { "" };
                let skipped = if how.dry_run { "would be skipped" } else { "skipped" };
                self.printer.line(&format!(
                    "{} inputs of {name} {} {skipped}{then}",
                    grouped(ids.len() as u64),
                    table.key.decode_text(key)
                ))
            }
            Format::Json => self.printer.json(&json!({
                "table": name, "key": typed::to_json(table.key, key), "skipped": ids.len(), "ids": ids,
                "retried": retried, "dry_run": how.dry_run,
            })),
        }
    }

    /// Gives up what failed of each key that is left; a key whose first input is another one is left alone, and told.
    fn skip_all(&mut self, name: &str, filter: &Filter, how: How) -> Result<(), Failed> {
        let mut left_alone = Vec::new();
        self.each_parked(name, u64::MAX, filter, |at, table, key, what| {
            let Some(id) = what["failed"].as_str().map(str::to_owned) else {
                left_alone.push(format!("{}: what failed does not wait any more", table.key.decode_text(&key)));
                return Ok(());
            };
            if !how.dry_run {
                match at.client.parked_skip(name, &key, how.drop, how.retry, &id) {
                    Ok(true) => {}
                    // Somebody else has decided meanwhile.
                    Ok(false) => return Ok(()),
                    Err(error) => {
                        let failed = failed(error);
                        if failed.exit != Exit::No && failed.exit != Exit::Usage {
                            return Err(failed);
                        }
                        left_alone.push(format!("{}: {}", table.key.decode_text(&key), failed.message));
                        return Ok(());
                    }
                }
            }
            at.skipped(name, (table, &key), &[id], how.retry, how)
        })?;
        if left_alone.is_empty() {
            return Ok(());
        }
        self.printer.flush()?;
        Err(Failed::new(Exit::No, format!("{} keys of {name} left alone: {}", left_alone.len(), left_alone.join("; "))))
    }

    fn edit(
        &mut self,
        grain: &Grain,
        payload: &Payload,
        expect: Option<&str>,
        if_attempts: Option<u64>,
        retry: bool,
    ) -> Result<(), Failed> {
        let (table, key) = self.key(&grain.table, &grain.key)?;
        let found = self.client.parked_show(&grain.table, &key, 1).map_err(failed)?;
        let shown = object(found.ok_or_else(|| not_parked(&grain.table, &grain.key))?.as_bytes())?;
        let first = &shown["inputs"][0];
        let Some(id) = first["id"].as_str() else {
            let message = format!("nothing waits for {:?} of {}", grain.key, grain.table);
            return Err(Failed::new(Exit::No, message));
        };
        let attempts = if first["failed"] == true { shown["attempts"].as_u64().unwrap_or(0) } else { 0 };
        if let Some(wanted) = if_attempts.filter(|wanted| *wanted != attempts) {
            let message = format!("{id} was tried {attempts} times, not {wanted}; nothing was done");
            return Err(Failed::new(Exit::No, message));
        }
        let bytes = match payload {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Text(text) => {
                let of = first["payload_type"].as_str().and_then(DataType::named).unwrap_or(DataType::Bytes);
                match of {
                    DataType::Bytes => text.clone().into_bytes(),
                    of => typed::encode("the payload", of, text)?,
                }
            }
        };
        let id = expect.unwrap_or(id).to_owned();
        if !self.client.parked_edit(&grain.table, &key, &id, &bytes).map_err(failed)? {
            return Err(not_parked(&grain.table, &grain.key));
        }
        let retried = retry && self.client.parked_retry(&grain.table, &key).map_err(failed)?;
        match self.format {
            Format::Text => {
                let then = if retried { "; the key runs again" } else { "" };
                self.printer.line(&format!("{id} of {} {} has another payload{then}", grain.table, grain.key))
            }
            Format::Json => self.printer.json(&json!({
                "table": grain.table, "key": typed::to_json(table.key, &key), "edited": id, "retried": retried,
            })),
        }
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
    if input["failed"] == true {
        line.push_str("  <- failed");
    }
    if input["edited"] == true {
        line.push_str("  (edited)");
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
