//! A simulated client: sessions, operations in sequence per slot, retries in order, duplicates, cut connections.

use crate::auditor::Auditor;
use crate::auditor::lives::Times;
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use crate::workload::{Act, Names, Workload};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{ConnId, Offset, SessionId, SessionKey, ShardId, SlotId};
use gristmill_base::sometimes::reached;
use gristmill_core::request::{Answer, Code, Operation, Refusal, Reply, Request, Responder, Sequence};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// An operation that is not known to be answered with all before it.
struct Open {
    seq: u64,
    /// Of the first act; those of the others follow.
    id: u64,
    /// One, or events that go as one batch.
    acts: Vec<Act>,
    /// The names as they were when it was begun: it is sent again as it was.
    names: Rc<Names>,
    /// Its class, which it keeps when it is sent again.
    class: InputClass,
    answered: bool,
    /// When it is sent again, nanoseconds.
    resend: u64,
}

/// The client's side of one session in one slot.
struct Lane {
    session: SessionId,
    next: u64,
    open: VecDeque<Open>,
    /// Numbers from here on are sent again at that time.
    gap: Option<(u64, u64)>,
    /// When something was sent last that did not come back as expired, by an engine time that all cores had passed, which is what a
    /// session's idle time is counted by: the wall clock may have jumped ahead with it. 0 until a record told
    /// of the session: of gaps and refusals a slot keeps nothing over a restart, and may find the id below its floor.
    alive: u64,
}

/// What a tag stands for.
enum Sent {
    Session,
    /// To go on with this session; whether the key is the right one.
    Again(SessionId, bool),
    Numbered {
        slot: SlotId,
        session: SessionId,
        id: Option<u64>,
        at: u64,
    },
    Read {
        act: Act,
        since: u64,
        life: u64,
        began: Times,
    },
}

/// See the module.
pub struct Client {
    number: usize,
    rng: SimRng,
    /// 0 while it has none.
    session: SessionId,
    /// The key that came with it.
    key: SessionKey,
    /// The connection is new and has not said which session it goes on with.
    is_new: bool,
    session_asked: u64,
    conn: u64,
    /// The core at whose door it stands.
    door: usize,
    lanes: BTreeMap<SlotId, Lane>,
    tags: BTreeMap<u64, Sent>,
    next_tag: u64,
    next_id: u64,
    /// When it does the next thing, nanoseconds.
    wake: u64,
    /// Operations that it still wants to begin.
    pub left: u64,
}

/// What a client needs to act.
pub struct World<'a> {
    /// The machine.
    pub machine: &'a mut Machine,
    /// Names of the app.
    pub names: &'a Rc<Names>,
    /// The auditor.
    pub auditor: &'a mut Auditor,
    /// What to do.
    pub workload: &'a mut dyn Workload,
}

/// Whether a refusal says nothing of what will be answered later.
pub(crate) fn is_passing(code: Code) -> bool {
    matches!(code, Code::Capacity | Code::NotReady | Code::Failed)
}

/// Whether a read may be refused so, whatever else goes on.
fn may_be_refused(act: &Act, refusal: &Refusal) -> bool {
    match act {
        // As many as may be are under way, whatever the disk has room for.
        Act::Scan(..) => refusal.code == Code::Capacity && refusal.message.starts_with("too many scans"),
        Act::Query(.., wanted) if refusal.code == Code::BadRequest && !wanted.scan => {
            reached("query that no index serves refused");
            true
        }
        Act::Query(..) => refusal.code == Code::Capacity,
        _ => false,
    }
}

impl Client {
    /// A client that begins so many operations.
    #[must_use]
    pub fn new(number: usize, rng: SimRng, left: u64) -> Self {
        Self {
            number,
            rng,
            session: SessionId(0),
            key: SessionKey::default(),
            is_new: false,
            session_asked: 0,
            conn: (number as u64 + 1) << 32,
            door: 0,
            lanes: BTreeMap::new(),
            tags: BTreeMap::new(),
            next_tag: 1,
            next_id: 1,
            wake: 0,
            left,
        }
    }

