//! `gristmill topic append`: one event, or the lines of files.

use super::app::{cell, rows};
use super::connect::failed;
use super::output::{Format, Printer, grouped};
use super::typed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::DataType;
use gristmill_base::limits::VALUE_BYTES_MAX;
use gristmill_client::{Client, Error, OwnedReply, Topic};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of `topic append`.
#[derive(clap::Args)]
pub(super) struct Append {
    /// The topic.
    #[arg(value_name = "APP/TOPIC")]
    topic: String,
    /// Key of the event. With --lines the default is the name of the line's file, or "stdin".
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    key: Option<String>,
    /// Append each line as an event of its own, in order. The line is the value. An empty line is an empty value, which a
    /// topic of text or bytes takes, unless it has compact: true.
    #[arg(long)]
    lines: bool,
    /// For topics of JSON values: names of two members. The value of each line is then an object with the name of its
    /// file in the first one and the line in the second one, such as {"doc": FILE, "text": LINE} with doc,text.
    #[arg(long, value_name = "NAME,NAME", requires = "lines", value_parser = members)]
    fields: Option<(String, String)>,
    /// Append an event without a value. In a topic with compact: true it deletes the key.
    #[arg(long, conflicts_with = "lines", requires = "key")]
    tombstone: bool,
    /// The value; with --lines any number of files instead (standard input if there is none, or for -).
    #[arg(value_name = "VALUE|FILE", allow_negative_numbers = true)]
    values: Vec<String>,
}

pub(super) fn members(text: &str) -> Result<(String, String), String> {
    match text.split_once(',') {
        Some((file, line)) if !file.is_empty() && !line.is_empty() && file != line => {
            Ok((file.to_owned(), line.to_owned()))
        }
        _ => Err("two different names with a comma between them are wanted, such as doc,text".to_owned()),
    }
}

/// Does it.
///
/// # Errors
/// A value that is not of the topic's type, or what the server says.
pub(super) fn run(client: &mut Client, append: &Append, format: Format) -> Result<(), Failed> {
    let topic = client.topic(&append.topic).map_err(failed)?;
    if append.lines {
        let takes_empty = !is_compacted(client, &append.topic)?;
        let lines = Lines { client, topic, takes_empty, append, appended: 0 };
        return lines.run(format);
    }
    let value = match append.values.as_slice() {
        [] if append.tombstone => Vec::new(),
        [value] if !append.tombstone => {
            let value = typed::encode("the value", topic.value, value)?;
            if value.is_empty() && is_compacted(client, &append.topic)? {
                return Err(deletes(&append.topic, "the value is empty"));
            }
            value
        }
        values => {
            let wanted = "one is wanted (quote it), none with --tombstone, or --lines with files";
            return Err(Failed::new(Exit::Usage, format!("{} values; {wanted}", values.len())));
        }
    };
    let key = typed::encode("the key", topic.key, append.key.as_deref().unwrap_or_default())?;
    let produced = client.produce(&append.topic, &key, &value).map_err(failed)?;
    let token = client.token(&append.topic, produced).map_err(failed)?.to_string();
    let (lane, offset) = (produced.lane.0, produced.offset.0);
    let mut printer = Printer::new();
    match format {
        Format::Json => printer.json(&json!({"lane": lane, "offset": offset, "token": token}))?,
        Format::Text => printer.line(&format!("lane {lane} offset {offset} token {token}"))?,
    }
    printer.flush()
}

/// Whether a topic keeps the last event of each key, so that one without a value deletes its key.
fn is_compacted(client: &mut Client, path: &str) -> Result<bool, Failed> {
    let topics = rows(&client.topic_list().map_err(failed)?, "topics")?;
    let is_it = |topic: &&Value| format!("{}/{}", cell(topic, "app"), cell(topic, "name")) == path;
    Ok(topics.iter().find(is_it).is_some_and(|topic| !topic["compact"].is_null()))
}

fn deletes(topic: &str, what: &str) -> Failed {
    let message = format!(
        "{what}, and {topic} is compacted: an event without a value deletes its key there; --key K --tombstone appends one"
    );
    Failed::new(Exit::Usage, message)
}

/// An appending of lines, many in flight.
struct Lines<'a> {
    client: &'a mut Client,
    topic: Topic,
    /// Whether an empty line is an event as any other.
    takes_empty: bool,
    append: &'a Append,
    /// Durable by now.
    appended: u64,
}

