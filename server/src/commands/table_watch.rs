//! `gristmill table watch`: what changes in a table, a line for each change, until somebody stops it; then the token to go on with.

use super::connect::failed;
use super::output::{Format, Printer};
use super::typed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::MapId;
use gristmill_client::{Change, Client, RowChange, Table, Watch, WatchFrom, WatchKeys, WatchToken, Watched};
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long one look for changes takes, so that a signal is seen.
const LOOK: Duration = Duration::from_millis(200);

/// What is watched.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The table.
    #[arg(value_name = "APP/TABLE")]
    table: String,
    /// Only the grain with this key.
    #[arg(allow_negative_numbers = true, conflicts_with = "prefix")]
    key: Option<String>,
    /// Only grains whose key starts with this.
    #[arg(long, value_name = "P")]
    prefix: Option<String>,
    /// Where to begin: `now`; `snapshot`, which is all there is and then what changes; or the token of a watch before.
    #[arg(long, value_name = "TOKEN|now|snapshot", default_value = "now")]
    from: String,
    /// Stop after so many lines.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

/// Does it.
///
/// # Errors
/// The position of the token is gone; whatever else the server says.
pub(super) fn run(mut client: Client, format: Format, printer: Printer, arguments: &Arguments) -> Result<(), Failed> {
    let is_stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_stopped))
            .map_err(|error| Failed::new(Exit::Internal, format!("signals cannot be listened to: {error}")))?;
    }
    let table = client.table(&arguments.table).map_err(failed)?;
    let keys = keys(&table, arguments)?;
    let from = match arguments.from.as_str() {
        "now" => WatchFrom::Now,
        "snapshot" => WatchFrom::Snapshot,
        token => WatchFrom::Token(
            WatchToken::from_text(token).map_err(|error| Failed::new(Exit::Usage, format!("--from: {error}")))?,
        ),
    };
    let watch = client.watch(&arguments.table, keys, from).map_err(failed)?;
    let mut shown = Shown { watch, table, format, printer, left: arguments.limit };
    shown.go_on(&is_stopped)
}

fn keys(table: &Table, arguments: &Arguments) -> Result<WatchKeys, Failed> {
    if let Some(key) = &arguments.key {
        let key = typed::encode(&format!("the key of {}", arguments.table), table.key, key)?;
        return Ok(WatchKeys::Key(key.into()));
    }
    let prefix = arguments.prefix.as_deref().unwrap_or_default();
    // A prefix of a number would be a prefix of its encoding, which nobody means.
    if !prefix.is_empty() && !matches!(table.key, DataType::String | DataType::Bytes) {
        let message = format!("--prefix is for keys of text; those of {} have type {}", arguments.table, table.key);
        return Err(Failed::new(Exit::Usage, message));
    }
    Ok(WatchKeys::Prefix(prefix.as_bytes().into()))
}

/// A watch, and what is printed of it.
struct Shown {
    watch: Watch,
    table: Table,
    format: Format,
    printer: Printer,
    left: u64,
}

/// A line: what has happened, and its fields.
type Line = (&'static str, Vec<(&'static str, Value)>);

impl Shown {
    fn go_on(&mut self, is_stopped: &AtomicBool) -> Result<(), Failed> {
        while self.left > 0 && !is_stopped.load(Ordering::Relaxed) {
            match self.watch.next_within(LOOK).map_err(failed)? {
                Some(watched) => self.print(watched)?,
                None => self.printer.flush()?,
            }
        }
        if let Some(token) = self.watch.token() {
            match self.format {
                Format::Text => self.printer.line(&format!("token\t{}", token.to_text()))?,
                Format::Json => self.printer.json(&json!({"token": token.to_text()}))?,
            }
        }
        self.printer.flush()
    }

    fn print(&mut self, watched: Watched) -> Result<(), Failed> {
        match watched {
            Watched::Row(row) => {
                let value = row.value.map_or(Value::Null, |value| self.value(&value));
                self.line(&row.key, ("is", vec![("value", value)]), &[])
            }
            Watched::Entry(key, map, entry) => {
                let line = ("map_is", self.entry(map, &entry.key, Some(&entry.value)));
                self.line(&key, line, &[])
            }
            Watched::SnapshotEnd => {
                self.left = self.left.saturating_sub(1);
                match self.format {
                    Format::Text => self.printer.line("snapshot_end"),
                    Format::Json => self.printer.json(&json!({"change": "snapshot_end"})),
                }
            }
            Watched::Step(changes) => {
                for Change { slot, ssn, time, key, change } in changes {
                    let line = self.change(&change);
                    self.line(
                        &key,
                        line,
                        &[("time_micros", json!(time)), ("slot", json!(slot.0)), ("ssn", json!(ssn.0))],
                    )?;
                }
                Ok(())
            }
        }
    }

    fn change(&self, change: &RowChange) -> Line {
        match change {
            RowChange::Value(value) => ("put", vec![("value", self.value(value))]),
            RowChange::NoValue => ("delete_value", Vec::new()),
            RowChange::Entry(map, key, value) => ("map_put", self.entry(*map, key, Some(value))),
            RowChange::NoEntry(map, key) => ("map_delete", self.entry(*map, key, None)),
            RowChange::NoRange(map, from, to) => {
                let (name, of) = self.map(*map);
                let from = if from.is_empty() { Value::Null } else { typed::to_json(of.0, from) };
                let to = to.as_ref().map_or(Value::Null, |to| typed::to_json(of.0, to));
                ("map_delete_range", vec![("map", name), ("from", from), ("to", to)])
            }
            RowChange::NoGrain => ("delete", Vec::new()),
            RowChange::GrainExpired => ("expired", Vec::new()),
            RowChange::EntryExpired(map, key) => ("map_expired", self.entry(*map, key, None)),
        }
    }

    fn value(&self, value: &[u8]) -> Value {
        typed::to_json(self.table.value.unwrap_or(DataType::Bytes), value)
    }

    /// A map's name, and the types of its keys and values.
    fn map(&self, id: MapId) -> (Value, (DataType, DataType)) {
        let map = self.table.maps.iter().find(|map| map.id == id);
        map.map_or((json!(id.0), (DataType::Bytes, DataType::Bytes)), |map| (json!(map.name), (map.key, map.value)))
    }

    fn entry(&self, id: MapId, key: &[u8], value: Option<&[u8]>) -> Vec<(&'static str, Value)> {
        let (name, (of_key, of_value)) = self.map(id);
        let mut fields = vec![("map", name), ("entry", typed::to_json(of_key, key))];
        fields.extend(value.map(|value| ("value", typed::to_json(of_value, value))));
        fields
    }

    fn line(&mut self, key: &[u8], (what, fields): Line, more: &[(&'static str, Value)]) -> Result<(), Failed> {
        self.left = self.left.saturating_sub(1);
        match self.format {
            Format::Text => {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let fields = fields.iter().map(|(_, value)| format!("\t{}", text(value))).collect::<String>();
                self.printer.line(&format!("{}\t{what}{fields}", self.table.key.decode_text(key)))
            }
            Format::Json => {
                let mut object = Map::new();
                object.insert("key".to_owned(), typed::to_json(self.table.key, key));
                object.insert("change".to_owned(), what.into());
                object.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
                object.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
                self.printer.json(&Value::Object(object))
            }
        }
    }
}
