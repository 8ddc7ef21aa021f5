//! `gristmill table`: read and change grains.

mod condition;

use super::connect::{Server, failed};
use super::output::{Format, Output, Printer};
use super::{table_watch, typed};
use crate::exit::{Exit, Failed};
use condition::{Condition, If, told};
use gristmill_base::datatype::DataType;
use gristmill_client::{Client, Map, QueryFrom, Row, Span, Table, Token, Version};
use serde_json::{Value, json};
use std::time::Duration;

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
    /// Read the values of many grains at once, in the order of their keys on the command line.
    GetMany {
        /// The table.
        #[arg(value_name = "APP/TABLE")]
        table: String,
        /// Keys of the grains.
        #[arg(value_name = "KEY", required = true, allow_negative_numbers = true)]
        keys: Vec<String>,
    },
    /// Set a grain's value. Done when it is durable.
    Put {
        #[command(flatten)]
        grain: Grain,
        /// The value.
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        condition: If,
    },
    /// Delete a grain: its value, maps and timers.
    Delete {
        #[command(flatten)]
        grain: Grain,
        #[command(flatten)]
        condition: If,
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
    /// Follow what changes in a table, as it becomes durable, until Ctrl-C; then print the token to go on with.
    Watch(table_watch::Arguments),
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
    /// Look at every grain where no index serves. In JSON the last line says what has served, as served_by.
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
    /// Tell the value's version too, for --if-version of put and delete.
    #[arg(long, conflicts_with = "map")]
    version: bool,
    /// Only once the grain has handled this event, as `topic append` tells it: what the event has done to the grain is seen.
    #[arg(long, value_name = "TOKEN")]
    after: Option<Token>,
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
        /// Tell the entry's version too, for --if-version of put and delete.
        #[arg(long)]
        version: bool,
        /// Only once the grain has handled this event, as `topic append` tells it.
        #[arg(long, value_name = "TOKEN")]
        after: Option<Token>,
    },
    /// Set an entry. Done when it is durable.
    Put {
        #[command(flatten)]
        entry: Entry,
        /// The value.
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        condition: If,
    },
    /// Delete an entry.
    Delete {
        #[command(flatten)]
        entry: Entry,
        #[command(flatten)]
        condition: If,
    },
    /// Delete the entries from one key to before another, however many they are.
    DeleteRange(DeleteRange),
}

/// Does it.
///
/// # Errors
/// As the server says; a name that does not exist; a key or value that is not of its type.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    if let Action::Watch(watch) = &arguments.action {
        let client = arguments.server.connect()?;
        return table_watch::run(client, arguments.output.output, Printer::new(), watch);
    }
    let mut at = At {
        client: arguments.server.connect()?,
        format: arguments.output.output,
        printer: Printer::new(),
        wait: arguments.server.timeout(),
    };
    match &arguments.action {
        Action::Get(get) => at.read(get)?,
        Action::GetMany { table, keys } => at.get_many(table, keys)?,
        Action::Put { grain, value, condition } => at.put(grain, value, condition)?,
        Action::Delete { grain, condition } => at.delete(grain, condition)?,
        Action::Map(OnMap::Get { entry, version, after }) => at.map_get(entry, *version, after.as_ref())?,
        Action::Map(OnMap::Put { entry, value, condition }) => at.map_put(entry, value, condition)?,
        Action::Map(OnMap::Delete { entry, condition }) => at.map_delete(entry, condition)?,
        Action::Map(OnMap::DeleteRange(delete)) => at.map_delete_range(delete)?,
        Action::Scan { table, prefix, limit } => at.scan(table, prefix, *limit)?,
        Action::Watch(_) => {}
        Action::Query(query) => at.query(query)?,
    }
    at.printer.flush()
}

/// A server, and what is printed.
struct At {
    client: Client,
    format: Format,
    printer: Printer,
    /// How long a read may wait for an event.
    wait: Duration,
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

    fn read(&mut self, get: &Get) -> Result<(), Failed> {
        if let Some(token) = &get.after {
            let key = self.grain(&get.grain)?.1;
            self.client.wait_after(&get.grain.table, &key, token, self.wait).map_err(failed)?;
        }
        if get.map.is_some() { self.range(get) } else { self.get(&get.grain, get.version) }
    }

    fn get(&mut self, grain: &Grain, with_version: bool) -> Result<(), Failed> {
        let (table, key) = self.grain(grain)?;
        let Some(of) = table.value else {
            let maps: Vec<&str> = table.maps.iter().map(|map| map.name.as_str()).collect();
            let message =
                format!("grains of {} have no value, only maps: say --map {}", grain.table, maps.join(" or --map "));
            return Err(Failed::new(Exit::Usage, message));
        };
        let found = match with_version {
            true => self.client.get_versioned(&grain.table, &key).map_err(failed)?.map(|(v, value)| (Some(v), value)),
            false => self.client.get(&grain.table, &key).map_err(failed)?.map(|value| (None, value)),
        };
        let found = found.ok_or_else(|| no(format!("{} has no grain {:?} with a value", grain.table, grain.key)))?;
        self.tell((table.key, &key), of, found)
    }

    /// Prints a row, with its version if that is wanted.
    fn tell(
        &mut self,
        (key_type, key): (DataType, &[u8]),
        of: DataType,
        (version, value): (Option<Version>, Vec<u8>),
    ) -> Result<(), Failed> {
        match self.format {
            Format::Text => {
                let version = version.map_or_else(String::new, |version| format!("\t{version}"));
                self.printer.line(&format!("{}{version}", of.decode_text(&value)))
            }
            Format::Json => {
                let mut row = json!({"key": typed::to_json(key_type, key), "value": typed::to_json(of, &value)});
                if let Some(version) = version {
                    row["version"] = version.to_string().into();
                }
                self.printer.json(&row)
            }
        }
    }

