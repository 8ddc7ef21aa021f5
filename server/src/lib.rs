//! The whole program as a library: boot, wiring and the command line. A program with handlers of its own is
//!
//! ```no_run
//! # fn app() -> gristmill_sdk::App { gristmill_sdk::App::new("mine", "app: mine") }
//! fn main() -> std::process::ExitCode {
//!     gristmill_server::cli().app(app()).run()
//! }
//! ```

pub mod allocator;
pub mod commands;
pub mod config;
pub mod demo;
mod doctor;
pub mod exit;
mod gateway;
mod ingest;
mod messages;
pub mod serve;
mod text_file;
mod workers;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use commands::Command;
use gristmill_sdk::App;
use std::process::ExitCode;

/// The command line of this crate alone.
#[cfg(test)]
pub(crate) fn command_line() -> clap::Command {
    Arguments::command()
}

/// What does an added subcommand.
type RunMatches = fn(&ArgMatches) -> ExitCode;

/// A program in the making: the command line and the apps linked into it.
#[derive(Default)]
pub struct Cli {
    apps: Vec<App>,
    more: Vec<(clap::Command, RunMatches)>,
}

/// The command line without any app.
#[must_use]
pub fn cli() -> Cli {
    Cli::default()
}

/// Durable streams, state and handlers in one program.
#[derive(Parser)]
#[command(name = "gristmill", version, about, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Links an app: its handlers can be loaded, and its file is known to the commands that show it.
    #[must_use]
    pub fn app(mut self, app: App) -> Self {
        self.apps.push(app);
        self
    }

    /// Adds a subcommand of a tool that this crate does not link; `run` gets what was said behind its name.
    #[must_use]
    pub fn command(mut self, command: clap::Command, run: fn(&ArgMatches) -> ExitCode) -> Self {
        self.more.push((command, run));
        self
    }

    /// Says how the program's allocator is asked for its numbers, which a server shows among its metrics.
    #[must_use]
    pub fn allocator(self, ask: allocator::Ask) -> Self {
        allocator::is_asked_by(ask);
        self
    }

    /// Does what the command line says. A failure is told on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let all = Arguments::command().subcommands(self.more.iter().map(|(command, _)| command.clone()));
        let parsed = all.clone().try_get_matches().and_then(|matches| {
            let named = matches.subcommand();
            let added = named.and_then(|(name, inner)| {
                self.more.iter().find(|(command, _)| command.get_name() == name).zip(Some(inner))
            });
            match added {
                Some(((_, run), inner)) => Ok(Err(run(inner))),
                None => Arguments::from_arg_matches(&matches).map(Ok),
            }
        });
        let arguments = match parsed {
            Ok(Ok(arguments)) => arguments,
            Ok(Err(done)) => return done,
            Err(error) => {
                // Nothing can be done where even the usage cannot be printed.
                let _ = error.print();
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::Exit::Usage as u8));
            }
        };
        let mut apps = self.apps;
        apps.push(ingest::app());
        match arguments.command.run(apps, all) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failed) => {
                if !failed.message.is_empty() {
                    eprintln!("gristmill: {failed}");
                }
                failed.exit.into()
            }
        }
    }
}
