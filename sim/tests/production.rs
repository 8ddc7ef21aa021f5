//! The conformance suite against the environment of production: the ring, the blocking disk, the mesh, the clocks.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Disk, DiskOp, FileId, Mesh, Net, NetEvent, OpenMode, Park, Ticket};
use gristmill_base::ids::ShardId;
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_io::clock::SystemClock;
use gristmill_io::listen::listen;
use gristmill_io::mesh::{MeshEnd, Waker, mesh};
use gristmill_io::posix::PosixDisk;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::{FileRing, RingSettings, ShardRing};
use gristmill_sim::conformance::{self, Cause, NetWorld, ParkWorld, Peer};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs the disk suite, each part of it in a folder of its own.
fn disk_suite(name: &str, make: impl Fn(&Path) -> Box<dyn Disk>) {
    let root = std::env::temp_dir().join(format!("gristmill-conformance-{}-{name}", std::process::id()));
    let mut parts = 0;
    conformance::disk(&mut || {
        parts += 1;
        let folder: PathBuf = root.join(parts.to_string());
        std::fs::create_dir_all(&folder).expect("the temporary folder can be made");
        make(&folder)
    });
    assert!(parts > 0);
    std::fs::remove_dir_all(root).expect("the temporary folder can be removed");
}

fn ring(root: &Path, split_durable_bytes: usize) -> Box<dyn Disk> {
    let settings = RingSettings { split_durable_bytes, ..RingSettings::default() };
    let waker = Waker::new().expect("descriptors are left");
    Box::new(ShardRing::new(&settings, root, Vec::new(), waker).expect("io_uring works"))
}

#[test]
fn the_blocking_disk_conforms() {
    disk_suite("posix", |root| Box::new(PosixDisk::new(root)));
}

#[test]
fn the_ring_conforms() {
    disk_suite("ring-split", |root| ring(root, usize::MAX));
    disk_suite("ring-dsync", |root| ring(root, 0));
}

#[test]
fn the_ring_of_files_alone_conforms() {
    disk_suite("files", |root| Box::new(FileRing::new(root).expect("io_uring works")));
}

#[test]
fn the_mesh_conforms() {
    let wakers: Vec<Waker> = (0..3).map(|_| Waker::new().expect("descriptors are left")).collect();
    let mut ends: Vec<Box<dyn Mesh<u64>>> =
        mesh(&wakers).into_iter().map(|end| Box::new(end) as Box<dyn Mesh<u64>>).collect();
    conformance::mesh(&mut ends, &mut || {});
}

#[test]
fn clock_and_randomness_conform() {
    conformance::clock(&mut SystemClock);
    conformance::rng(&mut SystemRng::new());
}

/// A ring with listeners on loopback, and their addresses.
fn ring_on_loopback(
    settings: &RingSettings,
    root: &Path,
    listeners: usize,
    waker: Waker,
) -> (ShardRing, Vec<SocketAddr>) {
    let local = "127.0.0.1:0".parse().expect("a valid address");
    let sockets: Vec<_> = (0..listeners).map(|_| listen(local, false).expect("a free port")).collect();
    let addresses = sockets.iter().map(|socket| socket.local_addr().expect("it is bound")).collect();
    (ShardRing::new(settings, root, sockets, waker).expect("io_uring works"), addresses)
}

/// The sockets of a ring, with clients over loopback.
struct RingNetWorld {
    ring: ShardRing,
    addresses: Vec<SocketAddr>,
}

struct TcpPeer(TcpStream);

impl Peer for TcpPeer {
    fn send(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() { 0 } else { self.0.write(bytes).unwrap_or(0) }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buf = vec![0; 256 << 10];
        match self.0.read(&mut buf) {
            Ok(0) => None,
            Ok(bytes) => Some(buf[..bytes].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Vec::new()),
            Err(error) => panic!("a client was cut off: {error}"),
        }
    }
}

impl NetWorld for RingNetWorld {
    fn net(&mut self) -> &mut dyn Net {
        &mut self.ring
    }

    fn connect(&mut self, listener: usize) -> Box<dyn Peer> {
        let stream = TcpStream::connect(self.addresses[listener]).expect("the listener has room");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_nonblocking(true).expect("a socket option");
        Box::new(TcpPeer(stream))
    }

    fn idle(&mut self) {
        self.ring.park(SystemClock::monotonic_nanos() + 1_000_000);
    }

