//! The circuit breaker: a rule that has killed too often for one subject only observes there, until enough of that is longer ago.
//!
//! Counted for each rule and subject, so that a tenant which crashes over and over disarms the rule for itself and for nobody
//! else. A subject is its path here, not its identity: a supervisor that starts a service anew makes a new group under the old
//! name, and that is the very loop that has to end.
//!
//! A second limit is for the whole node: it counts the kills of all rules together, but for those about the
//! node itself (their subject is the root), which must go on when a rule about groups has gone wild.
//!
//! The kills of the window are kept, in their order; whether a breaker is open follows from them and from nothing else, so it closes by
//! itself. Allocates nothing once made.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cgroup::path::GroupPath;
use crate::policy::model::{KillLimit, Policy};

/// The limits that a policy sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For each rule and subject.
    pub each: Option<KillLimit>,
    /// For all rules together, but for those about the node.
    pub node: Option<KillLimit>,
}

impl Limits {
    /// Those of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Limits {
        Limits { each: policy.limit, node: policy.node_limit }
    }

    /// How long a kill counts.
    fn longest(&self) -> Duration {
        self.each.iter().chain(&self.node).map(|limit| limit.per).max().unwrap_or_default()
    }
}

/// In the place of a rule's index: all rules but those about the node.
pub const EVERY_RULE: u16 = u16::MAX - 1;

/// In the place of a rule that a reload dropped: its kills still count for the node.
const DROPPED: u16 = u16::MAX;

#[derive(Clone, Debug)]
struct Kill {
    rule: u16,
    subject: GroupPath,
    at: Duration,
}

/// An open breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Index of the rule, or [`EVERY_RULE`].
    pub rule: u16,
    /// The subject; the root for [`EVERY_RULE`].
    pub subject: GroupPath,
    /// When it closes, unless there is another kill.
    pub until: Duration,
}

/// The kills that count.
#[derive(Debug)]
pub struct Breaker {
    kills: VecDeque<Kill>,
    capacity: usize,
    root: GroupPath,
}

impl Breaker {
    /// Remembers up to `capacity` kills (at least one). If there are more within a limit's time, the oldest is forgotten: the breaker that it
    /// counted for may then open a kill late.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Breaker {
        let capacity = capacity.max(1);
        Breaker { kills: VecDeque::with_capacity(capacity), capacity, root: GroupPath::root() }
    }

    /// A kill for this rule and subject. Whether a breaker is open by it.
    pub fn killed(&mut self, now: Duration, limits: &Limits, rule: u16, subject: &GroupPath) -> bool {
        if *limits == Limits::default() {
            self.kills.clear();
            return false;
        }
        self.expire(now, limits);
        if self.kills.len() >= self.capacity {
            self.kills.pop_front();
        }
        self.kills.push_back(Kill { rule, subject: subject.clone(), at: now });
        let each = limits.each.is_some_and(|limit| self.open_until(now, &limit, rule, subject).is_some());
        each || limits.node.is_some_and(|limit| self.node_open_until(now, &limit, 0).is_some())
    }

    /// Forgets what no longer counts.
    pub fn expire(&mut self, now: Duration, limits: &Limits) {
        let longest = limits.longest();
        while self.kills.front().is_some_and(|kill| !counts(kill, now, longest)) {
            self.kills.pop_front();
        }
    }

    /// Until when the rule may only observe for this subject; `None` if it may act.
    #[must_use]
    pub fn open_until(&self, now: Duration, limit: &KillLimit, rule: u16, subject: &GroupPath) -> Option<Duration> {
        // Counted from the latest back: when the one that fills the limit is too old, it is no longer full.
        let of_pair = self.kills.iter().rev().filter(|kill| kill.rule == rule && kill.subject == *subject);
        let filling = of_pair.take_while(|kill| counts(kill, now, limit.per)).nth((limit.kills as usize).saturating_sub(1))?;
        Some(filling.at.saturating_add(limit.per))
    }

    /// Until when all rules but those about the node may only observe; `None` if they may act. `under_way` are
    /// their ladders whose kill is yet to come: many begin at the same moment, and the limit must hold then too.
    #[must_use]
    pub fn node_open_until(&self, now: Duration, limit: &KillLimit, under_way: usize) -> Option<Duration> {
        let Some(left) = (limit.kills as usize).checked_sub(under_way.saturating_add(1)) else {
            return Some(now.saturating_add(limit.per));
        };
        let of_groups = self.kills.iter().rev().filter(|kill| !kill.subject.is_root());
        let filling = of_groups.take_while(|kill| counts(kill, now, limit.per)).nth(left)?;
        Some(filling.at.saturating_add(limit.per))
    }

    /// Every open breaker: the node's, then the others in the order of their last kills.
    pub fn open<'a>(&'a self, now: Duration, limits: &'a Limits) -> impl Iterator<Item = Open> + 'a {
        let node = limits.node.and_then(|limit| self.node_open_until(now, &limit, 0));
        let node = node.map(|until| Open { rule: EVERY_RULE, subject: self.root.clone(), until });
        let each = limits.each.into_iter().flat_map(move |limit| {
            let known = self.kills.iter().enumerate().filter(|(_, kill)| kill.rule != DROPPED);
            known.filter_map(move |(at, kill)| {
                let same = |other: &Kill| other.rule == kill.rule && other.subject == kill.subject;
                let last = !self.kills.iter().skip(at + 1).any(same);
                let until = self.open_until(now, &limit, kill.rule, &kill.subject).filter(|_| last)?;
                Some(Open { rule: kill.rule, subject: kill.subject.clone(), until })
            })
        });
        node.into_iter().chain(each)
    }

    /// The policy was replaced: rules keep their kills under their new index. `None` is a rule that is no more: its
    /// kills count for the node only.
    pub fn renumber(&mut self, new_index: impl Fn(u16) -> Option<u16>) {
        for kill in &mut self.kills {
            kill.rule = new_index(kill.rule).unwrap_or(DROPPED);
        }
    }
}

/// Whether a kill is within so much time.
fn counts(kill: &Kill, now: Duration, per: Duration) -> bool {
    kill.at.saturating_add(per) > now
}
