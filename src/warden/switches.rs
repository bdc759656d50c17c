//! What keeps the warden from a deed although a verdict stands: a pause, or an open circuit breaker. Then there is no deed whatever, also none
//! by the kernel module: no hold is taken and no table left for what may not be done.
//!
//! Sensing, judging and recording go on. A ladder under way begins no further rung when deeds are paused; a kill that was written can't be
//! taken back, and its end is waited for and recorded. An open breaker lets a ladder under way go to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Warden;
use super::census::Census;
use super::climbs::Means;
use super::pending::rule_index;
use crate::cgroup::path::GroupPath;
use crate::control::board::{Board, LONGEST_PAUSE, MOST_BREAKERS, Module, Order};
use crate::control::by::By;
use crate::decide::breaker::{Breaker, EVERY_RULE, Limits, Open};
use crate::gather::last_resort::answering;
use crate::policy::model::{EntrySet, KillLimit, Policy};
use crate::record::model::Outcome;

/// Kills that are remembered for the breaker.
const REMEMBERED: usize = 1024;
/// How soon the board is tried again when somebody was reading it.
const SHOW_AGAIN: Duration = Duration::from_millis(20);

/// Pause and breakers.
#[derive(Debug)]
pub struct Switches {
    board: Arc<Board>,
    breaker: Breaker,
    limits: Limits,
    /// The name of the node, which the module's rules are about.
    root: GroupPath,
    paused_until: Option<Duration>,
    paused_by: Option<By>,
    /// Breakers that are known to be open, and a place for the next look at them.
    open: Vec<Open>,
    seen: Vec<Open>,
    /// Rules that answer a hold and whose breaker for the node was closed at the last look.
    answer: EntrySet,
    /// How many are, also beyond these.
    number: usize,
    /// When the next one closes, or that one has opened.
    breakers_due: Option<Duration>,
    /// The board is to be written anew.
    show_due: Option<Duration>,
}

impl Switches {
    /// Nothing is paused, every breaker closed.
    #[must_use]
    pub fn new(board: Arc<Board>, policy: &Arc<Policy>) -> Switches {
        Switches {
            board,
            breaker: Breaker::with_capacity(REMEMBERED),
            limits: Limits::of(policy),
            root: GroupPath::root(),
            paused_until: None,
            paused_by: None,
            open: Vec::with_capacity(MOST_BREAKERS),
            seen: Vec::with_capacity(MOST_BREAKERS),
            answer: answering(policy).collect(),
            number: 0,
            breakers_due: None,
            show_due: Some(Duration::ZERO),
        }
    }

    /// Whether deeds are paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Why a verdict of this rule about this subject may not be carried out; `None` if it may. `under_way` are the ladders
    /// of rules about groups whose kill is yet to come.
    #[must_use]
    pub fn forbids(&self, now: Duration, rule: u16, subject: &GroupPath, under_way: usize) -> Option<Outcome> {
        if self.is_paused() {
            return Some(Outcome::Paused);
        }
        let each = self.limits.each.is_some_and(|limit| self.breaker.open_until(now, &limit, rule, subject).is_some());
        let node = !subject.is_root();
        let node = node && self.limits.node.is_some_and(|limit| self.breaker.node_open_until(now, &limit, under_way).is_some());
        (each || node).then_some(Outcome::Breaker)
    }

    /// Whether the rule may answer a hold, and stand behind the module's table.
    #[must_use]
    pub fn may_answer(&self, now: Duration, rule: usize) -> bool {
        self.forbids(now, rule_index(rule), &self.root, 0).is_none()
    }

    /// A ladder of this rule sent SIGKILL, or its victim is gone by it.
    pub fn killed(&mut self, now: Duration, rule: u16, subject: &GroupPath) {
        if self.breaker.killed(now, &self.limits, rule, subject) {
            self.breakers_due = Some(now);
        }
    }

    /// What the board shows has changed.
    pub fn changed(&mut self) {
        self.show_due = Some(Duration::ZERO);
    }

    /// Another policy took over.
    pub fn adopt(&mut self, now: Duration, policy: &Arc<Policy>, renumbered: impl Fn(u16) -> Option<u16> + Copy) {
        self.breaker.renumber(renumbered);
        // By the old limits: what the new ones change is noticed by the next look.
        self.answer = self.closed_for_node(now, policy);
        self.limits = Limits::of(policy);
        self.open.retain_mut(|open| open.rule == EVERY_RULE || renumbered(open.rule).map(|rule| open.rule = rule).is_some());
        self.breakers_due = Some(Duration::ZERO);
        self.changed();
    }

    /// Rules that answer a hold and whose breaker for the node is closed.
    fn closed_for_node(&self, now: Duration, policy: &Policy) -> EntrySet {
        let open = |limit: &KillLimit, rule| self.breaker.open_until(now, limit, rule_index(rule), &self.root).is_some();
        answering(policy).filter(|rule| !self.limits.each.is_some_and(|limit| open(&limit, *rule))).collect()
    }

