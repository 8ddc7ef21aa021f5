//! Keys of rows: bytes that sort as the rows should lie.

use gristmill_base::codec::{DecodeError, Reader};
use gristmill_base::ids::{IndexId, MapId, SlotId, TableId};
use gristmill_base::query::{High, Span};
use std::borrow::Cow;

const SLOT: u8 = 0x10;
const OUTBOX: u8 = 0x18;
const OLD_BACKLOG: u8 = 0x20;
const BACKLOG: u8 = 0x28;
const TIMER: u8 = 0x30;
const DUE: u8 = 0x38;
const GRAIN: u8 = 0x40;
const PRESENCE: u8 = 0x48;
const ENTRY: u8 = 0x50;
const INDEX: u8 = 0x58;

/// What a zero byte within an ended key is followed by.
const ESCAPED: u8 = 0xff;
/// What the zero byte that ends a key is followed by: below [`ESCAPED`], so that a key sorts before those it begins.
const ENDED: u8 = 0x01;

/// What a row is about. Rows sort in the order of the variants, and of the fields within one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey<'a> {
    /// A part of what the slot as a whole has.
    Slot(SlotId, Cow<'a, [u8]>),
    /// A message to another slot that waits: that slot, and its number.
    Outbox(SlotId, SlotId, u64),
    /// A row of a backlog as older versions wrote it: its number alone.
    OldBacklog(SlotId, u64),
    /// A row of a grain's backlog, with its number.
    Backlog(SlotId, TableId, Cow<'a, [u8]>, u64),
    /// A timer: grain and name.
    Timer(SlotId, TableId, Cow<'a, [u8]>, Cow<'a, [u8]>),
    /// That a timer may be due then, engine microseconds: its grain and name.
    Due(SlotId, u64, TableId, Cow<'a, [u8]>, Cow<'a, [u8]>),
    /// A grain.
    Grain(SlotId, TableId, Cow<'a, [u8]>),
    /// That a grain may have map entries, where no value says that it is there.
    Presence(SlotId, TableId, Cow<'a, [u8]>),
    /// An entry of a grain's map.
    Entry(SlotId, TableId, Cow<'a, [u8]>, MapId, Cow<'a, [u8]>),
    /// That a grain may have a value in an index: the index, the value as [`gristmill_base::query`] orders it, the grain.
    Index(SlotId, TableId, IndexId, Cow<'a, [u8]>, Cow<'a, [u8]>),
}

/// A half-open range of row keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first key.
    pub from: Vec<u8>,
    /// Behind the last key.
    pub to: Vec<u8>,
}

impl KeyRange {
    /// Keys that begin with these bytes.
    ///
    /// # Panics
    /// All of them are 0xff: no row's key is so.
    #[must_use]
    pub fn of_prefix(prefix: Vec<u8>) -> Self {
        let to = prefix_end(&prefix).expect("a row's key begins with its slot, below 0xffff");
        Self { from: prefix, to }
    }

    /// Everything of a slot.
    #[must_use]
    pub fn of_slot(slot: SlotId) -> Self {
        let mut prefix = Vec::new();
        put_u16(&mut prefix, slot.0);
        Self::of_prefix(prefix)
    }

    /// Parts of what a slot as a whole has.
    #[must_use]
    pub fn of_slot_parts(slot: SlotId) -> Self {
        Self::of_prefix(head(slot, SLOT))
    }

    /// What a start reads of a slot: its messages, and its backlog as older versions wrote it.
    #[must_use]
    pub fn of_work(slot: SlotId) -> Self {
        Self { from: head(slot, SLOT), to: head(slot, BACKLOG) }
    }

    /// The rows of a slot's timers and grains.
    #[must_use]
    pub fn of_timers_and_grains(slot: SlotId) -> Self {
        Self { from: head(slot, TIMER), to: Self::of_slot(slot).to }
    }

    /// The rows of a slot's grains.
    #[must_use]
    pub fn of_grain_rows(slot: SlotId) -> Self {
        Self { from: head(slot, GRAIN), to: Self::of_slot(slot).to }
    }

    /// The index of a slot's timers, in the order in which they come due.
    #[must_use]
    pub fn of_due(slot: SlotId) -> Self {
        Self::of_prefix(head(slot, DUE))
    }

    /// The messages of a slot.
    #[must_use]
    pub fn of_messages(slot: SlotId) -> Self {
        Self::of_prefix(head(slot, OUTBOX))
    }

    /// The backlogs of a slot.
    #[must_use]
    pub fn of_backlogs(slot: SlotId) -> Self {
        Self::of_prefix(head(slot, BACKLOG))
    }

    /// Rows of a grain's backlog, from a number on and before another.
    #[must_use]
    pub fn of_backlog(slot: SlotId, table: TableId, grain: &[u8], from: u64, end: u64) -> Self {
        let key = |number| RowKey::Backlog(slot, table, grain.into(), number).encode();
        Self { from: key(from), to: key(end) }
    }

    /// The timers of a slot.
    #[must_use]
    pub fn of_timers(slot: SlotId) -> Self {
        Self::of_prefix(head(slot, TIMER))
    }

    /// The grain rows of a table.
    #[must_use]
    pub fn of_grains(slot: SlotId, table: TableId) -> Self {
        Self::of_prefix(table_head(slot, GRAIN, table))
    }

    /// The presence rows of a table.
    #[must_use]
    pub fn of_presences(slot: SlotId, table: TableId) -> Self {
        Self::of_prefix(table_head(slot, PRESENCE, table))
    }

    /// The entries of all indexes of a table.
    #[must_use]
    pub fn of_indexes(slot: SlotId, table: TableId) -> Self {
        Self::of_prefix(table_head(slot, INDEX, table))
    }

    /// The entries of a value in an index, of grains whose keys begin with `prefix`, from the key `from` on.
    #[must_use]
    pub fn of_index_value(
        slot: SlotId,
        table: TableId,
        index: IndexId,
        value: &[u8],
        prefix: &[u8],
        from: &[u8],
    ) -> Self {
        let mut head = index_head(slot, table, index);
        put_ended(&mut head, value);
        let to = Self::of_prefix([&head, prefix].concat()).to;
        head.extend_from_slice(from.max(prefix));
        Self { from: head, to }
    }

    /// The entries of a part of an index.
    #[must_use]
    pub fn of_index_span(slot: SlotId, table: TableId, index: IndexId, span: &Span) -> Self {
        let head = || index_head(slot, table, index);
        let (mut from, mut last) = (head(), head());
        put_escaped(&mut from, &span.low);
        match &span.high {
            High::Value(value) => put_ended(&mut last, value),
            High::BeginsWith(value) => put_escaped(&mut last, value),
        }
        Self { from, to: Self::of_prefix(last).to }
    }

    /// All that a slot has of a table: timers, grain rows, presence rows, map entries, entries of indexes.
    #[must_use]
    pub fn of_table(slot: SlotId, table: TableId) -> [Self; 5] {
        [TIMER, GRAIN, PRESENCE, ENTRY, INDEX].map(|kind| Self::of_prefix(table_head(slot, kind, table)))
    }

    /// The timers of a grain.
    #[must_use]
    pub fn of_grain_timers(slot: SlotId, table: TableId, grain: &[u8]) -> Self {
        Self::of_prefix(grain_head(slot, TIMER, table, grain))
    }

    /// All map entries of a grain.
    #[must_use]
    pub fn of_grain_entries(slot: SlotId, table: TableId, grain: &[u8]) -> Self {
        Self::of_prefix(grain_head(slot, ENTRY, table, grain))
    }

    /// The entries of a map from a key on, before another if there is one.
    #[must_use]
    pub fn of_entries(slot: SlotId, table: TableId, grain: &[u8], map: MapId, from: &[u8], to: Option<&[u8]>) -> Self {
        let mut prefix = grain_head(slot, ENTRY, table, grain);
        put_u16(&mut prefix, map.0);
        let to = match to {
            Some(to) => [&prefix, to].concat(),
            None => prefix_end(&prefix).expect("a slot's number is below 0xffff"),
        };
        prefix.extend_from_slice(from);
        Self { from: prefix, to }
    }

    /// Whether a key lies in it.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        *self.from <= *key && *key < *self.to
    }

    /// Whether it shares a key with another.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    /// Whether no key lies in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

/// The least bytes above all that begin with `prefix`; none above 0xff alone.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[expect(clippy::big_endian_bytes, reason = "keys order byte-wise, so the high byte comes first")]
fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[expect(clippy::big_endian_bytes, reason = "keys order byte-wise, so the high byte comes first")]
fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[expect(clippy::big_endian_bytes, reason = "keys order byte-wise, so the high byte comes first")]
fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Adds a key so that what follows it does not change its order among others.
fn put_ended(out: &mut Vec<u8>, key: &[u8]) {
    put_escaped(out, key);
    out.extend_from_slice(&[0, ENDED]);
}

/// A key so that what follows it does not change its order among others.
pub(crate) fn ended(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2);
    put_ended(&mut out, key);
    out
}

/// The beginning of what [`put_ended`] adds for all keys that begin so.
fn put_escaped(out: &mut Vec<u8>, key: &[u8]) {
    for part in key.split_inclusive(|byte| *byte == 0) {
        out.extend_from_slice(part);
        if part.ends_with(&[0]) {
            out.push(ESCAPED);
        }
    }
}

fn put_head(out: &mut Vec<u8>, slot: SlotId, kind: u8) {
    put_u16(out, slot.0);
    out.push(kind);
}

fn put_table_head(out: &mut Vec<u8>, slot: SlotId, kind: u8, table: TableId) {
    put_head(out, slot, kind);
    put_u32(out, table.0);
}

fn put_grain_head(out: &mut Vec<u8>, slot: SlotId, kind: u8, table: TableId, grain: &[u8]) {
    put_table_head(out, slot, kind, table);
    put_ended(out, grain);
}

fn head(slot: SlotId, kind: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_head(&mut out, slot, kind);
    out
}

fn table_head(slot: SlotId, kind: u8, table: TableId) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_table_head(&mut out, slot, kind, table);
    out
}

