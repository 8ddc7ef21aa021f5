//! What is measured, and what should come out.

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 100;
/// Keys, all set before anything is measured.
pub(crate) const KEYS: usize = 1_000_000;
/// Connections and operations in flight on each.
pub(crate) const SHAPES: [(usize, usize); 4] = [(50, 1), (50, 16), (50, 64), (50, 256)];

/// The operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// Gristmill: put of a grain's value. Redis: SET.
    Put,
    /// Gristmill: get of a grain's value. Redis: GET.
    Get,
}

/// One line of the table: an operation and a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) op: Op,
    pub(crate) connections: usize,
    pub(crate) depth: usize,
}

impl Cell {
    /// `put 50x64`.
    pub(crate) fn name(self) -> String {
        let op = if self.op == Op::Put { "put" } else { "get" };
        format!("{op} {}x{}", self.connections, self.depth)
    }
}

/// Every cell.
pub(crate) fn cells() -> impl Iterator<Item = Cell> {
    let shapes = |op| SHAPES.into_iter().map(move |(connections, depth)| Cell { op, connections, depth });
    [Op::Put, Op::Get].into_iter().flat_map(shapes)
}

/// A setting of the rival that Gristmill is put beside.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    /// Redis's `appendfsync`.
    pub(crate) appendfsync: &'static str,
}

impl Pair {
    /// Reads do not wait for the disk: one setting is enough for them.
    pub(crate) fn applies(&self, op: Op) -> bool {
        op == Op::Put || self.appendfsync == "everysec"
    }
}

/// Both durability settings. Gristmill has one: every ack is flushed.
pub(crate) const PAIRS: [Pair; 2] =
    [Pair { name: "always", appendfsync: "always" }, Pair { name: "everysec", appendfsync: "everysec" }];

/// What a ratio should be.
pub(crate) struct Wanted {
    /// As in the row of the ratio.
    pub(crate) cell: &'static str,
    pub(crate) pair: &'static str,
    /// The target.
    pub(crate) target: f64,
    /// What must hold before anything is built on top.
    pub(crate) gate: Option<f64>,
}

/// The targets of the design and the gate below them.
pub(crate) const WANTED: [Wanted; 4] = [
    Wanted { cell: "put 50x64", pair: "always", target: 4.0, gate: Some(3.0) },
    Wanted { cell: "put 50x1", pair: "everysec", target: 1.0, gate: Some(0.9) },
    Wanted { cell: "put 50x1", pair: "always", target: 1.7, gate: None },
    Wanted { cell: "get 50x64", pair: "everysec", target: 4.0, gate: Some(3.0) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_measured() {
        for wanted in WANTED {
            let cell = cells().find(|cell| cell.name() == wanted.cell).expect(wanted.cell);
            assert!(PAIRS.iter().any(|pair| pair.name == wanted.pair && pair.applies(cell.op)), "{}", wanted.cell);
        }
    }
}
