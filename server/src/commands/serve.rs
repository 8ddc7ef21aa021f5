//! `gristmill serve`: run a server.

use crate::config::{Flags, Loaded};
use crate::exit::Failed;
use crate::messages;
use crate::serve::serve;
use gristmill_sdk::App;
use std::path::PathBuf;

/// Arguments of `serve`. What is not given comes from the environment, then from the configuration file, then from the
/// defaults.
#[derive(clap::Args)]
pub struct Arguments {
    /// The data directory; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the server.
///
/// # Errors
/// It does not start, or did not stop as it should.
pub(super) fn run(arguments: &Arguments, apps: Vec<App>) -> Result<(), Failed> {
    let loaded = Loaded::of_this_process(&arguments.flags)?;
    messages::start(&loaded.config.server);
    let ended = serve(&arguments.data, &loaded.config, apps).map_err(|failed| {
        if !failed.message.is_empty() {
            tracing::error!(target: messages::target!(), status = failed.exit as u8, "{failed}");
        }
        failed.told()
    });
    messages::finish();
    ended
}