fn grain_head(slot: SlotId, kind: u8, table: TableId, grain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_grain_head(&mut out, slot, kind, table, grain);
    out
}

fn index_head(slot: SlotId, table: TableId, index: IndexId) -> Vec<u8> {
    let mut out = table_head(slot, INDEX, table);
    put_u32(&mut out, index.0);
    out
}

fn u16_of(from: &mut Reader<'_>) -> Result<u16, DecodeError> {
    from.u16().map(u16::swap_bytes)
}

/// Takes an ended key.
fn take_ended<'a>(from: &mut Reader<'a>) -> Result<Cow<'a, [u8]>, DecodeError> {
    let bytes = from.rest();
    let mut plain: Option<Vec<u8>> = None;
    let mut at = 0;
    loop {
        let Some(zero) = bytes[at..].iter().position(|byte| *byte == 0).map(|found| at + found) else {
            return Err(DecodeError::Truncated { wanted: 2, left: 0 });
        };
        match bytes.get(zero + 1) {
            Some(&ENDED) => {
                from.take(zero + 2)?;
                return Ok(match plain {
                    None => Cow::Borrowed(&bytes[..zero]),
                    Some(mut plain) => {
                        plain.extend_from_slice(&bytes[at..zero]);
                        Cow::Owned(plain)
                    }
                });
            }
            Some(&ESCAPED) => {
                plain.get_or_insert_default().extend_from_slice(&bytes[at..=zero]);
                at = zero + 2;
            }
            Some(&found) => return Err(DecodeError::Unknown { what: "byte behind a zero", found: found.into() }),
            None => return Err(DecodeError::Truncated { wanted: 1, left: 0 }),
        }
    }
}

