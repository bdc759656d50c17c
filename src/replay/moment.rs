//! The tree of one recorded moment, as a policy sees it, and a judgement on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::cgroup::path::GroupPath;
use crate::decide::conditions::{SubjectFacts, holds, notice_holds};
use crate::decide::facts::{GroupFacts, GroupId, NodeFacts, ProcessFacts};
use crate::decide::verdict::{Decision, Notice, Verdict};
use crate::decide::{Judge, Step};
use crate::policy::model::{Condition, Mode, Policy, Trigger};
use crate::record::facts::{GroupLine, RecordedGroup};
use crate::record::model::Blank;
use crate::record::words;

/// A moment: groups in pre-order, and the node.
#[derive(Debug)]
pub struct Moment<'a> {
    policy: &'a Arc<Policy>,
    /// The node then.
    pub node: NodeFacts,
    /// The groups then.
    pub groups: Vec<GroupFacts>,
    /// What is not known of a group and taken for the ordinary.
    doubts: Vec<String>,
}

/// What a policy makes of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// Its victim would be killed.
    Kill,
    /// The verdict would be recorded only: the rule's mode is `observe`.
    Observe,
    /// Nobody may be killed.
    NoVictim,
    /// What must hold did not.
    NotConfirmed,
    /// No rule is known to have been started.
    NotJudged,
}

impl Would {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Would::Kill => "kill",
            Would::Observe => "observe",
            Would::NoVictim => "no_victim",
            Would::NotConfirmed => "not_confirmed",
            Would::NotJudged => "not_judged",
        }
    }
}

/// A judgement by the policy that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// What it would have done.
    pub would: Would,
    /// By which rule.
    pub rule: Option<String>,
    /// Whom.
    pub victim: Option<String>,
    /// Everyone who was considered, the victim first.
    pub candidates: Vec<Candidate>,
    /// What was not recorded and taken for the ordinary.
    pub assumed: Vec<String>,
    /// For `not_judged`: why.
    pub why: Option<String>,
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The group.
    pub group: String,
    /// 1 is the victim; `None`: it must live.
    pub rank: Option<usize>,
    /// Why it has its place.
    pub reason: String,
    /// What its death would free.
    pub usage_bytes: Option<u64>,
    /// Strict importance.
    pub importance: i64,
}

impl Judged {
    /// No rule judged.
    #[must_use]
    pub fn not(why: String) -> Judged {
        Judged { would: Would::NotJudged, rule: None, victim: None, candidates: Vec::new(), assumed: Vec::new(), why: Some(why) }
    }

    /// Those that may die, in the order in which they would.
    #[must_use]
    pub fn order(&self) -> Vec<&str> {
        self.candidates.iter().filter(|candidate| candidate.rank.is_some()).map(|candidate| &*candidate.group).collect()
    }
}

impl<'a> Moment<'a> {
    /// Rebuilds the tree. Groups between one and its nearest recorded ancestor are not needed: what a policy says of them goes by
    /// their names alone.
    #[must_use]
    pub fn rebuild(policy: &'a Arc<Policy>, lines: &[GroupLine], node: NodeFacts) -> Moment<'a> {
        // In pre-order: by the parts of the paths. A group that is there twice counts as it was seen first.
        let mut sorted: BTreeMap<Vec<&str>, &GroupLine> = BTreeMap::new();
        for line in lines {
            sorted.entry(parts(&line.group)).or_insert(line);
        }
        let root = GroupLine { group: "/".to_owned(), populated: Some(true), ..GroupLine::default() };
        sorted.entry(Vec::new()).or_insert(&root);
        let mut moment = Moment { policy, node, groups: Vec::with_capacity(sorted.len()), doubts: Vec::new() };
        let mut above: Vec<(Vec<&str>, u32)> = Vec::new();
        for (at, (path, line)) in (0..).zip(sorted) {
            above.retain(|(ancestor, _)| path.starts_with(ancestor));
            let (mut facts, doubtful) = line.facts(policy);
            if doubtful {
                moment.doubts.push(format!("names of processes in {}", facts.path));
            }
            facts.parent = above.last().map(|(_, parent)| *parent);
            facts.subtree_end = at + 1;
            moment.groups.push(facts);
            above.push((path, at));
        }
        for at in (1..moment.groups.len()).rev() {
            let (end, parent) = (moment.groups[at].subtree_end, moment.groups[at].parent);
            if let Some(parent) = parent.and_then(|parent| moment.groups.get_mut(parent as usize)) {
                parent.subtree_end = parent.subtree_end.max(end);
            }
        }
        moment
    }

    /// Takes it that those who may die could give back what a level lacks: not all of them are
    /// known.
    pub fn assume_enough(&mut self) {
        for group in &mut self.groups {
            (group.memory.outlives, group.memory.tmpfs) = (None, None);
        }
    }

    /// Where the group with this path stands.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<u32> {
        let path = GroupPath::from_bytes(path.as_bytes());
        self.groups.iter().position(|group| group.path == path).and_then(|at| u32::try_from(at).ok())
    }

