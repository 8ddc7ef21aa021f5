//! One connection fed with bytes, good and bad, in pieces of every size.

mod support;

use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId};
use gristmill_base::limits::{
    CONNECTION_BYTES_MAX, CONNECTION_OUTPUT_BYTES_MAX, CONNECTION_OUTPUT_BYTES_SLOW, CONNECTION_REQUESTS_MAX,
    FRAME_BYTES_BEFORE_HELLO, FRAME_SECONDS_MAX,
};
use gristmill_core::request::{Answer, Code, Operation, Refusal, Request};
use gristmill_net::connection::{Actions, Connection, Room};
use gristmill_net::counters::Counters;
use gristmill_wire::{
    CORRELATION_NONE, FRAME_HEADER_BYTES, Frame, FrameKind, Hello, OpCode, Operation as Wire, Status,
};
use support::{Seen, frame, get, greeting, hello, put, results};

const SECOND: u64 = 1_000_000_000;

/// A connection with a clock and a shard that answers when it is told to.
struct Bench {
    connection: Connection,
    counters: Counters,
    now: u64,
    /// Operations that the shard has and has not answered.
    requests: Vec<Request>,
    /// Everything sent to the client.
    sent: Vec<u8>,
    paused: bool,
    closed: bool,
}

impl Bench {
    fn new() -> Self {
        Self {
            connection: Connection::new(ConnId(9), ShardId(0), 0),
            counters: Counters::default(),
            now: 0,
            requests: Vec::new(),
            sent: Vec::new(),
            paused: false,
            closed: false,
        }
    }

    /// A connection after hello, of whose results nothing is known.
    fn fresh() -> Self {
        let mut bench = Self::new();
        bench.push(&frame(&[(1, hello())]));
        bench.answer();
        assert_eq!(bench.take_results(OpCode::Hello), [Seen { correlation: 1, status: Status::Ok, body: vec![] }]);
        bench
    }

    /// A connection whose results have been small, so that many reads are taken together.
    fn open() -> Self {
        let mut bench = Self::fresh();
        for _ in 0..24 {
            bench.push(&frame(&[(1, get(b"k"))]));
            bench.answer();
        }
        assert_eq!(bench.take_results(OpCode::Get).len(), 24);
        bench
    }

    fn push(&mut self, bytes: &[u8]) {
        self.connection.receive(bytes);
        self.look();
    }

    fn look(&mut self) {
        while self.connection.take_frame(self.now, &mut { Room::ALL }, &mut self.requests, &mut self.counters) {}
        self.act(true);
    }

    /// Does the actions; with `sends` the client reads what it is sent.
    fn act(&mut self, sends: bool) {
        loop {
            let Actions { send, pause, close } =
                self.connection.actions(&greeting(), CONNECTION_OUTPUT_BYTES_MAX, false, &mut self.counters);
            self.paused = pause.unwrap_or(self.paused);
            self.closed |= close;
            let Some(mut buf) = send else { return };
            self.sent.extend_from_slice(&buf);
            if !sends {
                return;
            }
            buf.clear();
            self.connection.sent(buf);
        }
    }

    /// The shard answers one operation.
    fn settle(&mut self, tag: u64, outcome: Result<Answer, Refusal>) {
        self.connection.settle(tag, outcome, CONNECTION_OUTPUT_BYTES_MAX, &mut self.counters);
    }

    /// The shard answers everything.
    fn answer(&mut self) {
        for request in std::mem::take(&mut self.requests) {
            let answer = match request.operation {
                Operation::OpenSession { .. } => Answer::Session(SessionId(65), SessionKey([9; 16])),
                Operation::Get { key, .. } => Answer::Value(Some(key.into())),
                _ => Answer::Done,
            };
            self.settle(request.responder.tag, Ok(answer));
        }
        self.look();
    }

    fn take_results(&mut self, code: OpCode) -> Vec<Seen> {
        results(&std::mem::take(&mut self.sent), code).0
    }

    /// Correlation, status and length of the body of each result whose frame has come whole.
    fn take_whole_results(&mut self) -> Vec<(u32, Status, usize)> {
        let (mut seen, mut at) = (Vec::new(), 0);
        while let Ok(Some((frame, bytes))) = Frame::split(&self.sent[at..], FrameKind::Results, usize::MAX) {
            at += bytes;
            let results = frame.results().map(|it| it.expect("a whole result"));
            seen.extend(results.map(|it| (it.correlation, it.status, it.body.len())));
        }
        self.sent.drain(..at);
        seen
    }

