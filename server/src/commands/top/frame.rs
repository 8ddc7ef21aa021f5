//! What is shown: the difference of two looks, as rows of text.

use super::sample::{Sample, Shard};
use crate::commands::output::{Mood, grouped};
use crate::commands::status::mood_of;

/// Hot keys that are shown.
const HOT_SHOWN: usize = 10;

/// One table of a frame. A row's mood colours it.
pub(super) struct Part {
    pub(super) title: &'static str,
    pub(super) head: &'static [&'static str],
    pub(super) rows: Vec<(Vec<String>, Mood)>,
    /// Instead of rows, if there are none.
    pub(super) empty: &'static str,
}

/// See the module.
pub(super) struct Frame {
    /// A line about the whole server.
    pub(super) summary: String,
    pub(super) parts: Vec<Part>,
}

/// A count in two looks, and the seconds between them.
#[derive(Clone, Copy)]
struct Rates {
    seconds: f64,
    /// The server has started anew: what it counted before does not count.
    anew: bool,
}

impl Rates {
    fn of(self, before: u64, after: u64) -> String {
        let before = if self.anew { 0 } else { before };
        rate(after.saturating_sub(before) as f64 / self.seconds)
    }
}

/// A rate for a person: whole numbers, but what is rare is not hidden.
fn rate(value: f64) -> String {
    if value > 0.0 && value < 9.95 { format!("{value:.1}") } else { grouped(value.round() as u64) }
}

impl Frame {
    /// What has happened from one look to the next.
    pub(super) fn between(before: &Sample, after: &Sample) -> Self {
        let seconds = after.at_nanos.saturating_sub(before.at_nanos).max(1) as f64 / 1e9;
        let rates = Rates { seconds, anew: before.boot != after.boot };
        let sum =
            |of: fn(&Shard) -> u64| rates.of(before.shards.values().map(of).sum(), after.shards.values().map(of).sum());
        let parked: u64 = after.shards.values().map(|shard| shard.parked).sum();
        let summary = format!(
            "start {}   requests {}/s   events {}/s   runs {}/s   flushes {}/s   unsettled {}   parked {}   apps {}",
            after.boot,
            sum(|shard| shard.requests),
            sum(|shard| shard.events),
            sum(|shard| shard.runs),
            sum(|shard| shard.flushes),
            grouped(after.unsettled),
            grouped(parked),
            // The last, because the list may be longer than the terminal is wide.
            if after.apps.is_empty() { "none".to_owned() } else { after.apps.join(", ") },
        );
        let parts = vec![
            shards(before, after, rates),
            topics(before, after, rates),
            handlers(before, after, rates),
            hot_keys(after),
        ];
        Self { summary, parts }
    }
}

fn shards(before: &Sample, after: &Sample, rates: Rates) -> Part {
    let nothing = Shard::default();
    let rows = after.shards.iter().map(|(id, now)| {
        let then = before.shards.get(id).unwrap_or(&nothing);
        let (records, flushes) =
            if rates.anew { (0, 0) } else { (then.records.min(now.records), then.flushes.min(now.flushes)) };
        let flushes = now.flushes - flushes;
        let together = if flushes == 0 { 0.0 } else { (now.records - records) as f64 / flushes as f64 };
        let micros = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        let cells = vec![
            id.to_string(),
            now.cpu.map_or_else(|| "?".to_owned(), |cpu| cpu.to_string()),
            rates.of(then.requests, now.requests),
            rates.of(then.runs, now.runs),
            rates.of(then.failures, now.failures),
            grouped(now.queued_events),
            grouped(now.queued_inputs),
            grouped(now.queued_messages),
            rates.of(then.flushes, now.flushes),
            rate(together),
            micros(now.flush_us.map(|(median, _)| median)),
            micros(now.flush_us.map(|(_, late)| late)),
            grouped(now.grains),
            grouped(now.parked),
            now.log.clone(),
        ];
        let mood = match mood_of(&now.log) {
            Mood::Good if now.parked == 0 => Mood::Plain,
            Mood::Good => Mood::Odd,
            mood => mood,
        };
        (cells, mood)
    });
    Part {
        title: "shards",
        head: &[
            "shard",
            "cpu",
            "req/s",
            "runs/s",
            "fail/s",
            "events",
            "inputs",
            "messages",
            "flush/s",
            "rec/flush",
            "p50 us",
            "p99 us",
            "grains",
            "parked",
            "log",
        ],
        rows: rows.collect(),
        empty: "the server tells of no shard",
    }
}

