//! Follows requests of one shard while a trace is on. Everything it holds is bounded.

use super::span::{STAGES, Span, Stage};
use super::{Traced, Wish};
use ahash::RandomState;
use gristmill_base::env::NetEvent;
use gristmill_base::ids::{ConnId, ShardId};
use gristmill_core::request::{Operation, Responder};
use gristmill_core::shard::Subject;
use gristmill_core::{Inbox, Item, Outbox};
use std::collections::HashMap;

/// Requests that are followed at a time; others meanwhile are counted and let go.
const OPEN_MAX: usize = 4_096;
/// Requests of other shards' clients whose stops are kept for the shard of the client.
const ELSEWHERE_MAX: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tracer {
    wish: Wish,
    shard: ShardId,
    /// Requests that were followed so far.
    begun: u64,
    open: HashMap<Responder, Span, RandomState>,
    /// When a connection last brought something.
    heard: HashMap<ConnId, u64, RandomState>,
    /// Of the open ones, those whose record is not durable.
    in_log: Vec<Responder>,
    /// Those whose reply this round writes.
    replied: Vec<Responder>,
    /// Those whose reply the socket has, by connection.
    sending: HashMap<ConnId, Vec<Sending>, RandomState>,
    traced: Traced,
}

/// A reply on its way.
#[derive(Debug)]
struct Sending {
    responder: Responder,
    /// Of its span.
    number: u64,
    /// Sends of its connection until it is among them; at least 1.
    left: u8,
}

impl Tracer {
    pub(crate) fn new(wish: Wish, shard: ShardId) -> Self {
        Self {
            wish,
            shard,
            begun: 0,
            open: HashMap::default(),
            heard: HashMap::default(),
            in_log: Vec::new(),
            replied: Vec::new(),
            sending: HashMap::default(),
            traced: Traced::default(),
        }
    }

    /// Whether its time is up.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.wish.until_nanos
    }

    /// What it has found.
    pub(crate) fn end(mut self) -> Traced {
        self.traced.unfinished = self.open.len() as u64;
        self.traced
    }

    /// An event of the network, at the start of the round.
    #[cold]
    pub(crate) fn heard(&mut self, event: &NetEvent<'_>, now: u64) {
        match event {
            NetEvent::Received { conn, .. } => drop(self.heard.insert(*conn, now)),
            NetEvent::Sent { conn, .. } => self.sent(*conn, now),
            NetEvent::Closed { conn } => {
                self.heard.remove(conn);
                self.sending.remove(conn);
                let shard = self.shard;
                self.open.retain(|responder, _| responder.shard != shard || responder.conn != *conn);
            }
            NetEvent::Accepted { .. } => {}
        }
    }

    fn sent(&mut self, conn: ConnId, now: u64) {
        let Some(mut waiting) = self.sending.remove(&conn) else { return };
        waiting.retain_mut(|reply| {
            reply.left -= 1;
            if reply.left > 0 {
                return true;
            }
            // Another request may have its name by now.
            if self.open.get(&reply.responder).is_some_and(|span| span.number == reply.number)
                && let Some(mut span) = self.open.remove(&reply.responder)
            {
                span.set(Stage::Sent, now);
                self.traced.finished(span, &self.wish);
            }
            false
        });
        if !waiting.is_empty() {
            self.sending.insert(conn, waiting);
        }
    }

    /// Before the turn, which begins at `now`: what it will take in.
    pub(crate) fn taken(&mut self, inbox: &Inbox, now: u64, subject: impl Fn(&Operation) -> Subject) {
        self.traced.requests += inbox.requests.len() as u64;
        for request in &inbox.requests {
            let heard = self.heard.get(&request.responder.conn).copied().unwrap_or(now);
            if let Some(span) = self.begin(request.responder, &request.operation, &subject) {
                span.set(Stage::Received, heard);
                span.set(Stage::Turn, now);
            }
        }
        for item in inbox.parcels.iter().flat_map(|(_, parcel)| parcel) {
            match item {
                Item::Request(request) => {
                    if let Some(span) = self.begin(request.responder, &request.operation, &subject) {
                        span.set(Stage::Turn, now);
                    }
                }
                Item::Reply(reply) => {
                    if let Some(span) = self.open.get_mut(&reply.responder) {
                        span.set(Stage::Back, now);
                    }
                }
                _ => {}
            }
        }
    }

    /// Follows a request if it is one of those that every shard would follow.
    fn begin(
        &mut self,
        responder: Responder,
        operation: &Operation,
        subject: &impl Fn(&Operation) -> Subject,
    ) -> Option<&mut Span> {
        if !self.wish.is_sampled(responder) {
            return None;
        }
        if self.open.len() >= OPEN_MAX {
            self.traced.no_room += 1;
            return None;
        }
        let subject = subject(operation);
        if self.wish.app.as_ref().is_some_and(|app| *app != subject.app) {
            return None;
        }
        self.begun += 1;
        if let Some(before) = self.open.insert(responder, Span::new(responder, subject, self.begun))
            && before.at(Stage::Replied) > 0
        {
            // Its client had the reply before it was seen that the socket had taken it.
            self.traced.finished(before, &self.wish);
        }
        self.open.get_mut(&responder)
    }

    /// After the turn, before anything of it is done. It ended at `now`; `round` is when its completions were seen.
    pub(crate) fn turned(&mut self, outbox: &mut Outbox, now: u64, round: u64) {
        for (responder, lsn) in outbox.trace.waiting.drain(..) {
            if let Some(span) = self.open.get_mut(&responder) {
                span.set(Stage::Handled, now);
                span.lsn = lsn;
                self.in_log.push(responder);
            }
        }
        let log = outbox.trace.log;
        self.in_log.retain(|responder| {
            let Some(span) = self.open.get_mut(responder) else { return false };
            if span.lsn <= log.written {
                span.set(Stage::Written, round);
            }
            if span.lsn <= log.durable {
                span.set(Stage::Durable, round);
            }
            span.lsn > log.durable
        });
        for reply in &outbox.replies {
            if let Some(span) = self.open.get_mut(&reply.responder) {
                span.answered(now);
                self.replied.push(reply.responder);
            }
        }
        for item in outbox.parcels.iter().flat_map(|(_, parcel)| parcel) {
            match item {
                Item::Request(request) => {
                    if let Some(span) = self.open.get_mut(&request.responder) {
                        span.set(Stage::Away, now);
                    }
                }
                Item::Reply(reply) if reply.responder.shard != self.shard => {
                    if let Some(mut span) = self.open.remove(&reply.responder) {
                        span.answered(now);
                        span.set(Stage::Replied, now);
                        self.traced.elsewhere(span, &self.wish, ELSEWHERE_MAX);
                    }
                }
                _ => {}
            }
        }
    }

    /// What the turn asked for was handed to the device, at `now`.
    pub(crate) fn submitted(&mut self, outbox: &Outbox, now: u64) {
        let submitted = outbox.trace.log.submitted;
        for responder in &self.in_log {
            if let Some(span) = self.open.get_mut(responder)
                && span.lsn <= submitted
            {
                span.set(Stage::Submitted, now);
            }
        }
    }

    /// The round's replies were written, at `now`. `sends_left` says of a connection how many sends it takes until all
    /// that is written has gone; 0 if it is gone itself, or closing.
    pub(crate) fn written(&mut self, sends_left: impl Fn(ConnId) -> u8, now: u64) {
        for responder in std::mem::take(&mut self.replied) {
            let Some(span) = self.open.get_mut(&responder) else { continue };
            span.set(Stage::Replied, now);
            let number = span.number;
            match sends_left(responder.conn) {
                0 => drop(self.open.remove(&responder)),
                left => self.sending.entry(responder.conn).or_default().push(Sending { responder, number, left }),
            }
        }
    }
}

