//! When the machine goes down, and when the app is loaded again.

use super::Run;

impl Run {
    pub(super) fn draw_reload(&mut self) {
        self.next_reload = self.machine.turns + self.rng.between(500, 6_000);
    }

    pub(super) fn draw_crash(&mut self) {
        let about = self.machine.knobs.crash_turns;
        self.next_crash = self.machine.turns + self.rng.between(about / 2, about * 2);
    }

    pub(super) fn crash_soon(&mut self) {
        self.crashes_left -= 1;
        self.draw_crash();
        if self.rng.below(2) == 0 {
            self.machine.disk.power_off();
        } else {
            let op = self.machine.disk.ops() + self.rng.between(1, 50);
            self.machine.disk.crash_at_op(op);
        }
    }
}
