//! Each form that a policy may take, and each error with its place.

use std::time::Duration;

use super::super::model::*;
use super::super::tests::{good, sources};
use super::super::{load, model};
use crate::units::{Bytes, Share};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A policy with one rule that has these lines besides its name, from line 4 on.
fn rule_text(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("version: 1\nrules:\n  - name: r\n{lines}")
}

fn rule(lines: &str) -> model::Rule {
    let mut policy = good(&rule_text(lines)).policy;
    policy.rules.remove(0)
}

fn triggers(entry: &str) -> Vec<Trigger> {
    rule(&format!("watch: /\nwhen:\n  - {entry}")).when
}

fn conditions(entry: &str) -> Vec<Condition> {
    rule(&format!("watch: /a\nwhen: [event: oom_kill]\nonly_if:\n  - {entry}")).only_if
}

#[test]
fn every_trigger() {
    let psi = |kind, stall, window| Trigger::Psi(Psi { kind, stall: ms(stall), window: ms(window) });
    for (text, expected) in [
        ("psi: full 100ms/500ms", psi(PsiKind::Full, 100, 500)),
        ("{psi: some 1s/2s}", psi(PsiKind::Some, 1000, 2000)),
        ("event: low", Trigger::Event(EventKind::Low)),
        ("event: high", Trigger::Event(EventKind::High)),
        ("event: max", Trigger::Event(EventKind::Max)),
        ("event: oom", Trigger::Event(EventKind::Oom)),
        ("event: oom_kill", Trigger::Event(EventKind::OomKill)),
        ("event: oom_group_kill", Trigger::Event(EventKind::OomGroupKill)),
        ("usage: {above: 95%, of: max, for: 1s}", Trigger::Usage(UsageTest::Share(Share::percent(95), UsageOf::Max), ms(1000))),
        ("usage: {above: 95%, of: high}", Trigger::Usage(UsageTest::Share(Share::percent(95), UsageOf::High), ms(0))),
        ("usage: {above: 40%, of: node}", Trigger::Usage(UsageTest::Share(Share::percent(40), UsageOf::Node), ms(0))),
        ("usage: {above: 95%}", Trigger::Usage(UsageTest::Share(Share::percent(95), UsageOf::Max), ms(0))),
        ("usage: {above: 1.5GiB, for: 2m}", Trigger::Usage(UsageTest::Amount(Bytes(3 << 29)), ms(120_000))),
        ("available: {below: 5%}", Trigger::Available(Level { share: Some(Share::percent(5)), at_most: None }, ms(0))),
        ("available: {below: 512MiB, for: 150ms}", Trigger::Available(Level { share: None, at_most: Some(Bytes(512 << 20)) }, ms(150))),
        (
            "available: {below: {share: 2.5%, at_most: 1GiB}}",
            Trigger::Available(Level { share: Share::from_hundredths(250), at_most: Some(Bytes(1 << 30)) }, ms(0)),
        ),
        ("lms: warn", Trigger::Lms(LmsLevel::Warn)),
        ("{lms: kill}", Trigger::Lms(LmsLevel::Kill)),
        ("lms: \"oom\"", Trigger::Lms(LmsLevel::Oom)),
        ("swap_free: {below: 10%, for: 1s}", Trigger::SwapFree(Level { share: Some(Share::percent(10)), at_most: None }, ms(1000))),
    ] {
        assert_eq!(triggers(text), [expected], "{text}");
    }
    assert_eq!(rule("watch: /a\nwhen: [psi: full 1s/2s, event: oom]").when.len(), 2);
}

#[test]
fn every_condition() {
    let tenth = Level { share: Some(Share::percent(10)), at_most: None };
    for (text, expected) in [
        ("usage: {above: 50%, of: max}", Condition::Usage(UsageTest::Share(Share::percent(50), UsageOf::Max))),
        ("usage: {above: 1GB}", Condition::Usage(UsageTest::Amount(Bytes(1_000_000_000)))),
        ("available: {below: 10%}", Condition::Available(tenth)),
        ("swap_free: {below: 10%}", Condition::SwapFree(tenth)),
    ] {
        assert_eq!(conditions(text), [expected], "{text}");
    }
}

