//! `gristmill serve`: run a server.

use crate::config::Config;
use crate::exit::Failed;
use crate::serve::serve;
use gristmill_sdk::App;
use std::net::IpAddr;
use std::path::PathBuf;

/// Arguments of `serve`. What is not given comes from the environment, then from the configuration file, then from the
/// defaults.
#[derive(clap::Args)]
pub struct Arguments {
    /// The data directory; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// CPUs to use, one shard on each, such as 0-3,8. All that the process may use if not given.
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Number of shards; one per CPU if not given.
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Main port; shard n also listens on this plus 1 + n. 0 takes free ports.
    #[arg(long, value_name = "PORT")]
    port_base: Option<u16>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Listen on an address that others can reach, without encryption and without authentication.
    #[arg(long)]
    insecure_listen: bool,
}

/// Runs the server.
///
/// # Errors
/// It does not start, or did not stop as it should.
pub(super) fn run(arguments: Arguments, apps: Vec<App>) -> Result<(), Failed> {
    Config::check_environment(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()))?;
    let mut config = Config::load(arguments.config.as_deref(), &|name| std::env::var(name).ok())?;
    if arguments.cores.is_some() {
        config.shards.cores = arguments.cores;
    }
    if arguments.shards.is_some() {
        config.shards.count = arguments.shards;
    }
    config.listen.port_base = arguments.port_base.unwrap_or(config.listen.port_base);
    config.listen.host = arguments.host.unwrap_or(config.listen.host);
    config.listen.insecure |= arguments.insecure_listen;
    serve(&arguments.data, &config, apps)
}
