//! Accounts that move money between them: the smallest app in which a lost or doubled message shows.
//!
//! Money is made by `open` alone. Every other handler moves it: what leaves a balance is in exactly one message until it
//! is in exactly one other balance, or back. So the sum of all balances and of all messages on their way is the sum of
//! what was opened with, at every moment, whatever fails. The handlers that credit an account accept only inputs that no
//! client can make.

mod money;
mod orders;

use gristmill_sdk::App;

pub use money::{Audit, Outcome, Receipt, Transfer};
pub use orders::Order;

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("bank-transfer", include_str!("../app.yaml"))
        .each("accounts", "open", money::open)
        .each("accounts", "transfer", money::transfer)
        .each("accounts", "deposit", money::deposit)
        .each("accounts", "done", money::done)
        .each("accounts", "close", money::close)
        .each("accounts", "order", orders::order)
        .each("accounts", "order_due", orders::order_due)
}
