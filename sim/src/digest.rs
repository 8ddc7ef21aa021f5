//! The digest of a data directory's state: what must be the same however often, and at whichever core count, the same
//! bytes are recovered.

use crate::rows::{Backlogs, TimerRows, WholeGrain, backlogs_of, rows_of};
use crate::trace::TraceHash;
use gristmill_base::ids::SlotId;
use gristmill_core::Shard;
use gristmill_state::grain::Work;
use gristmill_state::slot::Slot;
use std::fmt::Write;

/// The digest of the slots of these shards, whose files `bytes_of` brings.
///
/// # Errors
/// Damage of a file that holds rows, with its path.
pub fn digest_of<'a>(
    shards: impl Iterator<Item = &'a Shard> + Clone,
    slot_count: u16,
    bytes_of: &dyn Fn(&str) -> Vec<u8>,
) -> Result<u64, String> {
    let mut hash = TraceHash::default();
    for id in (0..slot_count).map(SlotId) {
        match shards.clone().find_map(|shard| Some((shard, shard.slot(id)?))) {
            Some((shard, slot)) => {
                let backlogs = backlogs_of(shard, id, bytes_of)?;
                digest_slot(&mut hash, slot, &rows_of(shard, id, bytes_of)?, &backlogs);
            }
            None => hash.mix(u64::MAX),
        }
    }
    Ok(hash.value())
}

/// Mixes in a slot: everything that its records say, but not where its lanes' bytes lie.
fn digest_slot(hash: &mut TraceHash, slot: &Slot, (rows, timers): &(Vec<WholeGrain>, TimerRows), backlogs: &Backlogs) {
    hash.mix(slot.last_ssn().0);
    hash.mix(slot.session_floor().0);
    hash.mix(slot.session_count() as u64);
    for (id, stream) in slot.streams() {
        say(hash, format_args!("{id:?} {} {:?}", stream.cursor(), stream.done()));
    }
    for (to, channel) in &slot.outbox {
        say(hash, format_args!("{to} {}", channel.next()));
        for row in channel.rows() {
            say(hash, format_args!("{} {:?}", row.seq, row.target));
        }
    }
    for (key, row) in timers {
        say(hash, format_args!("{key:?} {row:?}"));
    }
    for (key, lane) in &slot.lanes {
        say(hash, format_args!("{key:?} {} {}", lane.start, lane.end()));
    }
    say(hash, format_args!("{:?} {}", slot.metrics, slot.switches_text()));
    let mut grains: Vec<_> = slot.grains.iter().map(|(_, grain)| grain).collect();
    grains.sort_by(|left, right| (left.table, &*left.key).cmp(&(right.table, &*right.key)));
    for grain in grains {
        let count = grain.work().map_or(0, Work::backlog_count);
        if count > 0 || grain.parked().is_some() {
            say(hash, format_args!("{} {:?} {count} {:?}", grain.table, grain.key, grain.parked()));
            grain
                .work()
                .and_then(|work| work.edited.as_ref())
                .iter()
                .for_each(|row| say(hash, format_args!("{row:?}")));
        }
    }
    for row in backlogs {
        say(hash, format_args!("{row:?}"));
    }
    for grain in rows {
        say(hash, format_args!("{grain:?}"));
    }
}

fn say(hash: &mut TraceHash, words: std::fmt::Arguments<'_>) {
    // Writing into a hash never fails.
    let _ = hash.write_fmt(words);
}
