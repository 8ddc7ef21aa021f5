//! Which places of a slab are taken: a bit for each, so that free ones are passed over sixty-four at a time.
//!
//! The lowest free place is given first. So where grains come and go, those that are there come to lie at the beginning, the
//! end becomes free, and its memory can be given back.

/// Places that one word tells of.
const WORD: usize = u64::BITS as usize;

/// See the module. Invariant: bits at and beyond `len` are clear; the last place is taken, unless there is none; all places
/// of words before `full_words` are taken.
#[derive(Debug, Default)]
pub(crate) struct Places {
    words: Vec<u64>,
    len: usize,
    taken: usize,
    full_words: usize,
}

impl Places {
    /// How many there are, free ones included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Memory of the bits.
    pub(crate) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Whether a place is taken.
    #[cfg(test)]
    fn is_taken(&self, place: usize) -> bool {
        self.words.get(place / WORD).is_some_and(|word| word >> (place % WORD) & 1 == 1)
    }

    /// Takes the lowest free place; one behind the others if none is free.
    #[inline]
    pub(crate) fn take(&mut self) -> usize {
        let place = if self.taken == self.len { self.len } else { self.lowest_free() };
        if place == self.len {
            if place.is_multiple_of(WORD) {
                self.words.push(0);
            }
            self.len += 1;
        }
        self.words[place / WORD] |= 1 << (place % WORD);
        self.taken += 1;
        place
    }

    /// There is one.
    fn lowest_free(&mut self) -> usize {
        while self.words[self.full_words] == u64::MAX {
            self.full_words += 1;
        }
        self.full_words * WORD + self.words[self.full_words].trailing_ones() as usize
    }

    /// Frees a place that is taken. Free places at the end are there no more.
    pub(crate) fn free(&mut self, place: usize) {
        let word = place / WORD;
        self.words[word] &= !(1 << (place % WORD));
        self.taken -= 1;
        self.full_words = self.full_words.min(word);
        if place + 1 == self.len {
            self.drop_end();
        }
    }

    fn drop_end(&mut self) {
        while self.words.pop_if(|word| *word == 0).is_some() {}
        let last = self.words.last().map_or(0, |word| WORD - word.leading_zeros() as usize);
        self.len = self.words.len().saturating_sub(1) * WORD + last;
        self.full_words = self.full_words.min(self.words.len());
        if self.words.len() < self.words.capacity() / 4 {
            self.words.shrink_to(2 * self.words.len());
        }
    }

    /// The first place from this one on that is taken.
    #[inline]
    pub(crate) fn next_taken(&self, from: usize) -> Option<usize> {
        let mut word = from / WORD;
        let mut bits = self.words.get(word)? & u64::MAX << (from % WORD);
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word)?;
        }
        Some(word * WORD + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a set: the lowest free place is given, taken ones are found in order, and the end is the last taken one.
        #[test]
        fn places_are_a_set(steps in proptest::collection::vec((any::<bool>(), 0..400_usize), 0..2_000)) {
            let (mut places, mut model) = (Places::default(), BTreeSet::new());
            for (takes, at) in steps {
                if takes {
                    let lowest = (0..).find(|place| !model.contains(place)).unwrap();
                    prop_assert_eq!(places.take(), lowest);
                    model.insert(lowest);
                } else if let Some(place) = model.range(at..).next().copied() {
                    places.free(place);
                    model.remove(&place);
                }
                prop_assert_eq!(places.taken(), model.len());
                prop_assert_eq!(places.len(), model.last().map_or(0, |last| last + 1));
                prop_assert_eq!(places.next_taken(at), model.range(at..).next().copied());
                prop_assert_eq!(places.is_taken(at), model.contains(&at));
            }
        }
    }

    #[test]
    fn memory_of_places_that_are_gone_is_given_back() {
        let mut places = Places::default();
        assert_eq!((0..100_000).map(|_| places.take()).max(), Some(99_999));
        (100..100_000).rev().for_each(|place| places.free(place));
        assert_eq!((places.len(), places.taken()), (100, 100));
        assert!(places.bytes() < 100, "{} bytes", places.bytes());
    }
}
