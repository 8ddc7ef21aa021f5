//! Lines to counts.

use crate::payload::{put_count, put_number};
use gristmill_sdk::{Context, Failure, Input, Results};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// A word is the key of a map entry, and those have at most so many bytes. A longer one is refused here, where the line
/// goes to the dead letters, and not at the grain of its first letter, which it would park.
const WORD_BYTES_MAX: usize = 64 << 10;
/// A message to a letter's grain is closed when it has reached this size, so that with its last word it stays far below
/// what a value may have.
const MESSAGE_BYTES_CLOSE: usize = 1 << 20;

/// A line of a document.
#[derive(serde::Deserialize)]
struct Line<'a> {
    /// Name of the document.
    #[serde(borrow)]
    doc: Cow<'a, str>,
    /// The line.
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// The words of a run, lower-cased, end to end: one allocation for all of them.
#[derive(Default)]
struct Words {
    letters: Vec<u8>,
    /// Where each word lies in `letters`; never empty ranges.
    places: Vec<Range<usize>>,
}

impl Words {
    /// Adds the words of a text and says how many they are.
    fn add(&mut self, text: &str) -> Result<u64, Failure> {
        let before = self.places.len();
        for word in text.as_bytes().split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
            if word.len() > WORD_BYTES_MAX {
                let message = format!("a word of {} letters; at most {WORD_BYTES_MAX} are allowed", word.len());
                return Err(Failure::new(message));
            }
            let start = self.letters.len();
            self.letters.extend(word.iter().map(u8::to_ascii_lowercase));
            self.places.push(start..self.letters.len());
        }
        Ok((self.places.len() - before) as u64)
    }

    /// Each different word once with its count, in order, so that words of one first letter stand together.
    fn counted(&mut self, mut each: impl FnMut(&[u8], u64) -> Result<(), Failure>) -> Result<(), Failure> {
        let letters = &self.letters;
        self.places.sort_unstable_by(|left, right| letters[left.clone()].cmp(&letters[right.clone()]));
        self.places
            .chunk_by(|left, right| letters[left.clone()] == letters[right.clone()])
            .try_for_each(|same| each(&letters[same[0].clone()], same.len() as u64))
    }
}

/// Counts the words of all waiting lines and sends the counts on.
pub(crate) fn split(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    let mut words = Words::default();
    // Lines and words by document. Nearly always there is one, because the document's name is the key of its lines.
    let mut docs: BTreeMap<Cow<'_, str>, (u64, u64)> = BTreeMap::new();
    for input in inputs {
        let line: Line<'_> = input.json()?;
        let count = words.add(&line.text)?;
        let total = docs.entry(line.doc).or_default();
        total.0 += 1;
        total.1 += count;
    }
    send_words(&mut words, context)?;
    for (doc, (lines, words)) in docs {
        let mut payload = Vec::with_capacity(8);
        put_number(&mut payload, lines);
        put_number(&mut payload, words);
        context.invoke("docs", doc.into_owned(), "add", payload)?;
    }
    Ok(Vec::new())
}

fn send_words(words: &mut Words, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut letter = 0;
    let mut payload = Vec::new();
    words.counted(|word, count| {
        if word[0] != letter || payload.len() >= MESSAGE_BYTES_CLOSE {
            send_letter(context, letter, std::mem::take(&mut payload))?;
            letter = word[0];
        }
        put_count(&mut payload, word, count);
        Ok(())
    })?;
    send_letter(context, letter, payload)
}

fn send_letter(context: &mut Context<'_>, letter: u8, payload: Vec<u8>) -> Result<(), Failure> {
    if payload.is_empty() { Ok(()) } else { context.invoke("words", [letter], "add", payload) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{take_count, take_number};
    use gristmill_sdk::testing::FakeGrain;
    use gristmill_sdk::{Cause, HandlerFn, MessageOperation, MessageTarget};

    fn event(payload: &[u8]) -> Input<'_> {
        Input { cause: Cause::Event { key: b"d", offset: 0, event_micros: 0 }, payload }
    }

    /// What was sent: table, key and payload.
    fn messages(grain: &FakeGrain) -> Vec<(String, Vec<u8>, Vec<u8>)> {
        let plain = |sent: &gristmill_sdk::Send| match (&sent.target, &sent.operation) {
            (MessageTarget::Grain { table, key }, MessageOperation::Invoke { payload, .. }) => {
                (table.clone(), key.clone(), payload.clone())
            }
            other => panic!("{other:?} was not expected"),
        };
        grain.sent.iter().map(plain).collect()
    }

    #[test]
    fn lines_merge_into_one_message_per_letter_and_document() {
        let mut grain = FakeGrain::new("d");
        let lines = [
            event(br#"{"doc":"d","text":"The theory, the\n\"Apple\""}"#),
            event(br#"{"doc":"d","text":"apple2apple"}"#),
        ];
        grain.call(HandlerFn::Several(split), &lines).unwrap();
        let sent = messages(&grain);
        let to: Vec<_> = sent.iter().map(|(table, key, _)| (table.as_str(), key.as_slice())).collect();
        assert_eq!(to, [("words", b"a".as_slice()), ("words", b"t"), ("docs", b"d")]);
        assert_eq!(take_count(&mut sent[0].2.as_slice()).unwrap(), Some((b"apple".as_slice(), 3)));
        let mut letter_t = sent[1].2.as_slice();
        assert_eq!(take_count(&mut letter_t).unwrap(), Some((b"the".as_slice(), 2)));
        assert_eq!(take_count(&mut letter_t).unwrap(), Some((b"theory".as_slice(), 1)));
        let mut totals = sent[2].2.as_slice();
        assert_eq!((take_number(&mut totals).unwrap(), take_number(&mut totals).unwrap()), (2, 6));
    }

    #[test]
    fn a_line_without_words_counts_as_a_line_alone() {
        let mut grain = FakeGrain::new("d");
        grain.call(HandlerFn::Several(split), &[event("{\"doc\":\"d\",\"text\":\"1 é 2\"}".as_bytes())]).unwrap();
        assert_eq!(messages(&grain), [("docs".to_owned(), b"d".to_vec(), vec![1, 0])]);
    }

    #[test]
    fn malformed_lines_and_endless_words_fail() {
        let mut grain = FakeGrain::new("d");
        assert!(grain.call(HandlerFn::Several(split), &[event(b"no json")]).is_err());
        assert!(grain.call(HandlerFn::Several(split), &[event(br#"{"doc":"d"}"#)]).is_err());
        let endless = format!(r#"{{"doc":"d","text":"{}"}}"#, "x".repeat(WORD_BYTES_MAX + 1));
        assert!(grain.call(HandlerFn::Several(split), &[event(endless.as_bytes())]).is_err());
        assert!(grain.sent.is_empty());
    }
}
