//! The app in memory: what waits together and what comes one by one is the same. With a file and a server:
//! `cli/tests/samples.rs`.

use batch_and_stream::app;
use gristmill_test_kit::TestApp;
use serde_json::{Value, json};

fn visits() -> Vec<(String, Value)> {
    let visit = |n: i64| {
        let (page, visitor) = (format!("page{}", n % 7), format!("v{}", n * n % 11));
        (page.clone(), json!({"page": page, "visitor": visitor, "at": n * 400}))
    };
    (0..300).map(visit).collect()
}

/// Page, its value, its visitors.
type Row = (Value, Value, Vec<(Value, Value)>);

fn state(kit: &TestApp) -> Vec<Row> {
    let pages = kit.grains("pages").into_iter();
    pages.map(|(page, value)| (page.clone(), value, kit.entries("pages", page.clone(), "visitors"))).collect()
}

#[test]
fn together_and_one_by_one_come_to_the_same() {
    let (mut together, mut apart) = (TestApp::new(app()), TestApp::new(app()));
    together.append_all("visits", visits()).unwrap();
    for (page, visit) in visits() {
        apart.append("visits", page, visit).unwrap();
    }
    assert_eq!(state(&together), state(&apart));
    let runs = |kit: &mut TestApp| kit.take_runs().len();
    assert!(runs(&mut together) < 300 && runs(&mut apart) == 300, "what waited was one run");
}

#[test]
fn sessions_end_after_half_an_hour_of_the_visits_own_time() {
    let mut kit = TestApp::new(app());
    for at in [0, 1_800, 3_601, 3_000] {
        kit.append("visits", "p", json!({"page": "p", "visitor": "ann", "at": at})).unwrap();
    }
    kit.append("visits", "p", json!({"page": "p", "visitor": 7})).unwrap();
    assert_eq!(kit.value("pages", "p"), json!({"visits": 4, "sessions": 2, "last": "ann"}));
    assert_eq!(kit.events("rejected").len(), 1);
}