    /// The last word before a close.
    fn last_word(&mut self) -> (Status, String) {
        assert!(self.closed, "the connection is closed");
        let seen = self.take_results(OpCode::Get).pop().expect("a last word");
        assert_eq!(seen.correlation, CORRELATION_NONE);
        (seen.status, String::from_utf8(seen.body).expect("a text"))
    }
}

fn ok(correlation: u32, body: &[u8]) -> Seen {
    Seen { correlation, status: Status::Ok, body: body.to_vec() }
}

#[test]
fn every_frame_may_be_cut_at_every_byte() {
    let first = frame(&[(1, hello())]);
    let second = frame(&[(2, get(b"a")), (3, put(1, b"k", b"v")), (4, Wire::Ping), (5, get(b"b"))]);
    for cut in 0..=first.len() {
        let mut bench = Bench::new();
        bench.push(&first[..cut]);
        bench.push(&first[cut..]);
        assert_eq!(bench.requests.len(), 1, "hello cut at {cut}");
    }
    for cut in 0..=second.len() {
        let mut bench = Bench::open();
        bench.push(&second[..cut]);
        assert_eq!(bench.requests.len(), if cut < second.len() { 0 } else { 3 }, "cut at {cut}");
        assert_eq!(bench.connection.is_cut(), cut > 0 && cut < second.len());
        bench.push(&second[cut..]);
        assert!(bench.requests.iter().all(|request| request.session == SessionId(65)));
        bench.answer();
        assert_eq!(bench.take_results(OpCode::Get), [ok(4, b""), ok(2, b"a"), ok(3, b""), ok(5, b"b")]);
        assert!(bench.connection.is_quiet());
    }
}

#[test]
fn results_of_one_turn_share_a_frame() {
    let mut bench = Bench::open();
    for correlation in 0..50 {
        bench.connection.receive(&frame(&[(correlation, get(b"k"))]));
    }
    bench.look();
    bench.answer();
    let (seen, frames) = results(&bench.sent, OpCode::Get);
    assert_eq!((seen.len(), frames), (50, 1));
}

#[test]
fn what_is_no_frame_is_told_counted_and_closed() {
    let good = frame(&[(2, get(b"key"))]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut long = good.clone();
    long[8..12].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    type Count = fn(&Counters) -> u64;
    let cases: [(Vec<u8>, Status, &str, Count); 7] = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Status::Malformed, "found \"GET \"", |it| it.bad_magic),
        (changed(4, 2), Status::UnsupportedVersion, "frame version 2", |it| it.bad_version),
        (changed(5, 2), Status::Malformed, "frame kind 2", |it| it.bad_kind),
        (changed(6, 1), Status::Malformed, "flags", |it| it.bad_flags),
        (changed(12, good[12] ^ 1), Status::Malformed, "checksum", |it| it.bad_checksum),
        (long, Status::TooLarge, "1073741840 bytes", |it| it.bad_length),
        (vec![0; 5], Status::Malformed, "found", |it| it.bad_magic),
    ];
    for (bytes, status, word, count) in cases {
        for after_hello in [false, true] {
            let mut bench = if after_hello { Bench::open() } else { Bench::new() };
            bench.push(&bytes);
            let (found, message) = bench.last_word();
            assert_eq!(found, status, "{message}");
            assert!(message.contains(word), "{message} lacks {word}");
            assert_eq!(count(&bench.counters), 1, "{word}");
            bench.push(&frame(&[(3, get(b"later"))]));
            assert!(bench.requests.is_empty() && bench.sent.is_empty(), "nothing is taken after the last word");
            assert_eq!(bench.connection.waiting(), bytes.len(), "nothing more is kept");
        }
    }
}

