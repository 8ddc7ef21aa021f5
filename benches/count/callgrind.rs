//! Callgrind: running this very program below it, and reading what it counted.

use gristmill_benches::target_folder;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The function whose instructions are counted, and those of everything that it calls.
const COUNTED: &str = "*counted_step*";
/// In place of the kernel's random numbers and clock, so that two runs are alike.
const FIXED: &str = include_str!("fixed.c");

/// See the module.
pub(crate) struct Callgrind {
    version: String,
    folder: PathBuf,
    /// The library that fixes what differs from run to run.
    fixed: PathBuf,
}

/// What one row counted.
pub(crate) struct Counted {
    pub(crate) instructions: u64,
    /// What the row said of itself.
    pub(crate) said: String,
    file: PathBuf,
}

impl Callgrind {
    /// Looks whether callgrind is there and makes ready for its runs.
    pub(crate) fn new() -> io::Result<Self> {
        let version = output(Command::new("valgrind").arg("--version")).map_err(|error| {
            let hint = "valgrind does not run; on Debian: sudo apt-get install -y valgrind";
            io::Error::new(error.kind(), format!("{hint} ({error})"))
        })?;
        let folder = target_folder();
        std::fs::create_dir_all(&folder)?;
        let (source, fixed) = (folder.join("fixed.c"), folder.join("fixed.so"));
        std::fs::write(&source, FIXED)?;
        output(Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&fixed).arg(&source))?;
        Ok(Self { version: text(&version), folder, fixed })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Runs the row `id`.
    pub(crate) fn run(&self, id: &str) -> io::Result<Counted> {
        let file = self.folder.join(format!("callgrind.{}", id.replace(' ', "-")));
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet", "--collect-atstart=no", "--dump-instr=no"])
            .arg(format!("--toggle-collect={COUNTED}"))
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(std::env::current_exe()?)
            .args(["--inside", id])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LD_PRELOAD", &self.fixed)
            .envs(std::env::var_os("CARGO_TARGET_DIR").map(|folder| ("CARGO_TARGET_DIR", folder)));
        let said = text(&output(&mut command)?);
        let instructions = total_of(&std::fs::read_to_string(&file)?)
            .ok_or_else(|| io::Error::other(format!("{} has no total", file.display())))?;
        if instructions == 0 {
            return Err(io::Error::other(format!("nothing was counted: no function is called {COUNTED}")));
        }
        Ok(Counted { instructions, said, file })
    }

    /// Prints the `top` functions with the most instructions of their own, per operation.
    pub(crate) fn print_top(&self, counted: &Counted, top: usize, operations: usize) -> io::Result<()> {
        let annotated =
            output(Command::new("callgrind_annotate").arg("--auto=no").arg("--threshold=100").arg(&counted.file))?;
        for (instructions, function) in functions(&text(&annotated)).into_iter().take(top) {
            let share = 100.0 * instructions as f64 / counted.instructions as f64;
            println!("{:>9.1}  {share:>5.1} %  {function}", instructions as f64 / operations as f64);
        }
        Ok(())
    }
}

/// The total of a file of callgrind.
fn total_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    line?.split_whitespace().next()?.parse().ok()
}

/// Lines `1,234 ( 5.6%)  file:function [object]` of callgrind_annotate, summed by function, most first. A function has a
/// line for each file that it has code from.
fn functions(annotated: &str) -> Vec<(u64, String)> {
    let mut sums = BTreeMap::new();
    let lines = annotated.lines();
    let counted = lines.filter_map(|line| {
        let (count, rest) = line.trim_start().split_once(' ')?;
        let count: u64 = count.replace(',', "").parse().ok()?;
        let (_, function) = rest.split_once(')')?;
        let function = function.trim();
        if function.starts_with("PROGRAM TOTALS") {
            return None;
        }
        let function = function.rsplit_once(" [").map_or(function, |(function, _)| function);
        Some((count, without_file(function)))
    });
    for (count, function) in counted {
        *sums.entry(function.to_owned()).or_insert(0) += count;
    }
    let mut sums: Vec<(u64, String)> = sums.into_iter().map(|(function, count)| (count, function)).collect();
    sums.sort_unstable_by(|a, b| b.cmp(a));
    sums
}

/// `path/of/file.rs:name` without the file. Names have `::` in them, files do not.
fn without_file(function: &str) -> &str {
    match function.find(':') {
        Some(at) if !function[at..].starts_with("::") => &function[at + 1..],
        _ => function,
    }
}

fn output(command: &mut Command) -> io::Result<Output> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.output().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} ended with {}: {}", output.status, message.trim())))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
