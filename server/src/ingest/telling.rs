//! What a run tells the person: a bar on a terminal, plain lines elsewhere, nothing to programs.

use crate::commands::grouped;
use gristmill_client::clock::now;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Malformed rows that are shown one by one.
const ROWS_SHOWN: u64 = 20;

/// See the module.
pub(super) struct Telling {
    name: String,
    quiet: bool,
    bar: Option<ProgressBar>,
    /// Bytes of all sources; 0 if not known.
    total: u64,
    /// Bytes behind the mark at the beginning.
    from: u64,
    started: Instant,
    next_line: Instant,
    rows: u64,
}

impl Telling {
    /// Begins at a byte of so many.
    pub(super) fn new(name: &str, quiet: bool, from: u64, total: u64) -> Self {
        let bar = (!quiet && stdout().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stdout());
            let style =
                if total > 0 { "{prefix} [{bar:40}] {percent}% {msg}, {eta} left" } else { "{prefix} {spinner} {msg}" };
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(name.to_owned());
            bar.set_position(from);
            bar.reset_eta();
            bar
        });
        let started = now();
        Self { name: name.to_owned(), quiet, bar, total, from, started, next_line: started + LINE_EVERY, rows: 0 }
    }

    /// So many records of this run are appended, with so many bytes of all sources.
    pub(super) fn at(&mut self, records: u64, bytes: u64) {
        let seconds = (now() - self.started).as_secs_f64().max(1e-6);
        let rate = (records as f64 / seconds) as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(format!("{} records, {} records/s", grouped(records), grouped(rate)));
        } else if !self.quiet && now() >= self.next_line {
            self.next_line = now() + LINE_EVERY;
            let done = bytes.saturating_sub(self.from);
            let left = if self.total > 0 && done > 0 {
                let left = seconds * self.total.saturating_sub(bytes) as f64 / done as f64;
                format!(", {}%, {left:.0} s left", bytes * 100 / self.total)
            } else {
                String::new()
            };
            println!("{}: {} records, {} records/s{left}", self.name, grouped(records), grouped(rate));
        }
    }

    /// Tells something without disturbing the bar.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Tells of a malformed row; of the first ones.
    pub(super) fn row(&mut self, text: &str) {
        self.rows += 1;
        if self.rows <= ROWS_SHOWN {
            self.say(text);
        } else if self.rows == ROWS_SHOWN + 1 {
            self.say("more malformed rows are counted and not shown");
        }
    }

    /// Seconds since the beginning.
    pub(super) fn seconds(&self) -> f64 {
        (now() - self.started).as_secs_f64()
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
