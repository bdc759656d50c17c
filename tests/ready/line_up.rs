//! Who dies, one after the other, by a real policy and the real judge, while the trouble lasts.

use std::ops::Range;
use std::time::Duration;

use oomwarden::cgroup::path::GroupPath;
use oomwarden::decide::facts::{GroupFacts, GroupId, Limit, LmsFacts, MemoryFacts, NodeFacts, ProcessFacts};
use oomwarden::decide::process::SHIELDED;
use oomwarden::decide::verdict::{Decision, Notice, Verdict};
use oomwarden::decide::{Judge, Step};
use oomwarden::policy::model::{Condition, EntrySet, EventKind, GroupClass, KillWhat, LmsLevel, Policy, Rung, Trigger, UsageOf, UsageTest};

use super::tree::{Case, Group, MIB, Trouble};

/// A machine on which one after the other dies.
struct Machine<'a> {
    policy: &'a Policy,
    node_mib: u64,
    groups: Vec<Group>,
    classes: Vec<GroupClass>,
    trouble: &'a Trouble,
    node: NodeFacts,
}

/// Who dies in this trouble, in order, by all rules (the first that names a victim has it) or by
/// one of them alone.
pub fn line_up(policy: &Policy, case: &Case, trouble: &Trouble, rules: Range<usize>) -> Vec<String> {
    let mut machine = Machine::new(policy, case, trouble);
    let mut dead = Vec::new();
    while let Some((victim, rule)) = machine.next(rules.clone()) {
        dead.push(machine.kill(victim, rule));
        assert!(dead.len() <= 1000, "no end: {dead:?}");
    }
    dead
}

