//! Appends all documents, many lines in flight, over several clients; can be held while the server is restarted.

use super::corpus::{Corpus, Document};
use super::progress::Progress;
use crate::commands::failed;
use crate::exit::Failed;
use gristmill_client::clock::{now, until};
use gristmill_client::{Client, Config, Topic};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Topic of the lines.
pub(super) const TOPIC: &str = "word-count/lines";
/// Clients, each on a thread.
const PRODUCERS: usize = 2;
/// Documents that a client appends at the same time, line by line in turn, so that all shards have work.
const DOCUMENTS_AT_ONCE: usize = 16;
/// Lines in flight per client; below the client's own window, so that submitting never waits.
const IN_FLIGHT: usize = 3_000;
/// Lines submitted before results are looked at again, so that acknowledgements are never late.
const SUBMIT_AT_ONCE: usize = 256;
/// Between the last line submitted and a kill: a client that sends into a dead connection drops it, and with it the
/// acknowledgements that it has not read.
const STILL: Duration = Duration::from_millis(1);
/// After a kill, acknowledgements that are under way arrive within this time.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// How long a line may wait for its acknowledgement, restarts included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// An appending under way.
pub(super) struct Appending<'a> {
    corpus: &'a Corpus,
    /// Address of the server, and how often it has changed.
    address: Mutex<(u64, String)>,
    /// The clients are to wait: the server is down.
    held: AtomicBool,
    /// Clients that wait.
    waiting: AtomicUsize,
    /// Clients that have nothing more to do.
    ended: AtomicUsize,
    acked: AtomicU64,
    /// The clients are to give up.
    stopped: AtomicBool,
}

/// The value of an event.
#[derive(serde::Serialize)]
pub(super) struct Line<'a> {
    doc: &'a str,
    text: &'a str,
}

/// The value of the event of a line.
pub(super) fn value(doc: &str, text: &str) -> Vec<u8> {
    serde_json::to_vec(&Line { doc, text }).expect("two texts are an object")
}

/// A document that is being appended, and its next line.
type Open<'a> = (&'a Document, usize);

