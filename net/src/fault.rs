//! Requests that failed by no fault of their client, for the operator: what is said of them names the request, so that
//! lines of client and server can be matched.

use crate::translate::Tag;
use gristmill_base::ids::{ConnId, SessionId, ShardId};
use gristmill_core::request::{Code, Refusal};

/// Faults that are told one by one in a second; more are counted.
const TOLD_MAX: usize = 4;
/// Bytes of a message that are told.
const MESSAGE_BYTES_TOLD: usize = 1_000;

/// One.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The connection that it came by.
    pub conn: ConnId,
    /// The session of its client.
    pub session: SessionId,
    /// What the client calls it.
    pub correlation: u32,
    /// What it asked for.
    pub operation: &'static str,
    /// Class of the reason.
    pub code: Code,
    /// What was found.
    pub message: String,
    /// Faults besides this one since the last one told.
    pub more: u64,
}

/// Takes note of a refusal in `place`, if it is a fault; of several the first is kept and the others are counted. Of
/// an internal one the message for the client, which names its request too.
#[cold]
pub(crate) fn note(
    place: &mut Option<Box<Fault>>,
    (shard, conn, session): (ShardId, ConnId, SessionId),
    tag: Tag,
    refusal: &Refusal,
) -> Option<String> {
    if !matches!(refusal.code, Code::Internal | Code::HandlerFailed | Code::Failed) {
        return None;
    }
    match place {
        Some(fault) => fault.more += 1,
        None => *place = Some(Box::new(Fault::new(conn, session, tag, refusal))),
    }
    let (message, correlation) = (&refusal.message, tag.correlation);
    (refusal.code == Code::Internal)
        .then(|| format!("{message}; request: shard {shard}, connection {conn}, correlation {correlation}"))
}

impl Fault {
    fn new(conn: ConnId, session: SessionId, tag: Tag, why: &Refusal) -> Self {
        let end = why.message.floor_char_boundary(MESSAGE_BYTES_TOLD);
        let message = why.message[..end].to_owned();
        let (correlation, operation) = (tag.correlation, tag.code.name());
        Self { conn, session, correlation, operation, code: why.code, message, more: 0 }
    }
}

/// Those of one shard that are not told yet.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: Vec<Fault>,
    more: u64,
}

impl Faults {
    pub(crate) fn note(&mut self, fault: Option<Box<Fault>>) {
        let Some(fault) = fault else { return };
        if self.waiting.len() < TOLD_MAX {
            self.waiting.push(*fault);
        } else {
            self.more += 1 + fault.more;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Moves them to `told`. To be called about once a second.
    pub(crate) fn take(&mut self, told: &mut Vec<Fault>) {
        if let Some(last) = self.waiting.last_mut() {
            last.more += std::mem::take(&mut self.more);
        }
        told.append(&mut self.waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_wire::OpCode;

    #[test]
    fn few_are_told_and_the_others_counted() {
        let mut faults = Faults::default();
        let why = Refusal::new(Code::Internal, "x".repeat(5_000));
        for correlation in 0..10 {
            let tag = Tag { correlation, code: OpCode::Put, credit_bytes: 0 };
            faults.note(Some(Box::new(Fault::new(ConnId(1), SessionId(2), tag, &why))));
        }
        let mut told = Vec::new();
        faults.take(&mut told);
        assert_eq!(
            told.iter().map(|it| (it.correlation, it.more)).collect::<Vec<_>>(),
            [(0, 0), (1, 0), (2, 0), (3, 6)]
        );
        assert_eq!(told[0].message.len(), MESSAGE_BYTES_TOLD);
        assert!(faults.is_empty());
    }

    #[test]
    fn an_internal_fault_names_its_request_to_the_client_and_what_clients_do_wrong_is_none() {
        let who = (ShardId(1), ConnId(7), SessionId(9));
        let tag = Tag { correlation: 5, code: OpCode::Get, credit_bytes: 0 };
        let mut place = None;
        let refusals = [Code::BadRequest, Code::Internal, Code::HandlerFailed].map(|code| Refusal::new(code, "why"));
        let messages = refusals.each_ref().map(|refusal| note(&mut place, who, tag, refusal));
        let named = "why; request: shard 1, connection 7, correlation 5".to_owned();
        assert_eq!(messages, [None, Some(named), None]);
        let fault = place.expect("one is kept");
        assert_eq!((fault.code, fault.message.as_str(), fault.more), (Code::Internal, "why", 1));
    }
}