#[test]
fn every_victim() {
    let victim = |text: &str| rule(&format!("watch: /a\nwhen: [event: oom_kill]\nvictim: {text}")).victim;
    assert!(matches!(victim("subject"), Victim::Subject));
    let among = |text: &str| match victim(text) {
        Victim::Among(among) => among,
        Victim::Subject => panic!("{text}"),
    };
    let plain = among("{among: /b/**}");
    assert!(matches!(&plain.groups, AmongGroups::Globs(globs) if globs.patterns().eq(["/b/**"])));
    assert_eq!((plain.at_least, plain.or_largest), (Bytes(1 << 20), false));
    assert_eq!(plain.rank, [RankBy { key: RankKey::Usage, within: None }]);
    let full = among("{among: [/b/*, \"/c/{d,e}\"], at_least: 0B, or_largest: true, rank: [pressure, usage within 2.5%, age, swap]}");
    assert!(matches!(&full.groups, AmongGroups::Globs(globs) if globs.patterns().eq(["/b/*", "/c/{d,e}"])));
    assert_eq!((full.at_least, full.or_largest, full.rank.len()), (Bytes(0), true, 4));
    assert_eq!(full.rank[1], RankBy { key: RankKey::Usage, within: Share::from_hundredths(250) });
    assert!(matches!(among("{among: leaves, rank: growth}").groups, AmongGroups::Leaves));
}

#[test]
fn every_ladder() {
    let ladder = |text: &str| rule(&format!("watch: /a\nwhen: [event: oom_kill]\nthen: {text}")).ladder;
    assert_eq!(ladder("[kill: process]"), [Rung::Kill(KillWhat::Process)]);
    assert_eq!(ladder("[term: {wait: 3s}, kill: group]"), [Rung::Term { wait: ms(3000) }, Rung::Kill(KillWhat::Group)]);
    let hook = Hook { exec: vec!["/bin/x".to_owned(), "-a b".to_owned()], timeout: ms(500) };
    assert_eq!(
        ladder("[warn: {signal: SIGUSR1, wait: 1s}, hook: {exec: [/bin/x, -a b], timeout: 500ms}, term: {wait: 3s}, kill: process]"),
        [
            Rung::Warn { signal: Some(WarnSignal::USR1), wait: ms(1000) },
            Rung::Hook(hook.into()),
            Rung::Term { wait: ms(3000) },
            Rung::Kill(KillWhat::Process)
        ]
    );
    for (text, number, shown) in [
        ("signal: SIGUSR2, ", Some(12), "SIGUSR2"),
        ("signal: SIGRTMIN, ", Some(34), "SIGRTMIN"),
        ("signal: SIGRTMIN+30, ", Some(64), "SIGRTMIN+30"),
        ("", None, ""),
    ] {
        let rungs = ladder(&format!("[warn: {{{text}wait: 1s}}, kill: group]"));
        let Some(Rung::Warn { signal, .. }) = rungs.first() else { panic!("{rungs:?}") };
        assert_eq!(signal.map(WarnSignal::number), number);
        assert_eq!(signal.map(|signal| signal.to_string()).unwrap_or_default(), shown);
    }
}

