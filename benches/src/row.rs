//! One figure: what it is, its rounds, and what it should be.

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// This, give or take a part of it (0.05: 5 %).
    Near(f64, f64),
}

impl Target {
    /// The figure itself.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::AtLeast(value) | Self::AtMost(value) | Self::Near(value, _) => value,
        }
    }

    /// How a figure is compared with it: `>=`, `<=`, `+-5%`.
    #[must_use]
    pub fn op(self) -> String {
        match self {
            Self::AtLeast(_) => ">=".to_owned(),
            Self::AtMost(_) => "<=".to_owned(),
            Self::Near(_, part) => format!("+-{}%", part * 100.0),
        }
    }

    /// Whether `value` is good. A figure that is no number never is.
    #[must_use]
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(wanted) => value >= wanted,
            Self::AtMost(wanted) => value <= wanted,
            Self::Near(wanted, part) => (value - wanted).abs() <= wanted.abs() * part,
        }
    }
}

/// One figure. Its value is the median of its rounds.
#[derive(Clone, Debug)]
pub struct Row {
    pub(crate) id: String,
    pub(crate) unit: &'static str,
    pub(crate) rounds: Vec<f64>,
    pub(crate) target: Option<Target>,
    pub(crate) pace: Option<String>,
    pub(crate) durability: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) aside: bool,
}

impl Row {
    pub(crate) fn new(id: &str, unit: &'static str) -> Self {
        Self {
            id: id.to_owned(),
            unit,
            rounds: Vec::new(),
            target: None,
            pace: None,
            durability: None,
            note: None,
            aside: false,
        }
    }

    /// Adds what one round measured.
    pub fn round(&mut self, value: f64) -> &mut Self {
        self.rounds.push(value);
        self
    }

    /// Sets what it should be.
    pub fn target(&mut self, target: Target) -> &mut Self {
        self.target = Some(target);
        self
    }

    /// Sets how load was made: `closed loop, 50 x 64`, `10000/s open loop`.
    pub fn pace(&mut self, pace: impl Into<String>) -> &mut Self {
        self.pace = Some(pace.into());
        self
    }

    /// Sets when a write counted as done: `every ack flushed`, `appendfsync everysec`.
    pub fn durability(&mut self, durability: impl Into<String>) -> &mut Self {
        self.durability = Some(durability.into());
        self
    }

    /// Says what is to be known to judge it: why a target is missed, what is different from what the target means. Without
    /// any round it says why nothing was measured.
    pub fn note(&mut self, note: impl Into<String>) -> &mut Self {
        self.note = Some(note.into());
        self
    }

    /// Leaves it out of the table; the file has it.
    pub fn aside(&mut self) -> &mut Self {
        self.aside = true;
        self
    }

    /// Median of the rounds; no number without any.
    #[must_use]
    pub fn value(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => sorted[length / 2],
            length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
        }
    }

    /// Least and most of the rounds; no numbers without any.
    #[must_use]
    pub fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
    }

    /// Whether it is what it should be; `None` without a target.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.target.map(|target| target.is_met(self.value()))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_median_of_odd_and_even_rounds() {
        let mut row = Row::new("a", "ns");
        assert!(row.value().is_nan());
        row.round(3.0).round(1.0).round(9.0);
        assert_eq!((row.value(), row.spread()), (3.0, (1.0, 9.0)));
        row.round(5.0);
        assert_eq!(row.value(), 4.0);
    }

    #[test]
    fn targets_bind_from_their_side() {
        assert!(Target::AtLeast(3.0).is_met(3.0) && !Target::AtLeast(3.0).is_met(2.9));
        assert!(Target::AtMost(3.0).is_met(3.0) && !Target::AtMost(3.0).is_met(3.1));
        let near = Target::Near(100.0, 0.05);
        assert!(near.is_met(95.0) && near.is_met(105.0) && !near.is_met(94.9) && !near.is_met(105.1));
        for target in [Target::AtLeast(0.0), Target::AtMost(0.0), near] {
            assert!(!target.is_met(f64::NAN), "no measurement meets nothing");
        }
        assert_eq!(near.op(), "+-5%");
    }
}
