//! The whole app in memory, without a server.

use gristmill_test_kit::TestApp;
use serde_json::json;
use starter_app::app;
use std::time::Duration;

#[test]
fn events_and_calls_are_counted() {
    let mut kit = TestApp::new(app());
    kit.append("events", "a", json!({"by": 2})).unwrap();
    kit.append("events", "b", json!({"by": 5})).unwrap();
    assert_eq!(kit.invoke("counters", "a", "add", json!({"by": 1})).unwrap().unwrap(), b"3");
    assert_eq!(kit.value("counters", "b"), json!({"count": 5}));
}

#[test]
fn an_event_without_a_number_is_rejected_after_five_attempts() {
    let mut kit = TestApp::new(app());
    kit.append("events", "a", json!({"by": "two"})).unwrap();
    assert!(kit.events("rejected").is_empty(), "it is tried again first");
    kit.advance(Duration::from_secs(10));
    assert_eq!(kit.event_values("rejected")[0]["attempts"], 5);
}
