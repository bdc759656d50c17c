//! What a judgement saw of each group, as it stands in a line of the journal or of a recording: enough to judge the same moment
//! again, by another policy.
//!
//! [`RecordedGroup`] is what the warden copies into a slot, without allocating; [`GroupLine`] is the form in JSON, read and
//! written by the same definition.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::path::{Escaped, GroupPath};
use crate::decide::facts::{GroupFacts, GroupId, Limit, MemoryFacts, ProcessFacts};
use crate::decide::verdict::{Standing, Strike, Verdict};
use crate::policy::model::{EntrySet, GroupClass, Policy};

/// Groups whose facts one record holds: a line must not grow with the machine.
pub const MOST_GROUPS: usize = 256;

/// The facts of one group, without what a policy says of it.
#[derive(Clone, Debug)]
pub struct RecordedGroup {
    id: GroupId,
    path: GroupPath,
    own: bool,
    has_memory: bool,
    threaded: bool,
    oom_group: bool,
    populated: Option<bool>,
    dying: bool,
    memory: MemoryFacts,
    growth: Option<i64>,
    pressure: Option<Duration>,
    age: Option<Duration>,
    processes: Option<ProcessFacts>,
}

impl RecordedGroup {
    /// One to fill memory with.
    pub(super) fn filler(path: GroupPath) -> RecordedGroup {
        RecordedGroup {
            id: GroupId(0),
            path,
            own: false,
            has_memory: false,
            threaded: false,
            oom_group: false,
            populated: None,
            dying: false,
            memory: MemoryFacts::default(),
            growth: None,
            pressure: None,
            age: None,
            processes: None,
        }
    }
}

impl From<&GroupFacts> for RecordedGroup {
    /// Allocates nothing: a path is shared.
    fn from(facts: &GroupFacts) -> RecordedGroup {
        RecordedGroup {
            id: facts.id,
            path: facts.path.clone(),
            own: facts.own,
            has_memory: facts.has_memory,
            threaded: facts.threaded,
            oom_group: facts.oom_group,
            populated: facts.populated,
            dying: facts.dying,
            memory: facts.memory,
            growth: facts.growth,
            pressure: facts.pressure,
            age: facts.age,
            processes: facts.processes,
        }
    }
}

/// The facts that one judgement turned on. Never grown on the warden.
#[derive(Debug, Default)]
pub struct RecordedFacts {
    /// The subject and what is above it, then the candidates in their order, each with what is below it.
    pub groups: Vec<RecordedGroup>,
    /// Groups that a judgement looked at and for which there was no room.
    pub left_out: u32,
}

impl RecordedFacts {
    /// Takes what the verdict turned on, instead of what is held; allocates nothing.
    pub(super) fn take(&mut self, verdict: &Verdict, facts: &[GroupFacts]) {
        self.groups.clear();
        self.left_out = 0;
        // What is above a group comes before it and reaches beyond it.
        let above_subject = |at: u32, group: &GroupFacts| at <= verdict.subject && group.subtree_end > verdict.subject;
        for (at, group) in (0..).zip(facts).take(verdict.subject as usize + 1) {
            if above_subject(at, group) {
                self.push(group);
            }
        }
        for candidate in &verdict.candidates {
            let Some(group) = facts.get(candidate.group as usize) else { continue };
            let end = match candidate.standing {
                // Its children stand in the list themselves.
                Standing::Struck(Strike::ContainsSpared(_)) => candidate.group.saturating_add(1),
                _ => group.subtree_end,
            };
            for (at, group) in (candidate.group..end).zip(facts.iter().skip(candidate.group as usize)) {
                if !above_subject(at, group) {
                    self.push(group);
                }
            }
        }
        for candidate in &verdict.candidates {
            // Who must live need be no candidate.
            if let Standing::Struck(Strike::ContainsSpared(spared)) = candidate.standing
                && let Some(spared) = facts.get(spared as usize)
            {
                self.push_new(spared);
            }
            // What holds for everything below a group: a deed under way, a name that spares.
            let parent = |at: &u32| facts.get(*at as usize)?.parent.filter(|parent| parent < at);
            for at in std::iter::successors(parent(&candidate.group), parent) {
                let Some(above) = facts.get(at as usize) else { break };
                if above.dying || above.processes.is_some_and(|processes| !processes.comm_hits.is_empty()) {
                    self.push_new(above);
                }
            }
        }
    }

