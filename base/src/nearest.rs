//! The nearest of several names to one that was not found, for error messages.

/// The name of `known` that is nearest to `found` by edit distance, if it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (found.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(found, name), name))
        .filter(|(away, _)| *away <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_met_and_nonsense_is_not() {
        assert_eq!(nearest("topicz", ["tables", "topics"]), Some("topics"));
        assert_eq!(nearest("qqqqqq", ["tables", "topics"]), None);
    }
}
