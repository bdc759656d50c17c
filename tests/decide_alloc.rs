//! The kill path allocates nothing: judging 500 groups, with every kind of victim, in buffers that have room.

#![allow(clippy::expect_used, reason = "helpers of a test may stop at the first surprise")]

mod counting;

use std::sync::Arc;
use std::time::Duration;

use oomwarden::cgroup::path::GroupPath;
use oomwarden::decide::facts::{GroupFacts, GroupId, Limit, MemoryFacts, NodeFacts, ProcessFacts};
use oomwarden::decide::history::{DeedEnd, History, Subject};
use oomwarden::decide::process::{ProcessFact, pick};
use oomwarden::decide::recovery::{ScopeFacts, recovered};
use oomwarden::decide::verdict::{Decision, Notice, Verdict};
use oomwarden::decide::{Judge, Step};
use oomwarden::policy::globs::Globs;
use oomwarden::policy::model::{
    Among, AmongGroups, Condition, EventKind, GroupClass, KillWhat, Level, Mode, Policy, RankBy, RankKey, Rule, Rung, Trigger, UsageOf,
    UsageTest, Victim,
};
use oomwarden::units::{Bytes, Share};

const GROUPS: u32 = 500;
const MIB: u64 = 1 << 20;

/// 20 slices below the root with services in each; in every third slice one that is excluded, so that the slices are split.
fn tree() -> Vec<GroupFacts> {
    let mut groups: Vec<GroupFacts> = Vec::new();
    for at in 0..GROUPS {
        let (parent, end) = match at {
            0 => (None, GROUPS),
            _ if (at - 1) % 25 == 0 => (Some(0), (at + 25).min(GROUPS)),
            _ => (Some(at - 1 - (at - 2) % 25), at + 1),
        };
        let mut class = GroupClass { importance: i64::from(at % 3), ..GroupClass::default() };
        // Not the root: its processes would spare everything below it.
        class.comm_excludes.insert(usize::from(at > 0 && at % 5 == 0));
        if at % 75 == 30 {
            class.excluded = Some(1);
        }
        if parent == Some(0) {
            class.among.insert(0);
        }
        let own = u64::from(at) * 7 % 50 * MIB;
        groups.push(GroupFacts {
            id: GroupId(u64::from(at) + 1),
            path: GroupPath::root(),
            parent,
            subtree_end: end,
            class,
            own: at == 499,
            has_memory: true,
            threaded: false,
            oom_group: at % 100 == 1,
            populated: Some(true),
            dying: false,
            memory: MemoryFacts {
                current: Some(own),
                anon: Some(own),
                shmem: Some(0),
                reclaimable: Some(0),
                outlives: Some(0),
                tmpfs: Some(0),
                slab: Some(0),
                swap: Some(0),
                max: Some(Limit::Bytes(own)),
                high: Some(Limit::Unlimited),
                low: Some(0),
            },
            growth: Some(0),
            pressure: None,
            age: Some(Duration::from_secs(u64::from(at))),
            processes: None,
        });
    }
    groups
}

fn policy() -> Policy {
    let globs = || Globs::new(&["/*"]).expect("a sound glob");
    let among = |groups: AmongGroups, keys: &[RankKey]| {
        let rank = keys.iter().map(|key| RankBy { key: *key, within: Some(Share::percent(20)) }).collect();
        Victim::Among(Among { groups, at_least: Bytes(MIB), or_largest: true, rank })
    };
    let rule = |victim: Victim| Rule {
        name: Arc::from("rule"),
        mode: Mode::Enforce,
        cooldown: Duration::from_secs(2),
        watch: globs(),
        when: vec![Trigger::Event(EventKind::OomKill)],
        only_if: vec![
            Condition::Usage(UsageTest::Share(Share::percent(1), UsageOf::Node)),
            Condition::Available(Level { share: Some(Share::WHOLE), at_most: None }),
        ],
        victim,
        ladder: vec![Rung::Kill(KillWhat::Group)],
        spare_unkillable: true,
    };
    Policy {
        hash: Arc::from("0"),
        mode: Mode::Enforce,
        exclude: Vec::new(),
        importance: Vec::new(),
        rules: vec![
            rule(among(AmongGroups::Globs(globs()), &[RankKey::Usage, RankKey::Age])),
            rule(among(AmongGroups::Leaves, &[RankKey::Usage, RankKey::Swap, RankKey::Growth, RankKey::Pressure, RankKey::Overage])),
            rule(among(AmongGroups::Leaves, &[RankKey::OomScore])),
            rule(Victim::Subject),
            rule(Victim::Among(Among {
                groups: AmongGroups::Leaves,
                at_least: Bytes(MIB),
                or_largest: false,
                rank: vec![RankBy { key: RankKey::Usage, within: None }],
            })),
        ],
        oom_group: None,
        node_limit: None,
        kill_one_in: None,
        oomd_xattrs: true,
        hold: None,
        limit: None,
    }
}

