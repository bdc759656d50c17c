//! The circuit breaker: a rule that has killed too often for one subject only observes there, until enough of that is longer ago.
//!
//! Counted for each rule and subject, so that a tenant which crashes over and over disarms the rule for itself and for nobody
//! else. A subject is its path here, not its identity: a supervisor that starts a service anew makes a new group under the old
//! name, and that is the very loop that has to end.
//!
//! The kills of the window are kept, in their order; whether a breaker is open follows from them and from nothing else, so it closes by
//! itself. Allocates nothing once made.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cgroup::path::GroupPath;
use crate::policy::model::KillLimit;

#[derive(Clone, Debug)]
struct Kill {
    rule: u16,
    subject: GroupPath,
    at: Duration,
}

/// An open breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Index of the rule.
    pub rule: u16,
    /// The subject.
    pub subject: GroupPath,
    /// When it closes, unless there is another kill.
    pub until: Duration,
}

/// The kills that count.
#[derive(Debug)]
pub struct Breaker {
    kills: VecDeque<Kill>,
    capacity: usize,
}

impl Breaker {
    /// Remembers up to `capacity` kills (at least one). If there are more within a limit's time, the oldest is forgotten: the breaker that it
    /// counted for may then open a kill late.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Breaker {
        let capacity = capacity.max(1);
        Breaker { kills: VecDeque::with_capacity(capacity), capacity }
    }

    /// A kill for this rule and subject. Whether the breaker is open by it.
    pub fn killed(&mut self, now: Duration, limit: &KillLimit, rule: u16, subject: &GroupPath) -> bool {
        self.expire(now, limit);
        if self.kills.len() >= self.capacity {
            self.kills.pop_front();
        }
        self.kills.push_back(Kill { rule, subject: subject.clone(), at: now });
        self.open_until(now, limit, rule, subject).is_some()
    }

    /// Forgets what no longer counts.
    pub fn expire(&mut self, now: Duration, limit: &KillLimit) {
        while self.kills.front().is_some_and(|kill| !counts(kill, now, limit)) {
            self.kills.pop_front();
        }
    }

    /// Until when the rule may only observe for this subject; `None` if it may act.
    #[must_use]
    pub fn open_until(&self, now: Duration, limit: &KillLimit, rule: u16, subject: &GroupPath) -> Option<Duration> {
        // Counted from the latest back: when the one that fills the limit is too old, it is no longer full.
        let of_pair = self.kills.iter().rev().filter(|kill| kill.rule == rule && kill.subject == *subject);
        let filling = of_pair.take_while(|kill| counts(kill, now, limit)).nth((limit.kills as usize).saturating_sub(1))?;
        Some(filling.at.saturating_add(limit.per))
    }

    /// Every open breaker, in the order of their last kills.
    pub fn open<'a>(&'a self, now: Duration, limit: &'a KillLimit) -> impl Iterator<Item = Open> + 'a {
        self.kills.iter().enumerate().filter_map(move |(at, kill)| {
            let same = |other: &Kill| other.rule == kill.rule && other.subject == kill.subject;
            let last = !self.kills.iter().skip(at + 1).any(same);
            let until = self.open_until(now, limit, kill.rule, &kill.subject).filter(|_| last)?;
            Some(Open { rule: kill.rule, subject: kill.subject.clone(), until })
        })
    }

    /// The policy was replaced: rules keep their kills under their new index; `None` is a rule that is no more.
    pub fn renumber(&mut self, new_index: impl Fn(u16) -> Option<u16>) {
        self.kills.retain_mut(|kill| new_index(kill.rule).map(|rule| kill.rule = rule).is_some());
    }
}

/// Whether a kill is within the limit's time.
fn counts(kill: &Kill, now: Duration, limit: &KillLimit) -> bool {
    kill.at.saturating_add(limit.per) > now
}
