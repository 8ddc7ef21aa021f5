//! `gristmill table`: read and change grains.

use super::connect::{Server, failed};
use super::output::{Format, Output, Printer};
use super::typed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::DataType;
use gristmill_client::{Client, Map, QueryFrom, Row, Span, Table};
use serde_json::{Value, json};

/// Arguments of `table`.
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
    /// Read a grain's value, or entries of one of its maps.
    Get(Get),
    /// Set a grain's value. Done when it is durable.
    Put {
        #[command(flatten)]
        grain: Grain,
        /// The value.
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Delete a grain: its value, maps and timers.
    Delete {
        #[command(flatten)]
        grain: Grain,
    },
    /// Read or change one entry of a map of a grain.
    #[command(subcommand)]
    Map(OnMap),
    /// List the grains of a table in byte order of their keys.
    Scan {
        /// The table.
        #[arg(value_name = "APP/TABLE")]
        table: String,
        /// Only grains whose key starts with this.
        #[arg(long, value_name = "P", default_value = "")]
        prefix: String,
        /// Stop after so many grains.
        #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
        limit: u64,
    },
    /// List the grains of a table whose JSON values match, in byte order of their keys.
    Query(Query),
}

#[derive(clap::Args)]
struct Query {
    /// The table.
    #[arg(value_name = "APP/TABLE")]
    table: String,
    /// What must be so, like: city = "Bern" and age >= 18. Fields within objects have dots: address.zip prefix "30". Also: <, <=,
    /// >, and in ("a", "b").
    #[arg(value_name = "EXPRESSION")]
    expression: String,
    /// Only grains whose key starts with this.
    #[arg(long, value_name = "P", default_value = "")]
    prefix: String,
    /// Stop after so many grains.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Look at every grain.
    #[arg(long)]
    scan: bool,
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

#[derive(clap::Args)]
struct Get {
    #[command(flatten)]
    grain: Grain,
    /// Entries of this map instead of the value, in byte order of their keys.
    #[arg(long, value_name = "NAME")]
    map: Option<String>,
    /// First entry key wanted.
    #[arg(long, value_name = "A", requires = "map", allow_negative_numbers = true)]
    from: Option<String>,
    /// First entry key no longer wanted.
    #[arg(long, value_name = "B", requires = "map", allow_negative_numbers = true)]
    to: Option<String>,
    /// Last key first.
    #[arg(long, requires = "map")]
    reverse: bool,
    /// Stop after so many entries.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true, requires = "map")]
    limit: u64,
}

#[derive(clap::Args)]
struct Entry {
    #[command(flatten)]
    grain: Grain,
    /// The map.
    #[arg(value_name = "NAME")]
    map: String,
    /// Key of the entry.
    #[arg(value_name = "ENTRY", allow_negative_numbers = true)]
    entry: String,
}

#[derive(clap::Args)]
struct DeleteRange {
    #[command(flatten)]
    grain: Grain,
    /// The map.
    #[arg(value_name = "NAME")]
    map: String,
    /// First entry key that goes; without it the first there is.
    #[arg(long, value_name = "A", required_unless_present_any = ["to", "all"], allow_negative_numbers = true)]
    from: Option<String>,
    /// First entry key that stays again; without it all go up to the last.
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    to: Option<String>,
    /// All entries.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    all: bool,
}

#[derive(clap::Subcommand)]
enum OnMap {
    /// Read an entry.
    Get {
        #[command(flatten)]
        entry: Entry,
    },
    /// Set an entry. Done when it is durable.
    Put {
        #[command(flatten)]
        entry: Entry,
        /// The value.
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Delete an entry.
    Delete {
        #[command(flatten)]
        entry: Entry,
    },
    /// Delete the entries from one key to before another, however many they are.
    DeleteRange(DeleteRange),
}

/// Does it.
///
/// # Errors
/// As the server says; a name that does not exist; a key or value that is not of its type.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut at = At { client: arguments.server.connect()?, format: arguments.output.output, printer: Printer::new() };
    match &arguments.action {
        Action::Get(get) if get.map.is_some() => at.range(get)?,
        Action::Get(get) => at.get(&get.grain)?,
        Action::Put { grain, value } => at.put(grain, value)?,
        Action::Delete { grain } => at.delete(grain)?,
        Action::Map(OnMap::Get { entry }) => at.map_get(entry)?,
        Action::Map(OnMap::Put { entry, value }) => at.map_put(entry, value)?,
        Action::Map(OnMap::Delete { entry }) => at.map_delete(entry)?,
        Action::Map(OnMap::DeleteRange(delete)) => at.map_delete_range(delete)?,
        Action::Scan { table, prefix, limit } => at.scan(table, prefix, *limit)?,
        Action::Query(query) => at.query(query)?,
    }
    at.printer.flush()
}

/// A server, and what is printed.
struct At {
    client: Client,
    format: Format,
    printer: Printer,
}

/// An answer that is no.
fn no(message: String) -> Failed {
    Failed::new(Exit::No, message)
}

/// The bytes of the keys between which entries of a map are meant.
fn bounds(
    table: &Table,
    name: &str,
    from: &Option<String>,
    to: &Option<String>,
) -> Result<(Vec<u8>, Option<Vec<u8>>), Failed> {
    let of = table.map(name).map_err(failed)?.key;
    let bound = |text: &Option<String>| {
        text.as_ref().map(|text| typed::encode(&format!("the entry key of map {name}"), of, text)).transpose()
    };
    Ok((bound(from)?.unwrap_or_default(), bound(to)?))
}

impl At {
    /// The table and the bytes of the grain's key.
    fn grain(&mut self, grain: &Grain) -> Result<(Table, Vec<u8>), Failed> {
        let table = self.client.table(&grain.table).map_err(failed)?;
        let key = typed::encode(&format!("the key of {}", grain.table), table.key, &grain.key)?;
        Ok((table, key))
    }

