//! The conformance suite of the environment, over the simulated one. production.rs does the same for the real one.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Clock, Disk, DiskOp, FileId, Mesh, Net, NetEvent, OpenMode, Park, Ticket};
use gristmill_base::ids::{ConnId, ShardId};
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_sim::clock::SimClock;
use gristmill_sim::conformance::{self, Cause, NetWorld, ParkWorld, Peer};
use gristmill_sim::disk::SimDisk;
use gristmill_sim::mesh::SimMesh;
use gristmill_sim::net::{SimClient, SimNet};
use gristmill_sim::park::{NextDue, SimPark};
use gristmill_sim::rng::SimRng;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[test]
fn simulated_disk() {
    for seed in 0..20 {
        conformance::disk(&mut || Box::new(SimDisk::new(seed, SimClock::new())) as Box<dyn Disk>);
    }
}

#[test]
fn simulated_clock() {
    conformance::clock(&mut SimClock::new());
}

#[test]
fn simulated_randomness() {
    conformance::rng(&mut SimRng::new(1));
}

#[test]
fn simulated_mesh() {
    for seed in 0..20 {
        let clock = SimClock::new();
        let ends = SimMesh::ends(3, 50_000, &clock, SimRng::new(seed));
        let mut ends: Vec<Box<dyn Mesh<u64>>> = ends.into_iter().map(|end| Box::new(end) as _).collect();
        conformance::mesh(&mut ends, &mut || clock.advance(1_000));
    }
}

/// Sockets of a simulated network, or something around them, and its clients.
struct SimNetWorld<N> {
    net: N,
    connect: Box<dyn Fn(usize) -> SimClient>,
    large: usize,
}

struct SimPeer(SimClient);

impl Peer for SimPeer {
    fn send(&mut self, bytes: &[u8]) -> usize {
        self.0.send(bytes);
        bytes.len()
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let bytes = self.0.receive();
        (!bytes.is_empty() || !self.0.is_over()).then_some(bytes)
    }
}

impl<N: Net> NetWorld for SimNetWorld<N> {
    fn net(&mut self) -> &mut dyn Net {
        &mut self.net
    }

    fn connect(&mut self, listener: usize) -> Box<dyn Peer> {
        Box::new(SimPeer((self.connect)(listener)))
    }

    fn idle(&mut self) {}

    fn large(&self) -> usize {
        self.large
    }
}

/// A world over a simulated network whose pieces have at most so many bytes.
fn sim_net_world<N: Net>(piece_max: u64, seed: u64, wrap: impl Fn(Rc<RefCell<SimNet>>) -> N) -> SimNetWorld<N> {
    let net = Rc::new(RefCell::new(SimNet::new(piece_max, SimRng::new(seed))));
    let connect = Rc::clone(&net);
    SimNetWorld {
        net: wrap(net),
        connect: Box::new(move |listener| connect.borrow().connect(listener)),
        large: if piece_max < 1_000 { 400_000 } else { 4 << 20 },
    }
}

/// A simulated network with a fault, or with none.
struct Faulty {
    net: Rc<RefCell<SimNet>>,
    fault: Fault,
    /// Events so far.
    told: u64,
    /// Of the first connection.
    number: Option<ConnId>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    WrongListener,
    NumberAgain,
    BytesLost,
    BytesTwice,
    SentTwice,
    SentUncleared,
    PauseIgnored,
    CloseAtOnce,
    ClosedTwice,
    ClosedNever,
}

impl Net for Faulty {
    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.net.borrow_mut().send(conn, buf);
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        self.net.borrow_mut().pause(conn, paused && self.fault != Fault::PauseIgnored);
    }

    fn close(&mut self, conn: ConnId) {
        if self.fault == Fault::CloseAtOnce {
            return self.net.borrow().cut_all();
        }
        self.net.borrow_mut().close(conn);
    }

    fn poll(&mut self, each: &mut dyn FnMut(NetEvent<'_>)) {
        let Self { net, fault, told, number } = self;
        net.borrow_mut().poll(&mut |event| {
            *told += 1;
            match (event, *fault) {
                (NetEvent::Accepted { conn, peer, .. }, Fault::WrongListener) => {
                    each(NetEvent::Accepted { conn, peer, listener: 0 });
                }
                (NetEvent::Accepted { conn, peer, listener }, Fault::NumberAgain) => {
                    each(NetEvent::Accepted { conn: *number.get_or_insert(conn), peer, listener });
                }
                (NetEvent::Received { conn, bytes }, Fault::BytesLost) if bytes.len() > 2 && *told > 200 => {
                    each(NetEvent::Received { conn, bytes: &bytes[1..] });
                }
                (NetEvent::Received { conn, bytes }, Fault::BytesTwice) if *told > 200 => {
                    each(NetEvent::Received { conn, bytes });
                    each(NetEvent::Received { conn, bytes });
                }
                (NetEvent::Sent { conn, buf }, Fault::SentTwice) => {
                    each(NetEvent::Sent { conn, buf });
                    each(NetEvent::Sent { conn, buf: Vec::new() });
                }
                (NetEvent::Sent { conn, mut buf }, Fault::SentUncleared) => {
                    buf.push(0);
                    each(NetEvent::Sent { conn, buf });
                }
                (NetEvent::Closed { conn }, Fault::ClosedTwice) => {
                    each(NetEvent::Closed { conn });
                    each(NetEvent::Closed { conn });
                }
                (NetEvent::Closed { .. }, Fault::ClosedNever) => {}
                (event, _) => each(event),
            }
        });
    }
}