fn topics(before: &Sample, after: &Sample, rates: Rates) -> Part {
    let rows = after.topics.iter().map(|(place, events)| {
        let then = before.topics.get(place).copied().unwrap_or(0);
        let (app, topic) = place;
        (vec![format!("{app}/{topic}"), rates.of(then, *events), grouped(*events)], Mood::Plain)
    });
    Part {
        title: "topics",
        head: &["topic", "events/s", "events"],
        rows: rows.collect(),
        empty: "no events since the start",
    }
}

fn handlers(before: &Sample, after: &Sample, rates: Rates) -> Part {
    let rows = after.handlers.iter().map(|(place, now)| {
        let then = before.handlers.get(place).copied().unwrap_or_default();
        let (app, table, handler) = place;
        let failing = rates.anew && now.failures > 0 || now.failures > then.failures;
        let cells = vec![
            format!("{app}/{table}.{handler}"),
            rates.of(then.runs, now.runs),
            rates.of(then.inputs, now.inputs),
            rates.of(then.failures, now.failures),
            grouped(now.runs),
            grouped(now.failures),
        ];
        (cells, if failing { Mood::Odd } else { Mood::Plain })
    });
    Part {
        title: "handlers",
        head: &["handler", "runs/s", "inputs/s", "fail/s", "runs", "failures"],
        rows: rows.collect(),
        empty: "no runs since the start",
    }
}

fn hot_keys(after: &Sample) -> Part {
    let rows = after.hot.iter().take(HOT_SHOWN).map(|hot| {
        let share = format!("{:.1} %", hot.share * 100.0);
        (vec![hot.table.clone(), hot.key.clone(), hot.shard.to_string(), share], Mood::Plain)
    });
    Part {
        title: "hot keys (share of what their shard does, sampled)",
        head: &["table", "key", "shard", "share"],
        rows: rows.collect(),
        empty: "no key stands out",
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::status;
    use super::*;

    fn frame(first: u64, second: u64) -> Frame {
        let look = |times, at| Sample::new(&status(times), at).unwrap();
        Frame::between(&look(first, 0), &look(second, 2_000_000_000))
    }

    #[test]
    fn rates_are_over_the_time_between_two_looks() {
        let frame = frame(1, 5);
        assert!(
            frame.summary.contains("requests 4,000/s") && frame.summary.contains("unsettled 36"),
            "{}",
            frame.summary
        );
        let [shards, topics, handlers, hot] = frame.parts.as_slice() else { panic!("four parts") };
        let row = shards.rows[1].0.join(" ");
        assert_eq!(row, "1 5 2,000 1,000 4.0 5 6 7 60 30 210 900 20 1 ok", "{row}");
        assert_eq!((shards.rows[0].1, shards.rows[1].1), (Mood::Plain, Mood::Odd), "parked grains are worth a look");
        assert_eq!(topics.rows[0].0, ["shop/orders", "1,200", "3,000"]);
        assert_eq!(handlers.rows[0].0, ["shop/stock.take", "2,000", "2,800", "8.0", "5,000", "20"]);
        assert_eq!(hot.rows[0].0[2..], ["1", "30.0 %"]);
    }

    #[test]
    fn a_server_that_started_anew_has_no_negative_rates() {
        let mut before = Sample::new(&status(50), 0).unwrap();
        before.boot = 2;
        let frame = Frame::between(&before, &Sample::new(&status(1), 1_000_000_000).unwrap());
        assert_eq!(frame.parts[1].rows[0].0[1], "600");
    }

    #[test]
    fn rare_things_are_seen() {
        assert_eq!([0.0, 0.04, 0.5, 9.94, 12.4, 12_345.0].map(rate), ["0", "0.0", "0.5", "9.9", "12", "12,345"]);
    }
}
