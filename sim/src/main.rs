//! The simulator's command line. See `gristmill-sim --help`.

use gristmill_base::planted::Bug;
use gristmill_sim::aim::{
    is_of_context, is_of_expiry, is_of_failures, is_of_outside, is_of_queries, is_of_replay, is_of_versions,
    is_of_watches,
};
use gristmill_sim::run::{Options, Report, quiet_panics, run};
use gristmill_sim::workload::NAMES;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "gristmill-sim: runs the engine on a simulated machine, from seeds

  --seed N            one seed; its last line is `ok seed=N events=E crashes=C trace=HEX`
  --seeds A..B        many seeds, B not included
  --workload NAME     bank, words, kept, hard, facts, ttl, stuck, fails, versions, transfers, context, replay, swaps, watch or queries; all of
                      them in turn if it is left out
  --cores N           shards at the first start, 1 to 4; drawn if it is left out
  --planted NAME|all  plants a known bug, or each that whole runs can find, and looks for it; NAME as in base/src/planted.rs.
                      odd, even: every other one of all, for two processes beside each other
  --aimed NAME        makes the situations of a planted bug frequent, as `--planted NAME` does, but plants nothing
  --stats             prints how often rare situations were reached
  --crash-points      cuts a short run at every operation of its disk

Exit status 0: as it should be. 1: a promise is broken, or a planted bug was not found. 2: usage.
";

/// Seeds after which a planted bug counts as not found.
const PLANTED_SEEDS: u64 = 400;

#[derive(Default)]
struct Arguments {
    seeds: std::ops::Range<u64>,
    workload: Option<String>,
    cores: u16,
    planted: Option<String>,
    aim: Option<Bug>,
    stats: bool,
    crash_points: bool,
}

fn parse() -> Result<Arguments, String> {
    let mut arguments = Arguments { seeds: 1..2, ..Arguments::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{word}: {text} is no number"));
        match word.as_str() {
            "--seed" => {
                let seed = number(&value()?)?;
                arguments.seeds = seed..seed + 1;
            }
            "--seeds" => {
                let range = value()?;
                let (from, to) = range.split_once("..").ok_or_else(|| format!("--seeds: {range} is not A..B"))?;
                arguments.seeds = number(from)?..number(to)?;
            }
            "--workload" => arguments.workload = Some(value()?),
            "--cores" => arguments.cores = number(&value()?)?.clamp(1, 4) as u16,
            "--planted" => arguments.planted = Some(value()?),
            "--aimed" => {
                let name = value()?;
                let bug = named(&name).ok_or_else(|| format!("no planted bug {name}; there are: {:?}", Bug::ALL))?;
                arguments.aim = Some(bug);
            }
            "--stats" => arguments.stats = true,
            "--crash-points" => arguments.crash_points = true,
            "--help" => return Err(String::new()),
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{HELP}");
            return ExitCode::from(if error.is_empty() { 0 } else { 2 });
        }
    };
    quiet_panics();
    let good = match (&arguments.planted, arguments.crash_points) {
        (_, true) => crash_points(),
        (Some(name), _) => planted(name, &arguments),
        (None, _) => seeds(&arguments),
    };
    ExitCode::from(u8::from(!good))
}

fn workload_of(arguments: &Arguments, seed: u64) -> String {
    arguments.workload.clone().unwrap_or_else(|| NAMES[(seed % NAMES.len() as u64) as usize].to_owned())
}

fn seeds(arguments: &Arguments) -> bool {
    let single = arguments.seeds.end - arguments.seeds.start == 1;
    let started = Watch::start();
    let mut sum = Report::default();
    let mut bad = 0_u64;
    for seed in arguments.seeds.clone() {
        let workload = workload_of(arguments, seed);
        let options =
            Options { seed, workload: workload.clone(), cores: arguments.cores, planted: None, aim: arguments.aim };
        match run(&options) {
            Ok(report) => {
                sum.events += report.events;
                sum.crashes += report.crashes;
                for (what, count) in &report.reached {
                    *sum.reached.entry(what).or_default() += count;
                }
                if single {
                    print_stats(arguments.stats, &sum.reached);
                    let Report { events, crashes, trace, .. } = report;
                    println!("ok seed={seed} events={events} crashes={crashes} trace={trace:016x}");
                    return true;
                }
            }
            Err(what) => {
                println!("FAILED seed={seed} workload={workload} cores={}: {what}", arguments.cores);
                bad += 1;
            }
        }
        if seed % 100 == 99 {
            println!("{} seeds, {} events, {bad} bad", seed + 1 - arguments.seeds.start, sum.events);
            let _ = std::io::stdout().flush();
        }
    }
    if !single {
        print_stats(arguments.stats, &sum.reached);
        let seconds = started.seconds();
        println!(
            "{} seeds={} bad={bad} events={} crashes={} events/s={:.0}",
            if bad == 0 { "ok" } else { "failed" },
            arguments.seeds.end - arguments.seeds.start,
            sum.events,
            sum.crashes,
            sum.events as f64 / seconds
        );
    }
    bad == 0
}

