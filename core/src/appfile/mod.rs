//! The app file: what an app has, as its developer writes it. YAML; every key is API; unknown keys are refused with the
//! nearest name.

mod parse;

pub use parse::AppFileError;

use gristmill_base::datatype::DataType;
use std::time::Duration;

/// A parsed and validated app file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFile {
    /// Name of the app.
    pub app: String,
    /// Language of its handlers.
    pub language: Language,
    /// Its topics.
    pub topics: Vec<TopicSpec>,
    /// Its tables.
    pub tables: Vec<TableSpec>,
}

/// Language of an app's handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Linked into the server's program.
    Rust,
    /// In workers.
    Python,
    /// In workers.
    Java,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Unique among the app's topics.
    pub name: String,
    /// Type of its keys.
    pub key: DataType,
    /// Type of its values.
    pub value: DataType,
    /// Number of lanes.
    pub lanes: u16,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Unique among the app's tables.
    pub name: String,
    /// Type of its keys.
    pub key: DataType,
    /// Type of its grains' value, if they have one.
    pub value: Option<DataType>,
    /// Its sorted maps.
    pub maps: Vec<MapSpec>,
    /// Its handlers.
    pub handlers: Vec<HandlerSpec>,
}

/// A sorted map of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Unique in its table; never changes.
    pub id: u16,
    /// Unique in its table.
    pub name: String,
    /// Type of its keys.
    pub key: DataType,
    /// Type of its values.
    pub value: DataType,
}

/// A handler of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSpec {
    /// Unique in its table.
    pub name: String,
    /// Topics that feed it.
    pub subscribe: Vec<SubscribeSpec>,
    /// How often a failing input is tried; once if it is absent.
    pub retry: Option<RetrySpec>,
    /// What happens then; if absent, inputs of clients fail and others park the grain.
    pub on_exhausted: Option<OnExhausted>,
    /// Where dead letters go.
    pub dead_letter_topic: Option<String>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeSpec {
    /// Unique in its handler.
    pub name: String,
    /// Topic of the same app.
    pub topic: String,
    /// Field of the value that routes; absent: the event's key does.
    pub key: Option<String>,
}

/// Retries of a failing input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Tries in all.
    pub attempts: u32,
    /// Wait before the second try; doubled each time.
    pub backoff: Duration,
    /// Longest wait.
    pub max: Duration,
}

/// What happens when the retries are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// The input goes to the dead-letter topic.
    DeadLetter,
    /// The grain is parked.
    Park,
    /// The failure is the answer.
    Fail,
}

impl AppFile {
    /// Parses and validates the text of an app file; `name` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong: file, line, column, field, what was found and what is allowed.
    pub fn parse(text: &str, name: &str) -> Result<Self, AppFileError> {
        parse::parse(text, name)
    }
}
