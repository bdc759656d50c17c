//! Facts gathered for a judgement, and the judgement.
//!
//! The whole tree goes in as a list in pre-order; memory is read only of what the judgement can turn on: the subject, what is
//! above it (whose limits count) and below it, and the candidates. Processes are read only of groups that are about to die,
//! when the judge asks for them. Buffers are sized when groups are found: gathering allocates nothing.
//!
//! What is looked at comes as a [`Sight`], so that the same court serves who only wants to know what would be judged
//! ([`crate::preview`]): without triggers, threads, or anything held open.

use std::io;
use std::time::Duration;

use super::below::is_below;
use super::group::{Reads, age, look, value};
use super::own::{Finder, Own};
use super::sight::Sight;
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, ReadBuf};
use crate::cgroup::parse;
use crate::decide::facts::{GroupFacts, NodeFacts, ProcessFacts};
use crate::decide::process::{NEVER, ProcessFact, pick};
use crate::decide::verdict::{Decision, Notice, Strike, Verdict};
use crate::decide::{Examined, Judge, Step};
use crate::policy::model::{Among, AmongGroups, Policy, RankKey, Rule, Victim};
use crate::sense::process::MAX_PROCESSES;
use crate::sense::tree::{Slot, Tree};

/// How many groups are looked at to say which of them hold memory without a process.
const MOST_LOOKS: usize = 512;

/// No index: the group is not among the facts.
const ABSENT: u32 = u32::MAX;

/// What a judgement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Kill this group, in the trouble of that scope.
    Kill {
        /// The victim.
        victim: Slot,
        /// Whose shortage it is.
        scope: GroupId,
    },
    /// Conditions did not hold.
    NotConfirmed,
    /// Nobody may be killed.
    NoVictim,
}

/// The judge with his files.
#[derive(Debug)]
pub struct Court {
    judge: Judge,
    /// Finds oomwarden's own group; `None` where there is no oomwarden that has to live.
    own: Option<Finder>,
    /// Finds the group of process 1.
    init: Option<Finder>,
    /// The verdict of the last judgement.
    pub verdict: Verdict,
    /// The facts that it rested on.
    pub facts: Vec<GroupFacts>,
    /// The node then.
    pub node: NodeFacts,
    slots: Vec<Slot>,
    index: Vec<u32>,
    members: Vec<ProcessFact>,
    /// Groups that the last judgement might turn on, of which something would have had to be opened, which was not allowed.
    pub unheld: Vec<Slot>,
}

impl Court {
    /// With room for a small machine; see [`Court::reserve`].
    ///
    /// # Errors
    /// When /proc/self/cgroup can't be opened.
    pub fn open() -> io::Result<Court> {
        // Where it can't be seen the kernel module knows it all the same.
        let init = Finder::of(1).ok();
        Ok(Court { init, ..Court::with_own(Some(Finder::open()?)) })
    }

    /// For one who looks on: `daemon` finds the group of the oomwarden that judges here, if one is running.
    #[must_use]
    pub fn with_own(daemon: Option<Finder>) -> Court {
        Court {
            judge: Judge::with_capacity(64),
            own: daemon,
            init: None,
            verdict: Verdict::with_capacity(64),
            facts: Vec::with_capacity(64),
            node: NodeFacts::default(),
            slots: Vec::with_capacity(64),
            index: Vec::with_capacity(64),
            members: Vec::with_capacity(64),
            unheld: Vec::with_capacity(64),
        }
    }

    /// Makes room for so many groups, in so many places of the tree. Not on the kill path.
    pub fn reserve(&mut self, groups: usize, places: usize) {
        // With some to spare, so that groups that come one by one don't cost a new buffer each.
        if groups > self.facts.capacity() {
            let groups = groups + groups / 4;
            self.judge.reserve(groups);
            self.verdict.candidates.reserve(groups.saturating_sub(self.verdict.candidates.len()));
            self.facts.reserve(groups.saturating_sub(self.facts.len()));
            self.slots.reserve(groups.saturating_sub(self.slots.len()));
            self.unheld.reserve(groups.saturating_sub(self.unheld.len()));
        }
        for finder in [&mut self.own, &mut self.init].into_iter().flatten() {
            finder.reserve(groups);
        }
        if places > self.index.capacity() {
            self.index.reserve((places + places / 4).saturating_sub(self.index.len()));
        }
    }

    /// Finds our own group.
    ///
    /// # Errors
    /// When it can't be told: then nothing may be killed, and starting makes no sense.
    pub fn find_own(&mut self, tree: &Tree) -> io::Result<()> {
        match own_group(&mut self.own, tree, &mut ReadBuf::new()) {
            Own::Unknown => Err(io::Error::other(
                "cannot tell which control group oomwarden itself runs in, so nothing would be safe to kill: give it the host's pid namespace",
            )),
            Own::Inside(_) | Own::Outside => Ok(()),
        }
    }

