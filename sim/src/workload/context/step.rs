//! The handler of the workload: it does what its input says to its grain and to a model beside it, and compares.

use super::beat;
use gristmill_base::datatype::{decode_u64, encode_u64};
use gristmill_sdk::{
    Cause, Context, Failure, Input, LogLevel, MessageOperation, MessageTarget, ReadAt, Reply, Send, Wanted,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Entries of a map.
pub(super) type Model = BTreeMap<Vec<u8>, u64>;

/// What an input says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Its number, which no other has.
    pub(super) id: u64,
    /// What to do.
    pub(super) kind: char,
    pub(super) from: String,
    /// Empty: to the end.
    pub(super) to: String,
}

/// A change of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put(Vec<u8>, u64),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Option<Vec<u8>>),
}

impl Step {
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(payload).ok()?.split('|');
        let (id, kind) = (fields.next()?.parse().ok()?, fields.next()?.chars().next()?);
        Some(Self { id, kind, from: fields.next()?.to_owned(), to: fields.next()?.to_owned() })
    }

    fn note(&self) -> String {
        format!("{}|{}|{}|{}", self.id, self.kind, self.from, self.to)
    }

    /// What it changes of the entries, in order.
    pub(super) fn changes(&self) -> Vec<Change> {
        let (from, to) = (self.from.as_bytes().to_vec(), self.to.as_bytes().to_vec());
        let end = (!to.is_empty()).then(|| to.clone());
        let put = |key: &[u8]| Change::Put(key.to_vec(), self.id);
        let range = Change::DeleteRange(from.clone(), end);
        match self.kind {
            'p' => vec![put(&from), put(&to)],
            'd' => vec![Change::Delete(from)],
            'r' => vec![range],
            't' | 'u' | 'v' | 'w' | 'x' | 's' | 'o' => vec![],
            // Before, between and behind each other.
            _ => {
                let inner = [from.as_slice(), b"m"].concat();
                vec![put(&from), put(b"zz"), range, put(&inner), Change::DeleteRange(b"c".into(), Some(b"cc".into()))]
            }
        }
    }

    /// Whether the same is done to the copy of the grain, by messages.
    pub(super) fn is_copied(&self) -> bool {
        self.kind == 'c'
    }
}

impl Change {
    pub(super) fn make(&self, model: &mut Model) {
        match self {
            Self::Put(key, id) => drop(model.insert(key.clone(), *id)),
            Self::Delete(key) => drop(model.remove(key)),
            Self::DeleteRange(from, to) => {
                model.retain(|key, _| key < from || to.as_ref().is_some_and(|to| key >= to));
            }
        }
    }

    fn make_for_real(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        match self {
            Self::Put(key, id) => context.map_put_u64("entries", key, *id),
            // By its number now and then.
            Self::Delete(key) => context.map_delete(0, key),
            Self::DeleteRange(from, to) => context.map_delete_range("entries", from, to.as_deref()),
        }
    }

