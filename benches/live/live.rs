//! Lines that somebody waits for. Some are watched, a thousand a second at most: once such a line is appended, its
//! document's grain is read every quarter of a millisecond until it counts the line, less often when that takes long. All
//! of them watched, most of the load would be that of the watching.

use anyhow::{Context as _, bail};
use gristmill_base::ids::TableId;
use gristmill_client::clock::now;
use gristmill_client::{Client, Config, Error, OwnedOperation, OwnedReply, Status, Ticket, Topic};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Documents; each line goes to the next one.
const DOCUMENTS: usize = 2_000;
/// Longest latency that is told apart.
const NANOS_MAX: u64 = 60_000_000_000;
/// How long lines are waited for after the last one was sent.
const DRAIN: Duration = Duration::from_secs(20);
/// Time between two watched lines, at least: prime to what a millisecond is divided into, so that no rhythm hides.
const WATCH_EVERY: Duration = Duration::from_micros(1_009);
/// Pause between two reads of a grain that does not count a watched line yet, or [`AGE_SHARE`] of what it has waited for,
/// whichever is longer.
const READ_AGAIN: Duration = Duration::from_micros(250);
const AGE_SHARE: u32 = 16;
const TEXT: &str = "the quick brown fox jumps over a lazy dog again";

/// How lines are sent.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// So many at a time, from the append until what they cause is seen: what is seen of a watched line is taken to be so
    /// for the lines before it.
    Closed { in_flight: u64 },
    /// So many in a second, by the clock.
    Open { rate: f64 },
}

/// What came of it.
pub(crate) struct Found {
    /// Nanoseconds from the intended append to the answer that shows the line.
    pub(crate) histogram: Histogram<u64>,
    /// Nanoseconds from the intended append of the same lines to its answer.
    pub(crate) appended: Histogram<u64>,
    pub(crate) lines: u64,
    /// Lines in a second.
    pub(crate) rate: f64,
}

/// A line under way.
#[derive(Clone, Copy)]
struct Line {
    document: usize,
    /// Lines of its document once it is counted.
    count: u64,
    intended: Instant,
    is_watched: bool,
    /// How many were sent before it.
    number: u64,
    /// Whether its append was answered.
    is_appended: bool,
}

/// See the module.
pub(crate) struct Live {
    client: Client,
    topic: Topic,
    docs: TableId,
    /// Lines sent per document.
    sent: Vec<u64>,
    next: usize,
    lines: HashMap<Ticket, Line>,
    /// Watched lines whose grain is to be read, by when, and by how many reads there were.
    unread: BTreeMap<(Instant, u64), Line>,
    reads: u64,
    /// When the next line is watched.
    watch_from: Instant,
    /// Lines up to the last one that was seen to be counted.
    seen: u64,
    /// Lines that have come through, watched or not.
    through: u64,
}

