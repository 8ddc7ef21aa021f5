//! One connection: a blocking socket, its hello, operations out and results in.

use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use gristmill_base::ids::{SessionId, SessionKey};
use gristmill_wire::{
    Answer, CORRELATION_NONE, Deframer, Failure, FrameKind, Hello, HelloReply, OpCode, Operation, Reply, RequestWriter,
};

use crate::clock::{now, until};
use crate::error::{Error, ErrorKind};

/// Bytes taken from the socket at once.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// A connection that has said hello. Used by one thread.
///
/// Operations are written with [`Self::requests`], many per frame, go out with [`Self::flush`], and their results come
/// with [`Self::receive`] in any order. The caller keeps to the credits of [`Self::hello`] and chooses correlations.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    hello: HelloReply,
    out: Vec<u8>,
    deframer: Deframer,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects and says hello, both within `timeout`. `session` 0 takes a new session; any other one is gone on with,
    /// if `key` is the one that came with it.
    ///
    /// # Errors
    /// Nobody answers in time, the server refuses, or it does not speak this protocol. Nothing has happened then.
    pub fn connect(
        address: &str,
        session: SessionId,
        key: SessionKey,
        client: &str,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let deadline = now() + timeout;
        let unreachable = |error: std::io::Error| {
            let late = matches!(error.kind(), IoErrorKind::WouldBlock | IoErrorKind::TimedOut);
            let why = if late { format!("no answer within {} s", timeout.as_secs_f64()) } else { error.to_string() };
            Error::new(ErrorKind::Unreachable, format!("{address}: {why}"))
        };
        let mut stream = open(address, timeout).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let mut out = Vec::new();
        let mut writer = RequestWriter::new(&mut out);
        let hello = Hello { session, key, ..Hello::new(client) };
        writer.push(0, &Operation::Hello(hello)).map_err(|e| Error::invalid(e.to_string()))?;
        writer.finish();
        stream.write_all(&out).map_err(unreachable)?;
        out.clear();
        let mut deframer = Deframer::new(FrameKind::Results);
        let mut buffer = vec![0; READ_BYTES];
        let hello = loop {
            if let Some(hello) = read_hello(&mut deframer)? {
                break hello;
            }
            let left = until(deadline).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left)).map_err(unreachable)?;
            let count = stream.read(&mut buffer).map_err(unreachable)?;
            if count == 0 {
                return Err(Error::new(ErrorKind::Unreachable, format!("{address}: closed before hello was answered")));
            }
            deframer.push(&buffer[..count]);
        };
        stream.set_read_timeout(None).map_err(unreachable)?;
        deframer.allow(hello.frame_bytes_max as usize);
        Ok(Self { stream, hello, out, deframer, buffer })
    }

    /// What the server said about itself.
    #[must_use]
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// A writer of operations; what it writes goes out with the next [`Self::flush`].
    pub fn requests(&mut self) -> RequestWriter<'_> {
        RequestWriter::new(&mut self.out)
    }

    /// Sends what was written.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }

    /// Waits for bytes and hands on the results that they complete; perhaps none.
    ///
    /// # Errors
    /// The connection is lost or cannot be read on.
    pub fn receive(&mut self, mut each: impl FnMut(Answer<'_>)) -> Result<(), Error> {
        let lost = |error: std::io::Error| Error::new(ErrorKind::Unknown, format!("the connection: {error}"));
        let count = self.stream.read(&mut self.buffer).map_err(lost)?;
        if count == 0 {
            return Err(Error::new(ErrorKind::Unknown, "the server closed the connection"));
        }
        self.deframer.push(&self.buffer[..count]);
        while let Some(frame) = self.deframer.next_frame().map_err(Error::protocol)? {
            for answer in frame.results() {
                each(answer?);
            }
        }
        Ok(())
    }

    /// Sends one operation and waits for its result. Nothing else may be in flight.
    ///
    /// # Errors
    /// The server refuses it, or the connection is lost and the outcome unknown.
    pub fn call<R>(
        &mut self,
        operation: &Operation<'_>,
        with: impl FnOnce(Result<Reply<'_>, Failure<'_>>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.requests().push(0, operation).map_err(|error| Error::invalid(error.to_string()))?;
        self.flush().map_err(|error| Error::new(ErrorKind::Unknown, format!("the connection: {error}")))?;
        let (code, mut with, mut result) = (operation.code(), Some(with), None);
        while result.is_none() {
            self.receive(|answer| {
                if let Some(with) = with.take() {
                    result = Some(answer.outcome(code).map_err(Error::from).and_then(with));
                }
            })?;
        }
        result.expect("the loop ends with a result")
    }

    /// The socket, for use with an event loop. The output buffer should have been flushed; bytes received and not yet
    /// handed on are in the deframer.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, HelloReply, Deframer) {
        (self.stream, self.hello, self.deframer)
    }
}

fn open(address: &str, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read_hello(deframer: &mut Deframer) -> Result<Option<HelloReply>, Error> {
    let Some(frame) = deframer.next_frame().map_err(Error::protocol)? else { return Ok(None) };
    let Some(answer) = frame.results().next() else { return Ok(None) };
    match answer?.outcome(OpCode::Hello)? {
        Ok(Reply::Hello(hello)) => Ok(Some(hello)),
        Ok(other) => Err(Error::protocol(format!("{other:?} as the reply to hello"))),
        Err(failure) => Err(failure.into()),
    }
}

const _: () = assert!(CORRELATION_NONE != 0, "hello goes by 0");
