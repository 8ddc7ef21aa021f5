//! Tables of JSON values, which clients write, delete and ask for by their fields, page by page. Versions of the app declare other
//! indexes, so some are there from the start and some come over rows that are there.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use gristmill_base::query::{Filter, parse};
use gristmill_sdk::App;

/// What every version has, with its indexes.
macro_rules! version {
    ($indexes:literal) => {
        concat!("app: queries\nlanguage: rust\ntables:\n  - {name: docs, key: string, value: json", $indexes, "}\n")
    };
}

const FILES: [&str; 5] = [
    version!(", indexes: [{name: by-city, field: address.city}, {name: by-n, field: 'n'}]"),
    version!(", auto_index: true"),
    version!(", indexes: [{name: by-city, field: address.city}], auto_index: true"),
    version!(""),
    version!(", indexes: [{name: by-n, field: 'n'}]"),
];

const CITIES: [&str; 3] = ["Bern", "Bex", "Zürich"];

/// What a query wants: all that is there of it must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The text at `address.city`.
    pub city: Option<&'static str>,
    /// How that begins.
    pub begins: Option<&'static str>,
    /// The number `n` is that or more.
    pub least: Option<u64>,
    /// The number `n` is less.
    pub below: Option<u64>,
    /// Only keys behind this one.
    pub after: String,
    /// At most so many.
    pub limit: u32,
    /// Whether every grain may be looked at where no index serves.
    pub scan: bool,
}

impl Wanted {
    /// Whether a value is wanted, found out in another way than the engine's.
    #[must_use]
    pub fn is(&self, value: &[u8]) -> bool {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(value) else { return false };
        let (city, n) = (json["address"]["city"].as_str(), json["n"].as_f64());
        self.city.is_none_or(|wanted| city == Some(wanted))
            && self.begins.is_none_or(|begins| city.is_some_and(|city| city.starts_with(begins)))
            && self.least.is_none_or(|least| n.is_some_and(|n| n >= least as f64))
            && self.below.is_none_or(|below| n.is_some_and(|n| n < below as f64))
    }

    /// The filter that says so.
    ///
    /// # Panics
    /// It wants nothing.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let conditions = [
            self.city.map(|city| format!("address.city = \"{city}\"")),
            self.begins.map(|begins| format!("address.city prefix \"{begins}\"")),
            self.least.map(|least| format!("n >= {least}")),
            self.below.map(|below| format!("n < {below}.0")),
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        parse(&conditions.join(" and ")).expect("a workload wants something")
    }

    fn draw(rng: &mut SimRng) -> Self {
        let after = if rng.below(4) == 0 { format!("c{}", rng.below(5)) } else { String::new() };
        let limit = [1, 3, 10_000, 10_000][rng.below(4) as usize];
        let mut wanted = Self { after, limit, scan: rng.below(2) == 0, ..Self::default() };
        match rng.below(5) {
            0 => wanted.city = Some(CITIES[rng.below(3) as usize]),
            1 => wanted.begins = Some("Be"),
            2 => wanted.least = Some(rng.below(4)),
            3 => (wanted.least, wanted.below) = (Some(1), Some(3)),
            _ => (wanted.begins, wanted.below) = (Some("Be"), Some(3)),
        }
        wanted
    }
}

/// See the module.
#[derive(Default)]
pub struct Queries {
    /// Which version is loaded, or about to be.
    loaded: usize,
}

fn value(id: u64, padding: usize, rng: &mut SimRng) -> Vec<u8> {
    let pad = "x\\u00e9".repeat(padding / 8);
    let (n, city) = (rng.below(5), CITIES[rng.below(3) as usize]);
    let text = match rng.below(8) {
        // Of a name that occurs twice the last one counts.
        0 => format!(r#"{{"n":"{n}","pad":"{pad}","n":{n},"address":{{"city":"{city}"}},"id":{id}}}"#),
        1 => format!(r#"{{"id":{id},"pad":"{pad}","n":{n}e0,"address":[{{"city":"{city}"}}]}}"#),
        2 => {
            format!(r#"{{"id":{id},"pad":["{pad}"],"n":null,"address":{{"street":{{"city":1}},"city":"B\u0065rn"}}}}"#)
        }
        3 => format!(r#"[{id},"{pad}"]"#),
        _ => format!(r#" {{ "id":{id}, "pad":"{pad}", "n": {n}.00, "address":{{"city":"{city}"}} }} "#),
    };
    text.into_bytes()
}

impl Workload for Queries {
    fn app(&self) -> App {
        App::new("queries", FILES[self.loaded])
    }

    fn has_versions(&self) -> bool {
        true
    }

    fn version_begins(&mut self, _: u64, _: bool, rng: &mut SimRng) -> bool {
        let next = rng.below(FILES.len() as u64) as usize;
        std::mem::replace(&mut self.loaded, next) != next
    }

    fn tune(&self, knobs: &mut Knobs, rng: &mut SimRng) {
        knobs.reloads = rng.below(5) as u32;
        knobs.tuning.index_range_entries = [1, 4_096][rng.below(2) as usize];
        knobs.tuning.index_build_bytes = [1, 1 << 20][rng.below(2) as usize];
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn topics(&self) -> &'static [&'static str] {
        &[]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let own = format!("c{client}-{}", rng.below(6));
        let prefix =
            [String::new(), String::new(), format!("c{client}"), "c1-".to_owned()][rng.below(4) as usize].clone();
        match rng.below(100) {
            0..=54 => Act::Put("docs", own, value(id, padding, rng)),
            55..=62 => Act::Delete("docs", own),
            63..=66 => Act::Get("docs", format!("c{}-{}", rng.below(5), rng.below(6))),
            67..=69 => Act::Scan("docs", prefix),
            _ => Act::Query("docs", prefix, Wanted::draw(rng)),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        0
    }

    fn check(&self, _: &Machine, _: &Names, _: &Auditor) -> Result<(), String> {
        // The auditor knows every cell.
        Ok(())
    }
}
