//! Crash points of the whole engine.

/// Placeholder until below.
pub fn enumerate_all() -> Result<String, String> {
    Err("not there".into())
}
