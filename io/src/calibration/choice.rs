//! What follows from the figures for the logs.

use super::measure::How;
use super::store::Figure;

/// A durable write must be at least this much faster than a write and a flush to be taken, alone on the disk: a tie goes
/// to the write and flush, which suffers less from other writers.
const FASTER: f64 = 0.95;
/// Beside another writer it may be slower by this much.
const AS_FAST: f64 = 1.05;
/// Its 99th percentile may be larger by this much.
const TAIL: f64 = 1.25;
/// Spacing flushes must bring the 99th percentile down to this part to be taken ...
const CALMER: f64 = 0.5;
/// ... and may make a cycle longer by this much.
const LONGER: f64 = 1.25;

/// How the logs write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Batches of at least so many bytes are one durable write, smaller ones a write and a flush; `u64::MAX` for never.
    pub write_durable_bytes: u64,
    /// Least time between the starts of two flushes, nanoseconds.
    pub flush_spacing_nanos: u64,
}

/// The choice that the figures of one calibration speak for.
#[must_use]
pub fn choose(figures: &[Figure]) -> Choice {
    Choice { write_durable_bytes: write_durable_bytes(figures), flush_spacing_nanos: flush_spacing_nanos(figures) }
}

/// The smallest size from which on a durable write wins at every size that was measured, alone and beside a writer.
fn write_durable_bytes(figures: &[Figure]) -> u64 {
    let pair = |bytes: u64, beside_writer: bool| {
        let of = |how: How| {
            figures.iter().find(|it| {
                (it.how(), it.bytes, it.depth, it.spacing_nanos, it.beside_writer) == (how, bytes, 1, 0, beside_writer)
            })
        };
        Some((of(How::WriteThenFlush)?, of(How::WriteDurable)?))
    };
    let wins = |bytes: u64| {
        let alone = pair(bytes, false).is_some_and(|(split, whole)| {
            whole.mean_nanos as f64 <= split.mean_nanos as f64 * FASTER
                && whole.p99_nanos as f64 <= split.p99_nanos as f64 * TAIL
        });
        let beside =
            pair(bytes, true).is_none_or(|(split, whole)| whole.mean_nanos as f64 <= split.mean_nanos as f64 * AS_FAST);
        alone && beside
    };
    let mut sizes: Vec<u64> =
        figures.iter().filter(|it| it.depth == 1 && !it.beside_writer).map(|it| it.bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.into_iter().rev().take_while(|bytes| wins(*bytes)).last().unwrap_or(u64::MAX)
}

/// The shortest spacing that halves the tail of a small write's flush and hardly makes a cycle longer; mostly none.
fn flush_spacing_nanos(figures: &[Figure]) -> u64 {
    let small = figures
        .iter()
        .filter(|it| it.how() == How::WriteThenFlush && it.bytes == 4_096 && it.depth == 1 && !it.beside_writer);
    let mut small: Vec<&Figure> = small.collect();
    small.sort_by_key(|it| it.spacing_nanos);
    let Some((free, spaced)) = small.split_first().filter(|(free, _)| free.spacing_nanos == 0) else { return 0 };
    let good = |it: &&&Figure| {
        let cycle = it.spacing_nanos.max(it.mean_nanos) as f64;
        cycle <= free.mean_nanos as f64 * LONGER && it.p99_nanos as f64 <= free.p99_nanos as f64 * CALMER
    };
    spaced.iter().find(good).map_or(0, |it| it.spacing_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(how: How, bytes: u64, mean: u64) -> Figure {
        Figure {
            whole: how == How::WriteDurable,
            bytes,
            depth: 1,
            spacing_nanos: 0,
            beside_writer: false,
            writes: 100,
            per_second: 0,
            mean_nanos: mean,
            p50_nanos: mean,
            p99_nanos: 2 * mean,
            max_nanos: 3 * mean,
        }
    }

    fn pairs(of: &[(u64, u64, u64)]) -> Vec<Figure> {
        of.iter()
            .flat_map(|(bytes, split, whole)| {
                [figure(How::WriteThenFlush, *bytes, *split), figure(How::WriteDurable, *bytes, *whole)]
            })
            .collect()
    }

    #[test]
    fn the_size_from_which_a_durable_write_wins_everywhere_is_taken() {
        let figures = pairs(&[(4_096, 100, 80), (16_384, 100, 120), (65_536, 200, 150), (262_144, 400, 300)]);
        assert_eq!(
            choose(&figures).write_durable_bytes,
            65_536,
            "it loses at 16 KiB, so what lies below does not count"
        );
        assert_eq!(choose(&pairs(&[(4_096, 100, 50), (65_536, 200, 100)])).write_durable_bytes, 4_096);
        assert_eq!(choose(&pairs(&[(4_096, 100, 50), (65_536, 200, 199)])).write_durable_bytes, u64::MAX, "a tie");
        assert_eq!(choose(&[]), Choice { write_durable_bytes: u64::MAX, flush_spacing_nanos: 0 });
    }

    #[test]
    fn one_that_loses_beside_a_writer_or_has_a_long_tail_is_not_taken() {
        let mut figures = pairs(&[(65_536, 200, 100)]);
        let beside = |it: Figure| Figure { beside_writer: true, ..it };
        figures.extend(pairs(&[(65_536, 200, 900)]).into_iter().map(beside));
        assert_eq!(choose(&figures).write_durable_bytes, u64::MAX);
        let mut figures = pairs(&[(65_536, 200, 100)]);
        figures[1].p99_nanos = 10_000;
        assert_eq!(choose(&figures).write_durable_bytes, u64::MAX);
    }

    #[test]
    fn flushes_are_spaced_where_that_halves_the_tail_at_little_cost() {
        let free = Figure { p99_nanos: 5_000_000, ..figure(How::WriteThenFlush, 4_096, 200_000) };
        let spaced = |spacing_nanos, p99_nanos| Figure { spacing_nanos, p99_nanos, ..free.clone() };
        let choice = |more: Figure| choose(&[free.clone(), more]).flush_spacing_nanos;
        assert_eq!(choice(spaced(250_000, 300_000)), 250_000);
        assert_eq!(choice(spaced(500_000, 300_000)), 0, "a cycle would be too long");
        assert_eq!(choice(spaced(250_000, 4_000_000)), 0, "it is not worth it");
    }
}
