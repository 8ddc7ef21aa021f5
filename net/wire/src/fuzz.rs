//! What must hold for any bytes. The plain test and the fuzz target call the same function.

use gristmill_base::limits::FRAME_BYTES_MAX;

use crate::deframer::Deframer;
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, seal};
use crate::opcode::OpCode;
use crate::operation::Operation;
use crate::reply::{Failure, Reply};
use crate::status::Status;
use crate::topic::Headers;

/// Decodes `bytes` in every way there is. Nothing may panic, and what decodes must encode to something that decodes to
/// the same. The last byte chooses how the bytes are cut into pieces on their way in.
pub fn check(bytes: &[u8]) {
    for kind in [FrameKind::Requests, FrameKind::Results] {
        check_stream(bytes, kind);
        check_body(bytes, kind);
        // Behind a good header, so that mutations reach what is inside.
        let mut sealed = vec![0; FRAME_HEADER_BYTES];
        sealed.extend_from_slice(bytes);
        seal(&mut sealed, kind);
        check_stream(&sealed, kind);
    }
    for code in OpCode::ALL {
        check_operation(*code, bytes);
        check_reply(*code, bytes);
    }
    for status in Status::ALL {
        check_failure(*status, bytes);
    }
    if let Ok(headers) = Headers::decode(bytes) {
        assert_eq!(headers.iter().count(), headers.len(), "checked headers are all there");
        assert_eq!(headers.encode(), bytes, "headers have one encoding");
    }
}

/// Frames come out the same whether the bytes arrive at once or in pieces.
fn check_stream(bytes: &[u8], kind: FrameKind) {
    let step = 1 + usize::from(bytes.last().copied().unwrap_or(0)) * 7;
    let mut deframer = Deframer::new(kind);
    deframer.allow(FRAME_BYTES_MAX);
    let mut at = 0;
    'pieces: for piece in bytes.chunks(step) {
        deframer.push(piece);
        loop {
            match deframer.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let whole = Frame::split(&bytes[at..], kind, FRAME_BYTES_MAX);
                    assert_eq!(whole, Ok(Some((frame, FRAME_HEADER_BYTES + frame.body.len()))), "pieces give the same");
                    at += FRAME_HEADER_BYTES + frame.body.len();
                    check_body(frame.body, kind);
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty(), "an error says what was found");
                    break 'pieces;
                }
            }
        }
    }
}

fn check_body(body: &[u8], kind: FrameKind) {
    let frame = Frame { kind, body };
    for request in frame.requests().flatten() {
        match request.operation() {
            Ok(operation) => check_operation(operation.code(), request.body),
            Err(refusal) => assert!(!refusal.failure().message().is_empty(), "a refusal says why"),
        }
    }
    for answer in frame.results().flatten() {
        OpCode::ALL.iter().for_each(|code| drop(answer.outcome(*code)));
    }
}

fn check_operation(code: OpCode, body: &[u8]) {
    let Ok(operation) = Operation::decode(code, body) else { return };
    let mut again = Vec::new();
    assert_eq!(operation.encode(&mut again), Ok(()), "what could be read can be written");
    assert_eq!(again, body, "an operation has one encoding");
    assert_eq!(operation.code(), code, "an operation keeps its code");
    assert_eq!(operation.sequence().is_some(), code.is_sequenced(), "sequenced operations carry a position");
    let _ = operation.route().slot(256, |_| Some(64));
}

fn check_reply(code: OpCode, body: &[u8]) {
    let Ok(reply) = Reply::decode(code, body) else { return };
    match &reply {
        Reply::Read(page) => {
            assert_eq!(page.events.iter().next().is_none(), page.events.is_empty(), "no event is lost")
        }
        Reply::Range(page) => {
            assert_eq!(page.entries.iter().next().is_none(), page.entries.is_empty(), "no entry is lost");
        }
        Reply::Scan(page) => assert_eq!(page.rows.iter().next().is_none(), page.rows.is_empty(), "no row is lost"),
        _ => {}
    }
    let mut again = Vec::new();
    assert_eq!(reply.encode(&mut again), Ok(()), "what could be read can be written");
    assert!(code == OpCode::Void || again == body, "a reply has one encoding");
}

fn check_failure(status: Status, body: &[u8]) {
    let Ok(failure) = Failure::decode(status, body) else { return };
    let mut again = Vec::new();
    failure.encode(&mut again);
    assert!(body.starts_with(&again), "a failure has one encoding, cut where it is too long");
    let _ = failure.to_string();
}
