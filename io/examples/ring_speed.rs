//! How fast one ring is: an echo of small messages over loopback, and durable writes. Server and clients share the
//! machine; pin them with `--server-cpu` and `--client-cpu` or leave both to the scheduler.
//!
//! `cargo run --release -p gristmill-io --example ring_speed -- DIR [SERVER_CPU CLIENT_CPU]`

#![cfg(not(loom))]

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Completion, Disk, DiskOp, DiskOutcome, Net, NetEvent, OpenMode, Park, Ticket};
use gristmill_base::ids::ConnId;
use gristmill_io::clock::SystemClock;
use gristmill_io::listen::listen;
use gristmill_io::mesh::Waker;
use gristmill_io::placement::pin_current_thread;
use gristmill_io::posix::PosixDisk;
use gristmill_io::ring::{RingSettings, ShardRing};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const CONNECTIONS: usize = 50;
const MESSAGE_BYTES: usize = 128;
const REPLY_BYTES: usize = 12;
const SECONDS: u64 = 3;
const FILE_BYTES: u64 = 64 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = PathBuf::from(args.first().expect("a folder to write to is named"));
    let cpu = |at: usize| args.get(at).map(|text| text.parse::<usize>().expect("a CPU is a number"));
    std::fs::create_dir_all(&root).expect("the folder can be made");
    for pipeline in [1, 16, 64] {
        echo_round(&root, pipeline, cpu(1), cpu(2));
    }
    if let Some(cpu) = cpu(1) {
        pin_current_thread(cpu).expect("the server's CPU is allowed");
    }
    for bytes in [4 << 10, 64 << 10, 256 << 10] {
        disk_round(&root, bytes);
    }
    std::fs::remove_file(root.join("speed")).expect("the file was made");
}

