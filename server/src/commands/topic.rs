//! `gristmill topic`: append events, read them, list topics.

use super::app::{cell, rows};
use super::append::{self, Append};
use super::connect::{Server, failed};
use super::output::{Columns, Format, Output, Printer};
use super::skipped;
use super::typed;
use crate::exit::Failed;
use gristmill_base::datatype::DataType;
use gristmill_base::env::Clock;
use gristmill_base::ids::{LaneId, Offset};
use gristmill_client::{Client, Event, LaneOffsets, OwnedOperation, OwnedReply, Topic};
use gristmill_io::clock::SystemClock;
use serde_json::{Map, Value, json};

/// How long one request of `--follow` waits at the server for an event.
const FOLLOW_MILLIS: u32 = 500;
/// Events of one request.
const PAGE: u32 = 1_000;

/// Arguments of `topic`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Append one event, or each line of files as an event. Done when everything is durable.
    Append(Append),
    /// Read events, lane by lane in their order.
    Read(Read),
    /// List the topics of all apps.
    List,
    /// Show where the lanes of a topic begin and end: the first offset that is there, and the one behind the last.
    Offsets(Offsets),
    /// Show which offsets of a topic with hard retention its subscriptions have skipped, because they went before the
    /// subscription had got them: by lane and slot, for the keys of that slot.
    Skipped(Skipped),
}

#[derive(clap::Args)]
struct Skipped {
    /// The topic.
    #[arg(value_name = "APP/TOPIC")]
    topic: String,
}

#[derive(clap::Args)]
struct Read {
    /// The topic.
    #[arg(value_name = "APP/TOPIC")]
    topic: String,
    /// First offset wanted, of every lane that is read; offsets of a lane start at 1. If not given, or 0: where each lane
    /// begins now.
    #[arg(long, value_name = "P", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// Go on with events as they come, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Only this lane; all lanes, one after the other, if not given.
    #[arg(long, value_name = "L")]
    lane: Option<u16>,
    /// Stop after so many events.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

#[derive(clap::Args)]
struct Offsets {
    /// The topic.
    #[arg(value_name = "APP/TOPIC")]
    topic: String,
    /// And the first offset of each lane that was appended at this time or later: microseconds since 1970, or so long ago,
    /// such as 15m, 2h or 7d.
    #[arg(long, value_name = "T", value_parser = When::parse)]
    time: Option<When>,
}

/// A time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Microseconds since 1970.
    At(i64),
    /// Seconds ago.
    Ago(i64),
}

impl When {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = text[..digits].parse().map_err(|_| ALLOWED.to_owned())?;
        let seconds = match &text[digits..] {
            "" => return Ok(Self::At(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(ALLOWED.to_owned()),
        };
        number.checked_mul(seconds).map(Self::Ago).ok_or_else(|| ALLOWED.to_owned())
    }

    /// Microseconds since 1970, if it is now so many.
    pub(super) fn micros(self, now: i64) -> i64 {
        match self {
            Self::At(micros) => micros,
            Self::Ago(seconds) => now.saturating_sub(seconds.saturating_mul(1_000_000)),
        }
    }
}

const ALLOWED: &str = "allowed: microseconds since 1970, or a whole number with a unit (s, m, h, d) for so long ago";

/// Does it.
///
/// # Errors
/// As the server says; there is no such topic.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut client = arguments.server.connect()?;
    match &arguments.action {
        Action::Append(append) => append::run(&mut client, append, arguments.output.output),
        Action::Read(read) => Reader::new(client, read, arguments.output.output)?.run(read.follow),
        Action::Offsets(of) => offsets(&mut client, of, arguments.output.output),
        Action::Skipped(of) => skipped::run(&mut client, &of.topic, arguments.output.output),
        Action::List => list(&mut client, arguments.output.output),
    }
}

/// A reading of some lanes.
struct Reader {
    client: Client,
    topic: Topic,
    format: Format,
    printer: Printer,
    /// Lanes and where each goes on.
    lanes: Vec<(LaneId, Offset)>,
    /// Events still wanted.
    left: u64,
}