impl<'a> Appending<'a> {
    /// Appends the documents to the server at `address` and meanwhile runs `beside`, which may hold it.
    ///
    /// # Errors
    /// A line that is not acknowledged, or what `beside` says.
    pub(super) fn run(
        corpus: &'a Corpus,
        address: &str,
        beside: impl FnOnce(&Self) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let appending = Self {
            corpus,
            address: Mutex::new((0, address.to_owned())),
            held: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            acked: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let appending = &appending;
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|at| {
                    scope.spawn(move || {
                        let ended = appending.produce(at);
                        appending.ended.fetch_add(1, Ordering::SeqCst);
                        if ended.is_err() {
                            appending.stopped.store(true, Ordering::SeqCst);
                        }
                        ended
                    })
                })
                .collect();
            let beside = beside(appending);
            if beside.is_err() {
                appending.stopped.store(true, Ordering::SeqCst);
            }
            let mut ended = Ok(());
            for producer in producers {
                ended = ended.and(producer.join().expect("a producer does not panic"));
            }
            // What a client tells is the reason, where it has one.
            ended.and(beside)
        })
    }

    /// Waits until all lines are acknowledged, and shows how far it is.
    ///
    /// # Errors
    /// None; a client that fails ends the wait and tells why itself.
    pub(super) fn finish(&self, progress: &mut Progress) -> Result<(), Failed> {
        while self.wait_for(self.corpus.lines, progress) {}
        Ok(())
    }

    /// Waits a little for so many acknowledged lines. Whether they are still to come.
    pub(super) fn wait_for(&self, lines: u64, progress: &mut Progress) -> bool {
        let acked = self.acked();
        progress.at(acked);
        let more = acked < lines && !self.is_over();
        if more {
            std::thread::sleep(Duration::from_millis(1));
        }
        more
    }

    /// Lines acknowledged by now.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    /// Whether no line will be appended any more.
    pub(super) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) || self.ended.load(Ordering::SeqCst) == PRODUCERS
    }

    /// Has the clients submit nothing more and only listen. What is in flight by then keeps the server busy.
    pub(super) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
        std::thread::sleep(STILL);
    }

    /// Returns when the clients have taken in what a server told before it was gone.
    pub(super) fn listen(&self) {
        let idle = || self.waiting.load(Ordering::SeqCst) + self.ended.load(Ordering::SeqCst);
        while idle() < PRODUCERS && !self.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets the clients go on with the server at that address.
    pub(super) fn go_on(&self, address: &str) {
        {
            let mut place = self.address.lock().unwrap_or_else(PoisonError::into_inner);
            *place = (place.0 + 1, address.to_owned());
        }
        self.held.store(false, Ordering::SeqCst);
    }

    fn address(&self) -> (u64, String) {
        self.address.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One client: every so many-th document is its own.
    fn produce(&self, at: usize) -> Result<(), Failed> {
        let (mut known, address) = self.address();
        let config = Config { request_timeout: REQUEST_TIMEOUT, ..Config::new(address) };
        let mut client = Client::connect(config).map_err(failed)?;
        let topic = client.topic(TOPIC).map_err(failed)?;
        let mut documents = self.corpus.documents.iter().skip(at).step_by(PRODUCERS);
        let mut open = VecDeque::new();
        while !self.stopped.load(Ordering::SeqCst) {
            if self.held.load(Ordering::SeqCst) {
                // What the server said before it was gone still arrives.
                self.take_all(&mut client)?;
                self.wait();
                let (version, address) = self.address();
                if version != known {
                    known = version;
                    client.set_address(address);
                }
            }
            self.submit(&mut client, &topic, &mut open, &mut documents)?;
            if client.in_flight() == 0 && open.is_empty() {
                return self.take(&mut client, Duration::ZERO);
            }
            let busy = client.in_flight() < IN_FLIGHT && !open.is_empty();
            self.take(&mut client, if busy { Duration::ZERO } else { Duration::from_millis(5) })?;
        }
        Ok(())
    }

    fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.held.load(Ordering::SeqCst) && !self.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn submit(
        &self,
        client: &mut Client,
        topic: &Topic,
        open: &mut VecDeque<Open<'a>>,
        documents: &mut impl Iterator<Item = &'a Document>,
    ) -> Result<(), Failed> {
        for _ in 0..SUBMIT_AT_ONCE.min(IN_FLIGHT.saturating_sub(client.in_flight())) {
            if self.held.load(Ordering::SeqCst) {
                break;
            }
            while open.len() < DOCUMENTS_AT_ONCE {
                let Some(document) = documents.next() else { break };
                open.push_back((document, 0));
            }
            let Some((document, line)) = open.pop_front() else { break };
            let lines = self.corpus.lines_of(document);
            let value = value(&document.name, &lines[line]);
            client.submit_produce(topic, document.name.clone().into_bytes(), value).map_err(failed)?;
            if line + 1 < lines.len() {
                open.push_back((document, line + 1));
            }
        }
        client.flush();
        Ok(())
    }

    fn take_all(&self, client: &mut Client) -> Result<(), Failed> {
        let deadline = now() + LAST_WORDS;
        while !until(deadline).is_zero() {
            self.take(client, until(deadline).min(Duration::from_millis(5)))?;
        }
        Ok(())
    }

    /// Takes the results that are there, waiting for the first.
    fn take(&self, client: &mut Client, wait: Duration) -> Result<(), Failed> {
        let mut wait = wait;
        while let Some((_, ended)) = client.take_ended(wait) {
            ended.map_err(failed)?;
            self.acked.fetch_add(1, Ordering::SeqCst);
            wait = Duration::ZERO;
        }
        Ok(())
    }
}
