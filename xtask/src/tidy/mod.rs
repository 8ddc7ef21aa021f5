//! `cargo xtask tidy`: reads the repository once and gives it to each check. Checks are pure, so that their tests can
//! hand them a small repository with a planted violation.

mod arrows;
mod budget;
mod dead;
mod links;
mod manifests;
mod names;
mod repository;
mod source;
mod words;

use anyhow::{Result, bail};
use repository::Repository;
use std::fmt;

/// Something that is wrong, or only worth a look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the repository's root.
    path: String,
    /// From 1; 0 if the finding concerns the whole file.
    line: usize,
    /// What was found and what is allowed.
    message: String,
    /// Whether it fails the run.
    fails: bool,
}

impl Finding {
    fn error(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into(), fails: true }
    }

    fn warning(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: 0, message: message.into(), fails: false }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fails { "error" } else { "warning" };
        match self.line {
            0 => write!(f, "{kind}: {}: {}", self.path, self.message),
            line => write!(f, "{kind}: {}:{line}: {}", self.path, self.message),
        }
    }
}

const CHECKS: [fn(&Repository) -> Vec<Finding>; 7] =
    [arrows::check, budget::check, dead::check, links::check, manifests::check, names::check, words::check];

/// Runs every check over the repository that the current folder is in.
///
/// # Errors
/// The repository cannot be read, or something is wrong with it; each finding has been printed.
pub(crate) fn run() -> Result<()> {
    let repository = Repository::read()?;
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&repository)).collect();
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.fails).count();
    if errors > 0 {
        bail!("{errors} things to tidy");
    }
    println!("tidy: {} files, {} packages, nothing wrong", repository.files.len(), repository.packages.len());
    Ok(())
}
