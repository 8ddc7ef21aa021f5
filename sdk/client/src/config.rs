//! How a client behaves.

use std::time::Duration;

use gristmill_base::class::InputClass;

/// Settings of a [`crate::Client`]. Start from [`Config::new`] and change what is wanted.
#[derive(Clone, Debug)]
pub struct Config {
    /// Host and port of any shard's native listener.
    pub address: String,
    /// Name and version of the program, for a person who looks at the server; at most 249 bytes.
    pub name: String,
    /// How long one attempt to connect, its hello included, may take.
    pub connect_timeout: Duration,
    /// How long [`crate::Client::connect`] goes on trying; zero tries once.
    pub connect_wait: Duration,
    /// How long an operation may take, attempts after lost connections included. Then it ends as unknown, or as failed
    /// for certain when the server cannot have carried it out.
    pub request_timeout: Duration,
    /// First pause before an operation is sent again or a connection tried again; it doubles with every failure.
    pub backoff_min: Duration,
    /// Longest such pause.
    pub backoff_max: Duration,
    /// How long submitting waits for room in the window while no connection is there; then it fails as unreachable.
    pub room_wait: Duration,
    /// Operations without a result at most, over all shards. Submitting one more waits.
    pub window: usize,
    /// Bytes of keys and values of operations without a result at most, over all shards. Submitting more waits; one
    /// operation may always be submitted.
    pub window_bytes: usize,
    /// Class of everything that is sent: live, or bulk, which yields to live.
    pub class: InputClass,
}

impl Config {
    /// The usual settings.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            name: concat!("gristmill-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(5),
            connect_wait: Duration::ZERO,
            request_timeout: Duration::from_secs(30),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            room_wait: Duration::from_secs(1),
            window: 4_096,
            window_bytes: 16 << 20,
            class: InputClass::Live,
        }
    }
}
