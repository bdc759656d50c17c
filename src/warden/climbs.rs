//! Ladders under way: which victim, which rung, and what their end means.
//!
//! A few places made beforehand; a climb keeps the policy that began it, so that a reload changes nothing about it. Empty
//! groups are noticed by EPOLLPRI on cgroup.events, by inotify, and, while something is dying, by looking every few
//! milliseconds: either notice alone can be lost in a starving machine.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use rustix::event::{PollFd, PollFlags, poll};

use super::Clock;
use super::court::{Court, Ruling};
use super::hooks::{Ask, Hooks};
use super::reach::Reach;
use super::senses::{Senses, below};
use super::switches::Switches;
use crate::act::actors::{Actors, Job};
use crate::act::deed::Deed;
use crate::act::ladder::{End, Ladder, Next};
use crate::act::rung::RungOutcome;
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, Group};
use crate::cgroup::parse;
use crate::cgroup::path::GroupPath;
use crate::decide::history::{DeedEnd, History, freed_little};
use crate::decide::recovery::{ScopeFacts, recovered};
use crate::decide::verdict::Notice;
use crate::policy::model::{KillWhat, Policy, Rule, Rung};
use crate::record::model::{JudgementRecord, MAX_RUNGS, Outcome, RungRecord};
use crate::record::pool::Pool as Records;
use crate::sense::poller::{Key, Poller, Token};
use crate::sense::tree::{Slot, Tree};

/// Ladders at a time. More independent troubles than this at one moment wait for the next notice.
const CLIMBS: usize = 8;
/// Jobs at a time: each ladder may have one stuck and one under way.
const JOBS: usize = 2 * CLIMBS;
/// Victims that are tried in one ladder.
const TRIES: usize = 4;
/// How often a dying victim is looked at besides its notices.
const LOOK: Duration = Duration::from_millis(10);

/// What a ladder begins with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The policy.
    pub policy: &'a Arc<Policy>,
    /// Index of the rule.
    pub rule: u16,
    /// The subject.
    pub subject: GroupId,
    /// The victim.
    pub victim: Slot,
    /// Whose shortage it is.
    pub scope: GroupId,
    /// What was noticed.
    pub notice: Notice,
    /// When it arrived.
    pub arrived: Duration,
    /// The record, filled up to the verdict.
    pub record: Option<Box<JudgementRecord>>,
    /// The kernel's hold that this answers: the kill is the first rung.
    pub hold: Option<u64>,
}

/// What a climb works with; all of it is the warden's.
#[derive(Debug)]
pub struct Means<'a> {
    /// The time.
    pub clock: &'a Clock,
    /// Facts and judgements.
    pub court: &'a mut Court,
    /// What is held open.
    pub senses: &'a mut Senses,
    /// Cool-downs.
    pub history: &'a mut History,
    /// Where records go.
    pub records: &'a Records,
    /// The epoll set.
    pub poller: &'a Poller,
    /// Pause and breakers.
    pub switches: &'a mut Switches,
}

/// One ladder under way.
#[derive(Debug)]
struct Climb {
    policy: Arc<Policy>,
    rule: u16,
    subject: GroupId,
    /// Its name, for the breaker.
    subject_path: GroupPath,
    scope: GroupId,
    victim: Arc<Group>,
    notice: Notice,
    arrived: Duration,
    record: Option<Box<JudgementRecord>>,
    rungs: Vec<RungRecord>,
    ladder: Ladder,
    attempt: u32,
    before: Option<ScopeFacts>,
    usage: Option<u64>,
    processes: Option<u32>,
    one: bool,
    pidfd: Option<OwnedFd>,
    failed: [Option<GroupId>; TRIES],
    /// The rule's index in the policy in force, for its cool-down; `None` once a reload dropped the rule.
    key: Option<u16>,
    /// The kernel's hold that the next kill answers.
    hold: Option<u64>,
    /// Another policy is in force: this one's indices mean nothing to the groups any more.
    superseded: bool,
    look_at: Option<Duration>,
}

