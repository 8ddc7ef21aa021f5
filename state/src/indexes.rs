//! Which fields of the values of which tables are indexed, and what of a value goes into an index.

use crate::store::{KeyRange, ended};
use ahash::AHashMap;
use gristmill_base::ids::{IndexId, SlotId, TableId};
use gristmill_base::query::{Filter, High, Span, Spans, index_fields, index_value};

/// In the place of a value: the grain has more fields than are indexed. No name begins so.
const MORE_FIELDS: &[u8] = &[0xff];

/// An index of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its number.
    pub id: IndexId,
    /// The field, names with dots between them; `None`: every top-level field.
    pub field: Option<String>,
    /// Whether it is as old as its table, so that every value that was ever written is in it.
    pub is_whole: bool,
}

/// Indexes by table, and which numbers are of a newer catalog.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    tables: AHashMap<TableId, Vec<Index>>,
    first_to_come: u32,
}

/// A part of an index in which a query looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexPart {
    /// Grains with one value, in the order of their keys.
    Point(Vec<u8>),
    /// Grains with values from one to another, in the order of these.
    Span(Span),
}

impl Indexes {
    /// Of tables that have some. Numbers from `first_to_come` on are not known yet.
    #[must_use]
    pub fn new(tables: impl IntoIterator<Item = (TableId, Vec<Index>)>, first_to_come: u32) -> Self {
        let tables = tables.into_iter().filter(|(_, indexes)| !indexes.is_empty());
        Self { tables: tables.collect(), first_to_come }
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Those of a table.
    #[must_use]
    pub fn of(&self, table: TableId) -> &[Index] {
        self.tables.get(&table).map_or(&[], Vec::as_slice)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, table: TableId, id: IndexId) -> Option<&Index> {
        self.of(table).iter().find(|index| index.id == id)
    }

    /// Whether there was such an index and is none any more.
    #[must_use]
    pub fn is_gone(&self, table: TableId, id: IndexId) -> bool {
        id.0 < self.first_to_come && self.get(table, id).is_none()
    }

    /// All of them, with their tables, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (TableId, &Index)> {
        self.tables.iter().flat_map(|(table, indexes)| indexes.iter().map(|index| (*table, index)))
    }
}

impl Index {
    /// What of a value goes into it.
    #[must_use]
    pub fn values(&self, json: &[u8]) -> Vec<Vec<u8>> {
        match &self.field {
            Some(field) => index_value(json, field).into_iter().collect(),
            None => {
                let (fields, has_more) = index_fields(json);
                let named = fields.into_iter().map(|(name, value)| [ended(name.as_bytes()), value].concat());
                named.chain(has_more.then(|| MORE_FIELDS.to_vec())).collect()
            }
        }
    }

    /// Where in it all lies that a filter matches, and how narrow that is likely to be, the narrowest first; `None` if the filter
    /// says nothing of its fields.
    #[must_use]
    pub fn parts(&self, filter: &Filter) -> Option<(u8, Vec<IndexPart>)> {
        if let Some(field) = &self.field {
            let (rank, spans) = filter.spans(field)?;
            return Some((rank, parts_of(spans, &[])));
        }
        let fields = filter.fields().filter(|field| !field.contains('.'));
        let spans = fields.filter_map(|field| Some((filter.spans(field)?, field)));
        let ((rank, spans), field) = spans.min_by_key(|((rank, _), _)| *rank)?;
        let mut parts = parts_of(spans, &ended(field.as_bytes()));
        parts.push(IndexPart::Point(MORE_FIELDS.to_vec()));
        Some((rank, parts))
    }
}

fn parts_of(spans: Spans, before: &[u8]) -> Vec<IndexPart> {
    let named = |value: Vec<u8>| [before, &value].concat();
    match spans {
        Spans::Points(points) => points.into_iter().map(|point| IndexPart::Point(named(point))).collect(),
        Spans::One(Span { low, high }) => {
            let high = match high {
                High::Value(value) => High::Value(named(value)),
                High::BeginsWith(value) => High::BeginsWith(named(value)),
            };
            vec![IndexPart::Span(Span { low: named(low), high })]
        }
    }
}

impl IndexPart {
    /// Its rows in a slot; of a point only those of grains whose keys begin so, from one on.
    #[must_use]
    pub fn range(&self, slot: SlotId, table: TableId, index: IndexId, prefix: &[u8], from: &[u8]) -> KeyRange {
        match self {
            Self::Point(value) => KeyRange::of_index_value(slot, table, index, value, prefix, from),
            Self::Span(span) => KeyRange::of_index_span(slot, table, index, span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RowKey;
    use gristmill_base::query::parse;

    fn is_found(index: &Index, expression: &str, json: &str) -> bool {
        let (slot, table) = (SlotId(3), TableId(7));
        let filter = parse(expression).unwrap();
        let (_, parts) = index.parts(&filter).unwrap();
        let keys: Vec<Vec<u8>> = index
            .values(json.as_bytes())
            .into_iter()
            .map(|value| RowKey::Index(slot, table, index.id, value.into(), b"key"[..].into()).encode())
            .collect();
        let ranges = parts.iter().map(|part| part.range(slot, table, index.id, b"k", b"k"));
        let found = ranges.into_iter().any(|range| keys.iter().any(|key| range.holds(key)));
        assert!(found || !filter.matches(json.as_bytes()), "{expression} matches {json}, which is not found");
        found
    }

    #[test]
    fn what_matches_is_found() {
        let city = Index { id: IndexId(1), field: Some("a.city".to_owned()), is_whole: true };
        let auto = Index { id: IndexId(2), field: None, is_whole: true };
        let nulls = r#"{"a":{"city":"B\u0000"},"n":-1.5,"t":"\u0000","z":null}"#;
        for (index, expression, json, found) in [
            (&city, "a.city = \"Bern\"", r#"{"a":{"city":"Bern"}}"#, true),
            (&city, "a.city = \"Ber\"", r#"{"a":{"city":"Bern"}}"#, false),
            (&city, "a.city prefix \"B\"", nulls, true),
            (&city, "a.city < \"B\"", nulls, false),
            (&city, "a.city >= \"B\"", nulls, true),
            (&auto, "n < 0", nulls, true),
            (&auto, "n > -1 and n < 100", nulls, false),
            (&auto, "n in (2, -1.50)", nulls, true),
            (&auto, "t prefix \"\\u0000\"", nulls, true),
            (&auto, "z = null and a.city = \"x\"", nulls, true),
            (&auto, "n = \"-1.5\"", nulls, false),
        ] {
            assert_eq!(is_found(index, expression, json), found, "{expression} of {json}");
        }
        assert_eq!(auto.parts(&parse("a.city = 1").unwrap()), None);
        let many: Vec<String> = (0..40).map(|n| format!("\"f{n}\":{n}")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert!(is_found(&auto, "f39 = 39", &many), "a field beyond the limit is looked for in the value");
    }
}
