//! A run of a bounded input: from where it stands to its end.

use super::reading::{Batch, OnError, Reading};
use super::registry::{Identity, Mark, Registry, Row, Source, mark_payload, refused};
use super::rows::{RowFormat, check_format};
use super::sender::Sender;
use super::telling::Telling;
use crate::commands::failed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::{HandlerId, TableId};
use gristmill_client::clock::now;
use gristmill_client::{Client, ErrorKind, OwnedOperation, Ticket, Topic};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Between two marks.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// Without an answer for so long the person hears why.
const STALLED: Duration = Duration::from_secs(2);
/// Batches that the reading is ahead.
const BATCHES_AHEAD: usize = 16;
/// Sources of one input: its row names all of them.
const SOURCES_MAX: usize = 20_000;

/// What is loaded, and how.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `APP/TOPIC`.
    pub(crate) topic: String,
    /// Unique in its app.
    pub(crate) name: String,
    pub(crate) format: RowFormat,
    /// Field of the value that is the key.
    pub(crate) key: Option<String>,
    /// Of lines: members of the object that each becomes.
    pub(crate) fields: Option<(String, String)>,
    pub(crate) on_error: OnError,
    /// `APP/TOPIC` of malformed rows.
    pub(crate) reject: Option<String>,
    /// Files; empty for standard input.
    pub(crate) paths: Vec<String>,
    /// Nothing is told on the way.
    pub(crate) quiet: bool,
    /// A server that cannot be reached for so long ends the run.
    pub(crate) patience: Duration,
}

/// A run.
pub(crate) struct Load<'a> {
    client: &'a mut Client,
    settings: &'a Settings,
    key: String,
    /// Says where the server is now, if that can be found out.
    whereabouts: &'a dyn Fn() -> Option<String>,
    /// Hears how many records are known to be appended; may end the run.
    heard: &'a dyn Fn(u64) -> Result<(), Failed>,
    /// Records that earlier runs had appended before the mark where this one began.
    before: u64,
    row: Row,
    /// Where reading stood behind batches whose records may not all be appended, and the bytes of all sources before it.
    marks: VecDeque<(Mark, u64)>,
    mark: Mark,
    /// What takes marks, looked up once: while the server is away a look-up would wait for its old address.
    marker: (TableId, HandlerId),
    mark_ticket: Option<Ticket>,
    marked: Instant,
    /// Records sent that were not there before this run, and those that were.
    fresh: u64,
    known: u64,
    /// Bytes of all sources that are appended.
    bytes: u64,
}

fn usage(message: String) -> Failed {
    Failed::new(Exit::Usage, message)
}

impl<'a> Load<'a> {
    /// Loads what is not loaded yet; says how the input stands then.
    ///
    /// # Errors
    /// The input stays where it is: malformed rows, changed sources, another run, a server that is gone.
    pub(crate) fn run(
        client: &'a mut Client,
        settings: &'a Settings,
        whereabouts: &'a dyn Fn() -> Option<String>,
        heard: &'a dyn Fn(u64) -> Result<(), Failed>,
    ) -> Result<Value, Failed> {
        let topic = client.topic(&settings.topic).map_err(failed)?;
        let reject = settings.reject.as_ref().map(|name| client.topic(name)).transpose().map_err(failed)?;
        check_types(settings, &topic, reject.as_ref())?;
        let app = settings.topic.split('/').next().unwrap_or_default();
        let key = format!("{app}/{}", settings.name);
        let (row, is_over) = own(client, settings, &key, &topic, reject.as_ref())?;
        if is_over {
            return Ok(report(&row, 0, 0.0));
        }
        let inputs = client.table("gristmill/inputs").map_err(failed)?;
        let marker = (inputs.id, inputs.handler("mark").map_err(failed)?.id);
        let mark = row.mark.clone();
        let bytes = row.identity.sources.iter().take(mark.source).map(|source| source.bytes).sum::<u64>() + mark.offset;
        let load = Load {
            client,
            settings,
            key,
            whereabouts,
            heard,
            before: mark.appended + mark.rejected,
            row,
            marks: VecDeque::new(),
            mark,
            marker,
            mark_ticket: None,
            marked: now(),
            fresh: 0,
            known: 0,
            bytes,
        };
        load.go(topic, reject)
    }

