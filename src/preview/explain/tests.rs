//! Explanations by name alone, and on stand-in trees.

use proptest::prelude::*;

use super::super::testing::{Sleeper, StandIn, asked, plain};
use super::*;

const MIB: u64 = 1 << 20;

const POLICY: &str = "
exclude:
  - /s/ssh
  - {group: [/other, /t/*], comm: sleep}
  - /t/web/keep
importance:
  - {group: /t/web, value: 7}
  - {group: /t, value: -3}
rules:
  - {name: subject, watch: /t/*, when: [event: oom_kill]}
  - {name: among, watch: /, when: [event: oom_kill], mode: observe, victim: {among: [/s/**, /t/*]}}
  - {name: leaves, watch: /t, when: [event: oom_kill], victim: {among: leaves}}
kernel: {oom_group: [/x, /t/*]}
";

fn by_name(policy: &str, path: &str) -> Explanation {
    explain(&asked(policy), &GroupPath::from_bytes(path.as_bytes()), None)
}

/// `rule: watches / victim`, each as glob and what it matched.
fn relations(explanation: &Explanation) -> Vec<String> {
    let cover = |cover: Option<&Cover>| cover.map_or("-".to_owned(), |cover| format!("{}={}", cover.glob, cover.matched));
    let one = |rule: &RuleRelation| {
        let by = rule.victim.as_ref().map_or("nobody", |victim| victim.by);
        format!("{}: {} {by} {}", rule.rule, cover(rule.watches.as_ref()), cover(rule.victim.as_ref().map(|victim| &victim.cover)))
    };
    explanation.rules.iter().map(one).collect()
}

#[test]
fn what_follows_from_a_name() {
    let web = by_name(POLICY, "/t/web");
    assert_eq!((web.exists, web.numbers.is_some()), (None, false));
    assert_eq!(web.importance.value, 7);
    let from = web.importance.from.as_ref().unwrap();
    assert_eq!((from.place.as_ref().unwrap().to_string(), from.inherited), ("test.yaml:8".into(), false));
    assert_eq!(relations(&web), ["subject: /t/*=/t/web subject /t/*=/t/web", "among: /=/ among /t/*=/t/web", "leaves: /t=/t leaves /t=/t"]);
    let exclusion = &web.exclusions[0];
    assert_eq!((exclusion.cover.glob.as_str(), exclusion.comm.as_deref(), exclusion.applies), ("/t/*", Some("sleep"), None));
    assert_eq!(web.oom_group.as_ref().map(|cover| &*cover.glob), Some("/t/*"));

    let below = by_name(POLICY, "/t/web/a/b");
    let from = below.importance.from.as_ref().unwrap();
    assert_eq!((below.importance.value, from.inherited, &*from.matched), (7, true, "/t/web"));
    assert_eq!(below.oom_group, None, "not inherited");
    // As the daemon has it: an exclusion with a comm counts whoever runs there, and one that names
    // a group below counts before that is there.
    let spared = |exclude: &str, path: &str| {
        by_name(&format!("rules: []\nkernel: {{oom_group: /**}}\nexclude: [{exclude}]\n"), path).oom_group_spared
    };
    assert!(spared("/t/a", "/t/a") && spared("/t/a", "/t") && spared("/t/a", "/t/a/b") && spared("{group: /t/a, comm: x}", "/t/a"));
    assert!(!spared("/t/a", "/t/b") && !spared("/t/a", "/u"));
    let spared_for_one = |glob: &str, path: &str| {
        by_name(&format!("rules: []\nkernel: {{oom_group: /**}}\nkill_one_in: \"{glob}\"\n"), path).oom_group_spared
    };
    assert!(["/t/a", "/t", "/t/a/b"].iter().all(|path| spared_for_one("/t/a", path)) && spared_for_one("/t/*", "/t"));
    assert!(!spared_for_one("/t/a", "/t/b") && !spared_for_one("/t/a", "/u"));
    assert_eq!(relations(&below)[0], "subject: /t/*=/t/web subject /t/*=/t/web");
    let text = plain(&below.text());
    assert!(text.starts_with("/t/web/a/b  explained by its name alone\n  may be killed by subject with /t/web, among (which only observes) with /t/web, leaves\n"), "{text}");
    assert!(text.contains("importance  7        test.yaml:8: /t/web, inherited from /t/web\n"), "{text}");
    assert!(
        text.contains("excluded    perhaps  test.yaml:5: /t/*, inherited from /t/web, while it holds a process named sleep\n"),
        "{text}"
    );

    let ssh = by_name(POLICY, "/s/ssh/session");
    assert_eq!(ssh.exclusions.len(), 1);
    assert_eq!((ssh.exclusions[0].applies, ssh.exclusions[0].cover.inherited), (Some(true), true));
    assert!(plain(&ssh.text()).contains("\n  never a victim: excluded by /s/ssh (test.yaml:4)\n"), "{}", plain(&ssh.text()));

    let stranger = by_name(POLICY, "/u/v");
    assert_eq!((stranger.importance.value, stranger.importance.from.is_some()), (0, false));
    assert_eq!(relations(&stranger), ["among: /=/ nobody -"]);
    assert!(plain(&stranger.text()).contains("\n  no rule can make it a victim\n"));
    assert!(plain(&by_name(POLICY, "/").text()).contains("\n  never a victim: the root\n"));
}

#[test]
fn a_group_that_is_not_there_may_be_another() {
    let service = by_name(POLICY, "/ssh.service");
    assert_eq!(service.perhaps, ["/system.slice/ssh.service"]);
    let text = plain(&service.text());
    assert!(text.starts_with("/ssh.service  explained by its name alone\n  perhaps /system.slice/ssh.service is meant\n"), "{text}");
    assert_eq!(by_name(POLICY, "/t/web").perhaps, [""; 0]);
    // On a machine, what is there counts.
    let tree = StandIn::new();
    for group in ["", "other.slice", "other.slice/ssh.service", "here.service"] {
        tree.group(group, MIB);
    }
    let asked = asked(POLICY);
    let mut onlooker = tree.look(&asked, None);
    let mut perhaps = |path: &str| explain(&asked, &GroupPath::from_bytes(path.as_bytes()), Some(&mut onlooker)).perhaps;
    assert_eq!(perhaps("/ssh.service"), ["/other.slice/ssh.service"]);
    assert_eq!(perhaps("/cron.service"), ["/system.slice/cron.service"]);
    assert_eq!((perhaps("/here.service"), perhaps("/nowhere")), (vec![], vec![]));
}

#[test]
fn where_one_process_is_killed_the_ladder_says_so() {
    let policy = "rules:\n  - {name: r, watch: /t/*, when: [event: oom_kill]}\nkill_one_in: [/x, /t/web]\n";
    let explanation = by_name(policy, "/t/web/a");
    assert_eq!(explanation.rules[0].then, ["kill process (kill_one_in)"]);
    let cover = explanation.kill_one_in.as_ref().unwrap();
    assert_eq!((cover.glob.as_str(), cover.inherited, cover.place.as_ref().unwrap().line), ("/t/web", true, 4));
    let text = plain(&explanation.text());
    assert!(text.contains("kill_one_in  yes") && text.contains("/t/web, inherited from /t/web\n"), "{text}");
    let other = by_name(policy, "/t/db");
    assert_eq!((other.kill_one_in.is_none(), other.rules[0].then.join(", ")), (true, "kill group".to_owned()));
}

#[test]
fn the_whole_ladder_is_told() {
    let then =
        "then: [{warn: {signal: SIGUSR1, wait: 1s}}, {hook: {exec: [/bin/save], timeout: 500ms}}, {term: {wait: 3s}}, {kill: process}]";
    let policy = format!("rules:\n  - {{name: r, watch: /t/*, when: [event: oom_kill], {then}}}\n");
    let a = by_name(&policy, "/t/a");
    assert_eq!(a.rules[0].then, ["warn (SIGUSR1, 1s)", "hook /bin/save (500ms)", "term (3s)", "kill process"]);
    assert!(plain(&a.text()).contains("warn (SIGUSR1, 1s), hook /bin/save (500ms), term (3s), kill process"), "{}", a.text());
    // Who may not die by a rule has no ladder.
    assert!(by_name(POLICY, "/u/v").rules[0].then.is_empty());
}

#[test]
fn a_group_that_is_not_there_is_explained_by_its_name() {
    let tree = StandIn::new();
    tree.group("t", 0);
    let asked = asked(POLICY);
    let explanation = explain(&asked, &GroupPath::from_bytes(b"/t/later"), Some(&mut tree.look(&asked, None)));
    assert_eq!(explanation.exists, Some(false));
    assert_eq!(explanation.rules.len(), 3);
    assert!(plain(&explanation.text()).starts_with("/t/later  does not exist: explained by its name alone\n"));
}

#[test]
fn a_group_that_is_there_has_numbers_and_a_standing() {
    let tree = StandIn::new();
    tree.group("t", 0).file("t", "memory.max", &format!("{}\n", 300 * MIB)).file("t", "memory.high", "104857600\n");
    tree.group("t/web", 50 * MIB).group("t/big", 80 * MIB).group("t/web/keep", MIB).group("t/web/a", MIB);
    tree.file("t/web", "memory.swap.current", &format!("{}\n", 2 * MIB)).file("t/web", "memory.max", &format!("{}\n", 400 * MIB));
    tree.file("t/web", "memory.current", &format!("{}\n", 60 * MIB)).file("t/web", "cgroup.procs", "1\n");
    tree.file(
        "t/web",
        "memory.stat",
        &format!("anon {}\nshmem 0\nfile_dirty 0\nfile_writeback 0\ninactive_file {MIB}\nactive_file 0\n", 50 * MIB),
    );
    let asked = asked(POLICY);
    let ask = |path: &[u8]| explain(&asked, &GroupPath::from_bytes(path), Some(&mut tree.look(&asked, None)));
    let web = ask(b"/t/web");
    assert_eq!(web.exists, Some(true));
    let numbers = web.numbers.as_ref().unwrap();
    assert_eq!((numbers.usage_bytes, numbers.charged_bytes), (Some(52 * MIB), Some(59 * MIB)));
    let limits = |own, smallest, of: &str| Limits { own_bytes: own, smallest_bytes: Some(smallest), smallest_of: Some(of.to_owned()) };
    assert_eq!(numbers.max, limits(Some(400 * MIB), 300 * MIB, "/t"));
    assert_eq!(numbers.high, limits(None, 100 * MIB, "/t"));
    assert_eq!((numbers.groups_below, numbers.processes, numbers.populated), (2, Some(1), Some(true)));
    assert_eq!(web.spared_below, ["/t/web/keep"]);
    assert_eq!(web.exclusions[0].applies, Some(false), "no process of that name is there");
    let process = &web.processes[0];
    assert_eq!((process.pid, &*process.reason, process.spares_group), (Some(1), "is process 1", true));
    let standing = |explanation: &Explanation, rule: usize| {
        let rule = &explanation.rules[rule];
        rule.standing.as_ref().map(|standing| (rule.standing_for.clone().unwrap(), standing.reason.clone()))
    };
    assert_eq!(standing(&web, 0), Some(("/t/web".into(), "contains /t/web/keep, which must live".into())));
    let big = ask(b"/t/big");
    assert_eq!(standing(&big, 0), Some(("/t/big".into(), "ranked 1: the subject itself".into())));
    // /t/web must live for what is in it, and /t/web/a takes its place: as important as /t/web.
    assert_eq!(standing(&big, 1), Some(("/".into(), "ranked 1: importance -3, the next one's 7".into())));
    let text = plain(&web.text());
    for part in [
        "/t/web  2 groups below it, 1 process\n  not a victim now: process 1 (",
        "memory.max   300MiB  of /t; its own is 400MiB\n",
        "memory.high  100MiB  of /t; it has none of its own\n",
        "usage        52MiB   what its death frees: anonymous 50MiB, swap 2MiB\n",
        "charged      59MiB   against limits: memory.current 60MiB less what can be reclaimed\n",
        "contains    excluded  /t/web/keep\n",
        "oom_group   no        test.yaml:14: /t/*, but an exclusion, `kill_one_in` or oomwarden is in the way; memory.oom.group is 0 now\n",
        "subject (test.yaml:11)  enforce  yes: /t/*     as the subject            kill group  contains /t/web/keep, which must live\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn an_excluded_name_is_looked_for_in_the_group_below_it_and_above_it() {
    let sleeper = Sleeper::start();
    let tree = StandIn::new();
    tree.group("t", 0).group("t/web", 50 * MIB).group("t/web/a", MIB).group("t/web/a/b", MIB);
    tree.file("t/web/a", "cgroup.procs", &format!("{}\n", sleeper.pid()));
    let asked = asked(POLICY);
    let ask = |path: &[u8]| {
        let explanation = explain(&asked, &GroupPath::from_bytes(path), Some(&mut tree.look(&asked, None)));
        let reasons: Vec<_> = explanation.processes.iter().map(|process| (process.reason.clone(), process.spares_group)).collect();
        let sum = plain(&explanation.text()).contains("\n  not a victim now: excluded by /other, /t/* holding comm sleep (test.yaml:5)\n");
        assert_eq!(sum, explanation.exclusions[0].applies == Some(true));
        (explanation.exclusions[0].applies, reasons)
    };
    let reason = "is excluded by /other, /t/* holding comm sleep".to_owned();
    assert_eq!(ask(b"/t/web/a"), (Some(true), vec![(reason.clone(), true)]));
    assert_eq!(ask(b"/t/web/a/b"), (Some(true), vec![(reason.clone(), true)]), "held above it");
    assert_eq!(ask(b"/t/web"), (Some(false), vec![(reason, false)]), "held below it: it is spared as what contains another");
}

#[test]
fn where_oomwarden_runs_nobody_dies() {
    let daemon = Sleeper::start();
    let tree = StandIn::new();
    tree.group("t", 0).group("t/web", 50 * MIB).group("t/web/a", MIB);
    tree.file("t/web/a", "cgroup.procs", &format!("{}\n", daemon.pid()));
    let asked = asked("rules:\n  - {name: r, watch: /t/*, when: [event: oom_kill]}\n");
    let pid = i32::try_from(daemon.pid()).unwrap();
    let ask = |path: &[u8]| explain(&asked, &GroupPath::from_bytes(path), Some(&mut tree.look(&asked, Some(pid))));
    for path in ["/t", "/t/web", "/t/web/a"] {
        let explanation = ask(path.as_bytes());
        assert_eq!(explanation.daemon, Some(pid), "{path}");
        assert!(plain(&explanation.text()).contains(&format!("never a victim: oomwarden itself runs in it, as process {pid}\n")), "{path}");
    }
    tree.group("t/mail", MIB);
    assert_eq!(ask(b"/t/mail").daemon, None);
}

#[test]
fn names_can_not_upset_a_terminal() {
    let explanation = explain(&asked(POLICY), &GroupPath::from_bytes(b"/t/\x1b[2J\xff"), None);
    assert_eq!(explanation.group, "/t/\\x1b[2J\\xff");
    assert!(!plain(&explanation.text()).contains('\u{1b}'));
}

proptest! {
    /// The explanation and the class that judgements go by are of one mind.
    #[test]
    fn what_is_explained_is_what_the_class_says(parts in proptest::collection::vec("[stuwx]|web|ssh|keep|other", 0..5)) {
        let path = format!("/{}", parts.join("/"));
        let (asked, explanation) = (asked(POLICY), by_name(POLICY, &path));
        let class = classify(&asked.policy, &ancestry(&GroupPath::from_bytes(path.as_bytes())));
        prop_assert_eq!(explanation.importance.value, class.importance);
        prop_assert_eq!(explanation.oom_group.is_some(), class.oom_group);
        prop_assert_eq!(explanation.exclusions.iter().any(|exclusion| exclusion.comm.is_none()), class.excluded.is_some());
        prop_assert_eq!(explanation.exclusions.iter().any(|exclusion| exclusion.comm.is_some()), !class.comm_excludes.is_empty());
        for rule in 0..3 {
            let relation = explanation.rules.iter().find(|relation| *relation.rule == *asked.policy.rules[rule].name);
            let own = |cover: &Cover| !cover.inherited;
            prop_assert_eq!(relation.and_then(|relation| relation.watches.as_ref()).is_some_and(own), class.subject_of.contains(rule));
            let among = relation.and_then(|relation| relation.victim.as_ref()).filter(|victim| victim.by == "among");
            prop_assert_eq!(among.is_some_and(|victim| own(&victim.cover)), class.among.contains(rule));
        }
    }
}
