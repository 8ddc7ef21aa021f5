//! Standing orders: a timer that pays 1 each time it comes due.

use crate::money::{Transfer, pay, to_json};
use gristmill_sdk::{Cause, Context, Failure, Input, Reply};
use serde::{Deserialize, Serialize};

/// Payload of `order` and of its timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The account that gets 1 each time.
    pub to: String,
    /// How often; 0 cancels the order.
    pub times: u32,
    /// Microseconds between two payments; at least 1.
    pub every_micros: u64,
}

/// Sets the standing order to an account, replacing an earlier one to the same account.
pub(crate) fn order(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let order: Order = input.json()?;
    if order.every_micros == 0 {
        return Err(Failure::new("a standing order every 0 microseconds; 1 or more is allowed"));
    }
    let now = context.now_micros();
    set_timer(&order, now, context)?;
    Ok(Reply::none())
}

/// Pays 1, if it is there, and sets the timer for the next time. What cannot be paid is not made up for later.
pub(crate) fn order_due(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Timer { due_micros, .. } = input.cause else {
        return Err(Failure::new("only the timer of a standing order calls this handler"));
    };
    let mut order: Order = input.json()?;
    pay(&Transfer { to: order.to.clone(), amount: 1 }, context)?;
    context.count("orders_due", 1);
    order.times = order.times.saturating_sub(1);
    set_timer(&order, due_micros, context)?;
    Ok(Reply::none())
}

fn set_timer(order: &Order, from_micros: u64, context: &mut Context<'_>) -> Result<(), Failure> {
    // The timer's name has a limit and an account's name a higher one: the engine refuses what does not fit.
    let name = format!("order:{}", order.to);
    if order.times == 0 {
        context.cancel_timer(&name);
        return Ok(());
    }
    let due_micros = from_micros.saturating_add(order.every_micros);
    context.set_timer(&name, due_micros, "order_due", to_json(order)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_sdk::datatype::encode_i64;
    use gristmill_sdk::testing::FakeGrain;

    const TIMER: &str = "order:bob";

    fn fire(grain: &mut FakeGrain) {
        let timer = grain.timers.remove(TIMER).unwrap();
        assert_eq!(timer.handler, "order_due");
        let cause = Cause::Timer { name: TIMER, due_micros: timer.due_micros };
        grain.handle(order_due, cause, &timer.payload).unwrap();
    }

    #[test]
    fn an_order_pays_as_often_as_it_says_and_as_the_balance_allows() {
        let mut alice = FakeGrain::new("alice");
        alice.value = Some(encode_i64(1).to_vec());
        alice.now_micros = 100;
        alice.invoke(order, br#"{"to":"bob","times":2,"every_micros":10}"#).unwrap();
        assert_eq!(alice.timers[TIMER].due_micros, 110);
        fire(&mut alice);
        assert_eq!(alice.timers[TIMER].due_micros, 120);
        fire(&mut alice);
        assert!(alice.timers.is_empty());
        assert_eq!((alice.sent.len(), alice.value.as_deref()), (1, Some(encode_i64(0).as_slice())));
        assert_eq!((alice.counters["orders_due"], alice.counters["refused"]), (2, 1));
    }

    #[test]
    fn an_order_is_cancelled_and_its_handler_is_the_timers_alone() {
        let mut alice = FakeGrain::new("alice");
        alice.invoke(order, br#"{"to":"bob","times":2,"every_micros":10}"#).unwrap();
        assert!(alice.invoke(order_due, br#"{"to":"bob","times":2,"every_micros":10}"#).is_err());
        assert!(alice.invoke(order, br#"{"to":"bob","times":2,"every_micros":0}"#).is_err());
        alice.invoke(order, br#"{"to":"bob","times":0,"every_micros":10}"#).unwrap();
        assert!(alice.timers.is_empty());
    }
}
