//! Opening, moving and closing.

use gristmill_sdk::datatype::{decode_i64, encode_i64};
use gristmill_sdk::{Callback, Cause, Context, Failure, Input, MessageOperation, MessageTarget, Reply, Send};
use serde::{Deserialize, Serialize};

/// Most money that one account is opened with, so that no sum of many accounts comes near the end of 64 bits.
const OPEN_MAX: i64 = 1_000_000_000_000;

/// Payload of `transfer` and of the deposit that it sends, and the cookie of that deposit's callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The account that gets the money.
    pub to: String,
    /// How much; at least 1.
    pub amount: i64,
}

/// Payload of `close`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Close {
    /// The account that gets what is left.
    pub(crate) to: String,
}

/// Payload of `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    /// First balance; 0 or more.
    pub(crate) amount: i64,
}

/// Reply of `transfer`, `open` and `close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whether it was done. What an account cannot pay is refused, and that is no failure.
    pub accepted: bool,
    /// The balance afterwards.
    pub balance: i64,
}

/// Where the money of a transfer ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// In the other account.
    Deposited,
    /// Back in the account that it came from.
    Returned,
}

/// Event of the topic `audit`: one for each transfer, when its outcome is known. Its key is the paying account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The paying account.
    pub from: String,
    /// The account that was to get it.
    pub to: String,
    /// How much.
    pub amount: i64,
    /// Where it is now.
    pub outcome: Outcome,
}

/// Opens an account with a balance, once. An account that is there keeps its balance.
pub(crate) fn open(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Open { amount } = input.json()?;
    if !(0..=OPEN_MAX).contains(&amount) {
        return Err(Failure::new(format!("an account cannot be opened with {amount}; 0 to {OPEN_MAX} are allowed")));
    }
    if context.value()?.is_some() {
        return receipt(false, balance(context)?);
    }
    set_balance(context, amount);
    context.count("opened", 1);
    context.count("opened_amount", amount);
    receipt(true, amount)
}

/// Moves money from this account to another one, if it has enough.
pub(crate) fn transfer(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let transfer: Transfer = input.json()?;
    let accepted = pay(&transfer, context)?;
    receipt(accepted, balance(context)?)
}

/// Takes the money off the balance and sends it away, if there is enough.
pub(crate) fn pay(transfer: &Transfer, context: &mut Context<'_>) -> Result<bool, Failure> {
    if transfer.amount < 1 {
        return Err(Failure::new(format!("an amount of {}; 1 or more is allowed", transfer.amount)));
    }
    let have = balance(context)?;
    if have < transfer.amount {
        context.count("refused", 1);
        return Ok(false);
    }
    set_balance(context, have - transfer.amount);
    send_deposit(transfer, context)?;
    context.count("transfers", 1);
    Ok(true)
}

/// Adds what a message brings. Opens the account if it is not there, so that money never finds its target gone.
pub(crate) fn deposit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.cause != Cause::Message {
        return Err(Failure::new("only another account deposits: money comes from somewhere"));
    }
    let Transfer { amount, .. } = input.json()?;
    credit(amount, context)?;
    context.count("deposits", 1);
    Ok(Reply::none())
}

/// Hears how a deposit went: gives the money back if it failed for good, and writes the audit event.
pub(crate) fn done(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Response { cookie, succeeded } = input.cause else {
        return Err(Failure::new("only the response to a deposit calls this handler"));
    };
    let Transfer { to, amount } = from_json(cookie)?;
    if !succeeded {
        credit(amount, context)?;
        context.count("returned", 1);
    }
    let key = context.key().to_vec();
    let from = String::from_utf8_lossy(&key).into_owned();
    let outcome = if succeeded { Outcome::Deposited } else { Outcome::Returned };
    context.append("audit", key, to_json(&Audit { from, to, amount, outcome })?)?;
    Ok(Reply::none())
}

/// Deletes the account with its standing orders; what is left goes to another account.
pub(crate) fn close(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Close { to } = input.json()?;
    if to.as_bytes() == context.key() {
        return Err(Failure::new("an account cannot be closed in favour of itself"));
    }
    let amount = balance(context)?;
    context.delete_grain();
    if amount > 0 {
        send_deposit(&Transfer { to, amount }, context)?;
    }
    context.count("closed", 1);
    receipt(true, 0)
}

/// The money is in this message, and only there, from the commit of this run on. The caller has taken it off.
fn send_deposit(transfer: &Transfer, context: &mut Context<'_>) -> Result<(), Failure> {
    let payload = to_json(transfer)?;
    context.send(Send {
        target: MessageTarget::Grain { table: "accounts".to_owned(), key: transfer.to.clone().into_bytes() },
        operation: MessageOperation::Invoke { handler: "deposit".to_owned(), payload: payload.clone() },
        callback: Some(Callback { handler: "done".to_owned(), cookie: payload, only_on_error: false }),
    })
}

fn credit(amount: i64, context: &mut Context<'_>) -> Result<(), Failure> {
    let sum = balance(context)?.checked_add(amount);
    set_balance(context, sum.ok_or_else(|| Failure::new("the balance has reached the end of 64 bits"))?);
    Ok(())
}

