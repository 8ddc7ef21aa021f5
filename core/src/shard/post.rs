//! What goes to other shards at the end of a turn. Live items go first, as far as that reorders nothing of one stream.

use crate::parcel::{Item, Parcel};
use ahash::AHashSet;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{SessionId, ShardId, SlotId};
use gristmill_state::input::{StreamId, Target};
use std::collections::BTreeMap;

/// Items by receiver, in the order in which they were said.
#[derive(Debug, Default)]
pub(super) struct Post {
    items: BTreeMap<ShardId, Parcel>,
    /// Whether any of them is bulk.
    has_bulk: bool,
}

/// What must stay in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Line {
    /// A stream and its slot.
    Stream(StreamId, SlotId),
    /// Operations of a session.
    Session(SessionId),
}

impl Post {
    /// Adds an item behind the others.
    pub(super) fn push(&mut self, to: ShardId, item: Item) {
        self.has_bulk |= class_of(&item).is_bulk();
        self.items.entry(to).or_default().push(item);
    }

    /// Everything, for each receiver in the order in which it is to go.
    pub(super) fn take(&mut self) -> BTreeMap<ShardId, Parcel> {
        let mut all = std::mem::take(&mut self.items);
        if std::mem::take(&mut self.has_bulk) {
            all.values_mut().for_each(live_first);
        }
        all
    }
}

/// Moves bulk items behind the others, and with them whatever is behind them in their own line.
fn live_first(items: &mut Parcel) {
    let mut behind = Vec::new();
    let mut lines: AHashSet<Line> = AHashSet::new();
    let mut first = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let line = line_of(&item);
        let follows = line.is_some_and(|line| lines.contains(&line));
        if line.is_none() || !(follows || class_of(&item).is_bulk()) {
            first.push(item);
            continue;
        }
        lines.extend(line);
        behind.push(item);
    }
    if !first.is_empty() && !behind.is_empty() {
        gristmill_base::sometimes::reached("live items ahead of bulk in a parcel");
    }
    first.append(&mut behind);
    *items = first;
}

fn class_of(item: &Item) -> InputClass {
    match item {
        Item::Message { target: Target::Grain(_, input), .. } | Item::Event { input, .. } => input.class,
        Item::Message { target: Target::Lane(_, class, ..), .. } => *class,
        Item::Request(request) => request.class,
        _ => InputClass::Live,
    }
}

/// The line in which an item stands. What stands in none says something that is true whenever it comes.
fn line_of(item: &Item) -> Option<Line> {
    match item {
        Item::Message { from, to, .. } => Some(Line::Stream(StreamId::Slot(*from), *to)),
        Item::Event { stream, to, .. } | Item::Cover { stream, to, .. } | Item::Skip { stream, to, .. } => {
            Some(Line::Stream(*stream, *to))
        }
        Item::Request(request) => Some(Line::Session(request.session)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(lane: u16, to: u16, pos: u64) -> Item {
        let stream = StreamId::Topic {
            subscription: gristmill_base::ids::SubscriptionId(1),
            lane: gristmill_base::ids::LaneId(lane),
        };
        Item::Cover { stream, to: SlotId(to), prev: pos - 1, pos }
    }

    fn message(from: u16, to: u16, seq: u64, class: InputClass) -> Item {
        let lane = gristmill_base::ids::LaneKey {
            topic: gristmill_base::ids::TopicId(1),
            lane: gristmill_base::ids::LaneId(0),
        };
        let target = Target::Lane(lane, class, [1].into(), [2].into());
        Item::Message { from: SlotId(from), to: SlotId(to), seq, target }
    }

    fn taken(items: Vec<Item>) -> Vec<String> {
        let mut post = Post::default();
        items.into_iter().for_each(|item| post.push(ShardId(1), item));
        let each = |item: &Item| match item {
            Item::Message { from, to, seq, .. } => format!("{}>{}:{seq}", from.0, to.0),
            Item::Cover { to, pos, .. } => format!("cover {}:{pos}", to.0),
            other => format!("{other:?}"),
        };
        post.take().remove(&ShardId(1)).unwrap_or_default().iter().map(each).collect()
    }

    #[test]
    fn live_goes_first_and_no_line_is_reordered() {
        use InputClass::{Bulk, Live};
        let found = taken(vec![
            message(1, 2, 1, Bulk),
            message(3, 2, 1, Live),
            message(1, 2, 2, Live),
            message(1, 4, 1, Live),
            cover(7, 2, 5),
            message(3, 2, 2, Bulk),
            message(3, 2, 3, Live),
        ]);
        assert_eq!(found, ["3>2:1", "1>4:1", "cover 2:5", "1>2:1", "1>2:2", "3>2:2", "3>2:3"]);
    }

    #[test]
    fn every_line_keeps_its_order_whatever_comes() {
        let mut dice = 7_u64;
        let mut roll = |below: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % below
        };
        for _ in 0..200 {
            let mut next = [1_u64; 9];
            let items: Vec<Item> = (0..40)
                .map(|_| {
                    let (from, to) = (roll(3) as u16, roll(3) as u16);
                    let at = usize::from(from * 3 + to);
                    next[at] += 1;
                    message(from, to, next[at] - 1, InputClass::from(roll(3) == 0))
                })
                .collect();
            let mut last: std::collections::BTreeMap<String, u64> = BTreeMap::new();
            for text in taken(items) {
                let (line, seq) = text.split_once(':').unwrap();
                let seq: u64 = seq.parse().unwrap();
                assert_eq!(last.insert(line.to_owned(), seq).unwrap_or(0) + 1, seq, "{text}");
            }
        }
    }
}