    /// Takes one more, unless it is there. Without room it may have been counted before.
    fn push_new(&mut self, group: &GroupFacts) {
        if !self.groups.iter().any(|known| known.id == group.id) {
            let counted = self.left_out;
            self.push(group);
            self.left_out = self.left_out.min(counted.max(1));
        }
    }

    fn push(&mut self, group: &GroupFacts) {
        if self.groups.len() < self.groups.capacity().min(MOST_GROUPS) {
            self.groups.push(group.into());
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// Whether there is room for `groups`, or for as many as there will ever be.
    pub(super) fn has_room(&self, groups: usize) -> bool {
        self.groups.capacity() >= groups.min(MOST_GROUPS)
    }

    /// As [`super::model::JudgementRecord::trade_buffers`].
    pub(super) fn trade_buffers(&mut self, larger: &mut RecordedFacts) {
        larger.groups.append(&mut self.groups);
        std::mem::swap(&mut self.groups, &mut larger.groups);
    }

    /// Grows to room for `groups`, at most [`MOST_GROUPS`], and touches the memory. Allocates; what is held stays.
    pub(super) fn make_room(&mut self, groups: usize, filler: &GroupPath) {
        let (held, groups) = (self.groups.len(), groups.min(MOST_GROUPS));
        if self.groups.capacity() < groups {
            self.groups.resize(groups, RecordedGroup::filler(filler.clone()));
            self.groups.truncate(held);
        }
    }

    /// As they stand in the journal. `policy` is the one that the judgement was by.
    #[must_use]
    pub fn line(&self, policy: &Policy) -> FactsLine {
        let groups = self.groups.iter().map(|group| {
            let mut line = GroupLine::from(group);
            if let Some((processes, seen)) = line.processes.as_mut().zip(group.processes.as_ref()) {
                processes.comms = asked_comms(policy, &group.path, &seen.comm_hits);
            }
            line
        });
        FactsLine { groups: groups.collect(), left_out: self.left_out }
    }
}

/// Names that the policy's exclusions asked for in this group, and whether a process has each.
fn asked_comms(policy: &Policy, path: &GroupPath, hits: &EntrySet) -> BTreeMap<String, bool> {
    let asked = class_of(policy, path.as_bytes()).comm_excludes;
    let comm = |entry: usize| policy.exclude.get(entry)?.comm.as_deref().map(|comm| (Escaped(comm).to_string(), hits.contains(entry)));
    let mut comms = BTreeMap::new();
    for (comm, hit) in asked.iter().filter_map(comm) {
        *comms.entry(comm).or_default() |= hit;
    }
    comms
}

/// What a policy says of a group, by its path alone: as if every group above it were there.
#[must_use]
pub fn class_of(policy: &Policy, path: &[u8]) -> GroupClass {
    let mut class = policy.classify(b"/", None);
    let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain((path.len() > 1).then_some(path.len())) {
        class = policy.classify(&path[..end], Some(&class));
    }
    class
}

/// Key `facts`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FactsLine {
    /// The groups, in no order that matters.
    pub groups: Vec<GroupLine>,
    /// How many more were looked at.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

/// One group. What is missing, or `null`, could not be read or was not looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "they are facts, each with its own key")]
pub struct GroupLine {
    /// Path below the cgroup root, escaped.
    pub group: String,
    /// kernfs id.
    pub id: u64,
    /// memory.current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_bytes: Option<u64>,
    /// memory.stat `anon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// memory.stat `shmem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_bytes: Option<u64>,
    /// Clean file cache and reclaimable slab. Lines of former versions call it `easy_file_bytes`
    /// and have the inactive file cache alone.
    #[serde(skip_serializing_if = "Option::is_none", alias = "easy_file_bytes")]
    pub reclaimable_bytes: Option<u64>,
    /// Page cache that surely stays in memory when every process ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlives_bytes: Option<u64>,
    /// The part of it that can't be reclaimed even then: tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_bytes: Option<u64>,
    /// memory.stat `slab_unreclaimable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_unreclaimable_bytes: Option<u64>,
    /// memory.swap.current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// memory.max: bytes or `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<LimitLine>,
    /// memory.high: bytes or `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_bytes: Option<LimitLine>,
    /// memory.low.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_bytes: Option<u64>,
    /// cgroup.events `populated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub populated: Option<bool>,
    /// It has memory files.
    #[serde(skip_serializing_if = "is_true")]
    pub has_memory: bool,
    /// memory.oom.group is 1.
    #[serde(skip_serializing_if = "is_false")]
    pub oom_group: bool,
    /// A threaded group.
    #[serde(skip_serializing_if = "is_false")]
    pub threaded: bool,
    /// oomwarden's own.
    #[serde(skip_serializing_if = "is_false")]
    pub own: bool,
    /// A deed on it was under way.
    #[serde(skip_serializing_if = "is_false")]
    pub dying: bool,
    /// Usage gained per second over the last ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_bytes: Option<i64>,
    /// Full stall in the last second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure_us: Option<u64>,
    /// Time since it was made; 2^40 and more where only the order counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Its processes, where they were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessesLine>,
    /// Stall totals of memory.pressure, in recordings only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<PsiLine>,
    /// Counters of memory.events.local, in recordings only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, u64>,
}

impl Default for GroupLine {
    /// A group of which nothing is known but that it is an ordinary one.
    fn default() -> GroupLine {
        let group = RecordedGroup { has_memory: true, ..RecordedGroup::filler(GroupPath::root()) };
        GroupLine { group: String::new(), ..GroupLine::from(&group) }
    }
}

/// The processes directly in a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "they are facts, each with its own key")]
pub struct ProcessesLine {
    /// How many.
    pub count: u32,
    /// Process 1 is among them.
    #[serde(skip_serializing_if = "is_false")]
    pub has_init: bool,
    /// One of them has oom_score_adj -1000.
    #[serde(skip_serializing_if = "is_false")]
    pub has_unkillable: bool,
    /// One of them has oom_score_adj -900 or below.
    #[serde(skip_serializing_if = "is_false")]
    pub has_shielded: bool,
    /// One of them could not be looked at.
    #[serde(skip_serializing_if = "is_false")]
    pub has_unknown: bool,
    /// The largest oom_score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score: Option<u32>,
    /// Names that were asked for, and whether a process has each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub comms: BTreeMap<String, bool>,
    /// Whatever name is not among `comms` no process has.
    #[serde(skip_serializing_if = "is_false")]
    pub comms_complete: bool,
}

/// Stall totals, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PsiLine {
    /// At least one task stalled.
    pub some_us: Option<u64>,
    /// All that had work did.
    pub full_us: Option<u64>,
}

/// A limit: bytes, or `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LimitLine {
    /// One is set.
    Bytes(u64),
    /// None is.
    Word(NoLimit),
}