impl Climb {
    fn rule(&self) -> Option<&Rule> {
        self.policy.rules.get(usize::from(self.rule))
    }

    /// Time since the notice: the ladder's clock.
    fn since(&self, now: Duration) -> Duration {
        now.saturating_sub(self.arrived)
    }

    /// Whether the victim is gone: the single process has ended, or nobody is in the group any more.
    fn is_gone(&self, senses: &mut Senses) -> bool {
        if self.one {
            let Some(pidfd) = &self.pidfd else { return false };
            let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
            return poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0);
        }
        // A directory can only be removed when nobody is left in it.
        if senses.tree.slot_of(self.victim.id).is_none() {
            return true;
        }
        match self.victim.read(File::GroupEvents, &mut senses.buffer, parse::populated) {
            Ok(populated) => populated.flatten() == Some(false),
            Err(error) => error.is_gone(),
        }
    }
}

/// A scope whose trouble has just been dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relieved {
    /// The scope.
    pub scope: GroupId,
    /// The victim, if it was a whole group and is gone.
    pub gone: Option<GroupId>,
}

/// All ladders.
#[derive(Debug)]
pub struct Climbs {
    places: [Option<Box<Climb>>; CLIMBS],
    generations: [u32; CLIMBS],
    actors: Actors,
    hooks: Option<Hooks>,
    relieved: Vec<Relieved>,
    /// What a climb that is not under way points at, so that it keeps nothing of its last victim open.
    blank: (Arc<Policy>, Arc<Group>),
    #[expect(clippy::vec_box, reason = "a climb goes from here to its place and back by its box: that allocates nothing")]
    spare: Vec<Box<Climb>>,
}

