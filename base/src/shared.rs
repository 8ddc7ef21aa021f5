//! Bytes that several owners hold a part of without copying them.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A part of bytes that lie in memory once. All of them stay until their last owner has gone.
#[derive(Clone)]
pub struct SharedBytes {
    all: Arc<Vec<u8>>,
    from: u32,
    to: u32,
}

impl SharedBytes {
    /// A part of it.
    ///
    /// # Panics
    /// It has no such part.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} bytes", self.len());
        let at = |byte: usize| self.from + byte as u32;
        Self { all: self.all.clone(), from: at(range.start), to: at(range.end) }
    }
}

impl From<Vec<u8>> for SharedBytes {
    /// # Panics
    /// There are 4 GiB of them: no frame, record or chunk is as long.
    fn from(bytes: Vec<u8>) -> Self {
        let to = u32::try_from(bytes.len()).expect("no frame, record or chunk has 4 GiB");
        Self { all: Arc::new(bytes), from: 0, to }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.all[self.from as usize..self.to as usize]
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_parts_are_where_they_were() {
        let all = SharedBytes::from(b"0123456789".to_vec());
        let part = all.part(2..8);
        drop(all);
        assert_eq!((&*part, &*part.part(1..3), part.part(6..6).len()), (&b"234567"[..], &b"34"[..], 0));
        assert_eq!(part.part(0..1), SharedBytes::from(b"2".to_vec()));
    }

    #[test]
    #[should_panic(expected = "of 6 bytes")]
    fn no_part_goes_beyond_its_whole() {
        let _ = SharedBytes::from(b"0123456789".to_vec()).part(2..8).part(3..7);
    }
}
