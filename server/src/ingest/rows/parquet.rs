//! Parquet.

use super::{Content, Place, Row, at};
use crate::exit::Failed;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::Value;
use std::fs::File;

/// See the module.
pub(super) struct Rows {
    name: String,
    rows: RowIter<'static>,
    /// Rows behind us.
    done: u64,
    /// Rows of the file.
    count: u64,
}

impl Rows {
    /// Opens a file, to be read on behind so many rows. Those are read again and dropped.
    pub(super) fn open(path: &str, from: Place) -> Result<Self, Failed> {
        let cut = |error: parquet::errors::ParquetError| {
            at(path, 0, format!("this is no whole Parquet file; it may be cut short: {error}"))
        };
        let file = File::open(path).map_err(|error| at(path, 0, error))?;
        let reader = SerializedFileReader::new(file).map_err(cut)?;
        let count = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mut rows = Self { name: path.to_owned(), rows: RowIter::from_file_into(Box::new(reader)), done: 0, count };
        while rows.done < from.offset {
            if rows.step()?.is_none() {
                break;
            }
        }
        Ok(rows)
    }

    fn step(&mut self) -> Result<Option<parquet::record::Row>, Failed> {
        let line = self.done + 1;
        match self.rows.next() {
            Some(Ok(row)) => {
                self.done = line;
                Ok(Some(row))
            }
            Some(Err(error)) => Err(at(&self.name, line, format!("the row cannot be read: {error}"))),
            None if self.done < self.count => {
                let why = format!("the file ends here, and says that it has {} rows", self.count);
                Err(at(&self.name, line, why))
            }
            None => Ok(None),
        }
    }
}

impl super::Rows for Rows {
    fn next_row(&mut self) -> Result<Option<Row>, Failed> {
        let Some(row) = self.step()? else { return Ok(None) };
        let value = row.to_json_value();
        let raw = value.to_string().into_bytes();
        let content = match value {
            Value::Object(object) => Ok(Content::Object(object)),
            other => Err(format!("a row that is no object: {other}")),
        };
        Ok(Some(Row { line: self.done, content, raw }))
    }

    fn place(&self) -> Place {
        Place { offset: self.done, line: self.done + 1, crc: 0 }
    }
}