    /// What it waits for, in words.
    #[must_use]
    pub fn waits(&self) -> String {
        let lane = |(slot, lane): (&SlotId, &Lane)| {
            let open = lane.open.iter().map(|open| format!("{}{}", open.seq, if open.answered { "+" } else { "" }));
            format!("slot {slot}: open {:?} of {}, gap {:?}", open.collect::<Vec<_>>(), lane.next, lane.gap)
        };
        self.lanes.iter().filter(|(_, lane)| !lane.open.is_empty()).map(lane).collect::<Vec<_>>().join("; ")
    }

    /// Whether it has begun everything and every operation is answered or lost with its session.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.unanswered() == 0
    }

    fn unanswered(&self) -> usize {
        self.lanes.values().map(|lane| lane.open.iter().filter(|open| !open.answered).count()).sum()
    }

    /// When it wants to act, nanoseconds.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.wake
    }

    /// Whether that is its name for the connections that it has now.
    #[must_use]
    pub fn is_at(&self, conn: ConnId) -> bool {
        conn == ConnId(self.conn)
    }

    /// Whether a reply is for the connection that it has now.
    #[must_use]
    pub fn hears(&self, reply: &Reply) -> bool {
        reply.responder.conn == ConnId(self.conn)
    }

    /// Its connection is cut, or the machine went down: nothing that is on its way will be heard.
    pub fn cut(&mut self, now: u64) {
        self.conn += 1;
        self.tags.clear();
        self.is_new = true;
        self.session_asked = 0;
        for open in self.lanes.values_mut().flat_map(|lane| &mut lane.open) {
            open.resend = now + self.rng.between(1_000, 3_000_000);
        }
    }

    /// Does what is due.
    pub fn act(&mut self, world: &mut World<'_>) {
        let now = world.machine.clock.nanos();
        if now < self.wake {
            return;
        }
        let knobs = world.machine.knobs.clone();
        self.wake = now + self.rng.between(1_000, knobs.think_nanos);
        if world.machine.cores.is_empty() {
            return;
        }
        if self.session.0 == 0 {
            self.ask_session(world.machine, now);
        } else if std::mem::take(&mut self.is_new) {
            self.go_on(world.machine);
        }
        self.resend(world, now);
        if self.session.0 == 0 || self.left == 0 || self.unanswered() >= knobs.window {
            self.wake = self.wake.max(now + 100_000);
            return;
        }
        self.begin(world, &knobs, now);
    }

    fn ask_session(&mut self, machine: &mut Machine, now: u64) {
        if self.session_asked > now {
            return;
        }
        self.session_asked = now + 50_000_000;
        let tag = self.tag(Sent::Session);
        self.send(machine, tag, SessionId(0), InputClass::Live, Operation::OpenSession { key: SessionKey::default() });
    }

    /// Says hello with the session that it has, and now and then as somebody who has only guessed its key.
    fn go_on(&mut self, machine: &mut Machine) {
        let mut key = self.key;
        let is_right = self.rng.below(8) != 0;
        if !is_right {
            key.0[self.rng.below(16) as usize] ^= 1 << self.rng.below(8);
        }
        let tag = self.tag(Sent::Again(self.session, is_right));
        self.send(machine, tag, self.session, InputClass::Live, Operation::OpenSession { key });
    }

    fn tag(&mut self, sent: Sent) -> u64 {
        self.tags.insert(self.next_tag, sent);
        self.next_tag += 1;
        self.next_tag - 1
    }

    fn send(&mut self, machine: &mut Machine, tag: u64, session: SessionId, class: InputClass, operation: Operation) {
        let cores = machine.cores.len();
        if self.rng.below(20) == 0 {
            self.door = self.rng.below(16) as usize;
        }
        let door = self.door % cores;
        let responder = Responder { shard: ShardId(door as u16), conn: ConnId(self.conn), tag };
        let request = Request { responder, session, class, operation };
        machine.request_of_client(door, request);
    }

    /// Begins something new.
    fn begin(&mut self, world: &mut World<'_>, knobs: &Knobs, now: u64) {
        let id = ((self.number as u64 + 1) << 32) | self.next_id;
        self.next_id += 1;
        let padding = self.rng.between(0, knobs.padding) as usize;
        let act = world.workload.act(self.number, id, padding, &mut self.rng);
        if act.is_read() {
            let (since, mut life) = (world.auditor.moment(), world.auditor.life());
            if world.auditor.is_past(life) {
                life = u64::MAX;
            }
            let operation = world.names.operation(&act, Sequence { seq: 0, ack: 0 }).1;
            let began = world.auditor.lives.now();
            let tag = self.tag(Sent::Read { act, since, life, began });
            let session = self.session;
            return self.send(world.machine, tag, session, InputClass::Live, operation);
        }
        let acts = self.gather(act, padding, world, knobs);
        self.left = self.left.saturating_sub(acts.len() as u64);
        (id..).zip(&acts).for_each(|(id, act)| world.auditor.issue(id, act));
        self.next_id = (id & u64::from(u32::MAX)) + acts.len() as u64;
        let (slot, _) = world.names.operation_of(&acts, Sequence { seq: 0, ack: 0 });
        let session = self.session;
        let lane = self.lanes.entry(slot).or_insert_with(|| Lane {
            session,
            next: 1,
            open: VecDeque::new(),
            gap: None,
            alive: 0,
        });
        let seq = lane.next;
        lane.next += 1;
        let names = Rc::clone(world.names);
        let class = InputClass::from(knobs.bulk > 0 && self.rng.below(100) < knobs.bulk);
        lane.open.push_back(Open { seq, id, acts, names, class, answered: false, resend: 0 });
        self.send_numbers(world, slot, seq, seq, now);
        if self.rng.below(1_000) < knobs.duplicates {
            self.send_numbers(world, slot, seq, seq, now);
        }
        if self.rng.below(1_000) < knobs.cuts {
            reached("connection cut");
            self.cut(now);
        }
        if self.rng.below(1_000) < knobs.sleeps {
            let idle = knobs.boot.session_idle_micros * 1_000;
            let until = now + idle + self.rng.between(0, idle) + 1_100_000_000;
            self.conn += 1;
            self.tags.clear();
            self.wake = until;
            self.lanes.values_mut().flat_map(|lane| &mut lane.open).for_each(|open| open.resend = until);
        }
    }

    /// An operation, and, if it appends an event, perhaps more events for the same lane, which go with it as one batch.
    fn gather(&mut self, first: Act, padding: usize, world: &mut World<'_>, knobs: &Knobs) -> Vec<Act> {
        let mut acts = vec![first];
        let Act::Produce(topic, key, _) = acts[0].clone() else { return acts };
        if knobs.batches == 0 || self.rng.below(100) >= knobs.batches {
            return acts;
        }
        let lane = world.names.lane_of(topic, &key);
        for _ in 0..self.rng.between(1, 24) {
            let id = ((self.number as u64 + 1) << 32) | (self.next_id + acts.len() as u64 - 1);
            let act = world.workload.act(self.number, id, padding, &mut self.rng);
            match act {
                Act::Produce(other, own, value) if other == topic => {
                    let own = if world.names.lane_of(topic, &own) == lane { own } else { key.clone() };
                    acts.push(Act::Produce(topic, own, value));
                }
                _ => {}
            }
        }
        if acts.len() > 1 {
            reached("batch sent");
        }
        acts
    }

    /// Sends these numbers of a slot: unanswered ones as they were, the others as void.
    fn send_numbers(&mut self, world: &mut World<'_>, slot: SlotId, from: u64, to: u64, now: u64) {
        for seq in from..=to {
            let lane = self.lanes.get_mut(&slot).expect("the slot has a lane");
            let session = lane.session;
            let ack = lane.open.front().map_or(lane.next, |open| open.seq) - 1;
            let sequence = Sequence { seq, ack };
            let open = lane.open.iter_mut().find(|open| open.seq == seq && !open.answered);
            let (id, class, operation) = match open {
                Some(open) => {
                    open.resend = now + self.rng.between(20_000_000, 400_000_000);
                    (Some(open.id), open.class, open.names.operation_of(&open.acts, sequence).1)
                }
                None => {
                    reached("void sent");
                    (None, InputClass::Live, Operation::Void { slot, sequence })
                }
            };
            let tag = self.tag(Sent::Numbered { slot, session, id, at: world.auditor.engine_times().0 });
            self.send(world.machine, tag, session, class, operation);
        }
    }

    /// Sends again what has waited too long, or what a core misses, in order.
    fn resend(&mut self, world: &mut World<'_>, now: u64) {
        let slots: Vec<SlotId> = self.lanes.keys().copied().collect();
        for slot in slots {
            let lane = self.lanes.get_mut(&slot).expect("it was just listed");
            let last = lane.next - 1;
            if let Some((from, _)) = lane.gap.take_if(|(_, at)| *at <= now) {
                self.send_numbers(world, slot, from, last, now);
                continue;
            }
            let late = lane.open.iter().find(|open| !open.answered && open.resend <= now).map(|open| open.seq);
            if late.is_none() {
                continue;
            }
            let unanswered: Vec<u64> = lane.open.iter().filter(|open| !open.answered).map(|open| open.seq).collect();
            for seq in unanswered {
                self.send_numbers(world, slot, seq, seq, now);
            }
        }
    }

    /// Hears a reply.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn hear(&mut self, reply: Reply, world: &mut World<'_>) -> Result<(), String> {
        let now = world.machine.clock.nanos();
        let Some(sent) = self.tags.remove(&reply.responder.tag) else {
            return Err(format!("P2: request {} was answered twice: {:?}", reply.responder.tag, reply.outcome));
        };
        match sent {
            Sent::Session => {
                if let Ok(Answer::Session(session, key)) = reply.outcome {
                    (self.session, self.key) = (session, key);
                }
                Ok(())
            }
            Sent::Again(session, is_right) => match &reply.outcome {
                Ok(Answer::Session(found, _)) if is_right && *found == session => {
                    reached("session gone on with by its key");
                    Ok(())
                }
                Err(refusal) if !is_right && refusal.code == Code::Expired => Ok(()),
                outcome => Err(format!("P2: hello with session {session}, key right: {is_right}: {outcome:?}")),
            },
            Sent::Read { life, .. } if world.auditor.is_past(life) => Ok(()),
            Sent::Read { act, since, began, .. } => match reply.outcome {
                Err(refusal) if may_be_refused(&act, &refusal) => Ok(()),
                Err(refusal) if refusal.code == Code::Capacity && world.machine.full_until.is_some() => {
                    Err(format!("P9: {act:?} was refused while the disk was full: {refusal:?}"))
                }
                Ok(answer) => {
                    world.workload.heard(0, &act, &answer);
                    if world.machine.full_until.is_some() {
                        reached("read while the disk was full");
                    }
                    let of_lives = world.auditor.read_of_lives(&act, began, &answer);
                    of_lives.unwrap_or_else(|| world.auditor.read(&act, since, &answer, &*world.workload))
                }
                Err(refusal)
                    if matches!(refusal.code, Code::Failed | Code::NotReady | Code::Capacity | Code::Damaged) =>
                {
                    // A shard that goes on says so only of a damaged file, and names it.
                    let says_damage = refusal.code == Code::Damaged;
                    if says_damage && !world.machine.is_told_damage(&refusal) {
                        let is_faulty = world.machine.knobs.faults.read_fails > 0 || world.machine.disk.is_down();
                        reached("read refused although the log goes on");
                        if !is_faulty && matches!(act, Act::Read(..)) {
                            return Err(format!("P8: {act:?} was refused, and no damaged file was named: {refusal:?}"));
                        }
                    }
                    Ok(())
                }
                Err(refusal) if refusal.code == Code::Gone && matches!(act, Act::Read(..)) => {
                    let Act::Read(topic, lane, from) = act else { unreachable!("it was just looked at") };
                    reached("read before the start of a lane refused");
                    world.auditor.begins(topic, lane, from + 1, world.names.keep(topic))
                }
                Err(refusal) => Err(format!("P2: {act:?} was refused: {refusal:?}")),
            },
            Sent::Numbered { slot, session, id, at } => {
                let Some(lane) = self.lanes.get_mut(&slot).filter(|lane| lane.session == session) else {
                    return Ok(());
                };
                let expired = matches!(&reply.outcome, Err(refusal) if refusal.code == Code::Expired);
                if expired {
                    return self.expired(slot, world);
                }
                // A refusal for want of room says nothing of the session, nor one of a topic that nobody knows.
                let says_nothing = |code| is_passing(code) || matches!(code, Code::UnknownName | Code::SentAgain);
                let heard = !matches!(&reply.outcome, Err(refusal) if says_nothing(refusal.code));
                if heard && (lane.alive > 0 || reply.outcome.is_ok()) {
                    lane.alive = lane.alive.max(at);
                }
                self.numbered(slot, id, reply.outcome, now, world)
            }
        }
    }

    fn expired(&mut self, slot: SlotId, world: &mut World<'_>) -> Result<(), String> {
        let lane = self.lanes.remove(&slot).expect("it was just looked at");
        let idle = world.machine.knobs.boot.session_idle_micros;
        let micros = world.auditor.engine_times().1.saturating_sub(lane.alive);
        if lane.alive > 0 && micros < idle {
            return Err(format!("session {} in slot {slot} expired {micros} us after it was heard of", lane.session));
        }
        reached("client lost its session");
        self.session = SessionId(0);
        self.session_asked = 0;
        Ok(())
    }

    fn numbered(
        &mut self,
        slot: SlotId,
        id: Option<u64>,
        outcome: Result<Answer, Refusal>,
        now: u64,
        world: &mut World<'_>,
    ) -> Result<(), String> {
        let soon = now + self.rng.between(100_000, 5_000_000);
        let lane = self.lanes.get_mut(&slot).expect("it was just looked at");
        match outcome.as_ref().map_err(|refusal| refusal.code) {
            Err(Code::Gap { expected }) => {
                if expected < lane.next && lane.open.iter().any(|open| !open.answered) {
                    lane.gap.get_or_insert((expected, soon));
                }
                return Ok(());
            }
            Err(Code::Capacity | Code::NotReady) => {
                if world.machine.full_until.is_some() {
                    reached("client refused while the disk was full");
                }
                if let Some(open) = lane.open.iter_mut().find(|open| Some(open.id) == id) {
                    open.resend = open.resend.min(soon);
                }
                return Ok(());
            }
            // The outcome is unknown until the machine was started again.
            Err(Code::Failed | Code::SentAgain) => return Ok(()),
            Err(Code::Internal | Code::Expired) => return Err(format!("{outcome:?}")),
            _ => {}
        }
        let Some(id) = id else { return Ok(()) };
        let Some(open) = lane.open.iter_mut().find(|open| open.id == id) else {
            return world.auditor.answer(id, &outcome);
        };
        open.answered = true;
        for at in 0..open.acts.len() as u64 {
            // The reply has the offset of the first one.
            let outcome = match outcome.clone() {
                Ok(Answer::Appended { lane, offset }) => Ok(Answer::Appended { lane, offset: Offset(offset.0 + at) }),
                other => other,
            };
            if let Ok(answer) = &outcome {
                world.workload.heard(id + at, &open.acts[at as usize], answer);
            }
            world.auditor.answer(id + at, &outcome)?;
        }
        while lane.open.front().is_some_and(|open| open.answered) {
            lane.open.pop_front();
        }
        Ok(())
    }
}