impl Climbs {
    /// Starts the actors.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(mail: Arc<EventFd>, groups: usize, policy: &Arc<Policy>, root: &Arc<Group>, reach: Reach) -> io::Result<Climbs> {
        let blank = || {
            Box::new(Climb {
                policy: Arc::clone(policy),
                rule: 0,
                subject: root.id,
                subject_path: root.path.clone(),
                scope: root.id,
                victim: Arc::clone(root),
                notice: Notice::Available(0, Duration::ZERO),
                arrived: Duration::ZERO,
                record: None,
                rungs: Vec::with_capacity(MAX_RUNGS),
                ladder: Ladder::new(false, None),
                attempt: 0,
                before: None,
                usage: None,
                processes: None,
                one: false,
                pidfd: None,
                failed: [None; TRIES],
                key: None,
                hold: None,
                superseded: false,
                look_at: None,
            })
        };
        Ok(Climbs {
            places: [const { None }; CLIMBS],
            generations: [0; CLIMBS],
            actors: Actors::start(mail, JOBS, groups.max(64), reach.listeners.as_ref())?,
            hooks: reach.hooks,
            relieved: Vec::with_capacity(CLIMBS * TRIES),
            blank: (Arc::clone(policy), Arc::clone(root)),
            spare: (0..CLIMBS).map(|_| blank()).collect(),
        })
    }

    /// Makes room for victims of so many groups. Not on the kill path.
    pub fn reserve(&mut self, groups: usize) {
        self.actors.reserve(groups);
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    fn climbs(&self) -> impl Iterator<Item = &Climb> {
        self.places.iter().flatten().map(|climb| &**climb)
    }

    /// Whether a deed on the group, or on one above it, is under way.
    #[must_use]
    pub fn is_dying(&self, tree: &Tree, slot: Slot) -> bool {
        let Some(id) = tree.get(slot).map(|node| node.group.id) else { return false };
        self.climbs().any(|climb| !climb.one && below(tree, id, climb.victim.id))
    }

    /// Whether a ladder in the trouble of `scope`, against `victim`, would be on the line of one that is under way.
    #[must_use]
    pub fn conflicts(&self, tree: &Tree, scope: GroupId, victim: Slot) -> bool {
        let Some(victim) = tree.get(victim).map(|node| node.group.id) else { return true };
        let on_line = |a: GroupId, b: GroupId| below(tree, a, b) || below(tree, b, a);
        self.places.iter().all(Option::is_some)
            || self.climbs().any(|climb| on_line(climb.scope, scope) || on_line(climb.victim.id, victim))
    }

    /// The kernel is about to kill, so no ladder against this line of groups, or in the trouble of `scope`, may take its time: the
    /// next rung is the kill, as an answer to `hold`. Whether there is such a ladder; of one that is killing already `hold` is
    /// acknowledged here.
    pub fn hurry(&mut self, scope: GroupId, victim: Option<GroupId>, hold: u64, with: &mut Means<'_>) -> bool {
        let mut found = false;
        for place in 0..CLIMBS {
            let tree = &with.senses.tree;
            let on_line = |a: GroupId, b: GroupId| below(tree, a, b) || below(tree, b, a);
            let concerned = |climb: &Climb| climb.scope == scope || victim.is_some_and(|victim| on_line(climb.victim.id, victim));
            if !self.places[place].as_deref().is_some_and(concerned) {
                continue;
            }
            let Some(mut climb) = self.places[place].take() else { continue };
            found = true;
            if climb.ladder.is_killing() {
                with.senses.signal.ack(hold);
            }
            climb.hold = Some(hold);
            let policy = Arc::clone(&climb.policy);
            let rungs = policy.rules.get(usize::from(climb.rule)).map(|rule| &rule.ladder[..]).unwrap_or_default();
            let since = climb.since(with.clock.now());
            let next = climb.ladder.hurry(rungs, since, &mut climb.rungs);
            self.carry_on(place, climb, next, with);
        }
        found
    }

    /// News of a victim: look at it in this turn.
    pub fn stir(&mut self, key: Key) {
        if self.generations.get(key.slot as usize) == Some(&key.generation)
            && let Some(climb) = self.places.get_mut(key.slot as usize).and_then(Option::as_mut)
        {
            climb.look_at = Some(Duration::ZERO);
        }
    }

    /// News of a group, which may be a victim.
    pub fn stir_group(&mut self, group: GroupId) {
        for climb in self.places.iter_mut().flatten().filter(|climb| climb.victim.id == group) {
            climb.look_at = Some(Duration::ZERO);
        }
    }

    /// Another policy took over. Ladders under way end by the one that began them, but turn to no further victim: groups are
    /// classed by the new one.
    pub fn policy_replaced(&mut self, renumbered: impl Fn(u16) -> Option<u16>) {
        for climb in self.places.iter_mut().flatten() {
            climb.key = climb.key.and_then(&renumbered);
            climb.superseded = true;
        }
    }

    /// When the next ladder must be looked at.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.climbs().map(|climb| climb.look_at.unwrap_or(Duration::MAX).min(climb.arrived + climb.ladder.deadline())).min()
    }

    /// The next scope whose trouble has just been dealt with.
    pub fn take_relieved(&mut self) -> Option<Relieved> {
        self.relieved.pop()
    }

    /// Begins a ladder.
    pub fn begin(&mut self, start: Start<'_>, with: &mut Means<'_>) {
        let place = self.places.iter().position(Option::is_none);
        let victim = with.senses.tree.get(start.victim).map(|node| Arc::clone(&node.group));
        let means = place.zip(victim).and_then(|(place, victim)| Some((place, victim, self.spare.pop()?)));
        let Some((place, victim, mut climb)) = means else {
            // Nothing was begun, so the rule must not wait for an end.
            let cooldown = start.policy.rules.get(usize::from(start.rule)).map_or(Duration::ZERO, |rule| rule.cooldown);
            with.history.deed_ended(with.clock.now(), start.rule, start.subject, cooldown, DeedEnd::Failed);
            if let Some(record) = start.record {
                with.records.submit(record);
            }
            return;
        };
        let subject = with.senses.tree.slot_of(start.subject).and_then(|slot| with.court.index_of(slot));
        let scope = with.senses.tree.slot_of(start.scope).and_then(|slot| with.court.index_of(slot));
        let before = subject.zip(scope).and_then(|(subject, scope)| ScopeFacts::of(&with.court.facts, &with.court.node, subject, scope));
        climb.policy = Arc::clone(start.policy);
        climb.subject_path = with
            .senses
            .tree
            .slot_of(start.subject)
            .and_then(|slot| with.senses.tree.get(slot))
            .map_or_else(GroupPath::root, |node| node.group.path.clone());
        (climb.rule, climb.subject, climb.scope, climb.victim) = (start.rule, start.subject, start.scope, victim);
        (climb.notice, climb.arrived, climb.record) = (start.notice, start.arrived, start.record);
        (climb.before, climb.failed, climb.look_at, climb.attempt) = (before, [None; TRIES], None, 0);
        (climb.key, climb.superseded, climb.hold) = (Some(start.rule), false, start.hold);
        climb.rungs.clear();
        self.generations[place] = self.generations[place].wrapping_add(1) & 0xff_ffff;
        let next = self.enter(place, &mut climb, start.victim, with);
        self.carry_on(place, climb, next, with);
    }

    /// Turns a climb to a victim, its first or the next.
    fn enter(&mut self, place: usize, climb: &mut Climb, victim: Slot, with: &mut Means<'_>) -> Next {
        let policy = Arc::clone(&climb.policy);
        let Some(rule) = policy.rules.get(usize::from(climb.rule)) else { return Next::End(End::Failed(None)) };
        climb.usage = with.court.facts_of(victim).and_then(|facts| facts.memory.usage());
        climb.processes = with.court.processes_below(victim);
        climb.one = matches!(rule.ladder.last(), Some(Rung::Kill(KillWhat::Process)));
        climb.pidfd = None;
        let pid = if climb.one { with.court.pick_process(victim, with.senses) } else { None };
        if climb.one && pid.is_none() {
            return Next::End(End::Failed(None));
        }
        let whole_node = with.senses.tree.get(Tree::ROOT).is_some_and(|root| root.group.id == climb.scope);
        climb.ladder = Ladder::new(whole_node, pid);
        if let (false, Some(fd)) = (climb.one, climb.victim.held(File::GroupEvents)) {
            // EEXIST where another ladder failed on the same group; looking every few milliseconds remains.
            let _ = with.poller.add_notice(fd, Token::Populated(self.key(place)));
        }
        let since = climb.since(with.clock.now());
        if climb.hold.is_some() { climb.ladder.begin_with_kill(&rule.ladder, since) } else { climb.ladder.begin(&rule.ladder, since) }
    }

    fn key(&self, place: usize) -> Key {
        Key { slot: u32::try_from(place).unwrap_or(u32::MAX), generation: self.generations[place] }
    }

    /// Does what the ladder says next and puts the climb back in its place, or ends it.
    fn carry_on(&mut self, place: usize, mut climb: Box<Climb>, mut next: Next, with: &mut Means<'_>) {
        loop {
            let now = with.clock.now();
            let policy = Arc::clone(&climb.policy);
            let rungs = policy.rules.get(usize::from(climb.rule)).map(|rule| &rule.ladder[..]).unwrap_or_default();
            match next {
                Next::Wait => break,
                // No further rung is begun.
                Next::Do(_) | Next::Run(_) if with.switches.is_paused() => return self.end(place, climb, Outcome::Paused, now, with),
                Next::Do(deed) => {
                    self.send(place, &mut climb, deed, with.senses);
                    break;
                }
                Next::Run(hook) => match &self.hooks {
                    Some(hooks) => {
                        climb.attempt = climb.attempt.wrapping_add(1);
                        let ladder = self.attempt_key(place, &climb);
                        hooks.ask(Ask { ladder, hook, record: told_so_far(&climb, with.records) });
                        break;
                    }
                    None => next = climb.ladder.hook_done(RungOutcome::NoHelper, climb.since(now), &mut climb.rungs),
                },
                Next::AskRecovered => {
                    let over = self.is_over(&climb, now, with);
                    let since = climb.since(now);
                    next = climb.ladder.judged(rungs, over, since, &mut climb.rungs);
                }
                Next::End(End::Failed(_)) => match self.next_victim(&mut climb, now, with) {
                    Some(victim) => next = self.enter(place, &mut climb, victim, with),
                    None => return self.end(place, climb, Outcome::Failed, now, with),
                },
                Next::End(End::Recovered) => return self.end(place, climb, Outcome::Recovered, now, with),
                Next::End(End::Gone) => return self.end(place, climb, Outcome::Killed, now, with),
            }
        }
        climb.look_at = climb.ladder.is_killing().then(|| with.clock.now() + LOOK);
        self.places[place] = Some(climb);
    }

    fn send(&mut self, place: usize, climb: &mut Climb, deed: Deed, senses: &Senses) {
        climb.attempt = climb.attempt.wrapping_add(1);
        self.actors.recall(u32::try_from(place).unwrap_or(u32::MAX));
        // All jobs stuck: the deadline of the rung goes on to the next, and by then one may be free.
        let Some(mut job) = self.actors.take() else { return };
        job.ladder = self.attempt_key(place, climb);
        job.deed = deed;
        job.hold = senses.signal.device().cloned().zip(climb.hold);
        job.targets.push(Arc::clone(&climb.victim));
        if let Some(top) = senses.tree.slot_of(climb.victim.id) {
            let mut next = senses.tree.next_in_preorder(top, top);
            while let Some(slot) = next {
                if let Some(node) = senses.tree.get(slot).filter(|_| job.targets.len() < job.targets.capacity()) {
                    job.targets.push(Arc::clone(&node.group));
                }
                next = senses.tree.next_in_preorder(top, slot);
            }
        }
        self.actors.send(job);
    }

    /// What is done for a climb's present attempt is known by this when it comes back.
    fn attempt_key(&self, place: usize, climb: &Climb) -> Key {
        Key { slot: u32::try_from(place).unwrap_or(u32::MAX), generation: climb.attempt ^ (self.generations[place] << 8) }
    }

    /// Takes the climb that something was done for; `None` if that attempt was given up meanwhile.
    fn take_attempt(&mut self, key: Key) -> Option<(usize, Box<Climb>)> {
        let place = key.slot as usize;
        let is_current = |climb: &Climb| key == self.attempt_key(place, climb);
        self.places.get(place)?.as_deref().filter(|climb| is_current(climb))?;
        Some((place, self.places.get_mut(place)?.take()?))
    }

    /// Feeds all ladders what has happened.
    pub fn advance(&mut self, with: &mut Means<'_>) {
        while let Some(mut job) = self.actors.finished() {
            self.done(&mut job, with);
            self.actors.give_back(job);
        }
        while let Some((ladder, outcome)) = self.hooks.as_ref().and_then(Hooks::ended) {
            let Some((place, mut climb)) = self.take_attempt(ladder) else { continue };
            let since = climb.since(with.clock.now());
            let next = climb.ladder.hook_done(outcome, since, &mut climb.rungs);
            self.carry_on(place, climb, next, with);
        }
        for place in 0..CLIMBS {
            let now = with.clock.now();
            let Some(climb) = &self.places[place] else { continue };
            let due = climb.look_at.is_some_and(|at| at <= now);
            let late = climb.arrived + climb.ladder.deadline() <= now;
            if !due && !late {
                continue;
            }
            let Some(mut climb) = self.places[place].take() else { continue };
            let policy = Arc::clone(&climb.policy);
            let rungs = policy.rules.get(usize::from(climb.rule)).map(|rule| &rule.ladder[..]).unwrap_or_default();
            let since = climb.since(now);
            let next = if climb.is_gone(with.senses) {
                climb.ladder.gone(since, &mut climb.rungs)
            } else if late {
                climb.ladder.deadline_passed(rungs, since, &mut climb.rungs)
            } else {
                Next::Wait
            };
            self.carry_on(place, climb, next, with);
        }
    }

    fn done(&mut self, job: &mut Job, with: &mut Means<'_>) {
        let Some((place, mut climb)) = self.take_attempt(job.ladder) else { return };
        if let Some(pidfd) = job.pidfd.take() {
            // Without it the victim is looked at every few milliseconds.
            let _ = with.poller.add_readable(&pidfd, Token::Pid(self.key(place)));
            climb.pidfd = Some(pidfd);
        }
        let policy = Arc::clone(&climb.policy);
        let rungs = policy.rules.get(usize::from(climb.rule)).map(|rule| &rule.ladder[..]).unwrap_or_default();
        let at = climb.since(job.done.sent.or(job.finished).map_or_else(|| with.clock.now(), |moment| with.clock.at(moment)));
        let now = climb.since(with.clock.now());
        let mut next = climb.ladder.deed_done(rungs, job.done, at, now, &mut climb.rungs);
        if next == Next::Wait && climb.is_gone(with.senses) {
            next = climb.ladder.gone(climb.since(with.clock.now()), &mut climb.rungs);
        }
        self.carry_on(place, climb, next, with);
    }

    /// Whether the trouble that began this ladder is over.
    fn is_over(&self, climb: &Climb, now: Duration, with: &mut Means<'_>) -> bool {
        let (Some(rule), Some(before)) = (climb.rule(), climb.before) else { return false };
        let Some(subject) = with.senses.tree.slot_of(climb.subject) else { return false };
        with.court.gather(&climb.policy, usize::from(climb.rule), subject, now, with.senses, self);
        let scope = with.senses.tree.slot_of(climb.scope).and_then(|slot| with.court.index_of(slot));
        let facts = with.court.index_of(subject).zip(scope);
        let facts = facts.and_then(|(subject, scope)| ScopeFacts::of(&with.court.facts, &with.court.node, subject, scope));
        facts.is_some_and(|facts| recovered(&climb.notice, rule, &before, &facts))
    }

    /// The victim can't be killed: who is next?
    fn next_victim(&mut self, climb: &mut Climb, now: Duration, with: &mut Means<'_>) -> Option<Slot> {
        self.unwatch(climb, with.poller);
        if climb.superseded || with.switches.is_paused() {
            return None;
        }
        *climb.failed.iter_mut().find(|place| place.is_none())? = Some(climb.victim.id);
        if climb.failed.iter().all(Option::is_some) {
            return None;
        }
        let mut failed = [GroupId(0); TRIES];
        let mut tried = 0;
        for id in climb.failed.iter().flatten() {
            failed[tried] = *id;
            tried += 1;
        }
        let subject = with.senses.tree.slot_of(climb.subject)?;
        let rule = usize::from(climb.rule);
        match with.court.judge(&climb.policy, rule, subject, &climb.notice, &failed[..tried], now, with.senses, self)? {
            Ruling::Kill { victim, scope } => {
                if self.conflicts(&with.senses.tree, scope, victim) {
                    return None;
                }
                climb.victim = Arc::clone(&with.senses.tree.get(victim)?.group);
                if let Some(record) = &mut climb.record {
                    record.set_candidates(&with.court.verdict, &with.court.facts);
                }
                Some(victim)
            }
            Ruling::NotConfirmed | Ruling::NoVictim => None,
        }
    }

    fn unwatch(&self, climb: &Climb, poller: &Poller) {
        if let Some(fd) = climb.victim.held(File::GroupEvents) {
            poller.remove(fd);
        }
        if let Some(fd) = &climb.pidfd {
            poller.remove(fd);
        }
    }

    fn end(&mut self, place: usize, climb: Box<Climb>, outcome: Outcome, now: Duration, with: &mut Means<'_>) {
        self.actors.recall(u32::try_from(place).unwrap_or(u32::MAX));
        self.unwatch(&climb, with.poller);
        let left = usage_left(&climb.victim, with.senses);
        let freed = climb.usage.zip(left).map(|(before, left)| before.saturating_sub(left));
        let cooldown = climb.rule().map_or(Duration::ZERO, |rule| rule.cooldown);
        let end = match outcome {
            Outcome::Killed => DeedEnd::Gone { freed_little: freed_little(&climb.notice, climb.usage, freed) },
            Outcome::Recovered => DeedEnd::Recovered,
            _ => DeedEnd::Failed,
        };
        if let Some(key) = climb.key {
            with.history.deed_ended(now, key, climb.subject, cooldown, end);
            if outcome == Outcome::Killed || climb.ladder.killed_at.is_some() {
                with.switches.killed(now, key, &climb.subject_path);
            }
        }
        if self.relieved.len() < self.relieved.capacity() {
            let gone = (outcome == Outcome::Killed && !climb.one).then_some(climb.victim.id);
            self.relieved.push(Relieved { scope: climb.scope, gone });
        }
        self.submit(climb, outcome, freed, now, with.records);
    }

    /// Completes the record and takes the climb back.
    fn submit(&mut self, mut climb: Box<Climb>, outcome: Outcome, freed: Option<u64>, now: Duration, records: &Records) {
        if let Some(mut record) = climb.record.take() {
            record.outcome = outcome;
            for rung in &climb.rungs {
                record.push_rung(*rung);
            }
            if outcome == Outcome::Killed {
                record.processes_killed = if climb.one { Some(1) } else { climb.processes };
                record.freed_bytes = freed;
                record.latency.empty = Some(climb.since(now));
            }
            record.latency.kill = climb.ladder.killed_at;
            records.submit(record);
        }
        climb.pidfd = None;
        (climb.policy, climb.victim) = (Arc::clone(&self.blank.0), Arc::clone(&self.blank.1));
        climb.subject_path = self.blank.1.path.clone();
        self.spare.push(climb);
    }

    /// Deeds are paused: ladders that have not sent SIGKILL end here. Of those that have, the end is waited for; nothing more is
    /// done for it.
    pub fn halt(&mut self, with: &mut Means<'_>) {
        for place in 0..CLIMBS {
            let Some(killing) = self.places[place].as_ref().map(|climb| climb.ladder.is_killing()) else { continue };
            // What no actor has begun yet is taken back.
            let recalled = self.actors.recall(u32::try_from(place).unwrap_or(u32::MAX));
            if (!killing || recalled)
                && let Some(mut climb) = self.places[place].take()
            {
                let now = with.clock.now();
                let since = climb.since(now);
                climb.ladder.paused(since, &mut climb.rungs);
                self.end(place, climb, Outcome::Paused, now, with);
            }
        }
    }

    /// The daemon is to stop: ladders that have not sent SIGKILL end here, with `all` the others too.
    pub fn interrupt(&mut self, all: bool, now: Duration, records: &Records) {
        for place in 0..CLIMBS {
            if self.places[place].as_ref().is_some_and(|climb| all || !climb.ladder.is_killing())
                && let Some(mut climb) = self.places[place].take()
            {
                let since = climb.since(now);
                climb.ladder.interrupted(since, &mut climb.rungs);
                self.submit(climb, Outcome::Failed, None, now, records);
            }
        }
    }
}

/// A copy of a climb's record up to now, for who reads it on another thread.
fn told_so_far(climb: &Climb, records: &Records) -> Option<Box<JudgementRecord>> {
    let record = climb.record.as_deref()?;
    let mut copy = records.take()?;
    copy.copy_from(record);
    copy.id = record.id;
    climb.rungs.iter().for_each(|rung| copy.push_rung(*rung));
    Some(copy)
}

/// anon + swap that is left in a group; nothing in one that is gone.
fn usage_left(group: &Group, senses: &mut Senses) -> Option<u64> {
    let Ok(Some(stat)) = group.read(File::Stat, &mut senses.buffer, parse::stat) else {
        // The memory controller may have been switched off: only the group's own files tell that it is gone.
        let removed = group.read(File::GroupEvents, &mut senses.buffer, parse::populated).is_err_and(|error| error.is_gone());
        return removed.then_some(0);
    };
    let swap = group.read(File::SwapCurrent, &mut senses.buffer, parse::value).ok()?;
    Some(stat.anon?.saturating_add(swap.unwrap_or(0)))
}
