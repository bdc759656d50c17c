//! Ladders beside and above each other, on a tree of ordinary files: who is kept waiting, who is brought forward, who is spared
//! though a ladder is under way, and who must not die for a slow death.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::fs;
use std::path::Path;

use stand_in::{Machine, change, group, wait};

/// A group with real processes in it that ignore SIGTERM, so that a grace time lasts.
struct Stubborn(Vec<std::process::Child>);

impl Stubborn {
    /// So many, listed in the group.
    fn in_group(root: &Path, group: &str, count: usize) -> Stubborn {
        let start = |_| {
            use std::process::Stdio;
            // What a shell ignores its successor ignores, too.
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "trap '' TERM; exec tail -f /dev/null"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<_> = (0..count).map(start).collect();
        let list: String = children.iter().map(|child| format!("{}\n", child.id())).collect();
        fs::write(root.join(group).join("cgroup.procs"), list).unwrap();
        Stubborn(children)
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn event(root: &Path, group: &str, counter: &str, count: u32) {
    let mut text = String::new();
    for name in ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"] {
        text += &format!("{name} {}\n", if name == counter { count } else { 0 });
    }
    change(&root.join(group).join("memory.events.local"), &text);
}

/// The journal's lines with this outcome.
fn outcomes(machine: &Machine, outcome: &str) -> Vec<String> {
    let wanted = format!(r#""outcome":"{outcome}""#);
    machine.lines().into_iter().filter(|line| line.contains(&wanted)).collect()
}

fn empty(root: &Path, group: &str) {
    change(&root.join(group).join("cgroup.events"), "populated 0\n");
}

/// A tenant with a ladder of its own: a long grace time.
const TENANT: &str = "
version: 1
defaults: {cooldown: 20ms}
rules:
  - name: tenant
    watch: /t/*
    when:
      - event: max
    then:
      - term: {wait: 600s}
      - kill: group
";

fn tenant_and(rule: &str) -> String {
    format!("{TENANT}{rule}")
}

fn tenants(names: &[(&str, u64)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    group(dir.path(), "t", 1000);
    for (name, anon) in names {
        group(dir.path(), name, *anon);
    }
    dir
}

/// /t/a is asked to go, and has all the time in the world.
fn waiting_in_grace(root: &Path, policy: &str) -> (Machine, Stubborn) {
    let stubborn = Stubborn::in_group(root, "t/a", 1);
    let machine = Machine::start(root, policy, || {});
    event(root, "t/a", "max", 1);
    let pid = stubborn.0[0].id();
    wait("SIGTERM", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        // Ignored signals leave no trace; the ladder shows in that the rule rests.
        assert!(status.contains("State:"));
        machine.metrics().contains(r#"oomwarden_trigger_events_total{rule="tenant",trigger="event: max"} 1"#)
    });
    machine.turn();
    (machine, stubborn)
}

/// The ancestor's verdict names the victim that waits.
#[test]
fn an_ancestors_verdict_on_a_waiting_victim_brings_its_kill_forward() {
    let dir = tenants(&[("t/a", 3_000_000), ("t/b", 2_000_000)]);
    let root = dir.path();
    let policy = tenant_and("  - {name: above, watch: /t, when: [event: oom], victim: {among: /t/*}}\n");
    let (machine, _stubborn) = waiting_in_grace(root, &policy);
    assert!(!machine.killed("t/a"));
    event(root, "t", "oom", 1);
    wait("the kill", || machine.killed("t/a"));
    wait("the line that says so", || outcomes(&machine, "hurried").len() == 1);
    empty(root, "t/a");
    wait("the end of the ladder", || outcomes(&machine, "killed").len() == 1);
    let line = &outcomes(&machine, "killed")[0];
    assert!(line.contains(r#""rule":"tenant""#) && line.contains(r#""outcome":"overtaken""#), "{line}");
    assert!(!machine.killed("t/b"), "one shortage, one victim: {:?}", machine.lines());
    machine.stop();
}

/// What contains the waiting victim is named: the smaller kill comes first.
#[test]
fn an_ancestors_verdict_on_what_contains_a_waiting_victim_kills_the_inner_one_first() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    let policy = tenant_and("  - {name: whole, watch: /t, when: [event: oom_kill]}\n");
    let (machine, _stubborn) = waiting_in_grace(root, &policy);
    event(root, "t", "oom_kill", 1);
    wait("the kill of the inner one", || machine.killed("t/a"));
    machine.turn();
    assert!(!machine.killed("t"), "not before it is known what that gave back");
    empty(root, "t/a");
    // A group that lost a process does not heal: the notice was kept.
    wait("the kill of the whole", || machine.killed("t"));
    machine.stop();
}

/// Somebody else is named: both go on side by side, and the tenant keeps its grace time.
#[test]
fn an_ancestors_verdict_on_somebody_else_goes_on_beside_a_waiting_ladder() {
    let dir = tenants(&[("t/a", 2_000_000), ("t/b", 3_000_000)]);
    let root = dir.path();
    let policy = tenant_and("  - {name: above, watch: /t, when: [event: oom], victim: {among: /t/*}}\n");
    let (machine, _stubborn) = waiting_in_grace(root, &policy);
    event(root, "t", "oom", 1);
    wait("the kill", || machine.killed("t/b"));
    empty(root, "t/b");
    wait("the end of the ladder", || outcomes(&machine, "killed").len() == 1);
    assert!(!machine.killed("t/a"));
    machine.stop();
}

/// The ancestor has a grace time of its own, which is shorter: that much the victim gets, from then on.
#[test]
fn a_kill_is_brought_forward_to_when_the_ancestors_own_ladder_would_kill() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    let above = "  - {name: above, watch: /t, when: [event: oom], victim: {among: /t/*}, then: [term: {wait: 700ms}, kill: group]}\n";
    let (machine, _stubborn) = waiting_in_grace(root, &tenant_and(above));
    event(root, "t", "oom", 1);
    wait("the line that says so", || outcomes(&machine, "hurried").len() == 1);
    assert!(!machine.killed("t/a"), "not at once");
    wait("the kill", || machine.killed("t/a"));
    machine.stop();
}

/// A sibling's trouble in the same shortage is the echo of what the ladder deals with.
#[test]
fn a_siblings_trouble_in_the_same_shortage_waits() {
    let dir = tenants(&[("t/a", 3_000_000), ("t/b", 2_000_000)]);
    let root = dir.path();
    let (machine, _stubborn) = waiting_in_grace(root, TENANT);
    event(root, "t/b", "max", 1);
    wait("the line that says so", || outcomes(&machine, "put_off").len() == 1);
    machine.turn();
    assert!(outcomes(&machine, "put_off")[0].contains(r#""subject":"/t/b""#));
    assert!(!machine.killed("t/a") && !machine.killed("t/b"));
    assert!(machine.metrics().contains(r#"oomwarden_judgements_total{outcome="put_off",rule="tenant"} 1"#), "counted");
    // An event is not told twice, so it must not be lost: it is judged when the ladder is over.
    empty(root, "t/a");
    wait("the end of the first", || outcomes(&machine, "ended").len() == 1);
    machine.stop();
}

/// With all places for ladders taken by groups in their grace times the node is served all the same.
#[test]
fn ladders_of_tenants_in_every_place_keep_nobody_from_serving_the_node() {
    let names: Vec<String> = (0..9).map(|at| format!("t/{at}")).collect();
    let groups: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 2_000_000)).chain([("fat", 9_000_000)]).collect();
    let dir = tenants(&groups);
    let root = dir.path();
    for (name, _) in &groups {
        // Each at a limit of its own: troubles of their own.
        fs::write(root.join(name).join("memory.max"), "2000000\n").unwrap();
    }
    let stubborn: Vec<_> = names.iter().map(|name| Stubborn::in_group(root, name, 1)).collect();
    // More than this machine has.
    let node = "  - {name: node, watch: /, when: [available: {below: 1000TiB}], victim: {among: /fat, or_largest: true}}\n";
    let machine = Machine::start(
        root,
        &tenant_and(&node.replace("when: [available: {below: 1000TiB}]", "mode: observe, when: [available: {below: 1000TiB}]")),
        || {},
    );
    for name in &names {
        event(root, name, "max", 1);
    }
    wait("the ninth is put off", || outcomes(&machine, "put_off").len() == 1);
    assert!(!machine.killed("fat"));
    machine.reload(&tenant_and(node));
    wait("the node's victim", || machine.killed("fat"));
    assert!(names.iter().all(|name| !machine.killed(name)), "the tenants keep their grace times");
    drop(stubborn);
    machine.stop();
}

/// Of nested subjects the deepest that explains the trouble: a big innocent child must not die for a small sibling's.
#[test]
fn of_nested_subjects_the_deepest_is_judged_first_and_the_innocent_sibling_lives() {
    let dir = tenants(&[("t/p", 0), ("t/p/small", 2_000_000), ("t/p/big", 9_000_000)]);
    let root = dir.path();
    fs::write(root.join("t/p/memory.current"), "11000000\n").unwrap();
    let policy = "
version: 1
rules:
  - {name: leaf, watch: /t/p/*, when: [event: oom]}
  - {name: parent, watch: /t/p, when: [event: oom], victim: {among: leaves}}
";
    // Both notices are there before either is judged.
    let machine = Machine::start(root, policy, || {});
    machine.stall(|| {
        event(root, "t/p", "oom", 1);
        event(root, "t/p/small", "oom", 1);
    });
    wait("the kill", || machine.killed("t/p/small") || machine.killed("t/p/big"));
    machine.turn();
    assert!(machine.killed("t/p/small") && !machine.killed("t/p/big"), "{:?}", machine.lines());
    let put_off = r#"oomwarden_judgements_total{outcome="put_off",rule="parent"} "#;
    assert!(
        machine.metrics().lines().any(|line| line.strip_prefix(put_off).is_some_and(|count| count != "0")),
        "what is put off is counted"
    );
    empty(root, "t/p/small");
    wait("the end of the ladder", || outcomes(&machine, "killed").len() == 1);
    machine.turn();
    assert!(!machine.killed("t/p/big"), "the parent's notice was of the same trouble: {:?}", machine.lines());
    machine.stop();
}

/// An excluded group that comes during the grace time spares its parent; the next victim goes.
#[test]
fn an_excluded_group_that_comes_during_term_is_not_taken_along() {
    let dir = tenants(&[("t/a", 3_000_000), ("t/b", 2_000_000)]);
    let root = dir.path();
    let policy = "
version: 1
exclude: [/t/a/keep]
rules:
  - {name: above, watch: /t, when: [event: oom], victim: {among: /t/*}, then: [term: {wait: 700ms}, kill: group]}
";
    let _stubborn = Stubborn::in_group(root, "t/a", 1);
    let machine = Machine::start(root, policy, || {});
    event(root, "t", "oom", 1);
    machine.turn();
    group(root, "t/a/keep", 1000);
    wait("somebody's kill", || machine.killed("t/a") || machine.killed("t/b"));
    assert!(!machine.killed("t/a") && machine.killed("t/b"), "{:?}", machine.lines());
    empty(root, "t/b");
    wait("the line", || !machine.lines().is_empty());
    let line = &machine.lines()[0];
    assert!(line.contains(r#""outcome":"spared""#) && line.contains(r#""victim":"/t/b""#), "{line}");
    machine.stop();
}

/// The same by a process's name, and nobody else to turn to.
#[test]
fn an_excluded_comm_that_comes_during_term_spares_its_group() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    let policy = "
version: 1
exclude: [{group: /t/*, comm: sleep}]
rules:
  - {name: above, watch: /t, when: [event: oom], victim: {among: /t/*}, then: [term: {wait: 700ms}, kill: group]}
";
    let _stubborn = Stubborn::in_group(root, "t/a", 1);
    let machine = Machine::start(root, policy, || {});
    event(root, "t", "oom", 1);
    machine.turn();
    let mut sleeper = std::process::Command::new("sleep");
    let mut sleeper = sleeper.arg("1000").stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let list = fs::read_to_string(root.join("t/a/cgroup.procs")).unwrap();
    fs::write(root.join("t/a/cgroup.procs"), format!("{list}{}\n", sleeper.id())).unwrap();
    wait("the line", || !machine.lines().is_empty());
    let line = &machine.lines()[0];
    assert!(line.contains(r#""outcome":"no_victim""#) && line.contains(r#""outcome":"spared""#), "{line}");
    assert!(!machine.killed("t/a"));
    assert!(sleeper.try_wait().unwrap().is_none());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    machine.stop();
}

/// A reload that excludes the victim of a ladder under way protects it.
#[test]
fn a_reload_that_excludes_a_waiting_victim_spares_it() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    let policy = TENANT.replace("600s", "1500ms");
    let (machine, _stubborn) = waiting_in_grace(root, &policy);
    machine.reload(&format!("{policy}exclude: [/t/a]\n"));
    wait("the line", || !machine.lines().is_empty());
    let line = &machine.lines()[0];
    assert!(line.contains(r#""outcome":"spared""#) && line.contains(r#""outcome":"no_victim""#), "{line}");
    assert!(!machine.killed("t/a"));
    machine.stop();
}

/// A victim that was killed and stays for a while (D state, a core dump) costs nobody else its life on the same evidence.
#[test]
fn a_slow_death_is_no_second_victim_and_new_evidence_turns_to_another() {
    let dir = tenants(&[("t/a", 3_000_000), ("t/b", 2_000_000)]);
    let root = dir.path();
    let policy = "
version: 1
defaults: {cooldown: 20ms}
rules:
  - {name: above, watch: /t, when: [event: oom], victim: {among: /t/*}}
";
    let machine = Machine::start(root, policy, || {});
    event(root, "t", "oom", 1);
    wait("the kill", || machine.killed("t/a"));
    // It has given its memory back, and one process is still there.
    change(&root.join("t/a/memory.stat"), "anon 0\nfile 0\nshmem 0\ninactive_file 0\n");
    wait("the end of the ladder", || outcomes(&machine, "failed").len() == 1);
    // Past the cool-down.
    std::thread::sleep(std::time::Duration::from_millis(100));
    machine.turn();
    assert!(!machine.killed("t/b"), "{:?}", machine.lines());
    event(root, "t", "oom", 2);
    wait("the second kill", || machine.killed("t/b"));
    empty(root, "t/b");
    wait("the end of the second ladder", || outcomes(&machine, "killed").len() == 1);
    // The slow one is gone at last, and a supervisor starts it anew in its group: it is a candidate like any other.
    empty(root, "t/a");
    machine.turn();
    fs::write(root.join("t/a/cgroup.kill"), "").unwrap();
    group(root, "t/a", 3_000_000);
    std::thread::sleep(std::time::Duration::from_millis(100));
    event(root, "t", "oom", 3);
    wait("the third kill", || machine.killed("t/a"));
    machine.stop();
}

/// A verdict that was hurried along belongs to its victim: the one that follows when that is spared keeps its own grace time.
#[test]
fn who_follows_a_spared_victim_keeps_its_grace_time() {
    let dir = tenants(&[("t/a", 3_000_000), ("t/b", 2_000_000)]);
    let root = dir.path();
    let policy = "
version: 1
defaults: {cooldown: 20ms}
exclude: [/t/a/keep]
rules:
  - {name: above, watch: /t, when: [event: oom], victim: {among: /t/*}, then: [term: {wait: 600s}, kill: group]}
  - {name: one, watch: /t/a, when: [event: max], then: [term: {wait: 900ms}, kill: group]}
";
    let _stubborn = [Stubborn::in_group(root, "t/a", 1), Stubborn::in_group(root, "t/b", 1)];
    let machine = Machine::start(root, policy, || {});
    event(root, "t", "oom", 1);
    machine.turn();
    event(root, "t/a", "max", 1);
    wait("the kill is brought forward", || outcomes(&machine, "hurried").len() == 1);
    group(root, "t/a/keep", 1000);
    machine.settle("t/a/keep");
    // Beyond when the hurried kill would have come.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    machine.turn();
    assert!(!machine.killed("t/a") && !machine.killed("t/b"), "{:?}", machine.lines());
    machine.stop();
}

/// A unit with Restart= comes again as a new group under the old name.
#[test]
fn a_cool_down_holds_for_a_name_that_a_supervisor_starts_again_and_again() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    let policy = "
version: 1
defaults: {cooldown: 10m}
rules:
  - {name: finish, watch: /t/*, when: [event: oom]}
";
    let machine = Machine::start(root, policy, || {});
    event(root, "t/a", "oom", 1);
    wait("the kill", || machine.killed("t/a"));
    fs::remove_dir_all(root.join("t/a")).unwrap();
    wait("the end of the ladder", || outcomes(&machine, "killed").len() == 1);
    for _ in 0..3 {
        group(root, "t/a", 3_000_000);
        machine.settle("t/a");
        event(root, "t/a", "oom", 1);
        machine.turn();
        machine.turn();
        assert!(!machine.killed("t/a"), "{:?}", machine.lines());
        fs::remove_dir_all(root.join("t/a")).unwrap();
        machine.turn();
    }
    machine.stop();
}

/// A bad rule over many subjects kills as many as the node's limit allows, also when all come at the same moment.
#[test]
fn the_nodes_limit_stops_a_bad_rule_over_many_subjects() {
    let names: Vec<String> = (0..20).map(|at| format!("t/{at}")).collect();
    let groups: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 2_000_000)).collect();
    let dir = tenants(&groups);
    let root = dir.path();
    for name in &names {
        fs::write(root.join(name).join("memory.max"), "2000000\n").unwrap();
    }
    let policy = "
version: 1
defaults: {cooldown: 20ms}
limits: {node: 3 per 1h}
rules:
  - {name: bad, watch: /t/*, when: [event: max]}
  - {name: node, watch: /, mode: observe, when: [available: {below: 1000TiB}], victim: {among: /t/*, or_largest: true}}
";
    let machine = Machine::start(root, policy, || {});
    let killed = || names.iter().filter(|name| machine.killed(name)).count();
    machine.stall(|| names.iter().for_each(|name| event(root, name, "max", 1)));
    wait("three kills", || killed() == 3);
    for name in &names {
        if machine.killed(name) {
            empty(root, name);
        }
    }
    wait("the ends of the ladders", || outcomes(&machine, "killed").len() == 3);
    for round in 2..4 {
        names.iter().for_each(|name| event(root, name, "max", round));
        machine.turn();
    }
    wait("it says so", || !outcomes(&machine, "breaker").is_empty());
    assert_eq!(killed(), 3, "{:?}", machine.lines());
    assert!(machine.metrics().contains("oomwarden_breaker_open 1"));
    // The node's own shortage is served all the same.
    machine.reload(&policy.replace("mode: observe, ", ""));
    wait("a kill for the node", || killed() > 3);
    machine.stop();
}

/// The key of a journal's line.
fn key(line: &str, key: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(line).unwrap()[key].clone()
}

fn count(machine: &Machine, sample: &str) -> Option<u64> {
    machine.metrics().lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

/// Who leaves after SIGTERM was not killed, and the record says so. It was a deed all the same, so
/// the breaker counts it.
#[test]
fn who_leaves_after_sigterm_has_ended_and_counts_for_the_breaker() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    let (machine, _stubborn) = waiting_in_grace(root, &TENANT.replace("defaults:", "limits: {kills: 1 per 1h}\ndefaults:"));
    empty(root, "t/a");
    wait("the end of the ladder", || outcomes(&machine, "ended").len() == 1);
    let line = &outcomes(&machine, "ended")[0];
    assert_eq!((key(line, "processes_killed"), key(line, "processes_ended")), (0.into(), 1.into()), "{line}");
    let latency = key(line, "latency_us");
    assert!(latency["kill"].is_null() && latency["empty"].is_u64(), "{line}");
    assert!(line.contains(r#"{"name":"term","outcome":"empty""#) && !line.contains(r#""name":"kill""#), "{line}");
    assert_eq!(count(&machine, r#"oomwarden_judgements_total{outcome="ended",rule="tenant"}"#), Some(1));
    assert_eq!(count(&machine, r#"oomwarden_kills_total{rule="tenant"}"#), Some(0));
    assert_eq!(count(&machine, r#"oomwarden_killed_processes_total{rule="tenant"}"#), Some(0));
    change(&root.join("t/a/cgroup.events"), "populated 1\n");
    let mut counted = 1;
    wait("the breaker says so", || {
        // What is noticed in the rest after a deed is let go.
        counted += 1;
        event(root, "t/a", "max", counted);
        machine.turn();
        !outcomes(&machine, "breaker").is_empty()
    });
    assert!(!machine.killed("t/a"));
    machine.stop();
}

/// A policy whose hook has the group's end in its hands: `script`, with the group's cgroup.events
/// as `$0`.
fn with_hook(root: &Path, script: &str) -> String {
    let events = root.join("t/a/cgroup.events");
    format!(
        "
version: 1
limits: {{kills: 1 per 1h}}
defaults: {{cooldown: 20ms}}
rules:
  - name: tenant
    watch: /t/*
    when:
      - event: max
    then:
      - hook: {{exec: [/bin/sh, -c, '{script}', '{}'], timeout: 60s}}
      - kill: group
",
        events.display()
    )
}

/// Who leaves while a hook runs, or by its doing, was touched by no signal that ends: that is no
/// deed of the rule, and no breaker counts it.
#[test]
fn who_leaves_during_a_hook_has_ended_and_counts_for_no_breaker() {
    for script in [r#"printf "populated 0\n" >"$0"; sleep 50"#, r#"printf "populated 0\n" >"$0""#] {
        let dir = tenants(&[("t/a", 3_000_000)]);
        let root = dir.path();
        let machine = Machine::start(root, &with_hook(root, script), || {});
        let mut counted = 0;
        for round in 1..=2 {
            wait("the end of the ladder", || {
                // What is noticed in the rest after a deed is let go.
                counted += 1;
                event(root, "t/a", "max", counted);
                machine.turn();
                outcomes(&machine, "ended").len() == round
            });
            fs::write(root.join("t/a/cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        }
        assert!(outcomes(&machine, "breaker").is_empty() && !machine.killed("t/a"), "{:?}", machine.lines());
        let line = &outcomes(&machine, "ended")[0];
        assert_eq!(key(line, "processes_killed"), 0, "{line}");
        machine.stop();
    }
}

/// Two of three leave after SIGTERM, the third is killed: each is counted as what it was.
#[test]
fn who_left_before_the_kill_is_not_counted_as_killed() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    let stubborn = Stubborn::in_group(root, "t/a", 3);
    let machine = Machine::start(root, &TENANT.replace("600s", "1s"), || {});
    event(root, "t/a", "max", 1);
    wait("the ladder is under way", || {
        machine.metrics().contains(r#"oomwarden_trigger_events_total{rule="tenant",trigger="event: max"} 1"#)
    });
    machine.turn();
    fs::write(root.join("t/a/cgroup.procs"), format!("{}\n", stubborn.0[0].id())).unwrap();
    wait("the kill", || machine.killed("t/a"));
    empty(root, "t/a");
    wait("the end of the ladder", || outcomes(&machine, "killed").len() == 1);
    let line = &outcomes(&machine, "killed")[0];
    assert_eq!((key(line, "processes_killed"), key(line, "processes_ended")), (1.into(), 2.into()), "{line}");
    assert_eq!(count(&machine, r#"oomwarden_killed_processes_total{rule="tenant"}"#), Some(1));
    if has_attributes(root) {
        wait("systemd is told the same number", || attribute(root, "t/a", "user.oomd_kill").as_deref() == Some("1"));
    }
    machine.stop();
}

fn has_attributes(root: &Path) -> bool {
    let set = rustix::fs::setxattr(root, "user.test", b"", rustix::fs::XattrFlags::empty());
    set.inspect_err(|errno| println!("no user attributes in {}: {errno}", root.display())).is_ok()
}

fn attribute(root: &Path, group: &str, name: &str) -> Option<String> {
    let mut text = [0; 64];
    let length = rustix::fs::getxattr(root.join(group), name, &mut text[..]).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// cgroup.kill is refused, SIGKILL one by one reaches them, and the second try reaches them again:
/// systemd is told of each process once.
#[test]
fn a_kill_that_was_refused_and_reached_them_all_the_same_is_counted_once() {
    let dir = tenants(&[("t/a", 3_000_000)]);
    let root = dir.path();
    fs::remove_file(root.join("t/a/cgroup.kill")).unwrap();
    fs::create_dir(root.join("t/a/cgroup.kill")).unwrap();
    let _stubborn = Stubborn::in_group(root, "t/a", 3);
    let machine = Machine::start(root, &TENANT.replace("      - term: {wait: 600s}\n", ""), || {});
    event(root, "t/a", "max", 1);
    // The group is never empty here, so that the second try takes place.
    wait("the end of the ladder", || outcomes(&machine, "failed").len() == 1);
    let line = &outcomes(&machine, "failed")[0];
    for rung in [r#"{"name":"kill","outcome":"EISDIR""#, r#"{"name":"kill","outcome":"done""#, r#"{"name":"verify","outcome":"deadline""#] {
        assert!(line.contains(rung), "{rung}: {line}");
    }
    if has_attributes(root) {
        wait("the marks", || attribute(root, "t/a", "user.oomd_kill").is_some());
        assert_eq!(attribute(root, "t/a", "user.oomd_ooms").as_deref(), Some("1"));
        assert_eq!(attribute(root, "t/a", "user.oomd_kill").as_deref(), Some("3"));
    }
    machine.stop();
}

/// It is there from the start.
fn dropped(machine: &Machine, reason: &str) -> u64 {
    count(machine, &format!(r#"oomwarden_notices_dropped_total{{reason="{reason}"}}"#)).unwrap()
}

/// A level at more groups than can wait, in one turn: what has no room is counted, and comes again.
#[test]
fn levels_that_find_no_room_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    group(root, "t", 0);
    (0..300).for_each(|at| group(root, &format!("t/{at}"), 3_000_000));
    let policy = "
version: 1
rules:
  - {name: full, watch: /t/*, mode: observe, cooldown: 10m, when: [usage: {above: 1MiB}]}
";
    let machine = Machine::start(root, policy, || {});
    for reason in ["queue_full", "troubled_full", "no_place", "too_late", "table_full"] {
        assert!(machine.metrics().contains(&format!(r#"oomwarden_notices_dropped_total{{reason="{reason}"}} "#)), "{reason}");
    }
    wait("some are let go", || dropped(&machine, "queue_full") > 0);
    // All of them: those that had room rest after their verdict.
    let observed = r#"oomwarden_judgements_total{outcome="observed",rule="full"}"#;
    wait("they come again", || count(&machine, observed) == Some(300));
    machine.stop();
}

/// Nine groups in their grace times, and places for eight.
#[test]
fn a_level_without_a_place_for_its_ladder_is_counted() {
    let names: Vec<String> = (0..9).map(|at| format!("t/{at}")).collect();
    let groups: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 2_000_000)).collect();
    let dir = tenants(&groups);
    let root = dir.path();
    names.iter().for_each(|name| fs::write(root.join(name).join("memory.max"), "2000000\n").unwrap());
    let _stubborn: Vec<_> = names.iter().map(|name| Stubborn::in_group(root, name, 1)).collect();
    let machine = Machine::start(root, &TENANT.replace("event: max", "usage: {above: 50%, of: max}"), || {});
    wait("the ninth is counted", || dropped(&machine, "no_place") > 0);
    assert!(names.iter().all(|name| !machine.killed(name)));
    machine.stop();
}

/// The warden was away, and finds more groups in trouble than it gives triggers in one turn.
#[test]
fn groups_in_trouble_that_find_no_room_are_counted() {
    let names: Vec<String> = (0..100).map(|at| format!("t/{at}")).collect();
    let groups: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 2_000_000)).collect();
    let dir = tenants(&groups);
    let root = dir.path();
    let policy = "
version: 1
rules:
  - {name: thrash, watch: /t/*, mode: observe, when: [psi: full 100ms/500ms]}
";
    // Ordinary files take no triggers: stall is read on a timer, by which the warden knows that it was away.
    let total = "avg10=0.00 avg60=0.00 avg300=0.00 total=0";
    names.iter().for_each(|name| fs::write(root.join(name).join("memory.pressure"), format!("some {total}\nfull {total}\n")).unwrap());
    let machine = Machine::start(root, policy, || {});
    machine.stall(|| {
        names.iter().for_each(|name| event(root, name, "high", 1));
        std::thread::sleep(oomwarden::warden::attention::GAP + std::time::Duration::from_millis(300));
    });
    wait("some are let go", || dropped(&machine, "troubled_full") > 0);
    machine.stop();
}
