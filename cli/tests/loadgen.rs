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

#[test]
fn a_ledger_holds_a_server_to_its_word_over_hard_kills() {
    let folder = Folder::new("loadgen-ledger");
    let ledger = folder.0.join("ledger").display().to_string();
    let start = || Server::start(&folder.0.join("data"), 2);
    let mut server = start();
    for _ in 0..2 {
        let address = format!("127.0.0.1:{}", server.port());
        let hold = ["loadgen", "hold", "--ledger", &ledger, "--keys", "50", "--secs", "30", "--output", "json"];
        let child = gristmill(&[&hold[..], &["--addr", &address]].concat()).stdout(Stdio::piped()).spawn();
        std::thread::sleep(Duration::from_millis(700));
        server.signal("KILL");
        server.wait();
        let output = child.expect("the program runs").wait_with_output().expect("it ends");
        let held: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert!(held["acked"].as_u64() > Some(100) && held["gone"] == true, "{held}");
        server = start();
    }
    let address = format!("127.0.0.1:{}", server.port());
    let check = || {
        let output =
            gristmill(&["loadgen", "check", "--ledger", &ledger, "--addr", &address]).output().expect("it runs");
        let words = [output.stdout, output.stderr].concat();
        (output.status.code().expect("it ends by itself"), String::from_utf8_lossy(&words).into_owned())
    };
    let (status, words) = check();
    assert_eq!(status, 0, "{words}");
    assert!(words.contains(" acked: 0 lost, 0 misplaced, 0 doubled, 0 invented, 0 disordered"), "{words}");
    // A promise that nobody gave: one more put of a key, acknowledged, and an event that is nowhere.
    let text = std::fs::read_to_string(&ledger).expect("it is text");
    let count = |head: &str| text.lines().filter(|line| line.starts_with(head)).count();
    let (put, event) = (count("p 7 ") + 1, count("e ") + 1);
    let more = format!("{text}p 7 {put}\nP 7 {put}\ne {event} 7\nE {event} 0 0\n");
    std::fs::write(&ledger, more).expect("it can be written");
    let (status, words) = check();
    assert_eq!(status, 1, "{words}");
    assert!(words.contains(" acked: 2 lost, 0 misplaced, 0 doubled"), "{words}");
    std::fs::write(&ledger, "no ledger\n").expect("it can be written");
    let (status, words) = check();
    assert!(status == 70 && words.contains("a ledger of this version was expected"), "{status}: {words}");
}

#[test]
fn a_ledger_outlives_the_kill_of_its_writer_and_a_deleted_app_ends_it() {
    let folder = Folder::new("loadgen-killed");
    let ledger = folder.0.join("ledger").display().to_string();
    let server = Server::start(&folder.0.join("data"), 2);
    let address = format!("127.0.0.1:{}", server.port());
    let hold = |seconds: &str| {
        let hold = ["loadgen", "hold", "--ledger", &ledger, "--keys", "50", "--secs", seconds, "--addr", &address];
        gristmill(&hold).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    };
    let check = || run(&["loadgen", "check", "--ledger", &ledger, "--addr", &address]);
    let length = || std::fs::metadata(&ledger).map_or(0, |ledger| ledger.len());
    for _ in 0..3 {
        let before = length();
        let mut child = hold("30");
        while length() < before + (64 << 10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(check().1.contains("another process writes the ledger"));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        // What the server was still given arrives.
        let (status, words) = run(&["app", "wait", "loadgen", "--settled", "--addr", &address]);
        assert_eq!(status, 0, "{words}");
        assert_eq!(check(), (0, String::new()));
    }
    let child = hold("30");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(run(&["app", "delete", "loadgen", "--addr", &address]).0, 0);
    let output = child.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("10000 operations one after the other"), "{words}");
    let (status, words) = check();
    assert!(status == 1 && words.contains("no app loadgen is loaded"), "nothing is loaded anew: {status}: {words}");
}
