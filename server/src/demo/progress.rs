//! How far an appending has got: a bar on a terminal, plain lines elsewhere.

use crate::commands::grouped;
use gristmill_client::clock::now;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    next_line: Instant,
}

impl Progress {
    /// Begins at 0 of so many lines.
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let bar = stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
            let style = "{msg} [{bar:40}] {human_pos}/{human_len} lines, {per_sec}, {eta} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what);
            bar
        });
        let started = now();
        Self { what, total, bar, started, next_line: started + LINE_EVERY }
    }

    /// So many lines are acknowledged by now.
    pub(super) fn at(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if now() >= self.next_line {
            self.next_line = now() + LINE_EVERY;
            println!(
                "  {} {} of {} lines, {} lines/s",
                self.what,
                grouped(done),
                grouped(self.total),
                grouped(self.rate(done))
            );
        }
    }

    /// Prints a line without disturbing the bar.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => println!("{text}"),
        }
    }

    /// Lines per second since the beginning.
    pub(super) fn rate(&self, done: u64) -> u64 {
        (done as f64 / (now() - self.started).as_secs_f64().max(1e-6)) as u64
    }

    /// Seconds since the beginning.
    pub(super) fn seconds(&self) -> f64 {
        (now() - self.started).as_secs_f64()
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
