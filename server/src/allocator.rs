//! What the allocator of the program says of its memory. A library does not know which one it is: the program tells how to ask.

use std::sync::OnceLock;

/// Bytes as the allocator counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// That the program has asked for and not given back.
    pub allocated: u64,
    /// Of pages that hold some of these: what is more than `allocated` lies between them.
    pub active: u64,
    /// That the allocator needs itself.
    pub metadata: u64,
    /// Of all pages that the system has not got back: what is more than `active` and `metadata` is about to go.
    pub resident: u64,
}

/// How to ask; `None` if it does not know.
pub type Ask = fn() -> Option<Allocated>;

static ASK: OnceLock<Ask> = OnceLock::new();

/// Says how the allocator is asked, once for the process: it has one.
pub(crate) fn is_asked_by(ask: Ask) {
    let _ = ASK.set(ask);
}

/// What it says now; `None` where nobody said how to ask.
pub(crate) fn ask() -> Option<Allocated> {
    ASK.get().and_then(|ask| ask())
}