#[test]
fn a_list_out_of_step_closes_and_a_bad_operation_does_not() {
    let mut bench = Bench::open();
    let mut bytes = frame(&[(2, get(b"key")), (3, get(b"other"))]);
    // The code of the first operation: its neighbour goes on.
    bytes[FRAME_HEADER_BYTES] = 99;
    reseal(&mut bytes);
    bench.push(&bytes);
    assert_eq!(bench.requests.len(), 1);
    bench.answer();
    let seen = bench.take_results(OpCode::Get);
    assert_eq!((seen[0].correlation, seen[0].status), (2, Status::Unsupported));
    assert_eq!(seen[1], ok(3, b"other"));
    assert_eq!(bench.counters.refused, 1);
    // The length of the second one: it leads beyond its frame.
    let mut bytes = frame(&[(2, get(b"key")), (3, get(b"other"))]);
    let second = bytes.len() - 10 - 4;
    bytes[second..second + 4].copy_from_slice(&1_000_u32.to_le_bytes());
    reseal(&mut bytes);
    bench.push(&bytes);
    assert_eq!(bench.requests.len(), 1, "what was read before is carried out");
    assert_eq!(bench.last_word().0, Status::Malformed);
    assert_eq!(bench.counters.bad_list, 1);
    bench.answer();
    assert!(bench.sent.is_empty(), "nobody is there to hear the answer");
}

