//! Dependencies between the packages of the workspace: only the arrows of docs/ARCHITECTURE.md.

use super::Finding;
use super::repository::Repository;

/// What a package may use of ours. What is not here may use nothing.
const ARROWS: &[(&str, &[&str])] = &[
    ("gristmill-base", &[]),
    ("gristmill-io", &["gristmill-base"]),
    ("gristmill-state", &["gristmill-base", "gristmill-io"]),
    ("gristmill-sdk", &["gristmill-base"]),
    ("gristmill-core", &["gristmill-base", "gristmill-io", "gristmill-state", "gristmill-sdk"]),
    ("gristmill-wire", &["gristmill-base"]),
    ("gristmill-net", &["gristmill-base", "gristmill-io", "gristmill-core", "gristmill-sdk", "gristmill-wire"]),
    ("gristmill-client", &["gristmill-base", "gristmill-wire"]),
    ("gristmill-test-kit", &["gristmill-base", "gristmill-state", "gristmill-core", "gristmill-sdk"]),
    (
        "gristmill-server",
        &[
            "gristmill-base",
            "gristmill-io",
            "gristmill-state",
            "gristmill-core",
            "gristmill-net",
            "gristmill-wire",
            "gristmill-client",
            "gristmill-sdk",
        ],
    ),
    (
        "gristmill-loadgen",
        &["gristmill-base", "gristmill-client", "gristmill-wire", "gristmill-sdk", "gristmill-loadgen-app"],
    ),
    ("gristmill-loadgen-app", &["gristmill-base", "gristmill-sdk"]),
    ("batch-and-stream", &["gristmill-sdk"]),
    ("fund-transfer", &["gristmill-sdk"]),
    ("orders", &["gristmill-sdk"]),
    ("rate-limiter", &["gristmill-sdk"]),
    ("starter-app", &["gristmill-sdk", "gristmill-server"]),
    ("user-flows", &["gristmill-sdk"]),
    ("word-count", &["gristmill-sdk"]),
    (
        "gristmill",
        &[
            "gristmill-server",
            "gristmill-loadgen",
            "gristmill-loadgen-app",
            "batch-and-stream",
            "fund-transfer",
            "orders",
            "rate-limiter",
            "user-flows",
            "word-count",
        ],
    ),
    ("xtask", &[]),
];

/// Packages that may use anything and that nothing may use.
const TOPS: &[&str] = &["gristmill-sim", "gristmill-benches"];

/// A package with an arrow that is not allowed, or one that the table does not know.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let ours = |name: &String| repository.packages.iter().any(|package| package.name == **name);
    let mut findings = Vec::new();
    for package in &repository.packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let row = ARROWS.iter().find(|(name, _)| *name == package.name).map(|(_, allowed)| *allowed);
        let top = TOPS.contains(&package.name.as_str());
        if row.is_none() && !top {
            findings.push(Finding::error(&manifest, 0, format!("{} is not in the table of arrows", package.name)));
            continue;
        }
        for used in package.dependencies.iter().filter(|name| ours(name)) {
            let allowed =
                if top { !TOPS.contains(&used.as_str()) } else { row.unwrap_or_default().contains(&used.as_str()) };
            if !allowed {
                let list = row.unwrap_or(&["anything but sim and benches"]).join(", ");
                let message = format!("{} depends on {used}; allowed: {list}", package.name);
                findings.push(Finding::error(&manifest, 0, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::repository::Package;
    use super::*;

    fn found(packages: &[(&str, &[&str])]) -> Vec<String> {
        let package = |(name, used): &(&str, &[&str])| Package {
            name: (*name).into(),
            folder: "x".into(),
            dependencies: used.iter().map(|name| (*name).to_owned()).collect(),
            ..Package::default()
        };
        let repository = Repository { packages: packages.iter().map(package).collect(), ..Repository::default() };
        check(&repository).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn an_arrow_that_points_back_is_found() {
        let found = found(&[("gristmill-base", &["gristmill-io"]), ("gristmill-io", &["gristmill-base", "libc"])]);
        assert_eq!(found, ["gristmill-base depends on gristmill-io; allowed: "]);
    }

    #[test]
    fn nothing_uses_the_simulator() {
        assert_eq!(found(&[("gristmill-sim", &[]), ("gristmill-benches", &["gristmill-sim"])]).len(), 1);
    }

    #[test]
    fn a_package_that_nobody_placed_is_found() {
        assert_eq!(found(&[("gristmill-more", &[])]), ["gristmill-more is not in the table of arrows"]);
    }
}
