//! What commands print: JSON for programs, aligned columns for people, with colours on a terminal alone.

use crate::exit::{Exit, Failed};
use anstyle::{AnsiColor, Style};
use serde_json::Value;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

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
    colours: bool,
}

impl Printer {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let colours = wants_colours(out.is_terminal(), |name| std::env::var_os(name).is_some_and(|it| !it.is_empty()));
        Self { out: BufWriter::new(out), colours }
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failed> {
        writeln!(self.out, "{text}").map_err(|error| unwritten(&error))
    }

    /// Prints a table.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn table(&mut self, columns: &Columns) -> Result<(), Failed> {
        columns.lines_in(self.colours).iter().try_for_each(|line| self.line(line))
    }

    /// Whether a person sees colours.
    pub(super) fn has_colours(&self) -> bool {
        self.colours
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

/// Colours are for people at a terminal who have not said that they want none (<https://no-color.org>), and not for
/// terminals without them.
fn wants_colours(is_terminal: bool, is_set: impl Fn(&str) -> bool) -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    is_terminal && !dumb && !is_set("NO_COLOR")
}

/// What a cell tells: its colour on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nothing special.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Odd,
    /// Somebody should do something.
    Bad,
}

impl Mood {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Odd => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Rows in columns below a head. Columns that hold numbers only are aligned to the right. All tables for people are made
/// with it.
pub(crate) struct Columns {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Moods that are not plain: row, column.
    moods: Vec<(usize, usize, Mood)>,
}

impl Columns {
    /// A table with this head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new(), moods: Vec::new() }
    }

    /// Adds a row; as long as the head.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert!(cells.len() == self.head.len(), "every row has all columns");
        self.rows.push(cells);
    }

    /// Sets what the cell of the last row in this column tells.
    pub(crate) fn mood(&mut self, column: &str, mood: Mood) {
        let place = self.head.iter().position(|name| name == column);
        self.moods.push((self.rows.len() - 1, place.expect("moods are of columns that are there"), mood));
    }

    /// The lines, without colours.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.styled(|_, _| Style::new())
    }

    /// The lines, with or without colours.
    pub(crate) fn lines_in(&self, colours: bool) -> Vec<String> {
        if colours { self.coloured_lines() } else { self.lines() }
    }

    /// The lines, the head bold and cells by their mood.
    fn coloured_lines(&self) -> Vec<String> {
        self.styled(|row, column| match row {
            None => Style::new().bold(),
            Some(row) => {
                let found = self.moods.iter().find(|(at, place, _)| (*at, *place) == (row, column));
                found.map_or(Mood::Plain, |(.., mood)| *mood).style()
            }
        })
    }

    /// The lines; `style` is asked for each cell by row (`None` for the head) and column.
    fn styled(&self, style: impl Fn(Option<usize>, usize) -> Style) -> Vec<String> {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |at: usize| all().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let is_numeric = |at: usize| !self.rows.is_empty() && self.rows.iter().all(|row| is_number(&row[at]));
        let places: Vec<(usize, bool)> = (0..self.head.len()).map(|at| (width(at), is_numeric(at))).collect();
        let line = |(number, row): (usize, &Vec<String>)| {
            let last = row.iter().rposition(|cell| !cell.is_empty()).map_or(0, |at| at + 1);
            let mut line = String::new();
            for (at, cell) in row.iter().take(last).enumerate() {
                let (width, right) = places[at];
                let blank = " ".repeat(width - cell.chars().count());
                let style = style(number.checked_sub(1), at);
                let cell = format!("{style}{cell}{style:#}");
                if right {
                    line.push_str(&(blank + &cell));
                } else {
                    line.push_str(&cell);
                    line.push_str(if at + 1 < last { &blank } else { "" });
                }
                line.push_str(if at + 1 < last { "  " } else { "" });
            }
            line
        };
        all().enumerate().map(line).collect()
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
    fn colours_are_for_terminals_and_change_no_width() {
        let mut columns = Columns::new(&["shard", "log"]);
        columns.row(vec!["0".to_owned(), "FAILED".to_owned()]);
        columns.mood("log", Mood::Bad);
        columns.row(vec!["1".to_owned(), "ok".to_owned()]);
        let (plain, coloured) = (columns.lines(), columns.coloured_lines());
        assert!(plain.iter().all(|line| !line.contains('\u{1b}')), "{plain:?}");
        assert!(coloured[1].contains("\u{1b}[31mFAILED") || coloured[1].contains("31m"), "{coloured:?}");
        let stripped = |line: &String| {
            let pieces = line.split('\u{1b}').map(|piece| piece.split_once('m').map_or(piece, |(_, rest)| rest));
            line.split('\u{1b}').next().unwrap_or_default().to_owned() + &pieces.skip(1).collect::<String>()
        };
        assert_eq!(coloured.iter().map(stripped).collect::<Vec<_>>(), plain);
        assert!(wants_colours(true, |_| false) || std::env::var_os("TERM").is_some_and(|term| term == "dumb"));
        assert!(!wants_colours(false, |_| false), "a file or a pipe");
        assert!(!wants_colours(true, |name| name == "NO_COLOR"));
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_000_000].map(grouped), ["0", "999", "1,000", "1,000,000"]);
    }
}
