//! The stock binary: the whole command line with the sample apps linked.

use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    gristmill_server::cli().app(word_count::app()).app(gristmill_loadgen_app::app()).run()
}