/// Judges to the end, and how many allocations that took.
fn judge(judge: &mut Judge, policy: &Policy, rule: usize, groups: &mut [GroupFacts], out: &mut Verdict) -> u64 {
    judge_notice(judge, policy, rule, Notice::Event(EventKind::Oom, 0, 1), groups, out)
}

/// The same on another notice.
fn judge_notice(judge: &mut Judge, policy: &Policy, rule: usize, notice: Notice, groups: &mut [GroupFacts], out: &mut Verdict) -> u64 {
    let node = NodeFacts { total_bytes: 100 * MIB, available_bytes: Some(5 * MIB), swap_free_bytes: Some(0), ..NodeFacts::default() };
    let subject = if rule == 3 { 26 } else { 0 };
    let mut comm_hits = oomwarden::policy::model::EntrySet::EMPTY;
    comm_hits.insert(1);
    let before = counting::so_far();
    while let Step::NeedProcesses(at) = judge.judge(policy, rule, subject, &notice, &node, groups, &[GroupId(3)], out) {
        groups[at as usize].processes =
            Some(ProcessFacts { count: 1, comm_hits, oom_score: Some(at % 9), has_shielded: at % 4 == 0, ..ProcessFacts::default() });
    }
    let facts = ScopeFacts::of(groups, &node, subject, out.scope).expect("both are in the tree");
    let _ = recovered(&notice, &policy.rules[rule], &facts, &facts);
    counting::so_far() - before
}

#[test]
fn judging_allocates_nothing() {
    let policy = policy();
    let mut judge_ = Judge::with_capacity(GROUPS as usize);
    let mut out = Verdict::with_capacity(GROUPS as usize);
    for rule in 0..policy.rules.len() {
        let mut groups = tree();
        let allocations = judge(&mut judge_, &policy, rule, &mut groups, &mut out);
        assert!(matches!(out.decision, Decision::Kill(_)), "rule {rule}: {:?}", out.decision);
        assert!(out.candidates.len() > 15, "rule {rule}: {}", out.candidates.len());
        assert_eq!(allocations, 0, "rule {rule}");
    }

    // Levels: one that can be lifted, and one that can't.
    for (level, kills) in [(6 * MIB, true), (80 << 30, false)] {
        let mut groups = tree();
        groups[90].populated = Some(false);
        let notice = Notice::Available(level, Duration::ZERO);
        let allocations = judge_notice(&mut judge_, &policy, 4, notice, &mut groups, &mut out);
        assert_eq!((matches!(out.decision, Decision::Kill(_)), out.is_in_vain()), (kills, !kills), "{level}: {:?}", out.decision);
        assert_eq!(allocations, 0, "{level}");
    }

    let mut history = History::with_capacity(8);
    let paths: Vec<GroupPath> = (0..20).map(|at| GroupPath::root().child(format!("{at}").as_bytes())).collect();
    let processes = [ProcessFact { pid: 7, oom_score: Some(1), held_bytes: Some(1), oom_score_adj: Some(0) }; 100];
    let before = counting::so_far();
    for id in 0..20 {
        let now = Duration::from_secs(id);
        let subject = Subject { id: GroupId(id), path: &paths[usize::try_from(id).unwrap()] };
        let notice = Notice::Event(EventKind::Oom, 0, 1);
        history.deed_began(now, 0, &subject);
        history.admit(now, 0, &subject, &notice);
        history.deed_ended(now, 0, &subject, Duration::ZERO, DeedEnd::Failed);
        history.put_off(now, 0, &subject, &notice, Duration::ZERO);
        history.take_due(now);
    }
    assert_eq!(pick(&processes), Some(0));
    assert_eq!(counting::so_far() - before, 0);

    // and the counter counts
    let before = counting::so_far();
    let mut small = Judge::with_capacity(0);
    judge(&mut small, &policy, 0, &mut tree(), &mut out);
    assert!(counting::so_far() > before);
}
