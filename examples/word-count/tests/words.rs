//! The app in memory: what it counts is what a few lines of plain code count, in whatever pieces and across crashes.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

use gristmill_test_kit::{Options, TestApp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use word_count::app;

const TEXT: [&str; 5] =
    ["Rose is a rose is a rose", "the grain, the mill and the grain", "A", "1 2 3", "Isn't a mill a mill?"];

fn counts(kit: &TestApp) -> BTreeMap<String, u64> {
    let letters = kit.grains("words").into_iter();
    let entries = letters.flat_map(|(letter, _)| kit.entries("words", letter, "counts"));
    let text = |value: Value| value.as_str().unwrap().to_owned();
    entries.map(|(word, count)| (text(word), count.as_u64().unwrap())).collect()
}

fn expected(times: u64) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let lower = TEXT.join("\n").to_ascii_lowercase();
    for word in lower.split(|char: char| !char.is_ascii_lowercase()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_owned()).or_default() += times;
    }
    counts
}

#[test]
fn lines_are_counted_and_what_is_no_line_is_rejected() {
    let mut kit = TestApp::new(app());
    kit.append_all("lines", TEXT.map(|text| ("poem", json!({"doc": "poem", "text": text})))).unwrap();
    assert_eq!(counts(&kit), expected(1));
    assert_eq!(kit.value("docs", "poem"), json!({"lines": 5, "words": 21}));
    kit.append("lines", "poem", json!({"text": "no document"})).unwrap();
    kit.advance(std::time::Duration::from_secs(10));
    assert_eq!(kit.events("rejected").len(), 1);
    assert_eq!(kit.value("docs", "poem")["lines"], 5);
}

#[test]
fn every_line_is_counted_once_whatever_crashes() {
    for shards in [1, 3] {
        let mut kit = TestApp::with(app(), Options { shards, ..Options::default() });
        for round in 0..40 {
            let calls: Vec<_> = TEXT
                .map(|text| {
                    let doc = format!("doc{}", round % 3);
                    kit.begin_append("lines", doc.clone(), json!({"doc": doc, "text": text}))
                })
                .into();
            kit.fail("words", "add", round % 2, "by chance");
            // Until all of them are durable; what follows from them is under way.
            let mut left = calls.len();
            while left > 0 {
                kit.turn();
                left -= calls.iter().filter(|call| kit.outcome(**call).is_some_and(|outcome| outcome.is_ok())).count();
            }
            for _ in 0..round % 7 {
                kit.turn();
            }
            kit.crash();
            kit.turn();
        }
        kit.fail_no_more();
        kit.settle();
        for letter in kit.parked("words") {
            kit.retry("words", letter.key).unwrap();
        }
        assert_eq!(counts(&kit), expected(40), "{shards} shards");
        assert!(kit.under_way().is_empty());
    }
}
