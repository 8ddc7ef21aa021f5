//! The HTTP door of a server: health, metrics, and clients that mean no good.

mod support;

use gristmill_io::clock::SystemClock;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;
use support::{Folder, Server, gristmill, run};

fn port(server: &Server) -> u16 {
    server.endpoints()["http_port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the door accepts");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid time");
    stream
}

/// The whole answer to a request; empty if there is none.
fn ask(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    // The door may close while a hostile request is still being written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(port: u16, path: &str) -> String {
    ask(port, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

fn metric(port: u16, name: &str) -> f64 {
    let text = get(port, "/metrics");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn health_and_metrics_are_told() {
    let folder = Folder::new("http");
    let server = Server::start(&folder.0.join("data"), 2);
    let port = port(&server);
    assert!(get(port, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(port, "/readyz").ends_with("ready\n"));
    assert!(get(port, "/nothing").contains("there are /metrics, /healthz, /readyz"));
    assert!(
        ask(port, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 405")
    );
    let data = server.data.to_str().expect("text").to_owned();
    assert_eq!(run(&["app", "load", "loadgen", "--data", &data]).0, 0);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(run(&["table", "put", "loadgen/kv", key, "1", "--data", &data]).0, 0);
    }
    let text = get(port, "/metrics");
    assert!(text.contains("application/openmetrics-text") && text.ends_with("# EOF\n"), "{text}");
    let sum = |name: &str| -> f64 {
        let of = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        of.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")).sum()
    };
    assert!(sum("gristmill_grains") >= 4.0, "{text}");
    assert!(sum("gristmill_log_flushes_total") >= 4.0 && sum("gristmill_flush_seconds_count") >= 4.0);
    assert!(sum("gristmill_flush_records_sum") >= 4.0 && sum("gristmill_busy_seconds_total") > 0.0);
    assert_eq!(sum("gristmill_shard_info"), 2.0);
}

#[test]
fn a_name_that_is_not_the_servers_is_refused() {
    let folder = Folder::new("http-names");
    let data = folder.0.join("data");
    let server = Server::start_with(&data, 1, &[("GRISTMILL_LISTEN_HTTP_NAMES", "mill.example")]);
    let port = port(&server);
    for path in ["/metrics", "/trace?seconds=0.1", "/healthz", "/nothing"] {
        let as_name = |host: &str, more: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
            ask(port, request.as_bytes())
        };
        let refused = as_name("evil.example:7480", "");
        assert!(refused.starts_with("HTTP/1.1 421"), "{path}: {refused}");
        let words =
            "Host \"evil.example:7480\" is none of this server's names: an IP address, localhost, mill.example;";
        assert!(refused.contains(words) && refused.contains("--http-names"), "{path}: {refused}");
        for good in ["localhost:7480", "127.0.0.1", "[::1]:1", "Mill.Example:80"] {
            assert!(!as_name(good, "").starts_with("HTTP/1.1 421"), "{path} as {good}");
        }
        let foreign = as_name("localhost", "Sec-Fetch-Site: cross-site\r\n");
        assert_eq!(foreign.starts_with("HTTP/1.1 403"), path.starts_with("/trace"), "{path}: {foreign}");
        let old = ask(port, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        assert!(!old.starts_with("HTTP/1.0 421"), "no browser asks without a name: {old}");
    }
    assert!(ask(port, b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n").contains("no Host"));
}

#[test]
fn slow_and_hostile_clients_are_cut_off_and_counted() {
    let folder = Folder::new("http-hostile");
    let mut server = Server::start(&folder.0.join("data"), 1);
    let port = port(&server);
    // Never finishes its request; meanwhile the others.
    let started = SystemClock::monotonic_nanos();
    let mut slow = connect(port);
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("it sends");
    let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(1_000));
    for hostile in [large.as_bytes(), many.as_bytes(), b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n"] {
        let answer = ask(port, hostile);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // A body that is announced and never comes: it is not waited for.
    let answer =
        ask(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let idle: Vec<TcpStream> = (0..300).map(|_| connect(port)).collect();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    let waited = Duration::from_nanos(SystemClock::monotonic_nanos() - started);
    assert!((Duration::from_secs(5)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
    drop(idle);
    let deadline = SystemClock::monotonic_nanos() + 15_000_000_000;
    while !get(port, "/healthz").starts_with("HTTP/1.1 200") {
        assert!(SystemClock::monotonic_nanos() < deadline, "the door serves again once the idle ones are gone");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(metric(port, "gristmill_http_connections_refused_total ") >= 150.0);
    assert!(metric(port, "gristmill_http_connections_bad_total ") >= 2.0);
    assert!(metric(port, "gristmill_http_connections ") <= 3.0);
    // A kept connection may ask again, and goes when nothing comes.
    let mut kept = connect(port);
    for _ in 0..2 {
        kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it sends");
        let mut answer = [0; 1024];
        let got = kept.read(&mut answer).expect("an answer");
        assert!(answer[..got].starts_with(b"HTTP/1.1 200"));
    }
    kept.shutdown(Shutdown::Write).expect("it closes its side");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}

#[test]
fn its_port_is_chosen_and_a_taken_one_is_named() {
    let folder = Folder::new("http-port");
    let data = folder.0.join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = taken.local_addr().expect("an address").port().to_string();
    let text = data.to_str().expect("text");
    let (status, words) = run(&["serve", "--data", text, "--port-base", "0", "--http-port", &number]);
    assert!(status == 78 && words.contains(&format!("cannot listen on 127.0.0.1:{number}")), "{status}: {words}");
}

#[test]
fn the_origin_of_every_value_is_shown() {
    let folder = Folder::new("config-show");
    let file = folder.0.join("c.toml");
    std::fs::write(&file, "[shards]\n\ncount = 2\n").expect("it is written");
    let file = file.to_str().expect("text");
    let arguments = ["config", "show", "--config", file, "--port-base", "9000", "--output", "json"];
    let output = gristmill(&arguments).env("GRISTMILL_LISTEN_HOST", "::1").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let row = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key} in {lines}"));
    assert_eq!(row("shards.count")["from"], format!("{file}:3"));
    assert_eq!((&row("shards.count")["value"], &row("shards.count")["line"]), (&"2".into(), &3.into()));
    assert_eq!(row("listen.host")["from"], "environment GRISTMILL_LISTEN_HOST");
    assert_eq!(row("listen.port_base")["from"], "flag --port-base");
    assert_eq!(row("listen.http_port")["value"], "9080");
    assert!(row("memory.budget_bytes")["from"].as_str().expect("text").starts_with("default: 80 %"));
    let (status, words) = run(&["config", "show", "--port-base", "many"]);
    assert!(status == 2 && words.contains("--port-base is \"many\", allowed is a port"), "{status}: {words}");
}
