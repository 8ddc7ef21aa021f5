//! How the commands that talk to a server find it, and what its refusals mean for the exit status.

use crate::exit::{Exit, Failed};
use crate::serve::Endpoints;
use gristmill_base::class::InputClass;
use gristmill_client::wire::Status;
use gristmill_client::{Client, Config, Error, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

/// Where a server listens when nothing else is said.
const ADDRESS_DEFAULT: &str = "127.0.0.1:7400";
/// A run of a bounded input watches itself whether it goes on; no single operation of it runs out of time before.
const BULK_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Which server a command talks to.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Server {
    /// Address of the server's main port; 127.0.0.1:7400 if neither this nor --data is given.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "data", global = true)]
    addr: Option<String>,
    /// Data directory of a server that runs on this machine; its endpoints.json says where it listens.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// How long one request may take, attempts after lost connections included: seconds, or such as 500ms, 60s or 10m;
    /// 30 seconds if it is not given.
    #[arg(long, value_name = "TIME", value_parser = seconds, global = true)]
    timeout: Option<f64>,
}

/// Longest time that can be said, seconds: a day.
const TIME_SECONDS_MAX: f64 = 86_400.0;

/// Seconds, from a number or one with a unit, as long as a request may take.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let found = time(text)?;
    if (0.001..=TIME_SECONDS_MAX).contains(&found) {
        Ok(found)
    } else {
        Err("allowed is 0.001 to 86400 seconds".to_owned())
    }
}

/// Seconds, from a number or one with a unit.
pub(super) fn time(text: &str) -> Result<f64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = match &text[end..] {
        "us" => 0.000_001,
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        other => return Err(format!("{other:?} is no unit; there are us, ms, s, m and h")),
    };
    let number: f64 = text[..end].parse().map_err(|_| format!("{text:?} is no number"))?;
    let seconds = number * unit;
    if seconds > TIME_SECONDS_MAX {
        return Err(format!("{text:?} is too long, allowed is up to {}h", TIME_SECONDS_MAX / 3_600.0));
    }
    Ok(seconds)
}

impl Server {
    /// The one that runs on a data directory.
    pub(super) fn of_directory(dir: &std::path::Path) -> Self {
        Self { addr: None, data: Some(dir.to_owned()), timeout: None }
    }

    /// A client of that server.
    ///
    /// # Errors
    /// Nobody answers there.
    pub(super) fn connect(&self) -> Result<Client, Failed> {
        self.connect_as(self.timeout(), InputClass::Live)
    }

    /// A client of that server whose operations are bulk, and wait as long as it takes.
    ///
    /// # Errors
    /// Nobody answers there.
    pub(super) fn connect_bulk(&self) -> Result<Client, Failed> {
        self.connect_as(BULK_TIMEOUT, InputClass::Bulk)
    }

    /// How long one request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout_or(Duration::from_secs(30))
    }

    /// What was said, or this.
    pub(super) fn timeout_or(&self, otherwise: Duration) -> Duration {
        self.timeout.map_or(otherwise, Duration::from_secs_f64)
    }

    /// Where the server is now, if a file says so.
    pub(super) fn whereabouts(&self) -> Option<String> {
        self.data.as_ref().and_then(|_| self.address().ok())
    }

    fn connect_as(&self, request_timeout: Duration, class: InputClass) -> Result<Client, Failed> {
        let timeout = self.timeout();
        let address = self.address()?;
        let connect_timeout = timeout.min(Duration::from_secs(5));
        let config = Config { request_timeout, connect_timeout, class, ..Config::new(address) };
        Client::connect(config).map_err(|error| {
            let told = failed(error);
            match told.exit {
                Exit::Unreachable => {
                    Failed { message: format!("the server cannot be reached: {told}{}", self.next_step()), ..told }
                }
                _ => told,
            }
        })
    }

    /// What a person can do where no server answers.
    fn next_step(&self) -> String {
        match (&self.data, &self.addr) {
            (Some(data), _) => format!("\n  start one with: gristmill serve --data {}", data.display()),
            (None, Some(_)) => {
                "\n  is that its address? a server's endpoints.json has it: --data DIR finds it; start one with: \
                                gristmill serve --data DIR"
                    .to_owned()
            }
            (None, None) => {
                "\n  start one with: gristmill serve --data DIR; or say where it is: --addr HOST:PORT, or --data \
                             DIR of a server on this machine"
                    .to_owned()
            }
        }
    }

    fn address(&self) -> Result<String, Failed> {
        let Some(data) = &self.data else {
            return Ok(self.addr.clone().unwrap_or_else(|| ADDRESS_DEFAULT.to_owned()));
        };
        let endpoints = Endpoints::read(data).map_err(|error| {
            let message = format!("no server runs over {}: its endpoints.json: {error}", data.display());
            Failed::new(Exit::Unreachable, message + &self.next_step())
        })?;
        Ok(std::net::SocketAddr::new(endpoints.host, endpoints.port).to_string())
    }
}

