//! An app that counts: each event adds to the counter of its key, and whoever calls `add` gets the new count.

use gristmill_sdk::{App, Context, Failure, Input, Reply};
use serde::{Deserialize, Serialize};

/// An event, and the payload of `add`.
#[derive(Deserialize)]
struct Event {
    by: u64,
}

/// The value of a counter.
#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: u64,
}

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("starter-app", include_str!("../app.yaml")).each("counters", "add", add)
}

/// Adds to this grain's count.
fn add(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Event { by } = input.json()?;
    let mut counter: Counter = context.value_json()?.unwrap_or_default();
    counter.count = counter.count.checked_add(by).ok_or_else(|| Failure::new("the count is at its end"))?;
    context.set_value_json(&counter)?;
    Ok(Reply::value(counter.count.to_string()))
}
