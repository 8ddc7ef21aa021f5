//! The workflow of one transfer.

use crate::{NOT_FOR_CLIENTS, answer, call, to_json};
use gristmill_sdk::{Cause, Context, Failure, Input, Reply};
use serde::{Deserialize, Serialize};

/// An event of the topic `requests`; its key is the transfer's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The account that pays.
    pub from: String,
    /// The account that is paid.
    pub to: String,
    /// How much; at least 1.
    pub amount: i64,
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The paying account is asked to put the amount aside.
    Debiting,
    /// The other account is asked whether it takes it.
    Crediting,
    /// The paying account is told to pay.
    Finalizing,
    /// The paying account is told to take the amount back.
    Compensating,
    /// Paid.
    Done,
    /// The paying account could not.
    Refused,
    /// The other account did not take it; the first one has it back.
    Compensated,
}

/// The value of a transfer's grain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// What was asked for.
    #[serde(flatten)]
    pub request: Request,
    /// How far it has come.
    pub state: State,
}

/// An event of the topic `notices`; its key is the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The transfer's id.
    pub transfer: String,
    /// What it took (negative) or brought; of one that came to nothing, what it would have taken.
    pub amount: i64,
    /// How it ended.
    pub outcome: State,
}

/// What an account is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The transfer's id.
    pub(crate) transfer: String,
    /// How much.
    pub(crate) amount: i64,
    /// The account that is paid.
    pub(crate) to: String,
}

/// Begins a transfer, once for each id.
pub(crate) fn start(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if !matches!(input.cause, Cause::Event { .. }) {
        return Err(Failure::new("a transfer begins with an event of the topic requests"));
    }
    let request: Request = input.json()?;
    if request.amount < 1 || request.from == request.to {
        return Err(Failure::new("a transfer of 1 or more from one account to another one is allowed"));
    }
    if context.value()?.is_some() {
        context.count("duplicates", &[], 1);
        return Ok(Reply::none());
    }
    context.count("requests", &[], 1);
    let transfer = Transfer { request, state: State::Debiting };
    go_on(context, transfer)
}

/// Hears whether the amount was put aside.
pub(crate) fn debited(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Some(succeeded) = answer(input) else { return Ok(Reply::value(NOT_FOR_CLIENTS)) };
    let state = if succeeded { State::Crediting } else { State::Refused };
    let transfer = in_state(context, State::Debiting)?;
    go_on(context, Transfer { state, ..transfer })
}

/// Hears whether the other account takes it.
pub(crate) fn credited(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Some(succeeded) = answer(input) else { return Ok(Reply::value(NOT_FOR_CLIENTS)) };
    let state = if succeeded { State::Finalizing } else { State::Compensating };
    let transfer = in_state(context, State::Crediting)?;
    go_on(context, Transfer { state, ..transfer })
}

/// Hears that the paying account has done what it was told.
pub(crate) fn ended(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if answer(input).is_none() {
        return Ok(Reply::value(NOT_FOR_CLIENTS));
    }
    let transfer: Transfer = context.value_json()?.ok_or_else(|| Failure::new("there is no such transfer"))?;
    let state = if transfer.state == State::Finalizing { State::Done } else { State::Compensated };
    go_on(context, Transfer { state, ..transfer })
}

fn in_state(context: &mut Context<'_>, state: State) -> Result<Transfer, Failure> {
    let transfer: Option<Transfer> = context.value_json()?;
    transfer
        .filter(|transfer| transfer.state == state)
        .ok_or_else(|| Failure::new(format!("the transfer is not in the state {state:?}")))
}

/// Stores the transfer and does what its state wants.
fn go_on(context: &mut Context<'_>, transfer: Transfer) -> Result<Reply, Failure> {
    context.set_value_json(&transfer)?;
    let Transfer { request: Request { from, to, amount }, state } = transfer;
    let id = String::from_utf8_lossy(context.key()).into_owned();
    let part = Part { transfer: id.clone(), amount, to: to.clone() };
    match state {
        State::Debiting => call(context, &from, "debit", &part, Some("debited"))?,
        State::Crediting => call(context, &to, "credit", &part, Some("credited"))?,
        State::Finalizing => call(context, &from, "finalize", &part, Some("ended"))?,
        State::Compensating => call(context, &from, "compensate", &part, Some("ended"))?,
        State::Done | State::Refused | State::Compensated => {
            let notice = |amount| to_json(&Notice { transfer: id.clone(), amount, outcome: state });
            let counter = match state {
                State::Done => "done",
                State::Refused => "refused",
                _ => "compensated",
            };
            context.count(counter, &[], 1);
            context.append("notices", from, notice(-amount)?)?;
            if state == State::Done {
                context.append("notices", to, notice(amount)?)?;
            }
        }
    }
    Ok(Reply::none())
}