/// Gives a changed frame the checksum that fits it.
fn reseal(bytes: &mut [u8]) {
    use gristmill_base::checksum::{crc32c, crc32c_append};
    let sum = crc32c_append(crc32c(&bytes[..12]), &bytes[FRAME_HEADER_BYTES..]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn hello_comes_first_and_once() {
    let mut bench = Bench::new();
    bench.push(&frame(&[(1, get(b"k")), (2, Wire::Ping)]));
    let seen = bench.take_results(OpCode::Get);
    assert!(seen.iter().all(|it| it.status == Status::Unauthenticated), "{seen:?}");
    bench.push(&frame(&[(3, hello()), (4, get(b"k")), (5, hello())]));
    assert_eq!(bench.requests.len(), 1, "hello alone goes on");
    bench.answer();
    let statuses: Vec<_> = bench.take_results(OpCode::Hello).iter().map(|it| (it.correlation, it.status)).collect();
    assert_eq!(statuses, [(4, Status::Unauthenticated), (5, Status::BadRequest), (3, Status::Ok)]);
    bench.push(&frame(&[(6, hello()), (7, get(b"k"))]));
    bench.answer();
    let statuses: Vec<_> = bench.take_results(OpCode::Get).iter().map(|it| (it.correlation, it.status)).collect();
    assert_eq!(statuses, [(6, Status::BadRequest), (7, Status::Ok)]);
    assert!(!bench.closed);
}

#[test]
fn a_hello_that_cannot_be_met_is_refused_and_another_may_follow() {
    let mut bench = Bench::new();
    let versions = Hello { version_min: 7, version_max: 9, ..Hello::new("later") };
    let proof = Hello { mechanism: "token", credentials: b"x", ..Hello::new("with proof") };
    bench.push(&frame(&[(1, Wire::Hello(versions))]));
    bench.push(&frame(&[(2, Wire::Hello(proof))]));
    let seen = bench.take_results(OpCode::Hello);
    assert_eq!((seen[0].status, seen[1].status), (Status::UnsupportedVersion, Status::Unauthenticated));
    assert!(String::from_utf8_lossy(&seen[0].body).contains("versions 7 to 9"));
    assert!(bench.requests.is_empty() && !bench.closed);
    bench.push(&frame(&[(
        3,
        Wire::Hello(Hello { session: SessionId(12), key: SessionKey([7; 16]), ..Hello::new("again") }),
    )]));
    assert_eq!(bench.requests[0].session, SessionId(12));
    let asked = &bench.requests[0].operation;
    assert!(matches!(asked, Operation::OpenSession { key: SessionKey([7, ..]) }), "the shard sees the key");
    let expired = gristmill_core::request::Refusal::new(gristmill_core::request::Code::Expired, "session 12 is gone");
    let tag = bench.requests.pop().expect("hello").responder.tag;
    bench.settle(tag, Err(expired));
    bench.look();
    assert_eq!(bench.take_results(OpCode::Hello)[0].status, Status::Expired);
    bench.push(&frame(&[(4, hello())]));
    bench.answer();
    assert_eq!(bench.take_results(OpCode::Hello), [ok(4, b"")]);
}

#[test]
fn long_frames_need_a_hello_before() {
    let value = vec![5; FRAME_BYTES_BEFORE_HELLO];
    let long = frame(&[(2, put(1, b"k", &value))]);
    let mut bench = Bench::new();
    bench.push(&long[..FRAME_HEADER_BYTES]);
    assert_eq!(bench.last_word().0, Status::TooLarge);
    let mut bench = Bench::open();
    bench.push(&long);
    assert_eq!(bench.requests.len(), 1);
}

#[test]
fn a_client_beyond_its_credit_of_requests_is_not_read() {
    let mut bench = Bench::open();
    for correlation in 0..CONNECTION_REQUESTS_MAX {
        bench.push(&frame(&[(correlation, get(b"k"))]));
    }
    assert!(!bench.paused, "the whole credit may be used");
    bench.push(&frame(&[(7_000, get(b"k")), (7_001, get(b"k"))]));
    assert_eq!(bench.requests.len() as u32, CONNECTION_REQUESTS_MAX);
    assert!(bench.paused);
    let request = bench.requests.remove(0);
    bench.settle(request.responder.tag, Ok(Answer::Value(None)));
    bench.look();
    assert!(!bench.paused);
    assert_eq!(bench.requests.len() as u32, CONNECTION_REQUESTS_MAX + 1);
    bench.answer();
    assert_eq!(bench.take_results(OpCode::Get).len() as u32, CONNECTION_REQUESTS_MAX + 2);
}

#[test]
fn a_client_beyond_its_credit_of_bytes_is_not_read_but_one_operation_always_goes() {
    let mut bench = Bench::open();
    let value = vec![1; CONNECTION_BYTES_MAX + 1];
    bench.push(&frame(&[(1, put(1, b"k", &value))]));
    assert_eq!(bench.requests.len(), 1);
    bench.push(&frame(&[(2, get(b"k"))]));
    assert_eq!(bench.requests.len(), 1);
    assert!(bench.paused);
    bench.answer();
    assert!(!bench.paused);
    assert_eq!(bench.requests.len(), 1);
}

#[test]
fn a_client_that_does_not_read_is_held_back_and_gets_every_answer_in_full_later() {
    let mut bench = Bench::fresh();
    let value: Box<[u8]> = vec![3; 1 << 20].into();
    let operations: Vec<_> = (0..4_096).map(|correlation| (correlation, get(b"k"))).collect();
    bench.connection.receive(&frame(&operations));
    let answer = |bench: &mut Bench| {
        while bench.connection.take_frame(0, &mut { Room::ALL }, &mut bench.requests, &mut bench.counters) {}
        let taken = bench.requests.len();
        for request in std::mem::take(&mut bench.requests) {
            bench.settle(request.responder.tag, Ok(Answer::Value(Some(value.clone()))));
        }
        taken
    };
    // Nothing is read: the first piece stays with the socket.
    let mut stuck = 0;
    while answer(&mut bench) > 0 {
        let actions = bench.connection.actions(&greeting(), CONNECTION_OUTPUT_BYTES_MAX, false, &mut bench.counters);
        stuck += actions.send.map_or(0, |buf| {
            bench.sent.extend_from_slice(&buf);
            buf.len()
        });
        bench.paused = actions.pause.unwrap_or(bench.paused);
    }
    assert!(stuck > 0 && bench.paused && !bench.closed);
    assert!(bench.connection.output_bytes() <= CONNECTION_OUTPUT_BYTES_SLOW + (1 << 20));
    // Everything is read.
    let (mut seen, mut most) = (Vec::new(), 0);
    bench.connection.sent(Vec::new());
    loop {
        bench.act(true);
        seen.append(&mut bench.take_whole_results());
        let taken = answer(&mut bench);
        most = most.max(bench.connection.output_bytes());
        if taken == 0 && bench.connection.is_quiet() {
            break;
        }
    }
    assert!(most <= CONNECTION_OUTPUT_BYTES_SLOW + (1 << 20), "{most} bytes waited");
    assert_eq!(seen.len(), 4_096);
    for (correlation, seen) in seen.iter().enumerate() {
        assert_eq!((seen.0 as usize, seen.1, seen.2), (correlation, Status::Ok, value.len() + 3));
    }
    assert!(!bench.paused && !bench.closed && bench.connection.waiting() == 0);
    assert_eq!(bench.counters.unread_refused, 0);
}

#[test]
fn reads_whose_results_suddenly_grow_are_refused_and_nothing_closes() {
    let mut bench = Bench::open();
    for correlation in 0..100 {
        bench.push(&frame(&[(correlation, get(b"k"))]));
        bench.answer();
    }
    bench.take_results(OpCode::Get);
    let operations: Vec<_> = (0..200).map(|correlation| (correlation, get(b"k"))).collect();
    bench.push(&frame(&operations));
    assert_eq!(bench.requests.len(), 200, "small results were expected");
    for request in std::mem::take(&mut bench.requests) {
        let value: Box<[u8]> = vec![3; 1 << 20].into();
        bench.settle(request.responder.tag, Ok(Answer::Value(Some(value))));
    }
    bench.act(true);
    let seen = bench.take_results(OpCode::Get);
    let full = seen.iter().filter(|it| it.status == Status::Ok && it.body.len() == 1 << 20).count();
    let refused = seen.iter().filter(|it| it.status == Status::Capacity).count();
    assert_eq!((full, refused), (63, 137), "as many as may wait, with their heads");
    assert_eq!(bench.counters.unread_refused, 137);
    assert!(!bench.closed);
}

#[test]
fn a_client_that_takes_nothing_for_a_minute_is_closed_and_one_that_takes_a_piece_is_not() {
    for takes in [true, false] {
        let mut bench = Bench::open();
        bench.push(&frame(&[(1, get(b"k"))]));
        let request = bench.requests.pop().expect("a get");
        let value: Box<[u8]> = vec![3; 1 << 20].into();
        bench.settle(request.responder.tag, Ok(Answer::Value(Some(value))));
        bench.act(false);
        assert!(!bench.connection.tick(SECOND, &mut bench.counters));
        assert!(!bench.connection.tick(60 * SECOND, &mut bench.counters));
        if takes {
            bench.connection.sent(Vec::new());
            bench.act(false);
        }
        assert_eq!(bench.connection.tick(61 * SECOND, &mut bench.counters), !takes);
        bench.act(false);
        assert_eq!((bench.closed, bench.counters.not_reading), (!takes, u64::from(!takes)));
    }
}

#[test]
fn frames_and_hello_must_come_in_time() {
    let late = FRAME_SECONDS_MAX * SECOND;
    let mut bench = Bench::new();
    assert!(!bench.connection.tick(late - 1, &mut bench.counters));
    assert!(bench.connection.tick(late, &mut bench.counters));
    bench.act(true);
    assert!(bench.last_word().1.contains("no hello within 30 seconds"));

    let mut bench = Bench::open();
    let bytes = frame(&[(2, get(b"key"))]);
    assert!(!bench.connection.tick(10 * late, &mut bench.counters), "an idle connection is left alone");
    bench.now = 20 * late;
    bench.push(&bytes[..20]);
    bench.now += late / 2;
    bench.push(&bytes[20..21]);
    assert!(!bench.connection.tick(21 * late - 1, &mut bench.counters));
    assert!(bench.connection.tick(21 * late, &mut bench.counters));
    bench.act(true);
    assert!(bench.last_word().1.contains("21 bytes came"));
    assert_eq!(bench.counters.too_slow, 1);
}

/// Memory of connections that are at rest is nobody's share, and there may be thousands.
#[test]
fn a_connection_at_rest_keeps_no_memory_and_goes_on() {
    let mut bench = Bench::open();
    let bytes = frame(&[(1, put(1, b"k", &[7; 20_000]))]);
    bench.push(&bytes[..15_000]);
    bench.connection.tick(SECOND, &mut bench.counters);
    bench.connection.tick(2 * SECOND, &mut bench.counters);
    bench.push(&bytes[15_000..]);
    assert_eq!(bench.requests.len(), 1, "a frame that had come in part is not given back");
    bench.connection.tick(3 * SECOND, &mut bench.counters);
    assert!(bench.connection.kept_bytes() > 0, "it was used since the last tick");
    bench.answer();
    bench.connection.tick(4 * SECOND, &mut bench.counters);
    bench.connection.tick(5 * SECOND, &mut bench.counters);
    assert_eq!(bench.connection.kept_bytes(), 0);
    bench.push(&bytes);
    bench.answer();
    assert_eq!(bench.take_results(OpCode::Put).len(), 2);
}

#[test]
fn a_client_that_waits_for_the_server_is_never_too_slow() {
    let mut bench = Bench::open();
    let value = vec![1; CONNECTION_BYTES_MAX];
    bench.push(&frame(&[(1, put(1, b"k", &value))]));
    let bytes = frame(&[(2, get(b"k"))]);
    bench.push(&bytes[..5]);
    assert!(!bench.connection.tick(1_000 * SECOND, &mut bench.counters));
    bench.now = 1_000 * SECOND;
    bench.answer();
    assert!(!bench.connection.tick(1_000 * SECOND + SECOND, &mut bench.counters));
    bench.push(&bytes[5..]);
    assert_eq!(bench.requests.len(), 1);
}

#[test]
fn a_whole_frame_that_the_server_does_not_take_is_not_the_clients_fault() {
    let late = FRAME_SECONDS_MAX * SECOND;
    // Hello itself waits, because others have all that the shard may have in flight.
    let mut bench = Bench::new();
    bench.connection.receive(&frame(&[(1, hello())]));
    assert!(!bench.connection.tick(2 * late, &mut bench.counters));
    bench.now = 2 * late;
    bench.look();
    bench.answer();
    assert_eq!(bench.take_results(OpCode::Hello).len(), 1);

    // Two frames of bulk came together; one was taken, and there is no room for more.
    let mut bytes = frame(&[(2, put(1, b"k", b"v"))]);
    bytes.extend(frame(&[(3, put(2, b"k", b"v"))]));
    bench.connection.receive(&bytes);
    assert!(bench.connection.take_frame(
        bench.now,
        &mut Room { bulk: 1, ..Room::ALL },
        &mut bench.requests,
        &mut bench.counters
    ));
    for second in 0..90 {
        assert!(!bench.connection.tick(bench.now + second * SECOND, &mut bench.counters), "after {second} seconds");
    }
    bench.now += 90 * SECOND;
    bench.connection.receive(&frame(&[(4, get(b"k"))])[..5]);
    bench.look();
    assert_eq!((bench.requests.len(), bench.counters.too_slow), (2, 0));
    assert!(!bench.connection.tick(bench.now + late - 1, &mut bench.counters));
    assert!(bench.connection.tick(bench.now + late, &mut bench.counters), "what has begun must be complete in time");
}

#[test]
fn a_closing_client_that_takes_nothing_is_cut_off() {
    let mut bench = Bench::open();
    bench.push(&frame(&[(2, get(b"key"))]));
    let request = bench.requests.pop().expect("a get");
    bench.settle(request.responder.tag, Ok(Answer::Value(None)));
    bench.act(false);
    bench.connection.receive(b"nonsense");
    while bench.connection.take_frame(0, &mut { Room::ALL }, &mut bench.requests, &mut bench.counters) {}
    bench.act(false);
    assert!(!bench.closed, "the buffer before is still on its way");
    assert!(!bench.connection.tick(4 * SECOND, &mut bench.counters));
    assert!(bench.connection.tick(5 * SECOND, &mut bench.counters));
    bench.act(false);
    assert!(bench.closed);
}

#[test]
fn no_garbage_makes_it_panic_or_grow() {
    let mut state = 0x9e37_79b9_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = frame(&[(2, get(b"key")), (3, put(1, b"key", b"value")), (4, Wire::Ping), (5, hello())]);
    for _ in 0..3_000 {
        let mut bench = if random() % 2 == 0 { Bench::open() } else { Bench::new() };
        let mut bytes = good.repeat(1 + (random() % 3) as usize);
        for _ in 0..random() % 4 {
            let at = (random() % bytes.len() as u64) as usize;
            bytes[at] = random() as u8;
        }
        if random() % 4 == 0 && bytes.len() >= good.len() {
            reseal(&mut bytes[..good.len()]);
        }
        let mut left = &bytes[..];
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(1 + (random() % 90) as usize));
            bench.push(piece);
            left = rest;
            if random() % 3 == 0 {
                bench.answer();
            }
        }
        while !bench.requests.is_empty() {
            bench.answer();
        }
        assert!(bench.closed || bench.connection.is_quiet());
        assert!(bench.connection.waiting() <= bytes.len());
    }
}

#[test]
fn a_fault_of_the_server_names_the_request_to_both_sides() {
    let mut bench = Bench::open();
    bench.push(&frame(&[(41, get(b"a")), (42, get(b"b"))]));
    for (request, code) in std::mem::take(&mut bench.requests).into_iter().zip([Code::Internal, Code::UnknownName]) {
        bench.settle(request.responder.tag, Err(Refusal::new(code, "what was found")));
    }
    bench.act(true);
    assert_eq!(bench.take_results(OpCode::Get).len(), 2);
    let fault = bench.connection.take_fault().expect("one is told");
    assert_eq!((fault.correlation, fault.operation, fault.code), (41, "get", Code::Internal));
    assert_eq!(
        (fault.message.as_str(), fault.more),
        ("what was found", 0),
        "what a client does wrong is its own affair"
    );
    assert_eq!(bench.connection.take_fault(), None);
}
