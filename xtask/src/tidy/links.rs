//! Links and file names in documents: what they lead to must be there.

use super::Finding;
use super::dead::joined;
use super::repository::Repository;

/// Endings by which a name in code marks is taken for a file of the repository.
const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".yaml", ".sh", ".py"];

/// Links to files that are not there, and names of files in code marks that are not there.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repository.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, line) in lines_outside_blocks(text) {
            for target in targets(line).filter(|target| !repository.has(&joined(folder, target))) {
                findings.push(Finding::error(path, at, format!("the link to {target} leads nowhere")));
            }
            for name in file_names(line).filter(|name| !repository.has(name) && !repository.has(&joined(folder, name)))
            {
                findings.push(Finding::error(path, at, format!("there is no file {name}")));
            }
        }
    }
    findings
}

/// Lines with their number, without fenced blocks.
fn lines_outside_blocks(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Targets of links to files, without the part inside the file.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|after| {
        let target = after.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).then_some(target)
    })
}

/// Paths in code marks that look like files of the repository.
fn file_names(line: &str) -> impl Iterator<Item = &str> {
    let looks = |name: &&str| {
        name.contains('/')
            && ENDINGS.iter().any(|ending| name.ends_with(ending))
            && !name.starts_with('/')
            && !name.starts_with("target/")
            && !name.contains([' ', '*', '<', '{', '$'])
            && !name.contains("://")
    };
    line.split('`').skip(1).step_by(2).filter(looks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_and_files_are_found() {
        let text = "[a](b.md) [c](../README.md#top) [d](gone.md) [e](https://x.y/z.md) [f](#here)\n```\n[g](block.md)\n```\n`core/src/lib.rs` `core/src/gone.rs` `a b/c.rs`\n";
        let files = [("docs/a.md", text), ("docs/b.md", ""), ("README.md", ""), ("core/src/lib.rs", "")];
        let found: Vec<_> =
            check(&Repository::with(&files)).into_iter().map(|found| (found.line, found.message)).collect();
        assert_eq!(
            found,
            [(1, "the link to gone.md leads nowhere".into()), (5, "there is no file core/src/gone.rs".to_owned())]
        );
    }
}
