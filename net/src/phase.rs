//! The life of a connection.

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No good hello yet.
    Fresh,
    /// Hello was understood; the shard looks for the session.
    Greeting,
    /// Operations are taken.
    Open,
    /// Something was wrong: what is queued is sent, nothing is taken any more.
    Closing,
    /// The owner of the socket was told to close it.
    Closed,
}
