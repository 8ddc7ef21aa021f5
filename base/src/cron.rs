//! Lines of cron: the five standard fields, in UTC.
//!
//! `minute hour day-of-month month day-of-week`. A field is `*`, a number, a range `a-b`, each with a step `/n`, or several of
//! these with commas between. Months and days of the week have names too (`jan`, `mon`); 0 and 7 are Sunday. As everywhere, a
//! day fits if the day of the month fits or the day of the week does, where both are given; where one is `*`, the other alone
//! counts.

use crate::limits::CRON_BYTES_MAX;
use std::str::FromStr;

const MICROS_PER_MINUTE: u64 = 60_000_000;
const MINUTES_PER_DAY: u64 = 24 * 60;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Days that are looked at for the next one that fits: the 29th of February may be eight years away.
const DAYS_AHEAD: u64 = 366 * 9;

/// A parsed line: what fits, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    month_days: u64,
    months: u64,
    week_days: u64,
    /// Whether the days of the month, and of the week, are all by `*`.
    any_month_day: bool,
    any_week_day: bool,
}

/// What a field may hold.
struct Field {
    what: &'static str,
    from: u64,
    to: u64,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { what: "minute", from: 0, to: 59, names: &[] },
    Field { what: "hour", from: 0, to: 23, names: &[] },
    Field { what: "day of the month", from: 1, to: 31, names: &[] },
    Field { what: "month", from: 1, to: 12, names: &MONTHS },
    Field { what: "day of the week", from: 0, to: 7, names: &DAYS },
];

impl Field {
    fn number(&self, text: &str) -> Result<u64, String> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let number = match named {
            Some(at) => Some(at as u64 + self.from),
            None if text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        number.filter(|number| (self.from..=self.to).contains(number)).ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            format!("the {} {text:?}; allowed are {} to {}{names}", self.what, self.from, self.to)
        })
    }

    /// Bits of what fits a field's text.
    fn parse(&self, text: &str) -> Result<u64, String> {
        let mut bits = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let number = step.parse::<u64>().ok().filter(|step| (1..=self.to).contains(step));
                    let wrong = || format!("the step {step:?} of the {}; allowed are 1 to {}", self.what, self.to);
                    (range, Some(number.ok_or_else(wrong)?))
                }
                None => (part, None),
            };
            let (first, last) = match (range, range.split_once('-')) {
                ("*", _) => (self.from, self.to),
                (_, Some((first, last))) => (self.number(first)?, self.number(last)?),
                // A step goes on to the end.
                (_, None) => {
                    let first = self.number(range)?;
                    (first, if step.is_some() { self.to } else { first })
                }
            };
            if first > last {
                return Err(format!("the {} {range:?}; the first of a range is not above its last", self.what));
            }
            (first..=last).step_by(step.unwrap_or(1) as usize).for_each(|at| bits |= 1 << at);
        }
        Ok(bits)
    }
}

impl FromStr for Cron {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        if line.len() > CRON_BYTES_MAX {
            return Err(format!("a line of cron of {} bytes; at most {CRON_BYTES_MAX} are allowed", line.len()));
        }
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [minutes, hours, month_days, months, week_days] = fields[..] else {
            return Err(format!(
                "a line of cron with {} fields; it has 5: minute, hour, day of the month, month, day of the week",
                fields.len()
            ));
        };
        let week = FIELDS[4].parse(week_days)?;
        Ok(Self {
            minutes: FIELDS[0].parse(minutes)?,
            hours: FIELDS[1].parse(hours)?,
            month_days: FIELDS[2].parse(month_days)?,
            months: FIELDS[3].parse(months)?,
            // 7 is Sunday as well.
            week_days: week & 0x7f | week >> 7,
            any_month_day: month_days.starts_with('*'),
            any_week_day: week_days.starts_with('*'),
        })
    }
}

impl Cron {
    /// The first time that fits behind a time, both in microseconds since 1970, UTC; `None` if no day fits within nine years.
    #[must_use]
    pub fn after(&self, micros: u64) -> Option<u64> {
        let minute = micros / MICROS_PER_MINUTE + 1;
        let (first, mut from) = (minute / MINUTES_PER_DAY, minute % MINUTES_PER_DAY);
        for day in first..first + DAYS_AHEAD {
            if self.fits_day(day) {
                let hit = (from / 60..24).filter(|hour| self.hours >> hour & 1 == 1).find_map(|hour| {
                    let least = if hour == from / 60 { from % 60 } else { 0 };
                    let minute = (least..60).find(|minute| self.minutes >> minute & 1 == 1)?;
                    Some(hour * 60 + minute)
                });
                if let Some(hit) = hit {
                    return (day * MINUTES_PER_DAY + hit).checked_mul(MICROS_PER_MINUTE);
                }
            }
            from = 0;
        }
        None
    }

