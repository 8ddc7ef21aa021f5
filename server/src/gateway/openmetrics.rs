//! A strict reader of OpenMetrics text, for tests: what the format forbids is an error that names the line.

use std::collections::{BTreeMap, BTreeSet};

/// Kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A parsed text.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    kinds: BTreeMap<String, Kind>,
    /// Name, sorted labels, value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Reads a text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("the last line is not # EOF")?;
        let mut metrics = Self::default();
        let mut family: Option<(String, Kind)> = None;
        let mut described: Option<String> = None;
        for (at, line) in body.lines().enumerate() {
            let wrong = |what: &str| format!("line {}: {what}: {line}", at + 1);
            if let Some(rest) = line.strip_prefix("# HELP ") {
                described = Some(rest.split(' ').next().unwrap_or("").to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
                if described.as_deref() != Some(name) {
                    return Err(wrong("a type without help before it"));
                }
                let kind = kind_of(kind).ok_or_else(|| wrong("unknown type"))?;
                if metrics.kinds.insert(name.to_owned(), kind).is_some() {
                    return Err(wrong("a family twice"));
                }
                family = Some((name.to_owned(), kind));
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').ok_or_else(|| wrong("no unit"))?;
                if !name.ends_with(&format!("_{unit}")) {
                    return Err(wrong("a name without its unit"));
                }
            } else {
                let (name, labels, value) = sample(line).ok_or_else(|| wrong("no sample"))?;
                let (of, kind) = family.as_ref().ok_or_else(|| wrong("a sample before any family"))?;
                let suffix = name.strip_prefix(of.as_str()).ok_or_else(|| wrong("a sample of another family"))?;
                if !suffixes(*kind).contains(&suffix) {
                    return Err(wrong("a suffix that the type does not have"));
                }
                if metrics.samples.iter().any(|(other, with, _)| *other == name && *with == labels) {
                    return Err(wrong("a series twice"));
                }
                metrics.samples.push((name, labels, value));
            }
        }
        metrics.check_histograms().map(|()| metrics)
    }

    /// Buckets rise, and the last one is the count.
    fn check_histograms(&self) -> Result<(), String> {
        for (name, labels, count) in self.samples.iter().filter(|(name, ..)| name.ends_with("_count")) {
            let bucket = name.replace("_count", "_bucket");
            let mut before = (f64::NEG_INFINITY, 0.0);
            for (_, with, value) in self.samples.iter().filter(|(other, ..)| *other == bucket) {
                let mut with = with.clone();
                let le = with.remove("le").ok_or("a bucket without le")?;
                if with != *labels {
                    continue;
                }
                let bound = if le == "+Inf" { f64::INFINITY } else { le.parse().map_err(|_| "le is no number")? };
                if bound <= before.0 || *value < before.1 {
                    return Err(format!("{bucket}: le {le} does not rise"));
                }
                before = (bound, *value);
            }
            if before != (f64::INFINITY, *count) {
                return Err(format!("{bucket} ends with {before:?}, the count is {count}"));
            }
        }
        Ok(())
    }

    /// The value of a series.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.iter().find(|(found, with, _)| found == name && *with == labels).map(|(.., value)| *value)
    }

    /// The kind of a family.
    pub(super) fn kind(&self, family: &str) -> Option<Kind> {
        self.kinds.get(family).copied()
    }

    /// Names of all families.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.kinds.keys().cloned().collect()
    }

    /// Names of all samples.
    pub(super) fn sample_names(&self) -> BTreeSet<String> {
        self.samples.iter().map(|(name, ..)| name.clone()).collect()
    }
}

fn kind_of(text: &str) -> Option<Kind> {
    Some(match text {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "info" => Kind::Info,
        _ => return None,
    })
}

fn suffixes(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Counter => &["_total"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["_sum", "_count", "_bucket"],
        Kind::Info => &["_info"],
    }
}

/// `name{label="value",...} number`.
fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let good = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, behind) = rest.split_once("=\"")?;
            let (value, length) = quoted(behind)?;
            if !good(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = &behind[length..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    good(name).then(|| (name.to_owned(), labels, value))
}

/// Text up to its closing quote, without escapes, and how long it was with them.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, at + 1)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

#[test]
fn what_the_format_forbids_is_found() {
    let family = "# HELP a x.\n# TYPE a counter\n";
    let parse = |body: &str| Metrics::parse(&format!("{family}{body}# EOF\n"));
    assert!(parse("a_total{b=\"c\\\"\"} 1\n").is_ok());
    for wrong in ["a 1\n", "b_total 1\n", "a_total\n", "a_total{b=\"c} 1\n", "a_total 1\na_total 2\n", "\n"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    assert!(Metrics::parse(family).is_err(), "no end");
}