    fn get_many(&mut self, name: &str, keys: &[String]) -> Result<(), Failed> {
        let table = self.client.table(name).map_err(failed)?;
        let Some(of) = table.value else {
            return Err(Failed::new(Exit::Usage, format!("grains of {name} have no value, only maps")));
        };
        let encode = |key: &String| typed::encode(&format!("the key of {name}"), table.key, key);
        let keys: Vec<Vec<u8>> = keys.iter().map(encode).collect::<Result<_, _>>()?;
        let wanted: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let rows = self.client.get_many(name, &wanted).map_err(failed)?;
        for (key, value) in keys.iter().zip(rows) {
            let text = value.as_ref().map_or_else(String::new, |value| of.decode_text(value));
            self.row((table.key.decode_text(key), text), || {
                let shown = value.as_ref().map_or(Value::Null, |value| typed::to_json(of, value));
                json!({"key": typed::to_json(table.key, key), "found": value.is_some(), "value": shown})
            })?;
        }
        Ok(())
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

    fn put(&mut self, grain: &Grain, value: &str, condition: &If) -> Result<(), Failed> {
        let (table, key) = self.grain(grain)?;
        let Some(of) = table.value else {
            return Err(Failed::new(Exit::Usage, format!("grains of {} have no value, only maps", grain.table)));
        };
        let value = typed::encode(&format!("the value of {}", grain.table), of, value)?;
        match condition.of(of)? {
            None => self.client.put(&grain.table, &key, &value).map_err(failed),
            Some(condition) => self.compare(grain, &key, of, &condition, Some(&value)),
        }
    }

    fn compare(
        &mut self,
        grain: &Grain,
        key: &[u8],
        of: DataType,
        condition: &Condition,
        new: Option<&[u8]>,
    ) -> Result<(), Failed> {
        let compared = self.client.compare_and_set(&grain.table, key, &condition.as_client(), new).map_err(failed)?;
        told(compared, of, self.format, &mut self.printer)
    }

    fn delete(&mut self, grain: &Grain, condition: &If) -> Result<(), Failed> {
        let (table, key) = self.grain(grain)?;
        let of = table.value.unwrap_or(DataType::Bytes);
        match condition.of(of)? {
            None => self.client.delete(&grain.table, &key).map_err(failed),
            Some(condition) => self.compare(grain, &key, of, &condition, None),
        }
    }

    fn map_get(&mut self, entry: &Entry, with_version: bool, after: Option<&Token>) -> Result<(), Failed> {
        let (map, key, entry_key) = self.entry(entry)?;
        let (grain, name) = (&entry.grain, &entry.map);
        if let Some(token) = after {
            self.client.wait_after(&grain.table, &key, token, self.wait).map_err(failed)?;
        }
        let found = match with_version {
            true => {
                let found = self.client.map_get_versioned(&grain.table, &key, name, &entry_key).map_err(failed)?;
                found.map(|(version, value)| (Some(version), value))
            }
            false => {
                let found = self.client.map_get(&grain.table, &key, name, &entry_key).map_err(failed)?;
                found.map(|value| (None, value))
            }
        };
        let found = found.ok_or_else(|| {
            no(format!("map {name} of grain {:?} of {} has no entry {:?}", grain.key, grain.table, entry.entry))
        })?;
        self.tell((map.key, &entry_key), map.value, found)
    }

    fn map_put(&mut self, entry: &Entry, value: &str, condition: &If) -> Result<(), Failed> {
        let (map, key, entry_key) = self.entry(entry)?;
        let value = typed::encode(&format!("the value of map {}", entry.map), map.value, value)?;
        match condition.of(map.value)? {
            None => self.client.map_put(&entry.grain.table, &key, &entry.map, &entry_key, &value).map_err(failed),
            Some(condition) => self.map_compare(entry, (&map, &key, &entry_key), &condition, Some(&value)),
        }
    }

    fn map_compare(
        &mut self,
        entry: &Entry,
        (map, key, entry_key): (&Map, &[u8], &[u8]),
        condition: &Condition,
        new: Option<&[u8]>,
    ) -> Result<(), Failed> {
        let (table, place) = (&entry.grain.table, (entry.map.as_str(), entry_key));
        let compared = self.client.map_compare_and_set(table, key, place, &condition.as_client(), new);
        told(compared.map_err(failed)?, map.value, self.format, &mut self.printer)
    }

    fn map_delete(&mut self, entry: &Entry, condition: &If) -> Result<(), Failed> {
        let (map, key, entry_key) = self.entry(entry)?;
        match condition.of(map.value)? {
            None => self.client.map_delete(&entry.grain.table, &key, &entry.map, &entry_key).map_err(failed),
            Some(condition) => self.map_compare(entry, (&map, &key, &entry_key), &condition, None),
        }
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
        // By what all pages were found; one that was not makes it a scan.
        let (mut served, mut looked): (Option<Option<String>>, u64) = (None, 0);
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(0);
            let from = QueryFrom { prefix: query.prefix.as_bytes(), after: after.as_deref(), scan: query.scan, limit };
            let page = self.client.query(&query.table, &filter, &from).map_err(failed)?;
            self.rows(&table, &page.items, left)?;
            left = left.saturating_sub(page.items.len() as u64);
            looked += page.looked;
            served =
                Some(served.unwrap_or_else(|| page.index.clone()).filter(|index| page.index.as_ref() == Some(index)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if let (Some(served), Format::Json) = (served, self.format) {
            let served = served.map_or_else(|| "scan".to_owned(), |index| format!("index {index}"));
            self.printer.json(&json!({"served_by": served, "looked": looked}))?;
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
            after = Some(last.key.clone());
        }
        Ok(())
    }
}
