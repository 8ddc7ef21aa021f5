//! Other stores for `make bench-store`: `gristmill-store-rivals STORE FOLDER KEYS` opens an empty store in the folder, says
//! its name and version in a line, and then answers every line of its input with a line:
//!
//! - `load`: sets every key; answers with the keys a second.
//! - `puts CALLERS SECONDS`: so many threads set keys chosen evenly at random, each put synced before it returns; answers
//!   with puts a second.
//! - `gets THREADS SECONDS`: the same with reads, which are checked.
//!
//! It ends with its input.

mod fjall_store;
mod rocksdb_store;

use anyhow::{Context, bail, ensure};
use gristmill_benches::{Numbers, VALUE_BYTES, fill_value, is_value_of, key};
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A store under measurement.
trait Store: Sync {
    /// Sets a key; on the disk when it returns.
    fn put_durably(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()>;

    /// Sets a key, on the disk some time.
    fn put(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()>;

    /// Whether the key has a value, and `check` likes it.
    fn get(&self, key: &[u8], check: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<bool>;

    /// Makes everything durable, and memory as it is after a while.
    fn rest(&self) -> anyhow::Result<()>;
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, folder, keys] = arguments.as_slice() else { bail!("usage: STORE FOLDER KEYS") };
    let keys: u64 = keys.parse().context("the number of keys")?;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    match store.as_str() {
        "rocksdb" => serve(&rocksdb_store::Rocks::open(Path::new(folder))?, &rocksdb_store::name(), keys),
        "fjall" => serve(&fjall_store::Fjall::open(Path::new(folder))?, &fjall_store::name(), keys),
        other => bail!("{other} is no store; rocksdb and fjall are"),
    }
}

fn serve(store: &impl Store, name: &str, keys: u64) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{name}")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let rate = match words.as_slice() {
            ["load"] => load(store, keys)?,
            [what @ ("puts" | "gets"), threads, seconds] => {
                let until = Duration::from_secs_f64(seconds.parse()?);
                run(store, keys, *what == "puts", threads.parse()?, until)?
            }
            _ => bail!("{line:?} is no order"),
        };
        writeln!(out, "{rate}")?;
        out.flush()?;
    }
    Ok(())
}

fn load(store: &impl Store, keys: u64) -> anyhow::Result<f64> {
    let (begun, mut numbers, mut value) = (Instant::now(), Numbers(1), [0; VALUE_BYTES]);
    for number in 0..keys {
        fill_value(&mut value, number, &mut numbers);
        store.put(&key(number), &value)?;
    }
    store.rest()?;
    Ok(keys as f64 / begun.elapsed().as_secs_f64())
}

fn run(store: &impl Store, keys: u64, puts: bool, threads: u64, time: Duration) -> anyhow::Result<f64> {
    let (stop, total) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let one = |seed: u64| -> anyhow::Result<()> {
        let (mut numbers, mut value, mut done) = (Numbers(seed), [0; VALUE_BYTES], 0);
        while !stop.load(Ordering::Relaxed) {
            let number = numbers.draw() % keys;
            if puts {
                fill_value(&mut value, number, &mut numbers);
                store.put_durably(&key(number), &value)?;
            } else {
                let good = store.get(&key(number), &mut |value| is_value_of(value, number))?;
                ensure!(good, "key {number} is not there or has the value of another one");
            }
            done += 1;
        }
        total.fetch_add(done, Ordering::Relaxed);
        Ok(())
    };
    let seconds = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|seed| scope.spawn(move || one(seed + 1))).collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a caller has panicked"))??;
        }
        anyhow::Ok(seconds)
    })?;
    Ok(total.load(Ordering::Relaxed) as f64 / seconds)
}
