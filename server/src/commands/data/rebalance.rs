//! `gristmill data rebalance`: moves slots between the shards of a running server, one after the other.

use super::super::connect::{Server, failed};
use super::super::output::{Format, Output, Printer};
use crate::exit::{Exit, Failed};
use gristmill_base::ids::{ShardId, SlotId};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The data directory of the running server; its endpoints.json says where it listens.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The slot to move; without it slots are moved until every shard has as many as its share.
    #[arg(long, value_name = "N", requires = "to")]
    slot: Option<u16>,
    /// The shard that is to have it.
    #[arg(long, value_name = "SHARD", requires = "slot")]
    to: Option<u16>,
    /// Print what would be moved, and move nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
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
    let plan: Vec<Step> = match (arguments.slot, arguments.to) {
        (Some(slot), Some(to)) => {
            let from = owners.get(usize::from(slot)).copied().ok_or_else(|| {
                Failed::new(Exit::Usage, format!("there is no slot {slot}; slots are 0 to {}", owners.len() - 1))
            })?;
            vec![(SlotId(slot), from, ShardId(to))]
        }
        _ => even(&owners, shards),
    };
    let is_json = arguments.output.output == Format::Json;
    let mut printer = Printer::new();
    if plan.is_empty() && !is_json {
        printer.line("every shard has its share of the slots")?;
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
