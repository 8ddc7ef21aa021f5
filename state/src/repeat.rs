//! Timers that fire again and again: by a period, or by a line of cron. When one fires next is decided by the record that consumes
//! its firing, from engine time, so it is the same wherever the record is applied.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::cron::Cron;
use gristmill_base::limits::{CRON_BYTES_MAX, TIMER_MISSED_MAX};

/// How a timer repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Every so many microseconds, at least one, counted from when it was first due.
    Every(u64),
    /// At the minutes that a line of cron names, in UTC. Its text is valid.
    Cron(Box<str>),
}

/// A firing that comes late may stand for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// How many times between when it was due and now were missed; they do not fire any more.
    pub missed: u64,
    /// When it is due next, engine microseconds; `None`: never.
    pub next_micros: Option<u64>,
}

impl Repeat {
    /// Firing at `now_micros` what was due at `due_micros`.
    #[must_use]
    pub fn fire(&self, due_micros: u64, now_micros: u64) -> Firing {
        match self {
            Self::Every(period) => {
                let period = (*period).max(1);
                let missed = now_micros.saturating_sub(due_micros) / period;
                let next = due_micros.checked_add(period.saturating_mul(missed + 1));
                Firing { missed, next_micros: next.filter(|next| *next > now_micros) }
            }
            Self::Cron(line) => {
                let Ok(cron) = line.parse::<Cron>() else { return Firing { missed: 0, next_micros: None } };
                let mut missed = 0;
                let mut next = cron.after(due_micros);
                while missed < TIMER_MISSED_MAX
                    && let Some(at) = next.filter(|at| *at <= now_micros)
                {
                    missed += 1;
                    next = cron.after(at);
                }
                if next.is_some_and(|at| at <= now_micros) {
                    next = cron.after(now_micros);
                }
                Firing { missed, next_micros: next }
            }
        }
    }

    /// Adds its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Every(period) => {
                out.put_u8(1);
                out.put_varint(*period);
            }
            Self::Cron(line) => {
                out.put_u8(2);
                out.put_bytes(line.as_bytes());
            }
        }
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Every(from.varint()?),
            2 => Self::Cron(from.text("line of cron", CRON_BYTES_MAX)?.into()),
            found => return Err(DecodeError::Unknown { what: "way to repeat", found: found.into() }),
        })
    }

    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Every(_) => 10,
            Self::Cron(line) => 8 + line.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000;

    #[test]
    fn a_period_keeps_its_beat_and_counts_what_it_missed() {
        let every = Repeat::Every(10);
        assert_eq!(every.fire(100, 100), Firing { missed: 0, next_micros: Some(110) });
        assert_eq!(every.fire(100, 109), Firing { missed: 0, next_micros: Some(110) });
        assert_eq!(every.fire(100, 110), Firing { missed: 1, next_micros: Some(120) });
        assert_eq!(every.fire(100, 137), Firing { missed: 3, next_micros: Some(140) });
        assert_eq!(every.fire(u64::MAX - 3, u64::MAX - 2).next_micros, None, "behind the end of time");
        assert_eq!(Repeat::Every(0).fire(5, 5).next_micros, Some(6), "no standing still");
    }

    #[test]
    fn a_line_of_cron_counts_what_it_missed() {
        let each = Repeat::Cron("*/5 * * * *".into());
        assert_eq!(each.fire(5 * MINUTE, 5 * MINUTE + 1), Firing { missed: 0, next_micros: Some(10 * MINUTE) });
        assert_eq!(each.fire(5 * MINUTE, 22 * MINUTE), Firing { missed: 3, next_micros: Some(25 * MINUTE) });
        let long = each.fire(0, 5 * MINUTE * (TIMER_MISSED_MAX + 50) + 1);
        assert_eq!(long.missed, TIMER_MISSED_MAX, "it stops to count");
        assert_eq!(long.next_micros, Some(5 * MINUTE * (TIMER_MISSED_MAX + 51)));
        assert_eq!(Repeat::Cron("0 0 30 2 *".into()).fire(0, 9).next_micros, None, "such a day never comes");
    }

    #[test]
    fn bytes_and_the_way_back() {
        for (repeat, golden) in
            [(Repeat::Every(300), [1, 0xac, 2].as_slice()), (Repeat::Cron("* * * * *".into()), b"\x02\x09* * * * *")]
        {
            let mut bytes = Vec::new();
            repeat.encode(&mut bytes);
            assert_eq!(bytes, golden);
            assert_eq!(Repeat::decode(&mut Reader::new(&bytes)), Ok(repeat));
        }
        assert!(Repeat::decode(&mut Reader::new(&[9])).is_err());
    }
}
