//! YAML as a tree whose every node knows its place in the file.

use super::AppFileError;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// Nodes of an app file: reading holds the shard's core, and the largest app has some thousands.
const NODES_MAX: usize = 50_000;
/// Nodes inside each other; the app file's own are six deep.
const DEPTH_MAX: usize = 16;

/// A node: `referenced` is its place.
pub(super) type Node = Spanned<Content>;

/// What a node holds.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing, `~` or `null`.
    Nothing,
    /// `true` or `false`.
    Truth(bool),
    /// A whole number.
    Whole(i128),
    /// Another number.
    Real(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys with their values; keys are unique, which the reader enforces.
    Map(Vec<(Spanned<String>, Node)>),
}

/// The tree of one YAML document.
pub(super) fn parse(text: &str) -> Result<Node, AppFileError> {
    let mut options = serde_saphyr::Options::default();
    options.budget = serde_saphyr::budget! {
        max_nodes: NODES_MAX,
        max_events: 2 * NODES_MAX,
        max_anchors: 0,
        max_aliases: 0,
        max_merge_keys: 0,
        max_depth: DEPTH_MAX,
        max_documents: 1,
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let place = error.location();
        AppFileError {
            file: String::new(),
            line: place.as_ref().map_or(0, |place| place.line()),
            column: place.as_ref().map_or(0, |place| place.column()),
            field: String::new(),
            message: format!("this is no YAML of an app file: {}", first_line(&error.without_snippet().to_string())),
        }
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Whole(number) => write!(f, "the number {number}"),
            Self::Real(number) => write!(f, "the number {number}"),
            Self::Text(text) => write!(f, "{:?}", shortened(text)),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("keys with values"),
        }
    }
}

/// At most 64 characters, so that a message stays a line.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a list or keys with values")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Nothing)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Content, E> {
        Ok(Content::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Whole(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Content, E> {
        Ok(Content::Whole(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Content, E> {
        Ok(Content::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Content::Map(map))
    }
}
