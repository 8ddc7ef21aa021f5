//! The app file: what an app consists of, as a person writes it in YAML.
//!
//! [`AppFile::parse`] reads and checks it. Whatever it returns is consistent: names are unique, and whatever one part
//! names exists. Every error says where (file, line, column, field), what was found and what is allowed.

mod check;
mod exceptions;
mod field;
mod node;
#[cfg(test)]
mod tests;

use gristmill_base::datatype::DataType;
use gristmill_base::limits::{
    APP_FILE_BYTES_MAX, DELETE_RETENTION_HOURS_DEFAULT, KEY_INPUTS_DEFAULT, LANE_COUNT_DEFAULT,
};
use std::fmt;
use std::time::Duration;

pub use exceptions::{ANY_KIND, ExceptionSpec, Reaction};

/// An app, as its file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFile {
    /// Its name.
    pub app: String,
    /// What its handlers are written in.
    pub language: Language,
    /// In the order of the file; names are unique.
    pub topics: Vec<TopicSpec>,
    /// In the order of the file; names are unique.
    pub tables: Vec<TableSpec>,
    /// In the order of the file; names are unique.
    pub exception_handlers: Vec<ExceptionSpec>,
    /// What its handlers may ask for, in the order of the file.
    pub config: Config,
}

/// Values by name; names are unique.
pub type Config = Vec<(String, String)>;

/// What handlers are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Language {
    /// Linked into the server.
    Rust,
    /// In workers, which are started by hand.
    Python,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Unique among topics.
    pub name: String,
    /// Type of an event's key.
    pub key: DataType,
    /// Type of an event's value.
    pub value: ValueType,
    /// Lanes that events are spread over by key; 1 to the default slot count.
    pub lanes: u16,
    /// How long events are kept; `None`: for ever.
    pub retention: Option<RetentionSpec>,
    /// How all but the last event of each key go; `None`: they stay.
    pub compact: Option<CompactSpec>,
}

/// How a topic is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactSpec {
    /// For how long an event without a value stays after a compaction has seen it first.
    pub delete_retention: Duration,
}

/// How long events are kept. At least one of the bounds is there; what is beyond one of them may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionSpec {
    /// Time since the append.
    pub time: Option<Duration>,
    /// Bytes of the topic, over all of its lanes.
    pub bytes: Option<u64>,
    /// Whether events go that a subscription has not handled yet.
    pub hard: bool,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Unique among tables.
    pub name: String,
    /// Type of a grain's key.
    pub key: DataType,
    /// Type of a grain's value, if it has one.
    pub value: Option<ValueType>,
    /// In the order of the file; ids and names are unique.
    pub maps: Vec<MapSpec>,
    /// In the order of the file; names are unique.
    pub handlers: Vec<HandlerSpec>,
    /// How long a grain lives from when something of it was written last; `None`: until it is deleted.
    pub ttl: Option<Duration>,
    /// How many inputs may wait for a grain before clients' are refused.
    pub backlog_inputs: u64,
    /// In the order of the file; names are unique. Only where values are JSON.
    pub indexes: Vec<IndexSpec>,
    /// Whether every top-level field is indexed. Only where values are JSON.
    pub auto_index: bool,
}

/// Name of the index of every top-level field.
pub const AUTO_INDEX: &str = "auto_index";

/// An index of a field of a table's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    /// Unique in its table.
    pub name: String,
    /// Names within objects, with dots between them.
    pub field: String,
}

/// A sorted map of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Unique in its table, below `MAPS_PER_TABLE_MAX`; what is stored.
    pub id: u16,
    /// Unique in its table; what people use.
    pub name: String,
    /// Type of an entry's key.
    pub key: DataType,
    /// Type of an entry's value.
    pub value: ValueType,
    /// How long an entry lives from when it was written last; `None`: until it is deleted.
    pub ttl: Option<Duration>,
}

