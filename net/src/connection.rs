//! One connection of the native protocol: bytes in, requests out; replies in, bytes out. Holds no socket and no clock.

mod results;

use crate::counters::Counters;
use crate::fault::Fault;
use crate::greeting::{Greeting, beyond_version, refuse_hello};
use crate::phase::Phase;
use crate::queued::Queued;
use crate::translate::{self, Tag, is_read, is_write};
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{ConnId, SessionId, ShardId};
use gristmill_base::limits::{
    CONNECTION_BYTES_MAX, CONNECTION_OUTPUT_BYTES_SLOW, CONNECTION_REQUESTS_MAX, FRAME_BYTES_MAX, FRAME_SECONDS_MAX,
    UNREAD_SECONDS_MAX, VALUE_BYTES_MAX,
};
use gristmill_core::request::{Answer, Operation, Refusal, Request, Responder};
use gristmill_wire::{
    CORRELATION_NONE, Deframer, Frame, FrameKind, OpCode, OpenFrame, Operation as WireOperation,
    PROTOCOL_VERSION_OLDEST, Request as WireRequest, Status,
};

/// Received bytes that may wait behind a frame that cannot be taken yet, before reading stops.
const BEHIND_BYTES_MAX: usize = 256 << 10;
/// Capacity of an output buffer that is kept for the next one.
const KEPT_BYTES: usize = 64 << 10;
/// Bytes that the socket is given at a time, so that it is seen whether the client takes any.
const PIECE_BYTES: usize = 256 << 10;
const UNREAD_NANOS_MAX: u64 = UNREAD_SECONDS_MAX * 1_000_000_000;
const FRAME_NANOS_MAX: u64 = FRAME_SECONDS_MAX * 1_000_000_000;
/// A client that has been told why it is closed has this long to take it.
const CLOSING_NANOS: u64 = 5_000_000_000;

/// What may be taken of connections now.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// So many inputs of bulk, give or take one operation.
    pub bulk: usize,
    /// Whether operations that write are taken at all.
    pub writes: bool,
}

impl Room {
    /// For everything.
    pub const ALL: Self = Self { bulk: usize::MAX, writes: true };
}

/// Why no more of a frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameEnd {
    /// Nothing is left of it.
    Whole,
    /// The client must first take results.
    Waits,
    /// It is bulk, and it is enough for this turn.
    Enough,
    /// It writes, and the shard takes no writes now.
    Held,
}

/// What the owner of the socket has to do for a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Send this buffer; it is not empty.
    pub send: Option<Vec<u8>>,
    /// Stop (`true`) or resume (`false`) reading.
    pub pause: Option<bool>,
    /// Close, after the send.
    pub close: bool,
}

/// One connection. Never panics on what a client sends. It holds at most two frames of input (one that is coming and the
/// rest of one that is taken in part) and [`BEHIND_BYTES_MAX`] behind them, the operations of its credit, and of output
/// [`gristmill_base::limits::CONNECTION_OUTPUT_BYTES_MAX`], one frame more and one piece.
#[derive(Debug)]
pub struct Connection {
    input: Deframer,
    /// Operations of a checked frame that wait until the client has taken its results. Empty most of the time.
    rest: Vec<u8>,
    /// How many bytes of it are taken.
    rest_taken: usize,
    /// The last look found no whole frame, and nothing has come since.
    partial: bool,
    /// Something came in or went out since the last tick.
    is_active: bool,
    desk: Desk,
}

/// Everything of a connection but its received bytes.
#[derive(Debug)]
struct Desk {
    conn: ConnId,
    shard: ShardId,
    phase: Phase,
    session: SessionId,
    /// Of the protocol, as hello said it.
    version: u16,
    /// Operations given to the shard and not answered yet, hello included.
    in_flight: u32,
    /// Their credit in bytes.
    in_flight_bytes: usize,
    /// Those of them that read state.
    reads_in_flight: usize,
    /// Bytes that the next reads are expected to bring: of the largest result of late. It starts at the largest value,
    /// so that what a client can have outstanding grows only as its results show how small they are.
    read_bytes: usize,
    /// What the connection itself says; written once a turn, behind the results of that turn.
    queued: Vec<Queued>,
    /// Frames that wait for the socket. All are whole where a turn has ended.
    output: Vec<u8>,
    /// The last of them, while results of a turn are added.
    open: OpenFrame,
    /// Bytes of `output` that the socket was given, piece by piece.
    output_taken: usize,
    /// Bytes of the buffer that the socket has; 0 while it has none.
    sending: usize,
    /// An empty buffer whose memory is used again.
    spare: Vec<u8>,
    /// The first fault that nobody was told of, and how many came after it.
    fault: Option<Box<Fault>>,
    /// When the unfinished frame began to come, or the connection, or its closing. `None` while nothing is waited for.
    since: Option<u64>,
    /// When a tick first saw the piece that the socket has. `None` while it has none, or no tick has seen it.
    stuck_since: Option<u64>,
    /// What the owner of the socket was told last.
    paused: bool,
    /// The last look ended at an operation that writes, when none were taken.
    is_held: bool,
}

