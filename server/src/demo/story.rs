//! The demo from its beginning to its last line.

use super::corpus::Corpus;
use super::counts::{Counts, shown};
use super::hard_kills::HardKills;
use super::loading::Loading;
use super::probe::{Probes, RATE};
use super::process::{Children, Server};
use super::progress::Progress;
use super::{Sabotage, WordCount, shell, watch};
use crate::commands::{Columns, failed, grouped};
use crate::exit::{Exit, Failed};
use gristmill_client::clock::now;
use gristmill_client::{Client, Config};
use gristmill_io::lock::DirLock;
use gristmill_sdk::App;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The app.
const APP: &str = "word-count";
/// Seconds of live probing; as many for small demos as their lines allow.
const PROBE_SECONDS: u64 = 8;
/// File of the events' values, which is loaded twice, in the demo's folder.
const EVENTS: &str = "lines.jsonl";
/// A file that says that a folder is a demo's and may be emptied.
const MARK: &str = "made-by-gristmill-demo";

/// Runs the demo.
///
/// # Errors
/// A difference was found, or the server did not do what it should.
pub(super) fn run(arguments: &WordCount, apps: &[App]) -> Result<(), Failed> {
    let started = now();
    let app = apps.iter().find(|app| app.name == APP).ok_or_else(|| {
        Failed::configuration(format!("the app {APP} is not linked into this program; the stock binary has it"))
    })?;
    if arguments.sabotage.is_some() && !cfg!(feature = "sabotage") {
        return Err(Failed::new(
            Exit::Usage,
            "this is no test build: --sabotage needs one with the feature `sabotage`",
        ));
    }
    let corpus = Corpus::read(arguments.text.as_deref(), arguments.lines)?;
    let seconds = PROBE_SECONDS.min(corpus.lines / 10_000).max(1);
    let probes = Probes::new(&corpus, seconds)?;
    prepare(&arguments.data)?;
    let text = arguments.data.join("text");
    corpus
        .write(&text.join("corpus"))
        .and_then(|()| probes.write(&text.join("probe")))
        .and_then(|()| corpus.write_events(&arguments.data.join(EVENTS)))
        .map_err(|error| Failed::configuration(format!("{}: {error}", text.display())))?;
    let children = Children::new()?;
    let sabotage = arguments.sabotage.map(|how| match how {
        Sabotage::AckBeforeWrite => "ack-before-write",
        Sabotage::ForgetPosition => "forget-position",
    });
    let mut server = Server::new(children.clone(), &arguments.data, sabotage)?;
    let mut story = Story { arguments, corpus, probes, children, address: String::new(), started };
    let told = story.tell(&server, app);
    if arguments.keep && server.check_running().is_ok() {
        let pid = server.keep();
        try_next(server.data(), pid);
        return told;
    }
    told.and(server.stop())
}

/// Makes the folder, empty but for what says that it is a demo's.
fn prepare(folder: &Path) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::configuration(format!("{}: {error}", folder.display()));
    let data = folder.join("data");
    if data.is_dir() {
        // Of a server that an earlier demo left up.
        let lock = DirLock::take(&data).map_err(|error| Failed::configuration(error.to_string()))?;
        drop(lock);
    }
    if folder.join(MARK).exists() {
        fs::remove_dir_all(folder).map_err(failed)?;
    } else if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let message =
            format!("{} is not empty and not of an earlier demo; name another folder with --data", folder.display());
        return Err(Failed::configuration(message));
    }
    fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(MARK), "")).map_err(failed)
}

fn try_next(data: &Path, pid: u32) {
    let data = data.display();
    println!();
    println!("The server is still up. Try next:");
    println!("  gristmill status --data {data}");
    println!("  gristmill table get word-count/words t --map counts --limit 10 --data {data}");
    println!(
        "  echo 'the quick brown fox' | gristmill topic append word-count/lines --lines --fields doc,text --data {data}"
    );
    println!("It stops on SIGTERM: kill {pid}");
}

/// What the demo is about.
struct Story<'a> {
    arguments: &'a WordCount,
    corpus: Corpus,
    probes: Probes,
    children: Children,
    address: String,
    started: Instant,
}

