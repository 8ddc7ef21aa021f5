//! The app in memory: orders and payments in any order, again, of nobody, and across crashes.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

use gristmill_test_kit::{Options, TestApp};
use orders::{PATIENCE, app};
use serde_json::json;
use std::time::Duration;

fn customer(kit: &mut TestApp, key: &str) {
    kit.invoke("customers", key, "register", json!({"name": format!("{key} Doe"), "tier": "gold"})).unwrap();
}

fn order(kit: &mut TestApp, id: &str, customer: &str, total: i64) {
    kit.append("orders", id, json!({"customer": customer, "total": total})).unwrap();
}

fn payment(kit: &mut TestApp, id: &str, order: &str, amount: i64) {
    kit.append("payments", id, json!({"order": order, "amount": amount})).unwrap();
}

#[test]
fn an_order_is_shipped_once_it_is_paid_whichever_comes_first() {
    let mut kit = TestApp::new(app());
    customer(&mut kit, "ann");
    order(&mut kit, "o1", "ann", 30);
    payment(&mut kit, "p1", "o1", 10);
    assert_eq!(kit.value("orders", "o1")["paid"], 10);
    assert!(kit.events("shipments").is_empty());
    payment(&mut kit, "p2", "o1", 20);
    let shipments = kit.events("shipments");
    assert_eq!((shipments.len(), &shipments[0].key), (1, &json!("o1")));
    assert_eq!(shipments[0].value, json!({"name": "ann Doe", "tier": "gold", "total": 30}));
    payment(&mut kit, "p3", "o2", 5);
    assert!(kit.value("orders", "o2")["order"].is_null(), "the payment waits for its order");
    order(&mut kit, "o2", "ann", 5);
    assert_eq!(kit.counter("shipments"), 2);
}

#[test]
fn what_comes_again_changes_nothing() {
    let mut kit = TestApp::new(app());
    customer(&mut kit, "ann");
    for _ in 0..2 {
        order(&mut kit, "o1", "ann", 30);
        payment(&mut kit, "p1", "o1", 15);
    }
    assert_eq!((kit.value("orders", "o1")["paid"].clone(), kit.counter("shipments")), (json!(15), 0));
    assert_eq!((kit.counter("orders_again"), kit.counter("payments_again")), (1, 1));
}

#[test]
fn orders_of_nobody_wait_and_are_rejected() {
    let mut kit = TestApp::new(app());
    for n in 0..250 {
        order(&mut kit, &format!("early{n}"), "ann", 0);
    }
    order(&mut kit, "never", "bob", 1);
    assert_eq!((kit.counter("shipments"), kit.entries("customers", "ann", "waiting").len()), (0, 250));
    kit.advance(PATIENCE / 2);
    customer(&mut kit, "ann");
    assert_eq!((kit.counter("shipments"), kit.entries("customers", "ann", "waiting").len()), (250, 0));
    kit.advance(PATIENCE / 2 - Duration::from_secs(1));
    assert!(kit.events("rejected").is_empty());
    kit.advance(Duration::from_secs(1));
    let error = "there is no customer bob";
    assert_eq!(kit.event_values("rejected"), [json!({"order": "never", "total": 1, "error": error})]);
    assert!(kit.grains("customers").len() == 1 && kit.next_due().is_none(), "nothing is left of it");
}

#[test]
fn what_is_no_order_and_no_payment_is_a_dead_letter() {
    let mut kit = TestApp::new(app());
    customer(&mut kit, "ann");
    order(&mut kit, "o", "ann", -1);
    payment(&mut kit, "p", "o", -1);
    assert_eq!(kit.events("rejected").len(), 1, "the payment is tried again first");
    kit.advance(Duration::from_secs(1));
    let rejected = kit.event_values("rejected");
    let attempts: Vec<_> = rejected.iter().map(|letter| letter["attempts"].as_u64().unwrap()).collect();
    assert!(attempts == [1, 3] || attempts == [3, 1], "{rejected:?}");
}

#[test]
fn every_order_is_shipped_once_whatever_crashes() {
    for turns in 1..8 {
        let mut kit = TestApp::with(app(), Options { shards: 2, ..Options::default() });
        for name in ["ann", "bob", "cleo"] {
            customer(&mut kit, name);
        }
        let calls: Vec<_> = (0..30)
            .flat_map(|n| {
                let (order, name) = (format!("o{n}"), ["ann", "bob", "cleo"][n % 3]);
                let placed = kit.begin_append("orders", &order, json!({"customer": name, "total": n}));
                let paid = kit.begin_append("payments", format!("p{n}"), json!({"order": order, "amount": n.max(1)}));
                for _ in 0..n % turns {
                    kit.turn();
                }
                if n % 10 == 9 {
                    kit.crash();
                }
                [placed, paid]
            })
            .collect();
        kit.settle();
        drop(calls);
        // What was lost because nobody had been told that it is there is given again, the rest twice.
        for n in 0..30 {
            order(&mut kit, &format!("o{n}"), ["ann", "bob", "cleo"][n % 3], n as i64);
            payment(&mut kit, &format!("p{n}"), &format!("o{n}"), n.max(1) as i64);
        }
        assert_eq!((kit.counter("shipments"), kit.events("shipments").len()), (30, 30), "{turns} turns");
    }
}
