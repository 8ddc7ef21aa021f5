//! `gristmill loadgen` of the stock binary against a server: everything acked is read back.

mod support;

use gristmill_client::clock::now;
use std::process::Stdio;
use std::time::Duration;
use support::{Folder, Server, gristmill, run};

#[test]
fn the_stock_binary_makes_load_and_verifies_it() {
    let folder = Folder::new("loadgen");
    let mut server = Server::start(&folder.0.join("data"), 1);
    let address = format!("127.0.0.1:{}", server.port());
    let size = ["--keys", "2000", "-c", "4", "-d", "16", "--size", "100", "--secs", "1"];
    for op in ["put", "append", "invoke"] {
        let command = [&["loadgen", "run", "--op", op, "--addr", &address], &size[..]].concat();
        let output = gristmill(&[&command[..], &["--verify", "--output", "json"]].concat()).output().expect("it runs");
        assert!(output.status.success(), "{op}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        for field in ["acked", "verified", "rate", "p50_us", "p99_us", "p999_us", "records_per_flush"] {
            assert!(report[field].as_f64().is_some_and(|number| number > 0.0), "{op}: {field} in {report}");
        }
        assert_eq!(report["lost"], 0, "{op}");
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}

/// Load in the background, with what it prints caught.
fn load(address: &str, more: &[&str]) -> std::process::Child {
    gristmill(&["loadgen", "run", "--addr", address, "--keys", "2000", "-c", "4", "-d", "16", "--output", "json"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs")
}

#[test]
fn a_run_whose_app_is_deleted_ends_soon_and_says_so() {
    let folder = Folder::new("loadgen-gone");
    let server = Server::start(&folder.0.join("data"), 2);
    let address = format!("127.0.0.1:{}", server.port());
    for op in ["put", "append", "invoke"] {
        let child = load(&address, &["--op", op, "--secs", "60", "--verify", "--threads", "2"]);
        std::thread::sleep(Duration::from_millis(700));
        let (status, words) = run(&["app", "delete", "loadgen", "--addr", &address]);
        assert_eq!(status, 0, "{op}: {words}");
        let deleted = now();
        let output = child.wait_with_output().expect("it ends");
        assert!(deleted.elapsed() < Duration::from_secs(10), "{op}: ended after {:?}", deleted.elapsed());
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{op}: {words}");
        assert!(words.contains("the app loadgen was deleted during the run"), "{op}: {words}");
    }
}

#[test]
fn a_server_that_stands_still_for_a_while_loses_and_invents_nothing() {
    let folder = Folder::new("loadgen-stopped");
    let mut server = Server::start(&folder.0.join("data"), 2);
    let address = format!("127.0.0.1:{}", server.port());
    // Longer than an attempt to connect may take; the first run ends within it, the second one after it.
    for (op, secs) in [("invoke", "1"), ("append", "5")] {
        let child = load(&address, &["--op", op, "--secs", secs, "--verify"]);
        std::thread::sleep(Duration::from_millis(700));
        server.signal("STOP");
        std::thread::sleep(Duration::from_secs(3));
        server.signal("CONT");
        let went_on = now();
        let output = child.wait_with_output().expect("it ends");
        assert!(went_on.elapsed() < Duration::from_secs(15), "{op}: ended after {:?}", went_on.elapsed());
        assert!(output.status.success(), "{op}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        for field in ["lost", "invented", "unknown", "errors"] {
            assert_eq!(report[field], 0, "{op}: {field} in {report}");
        }
        assert!(report["acked"].as_u64() > Some(0) && report["verified"] == report["acked"], "{op}: {report}");
        assert!(report["max_us"].as_f64() > Some(2e6) || op == "invoke", "{op}: nobody waited: {report}");
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}
