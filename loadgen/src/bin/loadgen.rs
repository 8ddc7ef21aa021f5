//! The load generator as a program of its own.

use std::process::ExitCode;

use clap::Parser;
use gristmill_loadgen::cli::{Command, execute};

/// Makes load on a running Gristmill server and measures it.
#[derive(Parser)]
#[command(name = "loadgen", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    execute(&Program::parse().command)
}