impl<'a> RowKey<'a> {
    /// The slot that the row is of.
    #[must_use]
    pub fn slot(&self) -> SlotId {
        match self {
            Self::Slot(slot, ..)
            | Self::Outbox(slot, ..)
            | Self::OldBacklog(slot, ..)
            | Self::Backlog(slot, ..)
            | Self::Timer(slot, ..)
            | Self::Due(slot, ..)
            | Self::Grain(slot, ..)
            | Self::Presence(slot, ..)
            | Self::Entry(slot, ..)
            | Self::Index(slot, ..) => *slot,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        self.encode_to(&mut out);
        out
    }

    /// Adds its bytes.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Slot(slot, part) => {
                put_head(out, *slot, SLOT);
                out.extend_from_slice(part);
            }
            Self::Outbox(slot, to, number) => {
                put_head(out, *slot, OUTBOX);
                put_u16(out, to.0);
                put_u64(out, *number);
            }
            Self::OldBacklog(slot, number) => {
                put_head(out, *slot, OLD_BACKLOG);
                put_u64(out, *number);
            }
            Self::Backlog(slot, table, grain, number) => {
                put_grain_head(out, *slot, BACKLOG, *table, grain);
                put_u64(out, *number);
            }
            Self::Timer(slot, table, grain, name) => {
                put_grain_head(out, *slot, TIMER, *table, grain);
                out.extend_from_slice(name);
            }
            Self::Due(slot, micros, table, grain, name) => {
                put_head(out, *slot, DUE);
                put_u64(out, *micros);
                put_u32(out, table.0);
                put_ended(out, grain);
                out.extend_from_slice(name);
            }
            Self::Grain(slot, table, key) => {
                put_table_head(out, *slot, GRAIN, *table);
                out.extend_from_slice(key);
            }
            Self::Presence(slot, table, key) => {
                put_table_head(out, *slot, PRESENCE, *table);
                out.extend_from_slice(key);
            }
            Self::Entry(slot, table, grain, map, key) => {
                put_grain_head(out, *slot, ENTRY, *table, grain);
                put_u16(out, map.0);
                out.extend_from_slice(key);
            }
            Self::Index(slot, table, index, value, grain) => {
                put_table_head(out, *slot, INDEX, *table);
                put_u32(out, index.0);
                put_ended(out, value);
                out.extend_from_slice(grain);
            }
        }
    }

    /// Whether it is the key of a grain's row.
    #[must_use]
    pub fn is_grain(bytes: &[u8]) -> bool {
        bytes.get(2) == Some(&GRAIN)
    }

    /// The grain's key in the key of an entry of an index; nothing if it is none.
    #[must_use]
    pub fn grain_of_index(bytes: &'a [u8]) -> Option<&'a [u8]> {
        if bytes.get(2) != Some(&INDEX) {
            return None;
        }
        let mut from = Reader::new(bytes.get(11..)?);
        take_ended(&mut from).ok()?;
        Some(from.rest())
    }

    /// The entry's key in the key of its row; nothing if it is none of an entry.
    #[must_use]
    pub fn entry_of(bytes: &'a [u8]) -> Option<&'a [u8]> {
        if bytes.get(2) != Some(&ENTRY) {
            return None;
        }
        let mut from = Reader::new(bytes.get(7..)?);
        take_ended(&mut from).ok()?;
        from.take(2).ok()?;
        Some(from.rest())
    }

    /// What the bytes of a key are about.
    ///
    /// # Errors
    /// They are no key of a row.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let slot = SlotId(u16_of(&mut from)?);
        let kind = from.u8()?;
        let table = |from: &mut Reader<'_>| from.u32().map(u32::swap_bytes).map(TableId);
        Ok(match kind {
            SLOT => Self::Slot(slot, from.rest().into()),
            OUTBOX => {
                let (to, number) = (SlotId(u16_of(&mut from)?), from.u64()?.swap_bytes());
                from.end()?;
                Self::Outbox(slot, to, number)
            }
            OLD_BACKLOG => {
                let number = from.u64()?.swap_bytes();
                from.end()?;
                Self::OldBacklog(slot, number)
            }
            BACKLOG => {
                let (table, grain) = (table(&mut from)?, take_ended(&mut from)?);
                let number = from.u64()?.swap_bytes();
                from.end()?;
                Self::Backlog(slot, table, grain, number)
            }
            TIMER => Self::Timer(slot, table(&mut from)?, take_ended(&mut from)?, from.rest().into()),
            DUE => {
                let micros = from.u64()?.swap_bytes();
                Self::Due(slot, micros, table(&mut from)?, take_ended(&mut from)?, from.rest().into())
            }
            GRAIN => Self::Grain(slot, table(&mut from)?, from.rest().into()),
            PRESENCE => Self::Presence(slot, table(&mut from)?, from.rest().into()),
            ENTRY => {
                let (table, grain) = (table(&mut from)?, take_ended(&mut from)?);
                Self::Entry(slot, table, grain, MapId(u16_of(&mut from)?), from.rest().into())
            }
            INDEX => {
                let table = table(&mut from)?;
                let index = IndexId(from.u32()?.swap_bytes());
                Self::Index(slot, table, index, take_ended(&mut from)?, from.rest().into())
            }
            found => return Err(DecodeError::Unknown { what: "kind of row", found: found.into() }),
        })
    }
}

