//! Rust files that no `mod` reaches: they look alive and are never compiled.

use super::Finding;
use super::repository::{Package, Repository};
use super::source::code;
use std::collections::BTreeSet;

/// Files of packages that no target includes.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &repository.packages {
        let reached = reached(repository, package);
        for (_, path, _) in repository.rust_files().filter(|(owner, _, _)| owner.folder == package.folder) {
            if !reached.contains(path) {
                findings.push(Finding::error(path, 0, "no mod reaches this file; declare it or delete it"));
            }
        }
    }
    findings
}

fn reached(repository: &Repository, package: &Package) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<(String, bool)> = package.targets.iter().map(|target| (target.clone(), true)).collect();
    while let Some((path, root)) = open.pop() {
        let Some(text) = repository.files.get(&path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let stem = name.trim_end_matches(".rs");
        let below = if root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
        for module in modules(text) {
            match module {
                Module::Named(name) => {
                    open.push((format!("{below}/{name}.rs"), false));
                    open.push((format!("{below}/{name}/mod.rs"), false));
                }
                Module::At(place) => open.push((joined(folder, &place), false)),
            }
        }
    }
    reached
}

#[derive(Debug, PartialEq, Eq)]
enum Module {
    /// `mod name;`
    Named(String),
    /// `#[path = "..."] mod name;`
    At(String),
}

/// The modules that a file declares without giving their body.
fn modules(text: &str) -> Vec<Module> {
    let code = code(text);
    let mut modules = Vec::new();
    let mut place = None;
    for (code, raw) in code.lines().zip(text.lines()) {
        if code.contains("#[path") {
            place = raw.split('"').nth(1).map(str::to_owned);
        }
        let statement = code.rsplit(']').next().unwrap_or(code);
        let mut words = statement.trim_end().trim_end_matches(';').split_whitespace();
        if code.trim_end().ends_with(';')
            && words.any(|word| word == "mod")
            && let Some(name) = words.next()
        {
            modules.push(place.take().map_or_else(|| Module::Named(name.to_owned()), Module::At));
        }
    }
    modules
}

/// A path relative to a folder, without its dots.
pub(super) fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::repository::planted;
    use super::*;

    #[test]
    fn a_file_that_nobody_declares_is_found() {
        let files = [
            ("a/src/lib.rs", "mod one;\npub(crate) mod two;\n#[cfg(test)] mod tests;\n// mod dead;\nmod here {}\n"),
            ("a/src/one.rs", "mod inner;\n"),
            ("a/src/one/inner.rs", ""),
            ("a/src/two/mod.rs", "#[path = \"../odd.rs\"]\nmod strange;\n"),
            ("a/src/odd.rs", ""),
            ("a/src/tests.rs", ""),
            ("a/src/dead.rs", ""),
        ];
        let mut repository = planted("a", &files);
        repository.packages[0].folder = "a".into();
        repository.packages[0].targets = vec!["a/src/lib.rs".into()];
        let found: Vec<_> = check(&repository).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["a/src/dead.rs"]);
    }
}
