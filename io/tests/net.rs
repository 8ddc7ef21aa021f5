//! The ring's sockets against ordinary clients over loopback.

#![cfg(not(loom))]

use gristmill_base::env::{Net, NetEvent, Park};
use gristmill_base::ids::ConnId;
use gristmill_io::background::{Background, BackgroundSettings};
use gristmill_io::clock::SystemClock;
use gristmill_io::listen::listen;
use gristmill_io::mesh::Waker;
use gristmill_io::ring::{RingSettings, ShardRing};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What an owner of the ring does with the events of one poll.
type Behaviour = Box<dyn FnMut(&mut ShardRing, Vec<Told>) + Send>;

/// An event with its bytes.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Accepted(ConnId, usize),
    Received(ConnId, Vec<u8>),
    Sent(ConnId),
    Closed(ConnId),
}

/// A ring on a thread of its own, until it is dropped.
struct Server {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(settings: RingSettings, listeners: usize, mut behaviour: Behaviour) -> Self {
        let local = "127.0.0.1:0".parse().expect("a valid address");
        let sockets: Vec<_> = (0..listeners).map(|_| listen(local, false).expect("a free port")).collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("it is bound")).collect();
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Waker::new().expect("descriptors are left"));
        let (stopped, woken) = (Arc::clone(&stop), waker.clone());
        let thread = std::thread::spawn(move || {
            let mut ring = ShardRing::new(&settings, &std::env::temp_dir(), sockets, woken).expect("io_uring works");
            while !stopped.load(Ordering::Acquire) {
                let mut events = Vec::new();
                ring.poll_events(&mut events);
                behaviour(&mut ring, events);
                ring.park(u64::MAX);
            }
        });
        Self { addresses, stop, waker, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addresses[0]).expect("the server accepts");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a valid limit");
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        let joined = self.thread.take().expect("joined once").join();
        assert!(joined.is_ok() || std::thread::panicking(), "the server's thread panicked");
    }
}

/// Events as values.
trait PollEvents {
    fn poll_events(&mut self, events: &mut Vec<Told>);
}

impl PollEvents for ShardRing {
    fn poll_events(&mut self, events: &mut Vec<Told>) {
        Net::poll(self, &mut |event| {
            events.push(match event {
                NetEvent::Accepted { conn, listener, .. } => Told::Accepted(conn, listener),
                NetEvent::Received { conn, bytes } => Told::Received(conn, bytes.to_vec()),
                NetEvent::Sent { conn, buf } => {
                    assert!(buf.is_empty(), "a sent buffer comes back empty");
                    Told::Sent(conn)
                }
                NetEvent::Closed { conn } => Told::Closed(conn),
            });
        });
    }
}

/// Sends back whatever comes in, one buffer at a time per connection.
fn echo() -> Behaviour {
    let mut waiting: HashMap<ConnId, (bool, Vec<u8>)> = HashMap::new();
    Box::new(move |ring, events| {
        for event in events {
            match event {
                Told::Accepted(conn, _) => assert!(waiting.insert(conn, (false, Vec::new())).is_none(), "a new number"),
                Told::Received(conn, bytes) => waiting.get_mut(&conn).expect("it is open").1.extend(bytes),
                Told::Sent(conn) => waiting.get_mut(&conn).expect("it is open").0 = false,
                Told::Closed(conn) => assert!(waiting.remove(&conn).is_some(), "closed once"),
            }
        }
        for (conn, (busy, bytes)) in &mut waiting {
            if !*busy && !bytes.is_empty() {
                *busy = true;
                Net::send(ring, *conn, std::mem::take(bytes));
            }
        }
    })
}

fn bytes_of(client: usize, count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 + client * 7 + at / 251) as u8).collect()
}

fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    let mut writer = stream.try_clone().expect("descriptors are left");
    let mut back = vec![0; bytes.len()];
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes).expect("the server reads"));
        stream.read_exact(&mut back).expect("the server answers");
    });
    assert!(back == bytes, "{} bytes came back changed", bytes.len());
}

#[test]
fn a_hundred_connections_are_echoed() {
    let server = Server::start(RingSettings::default(), 1, echo());
    let mut streams: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    for round in 0..20 {
        for (client, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&bytes_of(client, 100 + round * 50)).unwrap();
        }
        for (client, stream) in streams.iter_mut().enumerate() {
            let mut back = vec![0; 100 + round * 50];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, bytes_of(client, back.len()));
        }
    }
}

