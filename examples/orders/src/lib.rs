//! Orders that are enriched from a table of customers and joined with payments from a second topic.
//!
//! An order's event goes to the grain of its customer, which adds what it knows and hands it to the grain of the order.
//! Payments go there by themselves. Whichever comes first waits for the other; an order that is paid is shipped once. An
//! order whose customer is not known waits in the customer's grain.

use gristmill_sdk::datatype::{decode_i64, encode_i64};
use gristmill_sdk::{App, Cause, Context, Failure, Input, Reply};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So long orders wait for their customer at most.
pub const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// Orders that are taken from the map at a time.
const PAGE: usize = 100;

/// An event of the topic `orders`.
#[derive(Deserialize)]
struct Placed {
    total: i64,
}

/// The value of a customer, and the payload of `register`.
#[derive(Serialize, Deserialize)]
struct Customer {
    name: String,
    tier: String,
}

/// An order with what is known of its customer: the message between the two grains, and the event of `shipments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enriched {
    /// The customer's name.
    pub name: String,
    /// And tier.
    pub tier: String,
    /// What is to be paid.
    pub total: i64,
}

/// The value of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// None while only payments have come.
    pub order: Option<Enriched>,
    /// What was paid so far.
    pub paid: i64,
    /// Whether it was shipped.
    pub shipped: bool,
}

/// An event of the topic `payments`.
#[derive(Deserialize)]
struct Payment {
    amount: i64,
}

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("orders", include_str!("../app.yaml"))
        .each("customers", "register", register)
        .each("customers", "enrich", enrich)
        .each("customers", "give_up", give_up)
        .each("orders", "placed", placed)
        .each("orders", "paid", paid)
}

/// Adds to an order what its customer's grain knows, or has it wait.
fn enrich(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Event { key: order, .. } = input.cause else {
        return Ok(Reply::value("only an order's event calls this"));
    };
    let Placed { total } = input.json()?;
    if total < 0 {
        return Err(Failure::new(format!("a total of {total}; 0 or more is allowed")));
    }
    if let Some(customer) = context.value_json()? {
        send(order, total, &customer, context)?;
        return Ok(Reply::none());
    }
    if context.map_range("waiting", b"", None, 1, false)?.is_empty() {
        let due = context.now_micros() + PATIENCE.as_micros() as u64;
        context.set_timer("patience", due, "give_up", "")?;
    }
    context.map_put("waiting", order, encode_i64(total))?;
    Ok(Reply::none())
}

/// Makes a customer known, or changes it, and lets its orders go on.
fn register(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let customer: Customer = input.json()?;
    context.set_value_json(&customer)?;
    context.cancel_timer("patience");
    take_waiting(context, |order, total, context| send(order, total, &customer, context))
}

/// The customer did not come.
fn give_up(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if !matches!(input.cause, Cause::Timer { .. }) {
        return Ok(Reply::value("only a timer calls this"));
    }
    let customer = String::from_utf8_lossy(context.key()).into_owned();
    take_waiting(context, |order, total, context| {
        let order = String::from_utf8_lossy(order);
        let event =
            serde_json::json!({"order": order, "total": total, "error": format!("there is no customer {customer}")});
        context.append("rejected", customer.as_bytes(), event.to_string())
    })
}

/// Does something with all orders that wait, which then wait no more.
fn take_waiting(
    context: &mut Context<'_>,
    mut each: impl FnMut(&[u8], i64, &mut Context<'_>) -> Result<(), Failure>,
) -> Result<Reply, Failure> {
    loop {
        let waiting = context.map_range("waiting", b"", None, PAGE, false)?;
        if waiting.is_empty() {
            return Ok(Reply::none());
        }
        for (order, total) in waiting {
            let total = total.try_into().map_err(|_| Failure::new("an order that waits has no total"))?;
            each(&order, decode_i64(total), context)?;
            context.map_delete("waiting", &order)?;
        }
    }
}

fn send(order: &[u8], total: i64, customer: &Customer, context: &mut Context<'_>) -> Result<(), Failure> {
    let Customer { name, tier } = customer;
    let enriched = Enriched { name: name.clone(), tier: tier.clone(), total };
    context.invoke("orders", order, "placed", to_json(&enriched)?)
}

/// The enriched order arrives. The same order again changes nothing.
fn placed(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.cause != Cause::Message {
        return Ok(Reply::value("only a customer's grain calls this"));
    }
    let mut order: Order = context.value_json()?.unwrap_or_default();
    if order.order.is_some() {
        context.count("orders_again", &[], 1);
        return Ok(Reply::none());
    }
    order.order = Some(input.json()?);
    context.count("orders", &[], 1);
    ship(order, context)
}

/// A payment arrives. The same payment again changes nothing.
fn paid(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Event { key: payment, .. } = input.cause else { return Ok(Reply::value("only an event calls this")) };
    let Payment { amount } = input.json()?;
    if context.map_get("payments", payment)?.is_some() {
        context.count("payments_again", &[], 1);
        return Ok(Reply::none());
    }
    let mut order: Order = context.value_json()?.unwrap_or_default();
    let sum = order.paid.checked_add(amount).filter(|_| amount > 0);
    order.paid = sum.ok_or_else(|| Failure::new(format!("a payment of {amount}; 1 or more is allowed")))?;
    context.map_put("payments", payment, encode_i64(amount))?;
    context.count("payments", &[], 1);
    ship(order, context)
}

/// Ships an order once all of it is paid, and stores it.
fn ship(mut order: Order, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if let Some(enriched) = order.order.as_ref().filter(|enriched| !order.shipped && order.paid >= enriched.total) {
        let key = context.key().to_vec();
        context.append("shipments", key, to_json(enriched)?)?;
        context.count("shipments", &[], 1);
        order.shipped = true;
    }
    context.set_value_json(&order)?;
    Ok(Reply::none())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(format!("no JSON for the value: {error}")))
}
