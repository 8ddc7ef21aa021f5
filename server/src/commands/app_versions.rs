//! `gristmill app diff`, `versions` and `rollback`: what another version of an app changes, which there were, and back to one.

use super::app::{cell, of_file, report};
use super::connect::failed;
use super::output::{Columns, Format, Printer};
use super::parked::{age, now_micros};
use crate::exit::{Exit, Failed};
use gristmill_client::Client;
use serde_json::Value;

/// What is otherwise, a line each; the sign says how grave it is.
pub(super) fn lines(value: &Value) -> Vec<String> {
    let line = |change: &Value| {
        let sign = match change["kind"].as_str() {
            Some("adds") => '+',
            Some("takes_away") => '-',
            Some("impossible") => '!',
            _ => '~',
        };
        format!("{sign} {}: {}", cell(change, "about"), cell(change, "text"))
    };
    value["changes"].as_array().into_iter().flatten().map(line).collect()
}

fn json(reply: &str) -> Result<Value, Failed> {
    let wrong = |error| Failed::new(Exit::Internal, format!("the server's answer is no JSON ({error}): {reply}"));
    serde_json::from_str(reply).map_err(wrong)
}

/// Says what loading a file would change.
///
/// # Errors
/// Something would; the server refuses the file.
pub(super) fn diff(
    client: &mut Client,
    (name, file_name): (&str, &str),
    text: &str,
    format: Format,
) -> Result<(), Failed> {
    let reply = client.app_diff(file_name, text).map_err(|error| of_file(error, file_name))?;
    let value = json(&reply)?;
    let (changed, found) = (value["changed"].as_bool().unwrap_or(true), lines(&value));
    let told = match value["from"].as_u64() {
        _ if !changed => format!("{name} is what is loaded"),
        None => format!("app {} is not loaded; it would be new", cell(&value, "app")),
        Some(from) if found.is_empty() => format!("{name} is version {from} in other words"),
        Some(_) => found.join("\n"),
    };
    report(format, &reply, &told)?;
    if changed { Err(Failed::new(Exit::No, format!("{file_name} is not what is loaded"))) } else { Ok(()) }
}

/// Lists the versions that are kept, or prints the file of one.
///
/// # Errors
/// There is no such app or version.
pub(super) fn versions(client: &mut Client, app: &str, file: Option<u32>, format: Format) -> Result<(), Failed> {
    let reply = client.app_versions(app, file.unwrap_or(0)).map_err(failed)?;
    let value = json(&reply)?;
    let mut printer = Printer::new();
    if file.is_some() {
        let text = value["file"].as_str().unwrap_or_default();
        printer.line(if format == Format::Json { &reply } else { text.trim_end_matches('\n') })?;
        return printer.flush();
    }
    let all = value["versions"].as_array().cloned().unwrap_or_default();
    if format == Format::Json {
        all.iter().try_for_each(|version| printer.json(version))?;
        return printer.flush();
    }
    let mut columns = Columns::new(&["version", "loaded", "file bytes", ""]);
    for version in &all {
        let loaded = match version["loaded_micros"].as_u64() {
            None | Some(0) => "?".to_owned(),
            Some(micros) => format!("{} ago", age(now_micros(), micros)),
        };
        let mark = if version["loaded"].as_bool() == Some(true) { "loaded now" } else { "" };
        columns.row(vec![cell(version, "version"), loaded, cell(version, "file_bytes"), mark.to_owned()]);
    }
    printer.table(&columns)?;
    printer.flush()
}

/// Loads the file of an earlier version.
///
/// # Errors
/// There is none, or it takes something away and is not forced.
pub(super) fn rollback(
    client: &mut Client,
    (app, to): (&str, Option<u32>),
    force: bool,
    format: Format,
) -> Result<(), Failed> {
    let to = match to {
        Some(to) => to,
        None => before(&json(&client.app_versions(app, 0).map_err(failed)?)?).ok_or_else(|| {
            Failed::new(Exit::Usage, format!("of app {app} no version is kept but the one that is loaded"))
        })?,
    };
    let value = json(&client.app_versions(app, to).map_err(failed)?)?;
    let text = value["file"].as_str().unwrap_or_default();
    let name = format!("version {to} of {app}");
    let reply = client.app_load(&name, text, force).map_err(|error| of_file(error, &name))?;
    let loaded = json(&reply)?;
    let told = match loaded["changed"].as_bool() {
        Some(false) => format!("{name} is loaded already, nothing changed"),
        _ => {
            let told = format!("{name} is loaded again, as version {}", cell(&loaded, "version"));
            [told].into_iter().chain(lines(&loaded)).collect::<Vec<_>>().join("\n")
        }
    };
    report(format, &reply, &told)
}

/// The version before the one that is loaded.
fn before(value: &Value) -> Option<u32> {
    let all = value["versions"].as_array()?;
    let earlier = all.iter().find(|version| version["loaded"].as_bool() == Some(false))?;
    earlier["version"].as_u64().and_then(|version| u32::try_from(version).ok())
}
