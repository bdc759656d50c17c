//! What is planned is what happens: the plan's victim is the group that the warden kills on the same tree.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oomwarden::cgroup::root::Root;
use oomwarden::policy::{Source, load};
use oomwarden::preview::Asked;
use oomwarden::preview::onlooker::Onlooker;
use oomwarden::preview::plan::{Outcome, SubjectPlan, plan};
use stand_in::{Machine, change, group, wait};

const MIB: u64 = 1 << 20;

const POLICY: &str = "
version: 1
exclude:
  - /t/a/keep
importance:
  - {group: /t/cheap*, value: -10}
rules:
  - name: full
    watch: /t
    when:
      - event: oom_kill
    only_if:
      - usage: {above: 10MiB}
    victim:
      among: /t/*
      at_least: 2MiB
      rank: [RANK]
";

fn planned(root: &Path, policy: &str) -> SubjectPlan {
    let dir = rustix::fs::open(root, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let asked = Asked::from(load(&[Source::new("test", policy)]).unwrap());
    let mut onlooker = Onlooker::look(Arc::new(Root { path: root.into(), dir }), &asked.policy, None).unwrap();
    let mut plan = plan(&mut onlooker, &asked, None, Duration::ZERO);
    plan.rules.remove(0).subjects.remove(0)
}

/// Starts the warden on the same tree, makes the trigger fire, and gives the line of its judgement.
fn judged(root: &Path, policy: &str) -> serde_json::Value {
    let machine = Machine::start(root, policy, || {});
    change(&root.join("t/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
    wait("the warden's judgement", || !machine.lines().is_empty() || victims(root).len() == 1);
    // The kill is over when nobody is left.
    for victim in victims(root) {
        change(&root.join(victim.trim_start_matches('/')).join("cgroup.events"), "populated 0\n");
    }
    wait("the journal's line", || !machine.lines().is_empty());
    let line = serde_json::from_str(&machine.lines()[0]).unwrap();
    machine.stop();
    line
}

/// Groups whose cgroup.kill was written.
fn victims(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut stack = vec![root.to_path_buf()];
    while let Some(dir) = stack.pop() {
        if std::fs::read_to_string(dir.join("cgroup.kill")).is_ok_and(|text| text == "1") {
            found.push(format!("/{}", dir.strip_prefix(root).unwrap().display()));
        }
        stack.extend(std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    }
    found
}

#[test]
fn the_victim_of_the_plan_is_the_group_that_dies() {
    for (rank, groups, expected) in [
        ("usage", &[("t/a", 20), ("t/b", 30), ("t/c", 10)][..], Some("/t/b")),
        ("usage", &[("t/cheap", 3), ("t/b", 30)], Some("/t/cheap")),
        ("usage within 50%, age", &[("t/a", 20), ("t/b", 19)], None),
        ("usage", &[("t/a", 40), ("t/a/keep", 1), ("t/a/other", 20), ("t/b", 10)], Some("/t/a/other")),
        ("usage", &[("t/a", 1), ("t/b", 1)], None),
        ("swap, usage", &[("t/a", 12), ("t/b", 13)], Some("/t/b")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        group(dir.path(), "t", 50 * MIB);
        for (path, anon) in groups {
            group(dir.path(), path, anon * MIB);
        }
        let policy = POLICY.replace("RANK", rank);
        let plan = planned(dir.path(), &policy);
        assert!(victims(dir.path()).is_empty(), "a plan kills nobody");
        let line = judged(dir.path(), &policy);
        let victim = plan.victim.as_ref().map(|toll| toll.group.clone());
        if expected.is_some() {
            assert_eq!(victim.as_deref(), expected, "{groups:?}");
        }
        assert_eq!(victim.as_deref(), line["victim"].as_str(), "{groups:?}: {line}");
        assert_eq!(plan.outcome == Outcome::NoVictim, line["outcome"] == "no_victim", "{line}");
        assert_eq!(victims(dir.path()), victim.into_iter().collect::<Vec<_>>());
        let places = |candidates: &serde_json::Value| -> Vec<_> {
            candidates.as_array().unwrap().iter().map(|one| (one["group"].clone(), one["rank"].clone())).collect()
        };
        assert_eq!(
            places(&serde_json::to_value(&plan.candidates).unwrap()),
            places(&line["candidates"]),
            "the same candidates in the same order"
        );
    }
}

#[test]
fn what_is_not_confirmed_in_the_plan_does_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    group(dir.path(), "t", 5 * MIB);
    group(dir.path(), "t/a", 5 * MIB);
    let policy = POLICY.replace("RANK", "usage");
    let plan = planned(dir.path(), &policy);
    assert_eq!((plan.outcome, plan.victim.map(|toll| toll.group)), (Outcome::NotConfirmed, Some("/t/a".to_owned())));
    let machine = Machine::start(dir.path(), &policy, || {});
    change(&dir.path().join("t/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
    wait("the judgement", || {
        machine.turn();
        machine.metrics().contains("oomwarden_judgements_total{outcome=\"not_confirmed\",rule=\"full\"} 1")
    });
    assert!(victims(dir.path()).is_empty());
    machine.stop();
}
