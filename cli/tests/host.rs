//! What the program says of the machine: `doctor` and `bench disk`, and what a server makes of the calibration.

mod support;

use gristmill_wire::{OpCode, Operation};
use serde_json::Value;
use support::{Folder, Raw, Server, gristmill, run};

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let folder = Folder::new("doctor");
    let data = folder.0.join("not/yet");
    let good =
        gristmill(&["doctor", "--output", "json", "--shards", "2", "--data"]).arg(&data).output().expect("it runs");
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stdout));
    let checks = lines(&good.stdout);
    let names: Vec<&str> = checks.iter().filter_map(|line| line["check"].as_str()).collect();
    for name in ["kernel", "io_uring", "memlock", "open files", "seccomp", "cgroup", "clock source", "clock sync"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for name in ["huge pages", "CPU governor", "O_DIRECT", "file system", "disk", "space"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for line in &checks {
        assert_eq!(line["level"] == "ok", line["advice"] == "", "{line}");
    }
    assert!(!data.exists(), "looking makes nothing");
    let bad = gristmill(&["doctor", "--output", "json", "--data", "/proc/here"]).output().expect("it runs");
    assert_eq!(bad.status.code(), Some(78));
    assert!(lines(&bad.stdout).iter().any(|line| line["check"] == "O_DIRECT" && line["level"] == "fail"));
    let (status, words) = run(&["doctor", "--segment-bytes", "5"]);
    assert!(status == 2 && words.contains("a multiple of 4096"), "{status}: {words}");
}

#[test]
fn a_measured_disk_is_stored_and_used() {
    let folder = Folder::new("bench-disk");
    let data = folder.0.join("data");
    let file = folder.0.join("report/disk.json");
    let measured = gristmill(&["bench", "disk", "--secs", "2", "--output", "json", "--data"])
        .arg(&data)
        .arg("--json")
        .arg(&file)
        .output()
        .expect("it runs");
    assert_eq!(measured.status.code(), Some(0), "{}", String::from_utf8_lossy(&measured.stderr));
    let answer = &lines(&measured.stdout)[0];
    assert_eq!(answer["stored"], true);
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("the report")).expect("JSON");
    assert_eq!(report["bench"], "disk");
    for row in report["rows"].as_array().expect("rows") {
        assert!(row["value"].as_f64().is_some_and(|it| it > 0.0) && row["writes"].as_u64() > Some(0), "{row}");
        assert!(row["p99"].as_f64() >= row["value"].as_f64(), "{row}");
    }
    for copy in ["calibration.a", "calibration.b"] {
        assert!(data.join(copy).exists(), "{copy}");
    }
    assert!(!data.join("calibration.tmp").exists());
    let mut server = Server::start(&data, 1);
    let net = Raw::open(server.port()).json(OpCode::Status, &Operation::Status)["shards"][0]["net"].clone();
    assert!(net["log_calibrated_seconds"].as_u64() > Some(1_600_000_000), "{net}");
    let chosen = answer["write_durable_bytes"].as_u64().unwrap_or(u64::MAX);
    assert_eq!(net["log_write_durable_bytes"].as_u64(), Some(chosen));
    let (status, words) = run(&["bench", "disk", "--secs", "1", "--data", data.to_str().expect("text")]);
    assert!(status == 78 && words.contains("in use"), "{status}: {words}");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
    let verify = || run(&["data", "verify", data.to_str().expect("text")]);
    assert_eq!(verify(), (0, String::new()), "nothing is damaged where a disk was measured");
    for copy in ["calibration.a", "calibration.b"] {
        std::fs::write(data.join(copy), b"damage").expect("it is written");
        assert_eq!(verify().0, 1);
    }
    let mut server = Server::start(&data, 1);
    let net = Raw::open(server.port()).json(OpCode::Status, &Operation::Status)["shards"][0]["net"].clone();
    assert_eq!(net["log_calibrated_seconds"], 0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.errors().contains("calibration is not used"));
}

/// What `.cargo/config.toml` gives the allocator is in the program, all of it.
#[test]
fn the_allocator_has_its_settings() {
    let said = gristmill(&["--version"]).env("_RJEM_MALLOC_CONF", "confirm_conf:true").output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let settings = "thp:always,background_thread:true,dirty_decay_ms:1000";
    assert!(said.contains(&format!("\"{settings}\"")), "{settings} in {said}");
    for setting in settings.split(',') {
        assert!(said.contains(&format!("-- Set conf value: {setting}")), "{setting} in {said}");
    }
}
