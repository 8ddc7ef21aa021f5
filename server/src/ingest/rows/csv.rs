//! Comma-separated values with a head, quoted as RFC 4180 says.

use super::watched::{Seen, Watched};
use super::{Content, Place, Row, at};
use crate::exit::{Exit, Failed};
use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::rc::Rc;

/// See the module.
pub(super) struct Rows<R> {
    name: String,
    reader: Reader<Watched<R>>,
    seen: Rc<Seen>,
    columns: Vec<String>,
    record: ByteRecord,
    line: u64,
}

impl<R: Read> Rows<R> {
    /// From the start; reads the head.
    pub(super) fn new(name: &str, file: R, sums: bool) -> Result<Self, Failed> {
        let (watched, seen) = Watched::new(file, sums);
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(watched);
        let head = reader.byte_headers().map_err(|error| at(name, 1, error))?.clone();
        let mut columns = Vec::new();
        for field in &head {
            let column = std::str::from_utf8(field).map_err(|error| at(name, 1, format!("the head: {error}")))?;
            columns.push(column.trim_start_matches('\u{feff}').to_owned());
        }
        let distinct: BTreeSet<&String> = columns.iter().collect();
        if distinct.len() < columns.len() {
            return Err(Failed::new(Exit::No, format!("{name}:1: two columns of the head have the same name")));
        }
        let line = reader.position().line();
        Ok(Self { name: name.to_owned(), reader, seen, columns, record: ByteRecord::new(), line })
    }

    fn content(&self) -> Result<Content, String> {
        let (found, wanted) = (self.record.len(), self.columns.len());
        if found != wanted {
            return Err(format!("{found} columns; the head has {wanted}"));
        }
        let mut object = Map::new();
        for (column, field) in self.columns.iter().zip(&self.record) {
            let text = std::str::from_utf8(field).map_err(|error| format!("column {column}: {error}"))?;
            object.insert(column.clone(), Value::String(text.to_owned()));
        }
        Ok(Content::Object(object))
    }

    fn raw(&self) -> Vec<u8> {
        self.record.iter().collect::<Vec<_>>().join(&b','.to_owned())
    }
}

impl<R: Read + Seek> Rows<R> {
    /// From a place behind the head.
    pub(super) fn on_from(name: &str, file: R, from: Place) -> Result<Self, Failed> {
        let mut rows = Self::new(name, file, false)?;
        if from.offset > 0 {
            let mut position = Position::new();
            position.set_byte(from.offset).set_line(from.line).set_record(1);
            rows.reader.seek(position).map_err(|error| at(name, from.line, error))?;
            rows.line = from.line;
        }
        Ok(rows)
    }
}

impl<R: Read> super::Rows for Rows<R> {
    fn next_row(&mut self) -> Result<Option<Row>, Failed> {
        self.seen.since.set(0);
        let more = self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => at(&self.name, self.line, error),
            other => at(&self.name, self.line, format!("{other:?}")),
        })?;
        if !more {
            return Ok(None);
        }
        let line = self.record.position().map_or(self.line, Position::line);
        self.line = self.reader.position().line();
        let content = if self.seen.ends_open() {
            Err("a quote is opened and not closed before the end of the file".to_owned())
        } else {
            self.content()
        };
        let raw = if content.is_err() { self.raw() } else { Vec::new() };
        Ok(Some(Row { line, content, raw }))
    }

    fn place(&self) -> Place {
        let position = self.reader.position();
        Place { offset: position.byte(), line: position.line(), crc: self.seen.crc.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ROW_BYTES_MAX, Rows as _};
    use super::*;
    use std::io::Cursor;

    fn told(text: &str) -> Vec<String> {
        let mut rows = Rows::new("x", Cursor::new(text.to_owned()), false).unwrap();
        let mut all = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            all.push(match row.content {
                Ok(Content::Object(object)) => format!("{}: {}", row.line, Value::Object(object)),
                Ok(Content::Line) => unreachable!("rows of CSV are objects"),
                Err(why) => format!("{}: {why}", row.line),
            });
        }
        all
    }

    #[test]
    fn rows_become_objects_and_malformed_ones_are_told_with_their_line() {
        let rows = told("a,b\n1,\"x\ny\"\n2\n3,z,4\n5,\"\"\n");
        assert_eq!(rows[0], r#"2: {"a":"1","b":"x\ny"}"#);
        assert_eq!(rows[1..3], ["4: 1 columns; the head has 2", "5: 3 columns; the head has 2"]);
        assert_eq!(rows[3], r#"6: {"a":"5","b":""}"#);
    }

    #[test]
    fn an_unclosed_quote_is_found_at_the_end_and_before_it_fills_the_memory() {
        let rows = told("a,b\n1,2\n3,\"never\nclosed,4\n5,6\n");
        assert!(rows[1].starts_with("3: a quote is opened and not closed"), "{rows:?}");
        let endless = format!("a,b\n1,2\n3,\"{}", "x\n".repeat(ROW_BYTES_MAX));
        let mut rows = Rows::new("f.csv", Cursor::new(endless), false).unwrap();
        assert!(rows.next_row().unwrap().is_some());
        let failed = rows.next_row().map(|_| ()).unwrap_err();
        assert!(
            failed.message.starts_with("f.csv:3: a row of more than") && failed.message.contains("quote"),
            "{failed}"
        );
    }

    #[test]
    fn rows_are_read_on_from_any_of_them() {
        let text = "a,b\n1,\"x\ny\"\n2,3\n4,5\n";
        let mut rows = Rows::new("x", Cursor::new(text), false).unwrap();
        rows.next_row().unwrap();
        let place = rows.place();
        let mut again = Rows::on_from("x", Cursor::new(text), place).unwrap();
        let row = again.next_row().unwrap().unwrap();
        assert!(row.line == 4 && matches!(row.content, Ok(Content::Object(object)) if object["b"] == "3"));
    }
}
