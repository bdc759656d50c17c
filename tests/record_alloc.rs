//! Recording allocates nothing on the warden: taking a slot, filling it, submitting it, counting.

#![allow(clippy::expect_used, reason = "helpers of a test may stop at the first surprise")]

mod counting;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oomwarden::cgroup::path::GroupPath;
use oomwarden::decide::facts::{GroupFacts, GroupId, MemoryFacts};
use oomwarden::decide::verdict::{Candidate, Decision, Evidence, Notice, Standing, Strike, Verdict};
use oomwarden::metrics::counters::{Counters, Sensing};
use oomwarden::policy::globs::Globs;
use oomwarden::policy::model::{
    Among, AmongGroups, EventKind, GroupClass, KillWhat, Mode, Policy, RankBy, RankKey, Rule, Rung, Trigger, Victim,
};
use oomwarden::record::facts::MOST_GROUPS;
use oomwarden::record::file::JournalTo;
use oomwarden::record::journal::Context;
use oomwarden::record::model::{Outcome, RungName, RungOutcome, RungRecord};
use oomwarden::record::pool::Pool;
use oomwarden::record::recorder::Recorder;
use oomwarden::units::Bytes;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = counting::so_far();
    work();
    counting::so_far() - before
}

const GROUPS: u32 = 500;

fn facts() -> Vec<GroupFacts> {
    (0..GROUPS)
        .map(|index| GroupFacts {
            id: GroupId(u64::from(index)),
            path: GroupPath::root().child(format!("group-{index}").as_bytes()),
            parent: None,
            subtree_end: index + 1,
            class: GroupClass::default(),
            own: false,
            has_memory: true,
            threaded: false,
            oom_group: false,
            populated: Some(true),
            dying: false,
            memory: MemoryFacts::default(),
            growth: None,
            pressure: None,
            age: None,
            processes: None,
        })
        .collect()
}

fn verdict() -> Verdict {
    let mut verdict = Verdict::with_capacity(GROUPS as usize);
    verdict.decision = Decision::Kill(0);
    verdict.evidence = Evidence::default();
    verdict.candidates.extend((0..GROUPS).map(|group| Candidate {
        group,
        id: GroupId(u64::from(group)),
        standing: match group {
            0 => Standing::Chosen,
            1..100 => Standing::Ranked,
            _ => Standing::Struck(Strike::ContainsSpared(group - 1)),
        },
        importance: 0,
        shielded: false,
        usage_bytes: Some(1 << 20),
        keys: [Some(1 << 20), None, None, None],
    }));
    verdict
}

fn policy() -> Policy {
    let globs = || Globs::new(&["/**"]).expect("a sound glob");
    let rank = vec![RankBy { key: RankKey::Usage, within: None }];
    let rule = Rule {
        name: "rule".into(),
        mode: Mode::Enforce,
        cooldown: Duration::ZERO,
        watch: globs(),
        when: vec![Trigger::Event(EventKind::OomKill)],
        only_if: Vec::new(),
        victim: Victim::Among(Among { groups: AmongGroups::Globs(globs()), at_least: Bytes(0), or_largest: false, rank }),
        ladder: vec![Rung::Kill(KillWhat::Group)],
        spare_unkillable: true,
    };
    let (exclude, importance) = (Vec::new(), Vec::new());
    Policy {
        hash: "hash".into(),
        mode: Mode::Enforce,
        exclude,
        importance,
        rules: vec![rule],
        oom_group: None,
        hold: None,
        limit: None,
        node_limit: None,
        kill_one_in: None,
        oomd_xattrs: true,
    }
}

#[test]
fn recording_allocates_nothing_on_the_warden() {
    let counters = Counters::new().expect("sound names");
    let policy = Arc::new(policy());
    let rules = counters.for_policy(&policy);
    let (facts, verdict) = (facts(), verdict());
    let pool = Pool::new(4, 8, counters.journal_dropped());
    pool.reserve(facts.len());
    let judge = |outcome| {
        rules[0].trigger_event(0);
        counters.set_groups(Sensing::Trigger, facts.len());
        let Some(mut slot) = pool.take() else { return };
        slot.fill(SystemTime::now(), &policy, &rules, Notice::Event(EventKind::OomKill, 0, 1), &verdict, &facts);
        assert_eq!((slot.candidates.len(), slot.left_out), (facts.len(), 0));
        assert_eq!((slot.facts.groups.len(), slot.facts.left_out as usize), (MOST_GROUPS, facts.len() - MOST_GROUPS));
        for _ in 0..20 {
            slot.push_rung(RungRecord { name: RungName::Kill, outcome: RungOutcome::Deadline, ..RungRecord::BLANK });
        }
        slot.set_candidates(&verdict, &facts);
        slot.latency.empty = Some(Duration::from_millis(3));
        slot.outcome = outcome;
        pool.submit(slot);
    };

    assert_ne!(allocations(|| drop(std::hint::black_box(vec![1]))), 0, "the counter counts");
    // Nobody takes records away: from the fifth on the oldest gives its slot up.
    assert_eq!(allocations(|| (0..100).for_each(|_| judge(Outcome::Killed))), 0);
    assert_eq!(counters.journal_dropped().get(), 96);

    // With a recorder that takes them away, which allocates as it likes.
    let dir = tempfile::tempdir().expect("a directory");
    let context = Context::of_this_process(None);
    let to = JournalTo::File(dir.path().join("journal"));
    let recorder = Recorder::spawn(&pool, to, context, counters.journal_dropped(), std::sync::Arc::default()).expect("started");
    assert_eq!(allocations(|| (0..200).for_each(|_| judge(Outcome::Killed))), 0);
    assert!(recorder.shutdown(Duration::from_secs(120)));

    // Every judgement counts, and every record is either in the journal or counted as lost.
    let text = counters.encode().expect("encodable");
    assert!(text.contains("oomwarden_kills_total{rule=\"rule\"} 300"), "{text}");
    let journal = std::fs::read_to_string(dir.path().join("journal")).expect("read");
    assert_eq!(journal.lines().count() as u64 + counters.journal_dropped().get(), 300);
    assert!(journal.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}