#[test]
fn the_rest_of_a_rule_and_of_the_policy() {
    let loaded = good(
        "version: 1\nmode: observe\ndefaults: {cooldown: 1500ms}\nexclude:\n  - /a\n  - {group: [/b, \"/c/**\"], comm: \"1\"}\nimportance:\n  \
         - {group: [/d, /e], value: -9223372036854775808}\nrules:\n  - {name: r1, mode: enforce, cooldown: 0s, watch: [/f, /g/*], when: [event: oom]}\n  \
         - {name: r2, watch: /h, when: [event: oom]}\nkernel: {oom_group: /i}\n",
    );
    let policy = loaded.policy;
    assert_eq!(loaded.warnings, []);
    assert_eq!(policy.mode, Mode::Observe);
    assert_eq!((&*policy.exclude[0].text, policy.exclude[0].comm.as_deref()), ("/a", None));
    assert_eq!((&*policy.exclude[1].text, policy.exclude[1].comm.as_deref()), ("/b, /c/** holding comm 1", Some(b"1".as_slice())));
    assert_eq!(policy.importance[0].value, i64::MIN);
    assert_eq!((policy.rules[0].mode, policy.rules[0].cooldown), (Mode::Enforce, ms(0)));
    assert_eq!((policy.rules[1].mode, policy.rules[1].cooldown), (Mode::Observe, ms(1500)));
    assert!(policy.rules[0].watch.patterns().eq(["/f", "/g/*"]));
    assert_eq!(policy.hold, None);
    assert!(policy.oomd_xattrs, "systemd is told unless the policy says otherwise");
    for (text, told) in [("{oomd_xattrs: false}", false), ("{oomd_xattrs: true}", true), ("{}", true)] {
        assert_eq!(good(&format!("version: 1\nsystemd: {text}\n")).policy.oomd_xattrs, told, "{text}");
    }
    for (text, hold) in [("1ms", ms(1)), ("500ms", ms(500)), ("1.25s", ms(1250)), ("2s", LONGEST_HOLD)] {
        assert_eq!(good(&format!("version: 1\nkernel: {{hold: {text}}}\n")).policy.hold, Some(hold), "{text}");
    }
    assert_eq!(policy.limit, None);
    for (text, kills, per) in [("5 per 10m", 5, 600), ("1 per 1s", 1, 1), ("100   per 24h", 100, 86_400)] {
        let limit = good(&format!("version: 1\nlimits: {{kills: {text}}}\n")).policy.limit;
        assert_eq!(limit.map(|limit| (limit.kills, limit.per.as_secs())), Some((kills, per)), "{text}");
    }
    assert_eq!((policy.node_limit, policy.kill_one_in.is_none(), policy.rules[0].spare_unkillable), (None, true, true));
    // Lists whose entries are all commented out.
    assert!(good("version: 1\nexclude:\nimportance:\nrules:\n").policy.rules.is_empty());
    // Everything may be written as JSON.
    good(r#"{"version": 1, "rules": [{"name": "r", "watch": "/a", "when": [{"event": "oom"}]}]}"#);
    // Line ends of other systems.
    good("version: 1\r\nrules:\r\n  - name: r\r\n    watch: /a\r\n    when:\r\n      - event: oom\r\n");
}

#[test]
fn each_of_the_two_limits_may_stand_alone() {
    let limits = |text: &str| {
        let policy = good(&format!("version: 1\nlimits: {text}\n")).policy;
        let pair = |limit: Option<KillLimit>| limit.map(|limit| (limit.kills, limit.per.as_secs()));
        (pair(policy.limit), pair(policy.node_limit))
    };
    assert_eq!(limits("{kills: 5 per 10m}"), (Some((5, 600)), None));
    assert_eq!(limits("{node: 20 per 1h}"), (None, Some((20, 3600))));
    assert_eq!(limits("{node: 20 per 1h, kills: 5 per 10m}"), (Some((5, 600)), Some((20, 3600))));
}

#[test]
fn groups_where_one_process_is_killed() {
    let globs = |text: &str| {
        let policy = good(&format!("version: 1\nkill_one_in: {text}\n")).policy;
        policy.kill_one_in.unwrap().patterns().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(globs("/user.slice/*/session-*.scope"), ["/user.slice/*/session-*.scope"]);
    assert_eq!(globs("[/a, \"/b/{c,d}\"]"), ["/a", "/b/{c,d}"]);
}

#[test]
fn unkillables_are_spared_unless_the_rule_says_otherwise() {
    let spares = |text: &str| rule(&format!("watch: /a\nwhen: [event: oom_kill]\n{text}")).spare_unkillable;
    assert!(spares("") && spares("spare_unkillable: true"));
    assert!(!spares("spare_unkillable: false") && !spares("spare_unkillable: False"));
}

#[test]
fn truth_values_in_other_words() {
    for (value, shown, hint) in [
        ("no", "`no`", "write `spare_unkillable: false`, without quotes"),
        ("Off", "`Off`", "write `spare_unkillable: false`"),
        ("\"false\"", "`false`", "write `spare_unkillable: false`, without quotes"),
        ("0", "the number `0`", "write `spare_unkillable: false`"),
        ("yes", "`yes`", "write `spare_unkillable: true`"),
        ("never", "`never`", "`false` lets a group die that holds a process with oom_score_adj -1000"),
        ("[false]", "a list", "`false` lets a group die"),
        ("", "nothing", "`false` lets a group die"),
    ] {
        let text = rule_text(&format!("watch: /a\nwhen: [event: oom]\nspare_unkillable: {value}"));
        let start = format!("`spare_unkillable` is `true` or `false`, not {shown}");
        let column = if value.is_empty() { 21 } else { 23 };
        refused(&text, &[(&format!("6:{column}: {start}"), hint)]);
    }
    let text = rule_text("watch: /a\nwhen: [event: oom]\nvictim: {among: leaves, or_largest: yes}");
    refused(&text, &[("6:41: `or_largest` is `true` or `false`, not `yes`", "write `or_largest: true`")]);
}

/// Each entry: text, `line:column: error: message` (its beginning), a part of the hint.
#[track_caller]
fn refused(text: &str, expected: &[(&str, &str)]) {
    let found = load(&sources(&[text])).err().unwrap_or_default();
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{text}\n{}", shown.join("\n"));
    super::super::schema::tests::must_refuse(text, &found.iter().map(|found| &*found.message).collect::<Vec<_>>());
    for (found, (start, hint)) in found.iter().zip(expected) {
        let line = format!("{}:{}: {}", found.line, found.column, found.message);
        assert!(line.starts_with(start), "{text}\nexpected {start}\nfound    {line}");
        assert!(found.hint.contains(hint), "{text}\nexpected {hint}\nfound    {}", found.hint);
    }
}

#[test]
fn errors_at_the_top() {
    let rest = "rules: []\n";
    for (text, start, hint) in [
        ("rules: []\n".to_owned(), "1:1: `version` is missing in the policy", "begin every policy file with `version: 1`"),
        (format!("version: 2\n{rest}"), "1:10: version 2 of the policy is not known", "version: 1"),
        (format!("version: one\n{rest}"), "1:10: the version is a number, not `one`", "version: 1"),
        (format!("version: \"1\"\n{rest}"), "1:10: the version is a number, not `1`", "version: 1"),
        (format!("version:\n{rest}"), "1:8: the version is a number, not nothing", "version: 1"),
        ("- a\n".to_owned(), "1:1: the policy is a mapping with keys, not a list", "`version: ...`"),
        ("hello\n".to_owned(), "1:1: the policy is a mapping with keys, not `hello`", "`rules: ...`"),
        (format!("version: 1\nmode: kill\n{rest}"), "2:7: the mode is `enforce` or `observe`, not `kill`", "records them"),
        (format!("version: 1\nmode: [observe]\n{rest}"), "2:7: the mode is `enforce` or `observe`, not a list", "observe"),
        (format!("version: 1\nrule: []\n{rest}"), "2:1: unknown key `rule` in the policy", "did you mean `rules`?"),
        (format!("version: 1\nwombat: 1\n{rest}"), "2:1: unknown key `wombat` in the policy", "one of `version`, `mode`"),
        (format!("version: 1\n5: 1\n{rest}"), "2:1: unknown key `5`", "one of"),
        (format!("version: 1\nmode: observe\nmode: enforce\n{rest}"), "3:1: the key `mode` is given twice", "line 2"),
        (format!("version: 1\ndefaults: 5\n{rest}"), "2:11: `defaults` is a mapping with keys, not the number `5`", "`cooldown: ...`"),
        (format!("version: 1\ndefaults: {{cooldown: 5}}\n{rest}"), "2:22: `5` has no unit", "write 5ms or 5s"),
        (format!("version: 1\ndefaults: {{cooldown: [5s]}}\n{rest}"), "2:22: a single value is expected here, not a list", "`2s`"),
        (
            format!("version: 1\ndefaults: {{cooldwon: 5s}}\n{rest}"),
            "2:12: unknown key `cooldwon` in `defaults`",
            "did you mean `cooldown`?",
        ),
        (format!("version: 1\nkernel: {{oom_groups: /a}}\n{rest}"), "2:10: unknown key `oom_groups` in `kernel`", "`oom_group`"),
        (format!("version: 1\nkernel: {{oom_group: a}}\n{rest}"), "2:21: the glob `a` does not begin", "write `/a`"),
        (format!("version: 1\nkernel: {{oom_group: []}}\n{rest}"), "2:21: the list of globs is empty", "leave the key out"),
        (format!("version: 1\nkernel: {{hold: 3s}}\n{rest}"), "2:16: a hold of `3s` is out of range", "1ms to 2s, such as `500ms`"),
        (format!("version: 1\nkernel: {{hold: 0ms}}\n{rest}"), "2:16: a hold of `0ms` is out of range", "hold_ms"),
        (format!("version: 1\nkernel: {{hold: 1.5ms}}\n{rest}"), "2:16: `1.5ms` is finer than the kernel module counts", "`500ms`"),
        (format!("version: 1\nkernel: {{hold: 500}}\n{rest}"), "2:16: `500` has no unit", "write 500ms or 500s"),
        (format!("version: 1\nkernel: {{hold: [500ms]}}\n{rest}"), "2:16: a single value is expected here, not a list", "`150ms`"),
        (
            format!("version: 1\nsystemd: {{oomd_xattrs: no}}\n{rest}"),
            "2:24: `oomd_xattrs` is `true` or `false`",
            "write `oomd_xattrs: false`",
        ),
        (
            format!("version: 1\nsystemd: {{oomd_xattr: false}}\n{rest}"),
            "2:11: unknown key `oomd_xattr` in `systemd`",
            "did you mean `oomd_xattrs`?",
        ),
        (format!("version: 1\nsystemd: false\n{rest}"), "2:10: `systemd` is a mapping with keys", "write `oomd_xattrs: ...`"),
        (format!("version: 1\nkernel: {{holt: 500ms}}\n{rest}"), "2:10: unknown key `holt` in `kernel`", "did you mean `hold`?"),
        (format!("version: 1\nlimits: {{}}\n{rest}"), "2:9: `limits` sets no limit", "`limits: {kills: 5 per 10m, node: 20 per 10m}`"),
        (format!("version: 1\nlimits: {{node: 20}}\n{rest}"), "2:16: `20` is no limit of kills", "`5 per 10m`"),
        (format!("version: 1\nlimits: {{nodes: 5 per 10m}}\n{rest}"), "2:10: unknown key `nodes` in `limits`", "did you mean `node`?"),
        (format!("version: 1\nkill_one_in: a\n{rest}"), "2:14: the glob `a` does not begin", "write `/a`"),
        (format!("version: 1\nkill_one_in: []\n{rest}"), "2:14: the list of globs is empty", "leave the key out"),
        (format!("version: 1\nkill_one: /a\n{rest}"), "2:1: unknown key `kill_one`", "did you mean `kill_one_in`?"),
        (format!("version: 1\nlimits: {{kills: 5}}\n{rest}"), "2:17: `5` is no limit of kills", "`5 per 10m`"),
        (format!("version: 1\nlimits: {{kills: 5 per 10}}\n{rest}"), "2:17: `10` has no unit", "write 10ms or 10s"),
        (format!("version: 1\nlimits: {{kills: 5 in 10m}}\n{rest}"), "2:17: `5 in 10m` is no limit of kills", "`5 per 10m`"),
        (format!("version: 1\nlimits: {{kills: 101 per 10m}}\n{rest}"), "2:17: `101` kills can't be a limit", "1 to 100"),
        (format!("version: 1\nlimits: {{kills: 05 per 10m}}\n{rest}"), "2:17: `05` kills can't be a limit", "1 to 100"),
        (format!("version: 1\nlimits: {{kills: 5 per 10ms}}\n{rest}"), "2:17: `10ms` does not fit a limit", "1s to 24h"),
        (format!("version: 1\nlimits: {{kill: 5 per 10m}}\n{rest}"), "2:10: unknown key `kill` in `limits`", "did you mean `kills`?"),
        (format!("version: 1\nexclude: /a\n{rest}"), "2:10: `exclude` is a list, not `/a`", "`- `"),
    ] {
        refused(&text, &[(start, hint)]);
    }
}

#[test]
fn keys_of_later_versions() {
    let later = |at: &str, key: &str| (format!("{at}: `{key}` is not supported by this version"), "leave it out");
    for (text, at, key) in [
        ("version: 1\ntenants: []\n".to_owned(), "2:1", "tenants"),
        ("version: 1\nkubernetes: {}\n".to_owned(), "2:1", "kubernetes"),
        ("version: 1\nexclude:\n  - kubernetes: {priority_class: x}\n".to_owned(), "3:5", "kubernetes"),
        (rule_text("watch: /a\nwhen: [event: oom]\nvictim: {among: {kubernetes: {unit: pod}}}"), "6:22", "kubernetes"),
        (rule_text("watch: /a\nwhen: [event: oom]\nvictim: {among: /b, rank: [qos]}"), "6:32", "qos"),
        (rule_text("watch: /a\nwhen: [event: oom]\nvictim: {among: /b, rank: [over_request]}"), "6:32", "over_request"),
        (rule_text("watch: /a\nwhen: [event: oom]\nvictim: {among: /b, rank: [pod_priority]}"), "6:32", "pod_priority"),
    ] {
        let (start, hint) = later(at, key);
        refused(&text, &[(&start, hint)]);
    }
}

#[test]
fn errors_of_exclusions_and_importance() {
    let exclude = |entry: &str| format!("version: 1\nexclude:\n  - {entry}\n");
    for (entry, start, hint) in [
        ("5", "3:5: a glob is expected here, not the number `5`", "begins with `/`"),
        ("sshd.service", "3:5: the glob `sshd.service` does not begin with `/`", "`/sshd.service`"),
        ("{comm: postgres}", "3:5: `group` is missing in an exclusion", "any process can take any name"),
        ("{}", "3:5: `group` is missing in an exclusion", "what must live"),
        ("{group: /a, comm: 1234567890123456}", "3:23: a process's name is expected here, not the number", "\"1234567890123456\""),
        ("{group: /a, comm: abcdefghijklmnop}", "3:23: the comm `abcdefghijklmnop` is longer than 15 bytes", "exclude the group"),
        ("{group: /a, comm: []}", "3:23: a process's name is expected here, not a list", "single word"),
        ("{group: {a: b}}", "3:13: a glob is expected here, not a mapping", "single quotes"),
        ("{group: /a, com: x}", "3:17: unknown key `com` in an exclusion", "did you mean `comm`?"),
        ("{group: /a/{b,c}}", "3:16: not YAML: an unquoted glob with a brace", "'/a/{b,c}'"),
        ("*.service", "3:5: not YAML: `*` at the start", "'/*'"),
        ("[/a]", "3:5: a glob is expected here, not a list", "single quotes"),
    ] {
        refused(&exclude(entry), &[(start, hint)]);
    }
    let importance = |entry: &str| format!("version: 1\nimportance:\n  - {entry}\n");
    for (entry, start, hint) in [
        ("/a", "3:5: a line of importance is a mapping with keys, not `/a`", "`group: ...`, `value: ...`"),
        ("{group: /a}", "3:5: `value` is missing in a line of importance", "lowest dies first"),
        ("{value: 1}", "3:5: `group` is missing in a line of importance", "path or glob"),
        ("{group: /a, value: high}", "3:24: a value of importance is a whole number, not `high`", "-100"),
        ("{group: /a, value: 1.5}", "3:24: a value of importance is a whole number, not the number `1.5`", "-100"),
        ("{group: /a, value: 99999999999999999999}", "3:24: a value of importance is a whole number", "-100"),
    ] {
        refused(&importance(entry), &[(start, hint)]);
    }
}

#[test]
fn errors_of_rules() {
    for (lines, start, hint) in [
        ("when: [event: oom]", "3:5: `watch` is missing in a rule", "`/` is the node"),
        ("watch: /a", "3:5: `when` is missing in a rule", "psi: full 100ms/500ms"),
        ("watch: /a\nwhen: []", "5:11: `when` is empty", "psi: full"),
        ("watch: /a\nwhen: {event: oom}", "5:11: `when` is a list, not a mapping", "`- `"),
        ("watch: /a\nwhen: [event: oom]\nonly_if: []", "6:14: `only_if` is empty", "leave `only_if` out"),
        ("watch: [/a, 5]\nwhen: [event: oom]", "4:17: a glob is expected here, not the number `5`", "`/`"),
        ("watch: {a,b}\nwhen: [event: oom]", "4:12: a glob is expected here, not a mapping", "single quotes"),
        ("watch: /a\nwhen: [event: oom]\nonlyif: []", "6:5: unknown key `onlyif` in a rule", "did you mean `only_if`?"),
        ("watch: /a\nwhen: [event: oom]\nmode: dry", "6:11: the mode is `enforce` or `observe`", "observe"),
        ("watch: /a\nwhen: [event: oom]\ncooldown: 5", "6:15: `5` has no unit", "write 5ms or 5s"),
        ("watch: /a\nwhen: [psi]", "5:12: an entry of `when` is a mapping with keys, not `psi`", "`psi: ...`"),
        ("watch: /a\nwhen: [{}]", "5:12: an entry of `when` is empty", "fill it"),
        ("watch: /a\nwhen: [{psi: full 1s/2s, event: oom}]", "5:37: `event` stands in the same entry as `psi`", "an entry of its own"),
        ("watch: /a\nwhen: [pssi: x]", "5:12: unknown key `pssi` in an entry of `when`", "did you mean `psi`?"),
        ("watch: /a\nwhen: [psi: full 2s/1s]", "5:17: the stall time of `full 2s/1s` does not fit", "at most the window"),
        ("watch: /a\nwhen: [psi: 5]", "5:17: `5` is no PSI term", "full 100ms/500ms"),
        ("watch: /a\nwhen: [psi: ]", "5:15: a single value is expected here, not nothing", "full 100ms/500ms"),
        ("watch: /a\nwhen: [event: oom-kill]", "5:19: unknown event `oom-kill`", "did you mean `oom_kill`?"),
        ("watch: /\nwhen: [lms: critical]", "5:17: unknown level of the kernel module `critical`", "`warn`, `kill`, `oom`"),
        ("watch: /\nwhen: [lms: ok]", "5:17: unknown level of the kernel module `ok`", "`oom`"),
        ("watch: /\nwhen: [lms: {below: 5%}]", "5:17: a single value is expected here, not a mapping", "`kill`"),
        ("watch: /a\nwhen: [event: oom, lms: oom]", "5:24: `lms` tells of the whole node", "write `watch: /`"),
        ("watch: [/, /a]\nwhen: [lms: kill]", "5:12: `lms` tells of the whole node", "a rule of its own"),
        (
            "watch: /\nwhen: [lms: kill]\nonly_if: [lms: kill]",
            "6:15: `lms` starts a judgement, it is no condition",
            "conditions are `usage`, `available`",
        ),
        ("watch: /a\nwhen: [usage: 95%]", "5:19: `usage` has keys, it is not just `95%`", "above: 95%"),
        ("watch: /a\nwhen: [usage: {of: max}]", "5:19: `above` is missing in `usage`", "above: 95%"),
        ("watch: /a\nwhen: [usage: {above: 95, of: max}]", "5:27: `95` has no unit", "write 95% or 95MiB"),
        ("watch: /a\nwhen: [usage: {above: 101%}]", "5:27: `101%` is out of range", "at most 100%"),
        ("watch: /a\nwhen: [usage: {above: 95%, of: low}]", "5:36: unknown whole `low`", "`max`, `high`, `node`"),
        ("watch: /a\nwhen: [usage: {above: 1GiB, of: max}]", "5:37: `of` goes with a share", "leave `of` out"),
        ("watch: /a\nwhen: [usage: {above: 95%, for: 1}]", "5:37: `1` has no unit", "1s"),
        ("watch: /\nwhen: [available: 5%]", "5:23: `available` has keys, it is not just `5%`", "`available: {below: 5%}`"),
        ("watch: /\nwhen: [available: {bellow: 5%}]", "5:24: unknown key `bellow`", "`below`"),
        ("watchh: /\nwhen: [event: oom]", "4:5: unknown key `watchh`", "`watch`"),
        ("watch: /\nwhen: [swap_free: {below: 5}]", "5:31: `5` has no unit", "write 5% or 5MiB"),
        ("watch: /\nwhen: [swap_free: {below: {share: 5%}}]", "5:31: `at_most` is missing in `below`", "at_most: 1GiB"),
        ("watch: /\nwhen: [available: {below: {share: 1GiB, at_most: 1GiB}}]", "5:39: `1GiB` is no share", "95%"),
        ("watch: /\nwhen: [available: {below: {share: 5%, at_most: 5%}}]", "5:52: `%` is no unit of memory", "MiB"),
        ("watch: /a\nwhen: [event: oom]\nonly_if: [event: oom]", "6:15: `event` starts a judgement, it is no condition", "under `when`"),
        (
            "watch: /a\nwhen: [event: oom]\nonly_if: [usage: {above: 5%, for: 1s}]",
            "6:39: `for` has no meaning in `only_if`",
            "leave it out",
        ),
        ("watch: /a\nwhen: [event: oom]\nvictim: group", "6:13: a victim is `subject` or a mapping", "victim: subject"),
        ("watch: /a\nwhen: [event: oom]\nvictim: {rank: [age]}", "6:13: `among` is missing in `victim`", "`leaves`"),
        ("watch: /a\nwhen: [event: oom]\nvictim: {among: leafs}", "6:21: the glob `leafs` does not begin", "`/leafs`"),
        ("watch: /a\nwhen: [event: oom]\nvictim: {among: /b, at_least: 16}", "6:35: `16` has no unit", "16MiB"),
        (
            "watch: /a\nwhen: [event: oom]\nvictim: {among: /b, or_largest: yes}",
            "6:37: `or_largest` is `true` or `false`, not `yes`",
            "largest",
        ),
        ("watch: /a\nwhen: [event: oom]\nvictim: {among: /b, rank: []}", "6:31: `rank` has 0 keys", "1 to 4"),
        (
            "watch: /a\nwhen: [event: oom]\nvictim: {among: /b, rank: [age, age]}",
            "6:37: the rank key `age` stands here a second time",
            "take this one out",
        ),
        (
            "watch: /a\nwhen: [event: oom]\nvictim: {among: /b, rank: [usage, swap, age, growth, pressure]}",
            "6:31: `rank` has 5 keys",
            "1 to 4",
        ),
        ("watch: /a\nwhen: [event: oom]\nvictim: {among: /b, rank: [agee]}", "6:32: unknown rank key `agee`", "did you mean `age`?"),
        ("watch: /a\nwhen: [event: oom]\nthen: kill", "6:11: `then` is a list, not `kill`", "`- kill: group`"),
        ("watch: /a\nwhen: [event: oom]\nthen: []", "6:11: the ladder has no `kill` at its end", "`- kill: group`"),
        ("watch: /a\nwhen: [event: oom]\nthen: [term: {wait: 1s}]", "6:11: the ladder has no `kill` at its end", "`- kill: group`"),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [kill]",
            "6:12: an entry of `then` is `term: ...` or `kill: ...`, not `kill`",
            "`- kill: group`",
        ),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [kill: group, term: {wait: 1s}]",
            "6:25: `term` comes after `kill`",
            "`- term: {wait: 3s}`, then",
        ),
        ("watch: /a\nwhen: [event: oom]\nthen: [kill: group, kill: process]", "6:25: a second `kill`", "`- kill: group`"),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [term: {wait: 1s}, term: {wait: 2s}, kill: group]",
            "6:30: a second `term`",
            "the ladder goes",
        ),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [term: {wait: 1s}, warn: {wait: 1s}, kill: group]",
            "6:30: `warn` comes after `term`, which is the harsher one",
            "the ladder goes `- warn",
        ),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [warn: {signal: SIGKILL, wait: 1s}, kill: group]",
            "6:27: `SIGKILL` can't be handled",
            "`SIGUSR1`",
        ),
        ("watch: /a\nwhen: [event: oom]\nthen: [warn: {signal: SIGTERM, wait: 1s}, kill: group]", "6:27: `SIGTERM` is what", "`SIGUSR1`"),
        ("watch: /a\nwhen: [event: oom]\nthen: [warn: {signal: SIGHUP, wait: 1s}, kill: group]", "6:27: `SIGHUP` means", "`SIGUSR1`"),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [warn: {signal: SIGRTMIN+31, wait: 1s}, kill: group]",
            "6:27: `SIGRTMIN+31` is no",
            "0 to 30",
        ),
        ("watch: /a\nwhen: [event: oom]\nthen: [warn: {signal: SIGUSR1}, kill: group]", "6:18: `wait` is missing in `warn`", "free memory"),
        ("watch: /a\nwhen: [event: oom]\nthen: [warn: {wait: 0s}, kill: group]", "6:25: no time to wait", "leave `warn` out"),
        ("watch: /a\nwhen: [event: oom]\nthen: [warn: SIGUSR1, kill: group]", "6:18: `warn` says how", "wait: 1s"),
        ("watch: /a\nwhen: [event: oom]\nthen: [hook: /bin/x, kill: group]", "6:18: `hook` says what to start", "exec: ["),
        ("watch: /a\nwhen: [event: oom]\nthen: [hook: {exec: [/x]}, kill: group]", "6:18: `timeout` is missing in `hook`", "500ms"),
        ("watch: /a\nwhen: [event: oom]\nthen: [hook: {timeout: 1s}, kill: group]", "6:18: `exec` is missing in `hook`", "exec: ["),
        ("watch: /a\nwhen: [event: oom]\nthen: [hook: {exec: /x, timeout: 1s}, kill: group]", "6:25: `exec` is a list", "one by one"),
        ("watch: /a\nwhen: [event: oom]\nthen: [hook: {exec: [], timeout: 1s}, kill: group]", "6:25: `exec` has 0 words", "1 to 64"),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [hook: {exec: [save], timeout: 1s}, kill: group]",
            "6:26: the program `save` has no absolute path",
            "no search path",
        ),
        ("watch: /a\nwhen: [event: oom]\nthen: [hook: {exec: [\"/x\\0y\"], timeout: 1s}, kill: group]", "6:26: `/x", "no NUL"),
        ("watch: /a\nwhen: [event: oom]\nthen: [hook: {exec: [/x, 5], timeout: 1s}, kill: group]", "6:30: a word of the command", "\"5\""),
        ("watch: /a\nwhen: [event: oom]\nthen: [kill: all]", "6:18: unknown thing to kill `all`", "`group`, `process`"),
        (
            "watch: /a\nwhen: [event: oom]\nthen: [term: 3s, kill: group]",
            "6:18: `term` says how long to wait, it is not `3s`",
            "term: {wait: 3s}",
        ),
        ("watch: /a\nwhen: [event: oom]\nthen: [term: {}, kill: group]", "6:18: `wait` is missing in `term`", "end by themselves"),
        ("watch: /a\nwhen: [event: oom]\nthen: [term: {wait: 0s}, kill: group]", "6:25: no time to wait", "leave `term` out"),
        ("watch: /a\nwhen: [event: oom]\nthen: [term: {wait: 3}, kill: group]", "6:25: `3` has no unit", "3s"),
    ] {
        refused(&rule_text(lines), &[(start, hint)]);
    }
    let named = |name: &str| format!("version: 1\nrules:\n  - name: {name}\n    watch: /a\n    when: [event: oom]\n");
    for (name, start, hint) in [
        ("a b", "3:11: `a b` can't be a rule's name", "label of metrics"),
        ("5", "3:11: a name is expected here, not the number `5`", "put it in quotes: \"5\""),
        ("[a]", "3:11: a name is expected here, not a list", "single word"),
        ("", "3:9: a name is expected here, not nothing", "single word"),
    ] {
        refused(&named(name), &[(start, hint)]);
    }
    refused("version: 1\nrules:\n  - watch: /a\n    when: [event: oom]\n", &[("3:5: `name` is missing in a rule", "journal")]);
    refused("version: 1\nrules:\n  - node-low\n", &[("3:5: a rule is a mapping with keys, not `node-low`", "`name: ...`")]);
}

#[test]
fn all_errors_of_a_policy_come_at_once() {
    refused(
        "version: 3\nmode: maybe\nexclude:\n  - a\n  - {comm: x}\nrules:\n  - name: r\n    watch: b\n    when:\n      - psi: full\n      - event: boom\n    \
         victim: {among: c, at_least: 5, rank: [x]}\n    then: [kill: all]\n  - name: r\n    watch: /a\n    when: [event: oom]\nlimits: {kills: 0 per 1m}\n",
        &[
            ("1:10: version 3", ""),
            ("2:7: the mode", ""),
            ("4:5: the glob `a`", ""),
            ("5:5: `group` is missing", ""),
            ("8:12: the glob `b`", ""),
            ("10:14: `full` is no PSI term", ""),
            ("11:16: unknown event `boom`", ""),
            ("12:21: the glob `c`", ""),
            ("12:34: `5` has no unit", ""),
            ("12:44: unknown rank key `x`", ""),
            ("13:18: unknown thing to kill", ""),
            ("14:11: there is a rule `r` already, in a.yaml:7", ""),
            ("17:17: `0` kills can't be a limit", "1 to 100"),
        ],
    );
}