    /// Whether, since the last look, a breaker opened for a rule that answers a hold, and whether
    /// one closed. That is asked of the rules: among the breakers that are shown there may be no
    /// room for theirs.
    fn answering_changed(&mut self, now: Duration, policy: &Policy) -> (bool, bool) {
        let answer = self.closed_for_node(now, policy);
        let before = std::mem::replace(&mut self.answer, answer);
        let lacks = |those: &EntrySet, rules: &EntrySet| rules.iter().any(|rule| !those.contains(rule));
        (lacks(&answer, &before), lacks(&before, &answer))
    }

    /// When something must be done without a notice.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        [self.paused_until, self.breakers_due, self.show_due].into_iter().flatten().min()
    }

    /// Looks which breakers are open: how many, and those that there is room for in `seen`.
    fn look(&mut self, now: Duration) {
        self.seen.clear();
        (self.number, self.breakers_due) = (0, None);
        for open in self.breaker.open(now, &self.limits) {
            self.number += 1;
            self.breakers_due = Some(self.breakers_due.map_or(open.until, |due| due.min(open.until)));
            if self.seen.len() < self.seen.capacity() {
                self.seen.push(open);
            }
        }
    }
}

/// Whose order it was, as a log line goes on.
struct Whose(Option<By>);

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |by| write!(f, " by {by}"))
    }
}

/// Whether two are about the same rule and subject.
fn same(one: &Open, other: &Open) -> bool {
    one.rule == other.rule && one.subject == other.subject
}

impl Warden {
    /// Does as the on-call said.
    pub(super) fn take_order(&mut self) {
        let Some((order, by, ticket)) = self.switches.board.take_order() else { return };
        match order {
            Order::Pause(time) => self.pause(time, by),
            Order::Resume => self.resume(format_args!("resumed{}", Whose(by))),
        }
        self.show();
        self.switches.board.done(ticket);
    }

    /// No deed from now on for so long.
    pub(super) fn pause(&mut self, time: Duration, by: Option<By>) {
        let (time, now) = (time.min(LONGEST_PAUSE), self.clock.now());
        (self.switches.paused_until, self.switches.paused_by) = (Some(now + time), by);
        self.switches.changed();
        self.senses.hands_off = true;
        self.senses.oom_groups.allow(false);
        self.counters.set_paused(true);
        self.leave_module();
        let Warden { clock, court, senses, history, records, poller, climbs, switches, .. } = self;
        climbs.halt(&mut Means { clock, court, senses, history, records, poller, switches });
        tracing::warn!("deeds are paused for {} s{}: nobody is killed, sensing and recording go on", time.as_secs(), Whose(by));
    }

    fn resume(&mut self, why: std::fmt::Arguments<'_>) {
        if self.switches.paused_until.take().is_none() {
            return;
        }
        self.switches.paused_by = None;
        self.switches.changed();
        self.senses.hands_off = false;
        self.senses.oom_groups.allow(true);
        self.senses.oom_groups.look_anew();
        self.counters.set_paused(false);
        tracing::warn!("{why}: verdicts are carried out again");
        self.enlist();
    }

    /// Lets the kernel go ahead with a hold under way, and stops being the module's handler.
    pub(super) fn leave_module(&mut self) {
        if let Some(hold) = self.senses.signal.hold() {
            self.senses.signal.pass(hold);
        }
        self.senses.signal.retire(self.clock.now());
        self.untold_lack = true;
        self.switches.changed();
    }

    /// Ends a pause whose time is over, notices breakers that opened or closed, and shows how things stand.
    pub(super) fn mind_switches(&mut self) {
        let now = self.clock.now();
        if self.switches.paused_until.is_some_and(|until| until <= now) {
            self.resume(format_args!("the pause is over"));
        }
        if self.switches.breakers_due.is_some_and(|due| due <= now) {
            self.breakers_changed(now);
        }
        if self.switches.show_due.is_some_and(|due| due <= now) {
            self.show();
        }
    }

