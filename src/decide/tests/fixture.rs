//! Trees and verdicts as text.
//!
//! One group a line below the root, two spaces of indentation a level, then words: a bare number is the group's anon memory in
//! MiB (an inner group without one has the sum of its children's); see [`Group::word`] for the rest. A first line that begins
//! with `/` has words for the root. Every group is populated unless it says otherwise. Facts about processes are kept back
//! until the judge asks for them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::cgroup::path::GroupPath;
use crate::decide::facts::{GroupFacts, GroupId, Limit, MemoryFacts, NodeFacts, ProcessFacts};
use crate::decide::verdict::{Decision, Notice, Standing, Verdict};
use crate::decide::{Judge, Step};
use crate::policy::globs::Globs;
use crate::policy::model::{
    Among, AmongGroups, Condition, EventKind, GroupClass, KillWhat, Mode, Policy, Psi, PsiKind, RankBy, RankKey, Rule, Rung, Trigger,
    Victim,
};
use crate::units::{Bytes, Share};

pub(super) const MIB: u64 = 1 << 20;

/// A full stall: the plain notice, with nothing in it that could be checked again.
pub(super) const PSI: Notice =
    Notice::Psi(Psi { kind: PsiKind::Full, stall: Duration::from_millis(100), window: Duration::from_millis(500) });

pub(super) fn event(kind: EventKind) -> Notice {
    Notice::Event(kind, 0, 1)
}

/// A node with 1000 MiB, half of it available, and no swap.
pub(super) fn node() -> NodeFacts {
    NodeFacts { total_bytes: 1000 * MIB, available_bytes: Some(500 * MIB), swap_free_bytes: Some(0), ..NodeFacts::default() }
}

/// A rule on anything, with this victim.
pub(super) fn rule(victim: Victim) -> Rule {
    Rule {
        name: Arc::from("rule"),
        mode: Mode::Enforce,
        cooldown: Duration::from_secs(2),
        watch: Globs::new(&["/**"]).unwrap(),
        when: vec![Trigger::Event(EventKind::Oom)],
        only_if: Vec::new(),
        victim,
        ladder: vec![Rung::Kill(KillWhat::Group)],
        spare_unkillable: true,
    }
}

pub(super) fn subject_rule() -> Rule {
    rule(Victim::Subject)
}

pub(super) fn only_if(condition: Condition) -> Rule {
    Rule { only_if: vec![condition], ..subject_rule() }
}

/// `among` of the groups marked with that word, by usage.
pub(super) fn among_rule() -> Rule {
    among(AmongGroups::Globs(Globs::new(&["/marked/in/the/fixture"]).unwrap()), &[RankKey::Usage])
}

pub(super) fn leaves_rule() -> Rule {
    among(AmongGroups::Leaves, &[RankKey::Usage])
}

pub(super) fn among(groups: AmongGroups, keys: &[RankKey]) -> Rule {
    let rank = keys.iter().map(|key| RankBy { key: *key, within: None }).collect();
    rule(Victim::Among(Among { groups, at_least: Bytes(MIB), or_largest: false, rank }))
}

/// `among` the marked groups, the largest if all are below so many MiB.
pub(super) fn among_rule_or_largest(at_least: u64) -> Rule {
    let mut rule = among_rule();
    if let Victim::Among(among) = &mut rule.victim {
        (among.at_least.0, among.or_largest) = (at_least * MIB, true);
    }
    rule
}

/// `among` the marked groups, ranked by these keys.
pub(super) fn ranked_by(keys: &[(RankKey, Option<u16>)]) -> Rule {
    let mut rule = among_rule();
    let rank = keys.iter().map(|(key, within)| RankBy { key: *key, within: within.map(Share::percent) }).collect();
    if let Victim::Among(among) = &mut rule.victim {
        among.rank = rank;
    }
    rule
}

pub(super) fn policy(rule: Rule) -> Policy {
    Policy {
        hash: Arc::from("0"),
        mode: Mode::Enforce,
        exclude: Vec::new(),
        importance: Vec::new(),
        rules: vec![rule],
        oom_group: None,
        node_limit: None,
        kill_one_in: None,
        oomd_xattrs: true,
        hold: None,
        limit: None,
    }
}

/// A group while its line is read: the facts, and the processes that the judge has not seen yet.
struct Group {
    facts: GroupFacts,
    processes: ProcessFacts,
    depth: usize,
    anon: Option<u64>,
}