/// Runs the suite over a simulated network with a fault.
fn net_suite(piece_max: u64, seed: u64, fault: Fault) {
    conformance::net(&mut || {
        let wrap = |net| Faulty { net, fault, told: 0, number: None };
        Box::new(sim_net_world(piece_max, seed, wrap))
    });
}

#[test]
fn simulated_net() {
    for (seed, piece_max) in [64, 5_000, 1 << 20, 300, 70_000].into_iter().enumerate() {
        net_suite(piece_max, seed as u64, Fault::None);
    }
}

#[test]
fn the_suite_of_the_net_sees_faults() {
    let faults = [
        Fault::WrongListener,
        Fault::NumberAgain,
        Fault::BytesLost,
        Fault::BytesTwice,
        Fault::SentTwice,
        Fault::SentUncleared,
        Fault::PauseIgnored,
        Fault::CloseAtOnce,
        Fault::ClosedTwice,
        Fault::ClosedNever,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let seen = std::panic::catch_unwind(|| net_suite(300, 1, fault));
        assert!(seen.is_err(), "fault {number} was not seen");
    }
}

/// Disk, network and mesh of one simulated shard, with rest that any of them ends.
struct SimParkWorld {
    clock: SimClock,
    park: SimPark,
    disk: Rc<RefCell<SimDisk>>,
    file: FileId,
    net: Rc<RefCell<SimNet>>,
    client: SimClient,
    /// When the client sends a byte, `u64::MAX` for never.
    byte_at: Rc<Cell<u64>>,
    mesh: Rc<RefCell<SimMesh<u64>>>,
    other: SimMesh<u64>,
    /// When the other shard pushes and wakes, `u64::MAX` for never.
    wake_at: Rc<Cell<u64>>,
}

impl SimParkWorld {
    fn new(seed: u64) -> Self {
        let clock = SimClock::new();
        let mut disk = SimDisk::new(seed, clock.clone());
        let file = disk.open("file", OpenMode::Create).expect("a new file");
        let mut net = SimNet::new(10, SimRng::new(seed));
        let client = net.connect(0);
        net.poll(&mut |event| assert!(matches!(event, NetEvent::Accepted { .. })));
        let mut ends = SimMesh::ends(2, 50_000, &clock, SimRng::new(seed));
        let (other, mesh) =
            (ends.pop().expect("there are two"), Rc::new(RefCell::new(ends.pop().expect("there are two"))));
        let (disk, net) = (Rc::new(RefCell::new(disk)), Rc::new(RefCell::new(net)));
        let [byte_at, wake_at] = [(); 2].map(|()| Rc::new(Cell::new(u64::MAX)));
        let park = {
            let (disk, net, mesh) = (Rc::clone(&disk), Rc::clone(&net), Rc::clone(&mesh));
            let (byte_at, wake_at) = (Rc::clone(&byte_at), Rc::clone(&wake_at));
            let (of_net, of_mesh) = (clock.clone(), clock.clone());
            let parts: Vec<NextDue> = vec![
                Box::new(move || disk.borrow().next_due()),
                Box::new(move || net.borrow().has_news().then(|| of_net.nanos())),
                Box::new(move || {
                    let mut mesh = mesh.borrow_mut();
                    if mesh.take_wake() { Some(of_mesh.nanos()) } else { mesh.next_due() }
                }),
                Box::new(move || Some(byte_at.get().min(wake_at.get()))),
            ];
            SimPark::new(&clock, parts)
        };
        Self { clock, park, disk, file, net, client, byte_at, mesh, other, wake_at }
    }

    /// Lets the client and the other shard do what is due.
    fn act(&mut self) {
        if self.byte_at.get() <= self.clock.nanos() {
            self.byte_at.set(u64::MAX);
            self.client.send(b"x");
        }
        if self.wake_at.get() <= self.clock.nanos() {
            self.wake_at.set(u64::MAX);
            self.other.try_push(ShardId(0), 1).expect("there is room");
            self.other.wake(ShardId(0));
        }
    }
}

impl ParkWorld for SimParkWorld {
    fn now(&mut self) -> u64 {
        self.clock.now().monotonic_nanos
    }

    fn park(&mut self, deadline_nanos: u64) {
        self.park.park(deadline_nanos);
    }

    fn arrange(&mut self, cause: Cause, after_nanos: u64) {
        let at = self.clock.nanos() + after_nanos;
        match cause {
            Cause::Byte => self.byte_at.set(at),
            Cause::Wake => self.wake_at.set(at),
            Cause::Disk => {
                let buf = AlignedBuf::zeroed(BLOCK_BYTES);
                let op = DiskOp::WriteDurable { file: self.file, offset: 0, buf, bytes: BLOCK_BYTES };
                self.disk.borrow_mut().submit(Ticket(1), op);
            }
        }
        self.act();
    }

    fn poll(&mut self) -> usize {
        self.act();
        let (mut done, mut told) = (Vec::new(), 0);
        self.disk.borrow_mut().poll(&mut done);
        self.net.borrow_mut().poll(&mut |event| told += usize::from(matches!(event, NetEvent::Received { .. })));
        done.len() + told + usize::from(self.mesh.borrow_mut().try_pop().is_some())
    }

    fn tolerance(&self) -> u64 {
        0
    }
}

#[test]
fn simulated_park() {
    for seed in 0..20 {
        conformance::park(&mut SimParkWorld::new(seed));
    }
}
