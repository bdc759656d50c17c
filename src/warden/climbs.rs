//! Ladders under way: which victim, which rung, and what their end means.
//!
//! A few places made beforehand; a climb keeps the policy that began it, so that a reload changes nothing about it. Empty
//! groups are noticed by EPOLLPRI on cgroup.events, by inotify, and, while something is dying, by looking every few
//! milliseconds: either notice alone can be lost in a starving machine.
//!
//! - `climb`: one of them.
//! - [`way`]: what is in the way of a new verdict, and which kills it brings forward.
//! - [`again`]: the look at the victim before each rung.

mod again;
mod climb;
#[cfg(test)]
mod tests;
mod way;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use rustix::event::{PollFd, PollFlags, poll};

use again::Look;
use climb::Climb;
use way::Hurried;
pub use way::{Wanted, Way};

use super::clock::Clock;
use super::hooks::{Ask, Hooks};
use super::pending::breaks_group;
use super::reach::Reach;
use super::senses::Senses;
use super::switches::Switches;
use crate::act::actors::{Actors, Job};
use crate::act::deed::Deed;
use crate::act::first_kill::FirstKill;
use crate::act::ladder::{End, Ladder, Next, Sent};
use crate::act::rung::RungOutcome;
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, Group, ReadBuf};
use crate::cgroup::parse;
use crate::cgroup::path::GroupPath;
use crate::decide::history::{DeedEnd, History, Subject, freed_little};
use crate::decide::recovery::{ScopeFacts, recovered};
use crate::decide::verdict::Notice;
use crate::gather::below::{below, is_above, is_root};
use crate::gather::court::{Court, Ruling};
use crate::metrics::counters::Dropped;
use crate::policy::model::{Policy, Rule, Rung, Trigger};
use crate::record::model::{JudgementRecord, MAX_RUNGS, Outcome, RungRecord};
use crate::record::pool::Pool as Records;
use crate::sense::glance::LOOK_LIMIT;
use crate::sense::poller::{Key, Poller, Token};
use crate::sense::sample::LATEST;
use crate::sense::tree::{Slot, Tree};