impl Group {
    fn word(&mut self, word: &str) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<u64>().unwrap();
        let mib = || number() * MIB;
        let limit = || Some(Limit::Bytes(mib()));
        let facts = &mut self.facts;
        match key {
            // memory
            "current" => facts.memory.current = Some(mib()),
            "shmem" => facts.memory.shmem = Some(mib()),
            "file" => facts.memory.reclaimable = Some(mib()),
            "outlives" if value == "?" => (facts.memory.outlives, facts.memory.tmpfs) = (None, None),
            "outlives" => facts.memory.outlives = Some(mib()),
            "tmpfs" => (facts.memory.outlives, facts.memory.tmpfs) = (Some(mib()), Some(mib())),
            "slab" => facts.memory.slab = Some(mib()),
            "swap" => facts.memory.swap = Some(mib()),
            "max" if value == "?" => facts.memory.max = None,
            "max" => facts.memory.max = limit(),
            "high" => facts.memory.high = limit(),
            "low" => facts.memory.low = Some(mib()),
            "unread" => facts.memory = MemoryFacts::default(),
            // the group
            "nomem" => facts.has_memory = false,
            "threaded" => facts.threaded = true,
            "unit" => facts.oom_group = true,
            "empty" => facts.populated = Some(false),
            "unreadable" => facts.populated = None,
            "dying" => facts.dying = true,
            "own" => facts.own = true,
            "growth" => facts.growth = Some(value.parse::<i64>().unwrap() * MIB.cast_signed()),
            "pressure" => facts.pressure = Some(Duration::from_millis(number())),
            "age" => facts.age = Some(Duration::from_secs(number())),
            "id" => facts.id = GroupId(number()),
            // policy
            "excluded" => facts.class.excluded = Some(u16::try_from(number()).unwrap()),
            "comm" => facts.class.comm_excludes.insert(usize::try_from(number()).unwrap()),
            "importance" => facts.class.importance = value.parse().unwrap(),
            "among" => facts.class.among.insert(0),
            // processes
            "runs" => self.processes.comm_hits.insert(usize::try_from(number()).unwrap()),
            "init" => self.processes.has_init = true,
            "unkillable" => self.processes.has_unkillable = true,
            "shielded" => self.processes.has_shielded = true,
            "unknown" => self.processes.has_unknown = true,
            "score" => self.processes.oom_score = Some(u32::try_from(number()).unwrap()),
            _ => self.anon = Some(word.parse::<u64>().unwrap_or_else(|_| panic!("unknown word {word}")) * MIB),
        }
    }
}

/// A judgement to be made.
pub(super) struct Case {
    pub(super) groups: Vec<GroupFacts>,
    /// What the judge gets when it asks.
    pub(super) processes: Vec<ProcessFacts>,
    pub(super) node: NodeFacts,
    pub(super) failed: Vec<GroupId>,
    pub(super) subject: u32,
    /// Groups that the judge asked about, in its order.
    pub(super) asked: Vec<u32>,
    pub(super) verdict: Verdict,
}

/// Reads a tree. The subject is the group with the word `subject`, else the root.
pub(super) fn tree(text: &str) -> Case {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let base = lines.iter().map(|line| indent(line)).min().unwrap_or(0);
    let (root, rest) = match lines.split_first() {
        Some((first, rest)) if first.trim_start().starts_with('/') => (first.trim(), rest),
        _ => ("/", &lines[..]),
    };
    let mut groups: Vec<Group> = Vec::new();
    let mut subject = 0;
    for (line, depth) in std::iter::once((root, 0)).chain(rest.iter().map(|line| (*line, (indent(line) - base) / 2 + 1))) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let parent = groups.iter().rposition(|group| group.depth + 1 == depth);
        assert_eq!(parent.is_none(), depth == 0, "no parent for {name}");
        let path = parent.map_or_else(GroupPath::root, |parent| groups[parent].facts.path.child(name.as_bytes()));
        let mut group = Group { facts: plain(groups.len(), path, parent), processes: ProcessFacts::default(), depth, anon: None };
        for word in words {
            if word == "subject" {
                subject = u32::try_from(groups.len()).unwrap();
            } else {
                group.word(word);
            }
        }
        groups.push(group);
    }
    finish(&mut groups);
    Case {
        processes: groups.iter().map(|group| group.processes).collect(),
        groups: groups.into_iter().map(|group| group.facts).collect(),
        node: node(),
        failed: Vec::new(),
        subject,
        asked: Vec::new(),
        verdict: Verdict::with_capacity(0),
    }
}