    /// The group of the oomwarden that has to live.
    pub fn own(&mut self, sight: &mut Sight<'_>) -> Own {
        own_group(&mut self.own, sight.tree, sight.buffer)
    }

    /// Judges on the facts as they were gathered. `None`: the subject is not among them.
    pub fn decide(
        &mut self,
        policy: &Policy,
        rule: usize,
        subject: Slot,
        notice: &Notice,
        failed: &[GroupId],
        sight: &mut Sight<'_>,
    ) -> Option<Ruling> {
        let subject = self.index_of(subject)?;
        self.settle(policy, rule, subject, notice, failed, sight)?;
        let scope = self.facts.get(self.verdict.scope as usize)?.id;
        Some(match self.verdict.decision {
            Decision::Kill(victim) => Ruling::Kill { victim: *self.slots.get(victim as usize)?, scope },
            Decision::NotConfirmed => Ruling::NotConfirmed,
            Decision::NoVictim => Ruling::NoVictim,
        })
    }

    /// The verdict on what was gathered, with the processes that the judge asks for.
    fn settle(
        &mut self,
        policy: &Policy,
        rule: usize,
        subject: u32,
        notice: &Notice,
        failed: &[GroupId],
        sight: &mut Sight<'_>,
    ) -> Option<()> {
        loop {
            match self.judge.judge(policy, rule, subject, notice, &self.node, &self.facts, failed, &mut self.verdict) {
                Step::Decided => {
                    if self.verdict.is_in_vain() {
                        self.find_emptied(subject, notice, sight);
                    }
                    return Some(());
                }
                Step::NeedProcesses(group) => self.see_processes(policy, rule, group, sight)?,
            }
        }
    }

    /// Looks at a victim once more before the next rung of its ladder: why it must live after all, by the policy in force.
    pub fn examine(
        &mut self,
        rule: &Rule,
        one: bool,
        victim: Slot,
        now: Duration,
        sight: &mut Sight<'_>,
        is_dying: impl Fn(&Tree, Slot) -> bool,
    ) -> Option<Strike> {
        // Of no rule: the victim and what is below it are read, and the limits above.
        let no_rule = usize::MAX;
        let policy = sight.tree.policy();
        self.gather_from(&policy, no_rule, victim, now, NodeFacts::default(), sight, is_dying);
        let at = self.index_of(victim)?;
        loop {
            match self.judge.examine(rule, one, at, &self.facts) {
                Examined::MayDie => return None,
                Examined::MustLive(strike) => return Some(strike),
                Examined::NeedProcesses(group) => {
                    if self.see_processes_of(&policy, false, group, sight).is_none() {
                        return Some(Strike::Unknown);
                    }
                }
            }
        }
    }

    /// Where a kill would be in vain: which groups hold memory without a process, be they
    /// candidates or not. Reads what the judgement did not turn on, so nothing of this is on the
    /// way to a kill.
    fn find_emptied(&mut self, subject: u32, notice: &Notice, sight: &mut Sight<'_>) {
        let Court { facts, slots, verdict, .. } = self;
        let whole = 0..u32::try_from(facts.len()).unwrap_or(ABSENT);
        let within = match (notice, facts.get(subject as usize)) {
            (Notice::Usage(..), Some(group)) if group.parent.is_some() => subject..group.subtree_end,
            _ => whole,
        };
        let (mut at, mut looks) = (within.start.max(1), 0);
        while at < within.end && looks < MOST_LOOKS {
            let (Some(group), Some(slot)) = (facts.get_mut(at as usize), slots.get(at as usize)) else { break };
            at += 1;
            if let Some(node) = sight.tree.get(*slot).filter(|node| node.has_memory && group.memory.current.is_none()) {
                looks += 1;
                group.populated = node.group.read(File::GroupEvents, sight.buffer, parse::populated).ok().flatten().flatten();
                if group.populated == Some(false) {
                    group.memory.current = value(&node.group, File::Current, sight.buffer);
                }
            }
            if group.populated == Some(false) {
                at = group.subtree_end.max(at);
            }
        }
        verdict.note_emptied(facts, within);
    }