    /// The id of the group with this path.
    #[must_use]
    pub fn id_of(&self, path: &str) -> Option<GroupId> {
        self.find(path).and_then(|at| self.groups.get(at as usize)).map(|group| group.id)
    }

    /// The groups that a rule watches.
    pub fn subjects(&self, rule: usize) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.groups).filter(move |(_, group)| group.class.subject_of.contains(rule)).map(|(at, _)| at)
    }

    /// Whether a level that a trigger asks for is reached now; `None` for what happens and is no level, and where that can't be told.
    #[must_use]
    pub fn is_reached(&self, trigger: &Trigger, subject: u32) -> Option<bool> {
        let condition = match trigger {
            Trigger::Usage(test, _) => Condition::Usage(*test),
            Trigger::Available(level, _) => Condition::Available(*level),
            Trigger::SwapFree(level, held) => {
                let notice = Notice::SwapFree(level.bytes(self.node.swap_total_bytes), *held);
                return notice_holds(&notice, &SubjectFacts::of(&self.groups, subject)?, &self.node);
            }
            Trigger::Lms(level) => return Some(self.node.lms?.level >= Some(*level)),
            Trigger::Psi(_) | Trigger::Event(_) => return None,
        };
        holds(&condition, &SubjectFacts::of(&self.groups, subject)?, &self.node)
    }

    /// Judges. `failed` are groups that had been tried in vain.
    #[must_use]
    pub fn judge(&self, rule: usize, subject: u32, notice: &Notice, failed: &[GroupId]) -> Judged {
        let policy = self.policy;
        let mut groups = self.groups.clone();
        let (mut judge, mut verdict) = (Judge::with_capacity(groups.len()), Verdict::with_capacity(groups.len()));
        let mut unseen = Vec::new();
        while let Step::NeedProcesses(at) = judge.judge(policy, rule, subject, notice, &self.node, &groups, failed, &mut verdict) {
            // Nobody looked at them then: as if there were nothing to say of them.
            let Some(group) = groups.get_mut(at as usize) else { break };
            unseen.push(group.path.clone());
            group.processes = Some(ProcessFacts::default());
        }
        let mut record = Blank::default().slot(groups.len());
        record.fill(SystemTime::UNIX_EPOCH, policy, &Arc::from([]), *notice, &verdict, &groups);
        let candidates = record.candidates.iter().enumerate().map(|(at, candidate)| Candidate {
            group: candidate.group.to_string(),
            rank: words::rank(&record.candidates, at),
            reason: words::reason(&record, at),
            usage_bytes: candidate.usage_bytes,
            importance: candidate.importance,
        });
        let mode = policy.rules.get(rule).map(|rule| rule.mode);
        let mut assumed: Vec<String> = unseen.iter().map(|path| format!("processes of {path}")).collect();
        assumed.extend(self.doubts.iter().cloned());
        Judged {
            would: match verdict.decision {
                Decision::Kill(_) if mode == Some(Mode::Observe) => Would::Observe,
                Decision::Kill(_) => Would::Kill,
                Decision::NoVictim => Would::NoVictim,
                Decision::NotConfirmed => Would::NotConfirmed,
            },
            rule: policy.rules.get(rule).map(|rule| rule.name.to_string()),
            victim: record.victim.as_ref().map(ToString::to_string),
            candidates: candidates.collect(),
            assumed,
            why: None,
        }
    }
}

/// `/a/b` is `["a", "b"]`, the root `[]`.
fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// Facts as a recording holds them: of all groups.
#[must_use]
pub fn lines_of(groups: &[GroupFacts]) -> Vec<GroupLine> {
    groups.iter().map(|group| GroupLine::from(&RecordedGroup::from(group))).collect()
}