#[test]
fn megabytes_go_through_in_order_also_when_buffers_run_out() {
    for buffers in [2, 256] {
        let server = Server::start(RingSettings { buffers, ..RingSettings::default() }, 1, echo());
        std::thread::scope(|scope| {
            for client in 0..8 {
                let mut stream = server.connect();
                scope.spawn(move || exchange(&mut stream, &bytes_of(client, 3_000_000 + client)));
            }
        });
    }
}

#[test]
fn bytes_that_come_one_by_one_are_told_in_order() {
    let server = Server::start(RingSettings::default(), 1, echo());
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for (at, byte) in bytes_of(3, 500).iter().enumerate() {
        stream.write_all(&[*byte]).unwrap();
        if at % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let mut back = vec![0; 500];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes_of(3, 500));
}

#[test]
fn every_listener_is_named() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = Server::start(
        RingSettings::default(),
        3,
        Box::new(move |_, events| events.into_iter().for_each(|event| sender.send(event).unwrap())),
    );
    for (number, address) in server.addresses.iter().enumerate() {
        let stream = TcpStream::connect(address).unwrap();
        match receiver.recv_timeout(Duration::from_secs(5)).unwrap() {
            Told::Accepted(_, listener) => assert_eq!(listener, number),
            other => panic!("{other:?}"),
        }
        drop(stream);
        assert!(matches!(receiver.recv_timeout(Duration::from_secs(5)).unwrap(), Told::Closed(_)));
    }
}

#[test]
fn connections_beyond_the_limit_are_closed_and_places_come_free() {
    let server = Server::start(RingSettings { connections_max: 2, ..RingSettings::default() }, 1, echo());
    let mut first = server.connect();
    let mut second = server.connect();
    exchange(&mut first, b"one");
    exchange(&mut second, b"two");
    let mut third = server.connect();
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0, "turned away");
    drop(first);
    for attempt in 0.. {
        let mut again = server.connect();
        if again.write_all(b"x").is_ok() && again.read_exact(&mut [0; 1]).is_ok() {
            break;
        }
        assert!(attempt < 100, "a place came free");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn clients_that_vanish_in_the_middle_harm_nobody() {
    let server = Server::start(RingSettings { connections_max: 50, ..RingSettings::default() }, 1, echo());
    let mut steady = server.connect();
    for round in 0..200 {
        let mut rude = server.connect();
        let _ = rude.write_all(&bytes_of(round, 200_000));
        drop(rude);
        if round % 10 == 0 {
            exchange(&mut steady, &bytes_of(round, 10_000));
        }
    }
    exchange(&mut steady, &bytes_of(9, 100_000));
}

/// Answers the first bytes with a goodbye of `bytes` bytes and closes.
fn goodbye(bytes: usize) -> Behaviour {
    let mut closing: Vec<ConnId> = Vec::new();
    Box::new(move |ring, events| {
        let before = closing.clone();
        for event in events {
            match event {
                Told::Received(conn, _) => {
                    assert!(!before.contains(&conn), "no bytes are told after a close");
                    if !closing.contains(&conn) {
                        Net::send(ring, conn, bytes_of(0, bytes));
                        Net::close(ring, conn);
                        closing.push(conn);
                    }
                }
                Told::Closed(conn) => closing.retain(|&other| other != conn),
                Told::Accepted(..) | Told::Sent(_) => {}
            }
        }
    })
}

#[test]
fn a_close_lets_the_last_words_out_although_the_client_still_sends() {
    for bytes in [10, 1_000_000] {
        let server = Server::start(RingSettings::default(), 1, goodbye(bytes));
        let mut stream = server.connect();
        stream.write_all(&[1; 100_000]).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == bytes_of(0, bytes), "{} of {bytes} bytes came", back.len());
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut inner = goodbye(50_000_000);
    let server = Server::start(
        RingSettings::default(),
        1,
        Box::new(move |ring, events| {
            events.iter().for_each(|event| sender.send(event.clone()).unwrap());
            inner(ring, events);
        }),
    );
    let mut stream = server.connect();
    stream.write_all(b"x").unwrap();
    let closed = std::iter::from_fn(|| receiver.recv_timeout(Duration::from_secs(5)).ok())
        .any(|event| matches!(event, Told::Closed(_)));
    assert!(closed, "its connection was closed");
}

#[test]
fn a_paused_connection_is_not_read_and_a_resumed_one_is() {
    let (sender, receiver) = std::sync::mpsc::channel::<usize>();
    let resume = Arc::new(AtomicBool::new(false));
    let resumed = Arc::clone(&resume);
    let (mut conn, mut total, mut paused) = (None, 0_usize, false);
    let server = Server::start(
        RingSettings::default(),
        1,
        Box::new(move |ring, events| {
            for event in events {
                match event {
                    Told::Accepted(new, _) => conn = Some(new),
                    Told::Received(_, bytes) => total += bytes.len(),
                    Told::Sent(_) | Told::Closed(_) => {}
                }
            }
            let Some(conn) = conn else { return };
            if total > 0 && !paused {
                paused = true;
                Net::pause(ring, conn, true);
            }
            if paused && resumed.load(Ordering::Acquire) {
                Net::pause(ring, conn, false);
            }
            sender.send(total).unwrap();
        }),
    );
    const BYTES: usize = 64 << 20;
    let mut stream = server.connect();
    let writer = std::thread::spawn(move || stream.write_all(&vec![1; BYTES]).map(|()| stream));
    std::thread::sleep(Duration::from_millis(500));
    let before = receiver.try_iter().last().unwrap();
    assert!(before > 0 && before < BYTES / 2, "back-pressure holds the client: {before} bytes were read");
    assert!(!writer.is_finished());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(receiver.try_iter().last().unwrap_or(before), before, "nothing is read while paused");
    resume.store(true, Ordering::Release);
    server.waker.wake();
    let last = std::iter::from_fn(|| receiver.recv_timeout(Duration::from_secs(10)).ok()).find(|&total| total == BYTES);
    assert_eq!(last, Some(BYTES));
    writer.join().unwrap().unwrap();
}

#[test]
fn a_park_ends_at_its_deadline_or_when_woken() {
    let waker = Waker::new().unwrap();
    let settings = RingSettings::default();
    let mut ring = ShardRing::new(&settings, &std::env::temp_dir(), Vec::new(), waker.clone()).unwrap();
    let start = SystemClock::monotonic_nanos();
    ring.park(start + 20_000_000);
    let waited = SystemClock::monotonic_nanos() - start;
    assert!((20_000_000..2_000_000_000).contains(&waited), "{waited} ns");
    ring.park(0);
    waker.wake();
    ring.park(u64::MAX);
    for _ in 0..100 {
        let late = waker.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(200));
            late.wake();
        });
        ring.park(u64::MAX);
        thread.join().unwrap();
        ring.park(0);
    }
}

