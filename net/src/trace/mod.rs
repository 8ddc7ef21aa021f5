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
        for span in &mut sum.slowest {
            if let Some(there) = sum.elsewhere.iter().find(|it| it.responder == span.responder) {
                span.join(there);
            }
        }
        sum
    }
}
