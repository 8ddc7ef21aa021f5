//! `gristmill app`: begin, load, list and delete apps, and their versions.

use super::app_replay;
use super::app_versions::{self, lines};
use super::connect::{Server, failed};
use super::init;
use super::output::{Columns, Format, Output, Printer};
use crate::exit::{Exit, Failed};
use crate::ingest;
use crate::text_file;
use gristmill_base::limits::APP_FILE_BYTES_MAX;
use gristmill_client::Client;
use gristmill_sdk::App;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Arguments of `app`.
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
    /// Make the folder of a new app: its file, a handler, a test of all of it in memory, and a server with it linked.
    Init(init::Init),
    /// Load an app, or another version of it: an app file, or the name of an app that is linked into this program. What keeps its
    /// name keeps its data, and runs on; what is otherwise is told.
    Load {
        /// An app file (YAML), or the name of a linked app.
        #[arg(value_name = "FILE|NAME")]
        app: String,
        /// Load it also where it takes something away.
        #[arg(long)]
        force: bool,
    },
    /// Show what loading an app file would change. Exit status 0: nothing; 1: something.
    Diff {
        /// An app file (YAML), or the name of a linked app.
        #[arg(value_name = "FILE|NAME")]
        app: String,
    },
    /// List the versions of an app that are kept, newest first; or print the app file of one.
    Versions {
        /// Its name.
        #[arg(value_name = "NAME")]
        app: String,
        /// Print the app file of this version.
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
        file: Option<u32>,
    },
    /// Load the app file of an earlier version again, as a new version.
    Rollback {
        /// Its name.
        #[arg(value_name = "NAME")]
        app: String,
        /// Which version; the one before if it is left out.
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
        /// Also where it takes something away.
        #[arg(long)]
        force: bool,
    },
    /// Build tables of an app anew by handling the events of their topics again, into next versions of them, while the present ones
    /// serve; at the end the next versions have their names. What leaves the tables meanwhile does so once.
    Replay(app_replay::Replay),
    /// Wait until everything that the app was given before is handled, with all that it caused, for --timeout at most (60
    /// seconds if it is not given). Timers are not waited for. Exit status 0: it is; 3: the time is over; 4: it is but for parked grains, which are listed.
    Wait {
        /// Its name.
        #[arg(value_name = "NAME")]
        app: String,
        /// What to wait for; settled is all there is.
        #[arg(long, required = true)]
        settled: bool,
    },
    /// List the apps that are loaded.
    List,
    /// Delete an app and everything that it holds.
    Delete {
        /// Its name.
        #[arg(value_name = "NAME")]
        app: String,
    },
}

/// Does it.
///
/// # Errors
/// The server does not answer, or refuses; its message names line and field of what is wrong in a file.
pub(super) fn run(arguments: &Arguments, apps: &[App]) -> Result<(), Failed> {
    match &arguments.action {
        Action::Init(init) => init::run(init, arguments.output.output),
        Action::Load { app, force } => load(arguments, app, *force, apps),
        Action::Replay(replay) => app_replay::run(replay, &arguments.server, arguments.output.output),
        Action::List => list(arguments),
        Action::Diff { app } => {
            let (file_name, text) = file_of(app, apps)?;
            app_versions::diff(&mut arguments.server.connect()?, (app, &file_name), &text, arguments.output.output)
        }
        Action::Versions { app, file } => {
            app_versions::versions(&mut arguments.server.connect()?, app, *file, arguments.output.output)
        }
        Action::Rollback { app, to, force } => {
            app_versions::rollback(&mut arguments.server.connect()?, (app, *to), *force, arguments.output.output)
        }
        Action::Wait { app, .. } => {
            let timeout = arguments.server.timeout_or(Duration::from_secs(60));
            wait(&mut arguments.server.connect()?, app, timeout, arguments.output.output)
        }
        Action::Delete { app } => {
            let reply = arguments.server.connect()?.app_delete(app).map_err(failed)?;
            report(arguments.output.output, &reply, &format!("{app} is deleted, with everything that it held"))
        }
    }
}

/// Waits until an app has settled, and says so.
///
/// # Errors
/// It has not in time, or grains are parked.
pub(super) fn wait(client: &mut Client, app: &str, timeout: Duration, format: Format) -> Result<(), Failed> {
    let found = ingest::settle(client, app, timeout)?;
    let mut printer = Printer::new();
    if format == Format::Json {
        printer.json(&found.json)?;
    } else {
        for grain in found.json["grains"].as_array().into_iter().flatten() {
            let line = format!("parked: {} {}: {}", cell(grain, "table"), cell(grain, "key"), cell(grain, "reason"));
            printer.line(&line)?;
        }
        if found.settled && found.parked == 0 {
            printer.line(&format!("{app} has settled"))?;
        }
    }
    printer.flush()?;
    if !found.settled {
        let seconds = timeout.as_secs_f64();
        let paused = found.json["paused"].as_array().into_iter().flatten();
        let paused: Vec<String> = paused.filter_map(|name| Some(format!("{app}/{}", name.as_str()?))).collect();
        let paused = match paused.len() {
            0 => String::new(),
            1 => format!("; subscription {} is paused", paused[0]),
            _ => format!("; subscriptions {} are paused", paused.join(", ")),
        };
        return Err(Failed::new(Exit::TimeOut, format!("{app} has not settled within {seconds} s{paused}")));
    }
    if found.parked > 0 {
        let message = format!("{app} has settled but for {} parked grains", found.parked);
        return Err(Failed::new(Exit::Parked, message));
    }
    Ok(())
}

