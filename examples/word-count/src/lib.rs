//! Counts words: lines of documents go in, counts per word and totals per document come out of served state.
//!
//! A word is a maximal run of ASCII letters, lower-cased. `split` turns all lines that wait for its grain into one
//! message per first letter and one per document; `words.add` and `docs.add` add what they get.

mod payload;
mod split;
mod totals;

use gristmill_sdk::App;

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("word-count", include_str!("../app.yaml"))
        .several("splitter", "split", split::split)
        .several("words", "add", totals::add_words)
        .several("docs", "add", totals::add_lines)
}
