//! Gives orders and payments to a running server, in three ways: `cargo run -p orders --example place -- HOST:PORT`.

#![allow(dead_code, reason = "a test of the stock binary uses a part of it")]

use gristmill_client::{Client, Config, Error};

const ORDERS: &str = "orders/orders";

fn order(customer: &str, total: i64) -> Vec<u8> {
    serde_json::json!({"customer": customer, "total": total}).to_string().into_bytes()
}

/// One after the other: each is durable when the call returns.
fn one_by_one(client: &mut Client) -> Result<(), Error> {
    for number in 0..3 {
        client.produce(ORDERS, format!("sync-{number}").as_bytes(), &order("ann", 10))?;
    }
    Ok(())
}

/// All at once: they share the way to the disk, and each has an outcome of its own.
fn side_by_side(client: &mut Client) -> Result<(), Error> {
    let topic = client.topic(ORDERS)?;
    let tickets: Result<Vec<_>, Error> = (0..100)
        .map(|number| client.submit_produce(&topic, format!("async-{number}").into_bytes(), order("bob", 10)))
        .collect();
    client.flush();
    for ticket in tickets? {
        client.wait(ticket)?;
    }
    Ok(())
}

/// As record batches, one for each lane: a batch is appended whole, or not at all.
fn together(client: &mut Client) -> Result<(), Error> {
    let events: Vec<_> = (0..1_000).map(|number| (format!("batch-{number}").into_bytes(), order("ann", 10))).collect();
    client.append(ORDERS, &events)?;
    Ok(())
}

/// Customers first, then orders in three ways, then a payment for each of them.
pub(crate) fn everything(client: &mut Client) -> Result<(), Error> {
    for name in ["ann", "bob"] {
        let value = serde_json::json!({"name": name, "tier": "gold"}).to_string();
        client.invoke("orders/customers", name.as_bytes(), "register", value.as_bytes())?;
    }
    one_by_one(client)?;
    side_by_side(client)?;
    together(client)?;
    let names = (0..3).map(|number| format!("sync-{number}")).chain((0..100).map(|number| format!("async-{number}")));
    let names = names.chain((0..1_000).map(|number| format!("batch-{number}")));
    let payment = |order: String| {
        let value = serde_json::json!({"order": order, "amount": 10}).to_string().into_bytes();
        (format!("payment of {order}").into_bytes(), value)
    };
    let payments: Vec<_> = names.map(payment).collect();
    client.append("orders/payments", &payments)?;
    Ok(())
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let mut client = Client::connect(Config::new(address))?;
    everything(&mut client)?;
    println!("1103 orders and their payments are durable");
    Ok(())
}
