//! What the demo asks the server's status for.

use crate::commands::failed;
use crate::exit::{Exit, Failed};
use gristmill_client::Client;
use gristmill_client::clock::now;
use serde_json::Value;
use std::time::Duration;

/// A server whose status does not change for so long while something is unsettled is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The parts of the status that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) unsettled: u64,
    pub(super) parked: u64,
    /// Parcels that shards have sent to each other.
    pub(super) sent: u64,
    /// Records that recovery applied.
    pub(super) replayed: u64,
    /// Acknowledged lines whose effects recovery found unfinished, before it went on with them.
    pub(super) unapplied: u64,
}

/// Asks for the status.
///
/// # Errors
/// The server does not answer, or not with a status.
pub(super) fn look(client: &mut Client) -> Result<Look, Failed> {
    let text = client.status().map_err(failed)?;
    parse(&text).ok_or_else(|| Failed::new(Exit::Internal, format!("this is no status: {text}")))
}

fn parse(text: &str) -> Option<Look> {
    let status: Value = serde_json::from_str(text).ok()?;
    let number = |name: &str| status[name].as_u64();
    Some(Look {
        unsettled: number("unsettled")?,
        parked: number("parked")?,
        sent: number("sent")?,
        replayed: number("replayed")?,
        unapplied: number("unapplied_at_start")?,
    })
}

/// Waits until nothing is unsettled, twice in a row with nothing sent between.
///
/// # Errors
/// A grain is parked, nothing moves any more, or the server does not answer.
pub(super) fn settle(client: &mut Client) -> Result<(), Failed> {
    let mut last = look(client)?;
    let mut changed = now();
    loop {
        std::thread::sleep(LOOK_EVERY);
        let next = look(client)?;
        if next.parked > 0 {
            return Err(Failed::new(Exit::No, format!("{} grains are parked; none should be", next.parked)));
        }
        if next.unsettled == 0 && last.unsettled == 0 && next.sent == last.sent {
            return Ok(());
        }
        if next != last {
            changed = now();
        }
        if now() - changed > STUCK {
            return Err(Failed::new(Exit::TimeOut, format!("{} inputs stay unsettled", next.unsettled)));
        }
        last = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = r#"{"unsettled": 3, "parked": 0, "sent": 9, "replayed": 4, "unapplied_at_start": 5, "shards": []}"#;
        let look = parse(text).unwrap();
        assert_eq!((look.unsettled, look.sent, look.replayed, look.unapplied), (3, 9, 4, 5));
        assert_eq!(parse("{}"), None);
    }
}
