//! Where the time of requests goes, stop by stop. Off, it costs a look at one place a round; on, the loop reads its clock
//! between the parts of a round and follows some of the requests. Two shards that see one request follow it both.

mod span;
mod tracer;

pub use span::{STAGES, Span, Stage};
pub(crate) use tracer::Tracer;

use gristmill_core::measures::times;
use gristmill_core::request::Responder;
use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// What a trace is to look at.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Requests about this app only.
    pub app: Option<String>,
    /// Only requests that took at least so long, nanoseconds.
    pub slower_nanos: u64,
    /// One request of so many is followed; at least 1.
    pub one_of: u32,
    /// The slowest that are kept.
    pub slowest: usize,
    /// It ends by itself then, monotonic nanoseconds.
    pub until_nanos: u64,
}

/// What one shard has found.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Of each stage that a request reached: nanoseconds since the one before.
    pub stages: [Histogram<u64>; STAGES],
    /// From the first stage to the last.
    pub total: Histogram<u64>,
    /// Requests of this shard's clients that ended slowest, slowest first.
    pub slowest: Vec<Span>,
    /// Requests of other shards' clients that this shard handled, the newest.
    pub elsewhere: VecDeque<Span>,
    /// Requests that this shard's clients sent.
    pub requests: u64,
    /// Of those that should have been followed, as many were not, for want of room.
    pub no_room: u64,
    /// Followed, and not answered when the trace ended.
    pub unfinished: u64,
}

impl Default for Traced {
    fn default() -> Self {
        Self {
            stages: std::array::from_fn(|_| times()),
            total: times(),
            slowest: Vec::new(),
            elsewhere: VecDeque::new(),
            requests: 0,
            no_room: 0,
            unfinished: 0,
        }
    }
}

impl Wish {
    /// Every shard says the same of a request.
    fn is_sampled(&self, responder: Responder) -> bool {
        let mixed = (responder.conn.0 ^ responder.tag.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed.is_multiple_of(u64::from(self.one_of))
    }
}

impl Traced {
    /// A request of a client of this shard has its reply.
    fn finished(&mut self, span: Span, wish: &Wish) {
        let total = span.total();
        if total < wish.slower_nanos {
            return;
        }
        self.record(&span);
        self.total.saturating_record(total);
        let at = self.slowest.partition_point(|other| other.total() >= total);
        if at < wish.slowest {
            self.slowest.insert(at, span);
            self.slowest.truncate(wish.slowest);
        }
    }

    /// A request of a client of another shard has left.
    fn elsewhere(&mut self, span: Span, wish: &Wish, max: usize) {
        // How long it takes as a whole is known to the other shard alone.
        if wish.slower_nanos == 0 {
            self.record(&span);
        }
        if self.elsewhere.len() == max {
            self.elsewhere.pop_front();
        }
        self.elsewhere.push_back(span);
    }

    fn record(&mut self, span: &Span) {
        for (stage, nanos) in span.steps() {
            self.stages[stage as usize].saturating_record(nanos);
        }
    }