    fn go(mut self, topic: Topic, reject: Option<Topic>) -> Result<Value, Failed> {
        let mut topics = vec![(topic.clone(), self.row.number)];
        topics.extend(reject.clone().map(|topic| (topic, self.row.reject_number)));
        let mut sender = Sender::new(self.client, topics)?;
        let reading = Reading {
            name: self.settings.name.clone(),
            identity: self.row.identity.clone(),
            format: self.settings.format,
            on_error: self.settings.on_error,
            topic,
            reject,
            slot_count: self.client.topology().slots.len() as u16,
            mark: self.row.mark.clone(),
            fixed_key: None,
        };
        let total = self.row.identity.sources.iter().map(|source| source.bytes).sum();
        let mut telling = Telling::new(&self.key, self.settings.quiet, self.bytes, total);
        let (to, from) = sync_channel(BATCHES_AHEAD);
        let thread = std::thread::Builder::new()
            .name("reading".to_owned())
            .spawn(move || reading.run(&to))
            .map_err(|error| Failed::new(Exit::Internal, format!("no thread to read with: {error}")))?;
        // Where sending fails, nobody waits for the reading: standard input may say nothing for ever.
        let read = self.send_all(from, &mut sender, &mut telling).and_then(|read| {
            let read = if thread.join().is_err() { Err(broken(&self.mark)) } else { read };
            // What was sent before a row that cannot be taken is waited for, so that the mark is right.
            self.drain(&mut sender, &mut telling).map(|()| read)
        });
        // What went wrong first is the reason; what is stored then is only where to read on.
        let stored = self.settle_mark(&mut sender);
        read??;
        stored?;
        self.finish(&telling)
    }

    /// Sends what is read, to the end of it. Gives what the reading ended with.
    ///
    /// # Errors
    /// The sending cannot go on.
    fn send_all(
        &mut self,
        from: Receiver<Result<Batch, Failed>>,
        sender: &mut Sender,
        telling: &mut Telling,
    ) -> Result<Result<(), Failed>, Failed> {
        let mut watch = Stalls::new();
        loop {
            match from.recv_timeout(Duration::from_millis(20)) {
                Ok(Ok(batch)) => self.take(batch, sender, telling)?,
                Ok(Err(failed)) => return Ok(Err(failed)),
                Err(RecvTimeoutError::Timeout) => sender.flush(self.client)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(Ok(())),
            }
            sender.pump(self.client, Duration::ZERO)?;
            while sender.is_full() {
                sender.flush(self.client)?;
                sender.pump(self.client, Duration::from_millis(20))?;
                self.go_on(sender, telling, &mut watch)?;
            }
            self.go_on(sender, telling, &mut watch)?;
        }
    }

    fn take(&mut self, batch: Batch, sender: &mut Sender, telling: &mut Telling) -> Result<(), Failed> {
        for record in batch.records {
            let is_new = sender.push(self.client, record)?;
            *(if is_new { &mut self.fresh } else { &mut self.known }) += 1;
        }
        batch.told.iter().for_each(|text| telling.row(text));
        self.marks.push_back((batch.after, batch.bytes));
        Ok(())
    }

    fn drain(&mut self, sender: &mut Sender, telling: &mut Telling) -> Result<(), Failed> {
        let mut watch = Stalls::new();
        sender.flush(self.client)?;
        while !sender.is_empty() {
            sender.pump(self.client, Duration::from_millis(20))?;
            self.go_on(sender, telling, &mut watch)?;
        }
        Ok(())
    }

