//! Follows requests of one shard while a trace is on. Everything it holds is bounded.

use super::span::{STAGES, Span, Stage};
use super::{Traced, Wish};
use crate::connections::Connections;
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
    open: HashMap<Responder, Span, RandomState>,
    /// When a connection last brought something.
    heard: HashMap<ConnId, u64, RandomState>,
    /// Of the open ones, those whose record is not durable.
    in_log: Vec<Responder>,
    /// Those whose reply this round writes.
    replied: Vec<Responder>,
    /// Those whose reply the socket has, by connection.
    sending: HashMap<ConnId, Vec<Responder>, RandomState>,
    traced: Traced,
}

impl Tracer {
    pub(crate) fn new(wish: Wish, shard: ShardId) -> Self {
        Self {
            wish,
            shard,
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
        waiting.retain(|responder| {
            let Some(span) = self.open.get_mut(responder) else { return false };
            span.sends -= 1;
            if span.sends > 0 {
                return true;
            }
            span.set(Stage::Sent, now);
            let span = self.open.remove(responder).expect("it was just looked at");
            self.traced.finished(span, &self.wish);
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
        Some(self.open.entry(responder).insert_entry(Span::new(responder, subject)).into_mut())
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

    /// The round's replies were written, at `now`.
    pub(crate) fn written(&mut self, connections: &Connections, now: u64) {
        for responder in std::mem::take(&mut self.replied) {
            let Some(span) = self.open.get_mut(&responder) else { continue };
            span.set(Stage::Replied, now);
            match connections.sends_left(responder.conn) {
                0 => {
                    // Its connection is gone, or closing.
                    self.open.remove(&responder);
                }
                sends => {
                    span.sends = sends;
                    self.sending.entry(responder.conn).or_default().push(responder);
                }
            }
        }
    }
}

const _: () = assert!(STAGES == Stage::Sent as usize + 1, "every stage has a place");