impl<'a> Machine<'a> {
    fn new(policy: &'a Policy, case: &Case, trouble: &'a Trouble) -> Machine<'a> {
        let mut classes: Vec<GroupClass> = Vec::new();
        for group in &case.groups {
            let class = policy.classify(group.path.as_bytes(), group.parent.map(|parent| &classes[parent]));
            classes.push(class);
        }
        let total = case.node_mib * MIB;
        let (low, swap_left) = match trouble {
            Trouble::Node | Trouble::Thrash | Trouble::Oom => (true, false),
            Trouble::Limit { swap, .. } => (false, *swap),
            Trouble::OomKill { .. } => (false, true),
        };
        let node = NodeFacts {
            total_bytes: total,
            // So little below the lowest level that the death of any candidate lifts it.
            available_bytes: Some(if low { lowest_level(policy, total).saturating_sub(8 * MIB) } else { total / 2 }),
            swap_total_bytes: case.swap_mib * MIB,
            swap_free_bytes: Some(if swap_left { case.swap_mib * MIB } else { 0 }),
            lms: matches!(trouble, Trouble::Oom).then_some(LmsFacts { level: Some(LmsLevel::Oom), warn_bytes: 0, kill_bytes: 0 }),
            ..NodeFacts::default()
        };
        Machine { policy, node_mib: case.node_mib + case.swap_mib, groups: case.groups.clone(), classes, trouble, node }
    }

    /// The next victim and the rule that names it.
    fn next(&self, mut rules: Range<usize>) -> Option<(usize, usize)> {
        rules.find_map(|rule| {
            let mut subjects = (0..self.groups.len()).filter(|at| self.classes[*at].subject_of.contains(rule));
            subjects.find_map(|subject| {
                let mut notices = self.policy.rules[rule].when.iter().filter_map(|trigger| self.notice(trigger, subject));
                notices.find_map(|notice| match self.judge(rule, subject, &notice).decision {
                    Decision::Kill(victim) => Some((victim as usize, rule)),
                    Decision::NotConfirmed | Decision::NoVictim => None,
                })
            })
        })
    }

    /// What the trouble makes of a trigger of the rule about this subject.
    fn notice(&self, trigger: &Trigger, subject: usize) -> Option<Notice> {
        match (self.trouble, *trigger) {
            (Trouble::Node | Trouble::Thrash, Trigger::Available(level, time)) => {
                Some(Notice::Available(level.bytes(self.node.total_bytes), time))
            }
            (Trouble::Node | Trouble::Thrash, Trigger::Usage(test @ UsageTest::Share(_, UsageOf::Node), time)) => {
                Some(Notice::Usage(test, time))
            }
            (Trouble::Thrash, Trigger::Psi(psi)) if subject == 0 => Some(Notice::Psi(psi)),
            (Trouble::Oom, Trigger::Lms(_)) => Some(Notice::Lms(LmsLevel::Oom)),
            (Trouble::Limit { group, short, .. }, Trigger::Psi(psi)) if subject == *group => {
                (!short || psi.stall <= Duration::from_secs(1)).then_some(Notice::Psi(psi))
            }
            (Trouble::Limit { group, .. }, Trigger::Usage(test, time)) if subject == *group => Some(Notice::Usage(test, time)),
            (Trouble::OomKill { group }, Trigger::Event(EventKind::OomKill)) if subject == *group => {
                Some(Notice::Event(EventKind::OomKill, 0, 1))
            }
            _ => None,
        }
    }

    fn judge(&self, rule: usize, subject: usize, notice: &Notice) -> Verdict {
        let mut facts: Vec<GroupFacts> = (0..self.groups.len()).map(|at| self.facts(at)).collect();
        let (mut judge, mut verdict) = (Judge::with_capacity(facts.len()), Verdict::with_capacity(facts.len()));
        while let Step::NeedProcesses(at) = judge.judge(self.policy, rule, subject as u32, notice, &self.node, &facts, &[], &mut verdict) {
            facts[at as usize].processes = Some(self.processes(at as usize));
        }
        verdict
    }

    fn facts(&self, at: usize) -> GroupFacts {
        let group = &self.groups[at];
        GroupFacts {
            id: GroupId(at as u64 + 1),
            path: GroupPath::from_bytes(group.path.as_bytes()),
            parent: group.parent.map(|parent| parent as u32),
            subtree_end: group.end as u32,
            class: self.classes[at],
            own: group.own,
            has_memory: true,
            threaded: group.threaded,
            oom_group: group.unit,
            populated: Some(self.inside(at).iter().any(|group| !group.processes.is_empty())),
            dying: false,
            memory: self.memory(at),
            growth: Some(self.inside(at).iter().map(|group| group.growth * MIB as i64).sum()),
            pressure: None,
            // who stands farther down is younger
            age: Some(Duration::from_secs(100_000 - at as u64)),
            processes: None,
        }
    }

    fn inside(&self, at: usize) -> &[Group] {
        &self.groups[at..self.groups[at].end]
    }

    fn memory(&self, at: usize) -> MemoryFacts {
        let group = &self.groups[at];
        let sum = |of: fn(&Group) -> u64| self.inside(at).iter().map(of).sum::<u64>() * MIB;
        let anon = sum(|group| group.processes.iter().map(|process| process.mib).sum());
        let (mut current, mut file) = (anon + sum(|group| group.file + group.shmem), sum(|group| group.file));
        if let Trouble::Limit { group: full, cache, .. } = self.trouble
            && *full == at
            && at > 0
        {
            // Full for as long as anybody lives in it.
            current = group.max.or(group.high).expect("the limit of a group at its limit") * MIB;
            file = if *cache { current - anon.min(current / 2) } else { 0 };
        }
        let limit = |mib: Option<u64>| Some(mib.map_or(Limit::Unlimited, |mib| Limit::Bytes(mib * MIB)));
        MemoryFacts {
            current: Some(current),
            anon: Some(anon),
            shmem: Some(sum(|group| group.shmem)),
            reclaimable: Some(file),
            outlives: Some(file + sum(|group| group.shmem)),
            swap: Some(sum(|group| group.swap)),
            max: limit(group.max),
            high: limit(group.high),
            low: Some(0),
            ..MemoryFacts::default()
        }
    }

    fn processes(&self, at: usize) -> ProcessFacts {
        let group = &self.groups[at];
        let mut comm_hits = EntrySet::EMPTY;
        for (entry, exclude) in self.policy.exclude.iter().enumerate() {
            let hit = |comm: &[u8]| group.processes.iter().any(|process| process.comm.as_bytes() == comm);
            if exclude.comm.as_deref().is_some_and(hit) {
                comm_hits.insert(entry);
            }
        }
        ProcessFacts {
            count: group.processes.len() as u32,
            has_init: group.path == "/init.scope" || group.path == "/init",
            has_unkillable: group.processes.iter().any(|process| process.adj == -1000),
            has_shielded: group.processes.iter().any(|process| process.adj <= i64::from(SHIELDED)),
            comm_hits,
            oom_score: group.processes.iter().map(|process| process.oom_score(self.node_mib)).max(),
            ..ProcessFacts::default()
        }
    }

    /// Takes the victim off the machine, or one process of it, and names it.
    fn kill(&mut self, victim: usize, rule: usize) -> String {
        let one = self.classes[victim].kill_one || self.policy.rules[rule].ladder.last() == Some(&Rung::Kill(KillWhat::Process));
        let end = self.groups[victim].end;
        if !one {
            for group in &mut self.groups[victim..end] {
                (group.processes, group.file, group.shmem, group.swap) = (Vec::new(), 0, 0, 0);
            }
            return self.groups[victim].path.clone();
        }
        let processes = self.groups[victim..end].iter().flat_map(|group| &group.processes);
        let first = processes.max_by_key(|process| (process.oom_score(self.node_mib), process.mib)).expect("a victim has processes");
        let (comm, mib, adj) = (first.comm.clone(), first.mib, first.adj);
        for group in &mut self.groups[victim..end] {
            let found = group.processes.iter().position(|process| process.comm == comm && process.mib == mib && process.adj == adj);
            if let Some(found) = found {
                group.processes.remove(found);
                break;
            }
        }
        format!("{}#{comm}", self.groups[victim].path)
    }
}

/// The lowest level of available memory that the policy speaks of, bytes.
fn lowest_level(policy: &Policy, total: u64) -> u64 {
    let triggers = policy.rules.iter().flat_map(|rule| &rule.when).filter_map(|trigger| match trigger {
        Trigger::Available(level, _) => Some(*level),
        _ => None,
    });
    let conditions = policy.rules.iter().flat_map(|rule| &rule.only_if).filter_map(|condition| match condition {
        Condition::Available(level) => Some(*level),
        _ => None,
    });
    triggers.chain(conditions).map(|level| level.bytes(total)).min().unwrap_or(0)
}