    /// Groups that must live whatever any policy says, but for the root, which dies by none: our own, that of our hooks, that of process 1.
    /// `None`: which one is ours can't be told.
    pub fn kept(&mut self, sight: &mut Sight<'_>) -> Option<[Option<Slot>; 3]> {
        let slot = |own: Own, tree: &Tree| match own {
            Own::Inside(id) => tree.slot_of(id),
            Own::Outside | Own::Unknown => None,
        };
        let own = own_group(&mut self.own, sight.tree, sight.buffer);
        if own == Own::Unknown {
            return None;
        }
        let hooks = self.own.as_ref().and_then(|finder| finder.hooks(sight.tree));
        let init = own_group(&mut self.init, sight.tree, sight.buffer);
        let mut kept = [slot(own, sight.tree), hooks, slot(init, sight.tree)].map(|slot| slot.filter(|slot| *slot != Tree::ROOT));
        for at in 1..kept.len() {
            // Each once.
            if kept[..at].contains(&kept[at]) {
                kept[at] = None;
            }
        }
        Some(kept)
    }

    /// Adds what a judgement by this rule wants to know of the processes directly in the group at index `group` of the facts.
    pub fn see_processes(&mut self, policy: &Policy, rule: usize, group: u32, sight: &mut Sight<'_>) -> Option<()> {
        let scores =
            matches!(&policy.rules.get(rule)?.victim, Victim::Among(among) if among.rank.iter().any(|by| by.key == RankKey::OomScore));
        self.see_processes_of(policy, scores, group, sight)
    }

    fn see_processes_of(&mut self, policy: &Policy, scores: bool, group: u32, sight: &mut Sight<'_>) -> Option<()> {
        let facts = self.facts.get_mut(group as usize)?;
        let node = self.slots.get(group as usize).and_then(|slot| sight.tree.get(*slot));
        facts.processes = Some(match node {
            Some(node) if !node.threaded => sight.processes.facts(&node.group, policy, &facts.class.comm_excludes, scores, sight.buffer),
            // The processes of a threaded group are listed at the root of its threaded subtree.
            Some(_) => ProcessFacts::default(),
            None => ProcessFacts { has_unknown: true, ..ProcessFacts::default() },
        });
        Some(())
    }

    /// Index of a group in the facts of the last judgement.
    #[must_use]
    pub fn index_of(&self, slot: Slot) -> Option<u32> {
        self.index.get(slot as usize).copied().filter(|index| *index != ABSENT)
    }

    /// The facts of a group in the last judgement.
    #[must_use]
    pub fn facts_of(&self, slot: Slot) -> Option<&GroupFacts> {
        self.facts.get(self.index_of(slot)? as usize)
    }

    /// How many groups the last judgement saw below one. A group that was gone by then is not among them, although the tree may have it yet.
    #[must_use]
    pub fn groups_below(&self, slot: Slot) -> Option<u64> {
        let index = self.index_of(slot)?;
        let end = self.facts.get(index as usize)?.subtree_end;
        Some(u64::from(end.saturating_sub(index + 1)))
    }

    /// How many processes the last judgement saw in a group and below it.
    #[must_use]
    pub fn processes_below(&self, slot: Slot) -> Option<u32> {
        let index = self.index_of(slot)? as usize;
        let end = self.facts.get(index)?.subtree_end as usize;
        let counts = self.facts.get(index..end)?.iter().filter_map(|group| group.processes).map(|processes| processes.count);
        Some(counts.fold(0, u32::saturating_add))
    }