impl Reader {
    fn new(mut client: Client, read: &Read, format: Format) -> Result<Self, Failed> {
        let topic = client.topic(&read.topic).map_err(failed)?;
        let lanes = match read.lane {
            Some(lane) if lane >= topic.lanes => {
                let message = format!("{} has no lane {lane}; lanes are 0 to {}", read.topic, topic.lanes - 1);
                return Err(Failed::new(crate::exit::Exit::Usage, message));
            }
            Some(lane) => lane..lane + 1,
            None => 0..topic.lanes,
        };
        let lanes = lanes.map(|lane| (LaneId(lane), Offset(read.from))).collect();
        Ok(Self { client, topic, format, printer: Printer::new(), lanes, left: read.limit })
    }

    fn run(mut self, follow: bool) -> Result<(), Failed> {
        for at in 0..self.lanes.len() {
            while self.left > 0 && self.page(at)? {}
        }
        self.printer.flush()?;
        while follow && self.left > 0 {
            self.wait()?;
        }
        Ok(())
    }

    /// Reads one page of a lane. Whether there may be more.
    fn page(&mut self, at: usize) -> Result<bool, Failed> {
        let operation = self.operation(at, 0);
        let reply = self.client.call(operation).map_err(failed)?;
        self.take(at, reply)
    }

    fn operation(&self, at: usize, wait_millis: u32) -> OwnedOperation {
        let (lane, from) = self.lanes[at];
        let max_records = u32::try_from(self.left).unwrap_or(PAGE).min(PAGE);
        let (topic, lanes) = (self.topic.id, self.topic.lanes);
        OwnedOperation::Read { topic, lanes, lane, from, max_records, max_bytes: 0, wait_millis }
    }

    /// Asks all lanes at once and waits for their answers.
    fn wait(&mut self) -> Result<(), Failed> {
        let asked: Result<Vec<_>, _> =
            (0..self.lanes.len()).map(|at| self.client.submit(self.operation(at, FOLLOW_MILLIS))).collect();
        for (at, ticket) in asked.map_err(failed)?.into_iter().enumerate() {
            let reply = self.client.wait(ticket).map_err(failed)?;
            self.take(at, reply)?;
        }
        self.printer.flush()
    }

    fn take(&mut self, at: usize, reply: OwnedReply) -> Result<bool, Failed> {
        let OwnedReply::Events(page) = reply else {
            return Err(Failed::new(crate::exit::Exit::Internal, "the server answered a read with something else"));
        };
        for event in &page.events {
            if self.left == 0 {
                return Ok(false);
            }
            self.left -= 1;
            self.print(self.lanes[at].0, event)?;
        }
        self.lanes[at].1 = page.next;
        Ok(page.next < page.end && !page.events.is_empty())
    }

    fn print(&mut self, lane: LaneId, event: &Event) -> Result<(), Failed> {
        if self.format == Format::Json {
            let json = json_of(&self.topic, lane, event);
            return self.printer.json(&json);
        }
        let key = self.topic.key.decode_text(&event.key);
        let value = self.topic.value.decode_text(&event.value);
        self.printer.line(&format!("{}\t{}\t{key}\t{value}", lane.0, event.offset.0))
    }
}

fn json_of(topic: &Topic, lane: LaneId, event: &Event) -> Value {
    let headers: Map<String, Value> =
        event.headers.iter().map(|(name, value)| (name.clone(), typed::to_json(DataType::Bytes, value))).collect();
    json!({
        "lane": lane.0, "offset": event.offset.0,
        "event_time_us": event.event_time, "append_time_us": event.append_time,
        "key": typed::to_json(topic.key, &event.key), "value": typed::to_json(topic.value, &event.value),
        "headers": headers,
    })
}