    fn message(&self) -> MessageOperation {
        let map = || "entries".into();
        match self.clone() {
            Self::Put(key, id) => MessageOperation::MapPut { map: map(), key, value: encode_u64(id).to_vec() },
            Self::Delete(key) => MessageOperation::MapDelete { map: map(), key },
            Self::DeleteRange(from, to) => MessageOperation::MapDeleteRange { map: 5.into(), from, to },
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(u64::MAX, decode_u64)
}

fn range(
    context: &mut Context<'_>,
    bounds: (&[u8], Option<&[u8]>),
    limit: usize,
    reverse: bool,
) -> Result<Vec<(Vec<u8>, u64)>, Failure> {
    let rows = context.map_range("entries", bounds.0, bounds.1, limit, reverse)?;
    Ok(rows.into_iter().map(|(key, value)| (key, number(&value))).collect())
}

/// What a run's reads do not show as they must; nothing if all is well.
fn compare(step: &Step, model: &Model, context: &mut Context<'_>) -> Result<Option<String>, Failure> {
    let all: Vec<_> = model.iter().map(|(key, id)| (key.clone(), *id)).collect();
    let found = range(context, (b"", None), 10_000, false)?;
    if found != all {
        return Ok(Some(format!("all: {found:?}, not {all:?}")));
    }
    let last: Vec<_> = all.iter().rev().take(3).cloned().collect();
    let found = range(context, (b"", None), 3, true)?;
    if found != last {
        return Ok(Some(format!("the last: {found:?}, not {last:?}")));
    }
    let (from, to) = (b"b".as_slice(), b"e".as_slice());
    let part: Vec<_> = all.iter().filter(|(key, _)| **key >= *from && **key < *to).take(4).cloned().collect();
    let found = range(context, (from, Some(to)), 4, false)?;
    if found != part {
        return Ok(Some(format!("from b to e: {found:?}, not {part:?}")));
    }
    let keys = [step.from.as_bytes(), step.to.as_bytes(), b"cc", b"zz"];
    let mut wanted: Vec<Wanted<'_>> = keys.iter().map(|key| Wanted::entry("entries", key)).collect();
    wanted.push(Wanted::Value);
    let mut expected: Vec<Option<u64>> = keys.iter().map(|key| model.get(*key).copied()).collect();
    expected.push(None);
    let found: Vec<_> = context.get_many(&wanted)?.iter().map(|row| row.as_deref().map(number)).collect();
    if found != expected {
        return Ok(Some(format!("several: {found:?}, not {expected:?}")));
    }
    let one = context.map_get(0, b"cc")?.as_deref().map(number);
    Ok((one != expected[2]).then(|| format!("cc: {one:?}, not {:?}", expected[2])))
}

/// How a step changes the gauge of what is open.
pub(super) fn opens(step: &Step) -> i64 {
    if step.kind == 'p' { 2 } else { -1 }
}

/// What a run counts: of each kind how many, what is open, and its number as the last one of its grain.
fn measure(step: &Step, next: u64, context: &mut Context<'_>) {
    let key = String::from_utf8_lossy(context.key()).into_owned();
    context.count("steps", &[("kind", &step.kind.to_string())], 1);
    context.gauge_add("open", &[], opens(step) - 1);
    context.gauge_add("open", &[], 1);
    context.gauge("last", &[("key", &key), ("a", "\"")], -1.0);
    context.gauge("last", &[("a", "\""), ("key", &key)], next as f64);
}

/// Grain, number of the step, and place of its event.
type Attempted = (Vec<u8>, u64, u64);

thread_local! {
    /// What the first attempt at each input drew: its id and a number. A simulation is one thread.
    static DRAWN: RefCell<BTreeMap<Attempted, (u128, u64)>> = const { RefCell::new(BTreeMap::new()) };
}

/// Forgets what earlier simulations of this thread drew.
pub(super) fn begin() {
    DRAWN.with_borrow_mut(BTreeMap::clear);
}

/// What is wrong with what this attempt draws: it must be what the first one drew, and nobody else.
fn draw(step: &Step, input: &Input<'_>, context: &mut Context<'_>) -> Option<String> {
    let Cause::Event { offset, .. } = input.cause else { return Some("called by no event".to_owned()) };
    let drawn = (context.run_id(), context.random_u64());
    let at = (context.key().to_vec(), step.id, offset);
    DRAWN.with_borrow_mut(|all| {
        let first = *all.entry(at.clone()).or_insert(drawn);
        let is_alone = || all.iter().all(|(other, (id, number))| *other == at || (*id, *number) != drawn);
        let fits = first == drawn && context.random_u64() != drawn.1 && is_alone();
        (!fits).then(|| format!("drew {drawn:?}, and {first:?} at first"))
    })
}

/// Keeps what other grains hold: cells of a client, which only it writes.
fn peek(step: &Step, context: &mut Context<'_>) -> Result<(), Failure> {
    let entries = [step.from.as_str(), "aa", "bb", "cc"];
    let key = step.to.as_bytes();
    let at = |entry: &'static str| ReadAt { table: "kv", key, wanted: Wanted::entry("cells", entry.as_bytes()) };
    let mut rows = vec![context.read_map_get("kv", key, 3, step.from.as_bytes())?];
    rows.extend(context.read_many(&[at("aa"), at("bb"), at("cc")])?);
    for (entry, row) in entries.into_iter().zip(rows) {
        if let Some(value) = row {
            let kept = [entry.as_bytes(), b"|", key, b"|", &value].concat();
            context.map_put("peeks", format!("{}-{entry}", step.id).as_bytes(), kept)?;
        }
    }
    if context.read_value("kv", b"nobody")?.is_some() {
        context.map_put("wrong", step.id.to_string().as_bytes(), "read a grain that nobody made")?;
    }
    Ok(())
}

fn thrice(argument: &[u8]) -> Result<Vec<u8>, Failure> {
    Ok(argument.repeat(3))
}

/// Sleeps, or has something computed; what is wrong with that.
fn wait(step: &Step, context: &mut Context<'_>) -> Result<Option<String>, Failure> {
    for n in 1..=2 {
        let before = context.now_micros();
        if step.kind == 's' {
            context.sleep(Duration::from_millis(n))?;
        } else {
            let argument = format!("{}-{n}", step.id).into_bytes();
            let found = context.offload("thrice", thrice, &argument)?;
            if found != argument.repeat(3) {
                return Ok(Some(format!("computed {}", String::from_utf8_lossy(&found))));
            }
        }
        if context.now_micros() < before {
            return Ok(Some("a time before that before it waited".to_owned()));
        }
    }
    Ok(None)
}

pub(super) fn step(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let step = Step::of(input.payload).ok_or_else(|| Failure::new("a payload that no client sent"))?;
    let last = context.map_range("order", b"", None, 1, true)?;
    let next = last.first().map_or(0, |(key, _)| String::from_utf8_lossy(key).parse::<u64>().unwrap_or(0) + 1);
    // Half of them delete what nobody has read before.
    let mut model: Option<Model> = if step.id.is_multiple_of(2) {
        Some(range(context, (b"", None), 10_000, false)?.into_iter().collect())
    } else {
        None
    };
    for change in step.changes() {
        change.make_for_real(context)?;
        if let Some(model) = &mut model {
            change.make(model);
        }
        if step.is_copied() {
            let target = MessageTarget::Grain { table: "copies".to_owned(), key: context.key().to_vec() };
            context.send(Send { target, operation: change.message(), callback: None })?;
        }
    }
    if let Some(wrong) = draw(&step, input, context) {
        context.map_put("wrong", step.id.to_string().as_bytes(), wrong)?;
    }
    context.log(LogLevel::Debug, context.config("word").unwrap_or("no word").to_owned());
    if matches!(step.kind, 't' | 'u' | 'v' | 'w') {
        beat::set(step.kind, context)?;
    }
    if matches!(step.kind, 's' | 'o')
        && let Some(wrong) = wait(&step, context)?
    {
        context.map_put("wrong", step.id.to_string().as_bytes(), wrong)?;
    }
    if step.kind == 'x' {
        peek(&step, context)?;
    }
    measure(&step, next, context);
    if step.kind == 'f' && (context.now_micros() / 3_000 + step.id).is_multiple_of(2) {
        return Err(Failure::new("not at this time of the day"));
    }
    if let Some(model) = &model
        && let Some(wrong) = compare(&step, model, context)?
    {
        context.map_put("wrong", step.id.to_string().as_bytes(), wrong)?;
    }
    context.map_put("order", format!("{next:08}").as_bytes(), step.note())?;
    Ok(Reply::none())
}
