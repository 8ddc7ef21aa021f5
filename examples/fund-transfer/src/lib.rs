//! Transfers between accounts, each a workflow with callbacks and compensation.
//!
//! `transfers.start` asks the paying account to put the amount aside (`debit`), then the other one whether it takes it
//! (`credit`), and then tells the first one to pay (`finalize`) or to take the amount back (`compensate`). Money is at every
//! moment in exactly one place: in a balance, pending in the account that pays, or in one `deposit` on its way. Nothing but
//! `open` makes any.

mod accounts;
mod transfers;

use gristmill_sdk::{App, Callback, Cause, Context, Failure, Input, MessageOperation, MessageTarget, Send};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use accounts::Account;
pub use transfers::{Notice, Request, State, Transfer};

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("fund-transfer", include_str!("../app.yaml"))
        .each("transfers", "start", transfers::start)
        .each("transfers", "debited", transfers::debited)
        .each("transfers", "credited", transfers::credited)
        .each("transfers", "ended", transfers::ended)
        .each("accounts", "open", accounts::open)
        .each("accounts", "debit", accounts::debit)
        .each("accounts", "credit", accounts::credit)
        .each("accounts", "finalize", accounts::finalize)
        .each("accounts", "compensate", accounts::compensate)
        .each("accounts", "deposit", accounts::deposit)
}

/// The reply to a client that calls what only grains call.
const NOT_FOR_CLIENTS: &str = "only a transfer asks for this; nothing was done";

/// Calls a handler of an account, which answers to a handler of this grain if one is named.
fn call(
    context: &mut Context<'_>,
    account: &str,
    handler: &str,
    payload: &impl Serialize,
    callback: Option<&str>,
) -> Result<(), Failure> {
    let answers = |handler: &str| Callback { handler: handler.to_owned(), cookie: Vec::new(), only_on_error: false };
    context.send(Send {
        target: MessageTarget::Grain { table: "accounts".to_owned(), key: account.as_bytes().to_vec() },
        operation: MessageOperation::Invoke { handler: handler.to_owned(), payload: to_json(payload)? },
        callback: callback.map(answers),
    })
}

/// What another grain asks for; `None` if a client does. That is answered with [`NOT_FOR_CLIENTS`] and is no failure, which
/// might park the grain.
fn of_grain<T: DeserializeOwned>(input: &Input<'_>) -> Result<Option<T>, Failure> {
    if input.cause != Cause::Message {
        return Ok(None);
    }
    let read = serde_json::from_slice(input.payload);
    read.map(Some).map_err(|error| Failure::new(format!("the message is not the expected JSON: {error}")))
}

/// Whether what a response answers to was done; `None` if this is no response.
fn answer(input: &Input<'_>) -> Option<bool> {
    match input.cause {
        Cause::Response { succeeded, .. } => Some(succeeded),
        _ => None,
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(format!("no JSON for the value: {error}")))
}