    fn breakers_changed(&mut self, now: Duration) {
        self.switches.look(now);
        self.counters.set_breakers(self.switches.number);
        let (opened, closed) = self.switches.answering_changed(now, &self.policy);
        let Switches { open, seen, limits, .. } = &mut self.switches;
        let policy = &self.policy;
        let name = |rule: u16| policy.rules.get(usize::from(rule)).map_or("?", |rule| &*rule.name);
        for one in seen.iter().filter(|one| !open.iter().any(|other| same(one, other))) {
            let limit = if one.rule == EVERY_RULE { limits.node } else { limits.each };
            let (kills, per) = limit.map_or((0, 0), |limit| (limit.kills, limit.per.as_secs()));
            if one.rule == EVERY_RULE {
                let rest = one.until.saturating_sub(now).as_secs();
                tracing::error!(
                    "the node's breaker opens: {kills} kills within {per} s by all rules together; rules about groups only observe for the next {rest} s"
                );
                continue;
            }
            let (rule, subject, rest) = (name(one.rule), &one.subject, one.until.saturating_sub(now).as_secs());
            tracing::warn!(
                "the breaker of rule {rule} for {subject} opens: {kills} kills within {per} s; the rule only observes there for the next {rest} s"
            );
        }
        for one in open.iter().filter(|one| !seen.iter().any(|other| same(one, other))) {
            if one.rule == EVERY_RULE {
                tracing::warn!("the node's breaker closes: verdicts about groups are carried out again");
                continue;
            }
            tracing::warn!("the breaker of rule {} for {} closes: its verdicts are carried out again", name(one.rule), one.subject);
        }
        std::mem::swap(open, seen);
        self.switches.changed();
        if opened || closed {
            let some_may = answering(&self.policy).any(|rule| self.switches.may_answer(now, rule));
            match (self.senses.signal.is_enlisted(), some_may) {
                // Whoever stands in it for the rule's sake must not be killed by it any more.
                (true, true) if opened => self.senses.signal.withdraw_table(now),
                (true, true) => self.senses.signal.table_outdated(now),
                (true, false) => self.leave_module(),
                (false, _) => self.enlist(),
            }
        }
    }

    /// Writes down how things stand, for the server.
    fn show(&mut self) {
        let now = self.clock.now();
        let Warden { switches, senses, .. } = self;
        let Switches { board, open, number, paused_until, paused_by, .. } = &*switches;
        let module = senses.signal.report().map(|report| Module { report: *report, handler: senses.signal.is_enlisted() });
        let Census { groups, timed_groups, armed, timed_triggers } = senses.census();
        let shown = board.show(|standing| {
            standing.shown = Instant::now();
            standing.paused_by = *paused_by;
            standing.paused_until = paused_until.map(|until| standing.shown + until.saturating_sub(now));
            standing.breakers_open = *number;
            standing.breakers.clear();
            for one in open.iter().take(standing.breakers.capacity()) {
                standing.breakers.push(Open { until: one.until.saturating_sub(now), ..one.clone() });
            }
            standing.module = module;
            (standing.groups, standing.timed_groups) = (groups, timed_groups);
            (standing.armed, standing.timed_triggers) = (armed, timed_triggers);
        });
        switches.show_due = if shown { None } else { Some(now + SHOW_AGAIN) };
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EventFd;

    use super::*;
    use crate::policy::{Source, load};

    const POLICY: &str = "
version: 1
limits: {kills: 1 per 1h}
rules:
  - {name: group, watch: /t/*, when: [event: oom_kill]}
  - {name: node, watch: /, when: [lms: oom], victim: {among: /t/*}}
";

    #[test]
    fn breaker_of_a_rule_that_answers_is_noticed_however_many_are_open() {
        let policy = Arc::new(load(&[Source::new("test", POLICY)]).unwrap().policy);
        let board = Board::new(Arc::new(EventFd::new().unwrap()));
        let mut switches = Switches::new(Arc::new(board), &policy);
        let second = Duration::from_secs(1);
        for at in 0..MOST_BREAKERS {
            switches.killed(second, 0, &GroupPath::from_bytes(format!("/t/{at}").as_bytes()));
        }
        switches.look(second);
        assert_eq!((switches.seen.len(), switches.answering_changed(second, &policy)), (MOST_BREAKERS, (false, false)));
        switches.killed(2 * second, 1, &GroupPath::root());
        switches.look(2 * second);
        assert!(!switches.seen.iter().any(|open| open.subject.is_root()), "there is no room for it");
        assert_eq!(switches.answering_changed(2 * second, &policy), (true, false));
        assert_eq!(switches.answering_changed(2 * second, &policy), (false, false));
        assert_eq!(switches.answering_changed(Duration::from_secs(3602), &policy), (false, true));
        // A policy with other limits, in which the rule has another place.
        switches.killed(Duration::from_secs(4000), 1, &GroupPath::root());
        let now = Duration::from_secs(4001);
        assert_eq!(switches.answering_changed(now, &policy), (true, false));
        let text = POLICY.replace("kills: 1", "kills: 2").replace("  - {name: group, watch: /t/*, when: [event: oom_kill]}\n", "");
        let other = Arc::new(load(&[Source::new("test", text)]).unwrap().policy);
        switches.adopt(now, &other, |rule| rule.checked_sub(1));
        assert_eq!(switches.answering_changed(now, &other), (false, true));
        switches.adopt(now, &policy, |rule| rule.checked_add(1));
        assert_eq!(switches.answering_changed(now, &policy), (true, false));
    }
}
