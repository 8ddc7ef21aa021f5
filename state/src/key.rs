//! Keys of grains.

use compact_bytes::CompactBytes;
use std::fmt;
use std::ops::Deref;

/// A key of so many bytes lies within its own memory.
pub(crate) const KEY_BYTES_WITHIN: usize = 23;

/// A key: up to 23 bytes lie in it, so that making and comparing one mostly needs no memory but its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(CompactBytes);

impl Deref for Key {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Key {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        Self(CompactBytes::new(bytes))
    }
}

impl<const N: usize> From<[u8; N]> for Key {
    fn from(bytes: [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<Box<[u8]>> for Key {
    fn from(bytes: Box<[u8]>) -> Self {
        (&*bytes).into()
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl From<Key> for Box<[u8]> {
    fn from(key: Key) -> Self {
        (&*key).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
