//! What the kill path computes, apart from the kernel: judging a tree, and parsing what a judgement reads.
//!
//!     cargo bench --bench kill_path
#![allow(clippy::expect_used, reason = "a benchmark may stop at the first surprise")]

use divan::{Bencher, black_box};
use oomwarden::cgroup::parse;
use oomwarden::cgroup::path::GroupPath;
use oomwarden::decide::facts::{GroupFacts, GroupId, Limit, MemoryFacts, NodeFacts, ProcessFacts};
use oomwarden::decide::verdict::{Notice, Verdict};
use oomwarden::decide::{Judge, Step};
use oomwarden::policy::model::{EventKind, Policy};
use oomwarden::policy::{self, Source};

const POLICY: &str = "
version: 1
exclude:
  - /g7
importance:
  - {group: /g3, value: 10}
rules:
  - name: r
    watch: /
    when:
      - event: oom
    victim:
      among: /*
      rank: [usage within 10%, age]
";

fn main() {
    divan::main();
}

fn policy() -> Policy {
    policy::load(&[Source::new("bench", POLICY)]).expect("a sound policy").policy
}

/// The root and so many groups below it.
fn tree(policy: &Policy, groups: u32) -> Vec<GroupFacts> {
    let root = policy.classify(b"/", None);
    (0..=groups)
        .map(|index| {
            let path = if index == 0 { GroupPath::root() } else { GroupPath::root().child(format!("g{index}").as_bytes()) };
            let anon = u64::from(index.wrapping_mul(2_654_435_761) % 4096) << 20;
            GroupFacts {
                id: GroupId(u64::from(index) + 1),
                class: if index == 0 { root } else { policy.classify(path.as_bytes(), Some(&root)) },
                path,
                parent: (index > 0).then_some(0),
                subtree_end: if index == 0 { groups + 1 } else { index + 1 },
                own: false,
                has_memory: true,
                threaded: false,
                oom_group: false,
                populated: Some(true),
                dying: false,
                memory: MemoryFacts {
                    current: Some(anon),
                    anon: Some(anon),
                    shmem: Some(0),
                    reclaimable: Some(0),
                    outlives: Some(0),
                    tmpfs: Some(0),
                    slab: Some(0),
                    swap: Some(0),
                    max: Some(Limit::Unlimited),
                    high: Some(Limit::Unlimited),
                    low: Some(0),
                },
                growth: None,
                pressure: None,
                age: None,
                processes: Some(ProcessFacts { count: 1, ..ProcessFacts::default() }),
            }
        })
        .collect()
}

#[divan::bench(args = [10, 500, 5000])]
fn judge(bencher: Bencher<'_, '_>, groups: u32) {
    let policy = policy();
    let facts = tree(&policy, groups);
    let node = NodeFacts { total_bytes: 1 << 40, available_bytes: Some(1 << 30), ..NodeFacts::default() };
    let mut judge = Judge::with_capacity(facts.len());
    let mut verdict = Verdict::with_capacity(facts.len());
    let notice = Notice::Event(EventKind::Oom, 0, 1);
    bencher.bench_local(|| {
        let step = judge.judge(&policy, 0, 0, &notice, &node, black_box(&facts), &[], &mut verdict);
        assert_eq!(step, Step::Decided);
    });
}

#[divan::bench]
fn classify(bencher: Bencher<'_, '_>) {
    let policy = Policy::builtin().expect("the built-in policy is sound").policy;
    let root = policy.classify(b"/", None);
    bencher.bench_local(|| policy.classify(black_box(b"/system.slice/some-service-name.service"), Some(&root)));
}

#[divan::bench]
fn parse_memory_stat(bencher: Bencher<'_, '_>) {
    let mut text = String::new();
    for (index, key) in
        ["anon", "file", "kernel", "shmem", "file_dirty", "file_writeback", "inactive_file"].iter().cycle().take(50).enumerate()
    {
        let key = if index < 7 { (*key).to_owned() } else { format!("{key}_{index}") };
        text.push_str(&format!("{key} {}\n", index * 4096));
    }
    bencher.bench_local(|| parse::stat(black_box(text.as_bytes())));
}