    fn entry(&mut self, entry: &Entry) -> Result<(Map, Vec<u8>, Vec<u8>), Failed> {
        let (table, key) = self.grain(&entry.grain)?;
        let map = table.map(&entry.map).map_err(failed)?.clone();
        let entry_key = typed::encode(&format!("the entry key of map {}", entry.map), map.key, &entry.entry)?;
        Ok((map, key, entry_key))
    }

    fn get(&mut self, grain: &Grain) -> Result<(), Failed> {
        let (table, key) = self.grain(grain)?;
        let Some(of) = table.value else {
            let maps: Vec<&str> = table.maps.iter().map(|map| map.name.as_str()).collect();
            let message =
                format!("grains of {} have no value, only maps: say --map {}", grain.table, maps.join(" or --map "));
            return Err(Failed::new(Exit::Usage, message));
        };
        let value = self.client.get(&grain.table, &key).map_err(failed)?;
        let value = value.ok_or_else(|| no(format!("{} has no grain {:?} with a value", grain.table, grain.key)))?;
        match self.format {
            Format::Text => self.printer.line(&of.decode_text(&value)),
            Format::Json => {
                let key = typed::to_json(table.key, &key);
                self.printer.json(&json!({"key": key, "value": typed::to_json(of, &value)}))
            }
        }
    }

