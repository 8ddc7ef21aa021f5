//! The second appending: SIGKILL at random points, and on it goes.

use super::loading::Loading;
use super::process::Server;
use super::progress::Progress;
use super::watch;
use crate::commands::{failed, grouped};
use crate::exit::{Exit, Failed};
use gristmill_base::env::Rng;
use gristmill_client::{Client, Config};
use gristmill_io::random::SystemRng;

/// Parts of the lines, in thousandths, within which each kill falls at random.
const PARTS: [(u64, u64); 3] = [(200, 400), (400, 600), (600, 800)];

/// What the kills need to know.
pub(super) struct HardKills<'a> {
    /// The server.
    pub(super) server: &'a Server,
    /// Lines of this appending.
    pub(super) lines: u64,
}

impl HardKills<'_> {
    /// Kills three times and waits for the end of the appending. Gives the address of the last server, and how many
    /// acknowledged lines the kills found not yet applied. If the load refuses to go on, there are no more kills: it
    /// tells why itself.
    ///
    /// # Errors
    /// The appending was over before a kill; the server does not recover.
    pub(super) fn run(&self, loading: &Loading, progress: &mut Progress) -> Result<(String, u64), Failed> {
        let mut rng = SystemRng::new();
        let mut unapplied = 0;
        let mut address = String::new();
        for (from, to) in PARTS {
            let at = self.lines * (from + rng.next_u64() % (to - from)) / 1_000;
            while loading.wait_for(at, progress) {}
            self.server.check_running()?;
            if loading.is_over() && loading.acked() < self.lines {
                break;
            }
            self.server.kill();
            loading.killed();
            let acked = loading.acked();
            if loading.is_over() || acked >= self.lines {
                return Err(Failed::new(Exit::No, "the appending was over before the kill; take more lines"));
            }
            let (next, line, behind) = self.restart(acked)?;
            progress.say(&line);
            unapplied += behind;
            loading.go_on(&next);
            address = next;
        }
        loading.finish(progress);
        Ok((address, unapplied))
    }

    /// Starts the server again. Gives its address, what is to be told, and how many acknowledged lines had not been
    /// applied, as recovery counted them before it went on: those that no run had taken, and those whose counts were
    /// still on their way to the words.
    fn restart(&self, acked: u64) -> Result<(String, String, u64), Failed> {
        let (address, recovery) = self.server.start()?;
        let mut client = Client::connect(Config::new(address.clone())).map_err(failed)?;
        let look = watch::look(&mut client)?;
        let line = format!(
            "killed at line {} of {}, {} acked lines not yet applied\n  recovered in {:.0} ms, {} inputs and other \
             records replayed",
            acked,
            self.lines,
            look.unapplied,
            recovery.as_secs_f64() * 1e3,
            grouped(look.replayed),
        );
        Ok((address, line, look.unapplied))
    }
}
