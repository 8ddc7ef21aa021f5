//! Bench harness: rounds, medians with spread, a table for people and a JSON file for programs.
//!
//! Goals: a figure that can be repeated, of the real path. Not a goal: absolute figures that hold on another machine.

use std::path::PathBuf;
use std::time::Instant;

/// Figures of one bench.
pub struct Report {
    name: &'static str,
    /// What was measured, and nanoseconds per operation in each round.
    rows: Vec<(String, Vec<f64>)>,
}

impl Report {
    /// An empty report of the bench `name`.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new() }
    }

    /// Adds what one round measured: nanoseconds per operation.
    pub fn add(&mut self, what: &str, nanos: f64) {
        match self.rows.iter_mut().find(|(name, _)| name == what) {
            Some((_, rounds)) => rounds.push(nanos),
            None => self.rows.push((what.to_owned(), vec![nanos])),
        }
    }

    /// Prints the table and writes `target/bench/NAME.json`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> std::io::Result<()> {
        println!("{:<44} {:>10} {:>10} {:>10}", "nanoseconds per operation", "median", "least", "most");
        let mut json = serde_json::Map::new();
        for (what, rounds) in &mut self.rows {
            rounds.sort_by(f64::total_cmp);
            let (median, least, most) = (rounds[rounds.len() / 2], rounds[0], rounds[rounds.len() - 1]);
            println!("{what:<44} {median:>10.1} {least:>10.1} {most:>10.1}");
            json.insert(
                what.clone(),
                serde_json::json!({"median": median, "least": least, "most": most, "rounds": rounds.len()}),
            );
        }
        let dir = PathBuf::from(std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into())).join("bench");
        std::fs::create_dir_all(&dir)?;
        let file = dir.join(format!("{}.json", self.name));
        std::fs::write(&file, serde_json::to_string_pretty(&json).unwrap_or_default())?;
        println!("written to {}", file.display());
        Ok(())
    }
}

/// How long `work` takes, in nanoseconds, and what it gave.
#[expect(clippy::disallowed_methods, reason = "a bench reads the real clock")]
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_nanos() as f64, result)
}

/// A small generator of repeatable numbers (SplitMix64, Steele, Lea and Flood 2014).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl gristmill_base::env::Rng for Numbers {
    fn next_u64(&mut self) -> u64 {
        self.draw()
    }
}
