//! The kernel's randomness.

use crate::sys;
use gristmill_base::env::Rng;

/// Words fetched by one system call.
const WORDS: usize = 32;

/// [`Rng`] of production: the kernel's generator, a few words at a time. Belongs to one thread.
#[derive(Debug, Default)]
pub struct SystemRng {
    /// Words not given out yet; each is given out once.
    ready: Vec<u64>,
}

impl SystemRng {
    /// A generator that has fetched nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Rng for SystemRng {
    /// # Panics
    /// If the kernel has no generator, which no supported kernel lacks.
    fn next_u64(&mut self) -> u64 {
        if self.ready.is_empty() {
            let mut bytes = [0_u8; WORDS * 8];
            sys::fill_random(&mut bytes).expect("the kernel's random generator works");
            let (words, _) = bytes.as_chunks::<8>();
            self.ready.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        }
        self.ready.pop().expect("words were just fetched")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_differ() {
        let mut rng = SystemRng::new();
        let mut words: Vec<u64> = (0..WORDS * 3).map(|_| rng.next_u64()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), WORDS * 3);
    }
}