/// A handler of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSpec {
    /// Unique in its table; also what invoke and messages use.
    pub name: String,
    /// Topics whose events it handles; names are unique.
    pub subscribe: Vec<SubscribeSpec>,
    /// How often a failed input is tried again; `None`: it is not.
    pub retry: Option<RetrySpec>,
    /// What happens when the tries are used up; `None`: the engine's default for the input.
    pub on_exhausted: Option<OnExhausted>,
    /// A topic of the file; there exactly when `on_exhausted` is [`OnExhausted::DeadLetter`].
    pub dead_letter_topic: Option<String>,
    /// Exception handlers of the file, in the order in which they are asked; the first that takes the kind is used.
    pub on_failure: Vec<String>,
    /// How long a run may take whose host answers later; `None`: as long as it does.
    pub timeout: Option<Duration>,
    /// What it may ask for beside what the app has; its own counts where both have a name.
    pub config: Config,
    /// Key of the grain that hears of each version of the app, as text; `None`: none does.
    pub control: Option<String>,
}

/// A subscription of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeSpec {
    /// Unique in its handler.
    pub name: String,
    /// A topic of the file.
    pub topic: String,
    /// Field of the event's JSON value that names the grain; `None`: the event's key does.
    pub key: Option<String>,
}

/// How often a failed input is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Tries in all, the first one included; at least 1.
    pub attempts: u32,
    /// Wait before the second try; doubled each time.
    pub backoff: Duration,
    /// Longest wait; never below `backoff`.
    pub max: Duration,
}

/// What happens to an input whose tries are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// It goes to the dead-letter topic.
    DeadLetter,
    /// Its grain is parked.
    Park,
    /// The failure is the answer.
    Fail,
}

/// Type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// One of the types that all languages share.
    Plain(DataType),
    /// An rkyv archive of the named Rust type; the engine carries it as bytes.
    Rkyv(String),
}

/// Why an app file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFileError {
    /// The file, as the caller calls it.
    pub file: String,
    /// From 1; 0 if the error concerns the file as a whole.
    pub line: u64,
    /// In characters, from 1; 0 if the error concerns the file as a whole.
    pub column: u64,
    /// Path of the field, such as `tables[0].handlers[1].retry.attempts`; empty if the file is no YAML.
    pub field: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for AppFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for AppFileError {}

impl ValueType {
    /// [`DataType::code`] of what the engine checks and shows.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Plain(plain) => plain.code(),
            Self::Rkyv(_) => DataType::Bytes.code(),
        }
    }
}

impl AppFile {
    /// Reads and checks the text of an app file. `file` is its name in errors.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str, file: &str) -> Result<Self, AppFileError> {
        let named = |error: AppFileError| AppFileError { file: file.to_owned(), ..error };
        if text.len() > APP_FILE_BYTES_MAX {
            let message = format!("found {} bytes; an app file has at most {APP_FILE_BYTES_MAX}", text.len());
            return Err(AppFileError { file: file.to_owned(), line: 0, column: 0, field: String::new(), message });
        }
        let root = node::parse(text).map_err(named)?;
        read_app(&field::Field::root(&root)).map_err(named)
    }
}

fn read_app(root: &field::Field<'_>) -> Result<AppFile, AppFileError> {
    let fields = root.fields(&["app", "language", "worker", "topics", "tables", "exception_handlers", "config"])?;
    let app = fields.required("app")?.name()?;
    let language = fields.required("language")?;
    let written_in = match language.text()? {
        "rust" => Language::Rust,
        "python" => Language::Python,
        _ => return Err(language.refuse("rust, python")),
    };
    check_worker(&fields, written_in)?;
    let topics = fields.list("topics")?;
    let tables = fields.list("tables")?;
    let exceptions = fields.list("exception_handlers")?;
    let app = AppFile {
        app,
        language: written_in,
        topics: topics.iter().map(read_topic).collect::<Result<_, _>>()?,
        tables: tables.iter().map(read_table).collect::<Result<_, _>>()?,
        exception_handlers: exceptions.iter().map(exceptions::read).collect::<Result<_, _>>()?,
        config: fields.optional("config").map(|config| config.config()).transpose()?.unwrap_or_default(),
    };
    check::check(&app, &topics, &tables, &exceptions)?;
    Ok(app)
}

