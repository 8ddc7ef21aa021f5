//! Parsing and validating.

use super::AppFile;
use std::fmt;

/// What is wrong with an app file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFileError(pub String);

impl fmt::Display for AppFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AppFileError {}

/// See [`AppFile::parse`].
pub(super) fn parse(_text: &str, name: &str) -> Result<AppFile, AppFileError> {
    Err(AppFileError(format!("{name}: app files cannot be parsed yet")))
}
