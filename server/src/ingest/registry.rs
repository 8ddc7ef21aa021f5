//! Where bounded inputs are kept: an app of the program itself, whose grains are the inputs. Its handlers decide who owns
//! an input and what its state is; the client side asks them.

use crate::commands::failed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::{decode_u64, encode_u64};
use gristmill_client::wire::Status;
use gristmill_client::{Client, ErrorKind};
use gristmill_sdk::{App, Context, Failure, Input as HandlerInput, Reply};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The app's file.
const FILE: &str = include_str!("inputs.yaml");
/// Its name.
pub(crate) const APP: &str = "gristmill";
const INPUTS: &str = "gristmill/inputs";

/// Where a source or a reading of it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Records read before it, good and bad, of all sources.
    pub(super) records: u64,
    /// Source that is read on, from 0.
    pub(super) source: usize,
    /// Byte of it, or row of a Parquet file, to read on from.
    pub(super) offset: u64,
    /// Line of it there, from 1.
    pub(super) line: u64,
    /// CRC32C of standard input up to there; 0 for files.
    pub(super) crc: u32,
    /// Records sent to the topic.
    pub(super) appended: u64,
    /// Malformed ones sent to the topic for rejects.
    pub(super) rejected: u64,
    /// Malformed ones passed over.
    pub(super) skipped: u64,
}

/// A file as it was when the input began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// As it was named; `-` for standard input.
    pub(super) path: String,
    /// Its length.
    pub(super) bytes: u64,
    /// When it was last changed, nanoseconds since 1970.
    pub(super) modified_nanos: u64,
    /// CRC32C of its first and last 64 KiB.
    pub(super) crc: u32,
}

/// What makes an input this one: another run must say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) topic: String,
    pub(super) topic_id: u32,
    pub(super) format: String,
    pub(super) key: Option<String>,
    pub(super) fields: Option<(String, String)>,
    pub(super) sources: Vec<Source>,
}

/// A bounded input as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// `open`, `complete` or `applied`.
    pub(super) state: String,
    pub(super) identity: Identity,
    pub(super) on_error: String,
    pub(super) reject: Option<(String, u32)>,
    /// Number of its stream, and of that of its rejects.
    pub(super) number: u32,
    pub(super) reject_number: u32,
    /// Raised by each run; only the last one's marks count.
    pub(super) owner: u64,
    pub(super) mark: Mark,
    pub(super) begun_micros: u64,
    pub(super) complete_micros: Option<u64>,
}

impl Row {
    /// Why it may not be forgotten, if it may not.
    pub(super) fn may_be_removed(&self, force: bool) -> Result<(), String> {
        if self.state == "open" && !force {
            return Err(format!("it is open, {} records in; --force deletes it nevertheless", self.mark.records));
        }
        Ok(())
    }
}

/// The built-in app with its handlers.
pub(crate) fn app() -> App {
    App::new(APP, FILE)
        .each("inputs", "begin", begin)
        .each("inputs", "mark", mark)
        .each("inputs", "remove", remove)
        .each("numbers", "take", take)
}

fn odd(error: &serde_json::Error) -> Failure {
    Failure::new(format!("this is no request to the table of inputs: {error}"))
}

fn stored(context: &mut Context<'_>) -> Result<Option<Row>, Failure> {
    let value = context.value()?;
    value.map(|bytes| serde_json::from_slice(&bytes).map_err(|error| odd(&error))).transpose()
}

fn keep(context: &mut Context<'_>, row: &Row) -> Result<Reply, Failure> {
    let bytes = serde_json::to_vec(row).map_err(|error| odd(&error))?;
    context.set_value(bytes.clone());
    Ok(Reply::value(bytes))
}

/// A run begins: it owns the input from now on. Gives back the row as it is then, whoever made it.
fn begin(input: &HandlerInput<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let wanted: Row = serde_json::from_slice(input.payload).map_err(|error| odd(&error))?;
    let mut row = match stored(context)? {
        Some(row) if row.identity != wanted.identity || row.state != "open" => {
            return serde_json::to_vec(&row).map(Reply::value).map_err(|error| odd(&error));
        }
        Some(row) => row,
        None => Row { owner: 0, begun_micros: context.now_micros(), ..wanted.clone() },
    };
    row.owner += 1;
    row.on_error = wanted.on_error;
    if row.reject.is_none() {
        row.reject = wanted.reject;
    }
    keep(context, &row)
}

/// How far a run has come, or a new state. Refused if another run owns the input.
fn mark(input: &HandlerInput<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    #[derive(Deserialize)]
    struct Said {
        number: u32,
        owner: Option<u64>,
        mark: Option<Mark>,
        state: Option<String>,
    }
    let said: Said = serde_json::from_slice(input.payload).map_err(|error| odd(&error))?;
    let Some(mut row) = stored(context)?.filter(|row| row.number == said.number) else {
        return Err(Failure::new("the input was deleted"));
    };
    if said.owner.is_some_and(|owner| owner != row.owner) {
        return Err(Failure::new("another run of this input began later and goes on with it"));
    }
    if let Some(mark) = said.mark {
        row.mark = mark;
    }
    if let Some(state) = said.state {
        if state == "complete" {
            row.complete_micros = Some(context.now_micros());
        }
        row.state = state;
    }
    keep(context, &row)
}

