//! Timers of the bank: when each comes due, and that none is lost.

use super::super::Names;
use crate::machine::Machine;
use gristmill_sdk::datatype::decode_u64;

/// Of so many orders one sets a timer that outlives checkpoints; the others come due before the run after the next one, which
/// often sets them again.
const FAR_EVERY: u64 = 3;
const FAR_MICROS: u64 = 60_000;

/// When the timer that an order sets comes due.
pub(super) fn due_micros(now_micros: u64, id: u64) -> u64 {
    now_micros + if id.is_multiple_of(FAR_EVERY) { FAR_MICROS } else { id % 5 * 400 }
}

/// No timer is set any more; then every account whose last order set one has seen it.
pub(super) fn none_is_lost(machine: &Machine, names: &Names) -> Result<(), String> {
    for grain in machine.all_grains()? {
        let table = names.table_name(grain.table);
        if table != "accounts" {
            continue;
        }
        let last = grain.maps.get(&names.map(table, "last"));
        if let Some(row) = last.and_then(|entries| entries.get(&b"timer"[..])) {
            let id = <[u8; 8]>::try_from(&*row.bytes).map_or(u64::MAX, decode_u64);
            let key = String::from_utf8_lossy(&grain.key);
            return Err(format!("P4: the timer of order {id} of {table}/{key} is neither set nor has it fired"));
        }
    }
    Ok(())
}
