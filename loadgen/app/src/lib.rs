//! The app that the load generator drives: a topic, a table without handlers, and a table that counts. Servers link
//! it; the load generator needs only its file.

use gristmill_sdk::datatype::{decode_u64, encode_u64};
use gristmill_sdk::{App, Context, Failure, Input, Reply};

/// Name of the app.
pub const NAME: &str = "loadgen";

/// The app file.
pub const FILE: &str = include_str!("../loadgen.yaml");

/// The app with its handler.
#[must_use]
pub fn app() -> App {
    App::new(NAME, FILE).each("counter", "count", count)
}

/// Adds one to the grain and replies with the new count.
fn count(_input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let before = match context.value()? {
        None => 0,
        Some(bytes) => decode_u64(
            bytes
                .as_slice()
                .try_into()
                .map_err(|_| Failure::new(format!("the count has {} bytes, a u64 has 8", bytes.len())))?,
        ),
    };
    let after = before.checked_add(1).ok_or_else(|| Failure::new("the count is at its end"))?;
    context.set_value(encode_u64(after));
    Ok(Reply::value(encode_u64(after)))
}