    fn fits_day(&self, day: u64) -> bool {
        let (month, month_day) = month_and_day(day);
        // The first of January 1970 was a Thursday.
        let in_week = self.week_days >> ((day + 4) % 7) & 1 == 1;
        let in_month = self.month_days >> month_day & 1 == 1;
        let fits = match (self.any_month_day, self.any_week_day) {
            (false, false) => in_month || in_week,
            _ => in_month && in_week,
        };
        fits && self.months >> month & 1 == 1
    }
}

/// Month and day of the month, both from 1, of a day counted from the first of January 1970.
fn month_and_day(day: u64) -> (u64, u64) {
    // Counted from the first of March of the year 0, so that a leap day is the last one of its year.
    let day = day + 719_468;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month_day = of_year - (153 * shifted + 2) / 5 + 1;
    (if shifted < 10 { shifted + 3 } else { shifted - 9 }, month_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-27 06:40:00 UTC, a Friday.
    const NOW: u64 = 1_795_761_600_000_000;

    /// Minutes from [`NOW`] to the next time.
    fn next(line: &str) -> Option<u64> {
        line.parse::<Cron>().unwrap().after(NOW).map(|at| (at - NOW) / MICROS_PER_MINUTE)
    }

    #[test]
    fn days_have_their_dates() {
        assert_eq!(month_and_day(0), (1, 1));
        assert_eq!(month_and_day(31 + 27), (2, 28));
        assert_eq!(month_and_day(31 + 28), (3, 1));
        let days = NOW / MICROS_PER_MINUTE / MINUTES_PER_DAY;
        assert_eq!(month_and_day(days), (11, 27));
        // 2000-02-29 and 2100-02-28, behind which no leap day comes.
        assert_eq!((month_and_day(11_016), month_and_day(11_017)), ((2, 29), (3, 1)));
        assert_eq!((month_and_day(47_540), month_and_day(47_541)), ((2, 28), (3, 1)));
    }

    #[test]
    fn the_next_time() {
        assert_eq!(next("* * * * *"), Some(1));
        assert_eq!(next("40 6 * * *"), Some(24 * 60), "behind now, not now");
        assert_eq!(next("41 6 * * *"), Some(1));
        assert_eq!(next("*/15 * * * *"), Some(5));
        assert_eq!(next("0 7-9/2 * * *"), Some(20));
        assert_eq!(next("30/10 * * * *"), Some(10));
        assert_eq!(next("5,50 6 * * *"), Some(10));
        assert_eq!(next("0 0 * * sat"), Some(17 * 60 + 20));
        assert_eq!(next("0 0 * * 7"), next("0 0 * * sun"));
        assert_eq!(next("0 0 * * 5-7"), next("0 0 * * sat"), "Friday has begun, so Saturday is next");
        assert_eq!(next("0 0 1 * *"), Some((3 * 24 + 17) * 60 + 20));
        assert_eq!(next("0 0 1 * sat"), next("0 0 * * sat"), "either day");
        assert_eq!(next("0 0 */2 * sat"), Some((24 + 17) * 60 + 20 - 24 * 60 + 7 * 24 * 60), "both, by the star");
        assert_eq!(next("0 0 1 JAN *"), Some((34 * 24 + 17) * 60 + 20));
        let leap = "0 0 29 2 *".parse::<Cron>().unwrap().after(NOW).unwrap();
        assert_eq!(month_and_day(leap / MICROS_PER_MINUTE / MINUTES_PER_DAY), (2, 29));
        assert_eq!(next("0 0 31 2 *"), None);
        assert_eq!("* * * * *".parse::<Cron>().unwrap().after(u64::MAX - 1), None, "behind the end of time");
    }

    #[test]
    fn every_next_time_is_the_first_that_fits() {
        for line in ["7 3 * * *", "*/7 */5 1,15 * 1", "0 12 13 * 5", "59 23 31 12 *", "13 4 */10 2-4 *"] {
            let cron: Cron = line.parse().unwrap();
            let mut at = NOW;
            for _ in 0..20 {
                let next = cron.after(at).unwrap();
                assert!(next > at && next.is_multiple_of(MICROS_PER_MINUTE));
                // Nothing between fits: asked just before it, the same comes.
                assert_eq!(cron.after(next - 1), Some(next), "{line}");
                assert_eq!(cron.after(at + (next - at) / 2), Some(next).filter(|_| next - at > 1), "{line}");
                at = next;
            }
        }
    }

    #[test]
    fn what_is_no_line_is_named() {
        let wrong = |line: &str| line.parse::<Cron>().unwrap_err();
        assert!(wrong("* * * *").contains("4 fields"));
        assert!(wrong("60 * * * *").contains("minute \"60\"; allowed are 0 to 59"));
        assert!(wrong("* * 0 * *").contains("day of the month"));
        assert!(wrong("* * * foo *").contains("or jan to dec"));
        assert!(wrong("9-3 * * * *").contains("\"9-3\""));
        assert!(wrong("*/0 * * * *").contains("step"));
        assert!(wrong("*/99999999999999999999 * * * *").contains("step"));
        assert!(wrong("-1 * * * *").contains("\"\""));
        assert!(wrong("1, * * * *").contains("\"\""));
        assert!(wrong(&"* ".repeat(500)).contains("bytes"));
    }
}
