//! Calls about apps, their versions and subscriptions, and about the server.

use std::time::Duration;

use gristmill_base::ids::{ShardId, SlotId};

use crate::calls::json;
use crate::client::Client;
use crate::error::Error;
use crate::operation::OwnedOperation;
use gristmill_wire as wire;

impl Client {
    /// Pauses a subscription of an app, or resumes it: a JSON object as one of [`Self::subscriptions`], with whether that has
    /// `changed` anything.
    ///
    /// # Errors
    /// There is no such app or subscription, another change of the apps is under way, or the server cannot be asked.
    pub fn subscription_pause(&mut self, app: &str, name: &str, paused: bool) -> Result<String, Error> {
        let (app, name) = (app.to_owned(), name.to_owned());
        self.call(OwnedOperation::SubscriptionPause { app, name, paused }).and_then(json)
    }

    /// The subscriptions of an app, as a JSON list.
    ///
    /// # Errors
    /// There is no such app, or the server cannot be asked.
    pub fn subscriptions(&mut self, app: &str) -> Result<String, Error> {
        self.call(OwnedOperation::SubscriptionList { app: app.to_owned() }).and_then(json)
    }

    /// Loads an app file, as a new app or as another version of a loaded one. The reply is a JSON object with at least `app`, `id`,
    /// `version`, `changed`, and what is otherwise than in the version before (`changes`).
    ///
    /// # Errors
    /// As [`Self::call`]. The server's message names line and field of what it refuses.
    pub fn app_load(&mut self, file_name: &str, file: &str, force: bool) -> Result<String, Error> {
        self.apps.clear();
        let (file_name, file) = (file_name.to_owned(), file.to_owned());
        self.call(OwnedOperation::AppLoad { force, dry_run: false, file_name, file }).and_then(json)
    }

    /// What loading an app file would change: a JSON object with `app`, `from`, `to`, `changed` and `changes`, each with `kind` (`adds`,
    /// `changes`, `takes_away`, `impossible`), `about` and `text`.
    ///
    /// # Errors
    /// As [`Self::app_load`].
    pub fn app_diff(&mut self, file_name: &str, file: &str) -> Result<String, Error> {
        let (file_name, file) = (file_name.to_owned(), file.to_owned());
        self.call(OwnedOperation::AppLoad { force: false, dry_run: true, file_name, file }).and_then(json)
    }

    /// The versions of an app that are kept, newest first; or, unless it is 0, that version with its `file`. A JSON object.
    ///
    /// # Errors
    /// As [`Self::call`]; there is no such app, or the version is not kept.
    pub fn app_versions(&mut self, app: &str, version: u32) -> Result<String, Error> {
        self.call(OwnedOperation::AppVersions { app: app.to_owned(), version }).and_then(json)
    }

    /// Builds tables of an app anew, by running their subscriptions again into next versions of them, while the present ones serve.
    /// The reply, a JSON object, comes once it is known that this is possible.
    ///
    /// # Errors
    /// As [`Self::call`]; a table has state from elsewhere than events, or a replay of the app is under way.
    pub fn app_replay(&mut self, app: &str, tables: &[String], from: wire::ReplayFrom) -> Result<String, Error> {
        self.replay(app, wire::ReplayStep::Begin(from), tables.join(","))
    }

    /// The replays of an app, or of all if its name is empty, that are under way, and some that have ended: a JSON object.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn app_replays(&mut self, app: &str) -> Result<String, Error> {
        self.replay(app, wire::ReplayStep::Status, String::new())
    }

    /// Gives up the replay of an app that is under way.
    ///
    /// # Errors
    /// As [`Self::call`]; there is none, or it cannot go back any more.
    pub fn app_replay_cancel(&mut self, app: &str) -> Result<String, Error> {
        self.replay(app, wire::ReplayStep::Cancel, String::new())
    }

    fn replay(&mut self, app: &str, step: wire::ReplayStep, tables: String) -> Result<String, Error> {
        self.call(OwnedOperation::AppReplay { app: app.to_owned(), step, tables }).and_then(json)
    }

    /// Deletes an app and all that it holds. The reply is a JSON object.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn app_delete(&mut self, app: &str) -> Result<String, Error> {
        self.apps.remove(app);
        self.call(OwnedOperation::AppDelete { app: app.to_owned() }).and_then(json)
    }

    /// Loaded apps: a JSON list.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn app_list(&mut self) -> Result<String, Error> {
        self.call(OwnedOperation::AppList).and_then(json)
    }

    /// Topics of all apps: a JSON list.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn topic_list(&mut self) -> Result<String, Error> {
        self.call(OwnedOperation::TopicList).and_then(json)
    }

    /// The server's state: a JSON object.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn status(&mut self) -> Result<String, Error> {
        self.call(OwnedOperation::Status).and_then(json)
    }

    /// Waits until what an app was given before this call is handled, with all that it caused, timers excepted; as JSON:
    /// whether that is so (`settled`), how many grains are `parked`, and the first of them (`grains`).
    ///
    /// # Errors
    /// There is no such app, or the server cannot be asked.
    pub fn app_settle(&mut self, app: &str, wait: Duration) -> Result<String, Error> {
        let wait_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        self.call(OwnedOperation::AppSettle { app: app.to_owned(), wait_millis }).and_then(json)
    }

    /// A step of a backup by a process that copies the files of the server's data directory: the JSON object says the
    /// number of the `cut`, the `start` of the directory in which it was taken, and for how long it is held without another
    /// step (`lease_ms`).
    ///
    /// # Errors
    /// Another backup is under way, the cut is not held, or the server cannot be asked.
    pub fn backup(&mut self, step: crate::wire::BackupStep, cut: u64) -> Result<String, Error> {
        self.call(OwnedOperation::Backup { step, cut }).and_then(json)
    }

    /// Moves a slot to another shard: the JSON object says `slot`, `from`, `to`, whether it was `moved` (it may be there), and
    /// for how long its requests waited (`paused_us`).
    ///
    /// # Errors
    /// Another move, a backup or a change of the apps is under way, it could not be handed over in time, or the server cannot
    /// be asked.
    pub fn move_slot(&mut self, slot: SlotId, to: ShardId) -> Result<String, Error> {
        self.call(OwnedOperation::MoveSlot { slot, to }).and_then(json)
    }
}