const _: () = assert!(STAGES == Stage::Sent as usize + 1, "every stage has a place");

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::SessionId;
    use gristmill_core::request::{Answer, Reply, Request};

    const CONN: ConnId = ConnId(7);

    fn responder(tag: u64) -> Responder {
        Responder { shard: ShardId(0), conn: CONN, tag }
    }

    struct Bench {
        tracer: Tracer,
        /// What the socket has to send.
        sends: u8,
        now: u64,
    }

    impl Bench {
        fn new() -> Self {
            let wish = Wish { app: None, slower_nanos: 0, one_of: 1, slowest: 100, until_nanos: u64::MAX };
            Self { tracer: Tracer::new(wish, ShardId(0)), sends: 0, now: 0 }
        }

        /// A round that takes a request in and answers it if `answered`.
        fn round(&mut self, taken: &[u64], answered: &[u64]) {
            self.now += 10;
            let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
            inbox.requests.extend(taken.iter().map(|tag| Request {
                responder: responder(*tag),
                session: SessionId(1),
                class: InputClass::Live,
                operation: Operation::Status,
            }));
            self.tracer.taken(&inbox, self.now, |_| Subject::default());
            let reply = |tag: &u64| Reply { responder: responder(*tag), outcome: Ok(Answer::Done) };
            outbox.replies.extend(answered.iter().map(reply));
            self.tracer.turned(&mut outbox, self.now + 1, self.now);
            self.tracer.submitted(&outbox, self.now + 2);
            self.sends = if answered.is_empty() { self.sends } else { (self.sends + 1).min(2) };
            let sends = self.sends;
            self.tracer.written(|_| sends, self.now + 3);
        }

        fn sent(&mut self) {
            self.sends -= 1;
            self.now += 10;
            self.tracer.heard(&NetEvent::Sent { conn: CONN, buf: Vec::new() }, self.now);
        }
    }

    #[test]
    fn a_name_may_be_used_again_before_the_socket_has_said_that_it_took_the_reply() {
        let mut bench = Bench::new();
        bench.round(&[5], &[5]);
        bench.round(&[5], &[]);
        bench.sent();
        assert_eq!(bench.tracer.traced.total.len(), 1, "the first one ended with its reply");
        assert_eq!(bench.tracer.open.len(), 1, "what was sent is not the second one's reply");
        bench.round(&[], &[5]);
        bench.sent();
        let found = bench.tracer.end();
        assert_eq!((found.total.len(), found.unfinished, found.requests), (2, 0, 2));
    }

    #[test]
    fn replies_end_with_the_send_that_takes_them_along() {
        let mut bench = Bench::new();
        bench.round(&[1, 2, 3], &[1]);
        bench.round(&[], &[2]);
        bench.round(&[], &[3]);
        bench.sent();
        assert_eq!(bench.tracer.traced.total.len(), 1);
        bench.sent();
        assert_eq!(bench.tracer.traced.total.len(), 3, "both waited for the same send");
        assert!(bench.tracer.sending.is_empty() && bench.tracer.open.is_empty());
    }
}
