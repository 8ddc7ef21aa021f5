//! The committed figures: `benches/count.json`, instructions per operation by row.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// See the module.
#[derive(Debug)]
pub(crate) struct Figures(BTreeMap<String, u64>);

impl Figures {
    /// Reads the file; none is no figures.
    pub(crate) fn read() -> io::Result<Self> {
        match std::fs::read_to_string(file()) {
            Ok(text) => serde_json::from_str(&text)
                .map(Self)
                .map_err(|error| io::Error::other(format!("{}: {error}", file().display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(BTreeMap::new())),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<f64> {
        self.0.get(id).map(|value| *value as f64)
    }

    /// Whole instructions: parts of one mean nothing.
    pub(crate) fn set(&mut self, id: &str, value: f64) {
        self.0.insert(id.to_owned(), value.round() as u64);
    }

    /// Writes the file; gives its name.
    pub(crate) fn write(&self) -> io::Result<String> {
        std::fs::write(file(), serde_json::to_string_pretty(&self.0).map_err(io::Error::other)? + "\n")?;
        Ok(file().display().to_string())
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("count.json")
}
