//! Bounded inputs: files or standard input, loaded into a topic, each record once, across kills of both sides.

mod load;
mod reading;
mod registry;
mod rows;
mod sender;
mod source;
mod telling;

pub(crate) use load::{Load, Settings};
pub(crate) use reading::OnError;
pub(crate) use registry::app;
pub(crate) use rows::RowFormat;

use crate::commands::failed;
use crate::exit::{Exit, Failed};
use gristmill_client::clock::{now, until};
use gristmill_client::{Client, Error, Status, Topic};
use registry::{Registry, Row};
use sender::Sender;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long those who look at inputs wait to learn whether what is complete is applied by now.
const LOOK: Duration = Duration::from_millis(300);

/// An input as programs read it. The names are API.
fn shown(row: &Row) -> Value {
    let sources: Vec<Value> = row
        .identity
        .sources
        .iter()
        .map(|source| json!({"path": source.path, "bytes": source.bytes, "modified_nanos": source.modified_nanos}))
        .collect();
    json!({
        "name": row.name, "topic": row.identity.topic, "state": row.state, "format": row.identity.format,
        "key": row.identity.key, "on_error": row.on_error, "reject": row.reject.as_ref().map(|(topic, _)| topic),
        "records": row.mark.records, "appended": row.mark.appended, "rejected": row.mark.rejected,
        "skipped": row.mark.skipped, "runs": row.owner, "begun_micros": row.begun_micros,
        "complete_micros": row.complete_micros, "sources": sources,
    })
}

/// All inputs. What is complete and turns out to be settled within [`LOOK`] is noted as applied first.
///
/// # Errors
/// The server does not answer.
pub(crate) fn list(client: &mut Client) -> Result<Vec<Value>, Failed> {
    if !(Registry { client: &mut *client }).is_there()? {
        return Ok(Vec::new());
    }
    let rows = Registry { client: &mut *client }.list()?;
    let complete = rows.iter().filter(|(_, row)| row.state == "complete");
    let apps: BTreeSet<&str> = complete.filter_map(|(key, _)| key.split_once('/')).map(|(app, _)| app).collect();
    if apps.is_empty() {
        return Ok(rows.iter().map(|(_, row)| shown(row)).collect());
    }
    look_for_applied(client, apps.into_iter())?;
    Ok(Registry { client }.list()?.iter().map(|(_, row)| shown(row)).collect())
}

