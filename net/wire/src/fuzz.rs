//! What must hold for any bytes. The plain test and the fuzz target call the same function.
//!
//! What the codec allocates is small or borrowed, and each piece that it owns is held against the bytes that came:
//! the receive buffer, the lists of a hello reply, the texts of errors.

use gristmill_base::ids::Offset;
use gristmill_base::limits::FRAME_BYTES_MAX;

use crate::deframer::Deframer;
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, seal};
use crate::opcode::OpCode;
use crate::operation::Operation;
use crate::reply::{Failure, Reply};
use crate::status::Status;
use crate::topic::Headers;

/// Longest text of an error or refusal: fixed words, a few numbers, at most four bytes of what was found.
const ERROR_TEXT_BYTES_MAX: usize = 256;

/// Decodes `bytes` in every way there is. Nothing may panic, and what decodes must encode to something that decodes to
/// the same. The last byte chooses how the bytes are cut into pieces on their way in. Gives the number of good messages.
pub fn check(bytes: &[u8]) -> usize {
    let mut good = 0;
    for kind in [FrameKind::Requests, FrameKind::Results] {
        good += check_stream(bytes, kind);
        good += check_body(bytes, kind);
        // Behind a good header, so that mutations reach what is inside.
        let mut sealed = vec![0; FRAME_HEADER_BYTES];
        sealed.extend_from_slice(bytes);
        seal(&mut sealed, kind);
        good += check_stream(&sealed, kind);
    }
    for code in OpCode::ALL {
        good += usize::from(check_operation(*code, bytes));
        good += usize::from(check_reply(*code, bytes));
    }
    for status in Status::ALL {
        check_failure(*status, bytes);
    }
    if let Ok(headers) = Headers::decode(bytes) {
        assert_eq!(headers.iter().count(), headers.len(), "checked headers are all there");
        assert_eq!(headers.encode(), bytes, "headers have one encoding");
    }
    good
}

fn check_error_text(text: &str) {
    assert!(!text.is_empty() && text.len() <= ERROR_TEXT_BYTES_MAX, "an error says what was found, in short: {text}");
}

/// Frames come out the same whether the bytes arrive at once or in pieces.
fn check_stream(bytes: &[u8], kind: FrameKind) -> usize {
    let step = 1 + usize::from(bytes.last().copied().unwrap_or(0)) * 7;
    let mut deframer = Deframer::new(kind);
    deframer.allow(FRAME_BYTES_MAX);
    let (mut at, mut good) = (0, 0);
    'pieces: for piece in bytes.chunks(step) {
        deframer.push(piece);
        assert!(deframer.capacity() <= 2 * bytes.len() + 64, "the buffer grows with what arrives");
        loop {
            match deframer.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let whole = Frame::split(&bytes[at..], kind, FRAME_BYTES_MAX);
                    assert_eq!(whole, Ok(Some((frame, FRAME_HEADER_BYTES + frame.body.len()))), "pieces give the same");
                    at += FRAME_HEADER_BYTES + frame.body.len();
                    good += check_body(frame.body, kind);
                }
                Err(error) => {
                    check_error_text(&error.to_string());
                    break 'pieces;
                }
            }
        }
    }
    good
}

fn check_body(body: &[u8], kind: FrameKind) -> usize {
    let frame = Frame { kind, body };
    let mut good = 0;
    for request in frame.requests() {
        match request.map(|request| (request.operation(), request.body)) {
            Ok((Ok(operation), body)) => good += usize::from(check_operation(operation.code(), body)),
            Ok((Err(refusal), _)) => check_error_text(refusal.failure().message()),
            Err(error) => check_error_text(&error.to_string()),
        }
    }
    for answer in frame.results() {
        match answer {
            Ok(answer) if answer.status == Status::Ok => {
                good += OpCode::ALL.iter().filter(|code| check_reply(**code, answer.body)).count();
            }
            Ok(answer) => check_failure(answer.status, answer.body),
            Err(error) => check_error_text(&error.to_string()),
        }
    }
    good
}

fn check_operation(code: OpCode, body: &[u8]) -> bool {
    let Ok(operation) = Operation::decode(code, body) else { return false };
    let mut again = Vec::new();
    assert_eq!(operation.encode(&mut again), Ok(()), "what could be read can be written");
    assert_eq!(again, body, "an operation has one encoding");
    assert_eq!(operation.code(), code, "an operation keeps its code");
    assert_eq!(operation.sequence().is_some(), code.is_sequenced(), "sequenced operations carry a position");
    let _ = operation.route().slot(256, |_| Some(64));
    true
}

fn check_reply(code: OpCode, body: &[u8]) -> bool {
    let Ok(reply) = Reply::decode(code, body) else { return false };
    match &reply {
        Reply::Hello(hello) => {
            assert!(hello.ports.len() + hello.slots.len() <= body.len() / 2, "lists are as long as what came");
        }
        Reply::Read(page) => {
            assert_eq!(page.events.iter().next().is_none(), page.events.is_empty(), "no event is lost")
        }
        Reply::Fetch(page) => {
            let declared: u64 = page.batches().map(|batch| u64::from(batch.batch.count())).sum();
            assert_eq!(page.events_from(Offset(0)).count() as u64, declared, "no event is lost");
        }
        Reply::Range(page) => {
            assert_eq!(page.entries.iter().next().is_none(), page.entries.is_empty(), "no entry is lost");
        }
        Reply::Scan(page) => assert_eq!(page.rows.iter().next().is_none(), page.rows.is_empty(), "no row is lost"),
        Reply::Watch(page) => {
            let positions = page.positions.to_vec();
            assert!(
                positions.len() + page.changes().count() + page.elsewhere().count() <= body.len(),
                "lists are as long as what came"
            );
        }
        Reply::Query(page) => assert_eq!(page.rows.iter().next().is_none(), page.rows.is_empty(), "no row is lost"),
        _ => {}
    }
    let mut again = Vec::new();
    assert_eq!(reply.encode(&mut again), Ok(()), "what could be read can be written");
    // A reply to void may be anything and says nothing.
    assert!(code == OpCode::Void || again == body, "a reply has one encoding");
    code != OpCode::Void
}

fn check_failure(status: Status, body: &[u8]) {
    let Ok(failure) = Failure::decode(status, body) else { return };
    let mut again = Vec::new();
    failure.encode(&mut again);
    assert!(body.starts_with(&again), "a failure has one encoding, cut where it is too long");
    let _ = failure.to_string();
}
