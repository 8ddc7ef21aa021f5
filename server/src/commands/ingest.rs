//! `gristmill ingest`: bounded inputs, and a list of them.

use super::connect::Server;
use super::output::{Columns, Format, Output, Printer, grouped};
use crate::exit::{Exit, Failed};
use crate::ingest::{self, Load, OnError, RowFormat, Settings};
use serde_json::Value;
use std::time::Duration;

/// Arguments of `ingest`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List the bounded inputs and how far they have come.
    List,
    /// Show one bounded input.
    Show {
        /// The input.
        #[arg(value_name = "APP/NAME")]
        input: String,
    },
    /// Forget a bounded input. Its events stay; the name may be used for another one.
    Delete {
        /// The input.
        #[arg(value_name = "APP/NAME")]
        input: String,
        /// Also one that is not complete; a run of it ends.
        #[arg(long)]
        force: bool,
    },
}

#[derive(clap::Args)]
struct LoadArguments {
    /// The topic.
    #[arg(value_name = "APP/TOPIC", required = true)]
    topic: Option<String>,
    /// Name of the input, unique in its app. Run again with the same name, it goes on where it was.
    #[arg(long, value_name = "NAME", required = true)]
    name: Option<String>,
    /// What the rows are. Rows of csv (with a head) and parquet become JSON objects.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "lines")]
    format: RowFormat,
    /// Field of the row that is the event's key. Without it the key is the name of the row's file, or "stdin".
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,
    /// For lines into topics of JSON values: each becomes an object with the name of its file in the first member and
    /// the line in the second, such as {"doc": FILE, "text": LINE} with doc,text.
    #[arg(long, value_name = "NAME,NAME", value_parser = super::append::members)]
    fields: Option<(String, String)>,
    /// What to do with malformed rows; with --reject the default is reject.
    #[arg(long, value_enum, value_name = "WHAT")]
    on_error: Option<OnError>,
    /// Topic of the same app that malformed rows go to, with file, line and reason.
    #[arg(long, value_name = "TOPIC")]
    reject: Option<String>,
    /// Wait until everything is handled, with all that it causes, at most so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::connect::seconds)]
    wait: Option<f64>,
    /// Files, in this order; standard input if there is none, or for -.
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
}

/// Does it.
///
/// # Errors
/// The input stays where it is, or the server does not answer.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let format = arguments.output.output;
    match &arguments.action {
        Some(Action::List) => list(arguments),
        Some(Action::Show { input }) => {
            let row = ingest::show(&mut arguments.server.connect()?, input)?;
            let mut printer = Printer::new();
            if format == Format::Json {
                printer.json(&row)?;
            } else {
                show(&mut printer, &row)?;
            }
            printer.flush()
        }
        Some(Action::Delete { input, force }) => {
            let row = ingest::delete(&mut arguments.server.connect()?, input, *force)?;
            let mut printer = Printer::new();
            match format {
                Format::Json => printer.json(&row)?,
                Format::Text => printer.line(&format!("{input} is deleted; its events stay"))?,
            }
            printer.flush()
        }
        None => load(arguments),
    }
}

fn settings(arguments: &Arguments) -> Result<Settings, Failed> {
    let load = &arguments.load;
    let topic = load.topic.clone().unwrap_or_default();
    let name = load.name.clone().unwrap_or_default();
    if name.is_empty() || name.len() > 200 || name.contains('/') {
        let message = format!("--name {name:?}: 1 to 200 bytes without / are allowed");
        return Err(Failed::new(Exit::Usage, message));
    }
    let app = topic.split('/').next().unwrap_or_default();
    let reject =
        load.reject.as_ref().map(|topic| if topic.contains('/') { topic.clone() } else { format!("{app}/{topic}") });
    let by_default = if reject.is_some() { OnError::Reject } else { OnError::Stop };
    Ok(Settings {
        topic,
        name,
        format: load.format,
        key: load.key.clone(),
        fields: load.fields.clone(),
        on_error: load.on_error.unwrap_or(by_default),
        reject,
        paths: load.paths.clone(),
        quiet: arguments.output.output == Format::Json,
        patience: arguments.server.timeout(),
    })
}

fn load(arguments: &Arguments) -> Result<(), Failed> {
    let settings = settings(arguments)?;
    let mut client = arguments.server.connect_bulk()?;
    let whereabouts = || arguments.server.whereabouts();
    let report = Load::run(&mut client, &settings, &whereabouts, &|_| Ok(()))?;
    let mut printer = Printer::new();
    match arguments.output.output {
        Format::Json => printer.json(&report)?,
        Format::Text => printer.line(&told(&report))?,
    }
    printer.flush()?;
    if let Some(seconds) = arguments.load.wait {
        let app = settings.topic.split('/').next().unwrap_or_default();
        super::app::wait(&mut client, app, Duration::from_secs_f64(seconds), Format::Text)?;
    }
    Ok(())
}

fn told(report: &Value) -> String {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    let malformed = match (number("rejected"), number("skipped")) {
        (0, 0) => String::new(),
        (rejected, 0) => format!(", {} rejected", grouped(rejected)),
        (0, skipped) => format!(", {} skipped", grouped(skipped)),
        (rejected, skipped) => format!(", {} rejected, {} skipped", grouped(rejected), grouped(skipped)),
    };
    let name = report["name"].as_str().unwrap_or_default();
    let seconds = report["seconds"].as_f64().unwrap_or(0.0);
    let all = format!("{} records, {} appended{malformed}", grouped(number("records")), grouped(number("appended")));
    let now = number("appended_now");
    if seconds == 0.0 {
        return format!(
            "{name} is {} already: {all}; nothing was appended now",
            report["state"].as_str().unwrap_or("?")
        );
    }
    let rate = (now as f64 / seconds) as u64;
    format!("{name} is complete: {all}; {} of them now, in {seconds:.1} s, {} records/s", grouped(now), grouped(rate))
}

fn text(row: &Value, field: &str) -> String {
    match &row[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        other => other.to_string(),
    }
}

fn list(arguments: &Arguments) -> Result<(), Failed> {
    let rows = ingest::list(&mut arguments.server.connect()?)?;
    let mut printer = Printer::new();
    if arguments.output.output == Format::Json {
        rows.iter().try_for_each(|row| printer.json(row))?;
        return printer.flush();
    }
    let fields = ["topic", "name", "state", "records", "appended", "rejected", "skipped"];
    let mut columns = Columns::new(&fields);
    for row in &rows {
        columns.row(fields.iter().map(|field| text(row, field)).collect());
    }
    columns.lines().iter().try_for_each(|line| printer.line(line))?;
    printer.flush()
}

fn show(printer: &mut Printer, row: &Value) -> Result<(), Failed> {
    for field in [
        "name", "topic", "state", "format", "key", "on_error", "reject", "records", "appended", "rejected", "skipped",
        "runs",
    ] {
        printer.line(&format!("{field:<9} {}", text(row, field)))?;
    }
    for source in row["sources"].as_array().into_iter().flatten() {
        printer.line(&format!("source    {} ({} bytes)", text(source, "path"), text(source, "bytes")))?;
    }
    Ok(())
}
