//! One file per command: its arguments, and what it does with them.

mod app;
mod app_replay;
mod app_versions;
mod append;
mod bench;
mod completions;
mod config;
mod connect;
mod data;
mod doctor;
mod ingest;
mod init;
mod invoke;
mod man;
mod output;
mod parked;
mod serve;
mod skipped;
mod status;
mod subscription;
mod table;
mod table_watch;
mod top;
mod topic;
mod trace;
pub(crate) mod typed;
mod why;

pub(crate) use connect::failed;
pub(crate) use output::{Columns, grouped};

use crate::demo;
use crate::exit::Failed;
use gristmill_sdk::App;

/// What the program can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Run a server until it is told to stop (SIGTERM or SIGINT).
    Serve(serve::Arguments),
    /// Measure this machine.
    Bench(bench::Arguments),
    /// Check whether this machine is one for a server, and say what to do about what is not.
    Doctor(doctor::Arguments),
    /// Show the configuration that a server would have, and where each value comes from.
    Config(config::Arguments),
    /// Show how a running server is: its shards, their cores, and what is unsettled.
    Status(status::Arguments),
    /// Watch a running server: rates, queues, topics, handlers, hot keys.
    Top(top::Arguments),
    /// Follow requests for a while and show where their time goes, stage by stage.
    Trace(trace::Arguments),
    /// Begin a new app; load, list and delete apps.
    App(app::Arguments),
    /// Append and read events, list topics.
    Topic(topic::Arguments),
    /// Load files into a topic, each record once, across kills of either side.
    Ingest(ingest::Arguments),
    /// Read and change grains.
    Table(table::Arguments),
    /// List keys that failed for good, and let them run again or give up what waits for them.
    Parked(parked::Arguments),
    /// Say why a key does not move, and what to do about it.
    Why(why::Arguments),
    /// Pause, resume and list subscriptions.
    Subscription(subscription::Arguments),
    /// Run a handler of a grain and print its reply.
    Invoke(invoke::Arguments),
    /// Look at a data directory, back it up, restore it.
    Data(data::Arguments),
    /// Run a demonstration: word-count, across hard kills.
    Demo(demo::Arguments),
    /// Print completions for a shell: bash, zsh, fish, elvish or powershell.
    Completions(completions::Arguments),
    /// Write the manual pages into a folder.
    Man(man::Arguments),
}

impl Command {
    /// Does it. `line` is the whole command line, added commands too.
    ///
    /// # Errors
    /// What went wrong, and the status that the process ends with.
    pub fn run(self, apps: Vec<App>, line: clap::Command) -> Result<(), Failed> {
        match self {
            Self::Serve(arguments) => serve::run(&arguments, apps),
            Self::Bench(arguments) => bench::run(&arguments),
            Self::Doctor(arguments) => doctor::run(&arguments),
            Self::Config(arguments) => config::run(&arguments),
            Self::Status(arguments) => status::run(&arguments),
            Self::Top(arguments) => top::run(&arguments),
            Self::Trace(arguments) => trace::run(&arguments),
            Self::App(arguments) => app::run(&arguments, &apps),
            Self::Topic(arguments) => topic::run(&arguments),
            Self::Ingest(arguments) => ingest::run(&arguments),
            Self::Table(arguments) => table::run(&arguments),
            Self::Parked(arguments) => parked::run(&arguments),
            Self::Why(arguments) => why::run(&arguments),
            Self::Subscription(arguments) => subscription::run(&arguments),
            Self::Invoke(arguments) => invoke::run(&arguments),
            Self::Data(arguments) => data::run(&arguments),
            Self::Demo(arguments) => demo::run(arguments, &apps),
            Self::Completions(arguments) => completions::run(&arguments, line),
            Self::Man(arguments) => man::run(&arguments, line),
        }
    }
}
