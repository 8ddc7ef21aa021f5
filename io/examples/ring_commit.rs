//! Group commit on one ring without an engine: messages of 128 bytes come in over loopback, are written as records of
//! 156 bytes in one durable batch at a time, and are answered when their batch is durable. The ceiling that the ring
//! sets to durable puts. Server and clients share the machine.
//!
//! `cargo run --release -p gristmill-io --example ring_commit -- DIR [SERVER_CPU CLIENT_CPU]`

#![cfg(not(loom))]

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Completion, Disk, DiskOp, DiskOutcome, FileId, Net, NetEvent, OpenMode, Park, Ticket};
use gristmill_base::ids::ConnId;
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_io::clock::SystemClock;
use gristmill_io::listen::listen;
use gristmill_io::mesh::Waker;
use gristmill_io::placement::pin_current_thread;
use gristmill_io::ring::{RingSettings, ShardRing};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const MESSAGE_BYTES: usize = 128;
const RECORD_BYTES: usize = 156;
const REPLY_BYTES: usize = 12;
const BATCH_BYTES_MAX: usize = 2 << 20;
const SECONDS: u64 = 3;
const FILE_BYTES: u64 = 256 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(args.first().expect("a folder to write to is named"));
    let cpu = |at: usize| args.get(at).map(|text| text.parse::<usize>().expect("a CPU is a number"));
    std::fs::create_dir_all(root).expect("the folder can be made");
    std::fs::write(root.join("log"), vec![0; FILE_BYTES as usize]).expect("there is room");
    std::fs::File::open(root.join("log")).and_then(|file| file.sync_all()).expect("the disk works");
    for (connections, pipeline) in [(1, 1), (50, 1), (50, 16), (50, 64), (50, 256)] {
        for (name, split) in [("RWF_DSYNC", 0), ("write + flush", usize::MAX)] {
            round(root, (connections, pipeline), name, split, (cpu(1), cpu(2)));
        }
    }
    std::fs::remove_file(root.join("log")).expect("the file was made");
}

