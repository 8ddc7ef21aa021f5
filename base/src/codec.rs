//! Little-endian bytes, in and out, for every hand-laid format: records, frames, checkpoints.
//!
//! The reader never panics and never allocates by a declared length: a length is checked against what is left.
//! Unsigned varints are LEB128 as in Protocol Buffers, at most 10 bytes, shortest form only.

use std::fmt;

/// Adds to a byte vector.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes.
    fn put_u16(&mut self, value: u16);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// One to ten bytes.
    fn put_varint(&mut self, value: u64);
    /// A varint length, then the bytes.
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    #[inline]
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    #[inline]
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
    #[inline]
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

/// A few bytes in the making that need no memory of their own: numbers between two pieces of a record.
#[derive(Debug)]
pub struct Short {
    bytes: [u8; SHORT_BYTES],
    len: usize,
}

/// A number as [`Put::put_varint`] writes it, for who adds it more than once.
#[derive(Clone, Copy, Debug)]
pub struct Varint {
    bytes: [u8; VARINT_BYTES_MAX],
    len: usize,
}

/// Seven bits a byte.
const VARINT_BYTES_MAX: usize = 10;

impl Varint {
    /// The bytes of `value`.
    #[inline]
    #[must_use]
    pub fn new(value: u64) -> Self {
        let mut bytes = [0; VARINT_BYTES_MAX];
        let len = varint_bytes(value);
        if value < 1 << 56 {
            bytes[..8].copy_from_slice(&varint_word(value, len).to_le_bytes());
        } else {
            let mut rest = value;
            for byte in &mut bytes[..len] {
                *byte = rest as u8 | 0x80;
                rest >>= 7;
            }
            bytes[len - 1] &= 0x7f;
        }
        Self { bytes, len }
    }
}

/// The bytes of a number below 2^56, which has so many, as a word.
#[inline]
fn varint_word(value: u64, bytes: usize) -> u64 {
    spread(value) | (0x8080_8080_8080_8080 & ((1 << (8 * (bytes - 1))) - 1))
}

/// Room of a [`Short`]: six varints of full length, and what surrounds them.
const SHORT_BYTES: usize = 80;

impl Default for Short {
    #[inline]
    fn default() -> Self {
        Self { bytes: [0; SHORT_BYTES], len: 0 }
    }
}

impl Short {
    /// The bytes so far.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Adds a number whose bytes are known.
    ///
    /// # Panics
    /// There is no room.
    #[inline]
    pub fn put_known(&mut self, number: &Varint) {
        self.put(number.bytes, number.len);
    }

    /// Adds the first `count` of `bytes`.
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N], count: usize) {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += count;
    }
}

