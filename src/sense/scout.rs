//! The scout: a thread that looks at groups for the warden, since every open in a cgroup directory may wait for a task that
//! waits for memory.
//!
//! The warden hands tasks over and takes findings back when it has time; both go in order, and nothing on the kill path waits
//! for one. A storm of groups is bounded twice: names that wait to be looked at are merged and, beyond a number, made one look
//! at everything ([`Wishes`]); and the scout waits while the warden has too many findings to take.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use nix::sys::eventfd::EventFd;

use super::look::{Finding, Looker, Task};
use crate::cgroup::GroupId;
use crate::threads;

/// Findings that wait for the warden.
const FINDINGS: usize = 256;
/// Names that wait to be looked at.
const WISHES: usize = 4096;
/// Looks that are handed over at a time: names beyond may still be merged.
const AT_A_TIME: usize = 16;

/// The warden's end; or, for a single look, the looking itself.
#[derive(Debug)]
pub enum Scout {
    /// Tasks are done as they come, in place.
    Here(Box<Looker>, VecDeque<Finding>),
    /// By the thread.
    Away(Sender<Task>, Receiver<Finding>),
}

impl Scout {
    /// Looks in place.
    #[must_use]
    pub fn here(looker: Looker) -> Scout {
        Scout::Here(Box::new(looker), VecDeque::new())
    }

    /// From now on a thread looks. `mail` is written whenever it has found something.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn depart(&mut self, mail: Arc<EventFd>) -> io::Result<()> {
        let (tasks, inbox) = channel();
        let (outbox, findings) = sync_channel(FINDINGS);
        let Scout::Here(looker, left) = std::mem::replace(self, Scout::Away(tasks, findings)) else { return Ok(()) };
        debug_assert!(left.is_empty(), "everything found so far is in the tree");
        threads::vital("scout", 256 * 1024, move || work(*looker, &inbox, &outbox, &mail))
    }

    /// Hands a task over.
    pub fn send(&mut self, task: Task) {
        match self {
            Scout::Here(looker, findings) => looker.perform(task, &mut |finding| findings.push_back(finding)),
            // The scout lives as long as this end does.
            Scout::Away(tasks, _) => drop(tasks.send(task)),
        }
    }

    /// The next finding, if one is there.
    pub fn finding(&mut self) -> Option<Finding> {
        match self {
            Scout::Here(_, findings) => findings.pop_front(),
            Scout::Away(_, findings) => findings.try_recv().ok(),
        }
    }
}

fn work(mut looker: Looker, inbox: &Receiver<Task>, outbox: &SyncSender<Finding>, mail: &EventFd) {
    for task in inbox {
        looker.perform(task, &mut |finding| {
            // The warden's end is gone: so is the need.
            let _ = outbox.send(finding);
            // Only full when the warden has not read for ages; it will.
            let _ = mail.write(1);
        });
    }
}

/// What is to be looked at because of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The group above.
    pub parent: GroupId,
    /// The name.
    pub name: Vec<u8>,
    /// When the last notice about the name came: who stands there and was not known is younger than the last who was.
    pub noticed: Duration,
}

/// Names that wait to be looked at, the longest waiting first. A name is there once: what counts is who stands under it when it
/// is looked at. Touches nothing.
#[derive(Debug, Default)]
pub struct Wishes {
    order: VecDeque<(GroupId, Vec<u8>)>,
    noticed: HashMap<(GroupId, Vec<u8>), Duration>,
    under_way: usize,
}

impl Wishes {
    /// Adds a name. `false`: there are too many, and all were let go; everything has to be looked at.
    #[must_use]
    pub fn add(&mut self, wish: Wish) -> bool {
        let key = (wish.parent, wish.name);
        if self.noticed.insert(key.clone(), wish.noticed).is_some() {
            return true;
        }
        self.order.push_back(key);
        if self.order.len() <= WISHES {
            return true;
        }
        self.order.clear();
        self.noticed.clear();
        false
    }

    /// The next to be handed over, unless enough are under way. Each must be followed by [`Wishes::done`].
    pub fn hand_over(&mut self) -> Option<Wish> {
        if self.under_way >= AT_A_TIME {
            return None;
        }
        let key = self.order.pop_front()?;
        let noticed = self.noticed.remove(&key).unwrap_or_default();
        self.under_way += 1;
        Some(Wish { parent: key.0, name: key.1, noticed })
    }

    /// One that was handed over is done.
    pub fn done(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(parent: u64, name: &str, millis: u64) -> Wish {
        Wish { parent: GroupId(parent), name: name.into(), noticed: Duration::from_millis(millis) }
    }

    #[test]
    fn a_name_made_and_removed_over_and_over_is_looked_at_once_with_its_last_notice() {
        let mut wishes = Wishes::default();
        for millis in 0..10 {
            assert!(wishes.add(wish(1, "a", millis)));
        }
        assert!(wishes.add(wish(2, "a", 3)), "under another group it is another name");
        assert_eq!(wishes.hand_over(), Some(wish(1, "a", 9)));
        assert_eq!(wishes.hand_over(), Some(wish(2, "a", 3)));
        assert_eq!(wishes.hand_over(), None);
    }

    #[test]
    fn what_is_noticed_after_a_look_was_handed_over_is_looked_at_again() {
        let mut wishes = Wishes::default();
        assert!(wishes.add(wish(1, "a", 0)));
        assert_eq!(wishes.hand_over(), Some(wish(1, "a", 0)));
        assert!(wishes.add(wish(1, "a", 1)));
        assert_eq!(wishes.hand_over(), Some(wish(1, "a", 1)), "the first look may have been before");
    }

    #[test]
    fn only_so_many_are_under_way_and_the_rest_waits_its_turn() {
        let mut wishes = Wishes::default();
        for at in 0..AT_A_TIME as u64 + 2 {
            assert!(wishes.add(wish(1, &at.to_string(), at)));
        }
        let handed = std::iter::from_fn(|| wishes.hand_over()).count();
        assert_eq!(handed, AT_A_TIME);
        wishes.done();
        assert_eq!(wishes.hand_over().map(|wish| wish.name), Some(AT_A_TIME.to_string().into_bytes()));
        assert_eq!(wishes.hand_over(), None);
    }

    #[test]
    fn too_many_become_one_look_at_everything() {
        let mut wishes = Wishes::default();
        for at in 0..WISHES {
            assert!(wishes.add(wish(1, &at.to_string(), 0)));
        }
        assert!(!wishes.add(wish(1, "one too many", 0)), "the caller is told");
        assert_eq!(wishes.hand_over(), None);
    }
}
