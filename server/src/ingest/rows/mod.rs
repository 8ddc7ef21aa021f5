//! Rows of the sources of a bounded input, one after the other, with where each one is.

mod csv;
mod lines;
mod parquet;
mod watched;

use super::registry::Source;
use crate::exit::{Exit, Failed};
use gristmill_base::limits::VALUE_BYTES_MAX;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufReader, stdin};

/// What the rows of a source are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RowFormat {
    /// Each line is a value.
    Lines,
    /// Each line is a JSON value.
    Jsonl,
    /// Comma-separated values with a head; each row becomes an object.
    Csv,
    /// Parquet; each row becomes an object.
    Parquet,
}

/// Bytes that one row may have.
pub(super) const ROW_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// A row.
pub(super) struct Row {
    /// Line where it begins, from 1; of Parquet the row.
    pub(super) line: u64,
    /// What is in it, or why it is malformed.
    pub(super) content: Result<Content, String>,
    /// Its text, for the topic of rejects.
    pub(super) raw: Vec<u8>,
}

/// What is in a row.
pub(super) enum Content {
    /// A line; it is the row's `raw`.
    Line,
    /// Columns by name.
    Object(Map<String, Value>),
}

/// Where a reading stands: behind the last row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Byte, or row of a Parquet file.
    pub(super) offset: u64,
    /// Line, from 1.
    pub(super) line: u64,
    /// CRC32C of standard input up to there.
    pub(super) crc: u32,
}

/// A source that is being read.
pub(super) trait Rows {
    /// The next row.
    ///
    /// # Errors
    /// It cannot be read on: nothing behind it would be certain.
    fn next_row(&mut self) -> Result<Option<Row>, Failed>;

    /// Where it stands.
    fn place(&self) -> Place;

    /// Whether a row may be long in coming, so that those before it should go on.
    fn may_wait(&self) -> bool {
        false
    }
}

/// A failure at a line of a source.
pub(super) fn at(path: &str, line: u64, why: impl std::fmt::Display) -> Failed {
    Failed::new(Exit::No, format!("{path}:{line}: {why}"))
}

/// Whether a file is what it should be, as far as its head and its end say; before an input is begun with it.
///
/// # Errors
/// It cannot be opened, or has not that format.
pub(super) fn check_format(format: RowFormat, source: &Source) -> Result<(), Failed> {
    let looks = format == RowFormat::Parquet || (format == RowFormat::Csv && source.path != "-");
    if looks { open(format, source, Place::default()).map(drop) } else { Ok(()) }
}

/// Opens a source, to be read on from a place; standard input is always read from its start.
///
/// # Errors
/// It cannot be opened, or has not that format.
pub(super) fn open(format: RowFormat, source: &Source, from: Place) -> Result<Box<dyn Rows>, Failed> {
    let path = source.path.as_str();
    let failed = |error: std::io::Error| Failed::new(Exit::No, format!("{path}: {error}"));
    let is_stdin = path == "-";
    Ok(match format {
        RowFormat::Lines | RowFormat::Jsonl if is_stdin => {
            Box::new(lines::Lines::new("stdin", BufReader::with_capacity(1 << 20, stdin()), true))
        }
        RowFormat::Lines | RowFormat::Jsonl => {
            let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
            Box::new(lines::Lines::on_from(path, file, from).map_err(failed)?)
        }
        RowFormat::Csv if is_stdin => Box::new(csv::Rows::new("stdin", stdin(), true)?),
        RowFormat::Csv => Box::new(csv::Rows::on_from(path, File::open(path).map_err(failed)?, from)?),
        RowFormat::Parquet if is_stdin => {
            let message = "Parquet cannot be read from standard input: its index is at the end; name a file";
            return Err(Failed::new(Exit::Usage, message));
        }
        RowFormat::Parquet => Box::new(parquet::Rows::open(path, from)?),
    })
}