/// The balance; 0 if there is no account.
fn balance(context: &mut Context<'_>) -> Result<i64, Failure> {
    let Some(value) = context.value()? else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(value).map_err(|_| Failure::new("the grain's value is no balance"))?;
    Ok(decode_i64(bytes))
}

fn set_balance(context: &mut Context<'_>, balance: i64) {
    context.set_value(encode_i64(balance));
}

fn receipt(accepted: bool, balance: i64) -> Result<Reply, Failure> {
    Ok(Reply::value(to_json(&Receipt { accepted, balance })?))
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(format!("no JSON for the value: {error}")))
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::new(format!("the cookie is not what was sent: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_sdk::testing::FakeGrain;

    fn account(name: &str, balance: i64) -> FakeGrain {
        let mut grain = FakeGrain::new(name);
        grain.value = Some(encode_i64(balance).to_vec());
        grain
    }

    fn balance_of(grain: &mut FakeGrain) -> i64 {
        balance(&mut Context::new(grain)).unwrap()
    }

    /// Amounts of the deposits that were sent.
    fn under_way(grain: &FakeGrain) -> i64 {
        let amount = |sent: &Send| match &sent.operation {
            MessageOperation::Invoke { handler, payload } if handler == "deposit" => {
                serde_json::from_slice::<Transfer>(payload).unwrap().amount
            }
            _ => 0,
        };
        grain.sent.iter().map(amount).sum()
    }

    #[test]
    fn a_transfer_takes_what_it_sends_and_refuses_what_is_not_there() {
        let mut alice = account("alice", 5);
        alice.misses = 2;
        let reply = alice.invoke(transfer, br#"{"to":"bob","amount":3}"#).unwrap();
        assert_eq!(reply, Reply::value(br#"{"accepted":true,"balance":2}"#));
        let reply = alice.invoke(transfer, br#"{"to":"bob","amount":3}"#).unwrap();
        assert_eq!(reply, Reply::value(br#"{"accepted":false,"balance":2}"#));
        assert_eq!((balance_of(&mut alice), under_way(&alice), alice.counters["refused"]), (2, 3, 1));
        for amount in ["0", "-1", "\"x\""] {
            let payload = format!(r#"{{"to":"bob","amount":{amount}}}"#);
            assert!(alice.invoke(transfer, payload.as_bytes()).is_err());
        }
        assert_eq!((balance_of(&mut alice), under_way(&alice)), (2, 3));
    }

    #[test]
    fn a_deposit_arrives_at_accounts_that_are_there_or_not_and_never_from_a_client() {
        let mut bob = FakeGrain::new("bob");
        let payload = br#"{"to":"bob","amount":3}"#;
        bob.handle(deposit, Cause::Message, payload).unwrap();
        bob.handle(deposit, Cause::Message, payload).unwrap();
        assert!(bob.invoke(deposit, payload).is_err());
        assert_eq!(balance_of(&mut bob), 6);
        assert!(account("rich", i64::MAX).handle(deposit, Cause::Message, payload).is_err());
    }

    #[test]
    fn a_failed_deposit_comes_back_and_each_outcome_is_audited() {
        let cookie = br#"{"to":"bob","amount":3}"#;
        let mut alice = account("alice", 2);
        alice.handle(done, Cause::Response { cookie, succeeded: true }, b"").unwrap();
        assert_eq!(balance_of(&mut alice), 2);
        alice.handle(done, Cause::Response { cookie, succeeded: false }, b"").unwrap();
        assert_eq!(balance_of(&mut alice), 5);
        assert!(alice.invoke(done, cookie).is_err());
        let outcome = |sent: &Send| match (&sent.target, &sent.operation) {
            (MessageTarget::Topic { .. }, MessageOperation::Put(value)) => {
                serde_json::from_slice::<Audit>(value).unwrap().outcome
            }
            other => panic!("{other:?} was not expected"),
        };
        assert_eq!(alice.sent.iter().map(outcome).collect::<Vec<_>>(), [Outcome::Deposited, Outcome::Returned]);
    }

    #[test]
    fn closing_moves_all_and_leaves_nothing() {
        let mut alice = account("alice", 7);
        assert!(alice.invoke(close, br#"{"to":"alice"}"#).is_err());
        assert_eq!(balance_of(&mut alice), 7);
        alice.invoke(close, br#"{"to":"bob"}"#).unwrap();
        assert_eq!((alice.value.clone(), under_way(&alice)), (None, 7));
        alice.invoke(close, br#"{"to":"bob"}"#).unwrap();
        assert_eq!(under_way(&alice), 7);
    }

    #[test]
    fn an_account_is_opened_once() {
        let mut alice = FakeGrain::new("alice");
        alice.invoke(open, br#"{"amount":9}"#).unwrap();
        let reply = alice.invoke(open, br#"{"amount":100}"#).unwrap();
        assert_eq!(reply, Reply::value(br#"{"accepted":false,"balance":9}"#));
        assert_eq!(alice.counters["opened_amount"], 9);
        assert!(FakeGrain::new("eve").invoke(open, br#"{"amount":-1}"#).is_err());
    }
}
