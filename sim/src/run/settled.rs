//! When nothing is on its way any more: as the simulator sees it, and as the server says.

use super::{Run, SETTLE_NANOS};
use crate::auditor::{Fate, Issued};
use crate::client::Client;
use crate::link::Links;
use crate::workload::Act;
use gristmill_base::ids::{LaneKey, Offset};
use gristmill_base::sometimes;
use gristmill_core::request::{Answer, Operation};
use gristmill_state::grain::{Queued, Work};
use std::collections::BTreeMap;

/// Whether nothing waits for a grain, or all that does is in the backlog of one that is parked.
fn is_at_rest(work: &Work) -> bool {
    work.queue.is_empty()
        || work.parked.is_some() && !work.queue.iter().any(|queued| matches!(queued, Queued::Stream(..)))
}

impl Run {
    /// Once the server says that the app has settled, every effect of everything acked is there at that moment.
    pub(super) fn settled_means_handled(&mut self) -> Result<(), String> {
        let until = self.machine.clock.nanos() + SETTLE_NANOS;
        while !self.is_over() && self.machine.clock.nanos() < until {
            self.round()?;
        }
        self.read_lanes(false)?;
        let name = self.workload.app().name.to_owned();
        let answer = self.ask(Operation::Settle { name, wait_millis: (SETTLE_NANOS / 2_000_000) as u32 })?;
        let answer = answer.ok_or("the machine went down in the end phase")?;
        let Ok(Answer::Json(text)) = &answer else { return Err(format!("whether it has settled: {answer:?}")) };
        let said: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if said["settled"] != true {
            return Err(format!("the app does not settle: {text}; {}", self.complaint()));
        }
        let has_timers = self.machine.slots().iter().any(|slot| slot.has_timers());
        if has_timers || !self.is_over() {
            return Ok(());
        }
        sometimes::reached("settled and checked");
        if !self.workload.handlers_append() {
            // Hard retention may have moved starts until it had settled.
            self.read_lanes(false)?;
            let names = self.names.as_ref().expect("the app is loaded");
            let checked = self.workload.check(&self.machine, names, &self.auditor);
            return checked.map_err(|what| format!("settled, but: {what}"));
        }
        let ends = self.ends();
        self.read_lanes(false)?;
        if self.ends() != ends {
            return Err("settled, but events were appended afterwards".into());
        }
        let names = self.names.as_ref().expect("the app is loaded");
        let checked = self.workload.check(&self.machine, names, &self.auditor);
        checked.map_err(|what| format!("settled, but: {what}"))
    }

    /// Whoever asks under load must find everything that was acked before, once the answer is yes.
    pub(super) fn settled_under_load(&mut self) -> Result<(), String> {
        let is_acked = |issued: &&Issued| matches!(issued.fate, Fate::Acked(_));
        let acked: Vec<Act> =
            self.auditor.operations.values().filter(is_acked).map(|issued| issued.act.clone()).collect();
        let life = self.auditor.life();
        let name = self.workload.app().name.to_owned();
        let Some(Ok(Answer::Json(text))) = self.ask(Operation::Settle { name, wait_millis: 20_000 })? else {
            return Ok(());
        };
        let said: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if said["settled"] != true || self.auditor.is_past(life) {
            return Ok(());
        }
        sometimes::reached("settled under load and checked");
        let names = self.names.as_ref().expect("the app is loaded");
        let checked = self.workload.check_least(&self.machine, names, &acked);
        checked.map_err(|what| format!("settled under load, but: {what}"))
    }

    /// Ends of all lanes.
    fn ends(&self) -> BTreeMap<LaneKey, Offset> {
        let slots = self.machine.slots();
        slots.iter().flat_map(|slot| slot.lanes.iter().map(|(key, lane)| (*key, lane.end()))).collect()
    }

    /// Whether nothing waits anywhere, but for parked grains.
    pub(super) fn is_quiet(&self) -> bool {
        let slots = self.machine.slots();
        let still = slots.iter().all(|slot| {
            slot.outbox_rows == 0
                && (self.workload.keeps_timers() || !slot.has_timers())
                && slot.grains.iter().all(|(_, grain)| grain.work().is_none_or(is_at_rest))
        });
        let answered = self.machine.links.as_ref().is_none_or(Links::is_quiet);
        still && answered && self.lag().is_none()
    }

    /// A lane that a subscriber has not passed yet.
    fn lag(&self) -> Option<String> {
        let core = self.machine.cores.first()?;
        let catalog = core.shard.catalog().clone();
        for slot in self.machine.slots() {
            for (key, lane) in &slot.lanes {
                for entry in catalog.subscriptions_of(key.topic) {
                    let subscription = gristmill_base::ids::SubscriptionId(entry.id);
                    let stream = gristmill_state::slot::Slot::topic_stream(subscription, *key);
                    // Every slot in which its grains can be: one that was refused for lack of room lags behind others.
                    let lanes = catalog.lane_count(key.topic);
                    let behind = self.machine.slots().iter().any(|other| {
                        let may_hold = entry.field.is_some() || other.id.0 % lanes == key.lane.0;
                        may_hold && other.stream(stream).map_or(0, |stream| stream.received()) < lane.end().0
                    });
                    if behind {
                        return Some(format!("subscription {} has not passed {key:?}", entry.name));
                    }
                }
            }
        }
        None
    }

    pub(super) fn complaint(&self) -> String {
        let clients: Vec<String> = self.clients.iter().filter(|client| !client.is_done()).map(Client::waits).collect();
        let slots = self.machine.slots();
        let rows: usize = slots.iter().map(|slot| slot.outbox_rows).sum();
        let timers = slots.iter().map(|slot| slot.timers.iter().count()).sum::<usize>();
        let grains = slots.iter().flat_map(|slot| slot.grains.iter().map(|(_, grain)| grain));
        let mut grains = grains.filter_map(|grain| {
            let work = grain.work().filter(|work| work.parked.is_none() && !work.queue.is_empty())?;
            let key = String::from_utf8_lossy(&grain.key);
            Some(format!(
                "{}/{key}: {} queued, running {:?}, attempts {}, listed {} {}, head {:?}",
                grain.table,
                work.queue.len(),
                work.running,
                work.attempts,
                work.listed_live,
                work.listed_bulk,
                work.queue.front()
            ))
        });
        format!(
            "clients wait: {clients:?}, {rows} outbox rows, {timers} timers, {}; {}; {}; {}",
            grains.next().unwrap_or_default(),
            self.lag().unwrap_or_default(),
            self.machine.waits(),
            self.machine.links.as_ref().map(Links::waits).unwrap_or_default()
        )
    }
}
