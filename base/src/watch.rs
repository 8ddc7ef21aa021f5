//! Positions of watches, and the token in which a client keeps them. Both outlive shards, restarts and moves: a position is of a
//! slot's records, and a token has one for each slot of the watch.

use crate::checksum::crc32c;
use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{SlotId, Ssn, TableId, Term};
use crate::limits::{KEY_BYTES_MAX, SLOT_COUNT_MAX};
use std::fmt::Write as _;

/// Version of the token's bytes.
const TOKEN_VERSION: u8 = 1;
/// What the text of a token begins with.
const TOKEN_MARK: &str = "gmw1-";

/// Up to where changes of a slot were seen: all of record `ssn` and those before, and the first `skip` changes of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Behind {
    /// Term of the slot when that was so.
    pub term: Term,
    /// Number of the record.
    pub ssn: Ssn,
    /// How many changes of the record behind it were seen too: 0, unless that record did not fit a page.
    pub skip: u32,
}

/// Where a watch is in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchPosition {
    /// The slot.
    pub slot: SlotId,
    /// Behind what it goes on; `None`: what comes from now on.
    pub behind: Option<Behind>,
}

/// Grains of a table that a watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchKeys {
    /// One.
    Key(Box<[u8]>),
    /// Those whose keys begin so; with an empty one all.
    Prefix(Box<[u8]>),
}

impl WatchKeys {
    /// Whether it is about the grain of that key.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => key == &**own,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    /// The key, or what keys begin with.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let (Self::Key(bytes) | Self::Prefix(bytes)) = self;
        bytes
    }
}

impl WatchPosition {
    /// Adds its bytes: u16 slot, u8 whether it is behind a record, and then varint term, ssn, skip.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.slot.0);
        out.put_u8(u8::from(self.behind.is_some()));
        if let Some(behind) = self.behind {
            out.put_varint(behind.term.0.into());
            out.put_varint(behind.ssn.0);
            out.put_varint(behind.skip.into());
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are no position.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let slot = SlotId(from.u16()?);
        let behind = match from.u8()? {
            0 => None,
            1 => Some(Behind {
                term: Term(from.varint_as("term")?),
                ssn: Ssn(from.varint()?),
                skip: from.varint_as("changes of a record")?,
            }),
            found => return Err(DecodeError::Unknown { what: "position of a watch", found: found.into() }),
        };
        Ok(Self { slot, behind })
    }
}

/// Adds the positions of a watch: their number, then each.
pub fn encode_positions(positions: &[WatchPosition], out: &mut Vec<u8>) {
    out.put_varint(positions.len() as u64);
    positions.iter().for_each(|position| position.encode(out));
}

/// Reads what [`encode_positions`] wrote.
///
/// # Errors
/// More than a data directory has slots; slots that do not ascend; bytes that are no positions.
pub fn decode_positions(from: &mut Reader<'_>) -> Result<Vec<WatchPosition>, DecodeError> {
    let count: u32 = from.varint_as("number of positions")?;
    if count > u32::from(SLOT_COUNT_MAX) {
        let (found, allowed) = (count.into(), SLOT_COUNT_MAX.into());
        return Err(DecodeError::TooLarge { what: "positions of a watch", found, allowed });
    }
    let mut positions: Vec<WatchPosition> = Vec::new();
    for _ in 0..count {
        let position = WatchPosition::decode(from)?;
        if positions.last().is_some_and(|last| last.slot >= position.slot) {
            let found = position.slot.0.into();
            return Err(DecodeError::Unknown { what: "slot of a watch: slots ascend", found });
        }
        positions.push(position);
    }
    Ok(positions)
}

/// All that a client needs to go on with a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchToken {
    /// The data directory: positions mean something there alone.
    pub directory: [u8; 16],
    /// The table.
    pub table: TableId,
    /// Its grains.
    pub keys: WatchKeys,
    /// A position for each slot, ascending.
    pub positions: Vec<WatchPosition>,
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It does not begin as one, or has other letters than one.
    NoToken,
    /// Some of it is missing, or was changed.
    Damaged,
    /// A newer program wrote it.
    Version(u8),
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoToken => write!(f, "this is no token of a watch: one is {TOKEN_MARK} and hexadecimal digits"),
            Self::Damaged => write!(f, "the token is damaged: its checksum is another one; was it copied as a whole?"),
            Self::Version(found) => {
                write!(f, "the token has version {found}; this program knows version {TOKEN_VERSION}")
            }
        }
    }
}

