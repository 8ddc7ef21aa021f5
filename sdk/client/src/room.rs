//! Room in the window: waiting for it, and not waiting for what cannot come.

use std::time::Duration;

use crate::client::{Client, NAP_MAX};
use crate::clock::{now, until};
use crate::error::{Error, ErrorKind};

impl Client {
    /// Waits until the window has room for an operation.
    ///
    /// # Errors
    /// Unreachable: nothing that could make room has been on any connection for as long as `Config::room_wait`.
    pub(crate) fn wait_for_room(&mut self, bytes: usize) -> Result<(), Error> {
        let mut given_up_at = None;
        while !self.has_room(bytes) {
            if !self.is_cut_off() {
                given_up_at = None;
                self.step(NAP_MAX);
                continue;
            }
            let left = until(*given_up_at.get_or_insert_with(|| now() + self.config.room_wait));
            self.step(left.clamp(Duration::from_millis(1), NAP_MAX));
            if left.is_zero() && self.is_cut_off() && !self.has_room(bytes) {
                return Err(self.cut_off());
            }
        }
        Ok(())
    }

    fn has_room(&self, bytes: usize) -> bool {
        let (count, held) = (self.pending.len(), self.pending.bytes());
        count == 0 || count < self.config.window && held + bytes <= self.config.window_bytes
    }

    /// Whether nothing without a result is on a connection, or could go out over one that is there.
    fn is_cut_off(&self) -> bool {
        let mut connected = self.shards.iter().filter_map(|shard| shard.link.as_ref().map(|link| (shard, link)));
        !connected.any(|(shard, link)| shard.has_work() || !link.flights.is_empty())
    }

    fn cut_off(&self) -> Error {
        let (seconds, count) = (self.config.room_wait.as_secs_f64(), self.pending.len());
        let message = format!(
            "no connection for {seconds} s, and {count} operations of {} bytes fill the window; this one was not \
             submitted: {}",
            self.pending.bytes(),
            self.last_trouble
        );
        Error::new(ErrorKind::Unreachable, message)
    }
}
