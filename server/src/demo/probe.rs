//! Live latency: lines at a steady pace, each with a word of its own, from the time each was due until the word's count
//! can be read, two hops later.

use super::corpus::{Corpus, write_lines};
use super::loading::{TOPIC, value};
use crate::commands::failed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::encode_u64;
use gristmill_client::clock::{now, until};
use gristmill_client::wire::Status;
use gristmill_client::{Client, Config, OwnedOperation, OwnedReply};
use hdrhistogram::Histogram;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Lines per second.
pub(super) const RATE: u64 = 1_000;
/// Documents that the lines belong to, in turn.
const DOCUMENTS: u64 = 64;
/// Letters that stand nowhere in the text.
const MARK: &str = "qxzj";
/// Between two rounds of reading, so that the reading does not take the cores from what it measures.
const ROUND_EVERY: Duration = Duration::from_micros(200);
/// Longest latency that is told apart, microseconds.
const LATENCY_MAX_MICROS: u64 = 60_000_000;
/// A line whose word cannot be read by then is lost.
const LOST: Duration = Duration::from_secs(30);

/// The lines to probe with.
pub(super) struct Probes {
    /// One word each.
    words: Vec<String>,
}

/// A line that was appended, and when it was due.
type Due = (usize, Instant);

impl Probes {
    /// Probes for so many seconds.
    ///
    /// # Errors
    /// The text has words that look like them.
    pub(super) fn new(corpus: &Corpus, seconds: u64) -> Result<Self, Failed> {
        if corpus.contains(MARK) {
            let message = format!("the text contains {MARK:?}, which marks the demo's own words");
            return Err(Failed::new(Exit::Configuration, message));
        }
        Ok(Self { words: (0..seconds * RATE).map(word).collect() })
    }

    /// How many lines they are.
    pub(super) fn lines(&self) -> u64 {
        self.words.len() as u64
    }

    fn document(at: usize) -> String {
        format!("probe-{:02}", at as u64 % DOCUMENTS)
    }

    /// Writes the lines to files, one per document.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for first in 0..(DOCUMENTS as usize).min(self.words.len()) {
            let lines = self.words.iter().skip(first).step_by(DOCUMENTS as usize);
            write_lines(&folder.join(Self::document(first)), lines.map(String::as_str))?;
        }
        Ok(())
    }

    /// Appends them at their pace and watches the words appear. Latencies are in microseconds.
    ///
    /// # Errors
    /// A line is not acknowledged, or its word does not appear.
    pub(super) fn run(&self, address: &str) -> Result<Histogram<u64>, Failed> {
        let mut reader = Reader::new(self, address)?;
        let (tell, hear) = channel();
        std::thread::scope(|scope| {
            let appending = scope.spawn(move || self.append(address, &tell));
            let read = reader.run(&hear);
            let appended = appending.join().expect("the appending thread does not panic");
            appended.and(read)
        })?;
        Ok(reader.latencies)
    }

    fn append(&self, address: &str, tell: &Sender<Due>) -> Result<(), Failed> {
        let mut client = Client::connect(Config::new(address)).map_err(failed)?;
        let topic = client.topic(TOPIC).map_err(failed)?;
        let started = now() + Duration::from_millis(100);
        for (at, word) in self.words.iter().enumerate() {
            let due = started + Duration::from_nanos(1_000_000_000 / RATE * at as u64);
            std::thread::sleep(until(due));
            let document = Self::document(at);
            let value = value(&document, word);
            client.submit_produce(&topic, document.into_bytes(), value).map_err(failed)?;
            client.flush();
            // The reader has ended only if something went wrong there, which it tells itself.
            let _ = tell.send((at, due));
            while let Some((_, ended)) = client.take_ended(Duration::ZERO) {
                ended.map_err(failed)?;
            }
        }
        while client.in_flight() > 0 {
            if let Some((_, ended)) = client.take_ended(Duration::from_millis(50)) {
                ended.map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// The word of a probe: its number in letters, from first letters all over the alphabet.
fn word(at: u64) -> String {
    let mut letters = String::new();
    letters.push(char::from(b'a' + (at % 26) as u8));
    letters.push_str(MARK);
    let mut left = at;
    for _ in 0..6 {
        letters.push(char::from(b'a' + (left % 26) as u8));
        left /= 26;
    }
    letters
}

/// Asks for the words that have not appeared, all of them in one frame per shard.
struct Reader<'a> {
    probes: &'a Probes,
    client: Client,
    outstanding: Vec<Due>,
    latencies: Histogram<u64>,
}

impl<'a> Reader<'a> {
    fn new(probes: &'a Probes, address: &str) -> Result<Self, Failed> {
        let client = Client::connect(Config::new(address)).map_err(failed)?;
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, 3)
            .map_err(|error| Failed::new(Exit::Internal, format!("no histogram: {error}")))?;
        Ok(Self { probes, client, outstanding: Vec::new(), latencies })
    }

    fn run(&mut self, hear: &Receiver<Due>) -> Result<(), Failed> {
        let table = self.client.table("word-count/words").map_err(failed)?;
        let map = table.map("counts").map_err(failed)?.id;
        let mut over = false;
        while !over || !self.outstanding.is_empty() {
            over |= self.hear(hear);
            let mut asked = Vec::new();
            for (at, due) in std::mem::take(&mut self.outstanding) {
                let entry_key = self.probes.words[at].clone().into_bytes();
                let key = entry_key[..1].to_vec();
                let get = OwnedOperation::MapGet { table: table.id, map, key, entry_key };
                asked.push(((at, due), self.client.submit(get).map_err(failed)?));
            }
            self.client.flush();
            for (probe, ticket) in asked {
                let answer = self.client.wait(ticket);
                self.take(probe, answer)?;
            }
            std::thread::sleep(ROUND_EVERY);
        }
        Ok(())
    }

    /// Takes the lines that were appended. Whether there will be no more.
    fn hear(&mut self, hear: &Receiver<Due>) -> bool {
        let patience = if self.outstanding.is_empty() { Duration::from_millis(50) } else { Duration::ZERO };
        match hear.recv_timeout(patience) {
            Ok(due) => self.outstanding.push(due),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        }
        self.outstanding.extend(hear.try_iter());
        false
    }

    fn take(&mut self, probe: Due, answer: Result<OwnedReply, gristmill_client::Error>) -> Result<(), Failed> {
        let (at, due) = probe;
        match answer {
            Ok(OwnedReply::Value(count)) if count == encode_u64(1) => {
                let micros = u64::try_from((now() - due).as_micros()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(micros);
                Ok(())
            }
            Ok(other) => {
                let message = format!("the word {} was appended once, and read is {other:?}", self.probes.words[at]);
                Err(Failed::new(Exit::No, message))
            }
            Err(error) if error.status() == Some(Status::NotFound) => {
                if now() - due > LOST {
                    let message =
                        format!("the word {} cannot be read after {} s", self.probes.words[at], LOST.as_secs());
                    return Err(Failed::new(Exit::No, message));
                }
                self.outstanding.push(probe);
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_all_different_and_of_letters_only() {
        let words: std::collections::BTreeSet<String> = (0..20_000).map(word).collect();
        assert_eq!(words.len(), 20_000);
        assert!(words.iter().all(|word| word.len() == 11 && word.bytes().all(|byte| byte.is_ascii_lowercase())));
    }
}
