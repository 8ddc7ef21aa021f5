//! Seeded fuzzing as a plain test: good frames with a few bytes changed, cut or doubled, and bytes from nowhere. Whatever
//! comes, nothing panics and little is allocated.

mod support;

use gristmill_wire::fuzz::check;
use support::samples;

/// Inputs tried; about two seconds.
const ROUNDS: usize = 150_000;

/// Marsaglia's xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = random.below(bytes.len() + 1);
    match random.below(8) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.next() as u8),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        3 => bytes.extend_from_slice(&seeds[random.below(seeds.len())]),
        4 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        5 => {
            let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
            bytes.splice(at..at, huge);
        }
        6 if at + 4 <= bytes.len() => bytes[at..at + 4].fill(0xff),
        _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        _ => {}
    }
}

#[test]
fn no_bytes_panic_or_allocate_by_what_they_declare() {
    // Whole frames, frames without their headers, and bodies of single operations and results.
    let seeds: Vec<Vec<u8>> = samples()
        .iter()
        .flat_map(|sample| {
            let frame = sample.content.encode();
            [16, 25, 26]
                .into_iter()
                .filter_map(|cut| frame.get(cut..).map(<[u8]>::to_vec))
                .chain([frame.clone()])
                .collect::<Vec<_>>()
        })
        .collect();
    let mut random = Random(0x5eed_0001);
    let (mut good, mut longest) = (0, 0);
    for round in 0..ROUNDS {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        if round % 8 == 0 {
            bytes = (0..random.below(200)).map(|_| random.next() as u8).collect();
        }
        for _ in 0..1 + random.below(4) {
            mutate(&mut random, &mut bytes, &seeds);
        }
        let messages = check(&bytes);
        good += usize::from(messages > 0);
        longest = longest.max(messages);
    }
    assert!(good > ROUNDS / 20 && good < ROUNDS, "{good} of {ROUNDS} inputs held a good message: the fuzzing is idle");
    assert!(longest > 20, "at most {longest} good messages in one input: no frame of many was reached");
}
