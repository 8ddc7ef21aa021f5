//! The bounded input: lines of class bulk, as fast as the server takes them, until all are counted.

use anyhow::{Context as _, ensure};
use gristmill_base::class::InputClass;
use gristmill_benches::Numbers;
use gristmill_client::clock::now;
use gristmill_client::{Client, Config, OwnedOperation, OwnedReply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Documents of the input.
const DOCUMENTS: u64 = 1_000;
/// How long counting may go on after the last line was appended.
const SETTLE: Duration = Duration::from_secs(300);
const WORDS: [&str; 16] = [
    "grain", "mill", "stone", "river", "wheel", "flour", "bread", "miller", "sack", "cart", "horse", "road", "market",
    "oven", "dough", "wheat",
];

/// A load under way.
pub(crate) struct Bulk {
    thread: JoinHandle<anyhow::Result<Loaded>>,
    over: Arc<AtomicBool>,
}

/// What came of it.
pub(crate) struct Loaded {
    pub(crate) lines: u64,
    /// Lines in a second, until the last one was counted.
    pub(crate) rate: f64,
}

impl Bulk {
    /// Begins to load `lines` lines, or as many as so much time lets in.
    pub(crate) fn start(address: &str, lines: u64, time: Duration) -> Self {
        let (address, over) = (address.to_owned(), Arc::new(AtomicBool::new(false)));
        let done = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let loaded = load(&address, lines, time);
            done.store(true, Ordering::Release);
            loaded
        });
        Self { thread, over }
    }

    /// Whether everything is counted.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits for the end.
    pub(crate) fn end(self) -> anyhow::Result<Loaded> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that loads has panicked"))?
    }
}

fn load(address: &str, lines: u64, time: Duration) -> anyhow::Result<Loaded> {
    let mut config = Config::new(address);
    config.class = InputClass::Bulk;
    let mut client = Client::connect(config)?;
    let topic = client.topic("word-count/lines")?;
    let (start, mut numbers, mut sent) = (now(), Numbers(7), 0);
    while sent < lines && (sent % 64 != 0 || now() < start + time) {
        let document = format!("bulk-{}", numbers.draw() % DOCUMENTS);
        let mut value = format!("{{\"doc\":\"{document}\",\"text\":\"");
        let mut draw = numbers.draw();
        for _ in 0..10 {
            value.push_str(WORDS[(draw % 16) as usize]);
            value.push(' ');
            draw /= 16;
        }
        value.push_str("\"}");
        client.submit_produce(&topic, document.into_bytes(), value.into_bytes())?;
        sent += 1;
        if sent % 512 == 0 {
            while let Some((_, ending)) = client.take_ended(Duration::ZERO) {
                ending.context("a bulk line failed")?;
            }
        }
    }
    while client.in_flight() > 0 {
        if let Some((_, ending)) = client.take_ended(Duration::from_secs(1)) {
            ending.context("a bulk line failed")?;
        }
    }
    settle(address)?;
    Ok(Loaded { lines: sent, rate: sent as f64 / (now() - start).as_secs_f64() })
}

fn settle(address: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(Config::new(address))?;
    let operation = OwnedOperation::AppSettle { app: "word-count".to_owned(), wait_millis: SETTLE.as_millis() as u32 };
    let reply = client.call(operation)?;
    let OwnedReply::Json(text) = &reply else { anyhow::bail!("settle was answered {reply:?}") };
    let json: serde_json::Value = serde_json::from_str(text)?;
    ensure!(json["settled"] == true, "the app did not settle within {} s: {text}", SETTLE.as_secs());
    Ok(())
}
