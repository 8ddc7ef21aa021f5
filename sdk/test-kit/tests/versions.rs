//! A handler that hears of versions of its app: of the one under test, once, before the test begins, whatever crashes.

use gristmill_sdk::testing::FakeGrain;
use gristmill_sdk::{App, Cause, Context, Failure, Input, Reply};
use gristmill_test_kit::{Options, TestApp};
use serde_json::json;

const FILE: &str = "
app: setup
language: rust
tables:
  - name: setup
    key: string
    value: string
    handlers: [{name: begin, control: {key: all}}]
";

fn begin(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Control { version, from, rolled_back } = input.cause else { return Err(Failure::new("only a version")) };
    let before = context.value()?.unwrap_or_default();
    context.set_value(format!("{}{from}-{version} {rolled_back};", String::from_utf8_lossy(&before)));
    Ok(Reply::none())
}

#[test]
fn the_version_under_test_is_heard_of_once() {
    for shards in [1, 3] {
        let app = App::new("setup", FILE).each("setup", "begin", begin);
        let mut kit = TestApp::with(app, Options { shards, ..Options::default() });
        assert_eq!(kit.value("setup", "all"), json!("0-1 false;"));
        kit.crash();
        kit.settle();
        assert_eq!(kit.value("setup", "all"), json!("0-1 false;"));
    }
}

#[test]
fn a_grain_alone_hears_of_whatever_the_test_says() {
    let mut grain = FakeGrain::new("all");
    let cause = Cause::Control { version: 3, from: 1, rolled_back: true };
    grain.handle(begin, cause, b"").expect("it is handled");
    assert_eq!(grain.value.as_deref(), Some(&b"1-3 true;"[..]));
}
