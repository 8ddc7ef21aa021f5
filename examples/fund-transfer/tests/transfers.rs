//! The app in memory: how transfers end, and that money is nowhere lost or doubled, at any moment, whatever crashes.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

use fund_transfer::{Account, app};
use gristmill_test_kit::{Options, TestApp};
use serde_json::{Value, json};
use std::time::Duration;

fn open(kit: &mut TestApp, name: &str, amount: i64) {
    kit.invoke("accounts", name, "open", json!({"amount": amount})).unwrap();
}

fn request(kit: &mut TestApp, id: &str, from: &str, to: &str, amount: i64) {
    kit.append("requests", id, json!({"from": from, "to": to, "amount": amount})).unwrap();
}

fn account(kit: &TestApp, name: &str) -> Account {
    serde_json::from_value(kit.value("accounts", name)).unwrap()
}

fn state(kit: &TestApp, id: &str) -> Value {
    kit.value("transfers", id)["state"].clone()
}

/// All money: balances, what is put aside, and deposits that are under way. Nothing of it may ever be below 0.
fn money(kit: &TestApp) -> i64 {
    let mut sum = 0;
    for (name, value) in kit.grains("accounts") {
        let account: Account = serde_json::from_value(value).unwrap();
        assert!(account.balance >= 0 && account.pending >= 0 && account.expected >= 0, "{name}: {account:?}");
        sum += account.balance + account.pending;
    }
    let deposits = kit.under_way().into_iter().filter(|message| message.calls("accounts", "deposit"));
    let amount = |payload: Vec<u8>| serde_json::from_slice::<Value>(&payload).unwrap()["amount"].as_i64().unwrap();
    sum + deposits.map(|message| amount(message.payload)).sum::<i64>()
}

#[test]
fn a_transfer_is_paid_refused_or_taken_back() {
    let mut kit = TestApp::new(app());
    open(&mut kit, "ann", 10);
    open(&mut kit, "bob", 0);
    request(&mut kit, "paid", "ann", "bob", 7);
    assert_eq!(account(&kit, "ann"), Account { balance: 3, ..Account::default() });
    assert_eq!(account(&kit, "bob"), Account { balance: 7, ..Account::default() });
    assert_eq!(kit.entry("accounts", "ann", "statement", "paid"), -7);
    assert_eq!(kit.entry("accounts", "bob", "statement", "paid"), 7);
    request(&mut kit, "poor", "ann", "bob", 4);
    request(&mut kit, "nobody", "ann", "carl", 3);
    assert_eq!([state(&kit, "paid"), state(&kit, "poor"), state(&kit, "nobody")], ["done", "refused", "compensated"]);
    assert_eq!(account(&kit, "ann").balance, 3);
    assert_eq!(kit.grains("accounts").len(), 2, "who takes nothing is not opened");
    let outcomes: Vec<Value> =
        kit.event_values("notices").into_iter().map(|notice| notice["outcome"].clone()).collect();
    assert_eq!(outcomes.len(), 4);
    request(&mut kit, "paid", "ann", "bob", 1);
    assert_eq!((account(&kit, "ann").balance, kit.counter("duplicates")), (3, 1));
}

#[test]
fn what_is_no_request_is_rejected_and_clients_make_no_money() {
    let mut kit = TestApp::new(app());
    open(&mut kit, "ann", 10);
    request(&mut kit, "self", "ann", "ann", 1);
    kit.append("requests", "x", json!({"from": "ann"})).unwrap();
    assert_eq!(kit.events("rejected").len(), 2);
    let part = json!({"transfer": "t", "amount": 5, "to": "ann"});
    for handler in ["debit", "credit", "finalize", "compensate", "deposit"] {
        let reply = kit.invoke("accounts", "ann", handler, part.clone()).unwrap().unwrap();
        assert!(reply.starts_with(b"only a transfer"), "{handler}");
    }
    assert_eq!(account(&kit, "ann"), Account { balance: 10, ..Account::default() });
}

#[test]
fn a_deposit_that_fails_for_a_while_arrives() {
    let mut kit = TestApp::new(app());
    open(&mut kit, "ann", 10);
    open(&mut kit, "bob", 0);
    kit.fail("accounts", "deposit", 3, "not now");
    request(&mut kit, "t", "ann", "bob", 7);
    assert_eq!((account(&kit, "bob").expected, money(&kit)), (7, 10));
    kit.advance(Duration::from_secs(1));
    assert_eq!((account(&kit, "bob").balance, money(&kit)), (7, 10));
}

/// Numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[test]
fn money_is_the_same_at_every_turn_of_a_run_with_crashes_and_failures() {
    const NAMES: [&str; 5] = ["ann", "bob", "cleo", "dan", "nobody"];
    for seed in 1..=4 {
        let (mut kit, mut numbers) = (TestApp::with(app(), Options { shards: 2, ..Options::default() }), Numbers(seed));
        NAMES[..4].iter().for_each(|name| open(&mut kit, name, 20));
        let (mut asked, mut crashes) = (0, 0);
        while asked < 60 || kit.turn() {
            if asked < 60 && numbers.below(4) == 0 {
                let (from, to) = (NAMES[numbers.below(4) as usize], NAMES[numbers.below(5) as usize]);
                let amount = numbers.below(15) as i64;
                kit.begin_append("requests", format!("t{asked}"), json!({"from": from, "to": to, "amount": amount}));
                asked += 1;
            }
            if numbers.below(12) == 0 {
                let handler = ["debit", "credit", "finalize", "compensate", "deposit"][numbers.below(5) as usize];
                kit.fail("accounts", handler, 1, "by chance");
            }
            if numbers.below(50) == 0 {
                kit.crash();
                crashes += 1;
            }
            if numbers.below(8) == 0 {
                kit.miss_reads(1);
            }
            kit.turn();
            assert_eq!(money(&kit), 80, "seed {seed}, {asked} asked, {crashes} crashes");
        }
        kit.fail_no_more();
        kit.advance(Duration::from_secs(60));
        assert_eq!(money(&kit), 80);
        assert!(kit.under_way().is_empty() && kit.parked("accounts").is_empty());
        let ended = ["done", "refused", "compensated"];
        for (id, transfer) in kit.grains("transfers") {
            assert!(ended.contains(&transfer["state"].as_str().unwrap()), "{id}: {transfer}");
        }
        for (name, value) in kit.grains("accounts") {
            let account: Account = serde_json::from_value(value).unwrap();
            assert_eq!((account.pending, account.expected), (0, 0), "{name}");
        }
        assert!(crashes > 0 && kit.counter("done") > 5 && kit.counter("compensated") > 0, "{:?}", kit.counters());
    }
}