fn plain(at: usize, path: GroupPath, parent: Option<usize>) -> GroupFacts {
    let memory = MemoryFacts {
        current: None,
        anon: Some(0),
        shmem: Some(0),
        reclaimable: Some(0),
        outlives: Some(0),
        tmpfs: Some(0),
        slab: Some(0),
        swap: Some(0),
        max: parent.is_some().then_some(Limit::Unlimited),
        high: parent.is_some().then_some(Limit::Unlimited),
        low: Some(0),
    };
    GroupFacts {
        id: GroupId(100 + at as u64),
        path,
        parent: parent.map(|parent| u32::try_from(parent).unwrap()),
        subtree_end: u32::try_from(at + 1).unwrap(),
        class: GroupClass::default(),
        own: false,
        has_memory: true,
        threaded: false,
        oom_group: false,
        populated: Some(true),
        dying: false,
        memory,
        growth: None,
        pressure: None,
        age: None,
        processes: None,
    }
}

/// What depends on other lines: ends of subtrees, sums of memory, and who holds processes.
fn finish(groups: &mut [Group]) {
    let mut children = vec![0; groups.len()];
    for at in (0..groups.len()).rev() {
        let anon = groups[at].anon;
        let facts = &mut groups[at].facts;
        let unread = facts.memory == MemoryFacts::default();
        let anon = anon.unwrap_or_else(|| facts.memory.anon.unwrap_or(0));
        if !unread {
            facts.memory.anon = Some(anon);
            facts.memory.current = facts.memory.current.or(Some(anon + facts.memory.shmem.unwrap_or(0)));
        }
        groups[at].processes.count = u32::from(children[at] == 0);
        let (end, parent) = (groups[at].facts.subtree_end, groups[at].facts.parent);
        if let Some(parent) = parent {
            let parent = parent as usize;
            children[parent] += 1;
            let above = &mut groups[parent];
            above.facts.subtree_end = above.facts.subtree_end.max(end);
            if above.anon.is_none()
                && let Some(sum) = &mut above.facts.memory.anon
            {
                *sum += anon;
            }
        }
    }
}

impl Case {
    /// Judges `notice` by `rule`, answering what the judge asks, and gives the verdict as text.
    pub(super) fn judge(&mut self, rule: Rule, notice: Notice) -> String {
        self.decide(rule, notice);
        self.text()
    }

    /// As [`Case::judge`], the verdict left in the case.
    pub(super) fn decide(&mut self, rule: Rule, notice: Notice) {
        let policy = policy(rule);
        let mut judge = Judge::with_capacity(self.groups.len());
        self.asked.clear();
        loop {
            let step = judge.judge(&policy, 0, self.subject, &notice, &self.node, &self.groups, &self.failed, &mut self.verdict);
            let Step::NeedProcesses(at) = step else { break };
            let group = &mut self.groups[at as usize];
            assert!(group.processes.is_none(), "asked twice for {}", group.path);
            assert_eq!(group.populated, Some(true), "asked for {}, which holds nothing", group.path);
            group.processes = Some(self.processes[at as usize]);
            self.asked.push(at);
        }
    }

    /// `kill /a | then /b | not /c: Empty`, or `no victim` or `not confirmed` in the place of the kill.
    pub(super) fn text(&self) -> String {
        let path = |at: u32| self.groups[at as usize].path.to_string();
        let mut text = match self.verdict.decision {
            Decision::Kill(at) => {
                assert_eq!(self.verdict.candidates.first().map(|first| first.standing), Some(Standing::Chosen));
                format!("kill {}", path(at))
            }
            Decision::NotConfirmed => "not confirmed".to_owned(),
            Decision::NoVictim => "no victim".to_owned(),
        };
        for candidate in &self.verdict.candidates {
            match candidate.standing {
                Standing::Chosen => {}
                Standing::Ranked => write!(text, " | then {}", path(candidate.group)).unwrap(),
                Standing::Struck(strike) => write!(text, " | not {}: {strike:?}", path(candidate.group)).unwrap(),
            }
        }
        text
    }

    /// The paths that the judge asked about.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.iter().map(|at| self.groups[*at as usize].path.to_string()).collect()
    }

    /// Index of a group by its path.
    pub(super) fn at(&self, path: &str) -> u32 {
        u32::try_from(self.groups.iter().position(|group| group.path.as_bytes() == path.as_bytes()).unwrap()).unwrap()
    }

    /// Its identity.
    pub(super) fn id(&self, path: &str) -> GroupId {
        self.groups[self.at(path) as usize].id
    }
}
