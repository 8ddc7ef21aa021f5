//! The app in memory, with a clock that the test moves.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

use gristmill_test_kit::TestApp;
use rate_limiter::{BURST, Decision, PER_SECOND, app};
use serde_json::json;
use std::time::Duration;

fn take(kit: &mut TestApp, caller: &str) -> Decision {
    kit.invoke_json("callers", caller, "take", "").unwrap()
}

#[test]
fn a_caller_gets_its_burst_and_then_its_rate() {
    let mut kit = TestApp::new(app());
    for left in (0..BURST).rev() {
        assert_eq!(take(&mut kit, "ann"), Decision { allowed: true, left, retry_after_millis: 0 });
    }
    let refused = take(&mut kit, "ann");
    assert_eq!(refused, Decision { allowed: false, left: 0, retry_after_millis: 1_000 / PER_SECOND });
    assert!(take(&mut kit, "bob").allowed, "another caller is not concerned");
    kit.advance(Duration::from_millis(refused.retry_after_millis - 1));
    assert!(!take(&mut kit, "ann").allowed);
    kit.advance(Duration::from_millis(1));
    assert!(take(&mut kit, "ann").allowed && !take(&mut kit, "ann").allowed);
    assert_eq!((kit.counter("allowed"), kit.counter("refused")), (BURST as i64 + 2, 3));
}

#[test]
fn no_more_than_the_limit_is_allowed_however_calls_come() {
    let mut kit = TestApp::new(app());
    kit.invoke("callers", "ann", "configure", json!({"per_second": 3, "burst": 5})).unwrap();
    let mut allowed = 0;
    for millis in 0..4_000_u64 {
        kit.advance(Duration::from_millis(1 + millis % 3));
        allowed += u64::from(take(&mut kit, "ann").allowed);
    }
    // 4,000 calls in 8 s.
    assert!((5 + 3 * 7..=5 + 3 * 8).contains(&allowed), "{allowed}");
}

#[test]
fn several_tokens_are_taken_together_or_not_at_all() {
    let mut kit = TestApp::new(app());
    kit.invoke("callers", "ann", "configure", json!({"per_second": 1, "burst": 5})).unwrap();
    let take = |kit: &mut TestApp, tokens: u64| {
        kit.invoke_json::<Decision>("callers", "ann", "take", json!({"tokens": tokens}))
    };
    assert_eq!(take(&mut kit, 4).unwrap().left, 1);
    assert_eq!(take(&mut kit, 3).unwrap(), Decision { allowed: false, left: 1, retry_after_millis: 2_000 });
    assert!(take(&mut kit, 1).unwrap().allowed);
    assert!(take(&mut kit, 6).unwrap_err().message.contains("1 to 5 are allowed"));
    assert!(kit.invoke("callers", "ann", "configure", json!({"per_second": 0, "burst": 5})).is_err());
}

#[test]
fn who_has_not_called_for_long_is_forgotten() {
    let mut kit = TestApp::new(app());
    take(&mut kit, "ann");
    kit.advance(Duration::from_secs(8 * 86_400));
    assert!(kit.grains("callers").is_empty());
}