/// Asks these apps whether they have settled, all together for no longer than [`LOOK`].
fn look_for_applied<'a>(client: &mut Client, apps: impl Iterator<Item = &'a str>) -> Result<(), Failed> {
    let deadline = now() + LOOK;
    for app in apps {
        let left = until(deadline);
        if left.is_zero() {
            break;
        }
        match settle(client, app, left) {
            // The inputs of an app that is gone stay as they are.
            Ok(_) => {}
            Err(failed) if failed.exit == Exit::No => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok(())
}

fn find(client: &mut Client, key: &str) -> Result<Row, Failed> {
    let mut registry = Registry { client };
    let row = if registry.is_there()? { registry.get(key)? } else { None };
    row.ok_or_else(|| Failed::new(Exit::No, format!("there is no input {key}; gristmill ingest list tells which are")))
}

/// One input, by `APP/NAME`.
///
/// # Errors
/// There is none, or the server does not answer.
pub(crate) fn show(client: &mut Client, key: &str) -> Result<Value, Failed> {
    let row = find(client, key)?;
    let Some((app, _)) = key.split_once('/').filter(|_| row.state == "complete") else { return Ok(shown(&row)) };
    look_for_applied(client, [app].into_iter())?;
    Ok(shown(&find(client, key)?))
}

/// The topic that an input was for; nothing if it is gone, or was made anew: then it has nothing of the input. That nobody
/// answered says neither.
fn still_there(asked: Result<Topic, Error>, id: u32) -> Result<Option<Topic>, Failed> {
    match asked {
        Ok(topic) => Ok(Some(topic).filter(|topic| topic.id.0 == id)),
        Err(error) if error.status() == Some(Status::UnknownName) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Forgets an input. Its events stay; nothing of it is appended any more, whoever still sends. Its streams end first, then
/// its row goes: cut off in between, the row is still there, no run goes on with it, and deleting it again finishes.
///
/// # Errors
/// There is none, it is open and `force` is not said, or the server does not answer.
pub(crate) fn delete(client: &mut Client, key: &str, force: bool) -> Result<Value, Failed> {
    let row = find(client, key)?;
    row.may_be_removed(force).map_err(|why| Failed::new(Exit::No, why))?;
    let mut ends = vec![(row.identity.topic.clone(), row.identity.topic_id, row.number)];
    ends.extend(row.reject.clone().map(|(topic, id)| (topic, id, row.reject_number)));
    for (topic, id, number) in ends {
        if let Some(topic) = still_there(client.topic(&topic), id)? {
            Sender::end(client, &topic, number)?;
        }
    }
    let row = Registry { client }.remove(key, row.number, force)?;
    Ok(shown(&row))
}

/// Takes note that what these apps' complete inputs had is handled.
///
/// # Errors
/// The server does not answer.
pub(crate) fn note_applied(client: &mut Client, app: &str, complete: &[String]) -> Result<(), Failed> {
    let mut registry = Registry { client };
    for key in complete {
        if let Some(row) = registry.get(key)?
            && row.state == "complete"
            && key.split_once('/').is_some_and(|(of, _)| of == app)
        {
            registry.state(key, &row, "applied")?;
        }
    }
    Ok(())
}

/// Inputs of an app that are complete and not yet applied.
///
/// # Errors
/// The server does not answer.
pub(crate) fn complete(client: &mut Client, app: &str) -> Result<Vec<String>, Failed> {
    let mut registry = Registry { client };
    if !registry.is_there()? {
        return Ok(Vec::new());
    }
    let is_one =
        |(key, row): &(String, Row)| row.state == "complete" && key.split_once('/').is_some_and(|(of, _)| of == app);
    Ok(registry.list()?.into_iter().filter(is_one).map(|(key, _)| key).collect())
}

/// What the answer to "has it settled" says.
pub(crate) struct Settled {
    /// Nothing of before is on its way any more.
    pub(crate) settled: bool,
    /// Parked grains.
    pub(crate) parked: u64,
    /// As the server said it.
    pub(crate) json: Value,
}

/// Waits until an app has settled, and notes that its complete inputs are applied then.
///
/// # Errors
/// There is no such app, or the server does not answer.
pub(crate) fn settle(client: &mut Client, app: &str, wait: Duration) -> Result<Settled, Failed> {
    let before = complete(client, app)?;
    let text = client.app_settle(app, wait).map_err(failed)?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|error| Failed::new(Exit::Internal, format!("the server said {text}: {error}")))?;
    let (settled, parked) = (json["settled"] == true, json["parked"].as_u64().unwrap_or(0));
    if settled && parked == 0 {
        note_applied(client, app, &before)?;
    }
    Ok(Settled { settled, parked, json })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::datatype::DataType;
    use gristmill_base::ids::TopicId;
    use gristmill_client::ErrorKind;

    #[test]
    fn a_topic_that_nobody_told_of_is_not_taken_for_gone() {
        let (key, value) = (DataType::String, DataType::Json);
        let topic = Topic { name: "rows".to_owned(), id: TopicId(7), key, value, lanes: 4 };
        assert_eq!(still_there(Ok(topic.clone()), 7), Ok(Some(topic.clone())));
        assert_eq!(still_there(Ok(topic), 6), Ok(None), "another one of that name");
        let error = |kind| Err(Error { kind, message: String::new() });
        assert_eq!(still_there(error(ErrorKind::Refused(Status::UnknownName)), 7), Ok(None));
        for kind in [ErrorKind::Unreachable, ErrorKind::TimedOut, ErrorKind::Refused(Status::Failed)] {
            assert!(still_there(error(kind), 7).is_err(), "{kind:?}");
        }
    }
}