impl Connection {
    /// A connection that was accepted at `now`, in nanoseconds of the monotonic clock.
    #[must_use]
    pub fn new(conn: ConnId, shard: ShardId, now: u64) -> Self {
        let desk = Desk {
            conn,
            shard,
            phase: Phase::Fresh,
            session: SessionId(0),
            version: PROTOCOL_VERSION_OLDEST,
            in_flight: 0,
            in_flight_bytes: 0,
            reads_in_flight: 0,
            read_bytes: VALUE_BYTES_MAX,
            queued: Vec::new(),
            output: Vec::new(),
            open: OpenFrame::default(),
            output_taken: 0,
            sending: 0,
            spare: Vec::new(),
            fault: None,
            since: Some(now),
            stuck_since: None,
            paused: false,
            is_held: false,
        };
        let input = Deframer::new(FrameKind::Requests);
        Self { input, rest: Vec::new(), rest_taken: 0, partial: true, is_active: true, desk }
    }

    /// Whether it has an operation that writes and was left here, because none were taken when it was looked at last.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.desk.is_held
    }

    /// Takes in received bytes.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.is_active = true;
        if self.desk.is_reading() {
            self.input.push(bytes);
            self.partial = false;
        }
    }

    /// Takes one frame, or the rest of one, if one is there and the credit is not used up, and adds its operations to
    /// `requests`. A frame is taken in part where its client must first take results, and where there is no `room` for its
    /// next operation; the rest waits here. Whether another look is worth it.
    pub fn take_frame(
        &mut self,
        now: u64,
        room: &mut Room,
        requests: &mut Vec<Request>,
        counters: &mut Counters,
    ) -> bool {
        let Self { input, rest, rest_taken, partial, desk, .. } = self;
        desk.is_held = false;
        if !desk.is_reading() {
            return false;
        }
        if desk.is_out_of_credit() {
            // The client cannot go on, so its time does not run.
            desk.since = None;
            return false;
        }
        if !rest.is_empty() {
            let frame = Frame { kind: FrameKind::Requests, body: &rest[*rest_taken..] };
            let Ok((bytes, end)) = desk.take_operations(frame, now, room, requests, counters) else { return false };
            *rest_taken += bytes;
            desk.is_held = end == FrameEnd::Held;
            if end == FrameEnd::Whole {
                *rest = Vec::new();
                *rest_taken = 0;
                desk.since = (input.waiting() > 0).then_some(now);
            }
            return matches!(end, FrameEnd::Whole | FrameEnd::Enough);
        }
        let taken = match input.next_frame() {
            Ok(Some(frame)) => {
                counters.frames += 1;
                let Ok((bytes, end)) = desk.take_operations(frame, now, room, requests, counters) else { return false };
                if end != FrameEnd::Whole {
                    // Checked before the rest is kept: what follows a list that is out of step is never carried out.
                    if let Some(Err(error)) = frame.requests().find(Result::is_err) {
                        desk.refuse_list(&error, now, counters);
                        return false;
                    }
                    *rest = frame.body[bytes..].to_vec();
                    desk.since = None;
                    desk.is_held = end == FrameEnd::Held;
                    return end == FrameEnd::Enough;
                }
                true
            }
            Ok(None) => {
                *partial = true;
                false
            }
            Err(error) => {
                counters.count_bad_frame(&error);
                desk.fail(error.status(), error.to_string(), now);
                return false;
            }
        };
        if desk.since.is_none() || (taken && desk.phase != Phase::Fresh) {
            desk.since = (input.waiting() > 0).then_some(now);
        }
        taken
    }

    /// Takes in the answer of the shard to the operation with this tag. `output_max`: waiting bytes of replies beyond which
    /// a read is answered with a refusal for capacity; a client whose other results go a frame beyond it is given up, and
    /// finds them again in its session.
    pub fn settle(&mut self, tag: u64, outcome: Result<Answer, Refusal>, output_max: usize, counters: &mut Counters) {
        let tag = Tag::unpack(tag);
        let desk = &mut self.desk;
        assert!(desk.in_flight > 0, "an operation is answered once");
        desk.in_flight -= 1;
        desk.in_flight_bytes -= tag.credit_bytes;
        if is_read(tag.code) {
            desk.reads_in_flight -= 1;
            if let Ok(answer) = &outcome {
                desk.read_bytes = translate::answer_bytes(answer).max(desk.read_bytes / 2);
            }
        }
        match outcome {
            Ok(Answer::Session(session, key)) if tag.code == OpCode::Hello => {
                if desk.phase == Phase::Greeting {
                    desk.phase = Phase::Open;
                    desk.session = session;
                    self.input.allow(FRAME_BYTES_MAX);
                }
                desk.queued.push(Queued::Welcome(tag.correlation, session, key));
            }
            outcome => {
                if tag.code == OpCode::Hello && desk.phase == Phase::Greeting {
                    desk.phase = Phase::Fresh;
                }
                let outcome = translate::in_version(desk.version, outcome);
                desk.write_outcome(tag, &outcome, output_max, counters);
            }
        }
    }

    /// The socket has sent its buffer, which comes back.
    pub fn sent(&mut self, buf: Vec<u8>) {
        self.is_active = true;
        self.desk.sending = 0;
        self.desk.stuck_since = None;
        if buf.capacity() <= KEPT_BYTES && buf.capacity() > self.desk.spare.capacity() {
            self.desk.spare = buf;
        }
    }

    /// Completes what is written and says what is to be done. `output_max`: as for [`Self::settle`]. `stop`: nothing more
    /// is taken from any client.
    pub fn actions(&mut self, greeting: &Greeting, output_max: usize, stop: bool, counters: &mut Counters) -> Actions {
        let desk = &mut self.desk;
        desk.write_rest(greeting);
        let mut actions = Actions::default();
        if desk.phase == Phase::Closed {
            return actions;
        }
        if desk.output_bytes() > output_max + FRAME_BYTES_MAX {
            counters.not_reading += 1;
            desk.abandon();
            return Actions { close: true, ..actions };
        }
        if desk.sending == 0 && !desk.output.is_empty() {
            let buf = desk.take_piece();
            desk.sending = buf.len();
            counters.bytes_out += buf.len() as u64;
            actions.send = Some(buf);
        }
        if desk.phase == Phase::Closing && desk.output.is_empty() {
            desk.abandon();
            actions.close = true;
            return actions;
        }
        let is_out_of_credit = desk.is_out_of_credit();
        let pause = stop || (is_out_of_credit && self.waiting() > 0) || !self.rest.is_empty() || self.is_behind();
        let desk = &mut self.desk;
        if pause != desk.paused && desk.phase != Phase::Closing {
            desk.paused = pause;
            actions.pause = Some(pause);
        }
        actions
    }

    /// Whether whole frames, and more than a little, wait to be taken.
    fn is_behind(&self) -> bool {
        self.input.waiting() > BEHIND_BYTES_MAX && !self.partial
    }

    /// Gives back the memory of empty buffers: of those that are at rest there may be many.
    fn give_back(&mut self) {
        self.input.give_back();
        let desk = &mut self.desk;
        desk.spare = Vec::new();
        if desk.output.is_empty() {
            desk.output = Vec::new();
        }
        if desk.queued.is_empty() {
            desk.queued = Vec::new();
        }
    }

    /// Bytes of buffers in which nothing waits, kept for what comes next.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let Self { input, desk, .. } = self;
        let (output, queued) = (desk.output.capacity() - desk.output.len(), desk.queued.capacity() - desk.queued.len());
        input.capacity() - input.waiting() + output + desk.spare.capacity() + queued * size_of::<Queued>()
    }

    /// Ends a connection whose client takes too long over a frame, over hello, or over its last words. Whether there is
    /// something to be done for it now.
    pub fn tick(&mut self, now: u64, counters: &mut Counters) -> bool {
        if !std::mem::replace(&mut self.is_active, false) {
            self.give_back();
        }
        let desk = &mut self.desk;
        if desk.since.is_none() && desk.phase == Phase::Fresh {
            desk.since = Some(now);
        }
        if desk.sending > 0 && desk.is_reading() {
            let stuck_since = *desk.stuck_since.get_or_insert(now);
            if now.saturating_sub(stuck_since) >= UNREAD_NANOS_MAX {
                counters.not_reading += 1;
                // Without a last word: the piece that the socket has may end inside a frame.
                desk.phase = Phase::Closing;
                desk.since = Some(now);
                desk.forget_output();
                return true;
            }
        }
        let is_reading = desk.is_reading();
        // Of a whole frame the client has done its part: it is the server that takes nothing now.
        let _ = desk.since.take_if(|since| is_reading && *since + FRAME_NANOS_MAX <= now && self.input.has_frame());
        let Some(waited) = desk.since.map(|since| now.saturating_sub(since)) else { return false };
        match desk.phase {
            Phase::Closed => false,
            Phase::Closing if waited >= CLOSING_NANOS => {
                // The next actions close it without a further word.
                desk.forget_output();
                true
            }
            Phase::Fresh if waited >= FRAME_NANOS_MAX => {
                counters.too_slow += 1;
                let message = format!("no hello within {FRAME_SECONDS_MAX} seconds");
                desk.fail(Status::Unauthenticated, message, now);
                true
            }
            Phase::Greeting | Phase::Open if waited >= FRAME_NANOS_MAX => {
                counters.too_slow += 1;
                let found = self.input.waiting();
                let message = format!(
                    "a frame, of which {found} bytes came, was not complete within {FRAME_SECONDS_MAX} seconds"
                );
                desk.fail(Status::Malformed, message, now);
                true
            }
            _ => false,
        }
    }

    /// Ends the connection with a last word.
    pub fn fail(&mut self, status: Status, message: &str, now: u64) {
        self.desk.fail(status, message.to_owned(), now);
    }

    /// A request that failed by no fault of the client, since the last call.
    pub fn take_fault(&mut self) -> Option<Box<Fault>> {
        self.desk.fault.take()
    }

    /// Received bytes that no frame was taken from yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.input.waiting() + self.rest.len() - self.rest_taken
    }

    /// Bytes of results that the client has not taken yet, as far as they are written.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.desk.output_bytes()
    }

    /// Sends until all that is written has gone, as far as the socket takes a buffer whole; 0 if nothing is written.
    #[must_use]
    pub fn sends_left(&self) -> u8 {
        u8::from(self.desk.sending > 0) + u8::from(!self.desk.output.is_empty())
    }

    /// Operations that the shard has not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.desk.in_flight
    }

    /// Their credit in bytes.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.desk.in_flight_bytes
    }

    /// Whether the client has begun a frame and not finished it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.desk.is_reading() && self.waiting() > 0
    }

    /// Whether all that was asked is answered and handed to the socket, and sent.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.desk.in_flight == 0 && self.desk.queued.is_empty() && self.output_bytes() == 0
    }
}

