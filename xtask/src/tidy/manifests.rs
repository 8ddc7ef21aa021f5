//! Manifests: every package inherits the lints, dependencies have one version in one place, and a reason.

use super::Finding;
use super::repository::Repository;

/// Manifests that break a rule.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = repository.files.get("Cargo.toml").map(|text| reasons(text)).unwrap_or_default();
    for package in &repository.packages {
        let path = format!("{}/Cargo.toml", package.folder);
        let Some(text) = repository.files.get(&path) else { continue };
        if !entries(text).any(|(section, _, entry)| section == "lints" && entry.replace(' ', "") == "workspace=true") {
            findings.push(Finding::error(&path, 0, "the lints are not inherited; add [lints] with workspace = true"));
        }
        for (section, line, entry) in entries(text).filter(|(section, ..)| section.ends_with("dependencies")) {
            if !entry.replace(' ', "").contains("workspace=true") {
                let message = format!(
                    "{entry:?} in [{section}] has its own version; name it in the root manifest and take it with workspace = true"
                );
                findings.push(Finding::error(&path, line, message));
            }
        }
    }
    findings
}

/// Dependencies of the workspace on others that have no reason behind them.
fn reasons(text: &str) -> Vec<Finding> {
    let others =
        entries(text).filter(|(section, _, entry)| section == "workspace.dependencies" && !entry.contains("path ="));
    others
        .filter(|(_, _, entry)| !entry.contains('#'))
        .map(|(_, line, entry)| {
            Finding::error("Cargo.toml", line, format!("{entry:?} has no reason; write it behind #"))
        })
        .collect()
}

/// Every `key = value` line with its section and line number. Manifests here keep an entry on one line.
fn entries(text: &str) -> impl Iterator<Item = (String, usize, &str)> {
    let mut section = String::new();
    text.lines().enumerate().filter_map(move |(at, line)| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next())
            && !line.contains('=')
        {
            name.clone_into(&mut section);
            return None;
        }
        (line.contains('=') && !line.starts_with('#')).then(|| (section.clone(), at + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::super::repository::planted;
    use super::*;

    #[test]
    fn planted_manifests_are_found() {
        let root = "[workspace.dependencies]\nours = { path = \"x\" }\ngood = \"1\" # a reason\nbad = \"1\"\n";
        let member =
            "[package]\nname = \"a\"\n[dependencies]\ngood.workspace = true\nown = \"2\"\n[features]\nx = []\n";
        let mut repository = planted("a", &[("Cargo.toml", root), ("x/Cargo.toml", member)]);
        repository.packages[0].folder = "x".into();
        let found: Vec<_> = check(&repository).into_iter().map(|found| (found.path, found.line)).collect();
        assert_eq!(found, [("Cargo.toml".into(), 4), ("x/Cargo.toml".into(), 0), ("x/Cargo.toml".to_owned(), 5)]);
    }

    #[test]
    fn a_good_member_is_left_alone() {
        let member = "[lints]\nworkspace = true\n[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"c\"] }\n";
        let mut repository = planted("a", &[("x/Cargo.toml", member)]);
        repository.packages[0].folder = "x".into();
        assert_eq!(check(&repository), []);
    }
}