impl Live {
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let mut config = Config::new(address);
        config.window = 1 << 20;
        config.window_bytes = 1 << 30;
        let mut client = Client::connect(config)?;
        let (topic, docs) = (client.topic("word-count/lines")?, client.table("word-count/docs")?.id);
        let (sent, lines, unread) = (vec![0; DOCUMENTS], HashMap::new(), BTreeMap::new());
        Ok(Self { client, topic, docs, sent, next: 0, lines, unread, reads: 0, seen: 0, watch_from: now(), through: 0 })
    }

    /// Sends lines for so long, at most as long as `wanted` says so, and waits for all of them.
    pub(crate) fn run(
        &mut self,
        load: Load,
        time: Duration,
        mut wanted: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<Found> {
        let mut histogram = Histogram::new_with_max(NANOS_MAX, 3)?;
        let mut appended = histogram.clone();
        let start = now();
        let (mut issued, mut last) = (0_u64, start);
        (self.seen, self.through) = (0, 0);
        loop {
            let time_now = now();
            let open = time_now < start + time && wanted()?;
            if !open && (self.under_way() == 0 || time_now > last + DRAIN) {
                break;
            }
            if open {
                last = time_now;
                issued += self.send_due(load, start, issued)?;
            }
            self.read_unread(time_now)?;
            let mut ended = self.client.take_ended(READ_AGAIN / 2);
            if ended.is_none() && self.client.in_flight() == 0 {
                std::thread::sleep(READ_AGAIN / 2);
            }
            while let Some((ticket, ending)) = ended {
                self.ended(ticket, ending, &mut histogram, &mut appended)?;
                ended = self.client.take_ended(Duration::ZERO);
            }
        }
        if self.under_way() > 0 {
            bail!("{} lines did not come through within {} s", self.under_way(), DRAIN.as_secs());
        }
        let rate = self.through as f64 / (now() - start).as_secs_f64();
        Ok(Found { histogram, appended, lines: self.through, rate })
    }

    fn under_way(&self) -> usize {
        self.lines.len() + self.unread.len()
    }

    /// Reads the grains of watched lines again whose time it is.
    fn read_unread(&mut self, time: Instant) -> anyhow::Result<()> {
        while let Some(entry) = self.unread.first_entry()
            && entry.key().0 <= time
        {
            let line = entry.remove();
            let key = name(line.document).into_bytes();
            let ticket = self.client.submit(OwnedOperation::Get { table: self.docs, key })?;
            self.lines.insert(ticket, line);
        }
        Ok(())
    }

    /// Sends what is due. How many lines that were.
    fn send_due(&mut self, load: Load, start: Instant, issued: u64) -> anyhow::Result<u64> {
        let mut count = 0;
        loop {
            let intended = match load {
                Load::Closed { in_flight } if issued + count - self.seen >= in_flight => return Ok(count),
                Load::Closed { .. } => now(),
                Load::Open { rate } => {
                    let due = start + Duration::from_secs_f64((issued + count) as f64 / rate);
                    if due > now() {
                        return Ok(count);
                    }
                    due
                }
            };
            let document = self.next;
            self.next = (document + 1) % DOCUMENTS;
            self.sent[document] += 1;
            let name = name(document);
            let value = format!("{{\"doc\":\"{name}\",\"text\":\"{TEXT}\"}}");
            let ticket = self.client.submit_produce(&self.topic, name.into_bytes(), value.into_bytes())?;
            let is_watched = intended >= self.watch_from;
            if is_watched {
                self.watch_from = intended + WATCH_EVERY;
            }
            self.lines.insert(
                ticket,
                Line {
                    document,
                    count: self.sent[document],
                    intended,
                    is_watched,
                    number: issued + count,
                    is_appended: false,
                },
            );
            count += 1;
        }
    }

    fn ended(
        &mut self,
        ticket: Ticket,
        ending: Result<OwnedReply, Error>,
        histogram: &mut Histogram<u64>,
        appended: &mut Histogram<u64>,
    ) -> anyhow::Result<()> {
        let mut line = self.lines.remove(&ticket).context("the ending of an operation that nobody sent")?;
        let is_there = match ending {
            Ok(_) if !line.is_watched => {
                self.through += 1;
                return Ok(());
            }
            Ok(OwnedReply::Value(value)) => counted(&value)? >= line.count,
            Ok(_) => false,
            Err(error) if error.status() == Some(Status::NotFound) => false,
            Err(error) => return Err(error).context("a live operation failed"),
        };
        if !std::mem::replace(&mut line.is_appended, true) {
            appended.saturating_record((now() - line.intended).as_nanos() as u64);
        }
        if is_there {
            self.seen = self.seen.max(line.number + 1);
            self.through += 1;
            histogram.saturating_record((now() - line.intended).as_nanos() as u64);
        } else {
            let time = now();
            let at = time + READ_AGAIN.max((time - line.intended) / AGE_SHARE);
            self.reads += 1;
            self.unread.insert((at, self.reads), line);
        }
        Ok(())
    }
}

fn name(document: usize) -> String {
    format!("live-{document}")
}

/// Lines that a document's grain has counted.
fn counted(value: &[u8]) -> anyhow::Result<u64> {
    let json: serde_json::Value = serde_json::from_slice(value).context("a document's value")?;
    json["lines"].as_u64().context("a document without lines")
}