/// Which input is to be forgotten, and whether also if it is open.
#[derive(Serialize, Deserialize)]
struct Removal {
    number: u32,
    force: bool,
}

/// Forgets an input; one that is open only by force. Its streams have ended before: a row that is there is what tells that
/// they must, so whoever is cut off in between deletes again.
fn remove(input: &HandlerInput<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Removal { number, force } = serde_json::from_slice(input.payload).map_err(|error| odd(&error))?;
    let Some(row) = stored(context)?.filter(|row| row.number == number) else {
        return Err(Failure::new("there is no such input any more"));
    };
    row.may_be_removed(force).map_err(Failure::new)?;
    context.delete_value();
    serde_json::to_vec(&row).map(Reply::value).map_err(|error| odd(&error))
}

/// The next two numbers: the first of them.
fn take(_input: &HandlerInput<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let last = context.value()?.and_then(|bytes| bytes.try_into().ok()).map_or(0, decode_u64);
    if last + 2 > u64::from(u32::MAX) {
        return Err(Failure::new("all numbers of inputs are used up"));
    }
    context.set_value(encode_u64(last + 2));
    Ok(Reply::value(encode_u64(last + 1)))
}

/// The table of inputs as a client sees it.
pub(super) struct Registry<'a> {
    pub(super) client: &'a mut Client,
}

fn row_of(bytes: &[u8]) -> Result<Row, Failed> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failed::new(Exit::Internal, format!("a row of the table of inputs cannot be read: {error}")))
}

/// A refusal of a handler, without the protocol's words around it.
pub(super) fn refused(error: gristmill_client::Error) -> Failed {
    let mut told = failed(error);
    if let Some((_, message)) = told.message.split_once("after 1 attempts: ") {
        told.message = message.to_owned();
    }
    told
}

impl Registry<'_> {
    /// Loads the built-in app, where it is not.
    ///
    /// # Errors
    /// The server's program does not have it, or does not answer.
    pub(super) fn open(&mut self) -> Result<(), Failed> {
        self.client.app_load("inputs.yaml", FILE, false).map(|_| ()).map_err(failed)
    }

    /// Whether the built-in app is loaded: before the first input it is not.
    pub(super) fn is_there(&mut self) -> Result<bool, Failed> {
        match self.client.describe(APP) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::Refused(Status::UnknownName) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// The input of that name.
    pub(super) fn get(&mut self, key: &str) -> Result<Option<Row>, Failed> {
        let bytes = self.client.get(INPUTS, key.as_bytes()).map_err(failed)?;
        bytes.map(|bytes| row_of(&bytes)).transpose()
    }

    /// All inputs, in order of their names.
    pub(super) fn list(&mut self) -> Result<Vec<(String, Row)>, Failed> {
        let (mut all, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let page = self.client.scan(INPUTS, b"", after.as_deref(), 0).map_err(failed)?;
            for row in &page.items {
                let key = String::from_utf8_lossy(&row.key).into_owned();
                all.push((key, row_of(row.value.as_deref().unwrap_or_default())?));
            }
            let Some(last) = page.items.last().filter(|_| page.more) else { return Ok(all) };
            after = Some(last.key.clone());
        }
    }

    /// Two numbers that nothing else has: the first one.
    pub(super) fn numbers(&mut self) -> Result<u32, Failed> {
        let bytes = self.client.invoke("gristmill/numbers", b"last", "take", b"").map_err(refused)?;
        let number = bytes.try_into().map_or(0, decode_u64);
        u32::try_from(number).map_err(|_| Failed::new(Exit::Internal, "a number beyond those of inputs"))
    }

    fn invoke(&mut self, key: &str, handler: &str, payload: &[u8]) -> Result<Row, Failed> {
        let bytes = self.client.invoke(INPUTS, key.as_bytes(), handler, payload).map_err(refused)?;
        row_of(&bytes)
    }

    /// A run begins.
    pub(super) fn begin(&mut self, key: &str, row: &Row) -> Result<Row, Failed> {
        let payload = serde_json::to_vec(row).map_err(|error| Failed::new(Exit::Internal, error.to_string()))?;
        self.invoke(key, "begin", &payload)
    }

    /// The state of an input, whoever owns it.
    pub(super) fn state(&mut self, key: &str, row: &Row, state: &str) -> Result<Row, Failed> {
        let payload = json!({"number": row.number, "state": state});
        self.invoke(key, "mark", payload.to_string().as_bytes())
    }

    /// Forgets an input whose streams have ended.
    pub(super) fn remove(&mut self, key: &str, number: u32, force: bool) -> Result<Row, Failed> {
        let payload = serde_json::to_vec(&Removal { number, force });
        self.invoke(key, "remove", &payload.map_err(|error| Failed::new(Exit::Internal, error.to_string()))?)
    }
}

/// What a run says of itself.
pub(super) fn mark_payload(row: &Row, mark: &Mark, is_complete: bool) -> Value {
    let mut said = json!({"number": row.number, "owner": row.owner, "mark": mark});
    if is_complete {
        said["state"] = "complete".into();
    }
    said
}
