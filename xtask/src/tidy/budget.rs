//! Length of source files, their tests not counted.

use super::Finding;
use super::repository::Repository;
use super::source::{is_test_file, product_line_count};

/// A file this long is still read in one go.
const LINES_WANTED: usize = 350;
/// A longer file is several files.
const LINES_MAX: usize = 600;

/// Files that are too long, and those that are about to be.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, path, text) in repository.rust_files() {
        let lines = if is_test_file(&package.folder, path) { 0 } else { product_line_count(text) };
        if lines > LINES_MAX {
            findings.push(Finding::error(path, 0, format!("{lines} lines without tests; allowed: {LINES_MAX}")));
        } else if lines > LINES_WANTED {
            findings
                .push(Finding::warning(path, format!("{lines} lines without tests; wanted: at most {LINES_WANTED}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::repository::planted;
    use super::*;

    #[test]
    fn a_long_file_is_found_and_its_tests_are_not_counted() {
        let long = "fn f() {}\n".repeat(601);
        let near = "fn f() {}\n".repeat(351);
        let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let files = [("a/src/long.rs", long.as_str()), ("a/src/near.rs", &near), ("a/src/tested.rs", &tested)];
        let findings = check(&planted("a", &files));
        let found: Vec<_> = findings.iter().map(|finding| (finding.path.as_str(), finding.fails)).collect();
        assert_eq!(found, [("a/src/long.rs", true), ("a/src/near.rs", false)]);
    }
}