/// Name and text of an app file, from the disk or as linked.
fn file_of(name: &str, apps: &[App]) -> Result<(String, String), Failed> {
    if let Some(app) = apps.iter().find(|app| app.name == name)
        && !Path::new(name).is_file()
    {
        return Ok((format!("{name} (linked)"), app.file.to_owned()));
    }
    let text = text_file::read(Path::new(name), APP_FILE_BYTES_MAX).map_err(|error| {
        let linked: Vec<&str> = apps.iter().map(|app| app.name).collect();
        let linked = if linked.is_empty() { "none".to_owned() } else { linked.join(", ") };
        Failed::new(Exit::Usage, format!("{name} is neither an app file ({error}) nor a linked app; linked: {linked}"))
    })?;
    Ok((name.to_owned(), text))
}

fn load(arguments: &Arguments, name: &str, force: bool, apps: &[App]) -> Result<(), Failed> {
    let (file_name, text) = file_of(name, apps)?;
    let reply = arguments.server.connect()?.app_load(&file_name, &text, force);
    let reply = reply.map_err(|error| of_file(error, &file_name))?;
    let value: Value = serde_json::from_str(&reply).unwrap_or_default();
    let unchanged = value["changed"].as_bool() == Some(false);
    let told = match value["from"].as_u64() {
        _ if unchanged => format!("{name} is loaded already, nothing changed"),
        None => format!("{name} is loaded"),
        Some(from) => {
            let told = format!("{name} is loaded: version {from} is followed by {}", cell(&value, "version"));
            [told].into_iter().chain(lines(&value)).collect::<Vec<_>>().join("\n")
        }
    };
    report(arguments.output.output, &reply, &told)
}

/// What the server says of a file.
pub(super) fn of_file(error: gristmill_client::Error, file: &str) -> Failed {
    let failed = failed(error);
    Failed { message: name_the_file(&failed.message, file), ..failed }
}

/// The server knows the text alone and calls it the app file; the person who sent it knows it by its name.
fn name_the_file(message: &str, file: &str) -> String {
    message.replacen("app file:", &format!("{file}:"), 1)
}

pub(super) fn report(format: Format, reply: &str, told: &str) -> Result<(), Failed> {
    let mut printer = Printer::new();
    printer.line(if format == Format::Json { reply } else { told })?;
    printer.flush()
}

fn list(arguments: &Arguments) -> Result<(), Failed> {
    let apps = rows(&arguments.server.connect()?.app_list().map_err(failed)?, "apps")?;
    let mut printer = Printer::new();
    if arguments.output.output == Format::Json {
        for app in &apps {
            printer.json(app)?;
        }
        return printer.flush();
    }
    let mut columns = Columns::new(&["app", "version", "topics", "tables"]);
    for app in &apps {
        let name = app["app"].as_str().or_else(|| app["name"].as_str()).unwrap_or("?");
        columns.row(vec![name.to_owned(), cell(app, "version"), cell(app, "topics"), cell(app, "tables")]);
    }
    printer.table(&columns)?;
    printer.flush()
}

/// A cell of a list.
pub(super) fn cell(row: &Value, field: &str) -> String {
    match &row[field] {
        Value::Null => "?".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The rows of a list that the server sent: the list itself, or a member of an object.
///
/// # Errors
/// It is no such list.
pub(super) fn rows(text: &str, member: &str) -> Result<Vec<Value>, Failed> {
    let wrong = || Failed::new(Exit::Internal, format!("the server's list of {member} is no list: {text}"));
    let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let list = value.as_array().or_else(|| value[member].as_array()).ok_or_else(wrong)?;
    Ok(list.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name() {
        assert_eq!(
            name_the_file("bad_request: app file:3:5: topics: x", "a/b.yaml"),
            "bad_request: a/b.yaml:3:5: topics: x"
        );
        assert_eq!(name_the_file("no app \"x\"", "a/b.yaml"), "no app \"x\"");
    }

    #[test]
    fn linked_apps_go_by_name_and_others_are_told() {
        let apps = [App::new("word-count", "app: word-count")];
        let found = file_of("word-count", &apps).unwrap();
        assert_eq!(found, ("word-count (linked)".to_owned(), "app: word-count".to_owned()));
        let failed = file_of("word-cont", &apps).unwrap_err();
        assert!(failed.exit == Exit::Usage && failed.message.ends_with("linked: word-count"), "{failed}");
    }
}
