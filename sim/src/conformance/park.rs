//! What every [`Park`](gristmill_base::env::Park) keeps: it ends for whatever happens, and at its deadline.

/// A deadline that nothing should reach.
const FAR_NANOS: u64 = 20_000_000_000;
/// A deadline that is waited for.
const NEAR_NANOS: u64 = 20_000_000;
/// More parks for one event than any implementation needs.
const PARKS_MAX: u32 = 100;

/// Why a park should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client sends a byte.
    Byte,
    /// An operation of the disk finishes.
    Disk,
    /// Another shard pushes a parcel and wakes this one.
    Wake,
}

/// A loop's place of rest, with everything that may end it.
pub trait ParkWorld {
    /// The monotonic clock that deadlines are of, in nanoseconds.
    fn now(&mut self) -> u64;

    /// Parks.
    fn park(&mut self, deadline_nanos: u64);

    /// Makes something happen after about so many nanoseconds, 0 for before this returns. The disk takes its own time.
    fn arrange(&mut self, cause: Cause, after_nanos: u64);

    /// Takes in what has happened, without waiting; gives how much that was.
    fn poll(&mut self) -> usize;

    /// How far beyond its time a park may end, in nanoseconds.
    fn tolerance(&self) -> u64;
}

/// Everything about [`Park`](gristmill_base::env::Park). Nothing may happen in the world but what the suite arranges.
///
/// # Panics
/// On the first breach.
pub fn park(world: &mut dyn ParkWorld) {
    a_passed_deadline(world);
    a_deadline(world);
    for round in 0..4 {
        for cause in [Cause::Byte, Cause::Disk, Cause::Wake] {
            something_happens(world, cause, round % 2 * 3_000_000);
        }
    }
    a_deadline(world);
    a_passed_deadline(world);
}

fn a_passed_deadline(world: &mut dyn ParkWorld) {
    let start = world.now();
    world.park(0);
    world.park(start);
    let waited = world.now() - start;
    assert!(waited <= world.tolerance(), "a deadline that has passed returns at once, not after {waited} ns");
}

fn a_deadline(world: &mut dyn ParkWorld) {
    let start = world.now();
    let deadline = start + NEAR_NANOS;
    let mut parks = 0;
    while world.now() < deadline {
        parks += 1;
        assert!(parks <= PARKS_MAX, "a park with nothing to end it waits for its deadline");
        world.park(deadline);
        assert_eq!(world.poll(), 0, "nothing was arranged");
    }
    let late = world.now() - deadline;
    assert!(late <= world.tolerance(), "a park ends at its deadline, not {late} ns later");
}

fn something_happens(world: &mut dyn ParkWorld, cause: Cause, after_nanos: u64) {
    let start = world.now();
    world.arrange(cause, after_nanos);
    let mut happened = 0;
    for _ in 0..PARKS_MAX {
        world.park(start + FAR_NANOS);
        happened += world.poll();
        if happened > 0 {
            break;
        }
    }
    let waited = world.now() - start;
    assert_eq!(happened, 1, "{cause:?} ends a park, once");
    assert!(waited < FAR_NANOS / 2, "{cause:?} ends a park long before its deadline, not after {waited} ns");
}
