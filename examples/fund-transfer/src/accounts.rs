//! Accounts: each handler moves money within one account, or hands it on in one message.

use crate::transfers::Part;
use crate::{NOT_FOR_CLIENTS, call, of_grain, to_json};
use gristmill_sdk::datatype::encode_i64;
use gristmill_sdk::{Context, Failure, Input, Reply};
use serde::{Deserialize, Serialize};

/// Most money that an account is opened with, so that no sum of many accounts comes near the end of 64 bits.
const OPEN_MAX: i64 = 1_000_000_000_000;

/// The value of an account's grain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What can be spent; never below 0.
    pub balance: i64,
    /// What is put aside for transfers that have not ended; never below 0.
    pub pending: i64,
    /// What others have promised: theirs until their deposits come.
    pub expected: i64,
}

#[derive(Deserialize)]
struct Open {
    /// First balance.
    amount: i64,
}

/// Opens the account, once, and replies with it.
pub(crate) fn open(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Open { amount } = input.json()?;
    if !(0..=OPEN_MAX).contains(&amount) {
        return Err(Failure::new(format!("an account cannot be opened with {amount}; 0 to {OPEN_MAX} are allowed")));
    }
    let account = match context.value_json()? {
        Some(account) => account,
        None => {
            context.count("opened_amount", &[], amount.unsigned_abs());
            Account { balance: amount, ..Account::default() }
        }
    };
    context.set_value_json(&account)?;
    Ok(Reply::value(to_json(&account)?))
}

/// Puts an amount aside.
pub(crate) fn debit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    change(input, context, |account, part, _| {
        if account.balance < part.amount {
            return Err(Failure::new(format!("the balance is {}, {} are to be paid", account.balance, part.amount)));
        }
        account.balance -= part.amount;
        account.pending += part.amount;
        Ok(())
    })
}

/// Promises to take an amount.
pub(crate) fn credit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    change(input, context, |account, part, _| {
        account.expected += part.amount;
        Ok(())
    })
}

/// Pays what was put aside: from this commit on it is in the deposit alone.
pub(crate) fn finalize(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    change(input, context, |account, part, context| {
        account.pending -= part.amount;
        context.map_put("statement", part.transfer.as_bytes(), encode_i64(-part.amount))?;
        call(context, &part.to, "deposit", part, None)
    })
}

/// Takes back what was put aside.
pub(crate) fn compensate(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    change(input, context, |account, part, _| {
        account.pending -= part.amount;
        account.balance += part.amount;
        Ok(())
    })
}

/// Takes what was promised.
pub(crate) fn deposit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    change(input, context, |account, part, context| {
        account.expected -= part.amount;
        account.balance += part.amount;
        context.map_put("statement", part.transfer.as_bytes(), encode_i64(part.amount))
    })
}

fn change(
    input: &Input<'_>,
    context: &mut Context<'_>,
    change: impl FnOnce(&mut Account, &Part, &mut Context<'_>) -> Result<(), Failure>,
) -> Result<Reply, Failure> {
    let Some(part) = of_grain(input)? else { return Ok(Reply::value(NOT_FOR_CLIENTS)) };
    let account: Option<Account> = context.value_json()?;
    let mut account = account.ok_or_else(|| Failure::new("there is no such account"))?;
    change(&mut account, &part, context)?;
    context.set_value_json(&account)?;
    Ok(Reply::none())
}
