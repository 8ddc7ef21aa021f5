//! A small server over loopback, written with the codec, with faults from a seed. It holds sessions to the rules of
//! docs/protocol.md and counts how often each position was carried out.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]

pub mod engine;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use engine::{Engine, Outcome};
use gristmill_base::codec::Put;
use gristmill_base::ids::{SessionId, SessionKey, ShardId, SlotId};
use gristmill_base::placement::shard_of;
use gristmill_wire::{Deframer, Failure, Frame, FrameKind, HelloReply, Operation, Reply, ResultWriter, Status};

pub const SLOTS: u16 = 16;

/// How often something goes wrong, each in a thousand.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// The connection is cut before an operation is carried out.
    pub cut_before: u64,
    /// The connection is cut after a frame was carried out, before its results go out.
    pub cut_after: u64,
    /// An operation is refused for capacity.
    pub capacity: u64,
    /// A frame of results goes out twice.
    pub twice: u64,
    /// A hello is refused as not ready.
    pub not_ready: u64,
}

pub struct World {
    pub engine: Engine,
    pub faults: Faults,
    random: u64,
    next_session: u64,
    ports: Vec<u16>,
    live: Vec<TcpStream>,
    pub hellos: u64,
    pub data_directory: [u8; 16],
    credit: (u32, u32),
}

impl World {
    fn chance(&mut self, thousandths: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1_000 < thousandths
    }
}

pub struct Server {
    pub world: Arc<Mutex<World>>,
    pub address: String,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start(shards: u16, seed: u64, faults: Faults, credit: (u32, u32)) -> Self {
        let listeners: Vec<_> = (0..shards).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let address = format!("127.0.0.1:{}", ports[0]);
        let world = World {
            engine: Engine { slot_count: SLOTS, ..Engine::default() },
            faults,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            next_session: 100,
            ports,
            live: Vec::new(),
            hellos: 0,
            data_directory: *b"0123456789abcdef",
            credit,
        };
        Self { world: Arc::new(Mutex::new(world)), address, stop: Arc::default() }.listening(listeners)
    }

    fn listening(self, listeners: Vec<TcpListener>) -> Self {
        for (shard, listener) in listeners.into_iter().enumerate() {
            let (world, stop) = (Arc::clone(&self.world), Arc::clone(&self.stop));
            std::thread::spawn(move || listen(shard as u16, &listener, &world, &stop));
        }
        self
    }

    /// Ends, and gives what the server starts with again, on other ports.
    pub fn gone(self) -> impl FnOnce() -> Self {
        let world = Arc::clone(&self.world);
        drop(self);
        move || {
            let count = world.lock().unwrap().ports.len();
            let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
            let address = format!("127.0.0.1:{}", ports[0]);
            world.lock().unwrap().ports = ports;
            Self { world, address, stop: Arc::default() }.listening(listeners)
        }
    }

    /// Cuts every connection and forgets what a restart forgets.
    pub fn restart(&self) {
        let mut world = self.world.lock().unwrap();
        world.engine.restart();
        for live in world.live.drain(..) {
            let _ = live.shutdown(std::net::Shutdown::Both);
        }
    }

