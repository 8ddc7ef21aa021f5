//! Seeded fuzzing as a plain test: checkpoint files, roots, placements, catalogs and app files with a few bytes changed.
//! Whatever comes, nothing panics. Cargo-fuzz targets in `fuzz/` call the same functions.

use gristmill_base::ids::{Lsn, ShardId, SlotId, Ssn, Term};
use gristmill_core::appfile::AppFile;
use gristmill_core::boot::{FoundShard, Placement, SlotMove};
use gristmill_core::catalog::Catalog;
use gristmill_core::shard::{CheckpointMark, RootContent, seal_checkpoint, unseal_checkpoint};
use gristmill_state::store::Manifest;

/// Inputs tried of each kind; together about two seconds.
const ROUNDS: usize = 300_000;
const APP: &str = include_str!("../../examples/word-count/app.yaml");

/// Marsaglia's xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, self.below(256) as u8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] = [0, b' ', b':', b'\n', 0x80, 0xff][self.below(6)],
            4 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
            _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            _ => {}
        }
    }
}

fn fuzz(seed: u64, rounds: usize, good: &[u8], check: impl Fn(&[u8]) -> bool) {
    assert!(check(good), "what is good is taken");
    let mut random = Random(seed);
    let mut refused = 0;
    for _ in 0..rounds {
        let mut bytes = good.to_vec();
        for _ in 0..=random.below(4) {
            random.mutate(&mut bytes);
        }
        refused += usize::from(!check(&bytes));
    }
    assert!(refused > 0, "nothing was ever refused");
}

#[test]
fn checkpoint_files() {
    let file = seal_checkpoint(7, SlotId(3), 5, &[9; 200]);
    fuzz(1, ROUNDS, &file, |bytes| match unseal_checkpoint(7, SlotId(3), 5, bytes) {
        Ok(dump) => {
            assert_eq!(dump, [9; 200], "damage is never taken for a dump");
            true
        }
        Err(_) => false,
    });
}

#[test]
fn roots() {
    let mark = CheckpointMark { number: 4, ssn: Ssn(9) };
    let content = RootContent {
        log_from: Lsn(12),
        time_micros: 34,
        marks: (0..16).map(|slot| (SlotId(slot), mark)).collect(),
        manifest: Some(Manifest::new(ShardId(0), 3, (0..16).map(|slot| (slot, SlotId(slot))))),
        shard: Some(ShardId(0)),
        term: Term(3),
    };
    fuzz(2, ROUNDS, &content.to_bytes(), |bytes| RootContent::from_bytes(bytes).is_ok());
}

#[test]
fn placements() {
    let found = vec![FoundShard { next: 9, root: 2 }, FoundShard { next: 1, root: 1 }];
    let moves = vec![SlotMove { slot: 1, owner: 1, term: 5, ssn: 9 }];
    let placement = Placement { boot: 3, shard_count: 2, layout: 1, found, catalog: 4, term: 5, moves };
    fuzz(3, ROUNDS, &placement.to_bytes(), |bytes| Placement::from_bytes(bytes).is_ok());
}

#[test]
fn catalogs() {
    let file = AppFile::parse(APP, "app.yaml").expect("the sample is good");
    let (catalog, _) = Catalog::default().load(&file, APP, 0, false).expect("it can be loaded").expect("it is new");
    fuzz(4, ROUNDS, &catalog.to_bytes(), |bytes| Catalog::from_bytes(bytes).is_ok());
}

#[test]
fn app_files() {
    fuzz(5, ROUNDS / 100, APP.as_bytes(), |bytes| {
        std::str::from_utf8(bytes).is_ok_and(|text| AppFile::parse(text, "app.yaml").is_ok())
    });
}
