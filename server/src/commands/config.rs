//! `gristmill config`: what a server would run with, and who says so.

use super::output::{Columns, Format, Output, Printer};
use crate::config::{Flags, Key, Loaded, Machine, Origin, Sizes, TooSmall};
use crate::exit::Failed;
use crate::serve::shard_count;
use serde_json::{Value, json};

/// Arguments of `config`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Show every key with its value and where that comes from: default, file with line, environment, flag.
    Show(Show),
}

#[derive(clap::Args)]
struct Show {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    output: Output,
}

/// Shows the configuration.
///
/// # Errors
/// It is wrong, or gives a server too little memory; then everything is shown first.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let What::Show(show) = &arguments.what;
    let loaded = Loaded::of_this_process(&show.flags)?;
    let machine = Machine::this();
    let shards = shard_count(&loaded.config, &machine)?;
    let sizes = Sizes::of(&loaded.config, &machine, shards);
    let rows = loaded.each().map(|(key, value, origin)| match value {
        Some(value) => (key, value, origin.to_string(), origin),
        None => {
            let (value, why) = unset(key, &loaded, &machine, shards, &sizes);
            (key, value, why, origin)
        }
    });
    let mut printer = Printer::new();
    if show.output.output == Format::Json {
        for (key, value, told, origin) in rows {
            printer.json(&row(key, &value, &told, origin))?;
        }
        printer.flush()?;
        return fits(&loaded, &machine, shards, &sizes);
    }
    let mut columns = Columns::new(&["key", "value", "origin"]);
    rows.for_each(|(key, value, told, _)| columns.row(vec![key.path(), value, told]));
    printer.table(&columns)?;
    printer.line("")?;
    for (what, bytes) in derived(&sizes) {
        printer.line(&format!("{what}: {bytes} bytes of each shard, from memory.budget_bytes"))?;
    }
    printer.flush()?;
    fits(&loaded, &machine, shards, &sizes)
}

/// Whether a server would start with this memory.
fn fits(loaded: &Loaded, machine: &Machine, shards: usize, sizes: &Sizes) -> Result<(), Failed> {
    match sizes.too_small(&loaded.config, machine, shards) {
        Some(TooSmall { found, advice }) => {
            Err(Failed::configuration(format!("a server would not start: {found}; {advice}")))
        }
        None => Ok(()),
    }
}

fn row(key: &Key, value: &str, told: &str, origin: &Origin) -> Value {
    let (kind, line) = match origin {
        Origin::Default => ("default", None),
        Origin::File(_, line) => ("file", Some(*line)),
        Origin::Environment(_) => ("environment", None),
        Origin::Flag(_) => ("flag", None),
    };
    json!({
        "key": key.path(), "value": value, "origin": kind, "from": told, "line": line,
        "variable": key.variable(), "flag": format!("--{}", key.flag),
    })
}

/// What a key that nobody set comes to, and why.
fn unset(key: &Key, loaded: &Loaded, machine: &Machine, shards: usize, sizes: &Sizes) -> (String, String) {
    let listen = &loaded.config.listen;
    let (value, why) = match key.path().as_str() {
        "listen.http_port" if listen.port_base == 0 => ("0".to_owned(), "a free port, as the others".to_owned()),
        "listen.http_port" => ((u32::from(listen.port_base) + 80).to_string(), "listen.port_base plus 80".to_owned()),
        "listen.http_names" if listen.host.is_loopback() => (String::new(), "addresses and localhost alone".to_owned()),
        "listen.http_names" => (String::new(), "any, as others can reach it".to_owned()),
        "shards.cores" => ("all".to_owned(), "those that the process may use".to_owned()),
        "shards.count" => {
            let why = machine.limits.cpus.map_or_else(
                || "one per CPU".to_owned(),
                |cpus| format!("one per CPU, the control group has {cpus:.2} CPUs of time"),
            );
            (shards.to_string(), why)
        }
        "memory.budget_bytes" => {
            let (bytes, who) = machine.memory();
            (sizes.budget_bytes.to_string(), format!("80 % of the {bytes} bytes of {who}"))
        }
        _ => ("as measured".to_owned(), "the data directory's calibration, if there is one".to_owned()),
    };
    (value, format!("default: {why}"))
}

fn derived(sizes: &Sizes) -> [(&'static str, usize); 7] {
    [
        ("rows in memory", sizes.resident_bytes),
        ("cached blocks", sizes.cache_bytes),
        ("log between checkpoints", usize::try_from(sizes.checkpoint_bytes).unwrap_or(usize::MAX)),
        ("inputs that wait", sizes.queued_bytes),
        ("unfinished frames", sizes.doors.input),
        ("requests in flight", sizes.doors.flight),
        ("unsent replies", sizes.doors.output),
    ]
}
