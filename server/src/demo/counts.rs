//! The counts: as served by the server, and as a shell pipeline found them.

use crate::commands::failed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::decode_u64;
use gristmill_client::{Client, Span};
use std::collections::BTreeMap;

/// Differences that are printed one by one.
const SHOWN_MAX: usize = 20;

/// Lines and words of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Totals {
    pub(super) lines: u64,
    pub(super) words: u64,
}

/// All counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How often each word stands.
    pub(super) words: BTreeMap<String, u64>,
    /// Each document's totals.
    pub(super) documents: BTreeMap<String, Totals>,
}

fn odd(what: &str, name: &[u8]) -> Failed {
    Failed::new(Exit::Internal, format!("the {what} of {:?} cannot be read", String::from_utf8_lossy(name)))
}

impl Counts {
    /// Reads everything from served state.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) fn read(client: &mut Client) -> Result<Self, Failed> {
        let mut words = BTreeMap::new();
        for letter in b'a'..=b'z' {
            let mut from = Vec::new();
            loop {
                let span = Span { from: &from, ..Span::default() };
                let page = client.range("word-count/words", &[letter], "counts", &span).map_err(failed)?;
                for entry in &page.items {
                    let count = entry.value.as_slice().try_into().map_err(|_| odd("count", &entry.key))?;
                    words.insert(String::from_utf8_lossy(&entry.key).into_owned(), decode_u64(count));
                }
                let Some(last) = page.items.last().filter(|_| page.more) else { break };
                from.clone_from(&last.key);
                from.push(0);
            }
        }
        Ok(Self { words, documents: documents(client)? })
    }

    /// All words.
    pub(super) fn total(&self) -> u64 {
        self.words.values().sum()
    }

    /// The most frequent words, most frequent first.
    pub(super) fn top(&self, count: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self.words.iter().map(|(word, count)| (word.as_str(), *count)).collect();
        all.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), *word));
        all.truncate(count);
        all
    }

    /// What is different from what is right: one line for each difference.
    pub(super) fn differences(&self, right: &Self) -> Vec<String> {
        let mut found = differing("word", &self.words, &right.words, |count| count.to_string());
        found.extend(differing("document", &self.documents, &right.documents, |it| {
            format!("{} lines, {} words", it.lines, it.words)
        }));
        found
    }
}

/// Totals of all documents, from served state.
///
/// # Errors
/// The server does not answer.
fn documents(client: &mut Client) -> Result<BTreeMap<String, Totals>, Failed> {
    let mut all = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = client.scan("word-count/docs", b"", after.as_deref(), 0).map_err(failed)?;
        for row in &page.items {
            let value = row.value.as_deref().unwrap_or_default();
            let totals = serde_json::from_slice(value).map_err(|_| odd("totals", &row.key))?;
            all.insert(String::from_utf8_lossy(&row.key).into_owned(), totals);
        }
        let Some(last) = page.items.last().filter(|_| page.more) else { return Ok(all) };
        after = Some(last.key.clone());
    }
}

fn differing<V: PartialEq>(
    what: &str,
    found: &BTreeMap<String, V>,
    right: &BTreeMap<String, V>,
    show: impl Fn(&V) -> String,
) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = found.keys().chain(right.keys()).collect();
    let value = |of: &BTreeMap<String, V>, name: &String| of.get(name).map_or_else(|| "nothing".to_owned(), &show);
    names
        .into_iter()
        .filter(|name| found.get(*name) != right.get(*name))
        .map(|name| format!("{what} {name}: served {}, right is {}", value(found, name), value(right, name)))
        .collect()
}

/// The lines to print for differences: the first ones, and how many more there are.
pub(super) fn shown(differences: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = differences.iter().take(SHOWN_MAX).map(|line| format!("  {line}")).collect();
    if differences.len() > SHOWN_MAX {
        lines.push(format!("  and {} more", differences.len() - SHOWN_MAX));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(words: &[(&str, u64)], lines: u64) -> Counts {
        Counts {
            words: words.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
            documents: BTreeMap::from([("d".to_owned(), Totals { lines, words: 1 })]),
        }
    }

    #[test]
    fn every_difference_is_found() {
        let right = counts(&[("a", 1), ("b", 2)], 3);
        assert!(right.differences(&right).is_empty());
        let found = counts(&[("a", 1), ("c", 2)], 4).differences(&right);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "word b: served nothing, right is 2");
        assert!(found[2].contains("served 4 lines"));
        assert_eq!(right.top(1), [("b", 2)]);
        assert_eq!(shown(&vec![String::new(); 25]).len(), 21);
    }
}
