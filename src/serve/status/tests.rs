use super::*;

fn sample() -> Status {
    Status {
        v: 1,
        version: "1.2.3".into(),
        pid: 42,
        uptime_seconds: 3 * 86_400 + 4 * 3600,
        ready: true,
        policy: PolicyStatus { hash: "0123abcd".into(), mode: "enforce".into(), is_last: true, ..PolicyStatus::default() },
        groups: Groups { total: 12, by_timer: 0 },
        psi_triggers: Triggers { armed: 2, by_timer: 0 },
        limit: Some(Limit { kills: 5, per_seconds: 600 }),
        rules: vec![
            RuleStatus {
                name: "thrash".into(),
                mode: "enforce".into(),
                watch: vec!["/t/*".into()],
                when: vec!["psi: full 100ms/500ms".into()],
                subjects: 2,
                kills: 7,
            },
            RuleStatus {
                name: "node".into(),
                mode: "observe".into(),
                watch: vec!["/".into()],
                when: vec!["lms: oom".into()],
                ..RuleStatus::default()
            },
        ],
        subjects: vec![
            SubjectStatus {
                group: "/t/thin".into(),
                rules: vec!["thrash".into()],
                psi: false,
                memory_bytes: Some(1 << 20),
                limit_bytes: None,
            },
            SubjectStatus {
                group: "/t/fat".into(),
                rules: vec!["thrash".into()],
                psi: true,
                memory_bytes: Some(3 << 29),
                limit_bytes: Some(2 << 30),
            },
        ],
        last: vec![Deed {
            time: "2023-11-14T22:13:20.123456Z".into(),
            kind: "judgement".into(),
            outcome: Some("killed".into()),
            rule: Some("thrash".into()),
            trigger: Some("psi: full 100ms/500ms".into()),
            victim: Some("/t/fat".into()),
            processes_killed: Some(5),
            freed_bytes: Some(1 << 30),
            ..Deed::default()
        }],
        ..Status::default()
    }
}

fn plain(status: &Status, all: bool) -> String {
    anstream::adapter::strip_str(&status.text(all)).to_string()
}

#[test]
fn an_ordinary_day_is_read_at_a_glance() {
    let expected = "\
oomwarden 1.2.3  process 42, up for 3d 4h, ready
policy 0123abcd, enforce, 2 rules, at most 5 kills per 10m 0s for a rule and a subject
12 groups, 2 PSI triggers armed, nothing on a timer
kernel module: not loaded

rule    mode     watches  now  when                   kills
thrash  enforce  /t/*       2  psi: full 100ms/500ms      7
node    observe  /          1  lms: oom                   0

watched group  memory  limit  noticed by     rules
/t/fat         1.5GiB   2GiB  stall, events  thrash
/t/thin          1MiB   none  events         thrash

last                  what    group   rule    after                  processes  freed
2023-11-14T22:13:20Z  killed  /t/fat  thrash  psi: full 100ms/500ms          5   1GiB
";
    assert_eq!(plain(&sample(), false), expected);
}

#[test]
fn what_keeps_it_from_acting_stands_out() {
    let mut status = sample();
    status.paused = Some(Paused { until: "2023-11-14T22:23:20Z".into(), remaining_seconds: 570, by: None });
    status.policy.is_last = false;
    status.degraded = vec![DegradedStatus { reason: "psi".into(), text: "the kernel has no PSI\nat all".into() }];
    status.ready = false;
    status.groups.by_timer = 3;
    status.breakers = vec![BreakerStatus { rule: "thrash".into(), subject: "/t/fat".into(), closes_in_seconds: 59 }];
    status.breakers_left_out = 2;
    status.module = Some(ModuleStatus { level: "kill".into(), handler: false, holds: 1, resolved: 1, ..ModuleStatus::default() });
    status.last.clear();
    let text = plain(&status, false);
    for part in [
        "not ready: its groups are not armed yet\n",
        "deeds are PAUSED until 2023-11-14T22:23:20Z (9m 30s left): `oomwarden resume` ends that\n",
        "DEGRADED (psi): the kernel has no PSI\\x0aat all\n",
        "the policy that was offered last is REFUSED, an older one is in force: `oomwarden check` says why\n",
        "on a timer: 3 groups (`oomwarden doctor` says why)\n",
        "kernel module: level kill, holds nothing for this daemon; 1 hold (1 resolved, 0 expired, 0 passed), 0 kills by the table\n",
        "open breakers: these rules only observe there\nrule    subject  closes in\nthrash  /t/fat         59s\nand 2 more\n",
        "nothing was done, or would have been, since the start\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_refused_policy_is_told_once() {
    let mut status = sample();
    status.policy.is_last = false;
    assert!(plain(&status, false).contains("is REFUSED"));
    status.degraded = vec![DegradedStatus { reason: "policy".into(), text: "p.yaml:1:1: error: x; the built-in one is used".into() }];
    let text = plain(&status, false);
    assert!(text.contains("DEGRADED (policy): p.yaml:1:1: error: x; the built-in one is used\n") && !text.contains("REFUSED"), "{text}");
}

#[test]
fn long_lists_are_cut_unless_all_are_asked_for() {
    let mut status = sample();
    let subject = |number: u64| SubjectStatus { group: format!("/t/{number}"), memory_bytes: Some(number), ..SubjectStatus::default() };
    status.subjects = (0..30).map(subject).collect();
    let (short, long) = (plain(&status, false), plain(&status, true));
    assert!(short.contains("/t/29") && !short.contains("/t/9 ") && short.contains("and 10 more (--all shows them)\n"), "{short}");
    assert!(long.contains("/t/0 ") && !long.contains("more"), "{long}");
}

#[test]
fn other_versions_are_understood_as_far_as_they_go() {
    let older: Status = serde_json::from_str("{\"v\":1,\"pid\":7}").expect("understood");
    assert!(plain(&older, false).contains("process 7"));
    let newer: Status = serde_json::from_str("{\"v\":2,\"pid\":8,\"new\":[1],\"last\":[{\"kind\":\"news\",\"x\":1}]}").expect("understood");
    assert!(plain(&newer, false).contains("news"));
}

#[test]
fn text_of_others_can_not_upset_the_terminal() {
    let mut status = sample();
    status.subjects[0].group = "/t/\u{1b}[2J\u{202e}".into();
    status.last[0].rule = Some("a\nb\u{1b}]0;x\u{7}".into());
    let text = plain(&status, true);
    assert!(text.contains(r"\x1b[2J") && text.contains(r"a\x0ab\x1b]0;x\x07"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']));
}

#[test]
fn a_kill_by_the_kernel_has_its_group_and_processes() {
    let context = crate::record::journal::Context { node: "n".into(), run: "r".into() };
    let line = crate::record::kernel_kill_line::json(&crate::record::testing::kernel_kill(), 1, &context).expect("a line");
    let deed: Deed = serde_json::from_str(&line).expect("a deed");
    assert_eq!((deed.kind.as_str(), deed.group.as_deref(), deed.processes_killed), ("kernel_oom", Some("/a"), Some(1)));
}
