//! Few descriptors: a server that would lack them says so instead of starting, and clients never take those that its
//! log needs.

mod support;

use gristmill_wire::{OpCode, Operation};
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;
use support::{Folder, Raw, Server, limited};

/// Enough for two shards and few connections.
const LEAST: u64 = 164;

#[test]
fn a_server_with_too_few_descriptors_says_how_many_it_needs() {
    let folder = Folder::new("few-descriptors");
    let data = folder.0.join("data");
    let data = data.to_str().expect("a path of text");
    assert_eq!(gristmill_io::descriptors::Descriptors::needed(2), LEAST);
    // Below six the program itself is not loaded.
    for limit in [6, 10, 16, 32, 64, LEAST - 1] {
        let output = limited(limit, &["serve", "--data", data, "--port-base", "0", "--shards", "2"])
            .output()
            .expect("the program runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{limit}: {words}");
        for part in ["open files for", &format!("a limit of {limit}"), "ulimit -n", "LimitNOFILE="] {
            assert!(words.contains(part), "{limit}: {words} lacks {part:?}");
        }
    }
}

/// What the doors of all shards have counted.
fn counted(good: &mut Raw, counter: &str) -> u64 {
    let answer = good.json(OpCode::Status, &Operation::Status);
    let shards = answer["shards"].as_array().expect("a list");
    shards.iter().map(|shard| shard["net"][counter].as_u64().expect("a number")).sum()
}

#[test]
fn many_connections_leave_the_log_its_descriptors() {
    let folder = Folder::new("many-connections");
    let mut server = Server::start_limited(&folder.0.join("data"), 2, LEAST);
    let mut good = Raw::open(server.port());
    let mut clients: Vec<TcpStream> = (0..200)
        .filter_map(|_| TcpStream::connect(("127.0.0.1", server.port())).ok())
        .inspect(|client| client.set_read_timeout(Some(Duration::from_millis(1))).expect("a valid time"))
        .collect();
    let mut refused = 0;
    for _ in 0..2_000 {
        refused = counted(&mut good, "net_connections_refused");
        if refused > 150 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(refused > 150, "{refused} of 200 connections were refused");
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count();
    assert!(open as u64 <= LEAST - 10, "{open} descriptors are open");
    // The last of them may be refused a moment later.
    for _ in 0..100 {
        clients.retain_mut(|client| client.read(&mut [0]).is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock));
        if clients.len() < 16 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(clients.len() < 16, "{} connections are open", clients.len());
    clients.clear();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(Raw::open(server.port()).json(OpCode::Status, &Operation::Status)["parked"], 0, "there is room again");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}
