//! What the checks look at: the files that git knows or would take, and the packages of the workspace.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The repository, read once.
#[derive(Default)]
pub(super) struct Repository {
    /// Text of every file in UTF-8, by path from the root.
    pub(super) files: BTreeMap<String, String>,
    /// Paths of the files that are no text.
    pub(super) binaries: Vec<String>,
    /// Members of the workspace.
    pub(super) packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Default)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its folder from the root; empty for the root itself.
    pub(super) folder: String,
    /// Packages it depends upon in a build (not only in tests), ours and others.
    pub(super) dependencies: Vec<String>,
    /// The first file of each target, from the root.
    pub(super) targets: Vec<String>,
}

impl Repository {
    /// Reads the repository of the current folder.
    pub(super) fn read() -> Result<Self> {
        let metadata = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--offline"])?;
        let metadata: Value = serde_json::from_str(&metadata).context("reading cargo metadata")?;
        let root = text(&metadata["workspace_root"])?;
        let mut repository = Self { packages: packages(&metadata, &root)?, ..Self::default() };
        std::env::set_current_dir(&root).with_context(|| format!("entering {root}"))?;
        for path in paths()? {
            match String::from_utf8(std::fs::read(&path).with_context(|| format!("reading {path}"))?) {
                Ok(text) => drop(repository.files.insert(path, text)),
                Err(_) => repository.binaries.push(path),
            }
        }
        Ok(repository)
    }

    /// Whether a file or folder of that path is there.
    pub(super) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        let inside = |known: &str| known == path || known.starts_with(&folder);
        path.is_empty()
            || self.files.keys().any(|known| inside(known))
            || self.binaries.iter().any(|known| inside(known))
    }

    /// The Rust files of the workspace's packages (not of packages that stand apart), with their package.
    pub(super) fn rust_files(&self) -> impl Iterator<Item = (&Package, &str, &str)> {
        self.files.iter().filter(|(path, _)| path.ends_with(".rs")).filter_map(|(path, text)| {
            let folder = self.manifest_folder(path)?;
            let package = self.packages.iter().find(|package| package.folder == folder)?;
            Some((package, path.as_str(), text.as_str()))
        })
    }

    /// The nearest folder above that has a manifest.
    fn manifest_folder<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut folder = path;
        while let Some((above, _)) = folder.rsplit_once('/') {
            if self.files.contains_key(&format!("{above}/Cargo.toml")) {
                return Some(above);
            }
            folder = above;
        }
        None
    }

    #[cfg(test)]
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { files, ..Self::default() }
    }
}

/// Files that git knows or would take; all but what is built, if this is no checkout.
fn paths() -> Result<Vec<String>> {
    let list = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    if let Ok(listed) = output("git", &list) {
        let there = listed.split('\0').filter(|path| !path.is_empty() && Path::new(path).is_file());
        return Ok(there.map(str::to_owned).collect());
    }
    let mut paths = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(if folder.is_empty() { "." } else { &folder })? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| anyhow!("{name:?} is no UTF-8"))?;
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if entry.file_type()?.is_file() {
                paths.push(path);
            } else if entry.file_type()?.is_dir() && !matches!(name.as_str(), ".git" | "target" | "__pycache__") {
                folders.push(path);
            }
        }
    }
    Ok(paths)
}

fn packages(metadata: &Value, root: &str) -> Result<Vec<Package>> {
    let relative = |path: &Value| {
        let path = text(path)?;
        let inner = path.strip_prefix(root).with_context(|| format!("{path} is outside the workspace"))?;
        Ok::<_, anyhow::Error>(inner.trim_start_matches('/').to_owned())
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut packages = Vec::new();
    for package in list(&metadata["packages"]) {
        let manifest = relative(&package["manifest_path"])?;
        let in_builds = list(&package["dependencies"]).into_iter().filter(|dependency| dependency["kind"] != "dev");
        packages.push(Package {
            name: text(&package["name"])?,
            folder: manifest.strip_suffix("/Cargo.toml").unwrap_or_default().to_owned(),
            dependencies: in_builds.map(|dependency| text(&dependency["name"])).collect::<Result<_>>()?,
            targets: list(&package["targets"])
                .iter()
                .map(|target| relative(&target["src_path"]))
                .collect::<Result<_>>()?,
        });
    }
    Ok(packages)
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("cargo metadata has another shape than expected")?.to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(|| format!("output of {program}"))
}

/// A small repository with one package, in the folder of the first file, for the tests of checks.
#[cfg(test)]
pub(super) fn planted(package: &str, files: &[(&str, &str)]) -> Repository {
    let folder = files[0].0.split('/').next().unwrap_or_default().to_owned();
    let mut repository = Repository::with(files);
    repository.files.entry(format!("{folder}/Cargo.toml")).or_default();
    repository.packages.push(Package { name: package.to_owned(), folder, ..Package::default() });
    repository
}
