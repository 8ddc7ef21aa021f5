//! Instructions per durable put and per get, counted by callgrind over a fixed input, and compared with the committed
//! figures of `benches/count.json`.
//!
//! Counted is [`path::counted_step`]: the server's loop with real connections, turns and log, from the bytes of request
//! frames to the bytes of result frames. Not counted: system calls and the ring, the client, background jobs. Everything
//! that differs from run to run is fixed: input, time, ids, the keys of hash tables, the environment. So two runs of one
//! build give the same figures; another compiler, another C library or a processor with other vector instructions may
//! give slightly others.

mod callgrind;
mod client;
mod figures;
mod path;
mod world;

use callgrind::Callgrind;
use clap::Parser;
use client::Op;
use figures::Figures;
use gristmill_benches::{Report, Target, target_folder};
use path::{CONNECTIONS, KEYS, OneCore};
use std::io;
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How far a figure may be from the committed one, either way.
const TOLERANCE: f64 = 0.05;

/// One row: what every connection does.
struct Shape {
    id: &'static str,
    op: Op,
    depth: usize,
    /// Operations that are counted.
    operations: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { id: "put 50x64", op: Op::Put, depth: 64, operations: 25_600 },
    Shape { id: "put 50x1", op: Op::Put, depth: 1, operations: 5_000 },
    Shape { id: "get 50x64", op: Op::Get, depth: 64, operations: 25_600 },
    Shape { id: "get 50x1", op: Op::Get, depth: 1, operations: 5_000 },
];

/// Instructions per operation by callgrind, compared with the committed figures.
#[derive(Parser)]
struct Arguments {
    /// Take what is counted now as the committed figures.
    #[arg(long)]
    update: bool,
    /// Print the functions with the most instructions of their own, so many for each row.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Only this row; nothing is compared or committed then that is not counted.
    #[arg(long, value_name = "ROW")]
    only: Option<String>,
    /// What callgrind runs: one row, in this process.
    #[arg(long, hide = true, value_name = "ROW")]
    inside: Option<String>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.inside {
        Some(id) => inside(id).map(|()| ExitCode::SUCCESS),
        None => count(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bench-count: {error}");
        let lacks = error.kind() == io::ErrorKind::NotFound;
        ExitCode::from(if lacks { 78 } else { 70 })
    })
}

/// One row, with callgrind around it.
fn inside(id: &str) -> io::Result<()> {
    let shape = shape(id)?;
    let root = target_folder().join("count-data");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root)?;
    let mut core = OneCore::new(&root);
    // So that buffers have their size, and connections know how large their clients' results are.
    core.closed_loop(shape.op, shape.depth, shape.operations / 2, false);
    let flushes = core.flushes();
    let steps = core.closed_loop(shape.op, shape.depth, shape.operations, true);
    let per_step = shape.operations as f64 / steps as f64;
    println!("{steps} steps, {per_step:.1} operations a step, {} flushes", core.flushes() - flushes);
    drop(core);
    std::fs::remove_dir_all(&root)
}

fn shape(id: &str) -> io::Result<&'static Shape> {
    SHAPES.iter().find(|shape| shape.id == id).ok_or_else(|| {
        let ids = SHAPES.map(|shape| shape.id).join(", ");
        io::Error::other(format!("there is no row {id:?}; there are: {ids}"))
    })
}

fn count(arguments: &Arguments) -> io::Result<ExitCode> {
    if let Some(id) = &arguments.only {
        shape(id)?;
    }
    let mut figures = Figures::read()?;
    let callgrind = Callgrind::new()?;
    let mut report = Report::new("count");
    report.version("valgrind", callgrind.version());
    println!("{CONNECTIONS} connections, {KEYS} keys, values of 100 B, one core, a log whose device is ready at once");
    let chosen = |shape: &&Shape| arguments.only.as_ref().is_none_or(|id| id == shape.id);
    let mut missing = Vec::new();
    for shape in SHAPES.iter().filter(chosen) {
        let counted = callgrind.run(shape.id)?;
        let value = counted.instructions as f64 / shape.operations as f64;
        let row = report.row(shape.id, "instructions");
        row.round(value).pace(format!("closed loop, {}", counted.said));
        if shape.op == Op::Put {
            row.durability("every ack flushed");
        }
        match figures.get(shape.id) {
            Some(committed) if !arguments.update => drop(row.target(Target::Near(committed, TOLERANCE))),
            None if !arguments.update => missing.push(shape.id),
            _ => figures.set(shape.id, value),
        }
        if let Some(top) = arguments.top {
            println!("\n{}: {value:.0} instructions per operation; of their own, in functions:", shape.id);
            callgrind.print_top(&counted, top, shape.operations)?;
        }
    }
    let _ = report.finish()?;
    if arguments.update {
        println!("committed figures rewritten: {}", figures.write()?);
    }
    for id in &missing {
        eprintln!("bench-count: no committed figure for {id}");
    }
    let missed = report.missed().count();
    if missed + missing.len() == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "bench-count: not within {} % of benches/count.json. Less is good news, more needs a reason. TOP=30 shows where; if \
         it is meant: make bench-count UPDATE=1, and commit the file with its reason",
        TOLERANCE * 100.0
    );
    Ok(ExitCode::FAILURE)
}