/// Replies 12 bytes per 128-byte message, for some seconds.
fn echo_round(root: &Path, pipeline: usize, server_cpu: Option<usize>, client_cpu: Option<usize>) {
    let socket = listen("127.0.0.1:0".parse().expect("a valid address"), false).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let (stop, waker) = (Arc::new(AtomicBool::new(false)), Waker::new().expect("descriptors are left"));
    let stop_server = Arc::new(AtomicBool::new(false));
    let (stopped, woken, folder) = (Arc::clone(&stop_server), waker.clone(), root.to_owned());
    let server = thread::spawn(move || {
        server_cpu.into_iter().for_each(|cpu| drop(pin_current_thread(cpu)));
        let mut ring = ShardRing::new(&RingSettings::default(), &folder, vec![socket], woken).expect("io_uring works");
        serve(&mut ring, &stopped)
    });
    let replies = Arc::new(AtomicU64::new(0));
    let start = SystemClock::monotonic_nanos();
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (stop, replies) = (Arc::clone(&stop), Arc::clone(&replies));
            thread::spawn(move || {
                client_cpu.into_iter().for_each(|cpu| drop(pin_current_thread(cpu)));
                ask(address, pipeline, &stop, &replies);
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(SECONDS));
    let (count, nanos) = (replies.load(Ordering::Relaxed), SystemClock::monotonic_nanos() - start);
    stop.store(true, Ordering::Release);
    clients.into_iter().for_each(|client| client.join().expect("the clients work"));
    stop_server.store(true, Ordering::Release);
    waker.wake();
    let turns = server.join().expect("the server works");
    let rate = count as f64 * 1e6 / nanos as f64;
    println!(
        "echo {CONNECTIONS}x{pipeline}: {rate:.1} thousand replies/s, {:.1} per turn",
        count as f64 / turns as f64
    );
}

fn serve(ring: &mut ShardRing, stop: &AtomicBool) -> u64 {
    let mut conns: HashMap<ConnId, (usize, Option<Vec<u8>>)> = HashMap::new();
    let mut ready: Vec<ConnId> = Vec::new();
    let mut turns = 0;
    while !stop.load(Ordering::Acquire) {
        turns += 1;
        Net::poll(ring, &mut |event| match event {
            NetEvent::Accepted { conn, .. } => drop(conns.insert(conn, (0, Some(Vec::new())))),
            NetEvent::Received { conn, bytes } => {
                conns.get_mut(&conn).expect("it is open").0 += bytes.len();
                ready.push(conn);
            }
            NetEvent::Sent { conn, buf } => {
                conns.get_mut(&conn).expect("it is open").1 = Some(buf);
                ready.push(conn);
            }
            NetEvent::Closed { conn } => drop(conns.remove(&conn)),
        });
        for conn in ready.drain(..) {
            let Some((pending, buf)) = conns.get_mut(&conn) else { continue };
            let messages = *pending / MESSAGE_BYTES;
            if let Some(mut out) = (messages > 0).then(|| buf.take()).flatten() {
                *pending %= MESSAGE_BYTES;
                out.resize(messages * REPLY_BYTES, 7);
                Net::send(ring, conn, out);
            }
        }
        ring.park(u64::MAX);
    }
    turns
}

/// Half of the connections, each with `pipeline` messages in flight, one after the other.
fn ask(address: SocketAddr, pipeline: usize, stop: &AtomicBool, replies: &AtomicU64) {
    let request = vec![1_u8; MESSAGE_BYTES * pipeline];
    let mut reply = vec![0_u8; REPLY_BYTES * pipeline];
    let mut streams: Vec<TcpStream> =
        (0..CONNECTIONS / 2).map(|_| TcpStream::connect(address).expect("the server accepts")).collect();
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

/// One durable write at a time: how many a second, in each of the ways there are.
fn disk_round(root: &Path, bytes: usize) {
    let path = root.join("speed");
    if !path.exists() {
        std::fs::write(&path, vec![0; FILE_BYTES as usize]).expect("there is room");
        std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("the disk works");
    }
    for (name, split) in [("write + flush in the ring", usize::MAX), ("RWF_DSYNC", 0)] {
        let settings = RingSettings { split_durable_bytes: split, ..RingSettings::default() };
        let waker = Waker::new().expect("descriptors are left");
        let mut ring = ShardRing::new(&settings, root, Vec::new(), waker).expect("io_uring works");
        let times = durable_writes(bytes, &mut |file, op| one(&mut ring, file, op));
        report(&format!("ring, {name}"), bytes, times);
    }
    let mut disk = PosixDisk::new(root);
    report("blocking RWF_DSYNC", bytes, durable_writes(bytes, &mut |file, op| one(&mut disk, file, op)));
}

type Once<'a> = &'a mut dyn FnMut(Option<gristmill_base::env::FileId>, Option<DiskOp>) -> Answer;

enum Answer {
    Opened(gristmill_base::env::FileId),
    Written(AlignedBuf),
}

/// Opens the file, or does one operation and waits for it.
fn one(disk: &mut dyn Disk, file: Option<gristmill_base::env::FileId>, op: Option<DiskOp>) -> Answer {
    let Some(op) = op else {
        assert!(file.is_none());
        return Answer::Opened(disk.open("speed", OpenMode::Write).expect("the file is there"));
    };
    disk.submit(Ticket(1), op);
    let mut done: Vec<Completion> = Vec::new();
    while done.is_empty() {
        disk.wait(&mut done);
    }
    match done.remove(0).result.expect("the disk works") {
        DiskOutcome::Written { buf } => Answer::Written(buf),
        other => panic!("{other:?}"),
    }
}

fn durable_writes(bytes: usize, once: Once<'_>) -> Vec<u64> {
    let Answer::Opened(file) = once(None, None) else { panic!("it was opened") };
    let mut buf = AlignedBuf::zeroed(bytes);
    let mut times = Vec::new();
    let end = SystemClock::monotonic_nanos() + SECONDS * 500_000_000;
    let mut offset = 0;
    loop {
        let start = SystemClock::monotonic_nanos();
        if start >= end {
            return times;
        }
        let Answer::Written(back) = once(Some(file), Some(DiskOp::WriteDurable { file, offset, buf, bytes })) else {
            panic!("it was written")
        };
        buf = back;
        times.push(SystemClock::monotonic_nanos() - start);
        offset = (offset + bytes as u64) % FILE_BYTES;
    }
}

fn report(name: &str, bytes: usize, mut times: Vec<u64>) {
    times.sort_unstable();
    let rate = times.len() as f64 * 1e9 / times.iter().sum::<u64>() as f64;
    let at = |part: usize| times[(times.len() - 1) * part / 1_000] / 1_000;
    println!(
        "{:>4} KiB {name}: {rate:.0}/s, p50 {} us, p99 {} us, p99.9 {} us",
        bytes >> 10,
        at(500),
        at(990),
        at(999)
    );
}
