//! Words that must not stand in any file: promises of later work, and paths of one machine. Modules named after
//! nothing.

use super::Finding;
use super::repository::Repository;
use super::source::tokens;
use std::path::Path;

/// Marks of work that somebody meant to do. Put together here, so that this file does not hold them.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Folders of one machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// Names that say nothing about what a module holds.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "misc", "helpers", "helper"];

/// Files with a word that is not allowed.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repository.files.iter().filter(|(path, _)| *path != "Cargo.lock") {
        findings.extend(empty_name(path));
        if !MARKS.iter().chain(&MACHINE_PATHS).any(|word| text.contains(word)) {
            continue;
        }
        for (line, word) in tokens(text).into_iter().filter(|(_, word)| MARKS.contains(word)) {
            findings.push(Finding::error(
                path,
                line,
                format!("{word} is not allowed: do it, or describe the limit in docs"),
            ));
        }
        for (at, line) in text.lines().enumerate() {
            for found in MACHINE_PATHS.iter().filter(|found| line.contains(**found)) {
                findings.push(Finding::error(path, at + 1, format!("{found} is a path of one machine")));
            }
        }
    }
    findings
}

fn empty_name(path: &str) -> Option<Finding> {
    let source = Path::new(path);
    let empty = |name: &str| EMPTY_NAMES.contains(&name);
    if source.extension()? != "rs" {
        return None;
    }
    let stem = empty(source.file_stem()?.to_str()?);
    (stem || path.split('/').any(empty))
        .then(|| Finding::error(path, 0, "this name says nothing; name the module after what it holds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_words_are_found() {
        let mark = format!("fine\n// {}: later\n{}S are fine\n", MARKS[0], MARKS[0]);
        let place = format!("see {}x\n", MACHINE_PATHS[0]);
        let files =
            [("a/src/lib.rs", mark.as_str()), ("docs/a.md", &place), ("a/src/utils.rs", ""), ("a/common/b.rs", "")];
        let found: Vec<_> =
            check(&Repository::with(&files)).into_iter().map(|found| (found.path, found.line)).collect();
        let wanted = [("a/common/b.rs", 0), ("a/src/lib.rs", 2), ("a/src/utils.rs", 0), ("docs/a.md", 1)];
        assert_eq!(found, wanted.map(|(path, line)| (path.to_owned(), line)));
    }
}
