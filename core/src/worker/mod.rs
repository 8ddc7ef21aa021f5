//! Workers: processes outside the server that run handlers. What goes to them and what they say, as data; the host that
//! hands runs to them; and the pool that knows which worker has which run. Nothing here knows a socket or a byte.

mod effect;
mod host;
mod order;
mod pool;
mod said;

pub use effect::Effect;
pub use host::WorkerHost;
pub use order::{Eager, Order, OrderCause, OrderInput};
pub use pool::{Act, Pool, Refused, RunKey};
pub use said::{Ended, Found, News, Outcome, Read, Said, ToWorkers};
