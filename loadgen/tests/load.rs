//! Load on a small server, with and without faults; and that a loss is noticed.
#![allow(clippy::unwrap_used, reason = "a test may stop where something is missing")]

#[path = "../../sdk/client/tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gristmill_loadgen::{Op, Report, Settings, run};
use support::{Faults, Server};

fn settings(server: &Server, op: Op) -> Settings {
    Settings {
        address: server.address.clone(),
        op,
        connections: 5,
        depth: 16,
        size: 40,
        keys: 500,
        time: Duration::from_millis(300),
        warmup: Duration::from_millis(50),
        rate: None,
        threads: 2,
        preloaded: false,
        verify: true,
        seed: 1,
    }
}

fn assert_good(report: &Report) {
    assert!(report.acked > 50, "{report}");
    assert_eq!((report.verified, report.lost, report.invented), (Some(report.acked), Some(0), Some(0)), "{report}");
    assert_eq!((report.errors, report.unknown), (0, 0), "{report}");
    assert!(report.p50_us > 0.0 && report.p50_us <= report.p99_us && report.p99_us <= report.p999_us);
}

#[test]
fn every_operation_is_measured_and_verified() {
    for op in [Op::Put, Op::Get, Op::Append, Op::Invoke] {
        let server = Server::start(2, 1, Faults::default(), (4_096, 4 << 20));
        assert_good(&run(&settings(&server, op)).unwrap());
        // A second run on the same server finds its own effects only.
        assert_good(&run(&settings(&server, op)).unwrap());
    }
}

#[test]
fn gets_of_an_earlier_run_s_keys_begin_at_once() {
    let server = Server::start(2, 1, Faults::default(), (4_096, 4 << 20));
    let preloaded = Settings { preloaded: true, verify: false, ..settings(&server, Op::Get) };
    let nothing = run(&preloaded).unwrap();
    assert!(nothing.acked == 0 && nothing.errors > 0, "nobody has set the keys: {nothing}");
    assert_good(&run(&settings(&server, Op::Get)).unwrap());
    let report = run(&preloaded).unwrap();
    assert!(report.acked > 50 && report.errors == 0, "{report}");
}

#[test]
fn faults_lose_nothing() {
    for (seed, op) in [(1, Op::Put), (2, Op::Append), (3, Op::Invoke), (4, Op::Get)] {
        let faults = Faults { cut_before: 1, cut_after: 10, capacity: 5, twice: 5, not_ready: 50 };
        let server = Server::start(3, seed, faults, (4_096, 4 << 20));
        let report = run(&settings(&server, op)).unwrap();
        assert_good(&report);
        assert!(report.reconnects > 0 && (report.retries > 0 || op == Op::Get), "{report}");
    }
}

#[test]
fn the_clock_starts_operations_in_the_open_loop() {
    let server = Server::start(2, 1, Faults::default(), (4_096, 4 << 20));
    let report = run(&Settings { rate: Some(2_000.0), ..settings(&server, Op::Put) }).unwrap();
    assert_good(&report);
    // 2,000 per second for the 0.05 s of warm-up and the 0.3 s measured: sent, or counted as not sent.
    assert!((690..=710).contains(&(report.acked + report.unsent)), "{report}");
    assert!(report.rate <= 2_050.0, "{report}");
}

#[test]
fn a_loss_and_a_double_are_noticed() {
    for op in [Op::Put, Op::Append, Op::Invoke] {
        let server = Server::start(2, 1, Faults::default(), (4_096, 4 << 20));
        let world = Arc::clone(&server.world);
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        let spoiler = std::thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
                let engine = &mut world.lock().unwrap().engine;
                engine.grains.pop_last();
                if let Some(lane) = engine.lanes.values_mut().find(|lane| lane.len() > 1) {
                    lane[0] = lane.last().unwrap().clone();
                }
            }
        });
        // Many keys, so that a later operation hides few of the losses.
        let report = run(&Settings { keys: 100_000, ..settings(&server, op) }).unwrap();
        done.store(true, Ordering::SeqCst);
        spoiler.join().unwrap();
        assert!(report.lost.unwrap() > 0 && !report.is_good(), "{report}");
        if op == Op::Append {
            assert!(report.invented.unwrap() > 0, "{report}");
        }
    }
}
