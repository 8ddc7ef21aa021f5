//! One file per command: its arguments, and what it does with them.

mod serve;

use crate::exit::Failed;
use gristmill_sdk::App;

/// What the program can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Run a server until it is told to stop (SIGTERM or SIGINT).
    Serve(serve::Arguments),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, and the status that the process ends with.
    pub fn run(self, apps: Vec<App>) -> Result<(), Failed> {
        match self {
            Self::Serve(arguments) => serve::run(arguments, apps),
        }
    }
}
