//! Accepting when the process has no descriptors left: the shard waits instead of spinning, and recovers.

#![cfg(not(loom))]

use gristmill_base::env::{Net, NetEvent, Park};
use gristmill_io::listen::listen;
use gristmill_io::mesh::Waker;
use gristmill_io::ring::{RingSettings, ShardRing};
use socket2::{Domain, Socket, Type};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The limit is one of the process, so the check runs in a process of its own.
#[test]
fn a_shard_without_descriptors_waits_and_recovers() {
    let this = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 48 && exec \"$0\" --exact inside_the_limit --ignored --nocapture"])
        .arg(this)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "needs a low limit of descriptors; run by the test above"]
fn inside_the_limit() {
    let socket = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = socket.local_addr().unwrap();
    let (stop, waker) = (Arc::new(AtomicBool::new(false)), Waker::new().unwrap());
    let (accepted, turns) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let failed = Arc::new(AtomicUsize::new(0));
    let (ready, started) = std::sync::mpsc::channel();
    let server = {
        let (stop, waker, accepted, turns) = (stop.clone(), waker.clone(), accepted.clone(), turns.clone());
        let failed = failed.clone();
        std::thread::spawn(move || {
            let root = std::env::temp_dir();
            let mut ring = ShardRing::new(&RingSettings::default(), &root, vec![socket], waker).unwrap();
            ready.send(()).unwrap();
            while !stop.load(Ordering::Acquire) {
                Net::poll(&mut ring, &mut |event| {
                    if let NetEvent::Accepted { .. } = event {
                        accepted.fetch_add(1, Ordering::AcqRel);
                    }
                });
                failed.store(ring.turned_away().accepts_failed as usize, Ordering::Release);
                turns.fetch_add(1, Ordering::AcqRel);
                ring.park(u64::MAX);
            }
        })
    };
    started.recv().unwrap();
    // Client and server share the limit, and a server that keeps pace has accepted all when the process has used it up:
    // so some sockets are made beforehand, which need no descriptor to connect.
    let early: Vec<Socket> = (0..4).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
    let mut clients: Vec<TcpStream> = std::iter::from_fn(|| TcpStream::connect(address).ok()).collect();
    for socket in early {
        socket.connect(&address.into()).unwrap();
        clients.push(socket.into());
    }
    std::thread::sleep(Duration::from_millis(300));
    let (taken, before) = (accepted.load(Ordering::Acquire), turns.load(Ordering::Acquire));
    assert!(taken < clients.len(), "{taken} of {} were accepted without descriptors", clients.len());
    std::thread::sleep(Duration::from_millis(500));
    let spent = turns.load(Ordering::Acquire) - before;
    assert!(spent < 30, "{spent} turns in half a second of waiting");
    assert!(failed.load(Ordering::Acquire) > 0, "what fails is counted");
    let all = clients.len();
    clients.clear();
    for _ in 0..100 {
        if accepted.load(Ordering::Acquire) == all {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(accepted.load(Ordering::Acquire), all, "those that waited are accepted");
    stop.store(true, Ordering::Release);
    waker.wake();
    server.join().unwrap();
}
