//! Changes of the catalog: shard 0 validates, stores, then publishes; the change is done when every shard uses it.

use super::admin::{describe, subscription_line};
use super::{Outbox, Shard};
use crate::appfile::{AppFile, Language};
use crate::catalog::Catalog;
use crate::jobs::Job;
use crate::parcel::Item;
use crate::request::{Answer, Code, Refusal, Responder};
use gristmill_base::env::DiskError;
use gristmill_base::ids::{Lsn, ShardId, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_io::root::RootFile;
use gristmill_state::record::Control;
use serde_json::json;
use std::sync::Arc;

/// A change under way. At most one.
#[derive(Debug)]
pub(super) struct Change {
    /// Who asked for it; `None`: a replay did, which goes on by itself.
    responder: Option<Responder>,
    catalog: Arc<Catalog>,
    answer: String,
    /// Whether it has been handed to the background executor.
    storing: bool,
    /// Shards that do not use it yet; then, those that do not show it yet.
    missing: u16,
    /// Whether every shard uses it.
    used: bool,
}

impl Shard {
    /// Loads an app file; or says what that would change.
    ///
    /// While another change is under way none is looked at: compared with a catalog that not every shard uses yet, a file
    /// that was sent twice would be called loaded before it is.
    pub(super) fn load_app(&mut self, responder: Responder, text: &[u8], force: bool, dry_run: bool) {
        if self.changes() {
            return self.refuse_change(responder);
        }
        match self.try_load(text, force, dry_run) {
            Err(refusal) => self.reply(Lsn(0), responder, Err(refusal)),
            Ok((answer, None)) => self.reply(Lsn(0), responder, Ok(Answer::Json(answer))),
            Ok((answer, Some(catalog))) => self.begin_change(Some(responder), catalog, answer),
        }
    }

    /// The answer to a load, and the catalog that it makes if it changes anything.
    fn try_load(&self, text: &[u8], force: bool, dry_run: bool) -> Result<(String, Option<Catalog>), Refusal> {
        let bad = |message: String| Refusal::new(Code::BadRequest, message);
        let text = std::str::from_utf8(text).map_err(|error| bad(format!("the app file is not UTF-8: {error}")))?;
        let file = AppFile::parse(text, "app file").map_err(|error| bad(error.to_string()))?;
        let linked = file.tables.iter().filter(|_| file.language == Language::Rust);
        for table in linked {
            for handler in &table.handlers {
                self.host.has(&file.app, &table.name, &handler.name).map_err(|known| {
                    let known = if known.is_empty() { "none of this app".to_owned() } else { known.join(", ") };
                    bad(format!(
                        "handler {}.{} of app {} is not linked into this program; linked: {known}",
                        table.name, handler.name, file.app
                    ))
                })?;
            }
        }
        let loaded = self.catalog.app(&file.app);
        let from = loaded.map(|app| app.version);
        if dry_run {
            let difference = self.catalog.difference(&file, text).map_err(|error| bad(error.to_string()))?;
            let (changed, lines) = (difference.is_some(), difference.unwrap_or_default().json());
            let answer = json!({"app": file.app, "from": from, "to": from.map_or(1, |it| it + u32::from(changed)),
                                "changed": changed, "changes": lines});
            return Ok((answer.to_string(), None));
        }
        let done = self.catalog.load(&file, text, self.engine_micros, force).map_err(|error| bad(error.to_string()))?;
        let (catalog, difference) = match done {
            Some((catalog, difference)) => (Some(catalog), difference.json()),
            None => (None, json!([])),
        };
        let app = catalog.as_ref().unwrap_or(&self.catalog).app(&file.app).expect("it was just loaded, or before");
        let mut answer = describe(app);
        (answer["changed"], answer["from"], answer["changes"]) = (catalog.is_some().into(), from.into(), difference);
        Ok((answer.to_string(), catalog))
    }

    /// Unloads an app and deletes what it holds.
    pub(super) fn delete_app(&mut self, responder: Responder, name: &str) {
        if self.changes() {
            return self.refuse_change(responder);
        }
        match self.catalog.unload(name) {
            None => {
                let refusal = self.unknown_app(name);
                self.reply(Lsn(0), responder, Err(refusal));
            }
            Some((catalog, app)) => {
                self.begin_change(Some(responder), catalog, json!({"app": app.name, "id": app.id}).to_string())
            }
        }
    }

    /// Pauses a subscription, or resumes it: a change of the catalog, which every shard uses before it is answered.
    pub(super) fn pause(&mut self, responder: Responder, app: &str, name: &str, paused: bool) {
        if self.changes() {
            return self.refuse_change(responder);
        }
        if self.catalog.app(app).is_none() {
            let refusal = self.unknown_app(app);
            return self.reply(Lsn(0), responder, Err(refusal));
        }
        match self.catalog.pause(app, name, paused) {
            Err(error) => {
                let refusal = Refusal::new(Code::UnknownName, error.to_string());
                self.reply(Lsn(0), responder, Err(refusal));
            }
            Ok((catalog, id, changed)) => {
                let entry = catalog.app(app).expect("it was just looked at");
                let subscription = entry.subscriptions.iter().find(|it| it.id == id).expect("it was just found");
                let mut answer = subscription_line(entry, subscription);
                answer["changed"] = changed.into();
                match changed {
                    true => self.begin_change(Some(responder), catalog, answer.to_string()),
                    false => self.reply(Lsn(0), responder, Ok(Answer::Json(answer.to_string()))),
                }
            }
        }
    }

    /// Whether no change can begin now.
    pub(super) fn changes(&self) -> bool {
        self.change.is_some() || self.moves.is_leading()
    }

    pub(super) fn refuse_change(&mut self, responder: Responder) {
        let message = match self.moves.is_leading() {
            true => "a slot is on its way to another shard; try again",
            false => "another change of the apps is under way and not yet used by every shard; try again",
        };
        self.refuse(responder, Code::Capacity, message);
    }

    pub(super) fn begin_change(&mut self, responder: Option<Responder>, catalog: Catalog, answer: String) {
        assert!(self.change.is_none(), "at most one change is under way");
        let missing = self.config.shard_count;
        self.change =
            Some(Change { responder, catalog: Arc::new(catalog), answer, storing: false, missing, used: false });
    }

    /// Hands a change to the background executor.
    pub(super) fn catalog_step(&mut self, outbox: &mut Outbox) {
        if let Some(change) = self.change.as_mut().filter(|change| !change.storing)
            && let Some(root) = self.catalog_root.take()
        {
            change.storing = true;
            outbox.jobs.push(Job::Catalog { root, bytes: change.catalog.to_bytes() });
        }
    }

    /// The change is durable, or could not be stored.
    pub(super) fn catalog_stored(&mut self, root: RootFile, done: Result<(), DiskError>) {
        self.catalog_root = Some(root);
        let Some(change) = &self.change else { return };
        let catalog = change.catalog.clone();
        if let Err(error) = done {
            let change = self.change.take().expect("it was just looked at");
            let refusal = Refusal::new(Code::Failed, format!("the catalog could not be stored: {error}"));
            self.replay_not_stored(&refusal);
            if let Some(responder) = change.responder {
                self.reply(Lsn(0), responder, Err(refusal));
            }
            return;
        }
        for shard in 0..self.config.shard_count {
            self.say(ShardId(shard), Item::Catalog(catalog.clone()));
        }
    }

    /// Uses a new snapshot and says so to shard 0.
    pub(super) fn use_catalog(&mut self, from: ShardId, catalog: Arc<Catalog>) {
        let version = catalog.version;
        if version > self.catalog.version {
            let old = std::mem::replace(&mut self.catalog, catalog);
            self.use_indexes();
            self.note_lives();
            self.prune_activity();
            self.bury_deleted(old.deleted.len());
            self.drop_dead_feeds();
            self.resume_feeds(&old);
            self.watches.all_are_due();
            if planted::is(Bug::VersionHeardEarly) {
                let catalog = self.catalog.clone();
                self.tell_versions_of(&catalog);
            }
        }
        self.say(from, Item::CatalogUsed(version));
    }

    /// Deletes what is left of apps that were deleted after the first `known` ones.
    pub(super) fn bury_deleted(&mut self, known: usize) {
        let slots: Vec<SlotId> = self.slots.iter().flatten().map(|slot| slot.id).collect();
        slots.into_iter().for_each(|slot| self.bury_in(slot, known));
    }

    /// The same in one slot.
    pub(super) fn bury_in(&mut self, slot: SlotId, known: usize) {
        if planted::is(Bug::DeletedAppStays) {
            return;
        }
        let catalog = self.catalog.clone();
        for deleted in catalog.deleted.iter().skip(known) {
            let control = Control::Tombstone {
                tables: deleted.tables.clone(),
                topics: deleted.topics.clone(),
                subscriptions: deleted.subscriptions.clone(),
            };
            let (state, log) = self.slot_and_log(slot);
            let lanes = state.lanes.values().filter(|lane| deleted.topics.contains(&lane.key.topic.0));
            let files = lanes.map(|lane| (lane.key, lane.files())).collect::<Vec<_>>();
            if let Some(lsn) = state.bury(log, control) {
                self.after_record(slot, lsn);
                self.remove_lane_files(slot, files);
                self.mark_ready(slot);
            }
        }
    }

    /// A shard uses the snapshot of that version.
    pub(super) fn catalog_used(&mut self, version: u64) {
        let Some(change) = self.change.as_mut().filter(|change| change.catalog.version == version) else { return };
        change.missing -= 1;
        if change.missing > 0 {
            return;
        }
        if change.used {
            let change = self.change.take().expect("it was just looked at");
            if let Some(responder) = change.responder {
                self.reply(Lsn(0), responder, Ok(Answer::Json(change.answer)));
            }
            return;
        }
        change.used = true;
        change.missing = self.config.shard_count;
        for shard in 0..self.config.shard_count {
            self.say(ShardId(shard), Item::CatalogShow(version));
        }
    }

    /// Every shard uses the snapshot of that version: from now on clients may learn its numbers here. Had they learned
    /// them before, an event could have reached a shard that does not know its handler yet.
    pub(super) fn show_catalog(&mut self, from: ShardId, version: u64) {
        if self.catalog.version == version {
            self.shown = self.catalog.clone();
            self.begin_new_feeds();
            self.versions_due = true;
        }
        self.say(from, Item::CatalogUsed(version));
    }
}
