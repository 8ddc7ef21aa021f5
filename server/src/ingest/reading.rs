//! The reading side of a run, on a thread of its own: rows become records with their numbers, keys, values and slots.

use super::registry::{Identity, Mark};
use super::rows::{Content, Place, Row, RowFormat, at, open};
use crate::commands::typed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::SlotId;
use gristmill_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::placement::{lane_home, lane_of};
use gristmill_client::Topic;
use serde_json::Value;
use std::path::Path;
use std::sync::mpsc::SyncSender;

/// Records that are handed on together.
const BATCH_RECORDS: usize = 512;
/// Bytes of a malformed row that go to the topic of rejects.
const RAW_BYTES_MAX: usize = 64 << 10;

/// What happens with malformed rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnError {
    /// The run stops before it.
    #[default]
    Stop,
    /// It is passed over and counted.
    Skip,
    /// It goes to the topic of rejects.
    Reject,
}

/// A record of the input.
pub(super) struct Record {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Whether it is a malformed row on its way to the topic of rejects.
    pub(super) is_reject: bool,
    pub(super) slot: SlotId,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Records in order, and where the reading stands behind them.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// Of malformed rows: where and why, for the person.
    pub(super) told: Vec<String>,
    pub(super) after: Mark,
    /// Bytes read of all sources.
    pub(super) bytes: u64,
}

/// What the reading needs to know.
pub(super) struct Reading {
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) format: RowFormat,
    pub(super) on_error: OnError,
    pub(super) topic: Topic,
    pub(super) reject: Option<Topic>,
    pub(super) slot_count: u16,
    /// Where an earlier run came to.
    pub(super) mark: Mark,
    /// Its key is the same for all records.
    pub(super) fixed_key: Option<String>,
}

/// Home slot of the lane of a key.
fn home_of(topic: &Topic, key: &[u8], slot_count: u16) -> SlotId {
    lane_home(topic.id, lane_of(key, topic.lanes), topic.lanes, slot_count)
}

impl Reading {
    /// Reads everything behind the mark and hands it on. Ends early when nobody takes it.
    pub(super) fn run(&self, to: &SyncSender<Result<Batch, Failed>>) {
        if let Err(failed) = self.read(to) {
            // Whoever does not listen any more has its own reason.
            let _ = to.send(Err(failed));
        }
    }

    fn read(&self, to: &SyncSender<Result<Batch, Failed>>) -> Result<(), Failed> {
        let is_stdin = self.identity.sources.iter().any(|source| source.path == "-");
        let mut mark = if is_stdin { Mark::default() } else { self.mark.clone() };
        for at_source in mark.source..self.identity.sources.len() {
            if at_source > mark.source {
                mark = Mark { source: at_source, offset: 0, line: 1, crc: 0, ..mark };
            }
            if !self.source(at_source, &mut mark, to)? {
                return Ok(());
            }
        }
        if is_stdin && mark.records < self.mark.records {
            return Err(self.other_stdin(&format!("it ends after {} records", mark.records)));
        }
        Ok(())
    }

    fn other_stdin(&self, found: &str) -> Failed {
        let message = format!(
            "standard input is not what it was: {found}, and an earlier run of {} had read {} records, {} bytes",
            self.name, self.mark.records, self.mark.offset
        );
        Failed::new(Exit::No, message)
    }

