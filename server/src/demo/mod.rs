//! `gristmill demo`: what a newcomer runs first. Real text goes in, right counts come out, across hard kills.

mod corpus;
mod counts;
mod hard_kills;
mod loading;
mod probe;
mod process;
mod progress;
mod shell;
mod story;
mod watch;

use crate::exit::Failed;
use gristmill_sdk::App;
use std::path::PathBuf;

/// Arguments of `demo`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    which: Which,
}

#[derive(clap::Subcommand)]
enum Which {
    /// Count the words of a million lines, twice, across three hard kills, and compare with a shell pipeline.
    ///
    /// Starts a server of its own on free ports. Exit status 0: every count is exact; 1: there are differences.
    WordCount(WordCount),
}

/// Arguments of `demo word-count`.
#[derive(clap::Args, Clone, Debug)]
struct WordCount {
    /// Folder of the text to count; if not given, the regular files under /usr/share/common-licenses and docs.
    #[arg(long, value_name = "DIR")]
    text: Option<PathBuf>,
    /// The text is repeated under numbered document names until there are this many lines.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    lines: u64,
    /// Where the server's data, its log and the text go; emptied first if it is from an earlier demo.
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    data: PathBuf,
    /// Leave the server running at the end; KEEP=1 in the environment does the same.
    #[arg(long)]
    keep: bool,
    /// Break a promise on purpose, which the demo must notice and end with status 1; in test builds only.
    #[arg(long, value_enum, value_name = "HOW")]
    sabotage: Option<Sabotage>,
}

/// Promises that a test build can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sabotage {
    /// The server acknowledges at append and holds back the writes of its log; the kills fall into that time.
    AckBeforeWrite,
    /// Recovery forgets which events have been consumed.
    ForgetPosition,
}

/// Runs a demo.
///
/// # Errors
/// A difference was found, or the server did not do what it should.
pub(crate) fn run(arguments: Arguments, apps: &[App]) -> Result<(), Failed> {
    let Which::WordCount(mut arguments) = arguments.which;
    arguments.keep |= std::env::var("KEEP").is_ok_and(|value| value == "1");
    story::run(&arguments, apps)
}
