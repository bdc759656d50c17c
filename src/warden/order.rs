//! In which order the notices of one turn are judged.
//!
//! Rules about the node's own level come first: nobody is served while the node runs out. Of nested subjects the
//! deepest comes first, because its trouble shows in everything above it; judged the other way round, an innocent
//! sibling would die for it. Among all others whoever would be missed least comes first, then the fattest.

use super::pending::Pending;
use crate::cgroup::GroupId;
use crate::decide::verdict::Notice;
use crate::gather::below::is_root;
use crate::sense::tree::Tree;

/// Whether a notice tells of the node's own level: available memory, free swap, the kernel module's signal.
pub(super) fn is_about_the_node(tree: &Tree, pending: &Pending) -> bool {
    let level = matches!(pending.notice, Notice::Available(..) | Notice::SwapFree(..) | Notice::Lms(_));
    level && is_root(tree, pending.subject)
}

/// Orders batches of up to a number of notices without allocating.
#[derive(Debug)]
pub(super) struct Order {
    /// The batch's subjects, by id, each with the number of notices that are still to come for subjects below it.
    subjects: Vec<(GroupId, u32)>,
}

impl Order {
    /// For batches of so many notices.
    pub(super) fn with_capacity(notices: usize) -> Order {
        Order { subjects: Vec::with_capacity(notices) }
    }

    /// Adds to the count of every subject above one.
    fn count(&mut self, tree: &Tree, subject: GroupId, change: i32) {
        let mut at = tree.slot_of(subject).and_then(|slot| tree.get(slot)).and_then(|node| node.parent);
        while let Some(node) = at.and_then(|slot| tree.get(slot)) {
            if let Ok(place) = self.subjects.binary_search_by_key(&node.group.id, |(id, _)| *id) {
                self.subjects[place].1 = self.subjects[place].1.saturating_add_signed(change);
            }
            at = node.parent;
        }
    }

    /// Puts a batch, which was weighed, into the order in which it is judged.
    pub(super) fn arrange(&mut self, tree: &Tree, batch: &mut [Pending]) {
        batch.sort_unstable_by_key(|pending| {
            let (importance, bytes) = pending.weight;
            (!is_about_the_node(tree, pending), importance, std::cmp::Reverse(bytes), pending.subject, pending.rule)
        });
        let first = batch.iter().position(|pending| !is_about_the_node(tree, pending)).unwrap_or(batch.len());
        let batch = &mut batch[first..];
        self.subjects.clear();
        self.subjects.extend(batch.iter().map(|pending| (pending.subject, 0)));
        self.subjects.sort_unstable();
        self.subjects.dedup();
        for pending in batch.iter() {
            self.count(tree, pending.subject, 1);
        }
        // Whoever has none below it among those that are left goes next; the others keep their order.
        for at in 0..batch.len() {
            let subjects = &self.subjects;
            let is_deepest = |pending: &Pending| {
                let place = subjects.binary_search_by_key(&pending.subject, |(id, _)| *id);
                place.is_ok_and(|place| subjects[place].1 == 0)
            };
            let deepest = batch[at..].iter().position(is_deepest).map_or(at, |after| at + after);
            batch[at..=deepest].rotate_right(1);
            self.count(tree, batch[at].subject, -1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::cgroup::path::GroupPath;
    use crate::cgroup::root::Root;
    use crate::policy::model::{EventKind, Policy};

    /// A tree of ordinary directories.
    fn tree(groups: &[&str]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for group in groups {
            fs::create_dir_all(dir.path().join(group.trim_start_matches('/'))).unwrap();
        }
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let fd = rustix::fs::open(dir.path(), flags, rustix::fs::Mode::empty()).unwrap();
        let root = Arc::new(Root { path: dir.path().into(), dir: fd });
        let policy = Arc::new(Policy::builtin().unwrap().policy);
        let tree = Tree::scan_once(root, &policy).unwrap();
        (dir, tree)
    }

    fn id(tree: &Tree, path: &str) -> GroupId {
        let slot = tree.slot_at(&GroupPath::from_bytes(path.as_bytes())).unwrap();
        tree.get(slot).unwrap().group.id
    }

    fn pending(tree: &Tree, path: &str, notice: Notice, importance: i64, mib: u64) -> Pending {
        Pending { rule: 0, subject: id(tree, path), notice, arrived: Duration::ZERO, weight: (importance, mib) }
    }

    #[test]
    fn the_node_comes_first_then_the_deepest_of_those_that_are_nested_then_whoever_is_missed_least() {
        let (_dir, tree) = tree(&["/t/p/small", "/t/p/big", "/u/cheap", "/u/dear"]);
        let oom = Notice::Event(EventKind::Oom, 0, 1);
        let level = Notice::Available(1, Duration::ZERO);
        let mut batch = [
            pending(&tree, "/", oom, 0, 900),
            pending(&tree, "/t", oom, 0, 800),
            pending(&tree, "/u/dear", oom, 5, 700),
            pending(&tree, "/t/p", oom, 0, 600),
            pending(&tree, "/t/p/small", oom, 0, 10),
            pending(&tree, "/u/cheap", oom, -5, 1),
            pending(&tree, "/", level, 9, 0),
        ];
        let mut order = Order::with_capacity(batch.len());
        let room = order.subjects.capacity();
        order.arrange(&tree, &mut batch);
        let names: Vec<String> = batch
            .iter()
            .map(|one| {
                let slot = tree.slot_of(one.subject).unwrap();
                let path = tree.get(slot).unwrap().group.path.to_string();
                if is_about_the_node(&tree, one) { format!("{path} (level)") } else { path }
            })
            .collect();
        assert_eq!(names, ["/ (level)", "/u/cheap", "/t/p/small", "/t/p", "/t", "/u/dear", "/"]);
        assert_eq!(order.subjects.capacity(), room, "nothing is allocated");
    }

    #[test]
    fn a_deep_line_of_subjects_is_ordered_from_its_end() {
        let deep = "/a".repeat(200);
        let (_dir, tree) = tree(&[&deep]);
        let oom = Notice::Event(EventKind::Oom, 0, 1);
        let mut batch: Vec<Pending> = (1..=200).map(|depth| pending(&tree, &deep[..2 * depth], oom, 0, 1000 - depth as u64)).collect();
        Order::with_capacity(256).arrange(&tree, &mut batch);
        let depth = |one: &Pending| tree.get(tree.slot_of(one.subject).unwrap()).unwrap().group.path.as_bytes().len() / 2;
        assert_eq!(batch.iter().map(depth).collect::<Vec<_>>(), (1..=200).rev().collect::<Vec<_>>());
    }
}
