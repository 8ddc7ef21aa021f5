//! The way of simulated clients to the shards over the network: the native protocol, over connections that bring bytes in
//! pieces and are cut at any byte. A client knows nothing of it: it hands over requests and hears replies, or that it was
//! cut off.

mod convert;

use crate::net::SimClient;
use crate::rng::SimRng;
use convert::{from_wire, with_wire};
use gristmill_base::ids::{ConnId, SessionId, SessionKey};
use gristmill_base::limits::FRAME_BYTES_MAX;
use gristmill_base::sometimes::reached;
use gristmill_core::request::{Answer, Operation, Reply, Request, Responder};
use gristmill_wire::{
    CORRELATION_NONE, Deframer, FrameKind, Hello, OpCode, Operation as WireOperation, Reply as WireReply, RequestWriter,
};
use std::collections::{BTreeMap, VecDeque};

/// Bytes in one direction within which a connection that is to be cut is cut.
const CUT_BYTES_MAX: u64 = 4_000;

/// All connections of all clients.
pub struct Links {
    rng: SimRng,
    /// Connections in a hundred that will be cut.
    cuts: u64,
    /// Longest wait before what a client has to say is written, nanoseconds.
    delay_nanos: u64,
    links: Vec<Link>,
    /// The keys that came with sessions.
    keys: BTreeMap<SessionId, SessionKey>,
}

/// One connection.
struct Link {
    /// The client's name for all that it has open at this time.
    conn: ConnId,
    door: usize,
    /// 0 until hello was answered, where a new one was asked for.
    session: SessionId,
    end: SimClient,
    input: Deframer,
    is_open: bool,
    /// Operations in flight: code and the client's tag. Hello without a tag was said by the link itself.
    sent: BTreeMap<u32, (OpCode, Option<Responder>)>,
    next: u32,
    waiting: VecDeque<Request>,
    due: u64,
}

/// What came of a look at the connections.
#[derive(Default)]
pub struct Heard {
    /// Replies, as if the shards had given them.
    pub replies: Vec<Reply>,
    /// Clients' names of connections that are over.
    pub cut: Vec<ConnId>,
}

impl Links {
    /// None yet. `cuts` of a hundred connections will be cut; what is said waits up to `delay_nanos`.
    #[must_use]
    pub fn new(cuts: u64, delay_nanos: u64, rng: SimRng) -> Self {
        Self { rng, cuts, delay_nanos, links: Vec::new(), keys: BTreeMap::new() }
    }

    /// No connection is cut any more, but those that are to be already.
    pub fn calm(&mut self) {
        self.cuts = 0;
    }

    /// The machine went down, and every connection with it.
    pub fn cut_all(&mut self) {
        self.links.clear();
    }

    /// What each connection waits for, in words.
    #[must_use]
    pub fn waits(&self) -> String {
        let link = |link: &Link| {
            let Link { conn, door, session, is_open, due, .. } = link;
            let (waiting, sent) = (link.waiting.len(), link.sent.keys().take(8).collect::<Vec<_>>());
            let input = link.input.waiting();
            format!(
                "{conn} door {door} session {session} open {is_open}: {waiting} wait until {due}, sent {sent:?}, {input} bytes"
            )
        };
        self.links.iter().map(link).collect::<Vec<_>>().join("; ")
    }