    fn large(&self) -> usize {
        48 << 20
    }
}

fn net_suite(settings: &RingSettings) {
    conformance::net(&mut || {
        let waker = Waker::new().expect("descriptors are left");
        let (ring, addresses) = ring_on_loopback(settings, &std::env::temp_dir(), 3, waker);
        Box::new(RingNetWorld { ring, addresses })
    });
}

#[test]
fn the_sockets_of_the_ring_conform() {
    net_suite(&RingSettings::default());
}

#[test]
fn the_sockets_of_the_ring_conform_also_when_buffers_run_out() {
    net_suite(&RingSettings { buffers: 8, buffer_bytes: 4_096, ..RingSettings::default() });
}

/// A ring with one client, one file and another shard.
struct RingParkWorld {
    ring: ShardRing,
    file: FileId,
    client: TcpStream,
    mesh: MeshEnd<u64>,
    /// Away while a thread pushes to it.
    other: Option<MeshEnd<u64>>,
    pushing: Option<JoinHandle<MeshEnd<u64>>>,
}

impl RingParkWorld {
    fn new(root: &Path) -> Self {
        let wakers: Vec<Waker> = (0..2).map(|_| Waker::new().expect("descriptors are left")).collect();
        let mut ends = mesh(&wakers);
        let (other, mesh) = (ends.pop(), ends.pop().expect("there are two"));
        let (mut ring, addresses) = ring_on_loopback(&RingSettings::default(), root, 1, wakers[0].clone());
        let client = TcpStream::connect(addresses[0]).expect("the listener has room");
        client.set_nodelay(true).expect("a socket option");
        let mut accepted = false;
        while !accepted {
            ring.park(u64::MAX);
            Net::poll(&mut ring, &mut |event| accepted |= matches!(event, NetEvent::Accepted { .. }));
        }
        let file = ring.open("file", OpenMode::Create).expect("a new file");
        Self { ring, file, client, mesh, other, pushing: None }
    }
}

fn after(nanos: u64) {
    if nanos > 0 {
        std::thread::sleep(Duration::from_nanos(nanos));
    }
}

impl ParkWorld for RingParkWorld {
    fn now(&mut self) -> u64 {
        SystemClock::monotonic_nanos()
    }

    fn park(&mut self, deadline_nanos: u64) {
        self.ring.park(deadline_nanos);
    }

    fn arrange(&mut self, cause: Cause, after_nanos: u64) {
        match cause {
            Cause::Byte => {
                let mut client = self.client.try_clone().expect("descriptors are left");
                let thread = std::thread::spawn(move || {
                    after(after_nanos);
                    client.write_all(b"x").expect("the connection is open");
                });
                if after_nanos == 0 {
                    thread.join().expect("the client wrote");
                }
            }
            Cause::Disk => {
                let buf = AlignedBuf::zeroed(BLOCK_BYTES);
                let op = DiskOp::WriteDurable { file: self.file, offset: 0, buf, bytes: BLOCK_BYTES };
                self.ring.submit(Ticket(1), op);
            }
            Cause::Wake => {
                let pushed = self.pushing.take().map(|thread| thread.join().expect("the other shard pushed"));
                let mut other = self.other.take().or(pushed).expect("the other shard is somewhere");
                let thread = std::thread::spawn(move || {
                    after(after_nanos);
                    other.try_push(ShardId(0), 1).expect("there is room");
                    other.wake(ShardId(0));
                    other
                });
                if after_nanos == 0 {
                    self.other = Some(thread.join().expect("the other shard pushed"));
                } else {
                    self.pushing = Some(thread);
                }
            }
        }
    }

    fn poll(&mut self) -> usize {
        let (mut done, mut told) = (Vec::new(), 0);
        Disk::poll(&mut self.ring, &mut done);
        Net::poll(&mut self.ring, &mut |event| told += usize::from(matches!(event, NetEvent::Received { .. })));
        done.len() + told + usize::from(self.mesh.try_pop().is_some())
    }

    fn tolerance(&self) -> u64 {
        3_000_000_000
    }
}

#[test]
fn the_rest_of_the_ring_conforms() {
    let root = std::env::temp_dir().join(format!("gristmill-conformance-{}-park", std::process::id()));
    std::fs::create_dir_all(&root).expect("the temporary folder can be made");
    conformance::park(&mut RingParkWorld::new(&root));
    std::fs::remove_dir_all(root).expect("the temporary folder can be removed");
}