    /// Gathers the facts of the whole tree from what is in sight; `is_dying` tells of which groups a deed is under way.
    #[expect(clippy::too_many_arguments, reason = "as for a judgement")]
    pub fn gather_from(
        &mut self,
        policy: &Policy,
        rule: usize,
        subject: Slot,
        now: Duration,
        node: NodeFacts,
        sight: &mut Sight<'_>,
        is_dying: impl Fn(&Tree, Slot) -> bool,
    ) {
        self.facts.clear();
        self.slots.clear();
        self.index.clear();
        self.unheld.clear();
        self.node = node;
        let Sight { tree, trends, buffer, .. } = sight;
        let own = own_group(&mut self.own, tree, buffer);
        let hooks = self.own.as_ref().and_then(|finder| finder.hooks(tree));
        let ranks_by = |key: RankKey| matches!(policy.rules.get(rule).map(|rule| &rule.victim), Some(Victim::Among(among)) if among.rank.iter().any(|by| by.key == key));
        let by_pressure = ranks_by(RankKey::Pressure);
        // Before the first note the birth of a young group tells.
        let by_movement = by_pressure || ranks_by(RankKey::Growth) || trends.is_kept();
        let mut next = Some(Tree::ROOT);
        // Whoever is named to die is read with all below it. That need not be the subject: a rule about the node that names its
        // candidates must not read every group there is.
        let named =
            matches!(policy.rules.get(rule).map(|rule| &rule.victim), Some(Victim::Among(Among { groups: AmongGroups::Globs(_), .. })));
        // The top of the subtree that we are in, if what it holds matters.
        let mut inside: Option<Slot> = None;
        while let Some(slot) = next {
            next = tree.next_in_preorder(Tree::ROOT, slot);
            let Some(node) = tree.get(slot) else { continue };
            let parent = node.parent.and_then(|parent| self.index.get(parent as usize).copied());
            if node.parent.is_some() && parent.is_none_or(|parent| parent == ABSENT) {
                // Below a group that was found gone.
                continue;
            }
            inside = inside.filter(|top| is_below(tree, slot, *top));
            if (slot == subject && !named) || node.class.among.contains(rule) {
                inside.get_or_insert(slot);
            }
            let reads = Reads {
                holdings: inside.is_some() || slot == subject,
                // Whether somebody with a name that spares may be in it.
                limits: inside.is_some() || is_below(tree, subject, slot) || !node.class.comm_excludes.is_empty(),
                low: ranks_by(RankKey::Overage) && inside.is_some(),
                though_empty: is_below(tree, subject, slot),
            };
            let Some(mut facts) = look(node, slot == Tree::ROOT, reads, buffer) else { continue };
            if inside.is_some() && !buffer.may_open() && !node.group.is_held_whole() {
                self.unheld.push(slot);
            }
            facts.parent = parent;
            facts.own = match own {
                Own::Inside(id) => id == facts.id || hooks.is_some_and(|hooks| is_below(tree, slot, hooks)),
                Own::Outside => false,
                Own::Unknown => true,
            };
            if self.own.as_ref().is_some_and(|finder| finder.doubts(facts.id)) {
                // It might be our own, which can't be told: unknown, like all that can't be read.
                facts.populated = None;
            }
            facts.dying = is_dying(tree, slot);
            if inside.is_some() && by_movement {
                facts.growth = trends.growth(facts.id, now, node.born, facts.memory.usage());
                // A note may be a second old, and the stall that started this judgement younger.
                let stall = by_pressure.then(|| node.group.read(File::Pressure, buffer, parse::pressure).ok().flatten()).flatten();
                facts.pressure = trends.pressure(facts.id, now, node.born, stall.and_then(|stall| stall.full_us));
            }
            facts.age = Some(age(node.born, facts.id, now));
            let index = u32::try_from(self.facts.len()).unwrap_or(ABSENT);
            facts.subtree_end = index + 1;
            self.facts.push(facts);
            self.slots.push(slot);
            let place = slot as usize;
            if self.index.len() <= place {
                self.index.resize(place + 1, ABSENT);
            }
            self.index[place] = index;
        }
        for at in (1..self.facts.len()).rev() {
            let (end, parent) = (self.facts[at].subtree_end, self.facts[at].parent);
            if let Some(parent) = parent.and_then(|parent| self.facts.get_mut(parent as usize)) {
                parent.subtree_end = parent.subtree_end.max(end);
            }
        }
    }

    /// Whether a process of a group, or of one below it, is known to have oom_score_adj -1000 by now.
    pub fn is_unkillable(&mut self, top: Slot, pid: i32, sight: &mut Sight<'_>) -> bool {
        let mut unkillable = false;
        let mut next = Some(top);
        while let Some(slot) = next {
            next = sight.tree.next_in_preorder(top, slot);
            let Some(node) = sight.tree.get(slot) else { continue };
            sight.processes.each(&node.group, sight.buffer, |process| {
                unkillable |= process.pid == pid && process.oom_score_adj.is_none_or(|adjust| adjust <= NEVER);
            });
        }
        unkillable
    }

    /// Which single process of a group is to die.
    pub fn pick_process(&mut self, top: Slot, sight: &mut Sight<'_>) -> Option<i32> {
        self.members.clear();
        let mut next = Some(top);
        while let Some(slot) = next {
            next = sight.tree.next_in_preorder(top, slot);
            let Some(node) = sight.tree.get(slot) else { continue };
            let members = &mut self.members;
            sight.processes.each(&node.group, sight.buffer, |process| {
                if members.len() < MAX_PROCESSES {
                    members.push(ProcessFact {
                        pid: process.pid,
                        oom_score: process.oom_score,
                        held_bytes: process.held_bytes,
                        oom_score_adj: process.oom_score_adj,
                    });
                }
            });
        }
        pick(&self.members).and_then(|at| self.members.get(at)).map(|process| process.pid)
    }
}

/// Our own group, if there is an oomwarden that has to live.
fn own_group(finder: &mut Option<Finder>, tree: &Tree, buffer: &mut ReadBuf) -> Own {
    finder.as_mut().map_or(Own::Outside, |finder| finder.find(tree, buffer))
}
