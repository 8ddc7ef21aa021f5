//! Which parked keys are meant.

use crate::exit::{Exit, Failed};
use serde_json::Value;
use std::time::Duration;

/// Arguments that leave some of the parked keys.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// Only keys that failed with this kind of failure.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only keys whose reason is like this; `*` stands for any text.
    #[arg(long, value_name = "PATTERN")]
    reason: Option<String>,
    /// Only keys parked within this time, such as 30m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Duration>,
}

impl Filter {
    /// That there is none, where keys are named.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn none(&self) -> Result<(), Failed> {
        if self.kind.is_none() && self.reason.is_none() && self.since.is_none() {
            return Ok(());
        }
        let message = "--kind, --reason and --since choose among all parked keys; give --all, or keys and no filter";
        Err(Failed::new(Exit::Usage, message.to_owned()))
    }

    /// Whether a parked key, as the server tells of it, is meant.
    pub(super) fn takes(&self, what: &Value, now_micros: u64) -> bool {
        let since = what["since_micros"].as_u64().unwrap_or(0);
        let text = |name: &str| what[name].as_str().unwrap_or_default();
        self.kind.as_deref().is_none_or(|kind| kind == text("kind"))
            && self.reason.as_deref().is_none_or(|pattern| is_like(pattern, text("reason")))
            && self.since.is_none_or(|within| u128::from(now_micros.saturating_sub(since)) <= within.as_micros())
    }
}

/// Whether a text is like a pattern, in which `*` stands for any text, none included.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; allowed: a whole number with a unit (s, m, h, d), such as 2h");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patterns_are_of_stars() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("after * attempts: *", "after 2 attempts: broken", true),
            ("*broken", "after 2 attempts: broken", true),
            ("*broken", "broken bell", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*bc", "abcd", false),
            ("plain", "plain", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(is_like(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn all_filters_must_take_a_key() {
        let now = 10_000_000_000;
        let what = json!({"kind": "panic", "reason": "after 2 attempts: x", "since_micros": now - 90_000_000});
        let filter = |kind: &str, reason: &str, since: &str| Filter {
            kind: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            since: Some(time(since).unwrap()),
        };
        assert!(Filter::default().takes(&what, now));
        assert!(filter("panic", "*x", "2m").takes(&what, now));
        assert!(!filter("panic", "*x", "1m").takes(&what, now));
        assert!(!filter("timeout", "*x", "2m").takes(&what, now));
        assert!(!filter("panic", "*y", "2m").takes(&what, now));
        assert!(time("2").is_err() && time("h").is_err() && time("99999999999999999999d").is_err());
    }
}
