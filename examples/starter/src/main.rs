//! The server and its command line, with this app linked.

use std::process::ExitCode;

fn main() -> ExitCode {
    gristmill_server::cli().app(starter_app::app()).run()
}