impl Desk {
    fn is_reading(&self) -> bool {
        !matches!(self.phase, Phase::Closing | Phase::Closed)
    }

    /// Whether results must go out before more is taken. Never while nothing is in flight and nothing waits.
    fn is_out_of_credit(&self) -> bool {
        self.in_flight >= CONNECTION_REQUESTS_MAX
            || self.in_flight_bytes >= CONNECTION_BYTES_MAX
            || self.output_bytes() >= CONNECTION_OUTPUT_BYTES_SLOW
    }

    /// Whether a read must wait until results have gone: its result, with those of the reads in flight, could be more
    /// than may wait. Never while no read is in flight and less than a
    /// piece waits, so that one always goes.
    fn is_out_of_room(&self) -> bool {
        let unread = self.output_bytes();
        (unread >= PIECE_BYTES || self.reads_in_flight > 0)
            && unread + (self.reads_in_flight + 1).saturating_mul(self.read_bytes) > CONNECTION_OUTPUT_BYTES_SLOW
    }

    /// Bytes of results that the client has not taken yet.
    fn output_bytes(&self) -> usize {
        self.output.len() - self.output_taken + self.sending
    }

    /// Takes the operations of a frame until one must wait: the bytes of those taken, and why no more were.
    fn take_operations(
        &mut self,
        frame: Frame<'_>,
        now: u64,
        room: &mut Room,
        requests: &mut Vec<Request>,
        counters: &mut Counters,
    ) -> Result<(usize, FrameEnd), ()> {
        let mut bytes = 0;
        for request in frame.requests() {
            match request {
                Ok(request) => {
                    let read = OpCode::from_code(request.code).is_some_and(is_read);
                    if read && self.is_out_of_room() {
                        return Ok((bytes, FrameEnd::Waits));
                    }
                    if !room.writes && OpCode::from_code(request.code).is_some_and(is_write) {
                        return Ok((bytes, FrameEnd::Held));
                    }
                    if request.class.is_bulk() && room.bulk == 0 {
                        return Ok((bytes, FrameEnd::Enough));
                    }
                    bytes += request.credit_bytes();
                    let before = requests.len();
                    self.take(request, requests, counters);
                    if let Some(request) = requests.get(before).filter(|request| request.class.is_bulk()) {
                        room.bulk = room.bulk.saturating_sub(request.operation.inputs());
                    }
                }
                Err(error) => {
                    self.refuse_list(&error, now, counters);
                    return Err(());
                }
            }
        }
        Ok((bytes, FrameEnd::Whole))
    }

