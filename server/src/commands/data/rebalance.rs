//! `gristmill data rebalance`: moves slots between the shards of a running server, one after the other.

use super::super::connect::{Server, failed};
use super::super::output::{Format, Output, Printer};
use crate::exit::{Exit, Failed};
use gristmill_base::ids::{ShardId, SlotId};
use gristmill_base::limits::SLOT_COUNT_MAX;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::str::FromStr;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The data directory of the running server; its endpoints.json says where it listens.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The slots to move, as 7 or 0-63 or 1,5,8-15; without it slots are moved until every shard has as many as its share.
    #[arg(long, value_name = "SLOTS", requires = "to")]
    slot: Option<Slots>,
    /// The shard that is to have them.
    #[arg(long, value_name = "SHARD", requires = "slot")]
    to: Option<u16>,
    /// Print what would be moved, and move nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Slots as they are named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slots(Vec<u16>);

impl FromStr for Slots {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let found = text.trim().parse::<u16>().ok().filter(|slot| *slot < SLOT_COUNT_MAX);
            found.ok_or_else(|| format!("\"{text}\" is no slot; slots are numbers up to {}", SLOT_COUNT_MAX - 1))
        };
        let mut slots = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("\"{part}\" ends before it begins"));
            }
            slots.extend(first..=last);
        }
        slots.sort_unstable();
        slots.dedup();
        Ok(Self(slots))
    }
}

/// A slot, where it is, and where it goes.
type Step = (SlotId, ShardId, ShardId);

/// Does it.
///
/// # Errors
/// A server that does not answer, or a slot that it does not move.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let server = Server::of_directory(&arguments.dir);
    let mut client = server.connect()?;
    let topology = client.topology();
    let (owners, shards) = (topology.slots.clone(), topology.shards.len());
    let plan: Vec<Step> = match (&arguments.slot, arguments.to) {
        (Some(slots), Some(to)) => named(&slots.0, &owners, ShardId(to))?,
        _ => even(&owners, shards),
    };
    let is_json = arguments.output.output == Format::Json;
    let mut printer = Printer::new();
    if plan.is_empty() && !is_json {
        printer.line(match arguments.to {
            Some(_) => "the shard has these slots already",
            None => "every shard has its share of the slots",
        })?;
    }
    for (slot, from, to) in plan {
        let told = match arguments.dry_run {
            true => json!({"slot": slot.0, "from": from.0, "to": to.0, "moved": false}),
            false => {
                let text = client.move_slot(slot, to).map_err(failed)?;
                serde_json::from_str::<Value>(&text)
                    .map_err(|error| Failed::new(Exit::Internal, format!("the server answers {text}: {error}")))?
            }
        };
        if is_json {
            printer.json(&told)?;
        } else {
            let waited = told["paused_us"]
                .as_u64()
                .map(|micros| format!(", its requests waited {:.1} ms", micros as f64 / 1_000.0));
            printer.line(&format!("slot {slot}: shard {from} to shard {to}{}", waited.unwrap_or_default()))?;
        }
        printer.flush()?;
    }
    printer.flush()
}

/// Moves of these slots to a shard; of several, only those that are not there.
fn named(slots: &[u16], owners: &[ShardId], to: ShardId) -> Result<Vec<Step>, Failed> {
    let mut plan = Vec::new();
    for slot in slots {
        let from = owners.get(usize::from(*slot)).copied().ok_or_else(|| {
            Failed::new(Exit::Usage, format!("there is no slot {slot}; slots are 0 to {}", owners.len() - 1))
        })?;
        if slots.len() == 1 || from != to {
            plan.push((SlotId(*slot), from, to));
        }
    }
    Ok(plan)
}

/// Moves that leave every shard with as many slots as any other, or one more: from those with most to those with fewest.
fn even(owners: &[ShardId], shards: usize) -> Vec<Step> {
    let mut of: Vec<Vec<u16>> = vec![Vec::new(); shards];
    for (slot, owner) in (0..).zip(owners) {
        if let Some(of) = of.get_mut(usize::from(owner.0)) {
            of.push(slot);
        }
    }
    let mut plan = Vec::new();
    loop {
        let most = (0..of.len()).max_by_key(|shard| of[*shard].len()).unwrap_or(0);
        let fewest = (0..of.len()).min_by_key(|shard| of[*shard].len()).unwrap_or(0);
        if of.is_empty() || of[most].len() <= of[fewest].len() + 1 {
            return plan;
        }
        let slot = of[most].pop().expect("it has more than another");
        of[fewest].push(slot);
        plan.push((SlotId(slot), ShardId(most as u16), ShardId(fewest as u16)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_one_by_one_and_by_ranges() {
        let slots = |text: &str| text.parse::<Slots>().map(|slots| slots.0);
        assert_eq!(slots("7"), Ok(vec![7]));
        assert_eq!(slots("5, 1-3,2"), Ok(vec![1, 2, 3, 5]));
        for (text, found) in
            [("", "\"\""), ("3-1", "3-1"), ("x", "x"), ("1-", "\"\""), ("1024", "1023"), ("-1", "\"\"")]
        {
            let error = slots(text).unwrap_err();
            assert!(error.contains(found), "{text}: {error}");
        }
        let owners = [0, 1, 0].map(ShardId);
        let plan = named(&[0, 1, 2], &owners, ShardId(1)).ok();
        assert_eq!(plan.map(|plan| plan.iter().map(|(slot, ..)| slot.0).collect::<Vec<_>>()), Some(vec![0, 2]));
        assert_eq!(named(&[1], &owners, ShardId(1)).map(|plan| plan.len()).ok(), Some(1));
        assert!(named(&[3], &owners, ShardId(1)).is_err());
    }

    #[test]
    fn slots_are_evened_out_by_as_few_moves_as_it_takes() {
        let owners = [0, 0, 0, 0, 0, 1, 2].map(ShardId);
        let plan = even(&owners, 3);
        assert_eq!(plan.len(), 2);
        assert!(
            plan.iter()
                .all(|(slot, from, to)| owners[usize::from(slot.0)] == *from && *from == ShardId(0) && to != from)
        );
        assert!(even(&[0, 1, 0].map(ShardId), 2).is_empty());
        assert_eq!(even(&[0, 0].map(ShardId), 1), []);
    }
}
