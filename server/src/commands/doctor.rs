//! `gristmill doctor`: whether this machine is one for a server.

use super::output::{Format, Output, Printer};
use crate::config::{Flags, Loaded, Machine};
use crate::doctor::{Finding, Level, examine};
use crate::exit::{Exit, Failed};
use crate::serve::shard_count;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `doctor`: those of the server that is to run here.
#[derive(clap::Args)]
pub struct Arguments {
    /// The data directory; its file system and disk are looked at. It need not be there yet.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    output: Output,
}

/// Prints a line for each check.
///
/// # Errors
/// A server would not start here.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let loaded = Loaded::of_this_process(&arguments.flags)?;
    let machine = Machine::this();
    let shards = shard_count(&loaded.config, &machine)?;
    let findings = examine(&loaded.config, &machine, shards, arguments.data.as_deref());
    let mut printer = Printer::new();
    for finding in &findings {
        match arguments.output.output {
            Format::Json => printer.json(&json!({
                "check": finding.check, "level": finding.level.name(), "found": finding.found, "advice": finding.advice,
            }))?,
            Format::Text => printer.line(&line(finding))?,
        }
    }
    printer.flush()?;
    match findings.iter().filter(|finding| finding.level == Level::Fail).count() {
        0 => Ok(()),
        count => Err(Failed::new(Exit::Configuration, format!("{count} of {} checks failed", findings.len()))),
    }
}

fn line(finding: &Finding) -> String {
    let advice = if finding.advice.is_empty() { String::new() } else { format!(" -> {}", finding.advice) };
    format!("{:<4} {:<14} {}{advice}", finding.level.name(), finding.check, finding.found)
}