impl std::error::Error for TokenError {}

impl WatchToken {
    /// As text: a mark, and the bytes in hexadecimal: u8 version, 16 bytes of the data directory, u32 table, u8 whether it is one
    /// key, bytes key or prefix, positions, u32 CRC32C of all before.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = vec![TOKEN_VERSION];
        bytes.extend_from_slice(&self.directory);
        bytes.put_u32(self.table.0);
        bytes.put_u8(u8::from(matches!(self.keys, WatchKeys::Key(_))));
        bytes.put_bytes(self.keys.bytes());
        encode_positions(&self.positions, &mut bytes);
        let sum = crc32c(&bytes);
        bytes.put_u32(sum);
        let mut text = String::with_capacity(TOKEN_MARK.len() + 2 * bytes.len());
        text.push_str(TOKEN_MARK);
        bytes.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string takes all"));
        text
    }

    /// Reads what [`Self::to_text`] wrote.
    ///
    /// # Errors
    /// It is none, or damaged, or of another version.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let digits = text.trim().strip_prefix(TOKEN_MARK).ok_or(TokenError::NoToken)?.as_bytes();
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(TokenError::NoToken);
        let pairs = digits.chunks(2).map(|pair| match *pair {
            [high, low] => Ok((digit(high)? << 4 | digit(low)?) as u8),
            _ => Err(TokenError::Damaged),
        });
        let bytes = pairs.collect::<Result<Vec<u8>, _>>()?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if crc32c(body) != u32::from_le_bytes(*sum) {
            return Err(TokenError::Damaged);
        }
        match body.first() {
            Some(&TOKEN_VERSION) => Self::decode(&body[1..]).map_err(|_| TokenError::Damaged),
            Some(&other) => Err(TokenError::Version(other)),
            None => Err(TokenError::Damaged),
        }
    }

    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let mut directory = [0; 16];
        directory.copy_from_slice(from.take(16)?);
        let table = TableId(from.u32()?);
        let is_key = from.u8()? == 1;
        let bytes = from.bytes("key", KEY_BYTES_MAX)?.into();
        let keys = if is_key { WatchKeys::Key(bytes) } else { WatchKeys::Prefix(bytes) };
        let positions = decode_positions(&mut from)?;
        from.end()?;
        Ok(Self { directory, table, keys, positions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> WatchToken {
        let behind = Some(Behind { term: Term(3), ssn: Ssn(70_000), skip: 0 });
        let positions =
            vec![WatchPosition { slot: SlotId(1), behind }, WatchPosition { slot: SlotId(255), behind: None }];
        let keys = WatchKeys::Prefix((*b"ab").into());
        WatchToken { directory: *b"0123456789abcdef", table: TableId(2), keys, positions }
    }

    #[test]
    fn a_token_comes_back_and_its_text_does_not_change() {
        let text = token().to_text();
        assert_eq!(text, "gmw1-013031323334353637383961626364656602000000000261620201000103f0a20400ff000022d89955");
        assert_eq!(WatchToken::from_text(&text), Ok(token()));
        assert_eq!(WatchToken::from_text(&format!(" {text}\n")), Ok(token()));
    }

    #[test]
    fn what_was_changed_is_told() {
        let text = token().to_text();
        for at in TOKEN_MARK.len()..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            let read = WatchToken::from_text(std::str::from_utf8(&other).unwrap());
            assert_eq!(read, Err(TokenError::Damaged), "{at}");
        }
        for end in TOKEN_MARK.len()..text.len() {
            assert_eq!(WatchToken::from_text(&text[..end]), Err(TokenError::Damaged));
        }
        assert_eq!(WatchToken::from_text("now"), Err(TokenError::NoToken));
        let mut newer = vec![9, 1, 2];
        let sum = crc32c(&newer);
        newer.put_u32(sum);
        let digits: String = newer.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(WatchToken::from_text(&format!("{TOKEN_MARK}{digits}")), Err(TokenError::Version(9)));
    }

    #[test]
    fn keys_cover_one_or_all_that_begin_so() {
        assert!(WatchKeys::Key((*b"a").into()).covers(b"a"));
        assert!(!WatchKeys::Key((*b"a").into()).covers(b"ab"));
        assert!(WatchKeys::Prefix((*b"a").into()).covers(b"ab"));
        assert!(!WatchKeys::Prefix((*b"b").into()).covers(b"ab"));
    }
}
