//! One connection of a worker: bytes in, frames out. Nothing is allocated by a length that the worker declares.

use gristmill_base::limits::WORKER_FRAME_BYTES_MAX;
use gristmill_net::worker::{FromWorker, LENGTH_BYTES, parse};
use std::io;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};

/// Largest hello.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// Read at a time.
const READ_BYTES: usize = 64 << 10;

/// What is heard of a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame.
    Said(u64, FromWorker),
    /// It is over; if the worker has broken the protocol, how.
    Over(u64, Option<String>),
}

/// Reads until the connection is over.
pub(super) async fn read(id: u64, stream: Arc<UnixStream>, heard: Sender<Heard>) {
    let over = frames(id, &stream, &heard).await.err();
    // The door is gone only when the server ends.
    let _ = heard.send(Heard::Over(id, over)).await;
}

async fn frames(id: u64, stream: &UnixStream, heard: &Sender<Heard>) -> Result<(), String> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut allowed = HELLO_BYTES_MAX;
    loop {
        while let Some(length) = whole(&bytes, allowed)? {
            let said = parse(&bytes[LENGTH_BYTES..length]).map_err(|error| error.to_string())?;
            bytes.drain(..length);
            allowed = WORKER_FRAME_BYTES_MAX;
            if heard.send(Heard::Said(id, said)).await.is_err() {
                return Ok(());
            }
        }
        if stream.readable().await.is_err() {
            return Ok(());
        }
        match stream.try_read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Bytes of the first frame with its length, if all of them are there.
fn whole(bytes: &[u8], allowed: usize) -> Result<Option<usize>, String> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > allowed {
        return Err(format!("a frame of {length} bytes; allowed here are 1 to {allowed}"));
    }
    Ok((bytes.len() >= LENGTH_BYTES + length).then_some(LENGTH_BYTES + length))
}

/// Writes frames until there are no more to come, or the connection is over, which its reader finds.
pub(super) async fn write(stream: Arc<UnixStream>, mut frames: UnboundedReceiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        let mut rest = &frame[..];
        while !rest.is_empty() {
            if stream.writable().await.is_err() {
                return;
            }
            match stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_length_is_not_believed() {
        assert_eq!(whole(&[1, 0, 0], 100), Ok(None));
        assert_eq!(whole(&[2, 0, 0, 0, 9], 100), Ok(None));
        assert_eq!(whole(&[1, 0, 0, 0, 9, 9], 100), Ok(Some(5)));
        assert!(whole(&[0xff, 0xff, 0xff, 0xff], WORKER_FRAME_BYTES_MAX).unwrap_err().contains("4294967295"));
        assert!(whole(&[0, 0, 0, 0], 100).is_err());
    }
}
