//! The simulator's own random numbers: xoshiro256**, seeded by splitmix64.
//!
//! Written here and never changed, so that a seed names the same run for ever.

use gristmill_base::env::Rng;

/// A seeded generator. Copies of it give the same numbers.
#[derive(Clone, Debug)]
pub struct SimRng {
    /// Never all zero.
    state: [u64; 4],
}

impl SimRng {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        let mut next = || {
            mix = mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = mix;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// A generator of its own for a part of the run, so that drawing more in one part leaves the others as they were.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// A number in `0..bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    ///
    /// # Panics
    /// If `low > high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "a range of numbers goes up: {low}..={high}");
        match (high - low).checked_add(1) {
            Some(bound) => low + self.below(bound),
            None => self.next_u64(),
        }
    }

    /// `true` in `per_million` of a million cases. Draws nothing if that is 0, so that a fault that is off leaves a
    /// run as it was.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// One of `things`, or `None` if there is none.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        if things.is_empty() {
            return None;
        }
        things.get(self.below(things.len() as u64) as usize)
    }

    /// Puts `things` in an order of which all are equally likely.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

impl Rng for SimRng {
    fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut rng = SimRng::new(0);
        // Worked out by hand with arbitrary-precision arithmetic from the two published algorithms.
        assert_eq!([rng.next_u64(), rng.next_u64()], [0x99ec_5f36_cb75_f2b4, 0xbf6e_1f78_4956_452a]);
    }

    #[test]
    fn bounds_hold_and_everything_is_reached() {
        let mut rng = SimRng::new(7);
        let mut seen = [0_u32; 6];
        for _ in 0..6_000 {
            seen[rng.below(6) as usize] += 1;
            assert!((3..=4).contains(&rng.between(3, 4)));
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
        assert!(!rng.chance(0) && rng.chance(1_000_000));
        let mut order: Vec<u32> = (0..100).collect();
        rng.shuffle(&mut order);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
