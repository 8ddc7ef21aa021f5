//! Files of the store that several parts of slot groups may name, because a slot has moved from one to another. Each of these
//! shards lets go of such a file by itself; it goes when nobody is left who names it, which shard 0 finds out.
//!
//! Who does not name a file can come to name it only by a slot that moves there from who does, and shard 0, which leads all
//! moves, asks when none is under way. So if every shard says that neither its parts, nor its roots, nor a backup need a file,
//! then that stays so, whatever happens between their answers. Nothing of this is stored: the next start reads all roots and
//! removes what nobody names.

use super::Shard;
use super::moves::MoveItem;
use gristmill_base::ids::ShardId;
use gristmill_base::placement::group_of_part;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::store::{FileKind, FileNumber, Group, Manifest, file_path};
use std::collections::BTreeSet;

/// A file of a slot group.
pub(crate) type SharedFile = (u16, FileNumber, FileKind);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SharedFiles {
    /// Those that parts of other shards, or another part of this one, may name as well.
    all: BTreeSet<SharedFile>,
    /// Of these, those that no part here names any more; but the root on the disk may, or a backup.
    let_go: BTreeSet<SharedFile>,
    /// At shard 0: those that a shard has let go of, to be asked about.
    to_ask: BTreeSet<SharedFile>,
    /// At shard 0: what is being asked.
    question: Option<Question>,
    /// At shard 0: how often it has asked.
    asked: u64,
}

/// Who names these files?
#[derive(Debug)]
struct Question {
    number: u64,
    /// Those that nobody who has answered names.
    unnamed: BTreeSet<SharedFile>,
    /// Shards that have not answered.
    missing: u16,
}

impl SharedFiles {
    /// As recovery has it.
    pub(super) fn of(all: BTreeSet<SharedFile>) -> Self {
        Self { all, ..Self::default() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether a root is wanted with which some of them are let go of.
    pub(super) fn wait_for_root(&self) -> bool {
        !self.let_go.is_empty()
    }

    /// Whether shard 0 has something to ask, and asks nothing.
    pub(super) fn may_ask(&self) -> bool {
        self.question.is_none() && !self.to_ask.is_empty()
    }
}

fn names(manifest: Option<&Manifest>) -> BTreeSet<SharedFile> {
    manifest.iter().flat_map(|manifest| manifest.files()).collect()
}

impl Shard {
    /// Files of a part that another part may name from now on.
    pub(super) fn share(&mut self, part: u16, files: &Group) {
        let group = group_of_part(part);
        let sorted = files.files().map(|file| (group, file.number, FileKind::Sorted));
        let values = files.values.keys().map(|file| (group, *file, FileKind::Values));
        let shared = &mut self.moves.shared;
        for file in sorted.chain(values) {
            shared.let_go.remove(&file);
            shared.all.insert(file);
        }
    }

    /// Files of a part are not named by it any more: those that nobody else may name go with the next root.
    pub(super) fn part_lets_go(&mut self, part: u16, files: impl IntoIterator<Item = (FileNumber, FileKind)>) {
        let group = group_of_part(part);
        let mut here: Option<BTreeSet<SharedFile>> = None;
        for (number, kind) in files {
            let file = (group, number, kind);
            if self.moves.shared.all.contains(&file) && !planted::is(Bug::MovedRowsRemoved) {
                reached("file of a moved slot stays for its other shard");
                let here = here.get_or_insert_with(|| names(Some(self.checkpoints.manifest())));
                if here.contains(&file) {
                    reached("file that two parts of one shard name let go of by one");
                } else {
                    self.moves.shared.let_go.insert(file);
                }
                continue;
            }
            self.checkpoints.stale(file_path(part, number, kind));
        }
    }

    /// The root is durable: shard 0 hears which shared files are needed here no longer.
    pub(super) fn tell_let_go(&mut self) {
        if self.moves.shared.let_go.is_empty() || self.checkpoints.cuts.holds_files() {
            return;
        }
        let named = self.named_files();
        let (kept, gone): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.moves.shared.let_go).into_iter().partition(|file| named.contains(file));
        self.moves.shared.let_go = kept;
        if !gone.is_empty() {
            self.tell_leader(MoveItem::LetGo(gone));
        }
    }

    /// What the parts of this shard name, or a root that a start may find.
    fn named_files(&self) -> BTreeSet<SharedFile> {
        let mut named = names(Some(self.checkpoints.manifest()));
        for content in self.checkpoints.stored_contents() {
            named.append(&mut names(content.manifest.as_ref()));
        }
        named
    }

    /// Asks about what was let go of, when no slot is on its way. Only at the leader.
    pub(super) fn ask_about_files(&mut self) {
        let shards = self.config.shard_count;
        let shared = &mut self.moves.shared;
        shared.asked += 1;
        let (number, unnamed) = (shared.asked, std::mem::take(&mut shared.to_ask));
        shared.question = Some(Question { number, unnamed: unnamed.clone(), missing: shards });
        for shard in (0..shards).map(ShardId) {
            self.say_move(shard, MoveItem::WhoNames(number, unnamed.clone()));
        }
    }

    /// A shard has let go of files. Only at the leader.
    pub(super) fn files_let_go(&mut self, files: BTreeSet<SharedFile>) {
        self.moves.shared.to_ask.extend(files);
    }

    /// Which of these files does this shard need?
    pub(super) fn say_who_names(&mut self, number: u64, files: &BTreeSet<SharedFile>) {
        let (is_held, named) = (self.checkpoints.cuts.holds_files(), self.named_files());
        let here = names(Some(self.checkpoints.manifest()));
        let needed: BTreeSet<SharedFile> =
            files.iter().filter(|file| is_held || named.contains(file)).copied().collect();
        // Those that no part names are said again once the root on the disk, or the backup, is over.
        self.moves.shared.let_go.extend(needed.iter().filter(|file| !here.contains(file)));
        self.tell_leader(MoveItem::Named(number, needed));
    }

    /// A shard needs these of the files that were asked about. Only at the leader.
    pub(super) fn files_are_named(&mut self, number: u64, needed: &BTreeSet<SharedFile>) {
        let Some(question) = self.moves.shared.question.as_mut().filter(|question| question.number == number) else {
            return;
        };
        question.missing -= 1;
        question.unnamed.retain(|file| !needed.contains(file));
        if question.missing > 0 && !planted::is(Bug::FirstWordOnSharedFiles) {
            return;
        }
        let gone = self.moves.shared.question.take().map(|question| question.unnamed).unwrap_or_default();
        if gone.is_empty() {
            return;
        }
        for file in &gone {
            reached("shared file removed while the server runs");
            self.checkpoints.stale(file_path(file.0, file.1, file.2));
        }
        self.checkpoints.root_is_due();
        for shard in (0..self.config.shard_count).map(ShardId) {
            self.say_move(shard, MoveItem::Gone(gone.clone()));
        }
    }

    /// Nobody names these files, and they go.
    pub(super) fn files_are_gone(&mut self, files: &BTreeSet<SharedFile>) {
        let shared = &mut self.moves.shared;
        shared.all.retain(|file| !files.contains(file));
        shared.let_go.retain(|file| !files.contains(file));
    }
}