fn print_stats(wanted: bool, reached: &BTreeMap<&'static str, u64>) {
    if wanted {
        for (what, count) in reached {
            println!("{count:>10}  {what}");
        }
    }
}

fn named(name: &str) -> Option<Bug> {
    Bug::ALL.into_iter().find(|bug| format!("{bug:?}").eq_ignore_ascii_case(&name.replace('-', "")))
}

fn planted(name: &str, arguments: &Arguments) -> bool {
    // Whole runs cannot tell the other one from a torn tail; sim/tests/log.rs finds it.
    let all = Bug::ALL.into_iter().filter(|bug| *bug != Bug::SkippedDirectorySync);
    let bugs: Vec<Bug> = match name {
        "all" => all.collect(),
        "odd" => all.step_by(2).collect(),
        "even" => all.skip(1).step_by(2).collect(),
        name => named(name).into_iter().collect(),
    };
    if bugs.is_empty() {
        eprintln!("no planted bug {name}; there are: {:?}", Bug::ALL);
        return false;
    }
    let mut found = 0;
    for bug in &bugs {
        let started = Watch::start();
        let first = find(*bug, arguments);
        let seconds = started.seconds();
        match first {
            Some((seed, what)) => {
                found += 1;
                let line = what.lines().next_back().unwrap_or_default();
                println!("found {bug:?} seed={seed} seconds={seconds:.1}: {line}");
            }
            None => println!("NOT FOUND {bug:?} in {PLANTED_SEEDS} seeds, {seconds:.1} s"),
        }
        let _ = std::io::stdout().flush();
    }
    println!("planted: {found}/{} found", bugs.len());
    found == bugs.len()
}

/// The first seed that fails because of the bug: without it the same run must be clean.
fn find(bug: Bug, arguments: &Arguments) -> Option<(u64, String)> {
    for seed in 1..=PLANTED_SEEDS {
        let usual = match bug {
            Bug::IngestPositionApart | Bug::SettledAfterOneRound => "words",
            Bug::RetentionBeforeHandled | Bug::LaneFilesBeforeRoot => "kept",
            Bug::SkippedIsHandled | Bug::SkippedWithoutRecord | Bug::GapSwallowsAccepted => "hard",
            Bug::CompactionTakesLast
            | Bug::TombstoneGoesAtOnce
            | Bug::TombstoneByAppend
            | Bug::CompactionBeforeHandled
            | Bug::CompactedFilesBeforeRoot
            // Its readers go to the end of lanes.
            | Bug::BatchBeforeDurable => "facts",
            bug if is_of_expiry(bug) => "ttl",
            bug if is_of_context(bug) => "context",
            bug if is_of_replay(bug) => "replay",
            bug if is_of_watches(bug) => "watch",
            bug if is_of_queries(bug) => "queries",
            bug if is_of_outside(bug) => "workers",
            Bug::SkipTakesTwo | Bug::SkipWithoutLetter | Bug::RetryLosesOrder | Bug::SkipAgain => "stuck",
            Bug::EditNotDumped | Bug::SkipUnnamed => "stuck",
            Bug::PausedNotKept => "kept",
            bug if is_of_versions(bug) => "swaps",
            bug if is_of_failures(bug) => "fails",
            Bug::OldLivesGoOn | Bug::VersionRenumbers => "versions",
            Bug::VersionHeardAgain | Bug::VersionLost | Bug::VersionHeardEarly | Bug::VersionForgottenByMove => "versions",
            _ => "bank",
        };
        let workload = arguments.workload.clone().unwrap_or_else(|| usual.to_owned());
        let planted = Options { seed, workload, cores: arguments.cores, planted: Some(bug), aim: Some(bug) };
        let Err(what) = run(&planted) else { continue };
        match run(&Options { planted: None, ..planted }) {
            Ok(_) => return Some((seed, what)),
            Err(without) => println!("seed={seed} aimed at {bug:?} fails without it as well: {without}"),
        }
    }
    None
}

fn crash_points() -> bool {
    match gristmill_sim::engine_points::enumerate_all() {
        Ok(words) => {
            println!("ok {words}");
            true
        }
        Err(what) => {
            println!("FAILED {what}");
            false
        }
    }
}

/// How long something took, for the person who waits.
struct Watch(std::time::Instant);

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "shown to a person; nothing simulated sees it")]
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
