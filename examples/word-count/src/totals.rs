//! Counts to totals.

use crate::payload::{take_count, take_number};
use gristmill_sdk::{Context, Failure, Input, Results};
use std::collections::BTreeMap;

/// Totals of a document, as they are stored.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Totals {
    lines: u64,
    words: u64,
}

/// Adds counts of words to the map `counts` of their first letter's grain.
pub(crate) fn add_words(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    let mut added: BTreeMap<&[u8], u64> = BTreeMap::new();
    for input in inputs {
        let mut rest = input.payload;
        while let Some((word, count)) = take_count(&mut rest)? {
            let sum = added.entry(word).or_default();
            *sum = plus(*sum, count)?;
        }
    }
    for (word, count) in added {
        let total = plus(context.map_get_u64("counts", word)?, count)?;
        context.map_put_u64("counts", word, total)?;
    }
    Ok(Vec::new())
}

/// Adds lines and words to the totals of a document.
pub(crate) fn add_lines(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    let mut totals: Totals = context.value_json()?.unwrap_or_default();
    for input in inputs {
        let mut rest = input.payload;
        totals.lines = plus(totals.lines, take_number(&mut rest)?)?;
        totals.words = plus(totals.words, take_number(&mut rest)?)?;
    }
    context.set_value_json(&totals)?;
    Ok(Vec::new())
}

fn plus(left: u64, right: u64) -> Result<u64, Failure> {
    left.checked_add(right).ok_or_else(|| Failure::new("a total has reached the end of 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{put_count, put_number};
    use gristmill_sdk::testing::FakeGrain;
    use gristmill_sdk::{Cause, HandlerFn};

    fn message(payload: &[u8]) -> Input<'_> {
        Input { cause: Cause::Message, payload }
    }

    #[test]
    fn counts_add_up_within_and_between_runs() {
        let mut grain = FakeGrain::new("a").with_map("counts");
        let mut payload = Vec::new();
        put_count(&mut payload, b"and", 2);
        put_count(&mut payload, b"any", 1);
        grain.misses = 3;
        grain.call(HandlerFn::Several(add_words), &[message(&payload), message(&payload)]).unwrap();
        grain.call(HandlerFn::Several(add_words), &[message(&payload)]).unwrap();
        let mut count = |word: &[u8]| gristmill_sdk::Context::new(&mut grain).map_get_u64("counts", word).unwrap();
        assert_eq!((count(b"and"), count(b"any")), (6, 3));
    }

    #[test]
    fn totals_of_a_document_add_up_and_bad_payloads_fail() {
        let mut grain = FakeGrain::new("d");
        let mut payload = Vec::new();
        put_number(&mut payload, 2);
        put_number(&mut payload, 300);
        grain.call(HandlerFn::Several(add_lines), &[message(&payload), message(&payload)]).unwrap();
        assert_eq!(grain.value.as_deref(), Some(br#"{"lines":4,"words":600}"#.as_slice()));
        assert!(grain.call(HandlerFn::Several(add_lines), &[message(&[1])]).is_err());
        assert!(FakeGrain::new("a").with_map("counts").call(HandlerFn::Several(add_words), &[message(&[5])]).is_err());
    }
}