    fn refuse_list(&mut self, error: &DecodeError, now: u64, counters: &mut Counters) {
        counters.bad_list += 1;
        self.fail(Status::of_decode_error(error), format!("a frame is out of step: {error}"), now);
    }

    /// Takes one operation of a frame.
    fn take(&mut self, wire: WireRequest<'_>, requests: &mut Vec<Request>, counters: &mut Counters) {
        counters.operations += 1;
        if self.phase == Phase::Open
            && let Some(common) = wire.common()
        {
            let (code, operation) = translate::common(&common);
            return self.hand_on(&wire, code, operation, requests);
        }
        let correlation = wire.correlation;
        let operation = match wire.operation() {
            Ok(operation) => operation,
            Err(refusal) => {
                counters.refused += 1;
                self.queued.push(Queued::Refused(correlation, refusal.status, refusal.message));
                return;
            }
        };
        let refusal = match (&operation, self.phase) {
            (WireOperation::Hello(hello), Phase::Fresh) => refuse_hello(hello),
            (WireOperation::Hello(_), _) => Some((Status::BadRequest, "hello was said before".to_owned())),
            (_, Phase::Open) => beyond_version(operation.code(), self.version),
            (_, Phase::Greeting) => Some((Status::Unauthenticated, "hello has no result yet".to_owned())),
            _ => Some((Status::Unauthenticated, "hello comes first".to_owned())),
        };
        if let Some((status, message)) = refusal {
            counters.refused += 1;
            self.queued.push(Queued::Refused(correlation, status, message));
            return;
        }
        let request = match &operation {
            WireOperation::Ping => return self.queued.push(Queued::Pong(correlation)),
            WireOperation::Hello(hello) => {
                self.phase = Phase::Greeting;
                self.session = hello.session;
                self.version = hello.version().unwrap_or(PROTOCOL_VERSION_OLDEST);
                Operation::OpenSession { key: hello.key }
            }
            _ => translate::operation(&operation).expect("all others are for the shard"),
        };
        self.hand_on(&wire, operation.code(), request, requests);
    }

    /// Hands an operation to the shard.
    fn hand_on(&mut self, wire: &WireRequest<'_>, code: OpCode, operation: Operation, requests: &mut Vec<Request>) {
        let tag = Tag { correlation: wire.correlation, code, credit_bytes: wire.credit_bytes() };
        self.in_flight += 1;
        self.reads_in_flight += usize::from(is_read(tag.code));
        self.in_flight_bytes += tag.credit_bytes;
        let responder = Responder { shard: self.shard, conn: self.conn, tag: tag.pack() };
        requests.push(Request { responder, session: self.session, class: wire.class, operation });
    }

    /// Ends the connection with a last word to the client.
    fn fail(&mut self, status: Status, message: String, now: u64) {
        if self.is_reading() {
            self.phase = Phase::Closing;
            self.since = Some(now);
            self.queued.push(Queued::Refused(CORRELATION_NONE, status, message));
        }
    }

    /// Nothing more is said or heard.
    fn abandon(&mut self) {
        self.phase = Phase::Closed;
        self.since = None;
        self.forget_output();
    }

    fn forget_output(&mut self) {
        self.output = Vec::new();
        self.open = OpenFrame::default();
        self.output_taken = 0;
        self.queued = Vec::new();
    }
}