/// A key, or the beginning of one, for a person.
pub(super) fn key_words(key: &[u8]) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match RowKey::decode(key) {
        Ok(RowKey::Slot(slot, part)) => format!("part {} of slot {slot}", text(&part)),
        Ok(RowKey::Outbox(slot, to, number)) => format!("message {number} of slot {slot} to slot {to}"),
        Ok(RowKey::OldBacklog(slot, number)) => format!("backlog row {number} of slot {slot}"),
        Ok(RowKey::Backlog(slot, table, grain, number)) => {
            format!("backlog row {number} of grain {} of table {table} in slot {slot}", text(&grain))
        }
        Ok(RowKey::Timer(slot, table, grain, name)) => {
            format!("timer {} of grain {} of table {table} in slot {slot}", text(&name), text(&grain))
        }
        Ok(RowKey::Due(slot, micros, table, grain, name)) => {
            let (name, grain) = (text(&name), text(&grain));
            format!("that timer {name} of grain {grain} of table {table} in slot {slot} is due at {micros} us")
        }
        Ok(RowKey::Grain(slot, table, grain)) => format!("grain {} of table {table} in slot {slot}", text(&grain)),
        Ok(RowKey::Presence(slot, table, grain)) => {
            format!("presence of grain {} of table {table} in slot {slot}", text(&grain))
        }
        Ok(RowKey::Entry(slot, table, grain, map, key)) => {
            let (key, grain) = (text(&key), text(&grain));
            format!("entry {key} of map {map} of grain {grain} of table {table} in slot {slot}")
        }
        Ok(RowKey::Index(slot, table, index, value, grain)) => {
            let (value, grain) = (text(&value), text(&grain));
            format!("entry {value} of index {index} of grain {grain} of table {table} in slot {slot}")
        }
        // Separators of an index are beginnings of keys.
        Err(_) if key.is_empty() => "the beginning".into(),
        Err(_) => format!("the key {}", text(key)),
    }
}

