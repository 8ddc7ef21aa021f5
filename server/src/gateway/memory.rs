//! Whether the process keeps to its memory budget.

use super::board::Board;
use crate::messages::target;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks: what a server takes in meanwhile must fit what the budget leaves of the machine.
const PAUSE: Duration = Duration::from_millis(250);

/// The part of the budget that is left when memory is tight.
const TIGHT_SHARE: u64 = 16;

/// Looks at the memory of this process for ever, and tells the shards when it is near the budget or over it, and when it is
/// well below it again.
pub(super) async fn watch(board: Arc<Board>) {
    let (mut short, mut tight) = (false, false);
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(Resident { bytes, file_bytes }) = resident() else { continue };
        // Pages of files go when the system needs memory, whatever this process does.
        let resident = bytes.saturating_sub(file_bytes);
        let now = is_above(resident, board.budget_bytes, short);
        if now != short {
            let what =
                if now { "over the memory budget, writes are refused" } else { "within the memory budget again" };
            let budget = board.budget_bytes;
            tracing::warn!(
                target: target!(), resident, budget,
                "{resident} bytes of memory, the budget is {budget}: {what}"
            );
        }
        short = now;
        tight = is_above(resident, board.budget_bytes - board.budget_bytes / TIGHT_SHARE, tight);
        board.set_memory(short, tight);
    }
}

/// Above a line, and until a twentieth below it; never without a line.
fn is_above(resident: u64, line: u64, before: bool) -> bool {
    let now = if before { line - line / 20 } else { line };
    line > 0 && resident > now
}

/// Memory of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resident {
    /// All of it, bytes.
    pub(super) bytes: u64,
    /// The part of it that are pages of files, bytes: the program.
    pub(super) file_bytes: u64,
}

/// Memory of this process now.
pub(super) fn resident() -> Option<Resident> {
    resident_of(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_of(status: &str) -> Option<Resident> {
    let bytes = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
    };
    Some(Resident { bytes: bytes("VmRSS:")?, file_bytes: bytes("RssFile:").unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_above_the_budget_until_well_below_it() {
        assert!(!is_above(100, 100, false) && is_above(101, 100, false));
        assert!(is_above(96, 100, true) && !is_above(95, 100, true));
        assert!(!is_above(u64::MAX, 0, true));
        let found = resident_of("VmPeak:\t9 kB\nVmRSS:\t  12 kB\nRssFile:\t       3 kB\n");
        assert_eq!(found, Some(Resident { bytes: 12 << 10, file_bytes: 3 << 10 }));
        assert!(resident().unwrap().bytes > 1 << 20);
    }
}