fn round(root: &Path, shape: (usize, usize), name: &str, split: usize, cpus: (Option<usize>, Option<usize>)) {
    let (connections, pipeline) = shape;
    let socket = listen("127.0.0.1:0".parse().expect("a valid address"), false).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let (stop, waker) = (Arc::new(AtomicBool::new(false)), Waker::new().expect("descriptors are left"));
    let stop_server = Arc::new(AtomicBool::new(false));
    let (stopped, woken, folder) = (Arc::clone(&stop_server), waker.clone(), root.to_owned());
    let server = thread::spawn(move || {
        cpus.0.into_iter().for_each(|cpu| drop(pin_current_thread(cpu)));
        let settings = RingSettings { split_durable_bytes: split, ..RingSettings::default() };
        let mut ring = ShardRing::new(&settings, &folder, vec![socket], woken).expect("io_uring works");
        let mut shard = Shard::new(&mut ring);
        while !stopped.load(Ordering::Acquire) {
            shard.turn(&mut ring);
            ring.park(u64::MAX);
        }
        (shard.turns, shard.flush_nanos)
    });
    let replies = Arc::new(AtomicU64::new(0));
    let start = SystemClock::monotonic_nanos();
    let clients: Vec<_> = (0..if connections == 1 { 1 } else { 2 })
        .map(|_| {
            let (stop, replies) = (Arc::clone(&stop), Arc::clone(&replies));
            thread::spawn(move || {
                cpus.1.into_iter().for_each(|cpu| drop(pin_current_thread(cpu)));
                ask(address, connections.div_ceil(2), pipeline, &stop, &replies);
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(SECONDS));
    let (count, nanos) = (replies.load(Ordering::Relaxed), SystemClock::monotonic_nanos() - start);
    stop.store(true, Ordering::Release);
    clients.into_iter().for_each(|client| client.join().expect("the clients work"));
    stop_server.store(true, Ordering::Release);
    waker.wake();
    let (turns, mut flushes) = server.join().expect("the server works");
    flushes.sort_unstable();
    let rate = count as f64 * 1e6 / nanos as f64;
    println!(
        "{connections}x{pipeline} {name}: {rate:.1} thousand/s, {} flushes/s of {:.0} records, p50 {} us, p99 {} us; {} turns/s",
        flushes.len() as u64 / SECONDS,
        count as f64 / flushes.len() as f64,
        flushes[flushes.len() / 2] / 1_000,
        flushes[flushes.len() * 99 / 100] / 1_000,
        turns / SECONDS,
    );
}

/// One connection of the server.
#[derive(Default)]
struct Peer {
    /// Bytes of a message that has not come whole.
    partial: usize,
    /// Replies that are due.
    due: usize,
    /// `None` while a send is in flight.
    buf: Option<Vec<u8>>,
}

struct Shard {
    file: FileId,
    offset: u64,
    peers: HashMap<ConnId, Peer>,
    /// Messages of the open batch: from whom, how many.
    open: Vec<(ConnId, usize)>,
    open_bytes: usize,
    /// Messages of the batch in flight.
    flying: Vec<(ConnId, usize)>,
    /// The buffer, unless a batch is in flight.
    buf: Option<AlignedBuf>,
    flush_start: u64,
    flush_nanos: Vec<u64>,
    turns: u64,
    done: Vec<Completion>,
    events: Vec<(ConnId, usize)>,
}

impl Shard {
    fn new(ring: &mut ShardRing) -> Self {
        Self {
            file: ring.open("log", OpenMode::Write).expect("the file is there"),
            offset: 0,
            peers: HashMap::new(),
            open: Vec::new(),
            open_bytes: 0,
            flying: Vec::new(),
            buf: Some(AlignedBuf::zeroed(2 * BATCH_BYTES_MAX)),
            flush_start: 0,
            flush_nanos: Vec::new(),
            turns: 0,
            done: Vec::new(),
            events: Vec::new(),
        }
    }

    fn turn(&mut self, ring: &mut ShardRing) {
        self.turns += 1;
        self.complete(ring);
        let (peers, events) = (&mut self.peers, &mut self.events);
        Net::poll(ring, &mut |event| match event {
            NetEvent::Accepted { conn, .. } => {
                drop(peers.insert(conn, Peer { buf: Some(Vec::new()), ..Peer::default() }))
            }
            NetEvent::Received { conn, bytes } => events.push((conn, bytes.len())),
            NetEvent::Sent { conn, buf } => {
                peers.get_mut(&conn).expect("it is open").buf = Some(buf);
                events.push((conn, 0));
            }
            NetEvent::Closed { conn } => drop(peers.remove(&conn)),
        });
        for (conn, bytes) in self.events.drain(..) {
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            peer.partial += bytes;
            let messages = peer.partial / MESSAGE_BYTES;
            peer.partial %= MESSAGE_BYTES;
            if messages > 0 {
                self.open.push((conn, messages));
                self.open_bytes += messages * RECORD_BYTES;
            }
            answer(peer, ring, conn);
        }
        self.seal(ring);
    }

    /// Takes in a durable batch, starts the next one, and only then answers the first.
    fn complete(&mut self, ring: &mut ShardRing) {
        Disk::poll(ring, &mut self.done);
        let Some(done) = self.done.pop() else { return };
        let Ok(DiskOutcome::Written { buf }) = done.result else { panic!("{done:?}") };
        self.flush_nanos.push(SystemClock::monotonic_nanos() - self.flush_start);
        self.buf = Some(buf);
        let durable = std::mem::take(&mut self.flying);
        self.seal(ring);
        for (conn, messages) in durable {
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            peer.due += messages;
            answer(peer, ring, conn);
        }
    }

    fn seal(&mut self, ring: &mut ShardRing) {
        let Some(mut buf) = (self.open_bytes > 0).then(|| self.buf.take()).flatten() else { return };
        let bytes = self.open_bytes.next_multiple_of(BLOCK_BYTES);
        assert!(bytes <= buf.len(), "a closed loop bounds the batch");
        buf.as_mut_slice()[..self.open_bytes].fill(self.turns as u8);
        if self.offset + bytes as u64 > FILE_BYTES {
            self.offset = 0;
        }
        self.flush_start = SystemClock::monotonic_nanos();
        ring.submit(Ticket(self.turns), DiskOp::WriteDurable { file: self.file, offset: self.offset, buf, bytes });
        self.offset += bytes as u64;
        self.open_bytes = 0;
        std::mem::swap(&mut self.open, &mut self.flying);
    }
}

/// Sends the replies that are due, unless a send is in flight.
fn answer(peer: &mut Peer, ring: &mut ShardRing, conn: ConnId) {
    if let Some(mut out) = (peer.due > 0).then(|| peer.buf.take()).flatten() {
        out.resize(std::mem::take(&mut peer.due) * REPLY_BYTES, 7);
        Net::send(ring, conn, out);
    }
}

/// A share of the connections, each with `pipeline` messages in flight, one after the other.
fn ask(address: SocketAddr, connections: usize, pipeline: usize, stop: &AtomicBool, replies: &AtomicU64) {
    let request = vec![1_u8; MESSAGE_BYTES * pipeline];
    let mut reply = vec![0_u8; REPLY_BYTES * pipeline];
    let mut streams: Vec<TcpStream> =
        (0..connections).map(|_| TcpStream::connect(address).expect("the server accepts")).collect();
    for stream in &mut streams {
        stream.set_nodelay(true).expect("a socket can be told");
        stream.write_all(&request).expect("the server reads");
    }
    while !stop.load(Ordering::Acquire) {
        for stream in &mut streams {
            stream.read_exact(&mut reply).expect("the server answers");
            replies.fetch_add(pipeline as u64, Ordering::Relaxed);
            stream.write_all(&request).expect("the server reads");
        }
    }
}
