//! The live connection to one shard: what is in flight on it, and the thread that reads its results.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use gristmill_base::ids::SlotId;
use gristmill_wire::{Deframer, FrameKind, OpCode};

use crate::connection::{Connection, READ_BYTES};

/// Low bits of a correlation: the place of the flight. The rest counts how often the place was used, so that a result
/// that comes twice is noticed.
const PLACE_BITS: u32 = 16;

/// What a reading thread tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// The body of a frame of results.
    Frame {
        /// The link that received it.
        link: u64,
        /// Results.
        body: Vec<u8>,
    },
    /// The connection is gone.
    Closed {
        /// The link that had it.
        link: u64,
        /// Why.
        why: String,
    },
}

/// One operation in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// What was sent.
    pub(crate) code: OpCode,
    /// Bytes of credit that it takes.
    pub(crate) bytes: usize,
    /// Whose it is.
    pub(crate) owner: Owner,
}

/// Whose an operation in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An operation without a position, by its ticket.
    Ticket(u64),
    /// A position of the session.
    Position(SlotId, u64),
}

/// A connection of the client.
#[derive(Debug)]
pub(crate) struct Link {
    /// Tells this link from earlier ones to the same shard.
    pub(crate) id: u64,
    /// Frames to be sent.
    pub(crate) out: Vec<u8>,
    /// What is in flight.
    pub(crate) flights: Flights,
    stream: TcpStream,
    reader: Option<JoinHandle<()>>,
}

/// The table of what is in flight, within the credits of the connection.
#[derive(Debug)]
pub(crate) struct Flights {
    /// How often each was used, from 1, since hello went by correlation 0; and what is there.
    places: Vec<(u16, Option<Flight>)>,
    free: Vec<u16>,
    bytes: usize,
    bytes_max: usize,
}

impl Flights {
    fn new(requests_max: usize, bytes_max: usize) -> Self {
        let count = requests_max.clamp(1, (1 << PLACE_BITS) - 2) as u16;
        Self { places: vec![(1, None); usize::from(count)], free: (0..count).rev().collect(), bytes: 0, bytes_max }
    }

    /// Whether an operation of so many bytes may go out; one always may when nothing is in flight.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.is_empty() || (!self.free.is_empty() && self.bytes + bytes <= self.bytes_max)
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// The correlation that the next operation gets.
    pub(crate) fn next_correlation(&self) -> u32 {
        let place = *self.free.last().expect("the caller asked for room");
        u32::from(self.places[usize::from(place)].0) << PLACE_BITS | u32::from(place)
    }

    /// Takes note of what went out with [`Self::next_correlation`].
    pub(crate) fn insert(&mut self, flight: Flight) {
        let place = self.free.pop().expect("the caller asked for room");
        self.bytes += flight.bytes;
        self.places[usize::from(place)].1 = Some(flight);
    }

    /// The flight that a result ends.
    pub(crate) fn take(&mut self, correlation: u32) -> Option<Flight> {
        let place = correlation & ((1 << PLACE_BITS) - 1);
        let (uses, flight) = self.places.get_mut(place as usize)?;
        if u32::from(*uses) != correlation >> PLACE_BITS {
            return None;
        }
        let flight = flight.take()?;
        *uses = uses.wrapping_add(1);
        self.free.push(place as u16);
        self.bytes -= flight.bytes;
        Some(flight)
    }

    /// Everything that has no result.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Owner> {
        self.places.iter().filter_map(|(_, flight)| flight.map(|flight| flight.owner))
    }
}

impl Link {
    /// Takes over a connection and starts its reading thread.
    pub(crate) fn start(
        id: u64,
        connection: Connection,
        window: usize,
        write_timeout: Duration,
        events: Sender<Event>,
    ) -> std::io::Result<Self> {
        let (stream, hello, deframer) = connection.into_parts();
        stream.set_write_timeout(Some(write_timeout.max(Duration::from_millis(1))))?;
        let reading = stream.try_clone()?;
        let reader = std::thread::Builder::new()
            .name("gristmill-client".to_owned())
            .spawn(move || read_results(id, reading, deframer, &events))?;
        let requests = (hello.credit_requests as usize).min(window);
        let flights = Flights::new(requests, hello.credit_bytes as usize);
        Ok(Self { id, out: Vec::new(), flights, stream, reader: Some(reader) })
    }

    /// Sends what was written.
    pub(crate) fn flush(&mut self) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A socket that is gone already cannot be shut down, and its reader has ended.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Until the connection ends. The channel is without bound, so this never waits for the client; what may arrive is
/// bounded by what is in flight.
fn read_results(link: u64, mut stream: TcpStream, mut deframer: Deframer, events: &Sender<Event>) {
    let mut buffer = vec![0; READ_BYTES];
    let why = loop {
        match read_some(link, &mut stream, &mut deframer, &mut buffer, events) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => break why,
        }
    };
    let _ = events.send(Event::Closed { link, why });
}

/// Whether somebody still listens.
fn read_some(
    link: u64,
    stream: &mut TcpStream,
    deframer: &mut Deframer,
    buffer: &mut [u8],
    events: &Sender<Event>,
) -> Result<bool, String> {
    while let Some(frame) = deframer.next_frame().map_err(|error| error.to_string())? {
        assert!(frame.kind == FrameKind::Results, "the deframer lets no other kind pass");
        if events.send(Event::Frame { link, body: frame.body.to_vec() }).is_err() {
            return Ok(false);
        }
    }
    match stream.read(buffer) {
        Ok(0) => Err("the server closed the connection".to_owned()),
        Ok(count) => {
            deframer.push(&buffer[..count]);
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_kept_and_a_second_result_is_noticed() {
        let flight = Flight { code: OpCode::Ping, bytes: 40, owner: Owner::Ticket(1) };
        let mut flights = Flights::new(2, 100);
        assert!(flights.has_room(1_000), "one may always go out");
        let first = flights.next_correlation();
        flights.insert(flight);
        assert!(flights.has_room(60) && !flights.has_room(61));
        let second = flights.next_correlation();
        flights.insert(flight);
        assert!(first != second && !flights.has_room(0));
        assert!(flights.take(first).is_some() && flights.take(first).is_none());
        let third = flights.next_correlation();
        assert!(third != first && third & 0xffff == first & 0xffff);
        assert!(flights.take(second).is_some() && flights.has_room(1_000));
        assert!(flights.take(77).is_none() && flights.take(u32::MAX).is_none());
    }
}
