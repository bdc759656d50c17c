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
use crate::policy::model::Policy;
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
    pub fn adopt(&mut self, policy: &Arc<Policy>, renumbered: impl Fn(u16) -> Option<u16> + Copy) {
        self.limits = Limits::of(policy);
        self.breaker.renumber(renumbered);
        self.open.retain_mut(|open| open.rule == EVERY_RULE || renumbered(open.rule).map(|rule| open.rule = rule).is_some());
        self.breakers_due = Some(Duration::ZERO);
        self.changed();
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
        let (mut opened, mut closed) = (false, false);
        let Switches { open, seen, limits, .. } = &mut self.switches;
        let policy = &self.policy;
        let answers = |one: &Open| one.subject.is_root() && answering(policy).any(|rule| rule_index(rule) == one.rule);
        let name = |rule: u16| policy.rules.get(usize::from(rule)).map_or("?", |rule| &*rule.name);
        for one in seen.iter().filter(|one| !open.iter().any(|other| same(one, other))) {
            opened |= answers(one);
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
            closed |= answers(one);
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
