//! The operator asks, and waits for the answer.

use super::{OPERATOR, Run, SETTLE_NANOS, TRIES_MAX};
use crate::client::is_passing;
use gristmill_base::class::InputClass;
use gristmill_base::env::Rng;
use gristmill_base::ids::{SessionId, ShardId};
use gristmill_core::request::{Answer, Code, Operation, Refusal, Request, Responder};

impl Run {
    /// Asks as the operator and waits; `None` if the machine went down meanwhile.
    pub(super) fn ask(&mut self, operation: Operation) -> Result<Option<Result<Answer, Refusal>>, String> {
        self.ask_as(SessionId(0), operation)
    }

    /// The same in a session.
    pub(super) fn ask_as(
        &mut self,
        session: SessionId,
        operation: Operation,
    ) -> Result<Option<Result<Answer, Refusal>>, String> {
        let asked = format!("{operation:?}");
        let door = self.rng.below(self.machine.cores.len() as u64) as usize;
        let responder = Responder { shard: ShardId(door as u16), conn: OPERATOR, tag: self.rng.next_u64() };
        self.machine.request(door, Request { responder, session, class: InputClass::Live, operation });
        let until = self.machine.clock.nanos() + SETTLE_NANOS;
        while self.machine.clock.nanos() < until {
            if self.machine.disk.is_down() || self.machine.failed() {
                return Ok(None);
            }
            self.machine.make_room();
            self.go_round()?;
            if let Some(reply) = self.operator.take_if(|reply| reply.responder == responder) {
                return Ok(Some(reply.outcome));
            }
        }
        let asked = asked.chars().take(100).collect::<String>();
        Err(format!("the operator got no answer to {asked} within the time in which everything must settle"))
    }

    /// Asks as the operator until there is an answer that says something.
    pub(super) fn ask_firmly(
        &mut self,
        session: SessionId,
        operation: &Operation,
    ) -> Result<Result<Answer, Refusal>, String> {
        for _ in 0..TRIES_MAX {
            let answer = self.ask_as(session, operation.clone())?.ok_or("the machine went down in the end phase")?;
            match answer {
                // What is damaged on the disk is mended a while after it was told.
                Err(refusal) if is_passing(refusal.code) || refusal.code == Code::Damaged => self.wait_a_little()?,
                answer => return Ok(answer),
            }
        }
        Err(format!("{operation:?} was refused {TRIES_MAX} times"))
    }

    /// Time passes until another try may be of use.
    pub(super) fn wait_a_little(&mut self) -> Result<(), String> {
        let until = self.machine.clock.nanos() + 50_000_000;
        while self.machine.clock.nanos() < until && !self.machine.disk.is_down() {
            self.machine.make_room();
            self.go_round()?;
        }
        if self.machine.disk.needs_restart() && !self.machine.disk.is_down() { self.restart() } else { Ok(()) }
    }
}
