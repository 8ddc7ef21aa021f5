//! Timers that repeat. A grain notes in one list when it set its timer, when that fired and what it was told to have missed,
//! and when it cancelled it; so the list alone says whether each firing is the one that had to come. After a few firings the
//! timer is cancelled by its own firing, or the world would never come to rest.

use crate::machine::Machine;
use crate::rows::WholeGrain;
use crate::workload::Names;
use gristmill_sdk::{Cause, Context, Failure, Input, Reply};
use std::time::Duration;

/// Firings after which a timer ends.
const FIRINGS: u64 = 5;
const PERIOD_MICROS: u64 = 7_000;
const MINUTE: u64 = 60_000_000;
/// What a firing by cron is told to have missed at most.
const MISSED_MAX: u64 = 1_000;
const NAME: &str = "beat";

/// How a timer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// By a period.
    Beat,
    /// By cron.
    Cron,
    /// By a period, and firings whose handler fails are given up.
    Pulse,
}

/// An entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    /// At that time, and in which mode.
    Set(u64, Mode),
    /// Due, missed, and when its handler ran.
    Fired(u64, u64, u64),
    Cancelled,
}

impl Note {
    fn of(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let word = words.next()?;
        let mut number = || words.next()?.parse().ok();
        Some(match word {
            "set" => Self::Set(number()?, [Mode::Beat, Mode::Cron, Mode::Pulse][number()? as usize % 3]),
            "fired" => Self::Fired(number()?, number()?, number()?),
            "cancelled" => Self::Cancelled,
            _ => return None,
        })
    }
}

fn note(context: &mut Context<'_>, text: String) -> Result<(), Failure> {
    let last = context.map_range("beats", b"", None, 1, true)?;
    let next = last.first().map_or(0, |(key, _)| String::from_utf8_lossy(key).parse::<u64>().unwrap_or(0) + 1);
    context.map_put("beats", format!("{next:08}").as_bytes(), text)
}

/// Sets the timer anew or cancels it.
pub(super) fn set(kind: char, context: &mut Context<'_>) -> Result<(), Failure> {
    let (now, period) = (context.now_micros(), Duration::from_micros(PERIOD_MICROS));
    match kind {
        't' => context.set_timer_every(NAME, period, "beat", "x")?,
        'v' => context.set_timer_cron(NAME, "* * * * *", "beat", "x")?,
        'w' => context.set_timer_every(NAME, period, "pulse", "x")?,
        _ => {
            context.cancel_timer(NAME);
            return note(context, "cancelled".to_owned());
        }
    }
    context.map_put_u64("fired", b"count", 0)?;
    note(context, format!("set {now} {}", "tvw".find(kind).unwrap_or(0)))
}

pub(super) fn beat(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Timer { due_micros, missed, .. } = input.cause else { return Err(Failure::new("called by no timer")) };
    let now = context.now_micros();
    if (now / 1_000 + due_micros).is_multiple_of(3) {
        return Err(Failure::new("not at this time of the day"));
    }
    note(context, format!("fired {due_micros} {missed} {now}"))?;
    let count = context.map_get_u64("fired", b"count")? + 1;
    context.map_put_u64("fired", b"count", count)?;
    if count == FIRINGS {
        context.cancel_timer(NAME);
        note(context, "cancelled".to_owned())?;
    }
    Ok(Reply::none())
}

/// When a timer fires next behind a firing at `due` that was handled at `now`, and how many it missed.
fn next(by_cron: bool, due: u64, now: u64) -> (u64, u64) {
    let period = if by_cron { MINUTE } else { PERIOD_MICROS };
    let missed = (now - due) / period;
    (due + (missed + 1) * period, if by_cron { missed.min(MISSED_MAX) } else { missed })
}

/// Whether a timer that was to fire at `due` may do so at `found`: later ones of its beat behind firings that were given up.
fn is_firing(mode: Mode, due: u64, found: u64) -> bool {
    due == found || mode == Mode::Pulse && found > due && (found - due).is_multiple_of(PERIOD_MICROS)
}

/// Checks the list of a grain; what its timer is due at, if one is set, and how it repeats.
fn follow(notes: &[Note]) -> Result<(Option<u64>, Mode), String> {
    let (mut due, mut mode) = (None, Mode::Beat);
    for (at, note) in notes.iter().enumerate() {
        match *note {
            Note::Set(now, new) => {
                mode = new;
                due = Some(if mode == Mode::Cron { (now / MINUTE + 1) * MINUTE } else { now + PERIOD_MICROS });
            }
            Note::Cancelled => due = None,
            Note::Fired(found, missed, now) => {
                let is_due = due.is_some_and(|due| is_firing(mode, due, found));
                if !is_due || now < found {
                    return Err(format!("note {at}: fired for {found} at {now}, and was due at {due:?}"));
                }
                let (next, told) = next(mode == Mode::Cron, found, now);
                if missed != told {
                    return Err(format!("note {at}: told to have missed {missed}, not {told}"));
                }
                due = Some(next);
            }
        }
    }
    Ok((due, mode))
}

/// Checks what grains have noted of their timers, and that each timer that must be set is.
pub(super) fn check(machine: &Machine, names: &Names, grains: &[WholeGrain]) -> Result<(), String> {
    for grain in grains.iter().filter(|grain| names.table_name(grain.table) == "books") {
        let key = String::from_utf8_lossy(&grain.key).into_owned();
        let notes = grain.maps.get(&names.map("books", "beats")).into_iter().flatten();
        let notes: Option<Vec<Note>> =
            notes.map(|(_, row)| Note::of(std::str::from_utf8(&row.bytes).unwrap_or_default())).collect();
        let notes = notes.ok_or_else(|| format!("P2: books/{key} has a note that nobody made"))?;
        let (due, mode) =
            follow(&notes).map_err(|wrong| format!("P4: the timer of books/{key}, {wrong}: {notes:?}"))?;
        let found = machine.due_of_timer(names, "books", &key, NAME)?;
        if due.is_some() != found.is_some() || due.zip(found).is_some_and(|(due, found)| !is_firing(mode, due, found)) {
            return Err(format!("P4: the timer of books/{key} is due at {found:?}, not {due:?}: {notes:?}"));
        }
    }
    Ok(())
}
