//! What a handler knows of its run, and what it says of it: configuration, log lines, numbers to draw.

use super::Context;
use std::fmt;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For who looks for a mistake; not told unless the server's log level says so.
    Debug,
    /// That something happened.
    Info,
    /// Something that somebody should look at.
    Warn,
    /// Something that is wrong.
    Error,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

impl Context<'_> {
    /// A value of the configuration in the app file: of the handler, or else of the app.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<&str> {
        self.access.config(name)
    }

    /// Logs a line with the identity of the grain, once the run has committed; if it fails, as a line of that attempt. Each
    /// handler may log 20 lines a second, 100 at once; what is beyond is left out and counted. Long lines are cut.
    pub fn log(&mut self, level: LogLevel, message: impl Into<String>) {
        self.access.log(level, message.into());
    }

    /// An id of the handling of this input: the same in each attempt at it, and that of no other input.
    pub fn run_id(&mut self) -> u128 {
        self.access.run_id()
    }

    /// The next number of a sequence that follows from the input: each attempt at it draws the same. Not for secrets.
    pub fn random_u64(&mut self) -> u64 {
        self.access.random_u64()
    }

    /// Fills bytes in the same way.
    pub fn random_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.access.random_u64().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}
