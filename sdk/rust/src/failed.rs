use std::time::Duration;

/// Kinds of failures that are not the app's own.
pub mod kinds {
    /// A failure of a handler that names no kind.
    pub const FAILED: &str = "failed";
    /// The handler panicked.
    pub const PANIC: &str = "panic";
    /// The run was not over in the time that the app file gives it.
    pub const TIMEOUT: &str = "timeout";
    /// The process ended within the run. Reserved.
    pub const INTERRUPTED: &str = "interrupted";
    /// What the run did fits no record: its effects, its replies, its messages.
    pub const TOO_LARGE: &str = "too-large";
    /// The run asked for an effect that is not allowed, such as a value that is not of the declared type.
    pub const BAD_EFFECT: &str = "bad-effect";
    /// A handler of several inputs gave results that do not fit them.
    pub const BAD_RESULTS: &str = "bad-results";
    /// The handler failed with a kind that is no name, or one of these.
    pub const BAD_KIND: &str = "bad-kind";
    /// The input calls a handler that does not exist any more, or is not linked.
    pub const NO_HANDLER: &str = "no-handler";
    /// The handler deferred the input more often than is allowed.
    pub const DEFERRED: &str = "deferred";
    /// Kinds that only the engine gives.
    pub const RESERVED: [&str; 9] =
        [PANIC, TIMEOUT, INTERRUPTED, TOO_LARGE, BAD_EFFECT, BAD_RESULTS, BAD_KIND, NO_HANDLER, DEFERRED];
    /// Longest name of a kind, bytes.
    pub const KIND_BYTES_MAX: usize = 64;

    /// Whether this may name a kind.
    #[must_use]
    pub fn is_name(kind: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=KIND_BYTES_MAX).contains(&kind.len()) && !kind.starts_with('-') && kind.bytes().all(fits)
    }
}

/// Whether and when what failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// As the app file says.
    Policy,
    /// As often as the app file says, the next time after this.
    After(Duration),
    /// Not at all.
    Never,
}

/// A failure as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    kind: String,
    message: String,
    retry: Retry,
}

/// The failure that an exception handler is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// For people: what went wrong.
    pub message: &'a str,
    /// How often the input was tried, this time included.
    pub attempts: u32,
}

impl Failed {
    /// A failure of a kind.
    #[must_use]
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), retry: Retry::Policy }
    }

    /// What went wrong, in a word.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// For people: what went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether and when it is tried again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// It is tried again after this time.
    pub fn retry_after(&mut self, wait: Duration) {
        self.retry = Retry::After(wait);
    }

    /// It is not tried again.
    pub fn no_retry(&mut self) {
        self.retry = Retry::Never;
    }

    /// The same, with another message.
    #[must_use]
    pub fn with_message(self, message: String) -> Self {
        Self { message, ..self }
    }
}

/// Code and reason of a definite status that an exception handler of kind `status` gave, from the payload of a response that
/// did not succeed, or from the message that a client got.
#[must_use]
pub fn status_of(text: &[u8]) -> Option<(u32, &str)> {
    let (code, reason) = std::str::from_utf8(text).ok()?.strip_prefix("status ")?.split_once(": ")?;
    Some((code.parse().ok()?, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_back_and_other_text_is_none() {
        assert_eq!(status_of(b"status 402: not enough money: 3 are left"), Some((402, "not enough money: 3 are left")));
        assert_eq!(status_of(b"after 2 attempts: status 402: no"), None);
        assert_eq!(status_of(b"status x: y"), None);
    }

    #[test]
    fn kinds_are_short_names() {
        assert!(["a", "insufficient-funds", "e2"].into_iter().all(kinds::is_name));
        assert!(["", "-a", "Big", "a b", "*"].into_iter().all(|kind| !kinds::is_name(kind)));
        assert!(!kinds::is_name(&"a".repeat(65)));
        assert!(kinds::RESERVED.into_iter().all(kinds::is_name));
    }
}