impl Lines<'_> {
    fn run(mut self, format: Format) -> Result<(), Failed> {
        let files = &self.append.values;
        let done = if files.is_empty() {
            self.file("stdin", stdin().lock())
        } else {
            files.iter().try_for_each(|name| self.named(name))
        };
        // What was submitted gets its end in any case, so that the number told is right.
        let ended = self.take(true);
        let mut printer = Printer::new();
        match format {
            Format::Json => printer.json(&json!({"appended": self.appended}))?,
            Format::Text => printer.line(&format!("{} events appended", grouped(self.appended)))?,
        }
        printer.flush()?;
        done.and(ended)
    }

    fn named(&mut self, name: &str) -> Result<(), Failed> {
        if name == "-" {
            return self.file("stdin", stdin().lock());
        }
        let path = PathBuf::from(name);
        let file = File::open(&path).map_err(|error| Failed::new(Exit::Usage, format!("{name}: {error}")))?;
        let base = path.file_name().unwrap_or_else(|| Path::new(name).as_os_str()).to_string_lossy().into_owned();
        self.file(&base, BufReader::with_capacity(1 << 20, file))
    }

    fn file(&mut self, name: &str, mut file: impl BufRead) -> Result<(), Failed> {
        let key = typed::encode("the key", self.topic.key, self.append.key.as_deref().unwrap_or(name))?;
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            // One more than a value may have, and the end of the line.
            let count = (&mut file)
                .take(VALUE_BYTES_MAX as u64 + 2)
                .read_until(b'\n', &mut line)
                .map_err(|error| Failed::new(Exit::Usage, format!("{name}, line {number}: {error}")))?;
            if count == 0 {
                break;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if line.len() > VALUE_BYTES_MAX {
                let message =
                    format!("{name}, line {number}: more than {VALUE_BYTES_MAX} bytes, which a value may have");
                return Err(Failed::new(Exit::Usage, message));
            }
            let value = self.value(name, number, &line)?;
            if value.is_empty() && !self.takes_empty {
                return Err(deletes(&self.append.topic, &format!("{name}, line {number} is empty")));
            }
            self.client.submit_patiently(self.topic.event(key.clone(), value)).map_err(failed)?;
            self.take(false)?;
        }
        Ok(())
    }

    fn value(&self, name: &str, number: u64, line: &[u8]) -> Result<Vec<u8>, Failed> {
        if let Some((file, text)) = &self.append.fields {
            if self.topic.value != DataType::Json {
                let message =
                    format!("--fields is for topics of JSON values; {} has {}", self.append.topic, self.topic.value);
                return Err(Failed::new(Exit::Usage, message));
            }
            let line = std::str::from_utf8(line)
                .map_err(|error| Failed::new(Exit::Usage, format!("{name}, line {number}: {error}")))?;
            let mut object = serde_json::Map::new();
            object.insert(file.clone(), name.into());
            object.insert(text.clone(), line.into());
            return Ok(Value::Object(object).to_string().into_bytes());
        }
        if self.topic.value == DataType::Bytes {
            return Ok(line.to_vec());
        }
        let what = format!("{name}, line {number}: the value");
        let text = std::str::from_utf8(line)
            .map_err(|error| Failed::new(Exit::Usage, format!("{what} has type {}: {error}", self.topic.value)))?;
        typed::encode(&what, self.topic.value, text)
    }

    /// Takes the results that are there, or all that are to come.
    fn take(&mut self, all: bool) -> Result<(), Failed> {
        let mut first = Ok(());
        let wait = if all { Duration::from_millis(500) } else { Duration::ZERO };
        while all || self.client.in_flight() > 1_024 {
            match self.client.take_ended(wait) {
                Some((_, ended)) => first = first.and(self.count(ended)),
                None if all && self.client.in_flight() > 0 => {}
                None => break,
            }
        }
        first
    }

    fn count(&mut self, ended: Result<OwnedReply, Error>) -> Result<(), Failed> {
        ended.map(|_| self.appended += 1).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_members_are_wanted() {
        assert_eq!(members("doc,text"), Ok(("doc".to_owned(), "text".to_owned())));
        assert!(members("doc").is_err() && members("doc,").is_err() && members("a,a").is_err());
    }
}
