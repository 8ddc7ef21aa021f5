//! Series of metrics of apps: a name with labels, as one text. The same labels give the same text in whatever order they are
//! told, so that the text is a key.

use crate::limits::{LABEL_VALUE_BYTES_MAX, LABELS_MAX, METRIC_NAME_BYTES_MAX};
use std::fmt::Write as _;

/// Labels that the engine adds itself.
const OWN_LABELS: [&str; 2] = ["app", "shard"];
/// A name of the engine's own, which tells how many series are not shown.
const OWN_NAME: &str = "series_over";
/// Endings that the engine adds itself.
const OWN_ENDINGS: [&str; 7] = ["_total", "_current", "_bucket", "_sum", "_count", "_info", "_created"];

/// The text of a series: `name`, or `name{a="x",b="y"}` with the labels in order.
///
/// # Errors
/// What is wrong with the name or a label, and what is allowed.
pub fn series(name: &str, labels: &[(&str, &str)]) -> Result<String, String> {
    check_name("a metric's name", name)?;
    if let Some(ending) = OWN_ENDINGS.iter().find(|ending| name.ends_with(**ending)) {
        return Err(format!("a metric's name {name:?}: names that end with {ending} are made by the engine"));
    }
    if name == OWN_NAME {
        return Err(format!("a metric's name {name:?}; it is the engine's own"));
    }
    if labels.is_empty() {
        return Ok(name.to_owned());
    }
    if labels.len() > LABELS_MAX {
        return Err(format!("metric {name} with {} labels; at most {LABELS_MAX} are allowed", labels.len()));
    }
    let mut sorted: Vec<&(&str, &str)> = labels.iter().collect();
    sorted.sort_unstable();
    let mut text = String::from(name);
    for (at, (label, value)) in sorted.iter().enumerate() {
        check_name(&format!("a label of metric {name}"), label)?;
        if OWN_LABELS.contains(label) || label.starts_with("__") {
            return Err(format!(
                "a label {label:?} of metric {name}; app, shard and those with __ are the engine's own"
            ));
        }
        if at > 0 && sorted[at - 1].0 == *label {
            return Err(format!("label {label:?} of metric {name} twice; each is allowed once"));
        }
        if value.len() > LABEL_VALUE_BYTES_MAX {
            let found = value.len();
            return Err(format!("label {label} of metric {name} has {found} bytes; at most {LABEL_VALUE_BYTES_MAX}"));
        }
        let _ = write!(text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
        for char in value.chars() {
            match char {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text.push('}');
    Ok(text)
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_');
    if first && chars.all(|char| char.is_ascii_alphanumeric() || char == '_') && name.len() <= METRIC_NAME_BYTES_MAX {
        return Ok(());
    }
    let shown: String = name.chars().take(METRIC_NAME_BYTES_MAX).collect();
    Err(format!(
        "{what} {shown:?} of {} bytes; allowed are letters, digits and _, no digit first, at most {METRIC_NAME_BYTES_MAX}",
        name.len()
    ))
}

/// Name and labels of a series' text; label values are as they were, without escapes. `None` if it is none: counters of older
/// versions have any name.
#[must_use]
pub fn parts(series: &str) -> Option<(&str, Vec<(&str, String)>)> {
    let Some((name, rest)) = series.split_once('{') else { return Some((series, Vec::new())) };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (label, behind) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), behind.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((label, value));
        rest = &behind[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some((name, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_labels_are_the_same_series_and_come_back() {
        let one = series("flows", &[("type", "a\"b\\c\nd"), ("at", "{x=\"y\"},")]).unwrap();
        assert_eq!(one, series("flows", &[("at", "{x=\"y\"},"), ("type", "a\"b\\c\nd")]).unwrap());
        let (name, labels) = parts(&one).unwrap();
        assert_eq!(name, "flows");
        assert_eq!(labels, [("at", "{x=\"y\"},".to_owned()), ("type", "a\"b\\c\nd".to_owned())]);
        assert_eq!(series("flows", &[]).unwrap(), "flows");
        assert_eq!(parts("flows"), Some(("flows", Vec::new())));
        assert_eq!(parts("flows{a=\"x"), None);
    }

    #[test]
    fn what_is_no_series_is_named() {
        let wrong = |name: &str, labels: &[(&str, &str)]| series(name, labels).unwrap_err();
        assert!(wrong("", &[]).contains("of 0 bytes"));
        assert!(wrong("9a", &[]).contains("no digit first"));
        assert!(wrong("a-b", &[]).contains("\"a-b\""));
        assert!(wrong("a_total", &[]).contains("_total"));
        assert!(wrong("series_over", &[]).contains("engine's own"));
        assert!(wrong(&"n".repeat(1_000), &[]).len() < 300);
        assert!(wrong("a", &[("app", "x")]).contains("engine's own"));
        assert!(wrong("a", &[("b", "x"), ("b", "y")]).contains("twice"));
        assert!(wrong("a", &[("b", &"x".repeat(1_000))]).contains("1000 bytes"));
        assert!(wrong("a", &[("b", "x"); 9]).contains("9 labels"));
    }
}
