//! The app in memory: flows end once, by their last step or by time, also across crashes.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

use gristmill_test_kit::{Options, TestApp};
use serde_json::{Value, json};
use std::time::Duration;
use user_flows::{IDLE, app};

fn step(kit: &mut TestApp, user: &str, flow: &str, step: &str) {
    kit.append("steps", user, json!({"flow": flow, "step": step})).unwrap();
}

fn counts(kit: &TestApp, flow: &str) -> [i64; 4] {
    let ended = |outcome| kit.counter(&format!("flows_ended{{flow=\"{flow}\",outcome=\"{outcome}\"}}"));
    let started = kit.counter(&format!("flows_started{{flow=\"{flow}\"}}"));
    let current = kit.gauge(&format!("flows{{flow=\"{flow}\"}}"));
    [started, ended("completed"), ended("abandoned"), current as i64]
}

#[test]
fn a_flow_is_completed_by_its_last_step() {
    let mut kit = TestApp::new(app());
    for name in ["form", "mail", "mail", "welcome"] {
        step(&mut kit, "ann", "signup", name);
        kit.advance(IDLE / 2);
    }
    assert_eq!(counts(&kit, "signup"), [1, 1, 0, 0]);
    assert_eq!(kit.event_values("ended"), [json!({"flow": "signup", "outcome": "completed", "step": "welcome"})]);
    assert!(kit.grains("users").is_empty() && kit.next_due().is_none(), "nothing is left of it");
}

#[test]
fn one_that_has_no_step_for_too_long_is_abandoned() {
    let mut kit = TestApp::new(app());
    step(&mut kit, "ann", "signup", "form");
    kit.advance(Duration::from_secs(60));
    step(&mut kit, "ann", "checkout", "cart");
    assert_eq!(kit.entry("users", "ann", "flows", "checkout")["step"], "cart");
    kit.advance(IDLE - Duration::from_secs(60));
    assert_eq!((counts(&kit, "signup"), counts(&kit, "checkout")), ([1, 0, 1, 0], [1, 0, 0, 1]));
    kit.advance(Duration::from_secs(60));
    assert_eq!(counts(&kit, "checkout"), [1, 0, 1, 0]);
    step(&mut kit, "ann", "signup", "mail");
    assert_eq!(kit.counter("steps_out_of_order{flow=\"signup\"}"), 1, "it begins with its first step alone");
}

#[test]
fn steps_out_of_order_are_ignored_and_those_of_no_flow_rejected() {
    let mut kit = TestApp::new(app());
    step(&mut kit, "ann", "checkout", "cart");
    step(&mut kit, "ann", "checkout", "payment");
    assert_eq!(kit.entry("users", "ann", "flows", "checkout")["step"], "cart");
    assert_eq!(kit.counter("steps_out_of_order{flow=\"checkout\"}"), 1);
    step(&mut kit, "ann", "login", "form");
    kit.append("steps", "ann", json!({"flow": "signup"})).unwrap();
    let rejected: Vec<Value> = kit.event_values("rejected");
    assert_eq!(rejected.len(), 2);
    assert!(rejected.iter().any(|letter| letter["error"].as_str().unwrap().contains("signup (form, mail, welcome)")));
}

#[test]
fn each_flow_ends_once_whatever_crashes() {
    for turns in 0..8 {
        let mut kit = TestApp::with(app(), Options { shards: 2, ..Options::default() });
        (0..10).for_each(|user| step(&mut kit, &format!("u{user}"), "signup", "form"));
        (0..4).for_each(|user| step(&mut kit, &format!("u{user}"), "signup", "mail"));
        kit.advance(IDLE - Duration::from_secs(1));
        for user in 0..4 {
            kit.begin_append("steps", format!("u{user}"), json!({"flow": "signup", "step": "welcome"}));
        }
        for _ in 0..turns {
            kit.turn();
        }
        kit.crash();
        kit.advance(Duration::from_secs(1));
        for _ in 0..3 {
            kit.crash();
            kit.turn();
        }
        kit.settle();
        let [started, completed, abandoned, current] = counts(&kit, "signup");
        assert_eq!((started, completed + abandoned, current), (10, 10, 0), "{turns} turns: {completed} completed");
        assert_eq!(kit.events("ended").len(), 10);
    }
}