/// Who starts the workers: nobody but the operator, so far.
fn check_worker(fields: &field::Fields<'_>, language: Language) -> Result<(), AppFileError> {
    match (fields.optional("worker"), language) {
        (None, Language::Rust) => Ok(()),
        (None, Language::Python) => fields.required("worker").map(drop),
        (Some(given), Language::Rust) => {
            Err(given.error("found it with language: rust; allowed: with language: python alone".to_owned()))
        }
        (Some(given), Language::Python) if given.text()? == "external" => Ok(()),
        (Some(given), Language::Python) => Err(given.refuse("external")),
    }
}

fn read_topic(topic: &field::Field<'_>) -> Result<TopicSpec, AppFileError> {
    let fields = topic.fields(&["name", "key", "value", "lanes", "retention", "compact", "delete_retention"])?;
    let compact = fields.optional("compact").map(|it| it.truth()).transpose()?.unwrap_or(false);
    let delete_retention = fields.optional("delete_retention");
    if let Some(given) = delete_retention.as_ref().filter(|_| !compact) {
        return Err(given.error("found it without compact: true; allowed: both, or neither".to_owned()));
    }
    let delete_retention = delete_retention.map(|it| it.keep_time()).transpose()?;
    let delete_retention = delete_retention.unwrap_or(Duration::from_secs(DELETE_RETENTION_HOURS_DEFAULT * 3_600));
    Ok(TopicSpec {
        name: fields.required("name")?.name()?,
        key: fields.required("key")?.key_type()?,
        value: fields.required("value")?.value_type()?,
        lanes: match fields.optional("lanes") {
            Some(lanes) => lanes.lanes()?,
            None => LANE_COUNT_DEFAULT,
        },
        retention: fields.optional("retention").map(|it| read_retention(&it)).transpose()?.flatten(),
        compact: compact.then_some(CompactSpec { delete_retention }),
    })
}

fn read_retention(retention: &field::Field<'_>) -> Result<Option<RetentionSpec>, AppFileError> {
    if retention.is_text() {
        return match retention.text()? {
            "none" => Ok(None),
            _ => Err(retention.refuse("none, or keys as in {time: 7d, bytes: 10GiB}")),
        };
    }
    let fields = retention.fields(&["time", "bytes", "hard"])?;
    let time = fields.optional("time").map(|time| time.keep_time()).transpose()?;
    let bytes = fields.optional("bytes").map(|bytes| bytes.keep_bytes()).transpose()?;
    if time.is_none() && bytes.is_none() {
        return Err(
            retention.error("found neither time nor bytes; give one of them, or both, or write none".to_owned())
        );
    }
    let hard = fields.optional("hard").map(|hard| hard.truth()).transpose()?.unwrap_or(false);
    Ok(Some(RetentionSpec { time, bytes, hard }))
}

/// The keys of a table.
const TABLE_FIELDS: [&str; 9] = ["name", "key", "value", "maps", "handlers", "ttl", "backlog", "indexes", "auto_index"];

fn read_table(table: &field::Field<'_>) -> Result<TableSpec, AppFileError> {
    let fields = table.fields(&TABLE_FIELDS)?;
    Ok(TableSpec {
        name: fields.required("name")?.name()?,
        key: fields.required("key")?.key_type()?,
        value: fields.optional("value").map(|value| value.value_type()).transpose()?,
        maps: fields.list("maps")?.iter().map(read_map).collect::<Result<_, _>>()?,
        handlers: fields.list("handlers")?.iter().map(read_handler).collect::<Result<_, _>>()?,
        ttl: fields.optional("ttl").map(|ttl| ttl.ttl()).transpose()?.flatten(),
        backlog_inputs: match fields.optional("backlog") {
            Some(backlog) => backlog.fields(&["inputs"])?.required("inputs")?.backlog_inputs()?,
            None => KEY_INPUTS_DEFAULT,
        },
        indexes: fields.list("indexes")?.iter().map(read_index).collect::<Result<_, _>>()?,
        auto_index: fields.optional("auto_index").map(|it| it.truth()).transpose()?.unwrap_or(false),
    })
}

