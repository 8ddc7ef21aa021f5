//! Frames and operations that a server refuses.

use gristmill_wire::Operation;

use super::{Content, Sample};

/// All of them.
pub fn samples() -> Vec<Sample> {
    let mut all = frames();
    all.extend(operations());
    all
}

fn refused(name: &'static str, about: &'static str, bytes: Vec<u8>) -> Sample {
    Sample { name, about, content: Content::Refused(bytes) }
}

/// A good frame with one ping.
fn ping() -> Vec<u8> {
    Content::Requests(vec![(7, Operation::Ping)]).encode()
}

fn frames() -> Vec<Sample> {
    let changed = |at: usize, byte: u8| {
        let mut bytes = ping();
        bytes[at] = byte;
        bytes
    };
    let mut long = ping();
    long[8..12].copy_from_slice(&(64_u32 << 10).to_le_bytes());
    vec![
        refused("error-magic", "another protocol", b"GET / HTTP/1.1\r\n".to_vec()),
        refused("error-version", "a frame version of the future", changed(4, 2)),
        refused("error-kind", "results sent to a server", changed(5, 2)),
        refused("error-flags", "a flag that is not known", changed(6, 1)),
        refused("error-too-long", "longer than allowed before hello", long),
        refused("error-checksum", "one byte changed on the way", changed(16, 3)),
        refused("error-truncated", "not an error yet: the rest of the frame has to come", ping()[..20].to_vec()),
    ]
}

/// A frame around this body.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut head = b"MILL\x01\x01\x00\x00".to_vec();
    head.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let sum = gristmill_base::checksum::crc32c(&[&head, body].concat());
    head.extend_from_slice(&sum.to_le_bytes());
    [&head, body].concat()
}

/// An operation with this body.
fn operation(code: u8, correlation: u32, body: &[u8]) -> Vec<u8> {
    [&[code][..], &correlation.to_le_bytes(), &(body.len() as u32).to_le_bytes(), body].concat()
}

fn operations() -> Vec<Sample> {
    let one = |body: &[u8], code| framed(&operation(code, 7, body));
    let beyond = operation(2, 7, b"").iter().copied().chain(operation(32, 8, b"abcdef").into_iter().take(12)).collect();
    let beyond: Vec<u8> = beyond;
    vec![
        refused("error-unknown-operation", "the operation alone is refused", one(b"", 99)),
        refused("error-trailing", "a ping with a body", one(b"x", 2)),
        refused("error-short", "a get without a key", one(&[2, 0, 0, 0], 32)),
        refused("error-key-too-large", "a get with a key of 65,537 bytes declared", one(b"\x02\0\0\0\x81\x80\x04", 32)),
        refused("error-long-varint", "a key length in two bytes that fits one", one(b"\x02\0\0\0\x81\x00a", 32)),
        refused("error-position-zero", "a put at position 0", one(b"\x02\0\0\0\x00\x00\x01a\x00", 33)),
        refused("error-scan-flags", "a scan with a flag that is not known", one(b"\x02\0\0\0\x04\0\0\0\0\x00", 39)),
        refused("error-not-utf8", "describe of an app whose name is no text", one(b"\x01\xff", 4)),
        refused(
            "error-correlation",
            "the correlation that no operation may carry",
            framed(&operation(2, u32::MAX, b"")),
        ),
        refused("error-beyond-frame", "a ping, then a get that goes beyond the frame", framed(&beyond)),
    ]
}