#[test]
fn a_background_job_wakes_a_parked_ring() {
    let cpus = gristmill_io::placement::allowed_cpus().unwrap();
    let settings = BackgroundSettings::new(std::env::temp_dir(), cpus);
    let background = Background::start("bg", settings).unwrap();
    let waker = Waker::new().unwrap();
    let mut ring = ShardRing::new(&RingSettings::default(), &std::env::temp_dir(), Vec::new(), waker.clone()).unwrap();
    for round in 0..200_u64 {
        let slow = round.is_multiple_of(20);
        let mut pending = background
            .run(waker.clone(), move |_| {
                std::thread::sleep(Duration::from_millis(u64::from(slow)));
                round
            })
            .unwrap();
        let result = loop {
            match pending.poll() {
                Some(result) => break result,
                None => ring.park(u64::MAX),
            }
        };
        assert_eq!(result, Ok(round));
    }
}

#[test]
fn two_rings_wake_each_other_without_a_loss() {
    const ROUNDS: u32 = 50_000;
    let wakers = [Waker::new().unwrap(), Waker::new().unwrap()];
    let mut ends = gristmill_io::mesh::mesh::<u32>(&wakers);
    let mut threads = Vec::new();
    for (number, waker) in wakers.iter().cloned().enumerate().rev() {
        let mut end = ends.pop().unwrap();
        threads.push(std::thread::spawn(move || {
            use gristmill_base::env::Mesh;
            use gristmill_base::ids::ShardId;
            let other = ShardId(1 - number as u16);
            let settings = RingSettings::default();
            let mut ring = ShardRing::new(&settings, &std::env::temp_dir(), Vec::new(), waker).unwrap();
            if number == 0 {
                end.try_push(other, 0).unwrap();
                end.wake(other);
            }
            let mut last = 0;
            while last < ROUNDS {
                match end.try_pop() {
                    Some((from, round)) => {
                        assert_eq!(from, other);
                        last = round + 1;
                        end.try_push(other, last).unwrap();
                        end.wake(other);
                    }
                    None => ring.park(u64::MAX),
                }
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_port_is_free_again_when_its_ring_was_dropped() {
    let server = Server::start(RingSettings::default(), 1, echo());
    let address = server.addresses[0];
    let mut stream = server.connect();
    exchange(&mut stream, b"here");
    drop(server);
    drop(listen(address, false).unwrap());
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "the client sees the end");
}
