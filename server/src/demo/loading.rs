//! Loads all lines as a bounded input, as `gristmill ingest` does, beside what the demo does meanwhile: the server may be
//! killed and come back at another address.

use super::progress::Progress;
use crate::commands::failed;
use crate::exit::{Exit, Failed};
use crate::ingest::{Load, OnError, RowFormat, Settings};
use gristmill_base::class::InputClass;
use gristmill_client::{Client, Config};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Topic of the lines.
pub(super) const TOPIC: &str = "word-count/lines";
/// How long the server may be away, and how long a request may take, restarts included.
const PATIENCE: Duration = Duration::from_secs(120);
/// Acknowledgements that a killed server sent before its end arrive within this time.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The value of an event.
#[derive(serde::Serialize)]
struct Line<'a> {
    doc: &'a str,
    text: &'a str,
}

/// The value of the event of a line.
pub(super) fn value(doc: &str, text: &str) -> Vec<u8> {
    serde_json::to_vec(&Line { doc, text }).expect("two texts are an object")
}

/// A load under way.
pub(super) struct Loading {
    lines: u64,
    /// Where the server is; `None` while it is down.
    address: Mutex<Option<String>>,
    acked: AtomicU64,
    /// The load has ended, well or not.
    over: AtomicBool,
    /// The load is to give up.
    stopped: AtomicBool,
}

impl Loading {
    /// Loads a file of so many lines, under the name of an input, into the server at `address`; meanwhile runs `beside`,
    /// which may kill the server. Gives what the load said where it refused to go on: then something is wrong with what
    /// the server has, which a comparison shows.
    ///
    /// # Errors
    /// The server is gone, or what `beside` says.
    pub(super) fn run(
        (file, name): (&Path, &str),
        lines: u64,
        address: &str,
        beside: impl FnOnce(&Self) -> Result<(), Failed>,
    ) -> Result<Option<Failed>, Failed> {
        let loading = Self {
            lines,
            address: Mutex::new(Some(address.to_owned())),
            acked: AtomicU64::new(0),
            over: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        };
        let path = file.to_str().ok_or_else(|| {
            Failed::new(Exit::Usage, format!("the path {} is not UTF-8; name another with --data", file.display()))
        })?;
        std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let loaded = loading.load(path, name, address);
                loading.over.store(true, Ordering::SeqCst);
                loaded
            });
            let beside = beside(&loading);
            loading.stopped.store(beside.is_err(), Ordering::SeqCst);
            let loaded = load.join().expect("the loading thread does not panic");
            beside?;
            match loaded {
                Ok(()) => Ok(None),
                Err(refusal) if refusal.exit == Exit::No => Ok(Some(refusal)),
                Err(failed) => Err(failed),
            }
        })
    }

    fn load(&self, path: &str, name: &str, address: &str) -> Result<(), Failed> {
        let config = Config { request_timeout: PATIENCE, class: InputClass::Bulk, ..Config::new(address) };
        let mut client = Client::connect(config).map_err(failed)?;
        let settings = Settings {
            topic: TOPIC.to_owned(),
            name: name.to_owned(),
            format: RowFormat::Jsonl,
            key: Some("doc".to_owned()),
            fields: None,
            on_error: OnError::Stop,
            reject: None,
            paths: vec![path.to_owned()],
            quiet: true,
            patience: PATIENCE,
        };
        let whereabouts = || self.address.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let heard = |acked| {
            self.acked.store(acked, Ordering::SeqCst);
            if self.stopped.load(Ordering::SeqCst) {
                return Err(Failed::new(Exit::Internal, "the demo has ended"));
            }
            Ok(())
        };
        Load::run(&mut client, &settings, &whereabouts, &heard).map(drop)
    }

    /// Waits until all lines are acknowledged or the load has ended, and shows how far it is.
    pub(super) fn finish(&self, progress: &mut Progress) {
        while self.wait_for(self.lines, progress) {}
        while !self.is_over() {
            std::thread::sleep(Duration::from_millis(1));
        }
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

    /// Lines known to be acknowledged by now.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    /// Whether the load has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Takes note that the server was killed, and returns when what it told before is taken in.
    pub(super) fn killed(&self) {
        self.set_address(None);
        std::thread::sleep(LAST_WORDS);
    }

    /// Says where the server is now.
    pub(super) fn go_on(&self, address: &str) {
        self.set_address(Some(address.to_owned()));
    }

    fn set_address(&self, address: Option<String>) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}
