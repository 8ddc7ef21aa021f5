//! What commands print: JSON for programs, aligned columns for people.

use crate::exit::{Exit, Failed};
use serde_json::Value;
use std::io::{self, BufWriter, Stdout, Write};

/// How a command that reads prints what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one object, or one a line for lists.
    Json,
}

/// The choice of format, on every command that reads.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Output {
    /// What to print: text for people, json for programs (one object, or one a line for lists).
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", global = true)]
    pub(super) output: Format,
}

/// Standard output, with the reader's going away taken as the end of the command.
pub(super) struct Printer {
    out: BufWriter<Stdout>,
}

impl Printer {
    pub(super) fn new() -> Self {
        Self { out: BufWriter::new(io::stdout()) }
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failed> {
        writeln!(self.out, "{text}").map_err(|error| unwritten(&error))
    }

    /// Prints a JSON value in one line.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failed> {
        self.line(&value.to_string())
    }

    /// Lets the reader have everything so far.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn flush(&mut self) -> Result<(), Failed> {
        self.out.flush().map_err(|error| unwritten(&error))
    }
}

fn unwritten(error: &io::Error) -> Failed {
    let quiet = error.kind() == io::ErrorKind::BrokenPipe;
    Failed::new(Exit::No, if quiet { String::new() } else { format!("standard output: {error}") })
}

/// Rows in columns, the first row being the head. Columns that hold numbers only are aligned to the right.
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A table with this head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// Adds a row; as long as the head.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert!(cells.len() == self.rows[0].len(), "every row has all columns");
        self.rows.push(cells);
    }

    /// The lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = 0..self.rows[0].len();
        let widths: Vec<usize> =
            columns.clone().map(|at| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
        let numeric: Vec<bool> =
            columns.map(|at| self.rows.len() > 1 && self.rows[1..].iter().all(|row| is_number(&row[at]))).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).zip(&numeric).map(|((cell, &width), &right)| {
                if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.' | '-'))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut columns = Columns::new(&["word", "count"]);
        columns.row(vec!["the".to_owned(), grouped(1_234_567)]);
        columns.row(vec!["grain".to_owned(), grouped(7)]);
        assert_eq!(columns.lines(), ["word       count", "the    1,234,567", "grain          7"]);
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_000_000].map(grouped), ["0", "999", "1,000", "1,000,000"]);
    }
}
