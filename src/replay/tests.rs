//! Lines made by the journal's own writer, judged again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::lines::{Entry, Problem, each_line, entry};
use super::moment::Would;
use super::report::Report;
use crate::cgroup::path::GroupPath;
use crate::decide::facts::{GroupFacts, GroupId, Limit, MemoryFacts, NodeFacts, ProcessFacts};
use crate::decide::verdict::{Decision, Notice, Verdict};
use crate::decide::{Judge, Step};
use crate::policy::model::{EntrySet, EventKind, Policy, Trigger};
use crate::policy::{Loaded, Source, load};
use crate::record::facts::{MOST_GROUPS, class_of};
use crate::record::journal::{self, Context};
use crate::record::kernel_kill_line as line;
use crate::record::model::{Blank, Outcome};
use crate::record::testing::kernel_kill;

const MIB: u64 = 1 << 20;

const POLICY: &str = r#"
version: 1
exclude:
  - /t/spared
  - {group: "/t/**", comm: postgres}
importance:
  - {group: /t/dear, value: 10}
rules:
  - name: own
    watch: /t/*
    when:
      - psi: full 100ms/500ms
      - event: oom_kill
      - usage: {above: 50%, of: max, for: 1s}
  - name: node
    watch: /
    when:
      - available: {below: 50%, for: 2s}
      - lms: kill
    victim:
      among: ["/t/**"]
      at_least: 4MiB
      rank: [usage within 10%, age]
"#;

fn loaded(text: &str) -> Loaded {
    load(&[Source::new("test.yaml", text)]).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

fn group(policy: &Policy, path: &str, parent: Option<u32>, end: u32, anon: u64) -> GroupFacts {
    GroupFacts {
        id: GroupId(1000 + u64::from(end) + path.len() as u64 * 100),
        path: GroupPath::from_bytes(path.as_bytes()),
        parent,
        subtree_end: end,
        class: class_of(policy, path.as_bytes()),
        own: false,
        has_memory: true,
        threaded: false,
        oom_group: false,
        populated: Some(true),
        dying: false,
        memory: MemoryFacts {
            current: Some(anon + MIB),
            anon: Some(anon),
            shmem: Some(0),
            reclaimable: Some(0),
            outlives: None,
            tmpfs: None,
            slab: None,
            swap: Some(0),
            max: Some(Limit::Unlimited),
            high: Some(Limit::Unlimited),
            low: None,
        },
        growth: None,
        pressure: None,
        age: Some(Duration::from_millis(5)),
        processes: None,
    }
}

/// The tree `/`, `/t`, and these below it.
fn tree(policy: &Policy, groups: &[(&str, u64)]) -> Vec<GroupFacts> {
    let end = u32::try_from(groups.len()).expect("few") + 2;
    let mut facts = vec![group(policy, "/", None, end, 0), group(policy, "/t", Some(0), end, 0)];
    for (at, (name, mib)) in (2..).zip(groups) {
        facts.push(group(policy, &format!("/t/{name}"), Some(1), at + 1, mib * MIB));
    }
    facts
}

fn node() -> NodeFacts {
    NodeFacts { total_bytes: 1000 * MIB, available_bytes: Some(50 * MIB), ..NodeFacts::default() }
}

/// Judges as the daemon does and writes the line that it would write; `None`: it would write none.
fn line(
    policy: &Arc<Policy>,
    rule: usize,
    subject: u32,
    notice: Notice,
    facts: &mut [GroupFacts],
    processes: ProcessFacts,
) -> Option<Value> {
    line_on(&node(), policy, rule, subject, notice, facts, processes)
}

/// The same on another node.
fn line_on(
    node: &NodeFacts,
    policy: &Arc<Policy>,
    rule: usize,
    subject: u32,
    notice: Notice,
    facts: &mut [GroupFacts],
    processes: ProcessFacts,
) -> Option<Value> {
    let (mut judge, mut verdict) = (Judge::default(), Verdict::with_capacity(facts.len()));
    while let Step::NeedProcesses(at) = judge.judge(policy, rule, subject, &notice, node, facts, &[], &mut verdict) {
        facts[at as usize].processes = Some(processes);
    }
    let mut record = Blank::default().slot(facts.len());
    record.fill(SystemTime::UNIX_EPOCH, policy, &Arc::from([]), notice, &verdict, facts);
    if let Decision::Kill(_) = verdict.decision {
        record.outcome = Outcome::Killed;
    }
    let context = Context { node: "n".into(), run: "r".into() };
    record.is_for_the_journal().then(|| serde_json::from_str(&journal::line(&record, &context).expect("a line")).expect("JSON"))
}

fn replayed(policy: &str, text: &str) -> Report {
    let mut report = Report::new(loaded(policy));
    report.read("journal", text.as_bytes()).expect("read");
    report
}

/// A judgement by rule `node` of [`POLICY`], over two groups of which the first dies.
fn node_line() -> String {
    let policy = Arc::new(loaded(POLICY).policy);
    let mut facts = tree(&policy, &[("fat", 300), ("thin", 200), ("spared", 400)]);
    let notice = Notice::Available(500 * MIB, Duration::from_secs(3));
    line(&policy, 1, 0, notice, &mut facts, ProcessFacts { count: 1, ..ProcessFacts::default() }).expect("a line").to_string() + "\n"
}

#[test]
fn the_same_policy_comes_to_the_same() {
    let report = replayed(POLICY, &node_line());
    assert_eq!((report.judgements.len(), report.differing, &report.problems[..]), (1, 0, &[][..]));
    let now = &report.judgements[0].now;
    assert_eq!((now.would, now.victim.as_deref(), now.order()), (Would::Kill, Some("/t/fat"), vec!["/t/fat", "/t/thin"]));
    assert_eq!(now.assumed, [""; 0]);
}

#[test]
fn what_another_policy_would_have_done_is_told_with_its_reason() {
    for (from, to, would, victim, differs) in [
        ("/t/spared\n", "/t/fat\n", Would::Kill, Some("/t/spared"), "victim order"),
        ("{group: /t/dear", "{group: /t/fat", Would::Kill, Some("/t/thin"), "victim order"),
        ("at_least: 4MiB", "at_least: 1GiB", Would::NoVictim, None, "outcome"),
        ("below: 50%, for: 2s", "below: 4%", Would::NotJudged, None, "outcome"),
        ("below: 50%, for: 2s", "below: 50%, for: 4s", Would::NotJudged, None, "outcome"),
        ("below: 50%, for: 2s", "below: 20%", Would::Kill, Some("/t/fat"), ""),
        ("  - name: node\n", "  - name: node\n    mode: observe\n", Would::Observe, Some("/t/fat"), "outcome"),
        ("  - name: node\n", "  - name: renamed\n", Would::Kill, Some("/t/fat"), ""),
        ("    victim:", "    only_if: [available: {below: 1MiB}]\n    victim:", Would::NotConfirmed, None, "outcome"),
        ("within 10%, age", "within 50%, age", Would::Kill, Some("/t/fat"), ""),
    ] {
        let other = POLICY.replace(from, to);
        assert_ne!(other, POLICY, "{from}");
        let report = replayed(&other, &node_line());
        assert_eq!(report.problems, [], "{to}");
        let judgement = &report.judgements[0];
        let found: Vec<&str> = judgement.differs.iter().map(|difference| difference.word()).collect();
        assert_eq!((judgement.now.would, judgement.now.victim.as_deref(), &*found.join(" ")), (would, victim, differs), "{to}");
        let text = anstream::adapter::strip_str(&report.text(false)).to_string();
        assert_eq!(text.contains("journal:1  1970-01-01T00:00:00Z"), !differs.is_empty(), "{text}");
    }
}

#[test]
fn what_was_not_recorded_is_named_where_a_verdict_takes_it_for_ordinary() {
    // Nobody had to look at the processes of the thin one.
    let other = POLICY.replace("{group: /t/dear", "{group: /t/fat");
    let report = replayed(&other, &node_line());
    assert_eq!(report.judgements[0].now.assumed, ["processes of /t/thin"]);
    // And nobody was asked for this name.
    let other = POLICY.replace("comm: postgres", "comm: mysqld");
    assert_eq!(replayed(&other, &node_line()).judgements[0].now.assumed, ["names of processes in /t/fat"]);
}

#[test]
fn a_name_that_was_asked_for_spares_its_group_again() {
    let policy = Arc::new(loaded(POLICY).policy);
    let mut hits = EntrySet::EMPTY;
    hits.insert(1);
    let processes = ProcessFacts { count: 1, comm_hits: hits, ..ProcessFacts::default() };
    let notice = Notice::Event(EventKind::OomKill, 0, 1);
    let line = line(&policy, 0, 2, notice, &mut tree(&policy, &[("fat", 300)]), processes).expect("a line");
    assert_eq!((&line["outcome"], &line["candidates"][0]["strike"]), (&json!("no_victim"), &json!("excluded_by_comm")));
    let groups = line["facts"]["groups"].as_array().expect("a list");
    let fat = groups.iter().find(|group| group["group"] == "/t/fat").expect("the subject");
    assert_eq!(fat["processes"]["comms"], json!({"postgres": true}));
    let report = replayed(POLICY, &line.to_string());
    assert_eq!((report.differing, report.judgements[0].now.would), (0, Would::NoVictim));
    let report = replayed(&POLICY.replace("  - {group: \"/t/**\", comm: postgres}\n", ""), &line.to_string());
    assert_eq!((report.differing, report.judgements[0].now.would), (1, Would::Kill));
}

#[test]
fn who_was_tried_in_vain_is_not_tried_again() {
    let policy = Arc::new(loaded(POLICY).policy);
    let mut facts = tree(&policy, &[("fat", 300)]);
    let notice = Notice::Available(500 * MIB, Duration::from_secs(3));
    let line = line(&policy, 1, 0, notice, &mut facts, ProcessFacts::default()).expect("a line").to_string();
    // The ladder could not kill it, and there was no other: it stays named as the victim.
    let failed =
        line.replace(r#""outcome":"killed""#, r#""outcome":"failed""#).replace(r#""rank":1,"#, r#""rank":null,"strike":"failed","#);
    assert!(failed.contains(r#""victim":"/t/fat""#), "{failed}");
    let report = replayed(POLICY, &failed);
    assert_eq!((report.judgements[0].now.would, report.differing), (Would::NoVictim, 0), "{:?}", report.judgements[0].differs);
}

#[test]
fn a_level_that_no_kill_could_lift_is_judged_again_as_such() {
    let policy = Arc::new(loaded(POLICY).policy);
    let mut facts = tree(&policy, &[("fat", 300), ("thin", 20)]);
    facts.iter_mut().for_each(|group| group.memory.outlives = Some(0));
    // 450 are missing.
    let notice = Notice::Available(500 * MIB, Duration::from_secs(3));
    let line = line(&policy, 1, 0, notice, &mut facts, ProcessFacts::default()).expect("a line");
    let evidence = &line["evidence"];
    assert_eq!((&line["outcome"], &line["candidates"][0]["strike"]), (&json!("no_victim"), &json!("in_vain")));
    assert_eq!((&evidence["missing_bytes"], &evidence["could_free_bytes"]), (&json!(450 * MIB), &json!(322 * MIB)));
    let report = replayed(POLICY, &line.to_string());
    assert_eq!((report.judgements[0].now.would, report.differing), (Would::NoVictim, 0));
    // A lower level could have been lifted; who asks for the largest gets it.
    for (from, to) in [("below: 50%, for: 2s", "below: 30%"), ("at_least: 4MiB", "at_least: 4MiB\n      or_largest: true")] {
        let report = replayed(&POLICY.replace(from, to), &line.to_string());
        assert_eq!((report.judgements[0].now.would, report.judgements[0].now.victim.as_deref()), (Would::Kill, Some("/t/fat")), "{to}");
    }
}

#[test]
fn a_line_that_names_easy_file_cache_is_still_read() {
    let line: Value = serde_json::from_str(&node_line()).expect("JSON");
    assert!(line["facts"]["groups"][1].get("reclaimable_bytes").is_some(), "{line}");
    let old = line.to_string().replace("reclaimable_bytes", "easy_file_bytes");
    let Ok(Entry::Judgement(read)) = entry(old.as_bytes()) else { panic!("no judgement") };
    assert_eq!(read.facts.expect("facts").groups[1].reclaimable_bytes, Some(0));
}

#[test]
fn a_run_that_only_observes_is_no_difference_of_policies() {
    let observed = node_line().replace(r#""outcome":"killed""#, r#""outcome":"observed""#);
    assert_eq!(replayed(POLICY, &observed).differing, 0);
    assert_eq!(replayed(&format!("{POLICY}# other\n"), &observed).differing, 1, "another policy that acts is one");
}

#[test]
fn groups_without_room_are_counted_and_the_verdict_stands() {
    let policy = Arc::new(loaded(POLICY).policy);
    let names: Vec<String> = (0..400).map(|at| format!("g{at:03}")).collect();
    let groups: Vec<(&str, u64)> = names.iter().zip(0..).map(|(name, at)| (&**name, 10 + at)).collect();
    let notice = Notice::Available(500 * MIB, Duration::from_secs(3));
    let line = line(&policy, 1, 0, notice, &mut tree(&policy, &groups), ProcessFacts::default()).expect("a line");
    assert_eq!(line["facts"]["groups"].as_array().expect("a list").len(), MOST_GROUPS);
    assert_eq!(line["facts"]["left_out"], json!(400 + 1 - MOST_GROUPS), "the root is the subject, /t is looked at by no one");
    assert!(line.to_string().len() < 200_000, "{}", line.to_string().len());
    let report = replayed(POLICY, &line.to_string());
    assert_eq!((report.differing, &report.problems[..]), (0, &[][..]), "{:?}", report.judgements[0].differs);
    assert!(report.judgements[0].now.assumed[0].contains("145 groups"), "{:?}", report.judgements[0].now.assumed);
}

#[test]
fn lines_that_cannot_be_used_are_named_and_the_others_judged() {
    let good = node_line();
    let text = [
        good.clone(),
        "{\"v\":1,\"kind\":\"jud\n".into(),
        "\n".into(),
        "[1,2]\n".into(),
        "{\"a\":1}\n".into(),
        "{\"v\":2,\"kind\":\"judgement\"}\n".into(),
        line::json(&kernel_kill(), 1, &Context { node: "n".into(), run: "r".into() }).expect("a line") + "\n",
        "{\"v\":1,\"kind\":\"of_tomorrow\"}\n".into(),
        "{\"v\":1,\"kind\":\"judgement\",\"subject\":\"/\"}\n".into(),
        good.replace("\"group\":\"/t/fat\",\"high_bytes\"", "\"group\":\"t\",\"high_bytes\""),
        good.replace("\"notice\":\"available\"", "\"notice\":\"tea\""),
        good.clone(),
        good[..40].to_owned(),
    ]
    .concat();
    let report = replayed(POLICY, &text);
    assert_eq!((report.judgements.len(), report.kernel_oom.len(), report.passed_over), (2, 1, 1));
    assert_eq!(report.kernel_oom[0].group.as_deref(), Some("/a"));
    let problems: Vec<(&str, &str)> =
        report.problems.iter().map(|bad| (&*bad.place, bad.message.split(':').next().unwrap_or_default())).collect();
    let foreign = "not a line of a journal or a recording";
    assert_eq!(
        problems,
        [
            ("journal:2", foreign),
            ("journal:4", foreign),
            ("journal:5", foreign),
            ("journal:6", "version 2, and this oomwarden reads version 1"),
            ("journal:9", "a judgement without `facts`"),
            ("journal:10", "`t` is no path of a group"),
            ("journal:11", "its `evidence` does not say what started it"),
            ("journal:13", "half a line"),
        ]
    );
}

#[test]
fn a_line_without_end_is_not_kept_in_memory() {
    let long = std::io::repeat(b'x');
    let mut found = Vec::new();
    let text = std::io::Read::chain(std::io::Read::take(long, 40 << 20), &b"\n{}\n"[..]);
    each_line(std::io::BufReader::new(text), |number, entry| found.push((number, entry.err()))).expect("read");
    assert_eq!(found[0], (1, Some(Problem::Long)));
    assert!(matches!(found[1], (2, Some(Problem::Foreign(_)))), "{found:?}");
}

#[test]
fn names_in_a_foreign_file_obey_nobody() {
    let hostile = node_line().replace("\"subject\":\"/\"", "\"subject\":\"/\",\"rule\":\"a\\u001b[2Jb\\nc\"");
    let report = replayed(POLICY, &hostile.replacen("\"rule\":\"node\"", "\"x\":1", 1));
    assert_eq!(report.judgements[0].recorded.as_ref().expect("recorded").rule, "a\\x1b[2Jb\\x0ac");
}

/// Moments: seconds, full stall in milliseconds, oom_kill of `/t/a/b`, available MiB.
fn moments(list: &[(u64, u64, u64, u64)]) -> String {
    let line = |(second, stall, kills, available): &(u64, u64, u64, u64)| {
        json!({"v": 1, "kind": "sample", "time": format!("2023-11-14T22:13:{second:02}.000000Z"), "run": "r", "at_us": second * 1_000_000,
        "evidence": {"node_total_bytes": 1000 * MIB, "node_available_bytes": available * MIB},
        "facts": {"groups": [
            {"group": "/", "id": 1},
            {"group": "/t", "id": 2, "populated": true},
            {"group": "/t/a", "id": 3, "populated": true, "anon_bytes": 9 * MIB, "swap_bytes": 0,
                "psi": {"some_us": stall * 1000, "full_us": stall * 1000}, "processes": {"count": 1, "comms_complete": true}},
            {"group": "/t/a/b", "id": 4, "populated": true, "anon_bytes": 5 * MIB, "swap_bytes": 0,
                "events": {"oom_kill": kills}, "processes": {"count": 1, "comms_complete": true}},
        ]}})
        .to_string()
            + "\n"
    };
    list.iter().map(line).collect()
}

fn spans(policy: &str, list: &[(u64, u64, u64, u64)]) -> Vec<(String, String, usize, Option<String>)> {
    let report = replayed(policy, &moments(list));
    assert_eq!((report.moments, &report.problems[..]), (list.len(), &[][..]));
    let told = |judgement: super::report::Judgement| {
        let until = judgement.until.expect("a moment");
        (
            judgement.time[17..19].to_owned() + "-" + &until[17..19],
            judgement.trigger,
            judgement.moments.expect("some"),
            judgement.now.victim,
        )
    };
    report.judgements.into_iter().map(told).collect()
}

#[test]
fn a_recording_is_judged_by_what_happened_between_its_moments() {
    let a = || Some("/t/a".to_owned());
    let psi = || "psi: full 100ms/500ms".to_owned();
    // 50 ms of stall are not enough; 100 ms twice are one verdict; then nothing; then one more.
    let stall = [(0, 0, 0, 900), (1, 50, 0, 900), (2, 150, 0, 900), (3, 260, 0, 900), (4, 260, 0, 900), (5, 400, 0, 900)];
    assert_eq!(spans(POLICY, &stall), [("02-03".into(), psi(), 2, a()), ("05-05".into(), psi(), 1, a())]);
    // An OOM kill below a subject is the subject's; what was counted before the recording began is nobody's.
    let kill = [(0, 0, 7, 900), (1, 0, 7, 900), (2, 0, 8, 900)];
    assert_eq!(spans(POLICY, &kill), [("02-02".into(), "event: oom_kill".into(), 1, a())]);
    // A level has to last.
    let low = [(0, 0, 0, 900), (1, 0, 0, 400), (2, 0, 0, 400), (3, 0, 0, 400), (4, 0, 0, 900), (5, 0, 0, 400)];
    assert_eq!(spans(POLICY, &low), [("03-03".into(), "available: below 50% for 2s".into(), 1, Some("/t/a/b".to_owned()))]);
    // A recording that begins anew in the same file is another one.
    let again = [(5, 0, 7, 900), (1, 900, 9, 900), (2, 900, 9, 900)];
    assert_eq!(spans(POLICY, &again), []);
}

#[test]
fn what_is_taken_can_be_asked_by_any_policy() {
    use crate::preview::testing::{Sleeper, StandIn, asked};
    let (sleeper, stand_in) = (Sleeper::start(), StandIn::new());
    stand_in.group("", 0).group("t", 0).group("t/a", 64 * MIB).group("t/b", 32 * MIB);
    stand_in.file("t/a", "cgroup.procs", &format!("{}\n", sleeper.pid()));
    stand_in.file("t/a", "memory.pressure", "some avg10=0 avg60=0 avg300=0 total=9\nfull avg10=0 avg60=0 avg300=0 total=7\n");
    stand_in.file("t/a", "memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 3\n");
    stand_in.file("t/a", "memory.low", "1048576\n");
    let everything = super::taking::everything().expect("a sound policy");
    let mut onlooker = stand_in.look(&asked("rules: []"), None);
    onlooker.tree.reclass(&std::sync::Arc::new(everything.policy.clone()));
    let span = super::taking::Span { lasting: Duration::from_millis(40), interval: Duration::from_millis(20) };
    let mut out = Vec::new();
    let taken = super::taking::take(&mut onlooker, &everything, span, &mut out).expect("written");
    let text = String::from_utf8(out).expect("text");
    assert!((2..=3).contains(&taken.moments), "{taken:?}");
    assert_eq!((taken.groups, taken.bytes, text.lines().count()), (4, text.len() as u64, taken.moments));
    let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let groups = first["facts"]["groups"].as_array().expect("a list");
    let a = groups.iter().find(|group| group["group"] == "/t/a").expect("the group");
    assert_eq!(
        (&a["anon_bytes"], &a["swap_bytes"], &a["low_bytes"], &a["max_bytes"]),
        (&json!(64 * MIB), &json!(0), &json!(MIB), &json!("max"))
    );
    assert_eq!((&a["psi"]["full_us"], &a["events"]["oom_kill"]), (&json!(7), &json!(3)));
    assert_eq!((&a["processes"]["comms"], &a["processes"]["comms_complete"]), (&json!({"sleep": true}), &json!(true)));
    let always = "version: 1\nrules:\n  - name: always\n    watch: /\n    when:\n      - usage: {above: 1B}\n    victim: {among: /t/*}\n";
    let report = replayed(always, &text);
    assert_eq!((report.judgements.len(), report.judgements[0].now.victim.as_deref()), (1, Some("/t/a")), "{:?}", report.judgements);
    let spares = format!("{always}exclude:\n  - {{group: /t/*, comm: sleep}}\n");
    let report = replayed(&spares, &text);
    assert_eq!(report.judgements[0].now.victim.as_deref(), Some("/t/b"));
    assert_eq!(report.judgements[0].now.assumed, [""; 0], "every name is in the recording");
}

fn memory() -> impl Strategy<Value = MemoryFacts> {
    let bytes = || prop::option::weighted(0.9, 0..20_u64).prop_map(|mib| mib.map(|mib| mib * MIB));
    let limit = || prop::option::weighted(0.9, prop_oneof![Just(Limit::Unlimited), (1..30_u64).prop_map(|mib| Limit::Bytes(mib * MIB))]);
    (bytes(), bytes(), bytes(), bytes(), bytes(), limit(), limit()).prop_map(|(current, anon, reclaimable, outlives, swap, max, high)| {
        MemoryFacts {
            current,
            anon,
            shmem: None,
            reclaimable,
            outlives,
            tmpfs: outlives.map(|bytes| bytes / 2),
            slab: None,
            swap,
            max,
            high,
            low: None,
        }
    })
}

/// What one group is: its memory, what is odd of it, and how deep it stands below the one before it.
type Odds = (MemoryFacts, u8, usize, ProcessFacts);

fn odds() -> impl Strategy<Value = Odds> {
    let processes = (0..40_u8).prop_map(|odd| ProcessFacts {
        count: 1,
        has_init: odd == 0,
        has_unkillable: odd == 1,
        has_unknown: odd == 2,
        has_shielded: odd >= 20,
        comm_hits: if odd == 3 {
            let mut hits = EntrySet::EMPTY;
            hits.insert(1);
            hits
        } else {
            EntrySet::EMPTY
        },
        oom_score: None,
    });
    (memory(), 0..60_u8, 0..4_usize, processes)
}

/// A tree of groups below /t, each a child of the one before it or of one above that.
fn odd_tree(policy: &Policy, odds: &[Odds]) -> Vec<GroupFacts> {
    let mut facts = vec![group(policy, "/", None, 1, 0), group(policy, "/t", Some(0), 2, 0)];
    let mut line = vec![1_u32];
    for (at, (memory, odd, up, _)) in (2..).zip(odds) {
        for _ in 0..*up {
            if line.len() > 1 {
                line.pop();
            }
        }
        let parent = *line.last().expect("never empty");
        let name = ["fat", "thin", "spared", "dear"].get(usize::from(*odd)).map_or_else(|| format!("g{at}"), |name| format!("{name}{at}"));
        // Some have the very name that the policy speaks of.
        let name = if *odd == 4 && parent == 1 { "spared".to_owned() } else { name };
        let path = format!("{}/{name}", facts[parent as usize].path);
        let mut new = group(policy, &path, Some(parent), at + 1, 0);
        new.id = GroupId(u64::from(at));
        new.memory = *memory;
        new.oom_group = *odd == 5;
        new.dying = *odd == 6;
        new.own = *odd == 7;
        new.populated = [None, Some(false)].get(usize::from(odd.wrapping_sub(8))).copied().unwrap_or(Some(true));
        new.threaded = *odd == 10;
        facts.push(new);
        line.push(at);
    }
    for at in (1..facts.len()).rev() {
        let (end, parent) = (facts[at].subtree_end, facts[at].parent.expect("below the root") as usize);
        facts[parent].subtree_end = facts[parent].subtree_end.max(end);
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::cases(150)))]

    /// Whatever the tree: the line holds what the same policy needs to come to the same verdict, order and all.
    #[test]
    fn a_line_of_the_journal_is_enough_to_judge_again(
        odds in prop::collection::vec(odds(), 1..14), at in 0..14_usize, node_rule: bool, missing in 1..120_u64
    ) {
        let policy = Arc::new(loaded(POLICY).policy);
        let mut facts = odd_tree(&policy, &odds);
        let (rule, subject, notice) = if node_rule {
            (1, 0, Notice::Available(500 * MIB, Duration::from_secs(3)))
        } else {
            let subjects: Vec<u32> = (0..).zip(&facts).filter(|(_, group)| group.class.subject_of.contains(0)).map(|(at, _)| at).collect();
            let Trigger::Psi(psi) = policy.rules[0].when[0] else { panic!("the first trigger") };
            let Trigger::Usage(test, held) = policy.rules[0].when[2] else { panic!("the third trigger") };
            let notices = [Notice::Psi(psi), Notice::Event(EventKind::OomKill, 1, 2), Notice::Usage(test, held)];
            (0, subjects[at % subjects.len()], notices[at % 3])
        };
        let processes = odds[at % odds.len()].3;
        // So much is missing below the level of half of the memory.
        let node = NodeFacts { available_bytes: Some((500 - missing) * MIB), ..node() };
        if let Some(line) = line_on(&node, &policy, rule, subject, notice, &mut facts, processes) {
            let report = replayed(POLICY, &line.to_string());
            prop_assert!(report.problems.is_empty(), "{:?}", report.problems);
            let judgement = &report.judgements[0];
            prop_assert!(judgement.differs.is_empty(), "{:?} {:?}\n{line}", judgement.differs, judgement.now);
            prop_assert!(judgement.now.assumed.is_empty(), "{:?}", judgement.now.assumed);
        }
    }

    #[test]
    fn any_bytes_are_read_to_their_end(bytes: Vec<u8>) {
        let mut report = Report::new(loaded(POLICY));
        prop_assert!(report.read("any", &bytes[..]).is_ok());
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        prop_assert_eq!(report.problems.len(), lines);
    }

    /// Sound lines with one byte changed, or cut off: judged, or named as a problem; never both, never a panic.
    #[test]
    fn a_damaged_line_is_judged_or_named(at: prop::sample::Index, byte: u8, cut: bool, sample: bool) {
        let mut bytes = if sample { moments(&[(0, 0, 0, 900)]) } else { node_line() }.into_bytes();
        let at = at.index(bytes.len() - 1);
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let mut report = Report::new(loaded(POLICY));
        prop_assert!(report.read("any", &bytes[..]).is_ok());
        let text = report.text(true);
        prop_assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c as u32 == 27), "{}", text);
        let used = report.judgements.len() + report.moments + report.kernel_oom.len() + report.passed_over;
        prop_assert!(used + report.problems.len() <= 2);
        prop_assert!(used + report.problems.len() > 0 || bytes.trim_ascii().is_empty());
    }

    /// Facts that make no sense: huge numbers, groups in any order, more than once, or without those above them.
    #[test]
    fn senseless_facts_are_judged_without_harm(groups in prop::collection::vec(("(/|(/t)?(/[ab]){0,4}/?)", any::<u64>(), any::<Option<bool>>()), 0..12)) {
        let groups: Vec<Value> = groups
            .into_iter()
            .map(|(path, number, populated)| {
                let path = if path.is_empty() { "/".to_owned() } else { path };
                json!({"group": path, "id": number, "populated": populated, "anon_bytes": number, "swap_bytes": number, "current_bytes": number,
                    "max_bytes": number, "age_ms": number, "pressure_us": number, "growth_bytes": i64::MIN})
            })
            .collect();
        let line = json!({"v": 1, "kind": "judgement", "rule": "node", "subject": "/", "victim": "/t/a", "facts": {"groups": groups},
            "evidence": {"notice": "available", "level_bytes": u64::MAX, "held_us": u64::MAX, "node_total_bytes": u64::MAX, "node_available_bytes": 0}});
        let judged = entry(line.to_string().as_bytes());
        prop_assert!(matches!(judged, Ok(Entry::Judgement(_))), "{judged:?}");
        let report = replayed(POLICY, &line.to_string());
        prop_assert_eq!(report.judgements.len(), 1);
    }
}