/// The word for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoLimit {
    /// `max`, as the kernel writes it.
    Max,
}

impl From<Limit> for LimitLine {
    fn from(limit: Limit) -> LimitLine {
        limit.bytes().map_or(LimitLine::Word(NoLimit::Max), LimitLine::Bytes)
    }
}

impl From<LimitLine> for Limit {
    fn from(line: LimitLine) -> Limit {
        match line {
            LimitLine::Bytes(bytes) => Limit::Bytes(bytes),
            LimitLine::Word(NoLimit::Max) => Limit::Unlimited,
        }
    }
}

impl From<&RecordedGroup> for GroupLine {
    fn from(group: &RecordedGroup) -> GroupLine {
        let memory = &group.memory;
        GroupLine {
            group: group.path.to_string(),
            id: group.id.0,
            current_bytes: memory.current,
            anon_bytes: memory.anon,
            shmem_bytes: memory.shmem,
            reclaimable_bytes: memory.reclaimable,
            outlives_bytes: memory.outlives,
            tmpfs_bytes: memory.tmpfs,
            slab_unreclaimable_bytes: memory.slab,
            swap_bytes: memory.swap,
            max_bytes: memory.max.map(LimitLine::from),
            high_bytes: memory.high.map(LimitLine::from),
            low_bytes: memory.low,
            populated: group.populated,
            has_memory: group.has_memory,
            oom_group: group.oom_group,
            threaded: group.threaded,
            own: group.own,
            dying: group.dying,
            growth_bytes: group.growth,
            pressure_us: group.pressure.map(|stall| u64::try_from(stall.as_micros()).unwrap_or(u64::MAX)),
            age_ms: group.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            processes: group.processes.as_ref().map(|processes| ProcessesLine {
                count: processes.count,
                has_init: processes.has_init,
                has_unkillable: processes.has_unkillable,
                has_shielded: processes.has_shielded,
                has_unknown: processes.has_unknown,
                oom_score: processes.oom_score,
                comms: BTreeMap::new(),
                comms_complete: false,
            }),
            psi: None,
            events: BTreeMap::new(),
        }
    }
}