    pub fn with<R>(&self, with: impl FnOnce(&mut World) -> R) -> R {
        with(&mut self.world.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.restart();
    }
}

fn listen(shard: u16, listener: &TcpListener, world: &Arc<Mutex<World>>, stop: &Arc<AtomicBool>) {
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(std::time::Duration::from_millis(1));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        world.lock().unwrap().live.push(stream.try_clone().unwrap());
        let world = Arc::clone(world);
        std::thread::spawn(move || {
            let _ = serve(shard, &stream, &world);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
    }
}

fn serve(shard: u16, mut stream: &TcpStream, world: &Mutex<World>) -> Result<(), String> {
    let mut deframer = Deframer::new(FrameKind::Requests);
    deframer.allow(16 << 20);
    let (mut buffer, mut session) = (vec![0; 64 << 10], 0);
    loop {
        let count = stream.read(&mut buffer).map_err(|error| error.to_string())?;
        if count == 0 {
            return Ok(());
        }
        deframer.push(&buffer[..count]);
        while let Some(frame) = deframer.next_frame().map_err(|error| error.to_string())? {
            let mut out = Vec::new();
            let mut held = world.lock().unwrap();
            let gone = answer_frame(shard, &frame, &mut held, &mut session, &mut out);
            let faults = held.faults;
            if gone || held.chance(faults.cut_after) {
                return Ok(());
            }
            let twice = session != 0 && held.chance(faults.twice);
            drop(held);
            stream.write_all(&out).map_err(|error| error.to_string())?;
            if twice {
                stream.write_all(&out).map_err(|error| error.to_string())?;
            }
        }
    }
}

/// Whether the connection is to be cut.
fn answer_frame(shard: u16, frame: &Frame<'_>, world: &mut World, session: &mut u64, out: &mut Vec<u8>) -> bool {
    let mut results: Vec<(u32, Outcome)> = Vec::new();
    let (mut operations, mut bytes) = (0, 0);
    for request in frame.requests() {
        let request = request.unwrap();
        operations += 1;
        bytes += request.credit_bytes();
        let operation = request.operation().unwrap();
        if let Operation::Hello(hello) = operation {
            world.hellos += 1;
            let faults = world.faults;
            let reply = greet(shard, world, hello.session.0, hello.key);
            let mut writer = ResultWriter::new(out);
            if world.chance(faults.not_ready) {
                writer.failure(request.correlation, &Failure::new(Status::NotReady, "starting"));
                return false;
            }
            match reply {
                Some(reply) => {
                    *session = reply.session.0;
                    writer.reply(request.correlation, &Reply::Hello(reply)).unwrap();
                }
                None => writer.failure(request.correlation, &Failure::new(Status::Expired, "gone")),
            }
            return false;
        }
        assert_ne!(*session, 0, "hello comes first");
        let faults = world.faults;
        if world.chance(faults.cut_before) {
            return true;
        }
        let full = world.chance(faults.capacity);
        results.push((request.correlation, world.engine.run(*session, &operation, full)));
    }
    assert!(operations <= u64::from(world.credit.0), "{operations} operations in flight at least");
    assert!(operations == 1 || bytes <= world.credit.1 as usize, "{bytes} bytes in flight at least");
    if world.chance(500) {
        results.reverse();
    }
    write_results(results, out);
    false
}

/// Frames of results from bodies that are already encoded: written as the codec does, by hand.
fn write_results(results: Vec<(u32, Outcome)>, out: &mut Vec<u8>) {
    for (correlation, (status, body)) in results {
        let start = out.len();
        let mut item = Vec::new();
        item.put_u32(correlation);
        item.put_u16(status.code());
        item.put_u32(body.len() as u32);
        item.extend_from_slice(&body);
        out.extend_from_slice(b"MILL\x01\x02\x00\x00");
        out.put_u32(item.len() as u32);
        let sum = gristmill_base::checksum::crc32c_append(gristmill_base::checksum::crc32c(&out[start..]), &item);
        out.put_u32(sum);
        out.extend_from_slice(&item);
    }
}

/// The key of a session, which only who was greeted with it knows.
fn key_of(session: u64) -> SessionKey {
    SessionKey((u128::from(session) * 0x1234_5678_9abc_def1).to_le_bytes())
}

fn greet(shard: u16, world: &mut World, session: u64, key: SessionKey) -> Option<HelloReply> {
    if session != 0 && (session < world.engine.floor || session >= world.next_session || key != key_of(session)) {
        return None;
    }
    let session = if session == 0 {
        world.next_session += 1;
        world.next_session - 1
    } else {
        session
    };
    let shards = world.ports.len() as u16;
    Some(HelloReply {
        version: 1,
        server: "a small server".to_owned(),
        data_directory: world.data_directory,
        session: SessionId(session),
        key: key_of(session),
        credit_requests: world.credit.0,
        credit_bytes: world.credit.1,
        frame_bytes_max: 16 << 20,
        frame_operations_max: 4_096,
        key_bytes_max: 64 << 10,
        value_bytes_max: 8 << 20,
        shard: ShardId(shard),
        placement_version: 1,
        ports: world.ports.clone(),
        slots: (0..SLOTS).map(|slot| shard_of(SlotId(slot), SLOTS, shards)).collect(),
    })
}
