//! Plans on stand-in trees.

use super::super::testing::{Sleeper, StandIn, asked, plain};
use super::*;

const MIB: u64 = 1 << 20;

fn planned(tree: &StandIn, policy: &str) -> Plan {
    let asked = asked(policy);
    plan(&mut tree.look(&asked, None), &asked, None, Duration::ZERO)
}

fn one(plan: &Plan) -> &SubjectPlan {
    assert_eq!((plan.rules.len(), plan.rules[0].subjects.len()), (1, 1), "{plan:#?}");
    &plan.rules[0].subjects[0]
}

/// The candidates as `rank group: reason`.
fn ranking(subject: &SubjectPlan) -> Vec<String> {
    let rank = |candidate: &CandidatePlan| candidate.rank.map_or("-".to_owned(), |rank| rank.to_string());
    subject.candidates.iter().map(|candidate| format!("{} {}: {}", rank(candidate), candidate.group, candidate.reason)).collect()
}

const TENANTS: &str = "
exclude:
  - /t/db
  - {group: /t/*, comm: sleep}
importance:
  - {group: /t/batch, value: -5}
rules:
  - name: low
    watch: /
    when: [event: oom_kill]
    victim: {among: /t/*, at_least: 16MiB, rank: [usage, age]}
";

#[test]
fn everybody_has_a_place_and_a_reason() {
    let tree = StandIn::new();
    let sleeper = Sleeper::start();
    tree.group("t", 0).group("t/batch", 20 * MIB).group("t/web", 80 * MIB).group("t/mail", 40 * MIB).group("t/db", 500 * MIB);
    tree.group("t/tiny", MIB).group("t/held", 60 * MIB).file("t/held", "cgroup.procs", &format!("{}\n", sleeper.pid()));
    tree.group("t/init", 70 * MIB).file("t/init", "cgroup.procs", "1\n");
    tree.group("t/empty", 0).file("t/empty", "cgroup.events", "populated 0\nfrozen 0\n");
    let plan = planned(&tree, TENANTS);
    let subject = one(&plan);
    assert_eq!(subject.outcome, Outcome::Kill);
    let mut places = ranking(subject);
    places[3..].sort();
    assert_eq!(
        places,
        [
            "1 /t/batch: ranked 1: importance -5, the next one's 0",
            "2 /t/web: ranked 2: importance 0, the victim's -5",
            "3 /t/mail: ranked 3: importance 0, the victim's -5",
            "- /t/db: excluded by /t/db",
            "- /t/empty: holds no process",
            "- /t/held: excluded by /t/* holding comm sleep",
            "- /t/init: holds process 1",
            "- /t/tiny: too small: 1MiB would be freed, the rule asks for at least 16MiB",
        ],
        "the processes of all that may die are looked at, not of the first alone"
    );
    let victim = subject.victim.as_ref().unwrap();
    assert_eq!((victim.group.as_str(), victim.groups, victim.processes, victim.bytes), ("/t/batch", 1, Some(0), Some(20 * MIB)));
    assert_eq!(subject.candidates[0].keys, BTreeMap::from([("usage", Some(20 << 20))]), "no age: one look does not know it");
}

#[test]
fn what_goes_with_the_victim() {
    let tree = StandIn::new();
    let (one_process, another) = (Sleeper::start(), Sleeper::start());
    tree.group("t", MIB).group("t/a", 0).group("t/a/b", 0).group("t/a/c", 0);
    tree.file("t", "cgroup.procs", &format!("{}\n", one_process.pid()));
    tree.file("t/a/b", "cgroup.procs", &format!("{}\n", another.pid()));
    let whole = planned(&tree, "rules:\n  - {name: r, watch: /t, when: [event: oom_kill]}\n");
    let toll = one(&whole).victim.clone().unwrap();
    assert_eq!((toll.groups, toll.processes, toll.bytes, toll.kill), (4, Some(2), Some(MIB), "group"));
    for policy in [
        "rules:\n  - {name: r, watch: /t, when: [event: oom_kill], then: [kill: process]}\n",
        "kill_one_in: /t\nrules:\n  - {name: r, watch: /t, when: [event: oom_kill]}\n",
    ] {
        let single = planned(&tree, policy);
        let toll = one(&single).victim.clone().unwrap();
        assert_eq!((toll.groups, toll.processes, toll.bytes, toll.kill), (0, Some(1), None, "process"), "{policy}");
        let pids = [one_process.pid(), another.pid()].map(|pid| Some(i32::try_from(pid).unwrap()));
        assert!(pids.contains(&toll.pid), "{toll:?}");
        assert!(plain(&single.text(false)).contains(&format!("if a trigger fires now: kill one process of /t: {}", toll.pid.unwrap())));
    }
}

#[test]
fn conditions_are_told_with_their_numbers_and_the_verdict_that_would_follow() {
    let tree = StandIn::new();
    tree.group("t", 0).file("t", "memory.max", &format!("{}\n", 100 * MIB)).group("t/a", 60 * MIB);
    let policy = "rules:\n  - name: r\n    watch: /t/a\n    when: [psi: full 1s/2s, usage: {above: 50MiB}]\n    \
                  only_if: [usage: {above: 80%, of: max}, usage: {above: 50%, of: high}]\n";
    let plan = planned(&tree, policy);
    let subject = one(&plan);
    assert_eq!(subject.outcome, Outcome::NotConfirmed);
    assert_eq!(subject.victim.as_ref().map(|toll| &*toll.group), Some("/t/a"), "if it did hold");
    let seen: Vec<_> = subject.conditions.iter().map(|test| (&*test.test, test.holds, test.now_bytes, test.level_bytes)).collect();
    assert_eq!(
        seen,
        [
            ("usage: above 80% of max", Some(false), Some(60 * MIB), Some(80 * MIB)),
            ("usage: above 50% of high", Some(false), Some(60 * MIB), None),
        ],
        "the parent's limit counts"
    );
    let seen: Vec<_> = subject.triggers.iter().map(|test| (&*test.test, test.holds, test.happens)).collect();
    assert_eq!(seen, [("psi: full 1s/2s", None, true), ("usage: above 50MiB", Some(true), false)]);
    let text = plain(&plan.text(false));
    for part in [
        "rule r  enforce, watches /t/a (test.yaml:3)",
        "subject /t/a  nothing would happen: what must hold does not; if it did: kill /t/a: 1 group, 0 processes, 60MiB freed",
        "when     psi: full 1s/2s           told by the kernel when it happens",
        "usage: above 50MiB        holds: 60MiB is above 50MiB",
        "only_if  usage: above 80% of max   does not hold: 60MiB is not above 80MiB",
        "usage: above 50% of high  does not hold: 60MiB, and no limit is set",
        "   1  /t/a   60MiB           0  the subject itself",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // The limit comes nearer, and a high one is set.
    tree.file("t", "memory.max", &format!("{}\n", 70 * MIB)).file("t/a", "memory.high", &format!("{}\n", 100 * MIB));
    let plan = planned(&tree, policy);
    assert_eq!(one(&plan).outcome, Outcome::Kill);
    assert!(plain(&plan.text(false)).contains("subject /t/a  if a trigger fires now: kill /t/a: 1 group"));
}

#[test]
fn a_level_that_is_not_reached_starts_nothing() {
    let tree = StandIn::new();
    tree.group("a", 10 * MIB);
    let text = "rules:\n  - {name: r, watch: /a, when: [usage: {above: 20MiB}]}\n";
    assert_eq!(one(&planned(&tree, text)).outcome, Outcome::NotConfirmed);
    assert_eq!(one(&planned(&tree, &text.replace("20MiB", "5MiB"))).outcome, Outcome::Kill);
}

/// memory.stat with all that a level asks for.
fn stat(anon: u64, tmpfs: u64) -> String {
    let keys = [("anon", anon), ("file", tmpfs), ("shmem", tmpfs)];
    let zeros = ["file_mapped", "file_dirty", "file_writeback", "inactive_file", "active_file", "unevictable", "slab_reclaimable"];
    let lines = keys.into_iter().chain(zeros.map(|key| (key, 0))).map(|(key, mib)| format!("{key} {}\n", mib * MIB));
    lines.collect()
}

#[test]
fn a_level_that_no_kill_could_lift_is_told_with_its_numbers() {
    let tree = StandIn::new();
    let now = |path: &str, current: u64, stat: &str| {
        tree.group(path, 0).file(path, "memory.current", &format!("{}\n", current * MIB)).file(path, "memory.stat", stat);
    };
    now("t", 110, &stat(5, 50));
    now("t/a", 55, &stat(5, 50));
    // Not among the candidates: it holds what its processes left behind.
    now("t/left", 55, &stat(0, 0));
    tree.file("t/left", "cgroup.events", "populated 0\nfrozen 0\n");
    let policy = "rules:\n  - name: r\n    watch: /t\n    when: [usage: {above: 100MiB}]\n    victim: {among: /t/a}\n";
    let plan = planned(&tree, policy);
    let subject = one(&plan);
    assert_eq!((subject.outcome, subject.candidates[0].rank), (Outcome::NoVictim, None));
    let in_vain = subject.in_vain.as_ref().unwrap();
    assert_eq!((&*in_vain.trigger, in_vain.missing_bytes, in_vain.could_free_bytes), ("usage: above 100MiB", 10 * MIB, 5 * MIB));
    let told = "that would be in vain: 10MiB missing, and all who may die could free at most 5MiB; there 50MiB are tmpfs and shared memory; \
                /t/left holds 55MiB without a process";
    assert_eq!(in_vain.reason, told);
    let text = plain(&plan.text(false));
    assert!(text.contains("subject /t  nobody would be killed, because that would not help\n"), "{text}");
    assert!(text.contains(&format!("    usage: above 100MiB would kill nobody: {told}\n")), "{text}");
    // What happens is no level: its victim is told all the same.
    let plan = planned(&tree, &policy.replace("when: [", "when: [event: oom, "));
    assert_eq!((one(&plan).outcome, one(&plan).in_vain.is_some()), (Outcome::Kill, true));
    let text = plain(&plan.text(false));
    assert!(text.contains("if a trigger fires now: kill /t/a") && text.contains("would kill nobody"), "{text}");
    // A lower level can be lifted.
    let plan = planned(&tree, &policy.replace("100MiB", "106MiB"));
    assert_eq!((one(&plan).outcome, &one(&plan).in_vain), (Outcome::Kill, &None));
}

#[test]
fn free_swap_starts_nothing_without_swap_and_holds_as_a_condition() {
    let asked = asked(
        "rules:\n  - {name: r, watch: /a, when: [swap_free: {below: 10%}, swap_free: {below: 512MiB}], only_if: [swap_free: {below: 10%}]}\n",
    );
    let rule = &asked.policy.rules[0];
    let subject = SubjectFacts { root: false, current: None, charged: None, shmem: None, slab: None, max: None, high: None };
    let told = |total: u64, free: u64| {
        let node = NodeFacts { swap_total_bytes: total * MIB, swap_free_bytes: Some(free * MIB), ..NodeFacts::default() };
        let tests = rule.when.iter().map(|when| trigger(when, &subject, &node)).chain(conditions(rule, &subject, &node));
        tests.map(|test| test.seen()).collect::<Vec<_>>()
    };
    let none = "does not hold: there is none, or less than that, which is no trouble";
    assert_eq!(told(0, 0), [none, none, "holds: there is none"]);
    assert_eq!(told(256, 200), ["does not hold: 200MiB is not below 25.5MiB", none, "does not hold: 200MiB is not below 25.5MiB"]);
    assert_eq!(told(1000, 50), ["holds: 50MiB is below 100MiB", "holds: 50MiB is below 512MiB", "holds: 50MiB is below 100MiB"]);
}

#[test]
fn pressure_on_the_node_is_asked_for_memory_too() {
    let tree = StandIn::new();
    tree.group("a", 10 * MIB);
    let plan = planned(&tree, "rules:\n  - {name: r, watch: /, when: [psi: full 1s/2s], victim: {among: /*}}\n");
    let implied = &one(&plan).conditions[0];
    assert_eq!((&*implied.test, implied.implied), ("available: below 10%", true));
    let text = "rules:\n  - {name: r, watch: /, when: [psi: full 1s/2s], only_if: [available: {below: 100%}], victim: {among: /*}}\n";
    let subject = planned(&tree, text).rules[0].subjects[0].clone();
    assert_eq!((subject.conditions.len(), subject.conditions[0].holds, subject.outcome), (1, Some(true), Outcome::Kill));
}

#[test]
fn a_signal_that_can_not_come_starts_nothing() {
    let tree = StandIn::new();
    tree.group("a", 10 * MIB);
    let plan = planned(&tree, "rules:\n  - {name: r, watch: /, when: [lms: warn, lms: oom], victim: {among: /*}}\n");
    let subject = one(&plan);
    if plan.lms.is_none() {
        assert_eq!(subject.outcome, Outcome::NotConfirmed);
        let text = plain(&plan.text(false));
        assert!(text.contains("lms: oom                        never happens: the kernel module is not loaded\n"), "{text}");
    }
    assert_eq!((&*subject.conditions[0].test, subject.conditions[0].implied), ("available: below 10%", true), "for the first level");
}

#[test]
fn an_observing_rule_would_only_record() {
    let tree = StandIn::new();
    tree.group("a", 10 * MIB);
    let plan = planned(&tree, "mode: observe\nrules:\n  - {name: r, watch: /a, when: [event: oom_kill]}\n");
    assert_eq!(plan.rules[0].mode, "observe");
    assert!(
        plain(&plan.text(false)).contains("subject /a  if a trigger fires now: record only: kill /a: 1 group, 0 processes, 10MiB freed")
    );
}

#[test]
fn of_equals_the_younger_dies_and_no_age_is_made_up() {
    let tree = StandIn::new();
    tree.group("t", 0).group("t/a", 10 * MIB).group("t/b", 10 * MIB);
    let plan =
        planned(&tree, "rules:\n  - {name: r, watch: /, when: [event: oom_kill], victim: {among: /t/*, rank: [usage within 10%, age]}}\n");
    let subject = one(&plan);
    assert_eq!(subject.candidates[0].reason, "ranked 1: younger than the next one");
    assert_eq!(subject.candidates[1].reason, "ranked 2: older than the victim");
}

#[test]
fn growth_is_watched_where_a_rule_ranks_by_it() {
    let tree = StandIn::new();
    tree.group("t", 0).group("t/a", 10 * MIB).group("t/b", 30 * MIB);
    let by = |key: &str| {
        let text = format!("rules:\n  - {{name: r, watch: /, when: [event: oom_kill], victim: {{among: /t/*, rank: [{key}]}}}}\n");
        let asked = asked(&text);
        let mut onlooker = tree.look(&asked, None);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(150));
                tree.file("t/a", "memory.stat", &format!("anon {}\nfile 0\nshmem 0\ninactive_file 0\n", 20 * MIB));
            });
            plan(&mut onlooker, &asked, None, Duration::from_millis(400))
        })
    };
    let grown = by("growth");
    assert_eq!(one(&grown).victim.as_ref().map(|toll| &*toll.group), Some("/t/a"), "{:?}", ranking(one(&grown)));
    assert_eq!(grown.watched_us, Some(400_000));
    let usage = by("usage");
    assert_eq!(one(&usage).victim.as_ref().map(|toll| &*toll.group), Some("/t/b"));
    assert_eq!(usage.watched_us, None, "nobody waits for what no rule asks");
}

#[test]
fn the_running_daemon_is_spared_with_all_that_contains_it() {
    let tree = StandIn::new();
    let daemon = Sleeper::start();
    tree.group("t", 0).group("t/warden", 50 * MIB).group("t/web", 10 * MIB);
    tree.file("t/warden", "cgroup.procs", &format!("{}\n", daemon.pid()));
    let asked = asked(
        "rules:\n  - {name: r, watch: /t, when: [event: oom_kill]}\n  - {name: s, watch: /t, when: [event: oom_kill], victim: {among: /t/*}}\n",
    );
    let pid = i32::try_from(daemon.pid()).unwrap();
    let plan = plan(&mut tree.look(&asked, Some(pid)), &asked, None, Duration::ZERO);
    assert_eq!(plan.daemon, Some(Daemon { pid, group: Some("/t/warden".into()) }));
    let (whole, among) = (&plan.rules[0].subjects[0], &plan.rules[1].subjects[0]);
    assert_eq!(
        ranking(whole),
        ["1 /t/web: ranked 1: the subject itself", "- /t: contains /t/warden, which must live", "- /t/warden: holds oomwarden itself"]
    );
    assert_eq!(ranking(among), ["1 /t/web: ranked 1: the only one that may be killed", "- /t/warden: holds oomwarden itself"]);
    drop(daemon);
    assert_eq!(tree.look(&asked, Some(pid)).daemon, None, "one that has ended is none");
}

#[test]
fn one_rule_alone_and_quiet_subjects_are_counted() {
    let tree = StandIn::new();
    tree.group("t", 0);
    for at in 0..12 {
        tree.group(&format!("t/g{at:02}"), 10 * MIB);
    }
    let asked = asked(
        "rules:\n  - {name: quiet, watch: /t/*, when: [usage: {above: 1GiB}]}\n  - {name: other, watch: /t, when: [event: oom_kill], victim: {among: leaves}}\n  \
         - {name: nobody, watch: /nowhere, when: [event: oom_kill]}\n",
    );
    let mut onlooker = tree.look(&asked, None);
    let all = plan(&mut onlooker, &asked, None, Duration::ZERO);
    let text = plain(&all.text(false));
    assert!(text.contains("  12 subjects: what must hold does not (--all shows them)\n"), "{text}");
    assert!(text.contains("    4 more that may die (--all shows them)\n"), "{text}");
    assert!(text.contains("rule nobody  enforce, watches /nowhere (test.yaml:5)\n  no such group is there\n"), "{text}");
    let whole = plain(&all.text(true));
    assert!(whole.contains("subject /t/g11  nothing would happen") && !whole.contains("--all"), "{whole}");
    let single = plan(&mut onlooker, &asked, Some(1), Duration::ZERO);
    assert_eq!(single.rules.iter().map(|rule| &*rule.rule).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn names_of_groups_can_not_upset_a_terminal() {
    let tree = StandIn::new();
    tree.group("t\u{1b}[2J\n", 10 * MIB);
    let plan = planned(&tree, "rules:\n  - {name: r, watch: /*, when: [event: oom_kill]}\n");
    assert_eq!(one(&plan).subject, "/t\\x1b[2J\\x0a");
    assert!(!plain(&plan.text(true)).contains('\u{1b}'));
    assert!(serde_json::to_string(&plan).unwrap().contains("/t\\\\x1b[2J\\\\x0a"));
}

#[test]
fn nothing_is_watched_or_written() {
    let tree = StandIn::new();
    tree.group("t", 10 * MIB).file("t", "cgroup.kill", "").file("t", "memory.pressure", "");
    let asked = asked("rules:\n  - {name: r, watch: /t, when: [psi: full 1s/2s]}\nkernel: {oom_group: /t}\n");
    let mut onlooker = tree.look(&asked, None);
    let plan = plan(&mut onlooker, &asked, None, Duration::ZERO);
    assert_eq!(one(&plan).outcome, Outcome::Kill);
    assert_eq!(onlooker.tree.watches().count(), 0);
    for file in ["cgroup.kill", "memory.pressure"] {
        assert_eq!(std::fs::read(tree.path().join("t").join(file)).unwrap(), b"", "{file}");
    }
    assert_eq!(std::fs::read(tree.path().join("t/memory.oom.group")).unwrap(), b"0\n");
}