fn offsets(client: &mut Client, of: &Offsets, format: Format) -> Result<(), Failed> {
    let now = SystemClock.now().wall_micros;
    let time = of.time.map(|when| when.micros(i64::try_from(now).unwrap_or(i64::MAX)));
    let lanes = client.offsets(&of.topic, time).map_err(failed)?;
    let mut printer = Printer::new();
    let mut columns =
        Columns::new(if time.is_some() { &["lane", "start", "end", "at"] } else { &["lane", "start", "end"] });
    for (lane, LaneOffsets { start, end, at }) in lanes.iter().enumerate() {
        if format == Format::Json {
            let mut line = json!({"lane": lane, "start": start.0, "end": end.0});
            if time.is_some() {
                line["at"] = json!(at.0);
            }
            printer.json(&line)?;
            continue;
        }
        let mut row = vec![lane.to_string(), start.to_string(), end.to_string()];
        row.extend(time.map(|_| at.to_string()));
        columns.row(row);
    }
    if format != Format::Json {
        printer.table(&columns)?;
    }
    printer.flush()
}

/// How long a topic keeps its events, as its app file may say it.
fn retention(topic: &Value) -> String {
    let of = |name: &str| topic["retention"][name].as_u64();
    let bounds = [of("seconds").map(time), of("bytes").map(size)];
    let hard = topic["retention"]["hard"] == true;
    let bounds = bounds.into_iter().flatten().chain(hard.then(|| "hard".to_owned()));
    let bounds: Vec<String> = bounds.collect();
    if bounds.is_empty() { "none".to_owned() } else { bounds.join(", ") }
}

/// Whether a topic is compacted, and for how long its tombstones stay.
fn compact(topic: &Value) -> String {
    let stay = topic["compact"]["delete_retention_seconds"].as_u64();
    stay.map_or_else(|| "no".to_owned(), |seconds| format!("yes, tombstones {}", time(seconds)))
}

fn time(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << *shift));
    unit.map_or_else(|| bytes.to_string(), |(shift, name)| format!("{}{name}", bytes >> shift))
}

fn list(client: &mut Client, format: Format) -> Result<(), Failed> {
    let topics = rows(&client.topic_list().map_err(failed)?, "topics")?;
    let mut printer = Printer::new();
    if format == Format::Json {
        for topic in &topics {
            printer.json(topic)?;
        }
        return printer.flush();
    }
    let mut columns = Columns::new(&["topic", "key", "value", "lanes", "retention", "compact"]);
    for topic in &topics {
        let name = format!("{}/{}", cell(topic, "app"), cell(topic, "name"));
        let [key, value, lanes] = ["key", "value", "lanes"].map(|of| cell(topic, of));
        columns.row(vec![name, key, value, lanes, retention(topic), compact(topic)]);
    }
    printer.table(&columns)?;
    printer.flush()
}

#[cfg(test)]
mod tests {
    use super::{When, compact, retention};
    use serde_json::json;

    #[test]
    fn retention_is_shown_as_it_is_written() {
        let show = |value| retention(&json!({"retention": value}));
        assert_eq!(show(json!(null)), "none");
        assert_eq!(show(json!({"seconds": 604_800, "bytes": 10_u64 << 30, "hard": false})), "7d, 10GiB");
        assert_eq!(show(json!({"seconds": 90, "bytes": null})), "90s");
        assert_eq!(show(json!({"seconds": 90, "bytes": null, "hard": true})), "90s, hard");
        assert_eq!(show(json!({"seconds": null, "bytes": 1_500})), "1500");
        assert_eq!(compact(&json!({"compact": null})), "no");
        assert_eq!(compact(&json!({"compact": {"delete_retention_seconds": 86_400}})), "yes, tombstones 1d");
    }

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(When::parse("1767225600000000").map(|when| when.micros(5)), Ok(1_767_225_600_000_000));
        assert_eq!(When::parse("2h").map(|when| when.micros(7_200_000_001)), Ok(1));
        assert_eq!(When::parse("7d").map(|when| when.micros(0)), Ok(-604_800_000_000));
        for wrong in ["", "h", "-3", "3w", "9999999999999999d", "99999999999999999999"] {
            assert!(When::parse(wrong).is_err(), "{wrong}");
        }
    }
}