impl Story<'_> {
    fn tell(&mut self, server: &Server, app: &App) -> Result<(), Failed> {
        let (address, took) = server.start()?;
        self.address = address;
        println!("server ready on {} after {:.0} ms, data in {}", self.address, ms(took), server.data().display());
        let mut client = self.client()?;
        client.app_load(app.name, app.file, false).map_err(failed)?;
        self.first_appending(&mut client)?;
        self.live_probes()?;
        watch::settle(&mut client)?;
        drop(client);
        let (unapplied, refusal) = self.second_appending(server)?;
        let mut client = self.client()?;
        let waiting = now();
        watch::settle(&mut client)?;
        println!("settled after another {:.1} s", (now() - waiting).as_secs_f64());
        self.compare(&mut client)?;
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if unapplied == 0 {
            let message =
                "no kill found an acknowledged line that was not yet applied, so the kills have shown nothing";
            return Err(Failed::new(Exit::No, message));
        }
        Ok(())
    }

    fn client(&self) -> Result<Client, Failed> {
        Client::connect(Config::new(self.address.clone())).map_err(failed)
    }

    fn first_appending(&self, client: &mut Client) -> Result<(), Failed> {
        let lines = self.corpus.lines;
        println!("appending {} lines of {} documents", grouped(lines), grouped(self.corpus.documents.len() as u64));
        let mut progress = Progress::new("appended", lines);
        let events = self.arguments.data.join(EVENTS);
        let refusal = Loading::run((&events, "first"), lines, &self.address, |loading| {
            loading.finish(&mut progress);
            Ok(())
        })?;
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let (rate, appended) = (progress.rate(lines), progress.seconds());
        progress.end();
        watch::settle(client)?;
        let settled = progress.seconds();
        println!("appended in {appended:.1} s: {} durable lines/s", grouped(rate));
        println!(
            "settled after {settled:.1} s: {} events/s from line to counts",
            grouped((lines as f64 / settled) as u64)
        );
        print_counts(&Counts::read(client)?);
        Ok(())
    }

    fn live_probes(&self) -> Result<(), Failed> {
        println!(
            "live: {} lines/s for {} s, from append to the word's count readable",
            grouped(RATE),
            self.probes.lines() / RATE
        );
        let latencies = self.probes.run(&self.address)?;
        let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "live: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms of {} lines",
            at(0.5),
            at(0.99),
            at(0.999),
            latencies.max() as f64 / 1e3,
            grouped(latencies.len()),
        );
        Ok(())
    }

    /// Appends again, with kills. Gives how many acknowledged lines the kills found not yet applied, and why the load
    /// refused to go on, if it did: the comparison shows then what is missing.
    fn second_appending(&mut self, server: &Server) -> Result<(u64, Option<Failed>), Failed> {
        let lines = self.corpus.lines;
        println!("appending the same lines again, with three kills (SIGKILL) on the way");
        let mut progress = Progress::new("appended", lines);
        let kills = HardKills { server, lines };
        let mut last = (String::new(), 0);
        let events = self.arguments.data.join(EVENTS);
        let refusal = Loading::run((&events, "second"), lines, &self.address, |loading| {
            last = kills.run(loading, &mut progress)?;
            Ok(())
        })?;
        progress.end();
        match &refusal {
            None => println!("appended in {:.1} s, three restarts included", progress.seconds()),
            Some(refusal) => println!("the load does not go on: {refusal}\ncomparing what is there with all lines"),
        }
        if !last.0.is_empty() {
            self.address = last.0;
        }
        Ok((last.1, refusal))
    }

    /// Compares what is served with what the shell counts.
    fn compare(&self, client: &mut Client) -> Result<(), Failed> {
        let folder = self.arguments.data.join("text");
        println!("the same with a shell, in {}:", folder.display());
        println!("  export LC_ALL=C");
        println!("  {}", shell::WORDS);
        println!("  {}", shell::DOCUMENTS);
        let counting = now();
        let right = shell::count(&self.children, &self.arguments.data)?;
        println!("the shell took {:.1} s", (now() - counting).as_secs_f64());
        let served = Counts::read(client)?;
        let differences = served.differences(&right);
        println!("the demo took {:.0} s", (now() - self.started).as_secs_f64());
        let exact = differences.is_empty();
        for line in shown(&differences) {
            println!("{line}");
        }
        println!(
            "{}: {} words, {} distinct, {} documents, {} differences",
            if exact { "exact" } else { "NOT exact" },
            served.total(),
            served.words.len(),
            served.documents.len(),
            differences.len(),
        );
        if exact { Ok(()) } else { Err(Failed::new(Exit::No, "")) }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The top words and the documents with most lines.
fn print_counts(counts: &Counts) {
    let mut columns = Columns::new(&["word", "count"]);
    for (word, count) in counts.top(20) {
        columns.row(vec![word.to_owned(), grouped(count)]);
    }
    columns.lines().iter().for_each(|line| println!("  {line}"));
    let mut largest: Vec<_> = counts.documents.iter().collect();
    largest.sort_by_key(|(name, totals)| (std::cmp::Reverse(totals.lines), *name));
    let mut columns = Columns::new(&["document", "lines", "words"]);
    for (name, totals) in largest.iter().take(5) {
        columns.row(vec![(*name).clone(), grouped(totals.lines), grouped(totals.words)]);
    }
    let (mut lines, mut words) = (0, 0);
    for totals in counts.documents.values() {
        lines += totals.lines;
        words += totals.words;
    }
    let all = format!("all {} documents", grouped(counts.documents.len() as u64));
    columns.row(vec![all, grouped(lines), grouped(words)]);
    columns.lines().iter().for_each(|line| println!("  {line}"));
}
