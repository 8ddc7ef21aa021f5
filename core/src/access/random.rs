//! What a run draws instead of rolling dice: numbers that follow from the input that it handles. So each attempt at an input
//! draws the same, also when it is made again after a fetch, a failure, a restart or on another core.

use gristmill_state::grain::{Queued, Work};
use sha2::{Digest, Sha256};

/// What the numbers follow from: 16 bytes of an id, and 8 of a seed.
pub(crate) type Seed = [u8; 32];

/// The seed of an input: of its grain, in its data directory, of what its commit consumes, and of what it says. Spilling an
/// input does not change it. What it says counts because places are used again whose inputs a crash has undone before they
/// were durable: a run may have begun with these. `due_micros` is that of a timer.
pub(crate) fn seed_of(
    directory: u128,
    (table, key): (u32, &[u8]),
    work: &Work,
    queued: &Queued,
    due_micros: u64,
) -> Seed {
    let origin = match queued {
        Queued::Backlog(n) => work.backlog.get(n).map(|row| row.origin.clone()),
        other => other.origin(),
    };
    let mut bytes = Vec::new();
    if let Some(origin) = origin {
        origin.encode(&mut bytes);
    }
    bytes.extend_from_slice(&due_micros.to_le_bytes());
    if let Some(input) = work.input_of(queued) {
        input.encode(&mut bytes);
    }
    let mut hash = Sha256::new();
    hash.update(b"gristmill run");
    hash.update(directory.to_le_bytes());
    hash.update(table.to_le_bytes());
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(&bytes);
    hash.finalize().into()
}

/// Numbers that a run has begun to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    pub(super) id: u128,
    state: u64,
}

impl Drawn {
    pub(super) fn new(seed: &Seed) -> Self {
        let (id, rest) = seed.split_first_chunk::<16>().expect("a seed is longer than an id");
        let state = rest.first_chunk::<8>().expect("and holds the state behind it");
        Self { id: u128::from_le_bytes(*id), state: u64::from_le_bytes(*state) }
    }

    /// The next number: each step of the state is mixed by two multiplications and three shifts.
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::SessionId;
    use gristmill_state::input::{GrainOperation, Input, InputCause, Origin, StreamId};
    use gristmill_state::record::Spilled;

    #[test]
    fn an_input_draws_the_same_wherever_it_waits() {
        let input = Input::new(InputCause::Client, GrainOperation::Delete).of(InputClass::Live);
        let stream = StreamId::Session(SessionId(3));
        let mut work = Work::default();
        let seed = |directory, key: &[u8], work: &Work, queued: &Queued| seed_of(directory, (2, key), work, queued, 0);
        let from_stream = seed(1, b"k", &work, &Queued::Stream(stream, 9, input.clone()));
        work.backlog.insert(4, Spilled { n: 4, origin: Origin::Stream(stream, 9), input: input.clone() });
        assert_eq!(from_stream, seed(1, b"k", &work, &Queued::Backlog(4)));
        let other = Input::new(InputCause::Message, GrainOperation::Delete);
        for other in [
            seed(2, b"k", &work, &Queued::Backlog(4)),
            seed(1, b"l", &work, &Queued::Backlog(4)),
            seed(1, b"k", &work, &Queued::Stream(stream, 10, input)),
            seed(1, b"k", &work, &Queued::Stream(stream, 9, other)),
        ] {
            assert_ne!(from_stream, other);
        }
        let (mut one, mut two) = (Drawn::new(&from_stream), Drawn::new(&from_stream));
        let drawn: Vec<u64> = (0..4).map(|_| one.next()).collect();
        assert_eq!(drawn, (0..4).map(|_| two.next()).collect::<Vec<_>>());
        assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
