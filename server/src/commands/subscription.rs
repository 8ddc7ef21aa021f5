//! `gristmill subscription`: pausing and resuming what feeds a table.

use super::app::cell;
use super::connect::{Server, failed};
use super::output::{Columns, Format, Output, Printer};
use crate::exit::{Exit, Failed};
use serde_json::Value;

/// Arguments of `subscription`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Hand no more events of a subscription to grains, until it is resumed. What was handed over before is handled; topics keep
    /// what the subscription has not got.
    Pause {
        /// The subscription; `TABLE.HANDLER.NAME` in the place of the name where several have it.
        #[arg(value_name = "APP/NAME")]
        subscription: String,
    },
    /// Go on with a subscription where it was paused.
    Resume {
        /// As of pause.
        #[arg(value_name = "APP/NAME")]
        subscription: String,
    },
    /// List the subscriptions of an app.
    List {
        /// The app.
        #[arg(value_name = "APP")]
        app: String,
    },
}

/// Does it.
///
/// # Errors
/// The server does not answer; there is no such app or subscription.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut client = arguments.server.connect()?;
    let format = arguments.output.output;
    let mut printer = Printer::new();
    match &arguments.action {
        Action::Pause { subscription } | Action::Resume { subscription } => {
            let paused = matches!(arguments.action, Action::Pause { .. });
            let (app, name) = subscription.split_once('/').ok_or_else(|| {
                Failed::new(Exit::Usage, format!("{subscription:?} is no subscription; allowed: APP/NAME"))
            })?;
            let line = object(&client.subscription_pause(app, name, paused).map_err(failed)?)?;
            match format {
                Format::Json => printer.json(&line)?,
                Format::Text => {
                    let is = if paused { "is paused" } else { "goes on" };
                    let before = if line["changed"] == false { " already" } else { "" };
                    printer.line(&format!("{app}/{} {is}{before}", cell(&line, "name")))?;
                }
            }
        }
        Action::List { app } => {
            let lines = object(&client.subscriptions(app).map_err(failed)?)?;
            let mut columns = Columns::new(&["subscription", "topic", "table", "handler", "key", "state"]);
            for line in lines.as_array().into_iter().flatten() {
                if format == Format::Json {
                    printer.json(line)?;
                    continue;
                }
                let state = if line["paused"] == true { "paused" } else { "on" };
                let key = line["key"].as_str().unwrap_or("-").to_owned();
                let name = format!("{app}/{}", cell(line, "name"));
                columns.row(vec![
                    name,
                    cell(line, "topic"),
                    cell(line, "table"),
                    cell(line, "handler"),
                    key,
                    state.to_owned(),
                ]);
            }
            if format == Format::Text {
                printer.table(&columns)?;
            }
        }
    }
    printer.flush()
}

fn object(text: &str) -> Result<Value, Failed> {
    serde_json::from_str(text)
        .map_err(|error| Failed::new(Exit::Internal, format!("the server's answer is no JSON: {error}")))
}
