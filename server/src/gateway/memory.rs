//! Whether the process keeps to its memory budget.

use super::board::Board;
use crate::messages::target;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks: what a server takes in meanwhile must fit what the budget leaves of the machine.
const PAUSE: Duration = Duration::from_millis(250);

/// Looks at the memory of this process for ever, and tells the shards when it is over the budget and when it is well
/// below it again.
pub(super) async fn watch(board: Arc<Board>) {
    let mut short = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(resident) = resident_bytes() else { continue };
        let now = is_short(resident, board.budget_bytes, short);
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
        board.set_memory_short(short);
    }
}

/// Short above the budget, and until a twentieth below it; never without a budget.
fn is_short(resident: u64, budget: u64, before: bool) -> bool {
    let line = if before { budget - budget / 20 } else { budget };
    budget > 0 && resident > line
}

/// Bytes of this process that are in memory.
pub(super) fn resident_bytes() -> Option<u64> {
    resident_of(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_of(status: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_above_the_budget_until_well_below_it() {
        assert!(!is_short(100, 100, false) && is_short(101, 100, false));
        assert!(is_short(96, 100, true) && !is_short(95, 100, true));
        assert!(!is_short(u64::MAX, 0, true));
        assert_eq!(resident_of("VmPeak:\t9 kB\nVmRSS:\t  12 kB\n"), Some(12 << 10));
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