/// The slot that a key, or the beginning of one, is of.
pub(super) fn slot_of(key: &[u8]) -> SlotId {
    match key {
        [high, low, ..] => SlotId(u16::from(*high) << 8 | u16::from(*low)),
        _ => SlotId(0),
    }
}

/// The kind of a key, as it carries it; zero where it is too short.
pub(super) fn kind_of(key: &[u8]) -> u8 {
    key.get(2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Cow<'static, [u8]>> {
        let byte = prop_oneof![Just(0_u8), Just(1), Just(2), Just(0xfe), Just(0xff), any::<u8>()];
        proptest::collection::vec(byte, 0..6).prop_map(Cow::Owned)
    }

    fn key() -> impl Strategy<Value = RowKey<'static>> {
        let slot = (0..3_u16).prop_map(SlotId);
        let table = prop_oneof![Just(TableId(0)), Just(TableId(u32::MAX)), any::<u32>().prop_map(TableId)];
        let map = prop_oneof![Just(MapId(0)), Just(MapId(0xff)), Just(MapId(u16::MAX))];
        (0..10_u8, slot, table, bytes(), map, bytes(), any::<u64>()).prop_map(|(kind, slot, table, a, map, b, n)| {
            match kind {
                0 => RowKey::Slot(slot, a),
                1 => RowKey::OldBacklog(slot, n),
                7 => RowKey::Backlog(slot, table, a, n),
                2 => RowKey::Timer(slot, table, a, b),
                3 => RowKey::Grain(slot, table, a),
                4 => RowKey::Presence(slot, table, a),
                5 => RowKey::Outbox(slot, SlotId(map.0), n),
                6 => RowKey::Due(slot, n, table, a, b),
                8 => RowKey::Index(slot, table, IndexId(n as u32), a, b),
                _ => RowKey::Entry(slot, table, a, map, b),
            }
        })
    }

    fn slot_then_rest(a: &RowKey<'_>, b: &RowKey<'_>) -> std::cmp::Ordering {
        a.slot().cmp(&b.slot()).then_with(|| a.cmp(b))
    }

    proptest! {
        #[test]
        fn keys_come_back_and_sort_as_their_bytes(a in key(), b in key()) {
            let (x, y) = (a.encode(), b.encode());
            prop_assert_eq!(RowKey::decode(&x), Ok(a.clone()));
            prop_assert_eq!(x.cmp(&y), slot_then_rest(&a, &b));
            prop_assert_eq!(slot_of(&x), a.slot());
        }

        #[test]
        fn ranges_hold_what_they_are_of(a in key(), grain in bytes(), from in bytes(), to in bytes()) {
            let x = a.encode();
            prop_assert!(KeyRange::of_slot(a.slot()).holds(&x));
            if let RowKey::Entry(slot, table, of, map, key) = &a {
                prop_assert_eq!(KeyRange::of_grain_entries(*slot, *table, &grain).holds(&x), *of == grain);
                prop_assert!(!KeyRange::of_grains(*slot, *table).holds(&x));
                prop_assert!(KeyRange::of_table(*slot, *table)[3].holds(&x));
                let part = KeyRange::of_entries(*slot, *table, of, *map, &from, Some(&to));
                prop_assert_eq!(part.holds(&x), *from <= **key && **key < *to);
                prop_assert_eq!(KeyRange::of_entries(*slot, *table, of, *map, &from, None).holds(&x), *from <= **key);
            }
        }

        #[test]
        fn whatever_comes_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(key) = RowKey::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }

    #[test]
    fn golden_keys() {
        let entry = RowKey::Entry(SlotId(0x102), TableId(3), b"a\0b"[..].into(), MapId(0x405), b"k\0"[..].into());
        assert_eq!(entry.encode(), b"\x01\x02\x50\0\0\0\x03a\0\xffb\0\x01\x04\x05k\0");
        let timer = RowKey::Timer(SlotId(1), TableId(3), b"g"[..].into(), b"tick"[..].into());
        assert_eq!(timer.encode(), b"\0\x01\x30\0\0\0\x03g\0\x01tick");
        let index = RowKey::Index(SlotId(1), TableId(3), IndexId(0x405), b"\x05v\0"[..].into(), b"g\0"[..].into());
        assert_eq!(index.encode(), b"\0\x01\x58\0\0\0\x03\0\0\x04\x05\x05v\0\xff\0\x01g\0");
        assert_eq!(RowKey::grain_of_index(&index.encode()), Some(&b"g\0"[..]));
        assert_eq!(RowKey::OldBacklog(SlotId(1), 258).encode(), b"\0\x01\x20\0\0\0\0\0\0\x01\x02");
        let backlog = RowKey::Backlog(SlotId(1), TableId(3), b"g"[..].into(), 258);
        assert_eq!(backlog.encode(), b"\0\x01\x28\0\0\0\x03g\0\x01\0\0\0\0\0\0\x01\x02");
        assert_eq!(RowKey::Grain(SlotId(1), TableId(3), b"g\0"[..].into()).encode(), b"\0\x01\x40\0\0\0\x03g\0");
        assert_eq!(RowKey::Slot(SlotId(1), b"\x01x"[..].into()).encode(), b"\0\x01\x10\x01x");
    }

    #[test]
    fn a_prefix_ends_behind_all_that_it_begins() {
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
    }
}