    /// What is due: the mark, the person, a server that moved or is gone.
    fn go_on(&mut self, sender: &mut Sender, telling: &mut Telling, watch: &mut Stalls) -> Result<(), Failed> {
        self.advance(sender);
        telling.at(sender.appended - self.known, self.bytes);
        (self.heard)(self.before + sender.appended)?;
        self.hear_marks(sender)?;
        if now() >= self.marked + MARK_EVERY && self.mark_ticket.is_none() && self.mark != self.row.mark {
            self.marked = now();
            let payload = mark_payload(&self.row, &self.mark, false).to_string().into_bytes();
            let (table, handler) = self.marker;
            let invoke = OwnedOperation::Invoke { table, handler, key: self.key.clone().into_bytes(), payload };
            match self.client.submit(invoke) {
                Ok(ticket) => (self.mark_ticket, self.row.mark) = (Some(ticket), self.mark.clone()),
                // Nobody is there and the client is full: the next second tries again.
                Err(error) if error.kind == ErrorKind::Unreachable => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if watch.is_stalled(sender.answers) && !sender.is_empty() {
            if let Some(address) = (self.whereabouts)() {
                self.client.set_address(address);
            }
            watch.tell(self.client, telling, self.settings.patience)?;
        }
        Ok(())
    }

    /// Moves the mark to the last place before which everything is appended. It never goes back, as it would where
    /// standard input is read again from its start, and perhaps is another.
    fn advance(&mut self, sender: &Sender) {
        let open = sender.first_open().unwrap_or(u64::MAX);
        while let Some((mark, bytes)) = self.marks.pop_front_if(|(mark, _)| mark.records < open) {
            if mark.records >= self.mark.records {
                (self.mark, self.bytes) = (mark, bytes);
            }
        }
    }

    fn hear_marks(&mut self, sender: &mut Sender) -> Result<(), Failed> {
        for (ticket, ended) in std::mem::take(&mut sender.others) {
            if self.mark_ticket == Some(ticket) {
                self.mark_ticket = None;
                ended.map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Stores where it stands, whatever happened.
    fn settle_mark(&mut self, sender: &mut Sender) -> Result<(), Failed> {
        self.advance(sender);
        if !self.client.has_connection() {
            return Ok(());
        }
        let payload = mark_payload(&self.row, &self.mark, false).to_string();
        let key = self.key.as_bytes();
        self.client.invoke("gristmill/inputs", key, "mark", payload.as_bytes()).map_err(refused)?;
        self.row.mark = self.mark.clone();
        Ok(())
    }

    fn finish(mut self, telling: &Telling) -> Result<Value, Failed> {
        let payload = mark_payload(&self.row, &self.mark, true).to_string();
        let key = self.key.as_bytes();
        self.client.invoke("gristmill/inputs", key, "mark", payload.as_bytes()).map_err(refused)?;
        (self.heard)(self.mark.appended + self.mark.rejected)?;
        "complete".clone_into(&mut self.row.state);
        Ok(report(&self.row, self.fresh, telling.seconds()))
    }
}

/// Notices that no answers come.
struct Stalls {
    answers: u64,
    since: Instant,
    told: Option<Instant>,
    lost: Option<Instant>,
}

impl Stalls {
    fn new() -> Self {
        Self { answers: 0, since: now(), told: None, lost: None }
    }

    fn is_stalled(&mut self, answers: u64) -> bool {
        if answers != self.answers {
            *self = Self { answers, ..Self::new() };
        }
        now() >= self.since + Duration::from_millis(300)
    }

    fn tell(&mut self, client: &Client, telling: &Telling, patience: Duration) -> Result<(), Failed> {
        let seconds = (now() - self.since).as_secs();
        if client.has_connection() {
            self.lost = None;
        } else if now() >= *self.lost.get_or_insert(now()) + patience {
            let message = format!(
                "the server cannot be reached for {seconds} s ({}); run it again to go on where it stands",
                client.last_trouble()
            );
            return Err(Failed::new(Exit::Unreachable, message));
        }
        if now() >= self.told.unwrap_or(self.since) + STALLED {
            self.told = Some(now());
            telling.say(&format!("nothing was appended for {seconds} s: {}; waiting", client.last_trouble()));
        }
        Ok(())
    }
}

/// The reading has panicked: a library has found something in the sources that it does not expect.
fn broken(mark: &Mark) -> Failed {
    let message =
        format!("the reading of source {} broke down, after record {}; is it damaged?", mark.source + 1, mark.records);
    Failed::new(Exit::No, message)
}

fn report(row: &Row, fresh: u64, seconds: f64) -> Value {
    let mark = &row.mark;
    json!({
        "name": row.name, "topic": row.identity.topic, "state": row.state, "records": mark.records,
        "appended": mark.appended, "rejected": mark.rejected, "skipped": mark.skipped, "appended_now": fresh,
        "seconds": seconds,
    })
}

fn check_types(settings: &Settings, topic: &Topic, reject: Option<&Topic>) -> Result<(), Failed> {
    let objects = matches!(settings.format, RowFormat::Csv | RowFormat::Parquet) || settings.fields.is_some();
    if objects && topic.value != DataType::Json {
        let found = topic.value;
        return Err(usage(format!("rows become JSON objects; the values of {} have type {found}", settings.topic)));
    }
    let texts = [DataType::Json, DataType::String, DataType::Bytes];
    if settings.format == RowFormat::Jsonl && !texts.contains(&topic.value) {
        let found = topic.value;
        return Err(usage(format!("JSON values do not go into {}, whose values have type {found}", settings.topic)));
    }
    match (&settings.fields, &settings.key) {
        (Some(_), _) if settings.format != RowFormat::Lines => {
            return Err(usage("--fields is for lines; rows of the other formats have fields".to_owned()));
        }
        (None, Some(_)) if settings.format == RowFormat::Lines => {
            return Err(usage("--key names a field, and lines have none; --fields gives them some".to_owned()));
        }
        (Some((file, text)), Some(key)) if key != file && key != text => {
            return Err(usage(format!("--key {key} is not among the fields {file} and {text}")));
        }
        _ => {}
    }
    if let Some(reject) = reject
        && (reject.key, reject.value) != (DataType::String, DataType::Json)
    {
        let found = (reject.key, reject.value);
        let message = format!(
            "malformed rows are events with a string as key and JSON as value; {} has {} and {}",
            reject.name, found.0, found.1
        );
        return Err(usage(message));
    }
    if settings.on_error == OnError::Reject && reject.is_none() {
        return Err(usage("--on-error reject needs --reject TOPIC".to_owned()));
    }
    Ok(())
}

/// Takes an input over, or makes it. Whether nothing is left to be done.
fn own(
    client: &mut Client,
    settings: &Settings,
    key: &str,
    topic: &Topic,
    reject: Option<&Topic>,
) -> Result<(Row, bool), Failed> {
    let mut registry = Registry { client };
    registry.open()?;
    let found = registry.get(key)?;
    if let Some(row) = &found {
        check_same(row, settings, key, topic, reject)?;
        if row.state != "open" {
            return Ok((row.clone(), true));
        }
        row.identity.sources.iter().try_for_each(Source::check_same)?;
    }
    let identity = match &found {
        Some(row) => row.identity.clone(),
        None => {
            let identity = identity(settings, topic)?;
            identity.sources.iter().try_for_each(|source| check_format(settings.format, source))?;
            identity
        }
    };
    let number = match &found {
        Some(row) => row.number,
        None => registry.numbers()?,
    };
    let wanted = Row {
        name: settings.name.clone(),
        state: "open".to_owned(),
        identity,
        on_error: format!("{:?}", settings.on_error).to_lowercase(),
        reject: settings.reject.clone().zip(reject.map(|topic| topic.id.0)),
        number,
        reject_number: number + 1,
        owner: 0,
        mark: Mark { line: 1, ..Mark::default() },
        begun_micros: 0,
        complete_micros: None,
    };
    let row = registry.begin(key, &wanted)?;
    check_same(&row, settings, key, topic, reject)?;
    let is_over = row.state != "open";
    if !is_over && row.identity != wanted.identity {
        return Err(Failed::new(Exit::No, format!("{key} was begun by another run at the same time; run it again")));
    }
    Ok((row, is_over))
}

fn paths(settings: &Settings) -> Vec<String> {
    if settings.paths.is_empty() { vec!["-".to_owned()] } else { settings.paths.clone() }
}

fn format_name(format: RowFormat) -> String {
    format!("{format:?}").to_lowercase()
}

fn identity(settings: &Settings, topic: &Topic) -> Result<Identity, Failed> {
    let paths = paths(settings);
    if paths.len() > SOURCES_MAX {
        return Err(usage(format!("{} sources; one input has at most {SOURCES_MAX}", paths.len())));
    }
    if paths.len() > 1 && paths.iter().any(|path| path == "-") {
        return Err(usage("standard input (-) is a source on its own, without files beside it".to_owned()));
    }
    let sources = paths.iter().map(|path| Source::look(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(Identity {
        topic: settings.topic.clone(),
        topic_id: topic.id.0,
        format: format_name(settings.format),
        key: settings.key.clone(),
        fields: settings.fields.clone(),
        sources,
    })
}

/// Whether an input is what this run says.
fn check_same(row: &Row, settings: &Settings, key: &str, topic: &Topic, reject: Option<&Topic>) -> Result<(), Failed> {
    let was = &row.identity;
    let hint = format!("say the same again, or take another --name, or delete it: gristmill ingest delete {key}");
    let differs = |what: &str, was: String, is: String| {
        Err(Failed::new(Exit::No, format!("{key} was begun with {what} {was}, and now it is {is}; {hint}")))
    };
    if was.topic != settings.topic {
        return differs("topic", was.topic.clone(), settings.topic.clone());
    }
    if was.topic_id != topic.id.0 {
        let message = format!("the topic {} was deleted and made anew since {key} began; {hint}", was.topic);
        return Err(Failed::new(Exit::No, message));
    }
    if was.format != format_name(settings.format) {
        return differs("format", was.format.clone(), format_name(settings.format));
    }
    if was.key != settings.key || was.fields != settings.fields {
        return differs(
            "key and fields",
            format!("{:?} {:?}", was.key, was.fields),
            format!("{:?} {:?}", settings.key, settings.fields),
        );
    }
    let sources: Vec<&str> = was.sources.iter().map(|source| source.path.as_str()).collect();
    let wanted = paths(settings);
    if sources != wanted {
        let short = |list: &[&str]| list.iter().take(3).copied().collect::<Vec<_>>().join(" ");
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        return differs(
            &format!("{} sources", sources.len()),
            short(&sources),
            format!("{} ({})", short(&wanted), wanted.len()),
        );
    }
    if let (Some((was, id)), Some(is)) = (&row.reject, reject)
        && *id != is.id.0
    {
        return differs("topic of rejects", was.clone(), is.name.clone());
    }
    Ok(())
}
