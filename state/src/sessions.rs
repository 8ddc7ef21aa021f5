//! The sessions of a slot, by id. Their order means nothing.

use crate::line_index::LineIndex;
use crate::session::Session;
use gristmill_base::ids::SessionId;
use gristmill_io::prefetch::prefetch;

/// A slab, and an index of it, so that one that is in no near cache costs two waits.
#[derive(Default)]
pub struct Sessions {
    index: LineIndex,
    slab: Vec<Session>,
}

/// Where a session stands; as long as none is removed.
#[derive(Clone, Copy, Debug)]
pub struct SessionPlace(usize);

impl Sessions {
    /// Where a session stands.
    #[must_use]
    pub fn place(&self, id: SessionId) -> Option<SessionPlace> {
        self.find(id).map(SessionPlace)
    }

    /// As [`Self::place`], where it is likely that one: [`Self::prefetch_session`] has just named it.
    #[inline]
    #[must_use]
    pub fn place_likely(&self, id: SessionId, likely: Option<SessionPlace>) -> Option<SessionPlace> {
        let found = likely.and_then(|place| self.slab.get(place.0));
        if found.is_some_and(|session| session.id == id) { likely } else { self.place(id) }
    }

    /// The session at a place, to change.
    pub fn at_mut(&mut self, place: SessionPlace) -> &mut Session {
        &mut self.slab[place.0]
    }

    /// The session at a place.
    #[must_use]
    pub fn at(&self, place: SessionPlace) -> &Session {
        &self.slab[place.0]
    }

    fn find(&self, id: SessionId) -> Option<usize> {
        self.index.find(hash(id), |at| self.slab[at as usize].id == id).map(|at| at as usize)
    }

    /// A session.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.find(id).map(|at| &self.slab[at])
    }

    /// A session, to change.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.find(id).map(|at| &mut self.slab[at])
    }

    /// A session; one that is not there begins.
    pub fn get_or_begin(&mut self, id: SessionId) -> &mut Session {
        let at = self.find(id).unwrap_or_else(|| {
            let at = self.slab.len();
            self.slab.push(Session::new(id));
            self.index.insert(hash(id), at as u32, |at| hash(self.slab[at as usize].id));
            at
        });
        &mut self.slab[at]
    }

    /// First step of warming the caches for a session: asks for its line of the index.
    pub fn prefetch_index(&self, id: SessionId) {
        self.index.prefetch(hash(id));
    }

    /// Second step: asks for the session, and says where it stands as far as its hash tells.
    pub fn prefetch_session(&self, id: SessionId) -> Option<SessionPlace> {
        let at = self.index.find(hash(id), |_| true)? as usize;
        prefetch(&self.slab[at]);
        Some(SessionPlace(at))
    }

    /// Puts a session in, in place of one with its id.
    pub fn insert(&mut self, session: Session) {
        let id = session.id;
        *self.get_or_begin(id) = session;
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: SessionId) {
        let Some(at) = self.find(id) else { return };
        self.index.remove(hash(id), at as u32);
        self.slab.swap_remove(at);
        if let Some(moved) = self.slab.get(at).map(|session| session.id) {
            self.index.remove(hash(moved), self.slab.len() as u32);
            self.index.insert(hash(moved), at as u32, |at| hash(self.slab[at as usize].id));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Memory of all, about: without the replies that are kept for those which have some that are not plain.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slab.capacity() * size_of::<Session>() + self.index.bytes()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slab.iter()
    }

    /// All, in no order, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.slab.iter_mut()
    }
}

/// Fibonacci hashing (Knuth, The Art of Computer Programming, vol. 3, 6.4), its good upper bits brought to both ends.
/// Ids are given out by the server, so nobody chooses them to collide.
fn hash(id: SessionId) -> u64 {
    let product = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_found_until_they_are_removed() {
        let mut sessions = Sessions::default();
        let id = |n: u64| SessionId((7 << 44) | (n << 6) | (n % 3));
        for n in 0..500 {
            assert_eq!(sessions.get_or_begin(id(n)).id, id(n));
            assert_eq!(sessions.get_or_begin(id(n)).id, id(n));
        }
        assert_eq!(sessions.len(), 500);
        for n in (0..500).step_by(2) {
            sessions.remove(id(n));
            sessions.remove(id(n));
        }
        sessions.prefetch_index(id(1));
        let likely = sessions.prefetch_session(id(1));
        for n in 0..500 {
            let found = sessions.place_likely(id(n), likely).map(|place| sessions.at(place).id);
            assert_eq!(found, (n % 2 == 1).then_some(id(n)));
        }
        for n in 0..500 {
            assert_eq!(sessions.get(id(n)).map(|session| session.id), (n % 2 == 1).then_some(id(n)));
        }
        assert_eq!((sessions.len(), sessions.iter().count()), (250, 250));
    }
}
