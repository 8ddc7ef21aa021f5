//! Exit statuses of the command line. They are API.

use std::fmt;
use std::process::ExitCode;

/// How a command ended, if not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The answer is no: not found, differences, damage.
    No = 1,
    /// The command line is wrong.
    Usage = 2,
    /// It took too long.
    TimeOut = 3,
    /// The grain is parked.
    Parked = 4,
    /// The server cannot be reached.
    Unreachable = 69,
    /// A fault of the program.
    Internal = 70,
    /// The configuration is wrong, or the machine lacks something.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed, for the person who ran it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The status that the process ends with.
    pub exit: Exit,
    /// What was found and what is allowed. May have several lines; empty if everything was said already.
    pub message: String,
}

impl Failed {
    /// A failure.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// The same, after its message was told.
    #[must_use]
    pub fn told(self) -> Self {
        Self { message: String::new(), ..self }
    }

    /// The configuration is wrong, or the machine lacks something.
    #[must_use]
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(Exit::Configuration, message)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}