    /// Whether everything that was sent over a connection that is still there was answered.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.links.iter().all(|link| link.sent.is_empty() && link.waiting.is_empty())
    }

    /// When something that was handed over must be written, nanoseconds.
    #[must_use]
    pub fn due(&self) -> u64 {
        let ready = self.links.iter().filter(|link| link.is_open && !link.waiting.is_empty());
        ready.map(|link| link.due).min().unwrap_or(u64::MAX)
    }

    /// Takes a request of a client to the door of a core, whose network `connect` reaches.
    pub fn request(&mut self, now: u64, door: usize, request: Request, connect: impl FnOnce() -> SimClient) {
        let conn = request.responder.conn;
        // A client that has a new name for its connections has left the old ones.
        self.links.retain(|link| link.conn == conn || link.conn.0 >> 32 != conn.0 >> 32);
        let session = request.session;
        if let Operation::OpenSession { key } = request.operation {
            self.open(conn, door, session, key, Some(request.responder), connect());
            return;
        }
        let is_that = |link: &Link| link.conn == conn && link.door == door && link.session == session;
        let at = self.links.iter().position(is_that).unwrap_or_else(|| {
            let key = self.keys.get(&session).copied().unwrap_or_default();
            self.open(conn, door, session, key, None, connect());
            self.links.len() - 1
        });
        let link = &mut self.links[at];
        if link.waiting.is_empty() {
            link.due = now + self.rng.between(0, self.delay_nanos);
        }
        link.waiting.push_back(request);
    }

    /// Opens a connection and says hello.
    fn open(
        &mut self,
        conn: ConnId,
        door: usize,
        session: SessionId,
        key: SessionKey,
        responder: Option<Responder>,
        mut end: SimClient,
    ) {
        if self.rng.below(100) < self.cuts {
            let bytes = self.rng.below(CUT_BYTES_MAX);
            if self.rng.below(2) == 0 { end.cut_to_shard_after(bytes) } else { end.cut_to_client_after(bytes) }
        }
        let mut bytes = Vec::new();
        let hello = Hello { session, key, ..Hello::new("sim") };
        RequestWriter::new(&mut bytes).push(0, &WireOperation::Hello(hello)).expect("hello is short");
        end.send(&bytes);
        let mut input = Deframer::new(FrameKind::Results);
        input.allow(FRAME_BYTES_MAX);
        self.links.push(Link {
            conn,
            door,
            session,
            end,
            input,
            is_open: false,
            sent: BTreeMap::from([(0, (OpCode::Hello, responder))]),
            next: 1,
            waiting: VecDeque::new(),
            due: 0,
        });
    }

    /// Reads and writes whatever can be.
    ///
    /// # Errors
    /// Bytes that break the protocol.
    pub fn pump(&mut self, now: u64) -> Result<Heard, String> {
        let mut heard = Heard::default();
        let (rng, keys) = (&mut self.rng, &mut self.keys);
        let mut stays = Vec::with_capacity(self.links.len());
        for mut link in self.links.drain(..) {
            let is_good = link.read(keys, &mut heard.replies)?;
            if link.end.is_over() {
                reached("connection over the network cut");
                heard.cut.push(link.conn);
            } else if is_good {
                link.write(now, rng);
                stays.push(link);
            }
        }
        self.links = stays;
        Ok(heard)
    }
}

impl Link {
    /// Takes what has arrived. Whether the connection is of use any more.
    fn read(&mut self, keys: &mut BTreeMap<SessionId, SessionKey>, replies: &mut Vec<Reply>) -> Result<bool, String> {
        let bytes = self.end.receive();
        self.input.push(&bytes);
        loop {
            let frame = self.input.next_frame().map_err(|error| format!("net: a client got no frame: {error}"))?;
            let Some(frame) = frame else { return Ok(true) };
            for answer in frame.results() {
                let answer = answer.map_err(|error| format!("net: a client got a bad result: {error}"))?;
                if answer.correlation == CORRELATION_NONE {
                    let words = String::from_utf8_lossy(answer.body).into_owned();
                    return Err(format!("net: the server gave up a good client: {}: {words}", answer.status));
                }
                let Some((code, responder)) = self.sent.remove(&answer.correlation) else {
                    return Err(format!("P2: request {} of a connection was answered twice", answer.correlation));
                };
                let outcome =
                    answer.outcome(code).map_err(|error| format!("net: the result of {code:?} is bad: {error}"))?;
                if let Ok(WireReply::Hello(hello)) = &outcome {
                    (self.session, self.is_open) = (hello.session, true);
                    keys.insert(hello.session, hello.key);
                    reached("hello over the network");
                    let outcome = Ok(Answer::Session(hello.session, hello.key));
                    replies.extend(responder.map(|responder| Reply { responder, outcome }));
                    continue;
                }
                let outcome = from_wire(code, outcome)?;
                match responder {
                    Some(responder) => replies.push(Reply { responder, outcome }),
                    None => {
                        return Err(format!("P2: hello with the key of session {} failed: {outcome:?}", self.session));
                    }
                }
                if code == OpCode::Hello {
                    return Ok(false);
                }
            }
        }
    }

    /// Writes some of what waits, as one frame.
    fn write(&mut self, now: u64, rng: &mut SimRng) {
        if !self.is_open || self.waiting.is_empty() || now < self.due {
            return;
        }
        let count = rng.between(1, self.waiting.len() as u64) as usize;
        let mut bytes = Vec::new();
        let mut writer = RequestWriter::new(&mut bytes);
        for request in self.waiting.drain(..count) {
            let correlation = self.next;
            self.next += 1;
            let code = with_wire(&request.operation, |operation| {
                writer.push_of(request.class, correlation, &operation).expect("workloads keep to the limits");
                operation.code()
            });
            self.sent.insert(correlation, (code, Some(request.responder)));
        }
        writer.finish();
        if count > 1 {
            reached("several operations in a frame");
        }
        self.end.send(&bytes);
    }
}
