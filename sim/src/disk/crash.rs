//! Power loss: what becomes of everything that was not flushed.

use crate::rng::SimRng;
use gristmill_base::env::Rng;
use std::fmt;

/// Something that a crash may lose or keep, on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// Of which file, by the simulator's number; `u32::MAX` where it is of none.
    pub inode: u32,
    /// What it is.
    pub kind: LooseKind,
}

/// What may be lost or kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LooseKind {
    /// A write: its sectors of 512 bytes each on their own.
    Data {
        /// First byte in the file.
        offset: u64,
        /// How many.
        sectors: usize,
    },
    /// The length that a write gave its file.
    Length {
        /// In bytes.
        bytes: u64,
    },
    /// A change of names in a folder.
    Name {
        /// The change in words.
        text: String,
    },
}

impl fmt::Display for Loose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LooseKind::Data { offset, sectors } => write!(f, "file {}: {sectors} sectors at {offset}", self.inode),
            LooseKind::Length { bytes } => write!(f, "file {}: length {bytes}", self.inode),
            LooseKind::Name { text } => f.write_str(text),
        }
    }
}

/// What becomes of one loose thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As if it had never been done.
    Lost,
    /// On the platter.
    Kept,
    /// Some sectors of it are on the platter. A length or a name that is torn is lost.
    Torn(Tear),
}

/// Which sectors of a torn write are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// Only the first.
    FirstKept,
    /// All but the first.
    FirstLost,
    /// All but the last.
    LastLost,
    /// Each with probability one half, drawn from this seed.
    Random(u64),
}

impl Tear {
    /// For each of `count` sectors whether it is kept.
    pub(crate) fn sectors(self, count: usize) -> impl Iterator<Item = bool> {
        let mut rng = SimRng::new(if let Self::Random(seed) = self { seed } else { 0 });
        (0..count).map(move |sector| match self {
            Self::FirstKept => sector == 0,
            Self::FirstLost => sector > 0,
            Self::LastLost => sector + 1 < count,
            Self::Random(_) => rng.next_u64() >> 63 == 1,
        })
    }
}

/// What a crash does to the loose things, which are numbered as [`SimDisk::loose`](crate::disk::SimDisk::loose) lists
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPlan {
    /// Only what was flushed is left.
    LoseAll,
    /// Everything is left and durable.
    KeepAll,
    /// The process dies and the machine goes on: everything is left as it reads, and what was not flushed may still be
    /// lost by a later crash.
    KillProcess,
    /// Everything is lost but one thing.
    KeepOne(usize),
    /// Everything is kept but one thing.
    LoseOne(usize),
    /// One write is torn; the rest is kept or lost.
    TearOne {
        /// Which.
        index: usize,
        /// How.
        tear: Tear,
        /// Whether the rest is kept.
        rest_kept: bool,
    },
    /// Each thing is kept, lost or torn at random, from this seed.
    Random(u64),
}

impl CrashPlan {
    /// The fates in order; asked once for each loose thing.
    pub(crate) fn fates(self) -> impl FnMut() -> Fate {
        let mut rng = SimRng::new(if let Self::Random(seed) = self { seed } else { 0 });
        // Some crashes lose nearly everything and some nearly nothing.
        let kept_of_eight = rng.between(1, 7);
        let mut next = 0;
        let either = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
        move || {
            let index = next;
            next += 1;
            match self {
                Self::LoseAll => Fate::Lost,
                Self::KeepAll | Self::KillProcess => Fate::Kept,
                Self::KeepOne(one) => either(index == one),
                Self::LoseOne(one) => either(index != one),
                Self::TearOne { index: one, tear, .. } if index == one => Fate::Torn(tear),
                Self::TearOne { rest_kept, .. } => either(rest_kept),
                Self::Random(_) if rng.below(4) == 0 => Fate::Torn(Tear::Random(rng.next_u64())),
                Self::Random(_) => either(rng.below(8) < kept_of_eight),
            }
        }
    }
}
