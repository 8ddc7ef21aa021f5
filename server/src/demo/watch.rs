//! What the demo asks the server's status for.

use crate::commands::failed;
use crate::exit::{Exit, Failed};
use crate::ingest;
use gristmill_client::Client;
use serde_json::Value;
use std::time::Duration;

/// Longest wait for everything to be handled.
const LONGEST: Duration = Duration::from_secs(300);

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

/// Waits until everything that was appended is handled, with all that it caused, as `gristmill app wait` does.
///
/// # Errors
/// A grain is parked, it takes too long, or the server does not answer.
pub(super) fn settle(client: &mut Client) -> Result<(), Failed> {
    let found = ingest::settle(client, "word-count", LONGEST)?;
    if found.parked > 0 {
        return Err(Failed::new(Exit::No, format!("{} grains are parked; none should be", found.parked)));
    }
    if !found.settled {
        let message = format!("inputs stay unsettled for {} s", LONGEST.as_secs());
        return Err(Failed::new(Exit::TimeOut, message));
    }
    Ok(())
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