/// Ladders at a time. Verdicts on more independent troubles than this at one moment are put off.
const GROUP_CLIMBS: usize = 8;
/// With places that are kept for rules about the node: however many groups wait in their grace times, it is served.
const CLIMBS: usize = GROUP_CLIMBS + 2;
/// Jobs at a time: each ladder may have one stuck and one under way.
const JOBS: usize = 2 * CLIMBS;
/// Victims that were sent SIGKILL and are still there, as many as are remembered...
const LINGERING: usize = 32;
/// ...and for how long. After that one may be chosen again: a service that was started anew in its group.
const LINGERS: Duration = Duration::from_secs(60);
/// For so long the node waits for a victim that dies in another trouble than its own.
const SLOW_DEATH: Duration = Duration::from_secs(1);
/// After a gap in the warden's attention a ladder goes on when its trouble has been noticed again; so much longer than a
/// trigger's window is waited for that.
const NOTICED_AGAIN: Duration = Duration::from_millis(1500);
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
    /// Victims that were sent SIGKILL and were not gone in time, each with the time until which it is remembered.
    lingering: Vec<(GroupId, Duration)>,
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
                present: None,
                at_kill: None,
                first_kill: FirstKill::default(),
                in_flight: false,
                one: false,
                pidfd: None,
                failed: [None; TRIES],
                key: None,
                hold: None,
                superseded: false,
                look_at: None,
                begun: false,
                fresh: false,
                looking: None,
                looked: false,
                overdue: false,
                stale: false,
                hurried: None,
            })
        };
        Ok(Climbs {
            places: [const { None }; CLIMBS],
            generations: [0; CLIMBS],
            actors: Actors::start(mail, JOBS, groups.max(64), reach.listeners.as_ref())?,
            hooks: reach.hooks,
            relieved: Vec::with_capacity(CLIMBS * TRIES),
            lingering: Vec::with_capacity(LINGERING),
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

    /// Whether SIGKILL was sent to the group, or to one above it, and that is not over. One that is merely asked to go is
    /// not dying: another rule may have to name it.
    #[must_use]
    pub fn is_dying(&self, tree: &Tree, slot: Slot) -> bool {
        let Some(id) = tree.get(slot).map(|node| node.group.id) else { return false };
        let killing = |climb: &Climb| !climb.one && climb.is_killing() && below(tree, id, climb.victim.id);
        self.climbs().any(killing) || self.lingering.iter().any(|(group, _)| below(tree, id, *group))
    }

    /// Forgets victims that are gone by now, or were remembered for long enough: who is started anew in such a group is alive.
    pub fn forget_lingering(&mut self, now: Duration, senses: &mut Senses) {
        let Senses { tree, buffer, .. } = senses;
        self.lingering.retain(|(group, until)| {
            let node = tree.slot_of(*group).and_then(|slot| tree.get(slot));
            let populated = node.map(|node| node.group.read(File::GroupEvents, buffer, parse::populated).ok().flatten().flatten());
            *until > now && populated.is_some_and(|populated| populated != Some(false))
        });
    }

    /// Ladders under way, but for those about the node: each is a kill, or may become one.
    #[must_use]
    pub fn under_way_below(&self, root: GroupId) -> usize {
        self.climbs().filter(|climb| climb.subject != root).count()
    }

    /// The trouble of this rule and subject was noticed: evidence that a ladder for it may rest on.
    pub fn noticed(&mut self, rule: u16, subject: GroupId) {
        for climb in self.places.iter_mut().flatten() {
            if climb.key == Some(rule) && climb.subject == subject {
                climb.stale = false;
            }
        }
    }

    /// The warden did not look for a while: ladders that wait go on only when their trouble was noticed again.
    pub fn doubt(&mut self, now: Duration) {
        for climb in self.places.iter_mut().flatten() {
            let Some(rule) = climb.policy.rules.get(usize::from(climb.rule)) else { continue };
            // A group that lost a process does not heal.
            climb.hurried = None;
            if climb.is_killing() || breaks_group(&climb.notice) {
                continue;
            }
            let window = rule.when.iter().map(|when| match when {
                Trigger::Psi(psi) => 2 * psi.window.max(Duration::from_millis(500)),
                Trigger::Usage(_, lasting) | Trigger::Available(_, lasting) | Trigger::SwapFree(_, lasting) => *lasting + LATEST,
                Trigger::Event(_) | Trigger::Lms(_) => Duration::ZERO,
            });
            let window = window.max().unwrap_or_default();
            climb.stale = true;
            climb.ladder.extend(climb.since(now) + window + NOTICED_AGAIN);
        }
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
            // Of one that has just left by itself the memory is on its way back, too.
            let gone = climb.is_gone(with.senses);
            if climb.is_killing() || gone {
                with.senses.signal.ack(hold, climb.victim.id);
            }
            // The kernel's word is fresh evidence.
            (climb.hold, climb.looking, climb.stale) = (Some(hold), None, false);
            let policy = Arc::clone(&climb.policy);
            let rungs = policy.rules.get(usize::from(climb.rule)).map(|rule| &rule.ladder[..]).unwrap_or_default();
            let since = climb.since(with.clock.now());
            let next = climb.ladder.hurry(rungs, since, &mut climb.rungs);
            self.carry_on(place, climb, next, with);
            // It may have come to its end without a kill: the victim must live.
            found |= gone || self.places[place].is_some();
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
        let due = |climb: &Climb| {
            if let Some((_, since)) = climb.looking {
                return since + LOOK_LIMIT;
            }
            let hurried = climb.hurried.as_ref().map_or(Duration::MAX, |hurried| hurried.by);
            climb.look_at.unwrap_or(Duration::MAX).min(climb.arrived + climb.ladder.deadline()).min(hurried)
        };
        self.climbs().map(due).min()
    }

    /// The next scope whose trouble has just been dealt with.
    pub fn take_relieved(&mut self) -> Option<Relieved> {
        self.relieved.pop()
    }

    /// Begins a ladder.
    pub fn begin(&mut self, start: Start<'_>, with: &mut Means<'_>) {
        let place = self.place(&with.senses.tree, start.subject);
        let victim = with.senses.tree.get(start.victim).map(|node| Arc::clone(&node.group));
        let means = place.zip(victim).and_then(|(place, victim)| Some((place, victim, self.spare.pop()?)));
        let Some((place, victim, mut climb)) = means else {
            with.senses.let_go.count(Dropped::NoPlace, 1);
            // Nothing was begun, so the rule must not wait for an end.
            let cooldown = start.policy.rules.get(usize::from(start.rule)).map_or(Duration::ZERO, |rule| rule.cooldown);
            if let Some(node) = with.senses.tree.slot_of(start.subject).and_then(|slot| with.senses.tree.get(slot)) {
                let subject = Subject { id: start.subject, path: &node.group.path };
                with.history.deed_ended(with.clock.now(), start.rule, &subject, cooldown, DeedEnd::Failed);
            }
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
        (climb.looking, climb.looked, climb.overdue, climb.stale, climb.hurried) = (None, false, false, false, None);
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
        (climb.present, climb.at_kill, climb.in_flight) = (climb.processes, None, false);
        climb.first_kill.turn_to_next();
        climb.one = with.senses.tree.get(victim).is_some_and(|node| rule.kills_one(&node.class));
        // What was gathered for the verdict, in this turn.
        climb.fresh = true;
        (climb.pidfd, climb.hurried, climb.begun) = (None, None, false);
        let pid = if climb.one { with.court.pick_process(victim, &mut with.senses.sight()) } else { None };
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
                // It left between two rungs: nothing more is to be done to it.
                Next::Do(_) | Next::Run(_) if !climb.fresh && climb.is_gone(with.senses) => {
                    next = climb.gone(with.clock);
                }
                Next::Do(_) | Next::Run(_) if !climb.fresh => match self.look_again(&mut climb, now, with) {
                    Look::MayDie => climb.fresh = true,
                    Look::Wait => {
                        climb.looking = Some((next, now));
                        break;
                    }
                    Look::Over => {
                        climb.ladder.interrupted(climb.since(now), &mut climb.rungs);
                        return self.end(place, climb, Outcome::Recovered, now, with);
                    }
                    Look::MustLive if climb.begun && !climb.ladder.was_refused() => {
                        // The first kill was slow, not refused: nobody else dies in the place of who is dying.
                        next = climb.ladder.stand_back(climb.since(now), &mut climb.rungs);
                    }
                    Look::MustLive => {
                        climb.ladder.spared(climb.since(now), &mut climb.rungs);
                        match self.next_victim(&mut climb, now, with) {
                            Successor::Is(victim) => {
                                next = self.enter(place, &mut climb, victim, with);
                                // Whether the tree has all that is below it nobody has looked at yet.
                                climb.fresh = false;
                            }
                            Successor::NotNeeded => return self.end(place, climb, Outcome::Recovered, now, with),
                            Successor::None => {
                                if let Some(record) = &mut climb.record {
                                    record.victim = None;
                                }
                                return self.end(place, climb, Outcome::NoVictim, now, with);
                            }
                        }
                    }
                },
                Next::Do(deed) => {
                    climb.fresh = false;
                    self.send(place, &mut climb, deed, with.senses);
                    break;
                }
                Next::Run(hook) => match &self.hooks {
                    Some(hooks) => {
                        climb.fresh = false;
                        climb.attempt = climb.attempt.wrapping_add(1);
                        let ladder = self.attempt_key(place, &climb);
                        let before = hooks.ask(Ask { ladder, hook, record: told_so_far(&climb, with.records) });
                        if let Some(record) = before.and_then(|before| before.record) {
                            with.records.discard(record);
                        }
                        break;
                    }
                    None => next = climb.ladder.hook_done(RungOutcome::NoHelper, climb.since(now), &mut climb.rungs),
                },
                Next::AskRecovered if climb.is_gone(with.senses) => next = climb.gone(with.clock),
                Next::AskRecovered => {
                    let over = self.is_over(&climb, now, with);
                    let since = climb.since(now);
                    next = climb.ladder.judged(rungs, over, since, &mut climb.rungs);
                }
                Next::End(End::Failed(_)) => match self.next_victim(&mut climb, now, with) {
                    Successor::Is(victim) => {
                        next = self.enter(place, &mut climb, victim, with);
                        // Whether the tree has all that is below it nobody has looked at yet.
                        climb.fresh = false;
                    }
                    Successor::None | Successor::NotNeeded => return self.end(place, climb, Outcome::Failed, now, with),
                },
                // Only new evidence turns to another.
                Next::End(End::Lingers) => {
                    // A kill that no actor has come to is none.
                    let untouched = self.actors.recall(u32::try_from(place).unwrap_or(u32::MAX)) || !climb.begun;
                    if !untouched {
                        self.remember_lingering(&climb, now);
                    }
                    return self.end(place, climb, Outcome::Failed, now, with);
                }
                Next::End(End::Recovered) => return self.end(place, climb, Outcome::Recovered, now, with),
                Next::End(End::Gone) => {
                    climb.note_first_kill(with.clock);
                    let outcome = if climb.ladder.killed_at.is_some() { Outcome::Killed } else { Outcome::Ended };
                    if let (Outcome::Ended, Some(hold)) = (outcome, climb.hold) {
                        // No actor will: what left gives its memory back as well.
                        with.senses.signal.ack(hold, climb.victim.id);
                    }
                    return self.end(place, climb, outcome, now, with);
                }
            }
        }
        climb.look_at = climb.is_killing().then(|| with.clock.now() + LOOK);
        self.places[place] = Some(climb);
    }

    fn send(&mut self, place: usize, climb: &mut Climb, deed: Deed, senses: &Senses) {
        climb.attempt = climb.attempt.wrapping_add(1);
        self.actors.recall(u32::try_from(place).unwrap_or(u32::MAX));
        // All jobs stuck: the deadline of the rung goes on to the next, and by then one may be free.
        let Some(mut job) = self.actors.take() else { return };
        climb.in_flight = deed.is_kill();
        if climb.in_flight {
            climb.begun = true;
            climb.at_kill = climb.at_kill.or(climb.present);
            job.first_kill = Some(climb.first_kill.ticket());
        }
        job.ladder = self.attempt_key(place, climb);
        job.deed = deed;
        // The second try counts nobody twice: neither after one that was only slow, nor after one
        // that was refused and reached somebody all the same.
        let again = deed == Deed::KillProcesses && (!climb.ladder.was_refused() || climb.first_kill.sent().is_some());
        job.marked = climb.policy.oomd_xattrs && deed.is_kill() && !again;
        job.processes = climb.to_be_killed().map(u64::from);
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
            let looked = climb.looking.as_ref().is_some_and(|(_, since)| *since + LOOK_LIMIT <= now);
            let hurried = climb.hurried.as_ref().is_some_and(|hurried| hurried.by <= now) && climb.looking.is_none();
            if !due && !late && !looked && !hurried {
                continue;
            }
            let Some(mut climb) = self.places[place].take() else { continue };
            let policy = Arc::clone(&climb.policy);
            let rungs = policy.rules.get(usize::from(climb.rule)).map(|rule| &rule.ladder[..]).unwrap_or_default();
            let since = climb.since(now);
            // Gone while an actor is at it: whose doing that is the actor knows in a moment, unless
            // it has not begun.
            let gone = climb.is_gone(with.senses);
            let gone = gone && (!climb.is_undecided() || self.actors.recall(u32::try_from(place).unwrap_or(u32::MAX)));
            let next = if gone {
                climb.looking = None;
                climb.gone(with.clock)
            } else if climb.looking.is_some() {
                climb.overdue = looked;
                if looked { climb.looked_at(now) } else { Next::Wait }
            } else if hurried {
                match climb.hurried.take() {
                    Some(hurried) if !self.is_relieved(&hurried, now, with) => {
                        // Another rule's verdict is fresh evidence.
                        climb.stale = false;
                        climb.ladder.hurry(rungs, since, &mut climb.rungs)
                    }
                    _ => Next::Wait,
                }
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
        climb.in_flight = false;
        let at =
            |sent: Option<Instant>| climb.since(sent.or(job.finished).map_or_else(|| with.clock.now(), |moment| with.clock.at(moment)));
        let sent = Sent { first: at(job.done.first), last: at(job.done.sent) };
        let now = climb.since(with.clock.now());
        let mut next = climb.ladder.deed_done(rungs, job.done, sent, now, &mut climb.rungs);
        if matches!(next, Next::Wait | Next::End(End::Failed(_))) && climb.is_gone(with.senses) {
            next = climb.gone(with.clock);
        }
        self.carry_on(place, climb, next, with);
    }

    /// Whether the trouble that began this ladder is over.
    fn is_over(&self, climb: &Climb, now: Duration, with: &mut Means<'_>) -> bool {
        let (Some(rule), Some(before)) = (climb.rule(), climb.before) else { return false };
        let facts = self.scope_facts(&climb.policy, climb.rule, climb.subject, climb.scope, now, with);
        facts.is_some_and(|facts| recovered(&climb.notice, rule, &before, &facts))
    }

    /// What a recovery is judged by, now. `None`: subject or scope are gone.
    fn scope_facts(
        &self,
        policy: &Policy,
        rule: u16,
        subject: GroupId,
        scope: GroupId,
        now: Duration,
        with: &mut Means<'_>,
    ) -> Option<ScopeFacts> {
        let subject = with.senses.tree.slot_of(subject)?;
        with.court.gather(policy, usize::from(rule), subject, now, with.senses, |tree, slot| self.is_dying(tree, slot));
        let scope = with.senses.tree.slot_of(scope).and_then(|slot| with.court.index_of(slot));
        let (subject, scope) = with.court.index_of(subject).zip(scope)?;
        ScopeFacts::of(&with.court.facts, &with.court.node, subject, scope)
    }

    /// The victim can't be killed, or must live after all: who is next?
    fn next_victim(&mut self, climb: &mut Climb, now: Duration, with: &mut Means<'_>) -> Successor {
        self.unwatch(climb, with.poller);
        if climb.superseded || with.switches.is_paused() {
            return Successor::None;
        }
        let Some(place) = climb.failed.iter_mut().find(|place| place.is_none()) else { return Successor::None };
        *place = Some(climb.victim.id);
        if climb.failed.iter().all(Option::is_some) {
            return Successor::None;
        }
        let mut failed = [GroupId(0); TRIES];
        let mut tried = 0;
        for id in climb.failed.iter().flatten() {
            failed[tried] = *id;
            tried += 1;
        }
        let Some(subject) = with.senses.tree.slot_of(climb.subject) else { return Successor::None };
        let rule = usize::from(climb.rule);
        let ruling = with
            .court
            .judge(&climb.policy, rule, subject, &climb.notice, &failed[..tried], now, with.senses, |tree, slot| self.is_dying(tree, slot));
        if let (Some(record), Some(Ruling::Kill { .. } | Ruling::NoVictim)) = (&mut climb.record, ruling) {
            record.set_candidates(&with.court.verdict, &with.court.facts);
        }
        match ruling {
            Some(Ruling::Kill { victim, scope }) => {
                let Some(next) = with.senses.tree.get(victim).map(|node| Arc::clone(&node.group)) else { return Successor::None };
                let (rule, subject, notice) = (climb.rule, climb.subject, climb.notice);
                let wanted = Wanted { policy: &climb.policy, rule, subject, scope, victim: next.id, notice };
                if self.way(&with.senses.tree, &wanted, now) != Way::Free {
                    return Successor::None;
                }
                climb.victim = next;
                Successor::Is(victim)
            }
            Some(Ruling::NotConfirmed) => Successor::NotNeeded,
            Some(Ruling::NoVictim) | None => Successor::None,
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

    fn end(&mut self, place: usize, mut climb: Box<Climb>, outcome: Outcome, now: Duration, with: &mut Means<'_>) {
        climb.note_first_kill(with.clock);
        self.actors.recall(u32::try_from(place).unwrap_or(u32::MAX));
        self.unwatch(&climb, with.poller);
        let freed = freed(&climb, &mut with.senses.buffer);
        let cooldown = climb.rule().map_or(Duration::ZERO, |rule| rule.cooldown);
        let lingers = outcome == Outcome::Failed && self.lingering.iter().any(|(group, _)| *group == climb.victim.id);
        let end = match outcome {
            Outcome::Killed | Outcome::Ended => DeedEnd::Gone { freed_little: freed_little(&climb.notice, climb.usage, freed) },
            // What was noticed up to now was noticed of this victim's trouble.
            Outcome::Failed if lingers => DeedEnd::Gone { freed_little: freed_little(&climb.notice, climb.usage, freed) },
            Outcome::Recovered => DeedEnd::Recovered,
            _ => DeedEnd::Failed,
        };
        if let Some(key) = climb.key {
            let subject = Subject { id: climb.subject, path: &climb.subject_path };
            with.history.deed_ended(now, key, &subject, cooldown, end);
            // A group that our SIGTERM took counts like one that was killed; one that left before
            // any signal that ends is no deed.
            if climb.ladder.killed_at.is_some() || (outcome == Outcome::Ended && climb.ladder.was_termed()) {
                with.switches.killed(now, key, &climb.subject_path);
            }
        }
        if self.relieved.len() < self.relieved.capacity() {
            let gone = (matches!(outcome, Outcome::Killed | Outcome::Ended) && !climb.one).then_some(climb.victim.id);
            self.relieved.push(Relieved { scope: climb.scope, gone });
        }
        self.submit(climb, outcome, freed, now, with.records);
    }

    /// The victim was sent SIGKILL and is not gone in time.
    fn remember_lingering(&mut self, climb: &Climb, now: Duration) {
        if climb.one {
            return;
        }
        if self.lingering.len() == self.lingering.capacity() {
            self.lingering.remove(0);
        }
        self.lingering.push((climb.victim.id, now + LINGERS));
    }

    /// Completes the record and takes the climb back.
    fn submit(&mut self, mut climb: Box<Climb>, outcome: Outcome, freed: Option<u64>, now: Duration, records: &Records) {
        if let Some(mut record) = climb.record.take() {
            record.outcome = outcome;
            for rung in &climb.rungs {
                record.push_rung(*rung);
            }
            let were_there = if climb.one { Some(1) } else { climb.processes };
            match outcome {
                Outcome::Killed => {
                    record.processes_killed = climb.to_be_killed();
                    record.processes_ended = were_there.zip(record.processes_killed).map(|(before, killed)| before.saturating_sub(killed));
                }
                Outcome::Ended => (record.processes_killed, record.processes_ended) = (Some(0), were_there),
                _ => {}
            }
            let is_gone = matches!(outcome, Outcome::Killed | Outcome::Ended);
            record.latency.empty = is_gone.then(|| climb.since(now));
            if climb.ladder.killed_at.is_some() || is_gone {
                record.freed_bytes = freed;
            }
            record.latency.kill = climb.ladder.killed_at;
            records.submit(record);
        }
        (climb.pidfd, climb.looking, climb.hurried) = (None, None, None);
        (climb.policy, climb.victim) = (Arc::clone(&self.blank.0), Arc::clone(&self.blank.1));
        climb.subject_path = self.blank.1.path.clone();
        self.spare.push(climb);
    }

    /// Deeds are paused: ladders that have not sent SIGKILL end here. Of those that have, the end is waited for; nothing more is
    /// done for it.
    pub fn halt(&mut self, with: &mut Means<'_>) {
        for place in 0..CLIMBS {
            let Some(killing) = self.places[place].as_ref().map(|climb| climb.is_killing()) else { continue };
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
    /// Whether SIGKILL went out is known, even if the actor has not reported.
    pub fn interrupt(&mut self, all: bool, clock: &Clock, buffer: &mut ReadBuf, records: &Records) {
        for place in 0..CLIMBS {
            if self.places[place].as_ref().is_some_and(|climb| all || !climb.is_killing())
                && let Some(mut climb) = self.places[place].take()
            {
                let now = clock.now();
                climb.note_first_kill(clock);
                climb.ladder.interrupted(climb.since(now), &mut climb.rungs);
                let freed = freed(&climb, buffer);
                self.submit(climb, Outcome::Failed, freed, now, records);
            }
        }
    }
}

/// Who follows a victim that can't be killed, or must live.
enum Successor {
    /// This one.
    Is(Slot),
    /// Nobody: conditions do not hold any more.
    NotNeeded,
    /// Nobody may be killed.
    None,
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

/// How much less than at the verdict the victim holds.
fn freed(climb: &Climb, buffer: &mut ReadBuf) -> Option<u64> {
    climb.usage.zip(usage_left(&climb.victim, buffer)).map(|(before, left)| before.saturating_sub(left))
}

/// anon + swap that is left in a group; nothing in one that is gone.
fn usage_left(group: &Group, buffer: &mut ReadBuf) -> Option<u64> {
    let Ok(Some(stat)) = group.read(File::Stat, buffer, parse::stat) else {
        // The memory controller may have been switched off: only the group's own files tell that it is gone.
        let removed = group.read(File::GroupEvents, buffer, parse::populated).is_err_and(|error| error.is_gone());
        return removed.then_some(0);
    };
    let swap = group.read(File::SwapCurrent, buffer, parse::value).ok()?;
    Some(stat.anon?.saturating_add(swap.unwrap_or(0)))
}