    fn range(&mut self, get: &Get) -> Result<(), Failed> {
        let (table, key) = self.grain(&get.grain)?;
        let name = get.map.as_deref().unwrap_or_default();
        let map = table.map(name).map_err(failed)?.clone();
        let (mut from, mut to) = bounds(&table, name, &get.from, &get.to)?;
        let mut left = get.limit;
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(0);
            let span = Span { from: &from, to: to.as_deref(), reverse: get.reverse, limit };
            let page = self.client.range(&get.grain.table, &key, name, &span).map_err(failed)?;
            for entry in page.items.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                self.row((map.key.decode_text(&entry.key), map.value.decode_text(&entry.value)), || {
                    json!({"key": typed::to_json(map.key, &entry.key), "value": typed::to_json(map.value, &entry.value)})
                })?;
            }
            left = left.saturating_sub(page.items.len() as u64);
            let Some(last) = page.items.last().filter(|_| page.more) else { break };
            if get.reverse {
                to = Some(last.key.clone());
            } else {
                from.clone_from(&last.key);
                from.push(0);
            }
        }
        Ok(())
    }

    fn row(&mut self, text: (String, String), json: impl FnOnce() -> Value) -> Result<(), Failed> {
        match self.format {
            Format::Text => self.printer.line(&format!("{}\t{}", text.0, text.1)),
            Format::Json => self.printer.json(&json()),
        }
    }

    fn put(&mut self, grain: &Grain, value: &str) -> Result<(), Failed> {
        let (table, key) = self.grain(grain)?;
        let Some(of) = table.value else {
            return Err(Failed::new(Exit::Usage, format!("grains of {} have no value, only maps", grain.table)));
        };
        let value = typed::encode(&format!("the value of {}", grain.table), of, value)?;
        self.client.put(&grain.table, &key, &value).map_err(failed)
    }

    fn delete(&mut self, grain: &Grain) -> Result<(), Failed> {
        let (_, key) = self.grain(grain)?;
        self.client.delete(&grain.table, &key).map_err(failed)
    }

    fn map_get(&mut self, entry: &Entry) -> Result<(), Failed> {
        let (map, key, entry_key) = self.entry(entry)?;
        let grain = &entry.grain;
        let value = self.client.map_get(&grain.table, &key, &entry.map, &entry_key).map_err(failed)?;
        let value = value.ok_or_else(|| {
            no(format!("map {} of grain {:?} of {} has no entry {:?}", entry.map, grain.key, grain.table, entry.entry))
        })?;
        match self.format {
            Format::Text => self.printer.line(&map.value.decode_text(&value)),
            Format::Json => {
                let entry_key = typed::to_json(map.key, &entry_key);
                self.printer.json(&json!({"key": entry_key, "value": typed::to_json(map.value, &value)}))
            }
        }
    }

    fn map_put(&mut self, entry: &Entry, value: &str) -> Result<(), Failed> {
        let (map, key, entry_key) = self.entry(entry)?;
        let value = typed::encode(&format!("the value of map {}", entry.map), map.value, value)?;
        self.client.map_put(&entry.grain.table, &key, &entry.map, &entry_key, &value).map_err(failed)
    }

    fn map_delete(&mut self, entry: &Entry) -> Result<(), Failed> {
        let (_, key, entry_key) = self.entry(entry)?;
        self.client.map_delete(&entry.grain.table, &key, &entry.map, &entry_key).map_err(failed)
    }

    fn map_delete_range(&mut self, delete: &DeleteRange) -> Result<(), Failed> {
        let (table, key) = self.grain(&delete.grain)?;
        let (from, to) = bounds(&table, &delete.map, &delete.from, &delete.to)?;
        let table = &delete.grain.table;
        self.client.map_delete_range(table, &key, &delete.map, &from, to.as_deref()).map_err(failed)
    }

    /// The table, whose keys may start with that.
    fn prefixed(&mut self, name: &str, prefix: &str) -> Result<Table, Failed> {
        let table = self.client.table(name).map_err(failed)?;
        // A prefix of a number would be a prefix of its encoding, which nobody means.
        if !prefix.is_empty() && !matches!(table.key, DataType::String | DataType::Bytes) {
            let message = format!("--prefix is for keys of text; those of {name} have type {}", table.key);
            return Err(Failed::new(Exit::Usage, message));
        }
        Ok(table)
    }

    fn rows(&mut self, table: &Table, rows: &[Row], most: u64) -> Result<(), Failed> {
        for row in rows.iter().take(usize::try_from(most).unwrap_or(usize::MAX)) {
            let value = row.value.as_ref().zip(table.value);
            let text = value.map_or_else(String::new, |(bytes, of)| of.decode_text(bytes));
            self.row((table.key.decode_text(&row.key), text), || {
                let value = value.map_or(Value::Null, |(bytes, of)| typed::to_json(of, bytes));
                json!({"key": typed::to_json(table.key, &row.key), "value": value})
            })?;
        }
        Ok(())
    }

    fn query(&mut self, query: &Query) -> Result<(), Failed> {
        let filter = gristmill_base::query::parse(&query.expression)
            .map_err(|error| Failed::new(Exit::Usage, format!("the expression is wrong {error}")))?;
        let table = self.prefixed(&query.table, &query.prefix)?;
        let (mut after, mut left): (Option<Vec<u8>>, u64) = (None, query.limit);
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(0);
            let from = QueryFrom { prefix: query.prefix.as_bytes(), after: after.as_deref(), scan: query.scan, limit };
            let page = self.client.query(&query.table, &filter, &from).map_err(failed)?;
            self.rows(&table, &page.items, left)?;
            left = left.saturating_sub(page.items.len() as u64);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn scan(&mut self, name: &str, prefix: &str, limit: u64) -> Result<(), Failed> {
        let table = self.prefixed(name, prefix)?;
        let (mut after, mut left): (Option<Vec<u8>>, u64) = (None, limit);
        while left > 0 {
            let wanted = u32::try_from(left).unwrap_or(0);
            let page = self.client.scan(name, prefix.as_bytes(), after.as_deref(), wanted).map_err(failed)?;
            self.rows(&table, &page.items, left)?;
            left = left.saturating_sub(page.items.len() as u64);
            let Some(last) = page.items.last().filter(|_| page.more) else { break };
            if get.reverse {
                to = Some(last.key.clone());
            } else {
                from.clone_from(&last.key);
                from.push(0);
            }
        }
        Ok(())
    }

    fn row(&mut self, text: (String, String), json: impl FnOnce() -> Value) -> Result<(), Failed> {
        match self.format {
            Format::Text => self.printer.line(&format!("{}\t{}", text.0, text.1)),
            Format::Json => self.printer.json(&json()),
        }
    }

    fn put(&mut self, grain: &Grain, value: &str) -> Result<(), Failed> {
        let (table, key) = self.grain(grain)?;
        let Some(of) = table.value else {
            return Err(Failed::new(Exit::Usage, format!("grains of {} have no value, only maps", grain.table)));
        };
        let value = typed::encode(&format!("the value of {}", grain.table), of, value)?;
        self.client.put(&grain.table, &key, &value).map_err(failed)
    }

    fn delete(&mut self, grain: &Grain) -> Result<(), Failed> {
        let (_, key) = self.grain(grain)?;
        self.client.delete(&grain.table, &key).map_err(failed)
    }

    fn map_get(&mut self, entry: &Entry) -> Result<(), Failed> {
        let (map, key, entry_key) = self.entry(entry)?;
        let grain = &entry.grain;
        let value = self.client.map_get(&grain.table, &key, &entry.map, &entry_key).map_err(failed)?;
        let value = value.ok_or_else(|| {
            no(format!("map {} of grain {:?} of {} has no entry {:?}", entry.map, grain.key, grain.table, entry.entry))
        })?;
        match self.format {
            Format::Text => self.printer.line(&map.value.decode_text(&value)),
            Format::Json => {
                let entry_key = typed::to_json(map.key, &entry_key);
                self.printer.json(&json!({"key": entry_key, "value": typed::to_json(map.value, &value)}))
            }
        }
    }

    fn map_put(&mut self, entry: &Entry, value: &str) -> Result<(), Failed> {
        let (map, key, entry_key) = self.entry(entry)?;
        let value = typed::encode(&format!("the value of map {}", entry.map), map.value, value)?;
        self.client.map_put(&entry.grain.table, &key, &entry.map, &entry_key, &value).map_err(failed)
    }

    fn map_delete(&mut self, entry: &Entry) -> Result<(), Failed> {
        let (_, key, entry_key) = self.entry(entry)?;
        self.client.map_delete(&entry.grain.table, &key, &entry.map, &entry_key).map_err(failed)
    }

    fn map_delete_range(&mut self, delete: &DeleteRange) -> Result<(), Failed> {
        let (table, key) = self.grain(&delete.grain)?;
        let (from, to) = bounds(&table, &delete.map, &delete.from, &delete.to)?;
        let table = &delete.grain.table;
        self.client.map_delete_range(table, &key, &delete.map, &from, to.as_deref()).map_err(failed)
    }

    fn scan(&mut self, name: &str, prefix: &str, limit: u64) -> Result<(), Failed> {
        let table = self.prefixed(name, prefix)?;
        let (mut after, mut left): (Option<Vec<u8>>, u64) = (None, limit);
        while left > 0 {
            let wanted = u32::try_from(left).unwrap_or(0);
            let page = self.client.scan(name, prefix.as_bytes(), after.as_deref(), wanted).map_err(failed)?;
            for row in page.items.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                let value = row.value.as_ref().zip(table.value);
                let text = value.map_or_else(String::new, |(bytes, of)| of.decode_text(bytes));
                self.row((table.key.decode_text(&row.key), text), || {
                    let value = value.map_or(Value::Null, |(bytes, of)| typed::to_json(of, bytes));
                    json!({"key": typed::to_json(table.key, &row.key), "value": value})
                })?;
            }
            left = left.saturating_sub(page.items.len() as u64);
            let Some(last) = page.items.last().filter(|_| page.more) else { break };
            after = Some(last.key.clone());
        }
        Ok(())
    }
}
