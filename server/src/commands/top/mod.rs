//! `gristmill top`: a live view of a server in the terminal.

mod frame;
mod sample;
mod screen;
mod text;

use super::connect::{Server, failed};
use super::output::Printer;
use crate::exit::{Exit, Failed};
use frame::Frame;
use gristmill_base::env::Clock;
use gristmill_client::Client;
use gristmill_io::clock::SystemClock;
use sample::Sample;
use std::io::IsTerminal;
use std::time::Duration;

/// Arguments of `top`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Seconds between two looks at the server; rates are over this time.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Print one frame as plain text and end.
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let found: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.1..=3_600.0).contains(&found) { Ok(found) } else { Err("allowed is 0.1 to 3600".to_owned()) }
}

/// Shows the server until somebody has seen enough.
///
/// # Errors
/// The server does not answer at the start; there is no terminal.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut watch = Watch::begin(arguments)?;
    if arguments.once {
        std::thread::sleep(watch.interval);
        let frame = watch.look()?;
        let mut printer = Printer::new();
        text::print(&frame, &mut printer)?;
        return printer.flush();
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let message =
            "top needs a terminal; --once prints one frame anywhere, `gristmill status --output json` all numbers";
        return Err(Failed::new(Exit::Usage, message));
    }
    screen::run(watch)
}

/// A server that is looked at again and again.
struct Watch {
    server: Server,
    client: Option<Client>,
    last: Sample,
    interval: Duration,
}

impl Watch {
    /// The first look.
    fn begin(arguments: &Arguments) -> Result<Self, Failed> {
        let mut client = arguments.server.connect()?;
        let last = sample(&mut client)?;
        let interval = Duration::from_secs_f64(arguments.interval);
        Ok(Self { server: arguments.server.clone(), client: Some(client), last, interval })
    }

    /// What has happened since the last look. After a failure the next look connects again.
    fn look(&mut self) -> Result<Frame, Failed> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.server.connect()?,
        };
        let sample = sample(&mut client)?;
        let frame = Frame::between(&self.last, &sample);
        self.last = sample;
        self.client = Some(client);
        Ok(frame)
    }
}

fn sample(client: &mut Client) -> Result<Sample, Failed> {
    let text = client.status().map_err(failed)?;
    Sample::new(&text, SystemClock.now().monotonic_nanos)
}
