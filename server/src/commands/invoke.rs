//! `gristmill invoke`: run a handler of a grain.

use super::connect::{Server, failed};
use super::output::{Format, Output, Printer};
use super::typed;
use crate::exit::Failed;
use gristmill_base::datatype::DataType;
use serde_json::json;

/// Arguments of `invoke`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The table.
    #[arg(value_name = "APP/TABLE")]
    table: String,
    /// Key of the grain.
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// The handler.
    handler: String,
    /// What the handler gets; nothing if not given.
    #[arg(default_value = "", allow_negative_numbers = true)]
    value: String,
    /// Type of the value that the handler wants: handlers declare none.
    #[arg(long, value_name = "TYPE", default_value = "bytes", value_parser = typed::parse_type)]
    value_type: DataType,
    /// Type of the handler's reply.
    #[arg(long, value_name = "TYPE", default_value = "bytes", value_parser = typed::parse_type)]
    reply_type: DataType,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// Does it, and prints the reply when all that the handler did is durable.
///
/// # Errors
/// The handler refuses or fails, the grain is parked, or as the server says.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let Arguments { table: name, handler, .. } = arguments;
    let mut client = arguments.server.connect()?;
    let table = client.table(name).map_err(failed)?;
    let key = typed::encode(&format!("the key of {name}"), table.key, &arguments.key)?;
    let value = typed::encode("the value", arguments.value_type, &arguments.value)?;
    let reply = client.invoke(name, &key, handler, &value).map_err(failed)?;
    let mut printer = Printer::new();
    match arguments.output.output {
        Format::Json => printer.json(&json!({"reply": typed::to_json(arguments.reply_type, &reply)}))?,
        Format::Text if reply.is_empty() => {}
        Format::Text => printer.line(&arguments.reply_type.decode_text(&reply))?,
    }
    printer.flush()
}
