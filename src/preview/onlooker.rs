//! One look at the tree of groups, with what a judgement needs: no watches, no triggers, no threads, nothing held open.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cgroup::group::ReadBuf;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::decide::facts::NodeFacts;
use crate::gather::below::is_below;
use crate::gather::court::Court;
use crate::gather::own::{Finder, Own};
use crate::gather::sight::Sight;
use crate::policy::model::Policy;
use crate::sense::lms::{self, Lms};
use crate::sense::node::Node;
use crate::sense::process::Processes;
use crate::sense::tree::{Slot, Tree};
use crate::sense::trend::Trends;

/// Who looks on.
#[derive(Debug)]
pub struct Onlooker {
    /// The groups.
    pub tree: Tree,
    /// Facts and judgements.
    pub court: Court,
    /// The pid of the oomwarden that is running here.
    pub daemon: Option<i32>,
    node: Node,
    lms: Option<Lms>,
    processes: Processes,
    trends: Trends,
    /// For reading files of groups.
    pub buffer: ReadBuf,
    since: Instant,
}

impl Onlooker {
    /// Looks at all groups. `daemon` is the pid of the oomwarden that is running here, if one is.
    ///
    /// # Errors
    /// What could not be opened.
    pub fn look(root: Arc<Root>, policy: &Policy, daemon: Option<i32>) -> io::Result<Onlooker> {
        // One that has just ended is none.
        let finder = daemon.and_then(|pid| Finder::of(pid).ok());
        Ok(Onlooker {
            tree: Tree::scan_once(root, &Arc::new(policy.clone()))?,
            daemon: daemon.filter(|_| finder.is_some()),
            court: Court::with_own(finder),
            node: Node::open()?,
            // As if it weren't loaded where it can't be read.
            lms: Lms::open(Path::new(lms::PATH)).ok().flatten(),
            processes: Processes::open()?,
            trends: Trends::default(),
            buffer: ReadBuf::new(),
            since: Instant::now(),
        })
    }

    /// Notes usage and stall, waits, and notes them again: for rules that rank by growth or pressure.
    pub fn watch_for(&mut self, time: Duration) {
        self.trends.note(&self.tree, self.since.elapsed(), &mut self.buffer);
        std::thread::sleep(time);
        self.note();
    }

    /// Looks for groups that came or went, and notes usage and stall.
    pub fn note(&mut self) {
        // Who came meanwhile stands to be judged, too.
        self.tree.rescan_here();
        self.trends.note(&self.tree, self.since.elapsed(), &mut self.buffer);
    }

    /// The group that the running oomwarden is in, if it is below this root and can be told.
    pub fn daemon_slot(&mut self) -> Option<Slot> {
        let (court, mut sight) = self.in_session();
        match court.own(&mut sight) {
            Own::Inside(id) => self.tree.slot_of(id),
            Own::Outside | Own::Unknown => None,
        }
    }

    /// Whether a group is `top` or stands below it.
    #[must_use]
    pub fn is_below(&self, slot: Slot, top: Slot) -> bool {
        is_below(&self.tree, slot, top)
    }

    /// The court, and what it looks at.
    pub fn in_session(&mut self) -> (&mut Court, Sight<'_>) {
        let Onlooker { tree, court, processes, trends, buffer, .. } = self;
        (court, Sight { tree, processes, trends, buffer })
    }

    /// The node's memory now.
    pub fn read_node(&mut self) -> NodeFacts {
        let mut node = self.node.read(&mut self.buffer);
        node.lms = self.lms.as_ref().and_then(|lms| lms.read(&mut self.buffer).ok()).map(|report| report.facts());
        node
    }

    /// Gathers the facts for a judgement by this rule of this subject.
    pub fn gather(&mut self, policy: &Policy, rule: usize, subject: Slot) {
        let (now, node) = (self.since.elapsed(), self.read_node());
        let (court, mut sight) = self.in_session();
        court.gather_from(policy, rule, subject, now, node, &mut sight, |_, _| false);
    }

    /// The group at a path.
    #[must_use]
    pub fn at(&self, path: &GroupPath) -> Option<Slot> {
        self.tree.slot_at(path)
    }

    /// The path of a group.
    #[must_use]
    pub fn path(&self, slot: Slot) -> Option<&GroupPath> {
        self.tree.get(slot).map(|node| &node.group.path)
    }

    /// The groups that a rule watches, in the order of their paths.
    #[must_use]
    pub fn subjects(&self, rule: usize) -> Vec<Slot> {
        let watched = |slot: &Slot| self.tree.get(*slot).is_some_and(|node| node.class.subject_of.contains(rule));
        let mut slots: Vec<Slot> = self.tree.slots().filter(watched).collect();
        slots.sort_by(|a, b| self.path(*a).cmp(&self.path(*b)));
        slots
    }
}
