//! Visits of pages: the same handler for a file that is loaded and for events that come as they happen.
//!
//! What a run does depends on its inputs and their order in the grain alone, and time is what the visit says, so it does
//! not matter how or when an event came in.

use gristmill_sdk::datatype::{decode_i64, encode_i64};
use gristmill_sdk::{App, Context, Failure, Input, Results};
use serde::{Deserialize, Serialize};

/// A visitor who comes back after so many seconds begins a new session.
pub const SESSION_SECONDS: i64 = 30 * 60;

/// An event of the topic `visits`.
#[derive(Deserialize)]
struct Visit {
    visitor: String,
    at: i64,
}

/// The value of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// How many visits there were.
    pub visits: u64,
    /// And sessions.
    pub sessions: u64,
    /// Who came last.
    pub last: String,
}

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("batch-and-stream", include_str!("../app.yaml")).several("pages", "visit", visit)
}

/// Counts all visits of a page that wait.
fn visit(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    let mut page: Page = context.value_json()?.unwrap_or_default();
    for input in inputs {
        let Visit { visitor, at } = input.json()?;
        let before = context.map_get("visitors", visitor.as_bytes())?;
        let before = before.and_then(|bytes| Some(decode_i64(bytes.try_into().ok()?)));
        page.visits += 1;
        page.sessions += u64::from(before.is_none_or(|before| at.saturating_sub(before) > SESSION_SECONDS));
        context.map_put("visitors", visitor.as_bytes(), encode_i64(at.max(before.unwrap_or(at))))?;
        page.last = visitor;
    }
    context.set_value_json(&page)?;
    Ok(Vec::new())
}