    /// Reads one source; false if nobody takes the records any more.
    fn source(&self, index: usize, mark: &mut Mark, to: &SyncSender<Result<Batch, Failed>>) -> Result<bool, Failed> {
        let source = &self.identity.sources[index];
        let before: u64 = self.identity.sources[..index].iter().map(|source| source.bytes).sum();
        let mut rows = open(self.format, source, Place { offset: mark.offset, line: mark.line, crc: mark.crc })?;
        let base = Path::new(&source.path).file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy());
        let (path, base) = if source.path == "-" { ("stdin", "stdin".into()) } else { (source.path.as_str(), base) };
        let mut batch = Batch { records: Vec::new(), told: Vec::new(), after: mark.clone(), bytes: 0 };
        loop {
            let row = rows.next_row();
            let is_last = !matches!(row, Ok(Some(_)));
            let taken = row.and_then(|row| row.map_or(Ok(()), |row| self.take(row, path, &base, mark, &mut batch)));
            if taken.is_ok() {
                let place = rows.place();
                (mark.offset, mark.line, mark.crc) = (place.offset, place.line, place.crc);
            }
            if path == "stdin"
                && mark.records == self.mark.records
                && mark.records > 0
                && mark.crc != self.mark.crc
                && self.format != RowFormat::Csv
            {
                return Err(self.other_stdin("its content up to there is another"));
            }
            // A file that changes while it is read may have been read as half of something: its end is not sent, and
            // nothing of what it had not when the input began.
            let beyond = self.format != RowFormat::Parquet && mark.offset > source.bytes;
            if path != "stdin" && taken.is_ok() && (is_last || beyond) {
                source.check_same()?;
            }
            let full = batch.records.len() + batch.told.len() >= BATCH_RECORDS || rows.may_wait();
            if full || is_last || taken.is_err() {
                batch.after = mark.clone();
                batch.bytes = before + mark.offset;
                let empty = Batch { records: Vec::new(), told: Vec::new(), after: mark.clone(), bytes: 0 };
                if to.send(Ok(std::mem::replace(&mut batch, empty))).is_err() {
                    return Ok(false);
                }
            }
            taken?;
            if is_last {
                return Ok(true);
            }
        }
    }

    /// Makes a record of a row, or counts it, or stops.
    fn take(&self, row: Row, path: &str, base: &str, mark: &mut Mark, batch: &mut Batch) -> Result<(), Failed> {
        let line = row.line;
        let shaped = self.shape(&row, base);
        let number = mark.records + 1;
        match shaped {
            Ok((key, value)) => {
                let slot = home_of(&self.topic, &key, self.slot_count);
                batch.records.push(Record { number, is_reject: false, slot, key, value });
                mark.appended += 1;
            }
            Err(why) => {
                let failed = at(path, line, &why);
                match (self.on_error, &self.reject) {
                    (OnError::Stop, _) | (OnError::Reject, None) => {
                        let hint = "--on-error skip passes such rows over, --reject TOPIC keeps them";
                        return Err(Failed::new(failed.exit, format!("{failed} (record {number}); {hint}")));
                    }
                    (OnError::Skip, _) => mark.skipped += 1,
                    (OnError::Reject, Some(topic)) => {
                        let raw = &row.raw[..row.raw.len().min(RAW_BYTES_MAX)];
                        let value = serde_json::json!({
                            "input": self.name, "source": path, "line": line, "record": number, "reason": why,
                            "raw": String::from_utf8_lossy(raw),
                        });
                        let key = self.name.clone().into_bytes();
                        let slot = home_of(topic, &key, self.slot_count);
                        let value = value.to_string().into_bytes();
                        batch.records.push(Record { number, is_reject: true, slot, key, value });
                        mark.rejected += 1;
                    }
                }
                batch.told.push(failed.message);
            }
        }
        mark.records = number;
        Ok(())
    }

    /// Key and value of the event that a row is, or why it is none.
    fn shape(&self, row: &Row, base: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
        let content = row.content.as_ref().map_err(Clone::clone)?;
        let (field, value) = match content {
            Content::Object(object) => {
                let key = self.field_of(object)?;
                (key, serde_json::to_vec(object).map_err(|error| error.to_string())?)
            }
            Content::Line if self.format == RowFormat::Jsonl => {
                let text = std::str::from_utf8(&row.raw).map_err(|error| error.to_string())?;
                let key = if self.identity.key.is_some() {
                    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
                    let Value::Object(object) = value else { return Err("no JSON object, which has the key".into()) };
                    self.field_of(&object)?
                } else {
                    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("no JSON: {error}"))?;
                    None
                };
                (key, row.raw.clone())
            }
            Content::Line => self.line(&row.raw, base)?,
        };
        let text = field.or_else(|| self.fixed_key.clone()).unwrap_or_else(|| base.to_owned());
        let key = self.topic.key.encode_text(&text).map_err(|error| format!("the key {text:?}: {error}"))?;
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("a key of {} bytes; at most {KEY_BYTES_MAX} are allowed", key.len()));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("a value of {} bytes; at most {VALUE_BYTES_MAX} are allowed", value.len()));
        }
        self.topic.value.check(&value).map_err(|error| format!("the value: {error}"))?;
        Ok((key, value))
    }

    /// The key, where a field is named.
    fn field_of(&self, object: &serde_json::Map<String, Value>) -> Result<Option<String>, String> {
        let Some(name) = &self.identity.key else { return Ok(None) };
        match object.get(name) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Null) | None => Err(format!("it has no field {name}, which is the key")),
            Some(other) => Ok(Some(other.to_string())),
        }
    }

    fn line(&self, line: &[u8], base: &str) -> Result<(Option<String>, Vec<u8>), String> {
        if let Some((file, text)) = &self.identity.fields {
            let line = std::str::from_utf8(line).map_err(|error| format!("the line: {error}"))?;
            let key = match &self.identity.key {
                Some(key) if key == file => Some(base.to_owned()),
                Some(_) => Some(line.to_owned()),
                None => None,
            };
            let mut object = serde_json::Map::new();
            object.insert(file.clone(), base.into());
            object.insert(text.clone(), line.into());
            return Ok((key, Value::Object(object).to_string().into_bytes()));
        }
        if self.topic.value == DataType::Bytes {
            return Ok((None, line.to_vec()));
        }
        let text = std::str::from_utf8(line).map_err(|error| format!("the value: {error}"))?;
        let value = typed::encode("the value", self.topic.value, text).map_err(|failed| failed.message)?;
        Ok((None, value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::Source;
    use super::*;
    use gristmill_base::ids::TopicId;
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::thread;

    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
            let path = std::env::temp_dir().join(format!("gristmill-reading-{}-{name}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Begins to read a file; each batch waits until the one before is taken.
    fn read(file: &File, fields: Option<(String, String)>, on_error: OnError) -> Receiver<Result<Batch, Failed>> {
        let (key, value) = (DataType::String, if fields.is_some() { DataType::Json } else { DataType::String });
        let topic = Topic { name: "a/t".to_owned(), id: TopicId(1), key, value, lanes: 4 };
        let identity = Identity {
            topic: topic.name.clone(),
            topic_id: 1,
            format: "lines".to_owned(),
            key: None,
            fields,
            sources: vec![Source::look(file.0.to_str().unwrap()).unwrap()],
        };
        let reading = Reading {
            name: "n".to_owned(),
            identity,
            format: RowFormat::Lines,
            on_error,
            topic,
            reject: None,
            slot_count: 16,
            mark: Mark { line: 1, ..Mark::default() },
            fixed_key: None,
        };
        let (to, from) = sync_channel(0);
        thread::spawn(move || reading.run(&to));
        from
    }

    /// What comes, until an error or the end.
    fn rest(from: &Receiver<Result<Batch, Failed>>) -> (u64, Option<Failed>) {
        let mut last = 0;
        for batch in from {
            match batch {
                Ok(batch) => last = batch.records.last().map_or(last, |record| record.number),
                Err(failed) => return (last, Some(failed)),
            }
        }
        (last, None)
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_does_not_complete() {
        // More than the reader holds at once, and the last line is half of one.
        let line = format!("{}\n", "x".repeat(3_999));
        let text = format!("{}half", line.repeat(1_000));
        let file = File::new("grows", &text);
        assert_eq!(rest(&read(&file, None, OnError::Stop)), (1_001, None), "as it is");
        // It waits with the first batch, long before the end.
        let from = read(&file, None, OnError::Stop);
        let mut growing = std::fs::OpenOptions::new().append(true).open(&file.0).unwrap();
        growing.write_all(b" of a line\nand one more\n").unwrap();
        let (last, failed) = rest(&from);
        assert!(failed.expect("it is told").message.contains("it has grown"));
        assert!(last <= 1_000, "record {last} was sent");
    }

    #[test]
    fn a_line_that_is_no_utf_8_is_malformed_also_with_fields() {
        let file = File::new("bytes", b"one\n\xff two\nthree\n");
        for fields in [None, Some(("doc".to_owned(), "text".to_owned()))] {
            let skipped: Vec<_> = read(&file, fields.clone(), OnError::Skip).iter().map(Result::unwrap).collect();
            let after = &skipped.last().unwrap().after;
            assert_eq!((after.records, after.appended, after.skipped), (3, 2, 1));
            let told: Vec<&String> = skipped.iter().flat_map(|batch| &batch.told).collect();
            assert!(told.len() == 1 && told[0].contains(":2: the ") && told[0].contains("utf-8"), "{told:?}");
            let (last, failed) = rest(&read(&file, fields, OnError::Stop));
            assert!(failed.expect("it is told").message.contains(":2: the "));
            assert_eq!(last, 1);
        }
    }

    #[test]
    fn a_row_that_becomes_a_value_over_the_limit_is_malformed() {
        // Quotes take two bytes each in JSON.
        let file = File::new("large", format!("one\n{}\nthree\n", "\"".repeat(VALUE_BYTES_MAX / 2 + 1)));
        let fields = || Some(("doc".to_owned(), "text".to_owned()));
        assert_eq!(rest(&read(&file, fields(), OnError::Skip)), (3, None));
        let (last, failed) = rest(&read(&file, fields(), OnError::Stop));
        assert!(failed.expect("it is told").message.contains(":2: a value of"));
        assert_eq!(last, 1);
    }
}
