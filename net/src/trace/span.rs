//! One request on its way, with a time for each stop.

use gristmill_base::ids::Lsn;
use gristmill_core::request::Responder;
use gristmill_core::shard::Subject;

/// The stops of a request, in order. Not every request comes by all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The last bytes of its frame were taken from the socket.
    Received,
    /// It was taken out of its frame, and the turn that takes it in begins.
    Turn,
    /// It left for the shard that owns its key.
    Away,
    /// The turn in which it was handled is over: its answer is known, its record is in the log's batch.
    Handled,
    /// The batch was handed to the device.
    Submitted,
    /// The device has written it.
    Written,
    /// It survives a power cut.
    Durable,
    /// The answer came back from the shard that owns its key.
    Back,
    /// The reply was written into a frame and given to the socket, or left for the shard of the connection.
    Replied,
    /// The socket has taken it.
    Sent,
}

/// How many there are.
pub const STAGES: usize = Stage::ALL.len();

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Received,
        Self::Turn,
        Self::Away,
        Self::Handled,
        Self::Submitted,
        Self::Written,
        Self::Durable,
        Self::Back,
        Self::Replied,
        Self::Sent,
    ];

    /// Its name; API of the output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Turn => "turn",
            Self::Away => "away",
            Self::Handled => "handled",
            Self::Submitted => "submitted",
            Self::Written => "written",
            Self::Durable => "durable",
            Self::Back => "back",
            Self::Replied => "replied",
            Self::Sent => "sent",
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Span {
    /// Who waits for the reply: with its shard, the name of the request.
    pub responder: Responder,
    /// What it is about.
    pub subject: Subject,
    /// When it was where, monotonic nanoseconds; 0 where it was not.
    times: [u64; STAGES],
    /// The record that its reply waits for.
    pub(super) lsn: Lsn,
    /// Tells it from others of the same name: a client may use one again as soon as it has the reply.
    pub(super) number: u64,
}

impl Span {
    pub(super) fn new(responder: Responder, subject: Subject, number: u64) -> Self {
        Self { responder, subject, times: [0; STAGES], lsn: Lsn(0), number }
    }

    /// When it was there; 0 if it was not.
    #[must_use]
    pub fn at(&self, stage: Stage) -> u64 {
        self.times[stage as usize]
    }

    /// Takes note of the first time that it is there.
    pub(super) fn set(&mut self, stage: Stage, now: u64) {
        let place = &mut self.times[stage as usize];
        if *place == 0 {
            *place = now;
        }
    }

    /// Its answer is known.
    pub(super) fn answered(&mut self, now: u64) {
        if self.at(Stage::Away) == 0 {
            self.set(Stage::Handled, now);
        }
    }

    /// Each stop that it came by but the first, and the nanoseconds since the one before.
    pub fn steps(&self) -> impl Iterator<Item = (Stage, u64)> {
        let mut before = None;
        Stage::ALL.into_iter().filter_map(move |stage| {
            let at = self.at(stage);
            if at == 0 {
                return None;
            }
            let since = before.map(|before| at.saturating_sub(before));
            before = Some(at);
            since.map(|nanos| (stage, nanos))
        })
    }

    /// From the first stop to the last, nanoseconds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.steps().map(|(_, nanos)| nanos).sum()
    }

    /// Takes over the stops that the owner of its key has seen.
    pub fn join(&mut self, elsewhere: &Self) {
        for stage in [Stage::Handled, Stage::Submitted, Stage::Written, Stage::Durable] {
            self.set(stage, elsewhere.at(stage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::ids::{ConnId, ShardId};

    #[test]
    fn steps_leave_out_where_it_was_not() {
        let responder = Responder { shard: ShardId(0), conn: ConnId(1), tag: 2 };
        let mut span = Span::new(responder, Subject::default(), 1);
        [(Stage::Received, 100), (Stage::Turn, 130), (Stage::Sent, 200), (Stage::Turn, 999)]
            .into_iter()
            .for_each(|(stage, at)| span.set(stage, at));
        assert_eq!(span.steps().collect::<Vec<_>>(), [(Stage::Turn, 30), (Stage::Sent, 70)]);
        assert_eq!(span.total(), 100);
    }
}