fn read_index(index: &field::Field<'_>) -> Result<IndexSpec, AppFileError> {
    let fields = index.fields(&["name", "field"])?;
    Ok(IndexSpec { name: fields.required("name")?.name()?, field: fields.required("field")?.path()? })
}

fn read_map(map: &field::Field<'_>) -> Result<MapSpec, AppFileError> {
    let fields = map.fields(&["id", "name", "key", "value", "ttl"])?;
    Ok(MapSpec {
        id: fields.required("id")?.map_id()?,
        name: fields.required("name")?.name()?,
        key: fields.required("key")?.key_type()?,
        value: fields.required("value")?.value_type()?,
        ttl: fields.optional("ttl").map(|ttl| ttl.ttl()).transpose()?.flatten(),
    })
}

/// The keys of a handler.
const HANDLER_FIELDS: [&str; 9] =
    ["name", "subscribe", "retry", "on_exhausted", "dead_letter_topic", "on_failure", "timeout", "config", "control"];

fn read_handler(handler: &field::Field<'_>) -> Result<HandlerSpec, AppFileError> {
    let fields = handler.fields(&HANDLER_FIELDS)?;
    Ok(HandlerSpec {
        name: fields.required("name")?.name()?,
        subscribe: fields.list("subscribe")?.iter().map(read_subscribe).collect::<Result<_, _>>()?,
        retry: fields.optional("retry").map(|retry| read_retry(&retry)).transpose()?,
        on_exhausted: fields.optional("on_exhausted").map(|policy| read_policy(&policy)).transpose()?,
        dead_letter_topic: fields.optional("dead_letter_topic").map(|topic| topic.name()).transpose()?,
        on_failure: fields.list("on_failure")?.iter().map(|name| name.name()).collect::<Result<_, _>>()?,
        timeout: fields.optional("timeout").map(|timeout| timeout.timeout()).transpose()?,
        config: fields.optional("config").map(|config| config.config()).transpose()?.unwrap_or_default(),
        control: fields.optional("control").map(|control| read_control(&control)).transpose()?,
    })
}

fn read_control(control: &field::Field<'_>) -> Result<String, AppFileError> {
    let fields = control.fields(&["key"])?;
    Ok(fields.required("key")?.text()?.to_owned())
}

fn read_subscribe(subscribe: &field::Field<'_>) -> Result<SubscribeSpec, AppFileError> {
    let fields = subscribe.fields(&["name", "topic", "key"])?;
    Ok(SubscribeSpec {
        name: fields.required("name")?.name()?,
        topic: fields.required("topic")?.name()?,
        key: fields.optional("key").map(|key| key.member()).transpose()?,
    })
}

fn read_retry(retry: &field::Field<'_>) -> Result<RetrySpec, AppFileError> {
    let fields = retry.fields(&["attempts", "backoff", "max"])?;
    let attempts = fields.required("attempts")?.attempts()?;
    let backoff = fields.required("backoff")?.duration()?;
    let max = match fields.optional("max") {
        Some(max) => {
            let longest = max.duration()?;
            if longest < backoff {
                return Err(max.refuse("a duration that is not shorter than backoff"));
            }
            longest
        }
        None => backoff,
    };
    Ok(RetrySpec { attempts, backoff, max })
}

fn read_policy(policy: &field::Field<'_>) -> Result<OnExhausted, AppFileError> {
    match policy.text()? {
        "dead-letter" => Ok(OnExhausted::DeadLetter),
        "park" => Ok(OnExhausted::Park),
        "fail" => Ok(OnExhausted::Fail),
        _ => Err(policy.refuse_of(&["dead-letter", "park", "fail"])),
    }
}