    /// What several shards have found, as one. Requests that two of them have seen have all their stops.
    #[must_use]
    pub fn together(all: impl IntoIterator<Item = Self>, slowest: usize) -> Self {
        let mut sum = Self::default();
        for one in all {
            for (stage, more) in sum.stages.iter_mut().zip(&one.stages) {
                stage.add(more).expect("histograms of times have the same bounds");
            }
            sum.total.add(&one.total).expect("histograms of times have the same bounds");
            sum.slowest.extend(one.slowest);
            sum.elsewhere.extend(one.elsewhere);
            sum.requests += one.requests;
            sum.no_room += one.no_room;
            sum.unfinished += one.unfinished;
        }
        sum.slowest.sort_by_key(|span| std::cmp::Reverse(span.total()));
        sum.slowest.truncate(slowest);
        join(&mut sum.slowest, &sum.elsewhere);
        sum
    }
}

/// Gives each of the slowest the stops that the owner of its key has seen. A name is used again once its request has its
/// reply, so the stops must lie within the time that the request was away.
fn join(slowest: &mut [Span], elsewhere: &VecDeque<Span>) {
    let name = |Responder { shard, conn, tag }: Responder| (shard.0, conn.0, tag);
    let away = slowest.iter().enumerate().filter(|(_, span)| span.at(Stage::Away) > 0);
    let mut away: Vec<_> = away.map(|(at, span)| (name(span.responder), span.at(Stage::Away), at)).collect();
    away.sort_unstable();
    for there in elsewhere {
        // One request has a name at a time: if any, it is the last that left before the other shard took it in.
        let wanted = (name(there.responder), there.at(Stage::Turn), usize::MAX);
        let before = away.partition_point(|it| *it <= wanted);
        if let Some((found, _, at)) = away[..before].last()
            && *found == wanted.0
            && there.at(Stage::Replied) <= slowest[*at].at(Stage::Back)
        {
            slowest[*at].join(there);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::ids::{ConnId, ShardId};
    use gristmill_core::shard::Subject;
    use gristmill_io::clock::SystemClock;

    fn span(tag: u64, times: &[(Stage, u64)]) -> Span {
        let responder = Responder { shard: ShardId(0), conn: ConnId(1), tag };
        let mut span = Span::new(responder, Subject::default(), 1);
        times.iter().for_each(|(stage, at)| span.set(*stage, *at));
        span
    }

    /// As the shard of the client sees it.
    fn here(tag: u64, left: u64, back: u64) -> Span {
        span(tag, &[(Stage::Turn, left - 1), (Stage::Away, left), (Stage::Back, back), (Stage::Sent, back + 1)])
    }

    /// As the shard of the key does.
    fn there(tag: u64, took: u64, replied: u64) -> Span {
        span(tag, &[(Stage::Turn, took), (Stage::Handled, took + 1), (Stage::Replied, replied)])
    }

    fn joined(slowest: Vec<Span>, elsewhere: Vec<Span>) -> Vec<(u64, u64)> {
        let keep = slowest.len();
        let one = Traced { slowest, ..Traced::default() };
        let other = Traced { elsewhere: elsewhere.into(), ..Traced::default() };
        let sum = Traced::together([one, other], keep);
        sum.slowest.iter().map(|span| (span.responder.tag, span.at(Stage::Handled))).collect()
    }

    #[test]
    fn a_request_has_its_own_stops_and_not_those_of_others_by_its_name() {
        let slowest = vec![here(5, 100, 200), here(5, 300, 390), here(6, 100, 180)];
        let elsewhere = vec![there(5, 20, 30), there(5, 310, 320), there(5, 110, 120), there(7, 110, 120)];
        assert_eq!(joined(slowest, elsewhere), [(5, 111), (5, 311), (6, 0)]);
        let late = vec![there(5, 110, 201)];
        assert_eq!(joined(vec![here(5, 100, 200)], late), [(5, 0)], "its reply had come before");
        let stayed = span(5, &[(Stage::Turn, 1), (Stage::Sent, 200)]);
        assert_eq!(joined(vec![stayed], vec![there(5, 10, 20)]), [(5, 0)], "it was never away");
    }

    #[test]
    fn the_most_that_64_shards_can_tell_is_joined_in_a_moment() {
        let slowest: Vec<Span> = (0..1_000).map(|tag| here(tag, 10, 900)).collect();
        let elsewhere = (0..262_144).rev().map(|tag| there(tag, 20, 30)).collect();
        let began = SystemClock::monotonic_nanos();
        let found = joined(slowest, elsewhere);
        let took = SystemClock::monotonic_nanos() - began;
        assert!(found.iter().all(|(_, handled)| *handled > 0));
        assert!(took < 3_000_000_000, "{took} ns");
    }
}