impl GroupLine {
    /// The facts again, with what `policy` says of the group; its place in the tree is not known here. The second value is
    /// whether a name that an exclusion asks for is not known to be, or not to be, in the group.
    #[must_use]
    pub fn facts(&self, policy: &Policy) -> (GroupFacts, bool) {
        let path = GroupPath::from_bytes(self.group.as_bytes());
        let class = class_of(policy, path.as_bytes());
        let mut doubtful = false;
        let processes = self.processes.as_ref().map(|seen| {
            let mut comm_hits = EntrySet::EMPTY;
            for entry in class.comm_excludes.iter() {
                let Some(comm) = policy.exclude.get(entry).and_then(|exclude| exclude.comm.as_deref()) else { continue };
                match seen.comms.get(&Escaped(comm).to_string()) {
                    Some(true) => comm_hits.insert(entry),
                    Some(false) => {}
                    None => doubtful |= !seen.comms_complete,
                }
            }
            ProcessFacts {
                count: seen.count,
                has_init: seen.has_init,
                has_unkillable: seen.has_unkillable,
                has_shielded: seen.has_shielded,
                has_unknown: seen.has_unknown,
                comm_hits,
                oom_score: seen.oom_score,
            }
        });
        let facts = GroupFacts {
            id: GroupId(self.id),
            path,
            parent: None,
            subtree_end: 0,
            class,
            own: self.own,
            has_memory: self.has_memory,
            threaded: self.threaded,
            oom_group: self.oom_group,
            populated: self.populated,
            dying: self.dying,
            memory: MemoryFacts {
                current: self.current_bytes,
                anon: self.anon_bytes,
                shmem: self.shmem_bytes,
                reclaimable: self.reclaimable_bytes,
                outlives: self.outlives_bytes,
                tmpfs: self.tmpfs_bytes,
                slab: self.slab_unreclaimable_bytes,
                swap: self.swap_bytes,
                max: self.max_bytes.map(Limit::from),
                high: self.high_bytes.map(Limit::from),
                low: self.low_bytes,
            },
            growth: self.growth_bytes,
            pressure: self.pressure_us.map(Duration::from_micros),
            age: self.age_ms.map(Duration::from_millis),
            processes,
        };
        (facts, doubtful)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