/// # Panics
/// Of all its functions: there is no room.
impl Put for Short {
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put([value], 1);
    }
    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.put(value.to_le_bytes(), 2);
    }
    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.put(value.to_le_bytes(), 4);
    }
    #[inline]
    fn put_u64(&mut self, value: u64) {
        self.put(value.to_le_bytes(), 8);
    }
    #[inline]
    fn put_varint(&mut self, value: u64) {
        if value < 0x80 {
            return self.put([value as u8], 1);
        }
        self.put_known(&Varint::new(value));
    }
    #[inline]
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// How many bytes a varint takes.
#[inline]
#[must_use]
pub fn varint_bytes(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// The 56 lower bits of `value`, seven to a byte: halves, quarters and eighths are moved apart.
#[inline]
fn spread(value: u64) -> u64 {
    let halves = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let quarters = (halves & 0x0000_3fff_0000_3fff) | (halves & 0x0fff_c000_0fff_c000) << 2;
    (quarters & 0x007f_007f_007f_007f) | (quarters & 0x3f80_3f80_3f80_3f80) << 1
}

/// Bytes that do not say what they should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the thing they declare.
    Truncated {
        /// Bytes that are missing at least.
        wanted: u64,
        /// Bytes that are left.
        left: usize,
    },
    /// A varint of more than ten bytes, over 64 bits, or not in its shortest form.
    Varint,
    /// Bytes behind the end of the thing.
    Trailing(usize),
    /// A number that means nothing here.
    Unknown {
        /// What it should have named.
        what: &'static str,
        /// The number found.
        found: u64,
    },
    /// Over a limit.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// What was found.
        found: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// Text that is not UTF-8.
    NotUtf8(&'static str),
    /// Something that is not allowed.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { wanted, left } => write!(f, "ends too early: {wanted} bytes wanted, {left} left"),
            Self::Varint => f.write_str("a variable-length number is malformed"),
            Self::Trailing(bytes) => write!(f, "{bytes} bytes behind the end"),
            Self::Unknown { what, found } => write!(f, "{found} is no known {what}"),
            Self::TooLarge { what, found, allowed } => write!(f, "{what} of {found}, at most {allowed} allowed"),
            Self::NotUtf8(what) => write!(f, "{what} is not UTF-8"),
            Self::Invalid(what) => write!(f, "not allowed: {what}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Takes from a byte slice, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// Truncated.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(count) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(DecodeError::Truncated { wanted: count as u64, left: self.rest.len() }),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(DecodeError::Truncated { wanted: N as u64, left: self.rest.len() }),
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// Truncated.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    /// Truncated.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// Truncated.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// Truncated.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A varint.
    ///
    /// # Errors
    /// Truncated, or malformed.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.rest.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(DecodeError::Varint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(DecodeError::Varint) } else { Ok(value) };
            }
        }
        Err(DecodeError::Varint)
    }

    /// A varint that must fit a smaller number.
    ///
    /// # Errors
    /// Truncated, malformed, or too large for `T`.
    #[inline]
    pub fn varint_as<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, DecodeError> {
        let found = self.varint()?;
        T::try_from(found).map_err(|_| DecodeError::Unknown { what, found })
    }

    /// A varint length and as many bytes, at most `allowed`.
    ///
    /// # Errors
    /// Truncated, malformed, or too long.
    #[inline]
    pub fn bytes(&mut self, what: &'static str, allowed: usize) -> Result<&'a [u8], DecodeError> {
        let found = self.varint()?;
        if found > allowed as u64 {
            return Err(DecodeError::TooLarge { what, found, allowed: allowed as u64 });
        }
        self.take(found as usize)
    }

    /// As [`Self::bytes`], as text.
    ///
    /// # Errors
    /// As [`Self::bytes`], or not UTF-8.
    pub fn text(&mut self, what: &'static str, allowed: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(what, allowed)?).map_err(|_| DecodeError::NotUtf8(what))
    }

    /// A varint count of things of at least `each` bytes; never more than what is left can hold.
    ///
    /// # Errors
    /// Truncated, or malformed.
    #[inline]
    pub fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let found = self.varint()?;
        let wanted = found.saturating_mul(each.max(1) as u64);
        if wanted > self.rest.len() as u64 {
            return Err(DecodeError::Truncated { wanted, left: self.rest.len() });
        }
        Ok(found as usize)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Something is left.
    pub fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_long_forms_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(Reader::new(&bytes).varint(), Ok(value));
            for cut in 0..bytes.len() {
                assert!(Reader::new(&bytes[..cut]).varint().is_err());
            }
        }
        assert_eq!(Reader::new(&[0x80, 0]).varint(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(DecodeError::Varint));
    }

    #[test]
    fn short_bytes_are_those_of_a_vector() {
        let edges =
            (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1, (1_u64 << bit) | ((1 << bit) / 3)]);
        for value in edges.chain([u64::MAX, 0x0123_4567_89ab_cdef]) {
            let (mut short, mut long) = (Short::default(), Vec::new());
            for to in [&mut short as &mut dyn Put, &mut long] {
                to.put_varint(value);
                to.put_u8(1);
                to.put_u16(2);
                to.put_u32(3);
                to.put_u64(4);
                to.put_bytes(b"five");
                to.put_varint(value / 3);
            }
            let mut alone = Vec::new();
            alone.put_varint(value);
            assert_eq!(alone.len(), varint_bytes(value), "{value:#x}");
            assert_eq!(short.as_slice(), long, "{value:#x}");
            let mut known = Short::default();
            known.put_known(&Varint::new(value));
            assert_eq!(known.as_slice(), alone, "{value:#x}");
        }
    }

    #[test]
    fn lengths_and_counts_are_held_against_what_is_left() {
        let mut bytes = Vec::new();
        bytes.put_varint(u64::from(u32::MAX));
        assert!(matches!(Reader::new(&bytes).count(1), Err(DecodeError::Truncated { .. })));
        assert!(matches!(Reader::new(&bytes).bytes("key", 10), Err(DecodeError::TooLarge { .. })));
    }
}