/// What a failed request means for the command, and what to do about it where that is not said already.
pub(crate) fn failed(error: Error) -> Failed {
    Failed::new(exit_of(&error), format!("{error}{}", next_step(&error)))
}

fn next_step(error: &Error) -> &'static str {
    match error.kind {
        ErrorKind::TimedOut => "\n  give it more time with --timeout SECONDS; gristmill status shows how the server is",
        ErrorKind::Unknown => "\n  it may have been done or not: read before you repeat it",
        ErrorKind::Refused(Status::Parked) => {
            "\n  gristmill parked show APP/TABLE KEY says why; gristmill parked retry lets it run again; other keys are not affected"
        }
        ErrorKind::Refused(Status::Capacity) => {
            "\n  gristmill status shows what is full; the same command may succeed later"
        }
        ErrorKind::Refused(Status::NotReady) => "\n  the server is starting or stopping: try again",
        _ => "",
    }
}

fn exit_of(error: &Error) -> Exit {
    match error.kind {
        ErrorKind::Invalid => Exit::Usage,
        ErrorKind::Unreachable => Exit::Unreachable,
        ErrorKind::TimedOut | ErrorKind::Unknown => Exit::TimeOut,
        ErrorKind::Protocol => Exit::Internal,
        ErrorKind::Refused(status) => match status {
            Status::NotFound | Status::UnknownName | Status::HandlerFailed | Status::Damaged | Status::Gone => Exit::No,
            Status::BadRequest | Status::WrongType | Status::TooLarge => Exit::Usage,
            Status::Parked => Exit::Parked,
            Status::Capacity | Status::NotReady => Exit::TimeOut,
            Status::UnsupportedVersion | Status::Unauthenticated => Exit::Configuration,
            _ => Exit::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_an_end() {
        assert_eq!(["90", "1.5m", "2h", "250ms", "0.5s"].map(time), [90.0, 90.0, 7_200.0, 0.25, 0.5].map(Ok));
        assert_eq!(
            time("99999999999999999999h").unwrap_err(),
            "\"99999999999999999999h\" is too long, allowed is up to 24h"
        );
        assert!(time(&"9".repeat(400)).is_err() && time("25h").is_err() && time("h").is_err() && time("1d").is_err());
    }

    #[test]
    fn each_refusal_has_its_exit_status() {
        let exit = |kind| exit_of(&Error { kind, message: String::new() });
        assert_eq!(exit(ErrorKind::Refused(Status::NotFound)), Exit::No);
        assert_eq!(exit(ErrorKind::Refused(Status::WrongType)), Exit::Usage);
        assert_eq!(exit(ErrorKind::Refused(Status::Parked)), Exit::Parked);
        assert_eq!(exit(ErrorKind::Refused(Status::Internal)), Exit::Internal);
        assert_eq!(exit(ErrorKind::TimedOut), Exit::TimeOut);
        assert_eq!(exit(ErrorKind::Unreachable), Exit::Unreachable);
    }

    #[test]
    fn a_data_directory_without_a_server_is_unreachable() {
        let server = Server { addr: None, data: Some(PathBuf::from("/nonexistent")), timeout: Some(1.0) };
        let failed = server.address().unwrap_err();
        assert_eq!(failed.exit, Exit::Unreachable);
        assert!(failed.message.contains("/nonexistent"));
    }
}
