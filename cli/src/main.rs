//! The stock binary: the whole command line with the sample apps and the load generator linked.

use clap::{ArgMatches, FromArgMatches, Subcommand};
use gristmill_loadgen::cli::{Command as Loadgen, execute};
use gristmill_server::allocator::Allocated;
use std::process::ExitCode;
use tikv_jemalloc_ctl::{epoch, stats};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let about = "Make load on a running server and measure it; needs the app of loadgen/app, which it loads";
    let loadgen = Loadgen::augment_subcommands(clap::Command::new("loadgen").about(about));
    gristmill_server::cli()
        .allocator(ask_allocator)
        .app(batch_and_stream::app())
        .app(fund_transfer::app())
        .app(orders::app())
        .app(rate_limiter::app())
        .app(user_flows::app())
        .app(word_count::app())
        .app(gristmill_loadgen_app::app())
        .command(loadgen.subcommand_required(true), run_loadgen)
        .run()
}

fn run_loadgen(matches: &ArgMatches) -> ExitCode {
    match Loadgen::from_arg_matches(matches) {
        Ok(command) => execute(&command),
        Err(error) => error.exit(),
    }
}

/// Its numbers are as old as the last call of `advance`.
fn ask_allocator() -> Option<Allocated> {
    epoch::advance().ok()?;
    let bytes = |found: tikv_jemalloc_ctl::Result<usize>| Some(found.ok()? as u64);
    Some(Allocated {
        allocated: bytes(stats::allocated::read())?,
        active: bytes(stats::active::read())?,
        metadata: bytes(stats::metadata::read())?,
        resident: bytes(stats::resident::read())?,
    })
}
