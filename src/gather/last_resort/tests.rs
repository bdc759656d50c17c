//! The table against the judge: whom the module could choose by the table is one whom the rule could have chosen. And single policies as
//! text.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::cgroup::path::GroupPath;
use crate::decide::facts::{GroupFacts, LmsFacts, MemoryFacts, ProcessFacts};
use crate::decide::process::{NEVER, SHIELDED};
use crate::decide::verdict::{Candidate, Notice, Standing, Strike, Verdict};
use crate::decide::{Judge, Step};
use crate::policy::model::LmsLevel;
use crate::policy::{Source, load};

const NODE: NodeFacts = NodeFacts {
    total_bytes: 1 << 30,
    available_bytes: Some(1 << 29),
    swap_total_bytes: 1 << 20,
    swap_free_bytes: Some(1 << 20),
    shmem_bytes: None,
    slab_bytes: None,
    slab_unreclaimable_bytes: None,
    lms: Some(LmsFacts { level: Some(LmsLevel::Oom), warn_bytes: 0, kill_bytes: 0 }),
};
/// As it is when somebody has to die.
const OUT: NodeFacts = NodeFacts { available_bytes: Some(0), swap_free_bytes: Some(0), ..NODE };

fn policy(text: &str) -> Policy {
    load(&[Source::new("test", text)]).unwrap().policy
}

fn table(policy: &Policy, kept: &[(GroupId, &[u8])], may_answer: impl Fn(usize) -> bool) -> (String, Said) {
    let mut table = Table::new();
    let said = LastResort::of(policy).put_together(&mut table, GroupId(1), &NODE, kept.iter().copied(), may_answer);
    if said == Said::Nothing {
        table.clear(None);
    }
    (String::from_utf8(table.as_bytes().to_vec()).unwrap(), said)
}

fn text(policy_text: &str) -> String {
    table(&policy(policy_text), &[], |_| true).0
}

fn with_rules(rules: &str) -> String {
    text(&format!("version: 1\nrules:\n{rules}"))
}

/// By this a reload takes the table back, before anything else, or leaves it.
#[test]
fn policies_are_equal_if_their_tables_always_are() {
    const ONE: &str = "version: 1\nexclude: [/db]\nrules:\n  - {name: out, watch: /, when: [lms: oom], victim: {among: [/a/*, /b/*]}}\n";
    let of = |text: &str| LastResort::of(&policy(text));
    let one = of(ONE);
    assert_eq!(of(&format!("{ONE}  - {{name: other, watch: /x, when: [event: oom]}}\nkernel: {{hold: 300ms}}\n")), one);
    for (from, to) in [
        ("/db", "/db, /a/x"),
        (", /b/*", ""),
        ("out, watch: /", "out, watch: /, mode: observe"),
        ("victim:", "only_if: [swap_free: {below: 5%}], victim:"),
        ("/b/*]", "/b/*], at_least: 2MiB"),
        ("victim:", "spare_unkillable: false, victim:"),
        ("rules:", "importance: [{group: /a/x, value: 1}]\nrules:"),
        ("rules:", "kill_one_in: [/a/x]\nrules:"),
    ] {
        let other = ONE.replacen(from, to, 1);
        assert_ne!(other, ONE, "{from}");
        assert_ne!(of(&other), one, "{other}");
    }
}

#[test]
fn a_policy_becomes_its_lines() {
    let told = text(
        "
version: 1
exclude:
  - /db.slice/{a,b}
  - {group: [/app.slice, \"/web.slice/**\"], comm: post gres}
kill_one_in: \"/user.slice/**/session-*.scope\"
importance:
  - {group: /batch.slice, value: -10}
  - {group: \"/{x,y}/*\", value: 7}
rules:
  - {name: elsewhere, watch: /t, when: [event: oom], victim: {among: /t/*}}
  - {name: first, watch: /, when: [lms: oom], victim: {among: [\"/batch.slice/*\", /], at_least: 1500B}}
  - {name: second, watch: /, when: [lms: oom], victim: {among: leaves, or_largest: true}, spare_unkillable: false}
",
    );
    let expected = "table
root 1
spare_path /db.slice/a
spare_path /db.slice/b
spare_comm post\\x20gres /app.slice
spare_comm post\\x20gres /app.slice/**
spare_comm post\\x20gres /web.slice/**
spare_path /user.slice/**/session-*.scope
class -10 /batch.slice
class 7 /x/*
class 7 /y/*
rule at_least=2
among /batch.slice/*
among /batch.slice/*/**
rule unkillable
among /**
";
    // What the rule is worth at the least has a default, which is not the matter here.
    let told: String =
        told.lines().map(|line| if line.ends_with(" unkillable") { "rule unkillable\n".into() } else { format!("{line}\n") }).collect();
    assert_eq!(told, expected);
}

#[test]
fn own_groups_are_spared_by_id_and_path() {
    let policy = policy("version: 1\nrules:\n  - {name: a, watch: /, when: [lms: oom], victim: {among: /t/*}}\n");
    let long = format!("/{}", "x".repeat(1030));
    let kept = [(GroupId(7), b"/system.slice/oom[w].service".as_slice()), (GroupId(9), long.as_bytes())];
    let (told, said) = table(&policy, &kept, |_| true);
    assert_eq!(said, Said::All);
    assert!(told.starts_with("table\nroot 1\nspare 7\nspare_path /system.slice/oom[[]w].service\nspare 9\nrule"), "{told}");
}

#[test]
fn rules_that_may_not_answer_are_not_in_it() {
    let rules = "
version: 1
rules:
  - {name: a, watch: /, when: [lms: oom], victim: {among: /a/*}}
  - {name: watched, watch: /, when: [lms: oom], mode: observe, victim: {among: /b/*}}
  - {name: whole, watch: /, when: [lms: oom]}
  - {name: level, watch: /, when: [lms: kill], victim: {among: /c/*}}
  - {name: d, watch: /, when: [lms: oom], victim: {among: /d/*}}
";
    let amongs = |told: &str| -> Vec<String> {
        told.lines().filter_map(|line| line.strip_prefix("among ")).filter(|glob| !glob.ends_with("**")).map(str::to_owned).collect()
    };
    let policy = policy(rules);
    assert_eq!(amongs(&table(&policy, &[], |_| true).0), ["/a/*", "/d/*"]);
    assert_eq!(amongs(&table(&policy, &[], |rule| rule != 0).0), ["/d/*"]);
    assert_eq!(table(&policy, &[], |_| false), ("clear\n".to_owned(), Said::All));
}

#[test]
fn conditions_are_asked_as_they_are_when_the_module_decides() {
    for (condition, holds) in [
        ("available: {below: 1%}", true),
        ("swap_free: {below: 1%}", true),
        ("usage: {above: 90%, of: node}", true),
        ("usage: {above: 100%, of: node}", false),
        ("usage: {above: 50%, of: max}", false),
        ("usage: {above: 2GiB}", false),
    ] {
        let told = with_rules(&format!("  - {{name: a, watch: /, when: [lms: oom], only_if: [{condition}], victim: {{among: /t/*}}}}\n"));
        assert_eq!(told != "clear\n", holds, "{condition}: {told}");
    }
}

#[test]
fn what_belongs_to_a_rule_that_kills_one_process_is_spared_or_ends_the_table() {
    let one = "  - {name: one, watch: /, when: [lms: oom], victim: {among: /pool/*}, then: [kill: process]}\n";
    let group = |name: &str| format!("  - {{name: {name}, watch: /, when: [lms: oom], victim: {{among: /{name}/*}}}}\n");
    let first = with_rules(&format!("{one}{}", group("b")));
    assert!(first.contains("spare_path /pool/*\nrule") && first.contains("among /b/*\n"), "{first}");
    let policy = policy(&format!("version: 1\nrules:\n{}{one}{}", group("a"), group("c")));
    let (between, said) = table(&policy, &[], |_| true);
    assert_eq!(said, Said::Before(1));
    assert!(between.contains("among /a/*\n") && !between.contains("/pool") && !between.contains("/c/"), "{between}");
    assert_eq!(table(&policy, &[], |rule| rule != 1).1, Said::All, "its breaker is open, so it has no answer");
}

#[test]
fn what_stands_below_a_named_group_is_named_where_no_other_name_can_match() {
    for (among, expected) in [
        ("/a/*", vec!["/a/*", "/a/*/**"]),
        ("/a/**", vec!["/a/**"]),
        ("[/a/*, /a/x/y]", vec!["/a/*", "/a/x/y", "/a/x/y/**"]),
        ("/k/**/c-*.scope", vec!["/k/**/c-*.scope"]),
        ("[/a, /b]", vec!["/a", "/a/**", "/b", "/b/**"]),
        ("/{a,b}/*", vec!["/a/*", "/a/*/**", "/b/*", "/b/*/**"]),
        ("/", vec![]),
    ] {
        let told = with_rules(&format!("  - {{name: a, watch: /, when: [lms: oom], victim: {{among: {}}}}}\n", quoted(among)));
        let globs: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("among ")).collect();
        assert_eq!(globs, expected, "{among}");
    }
}

fn quoted(globs: &str) -> String {
    match globs.strip_prefix('[').and_then(|globs| globs.strip_suffix(']')) {
        Some(list) => format!("[{}]", list.split(", ").map(|glob| format!("'{glob}'")).collect::<Vec<_>>().join(", ")),
        None => format!("'{globs}'"),
    }
}

#[test]
fn who_must_live_comes_first_and_nobody_dies_if_that_does_not_fit() {
    let rules = "rules:\n  - {name: a, watch: /, when: [lms: oom], victim: {among: /a/*}}\n  - {name: b, watch: /, when: [lms: oom], victim: {among: /b/*}}\n";
    let eleven = "{a,b}".repeat(11);
    for too_much in [
        format!("exclude: [\"/{eleven}\"]"),
        format!("exclude: [{{group: \"/x\", comm: a}}, \"/{}\"]", "{a,b}".repeat(10)),
        format!("kill_one_in: [\"/{eleven}\"]"),
        format!("importance: [{{group: \"/{eleven}\", value: 1}}]"),
        format!("exclude: [{{group: \"/{}\", comm: a}}]", "x".repeat(1022)),
        "exclude: [\"/[\u{e9}]\"]".to_owned(),
    ] {
        assert_eq!(table(&policy(&format!("version: 1\n{too_much}\n{rules}")), &[], |_| true), ("clear\n".to_owned(), Said::Nothing));
    }
    let rules = rules.replace("/b/*", &format!("\"/{eleven}\""));
    let (told, said) = table(&policy(&format!("version: 1\n{rules}")), &[], |_| true);
    assert_eq!(said, Said::NoRoomFor(1));
    assert!(told.ends_with("among /a/*\namong /a/*/**\n"), "{told}");
}

/// A policy of globs that multiply costs neither time nor memory: what can't fit is not even written down.
#[test]
fn what_can_not_fit_is_given_up_early() {
    let wide = format!("\"/{}/{}\"", "{a,b}".repeat(10), "x".repeat(900));
    let many: String = (0..250).map(|_| format!("  - {{group: [{wide}], comm: a}}\n")).collect();
    let rules: String =
        (0..250).map(|at| format!("  - {{name: r{at}, watch: /, when: [lms: oom], victim: {{among: [{wide}]}}}}\n")).collect();
    let began = std::time::Instant::now();
    let policy = policy(&format!("version: 1\nexclude:\n{many}rules:\n{rules}"));
    let loaded = began.elapsed();
    assert_eq!(table(&policy, &[], |_| true), ("clear\n".to_owned(), Said::Nothing));
    let (took, bound) = (began.elapsed() - loaded, std::time::Duration::from_secs(2));
    assert!(took < bound, "{took:?}");
}

#[test]
fn values_beyond_the_modules_keep_their_order() {
    let told = text(&format!(
        "version: 1\nimportance:\n  - {{group: /a, value: {}}}\n  - {{group: /b, value: {}}}\n  - {{group: /c, value: 0}}\n  - {{group: /d, value: -3}}\nrules:\n  - {{name: a, watch: /, when: [lms: oom], victim: {{among: /a/*}}}}\n",
        i64::MAX,
        i64::MIN
    ));
    assert!(told.contains("class 1 /a\nclass -2 /b\nclass 0 /c\nclass -1 /d\n"), "{told}");
}

/// A group of a random tree.
#[derive(Clone, Debug)]
struct Group {
    id: u64,
    path: String,
    parent: Option<usize>,
    processes: Vec<Process>,
    /// Gives memory controllers to the groups below it, if it has one itself and holds no processes.
    hands_down: bool,
    unit: bool,
    own: bool,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    comm: &'static str,
    adjust: i16,
    kb: u64,
    init: bool,
}

/// In pre-order, the root first.
#[derive(Clone, Debug)]
struct Machine(Vec<Group>);

#[derive(Clone, Debug)]
struct Node {
    processes: Vec<Process>,
    hands_down: bool,
    unit: bool,
    own: bool,
    children: Vec<(&'static str, Node)>,
}

fn process() -> impl Strategy<Value = Process> {
    let adjust = prop_oneof![6 => Just(0), 1 => Just(NEVER), 1 => Just(SHIELDED)];
    (prop::sample::select(vec!["p", "q"]), adjust, 1..20_000_u64, prop::bool::weighted(0.02)).prop_map(|(comm, adjust, kb, init)| Process {
        comm,
        adjust,
        kb,
        init,
    })
}

fn node() -> impl Strategy<Value = Node> {
    let alone = (prop::collection::vec(process(), 0..3), prop::bool::weighted(0.1), prop::bool::weighted(0.05));
    let leaf = alone.prop_map(|(processes, unit, own)| Node { processes, hands_down: true, unit, own, children: Vec::new() });
    leaf.prop_recursive(4, 30, 3, |inner| {
        // Some have processes beside their children, as only groups without controllers below them can.
        let few = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(process(), 0..2)];
        let children = prop::sample::subsequence(vec!["a", "b", "ab"], 1..=3).prop_flat_map(move |names| {
            let number = names.len();
            prop::collection::vec(inner.clone(), number).prop_map(move |nodes| names.iter().copied().zip(nodes).collect())
        });
        (few, prop::bool::weighted(0.8), prop::bool::weighted(0.1), children).prop_map(|(processes, hands_down, unit, children)| Node {
            processes,
            hands_down,
            unit,
            own: false,
            children,
        })
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    node().prop_map(|node| {
        let mut groups = Vec::new();
        add(&mut groups, node, String::new(), None);
        Machine(groups)
    })
}

fn add(groups: &mut Vec<Group>, node: Node, path: String, parent: Option<usize>) {
    let at = groups.len();
    groups.push(Group {
        id: at as u64 + 1,
        path: if path.is_empty() { "/".to_owned() } else { path.clone() },
        parent,
        processes: node.processes,
        hands_down: node.hands_down,
        unit: node.unit,
        own: node.own && parent.is_some(),
    });
    for (name, child) in node.children {
        add(groups, child, format!("{path}/{name}"), Some(at));
    }
}

impl Machine {
    fn id(&self, at: usize) -> GroupId {
        GroupId(self.0[at].id)
    }

    fn line(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(at), |at| self.0[*at].parent)
    }

    fn end(&self, at: usize) -> usize {
        (at + 1..self.0.len()).find(|other| !self.line(*other).any(|above| above == at)).unwrap_or(self.0.len())
    }

    fn is_populated(&self, at: usize) -> bool {
        (at..self.end(at)).any(|at| !self.0[at].processes.is_empty())
    }

    /// Whether it has a memory controller of its own: the kernel gives controllers either to a group's processes or to its children. The root
    /// may have both.
    fn has_memory(&self, at: usize) -> bool {
        self.line(at).skip(1).all(|above| self.0[above].hands_down && (above == 0 || self.0[above].processes.is_empty()))
    }

    /// The group whose memory controller counts what processes in a group take.
    fn charged(&self, at: usize) -> usize {
        self.line(at).find(|at| self.has_memory(*at)).unwrap_or(0)
    }

    /// Groups with processes that a memory controller counts for.
    fn homes(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        (at..self.end(at)).filter(move |home| !self.0[*home].processes.is_empty() && self.charged(*home) == at)
    }

    fn processes(&self, at: usize) -> impl Iterator<Item = &Process> + '_ {
        self.homes(at).flat_map(|home| &self.0[home].processes)
    }

    /// Without the groups in which nobody is, nor below them.
    fn populated(&self) -> Machine {
        let mut places = vec![0; self.0.len()];
        let mut groups: Vec<Group> = Vec::new();
        for (at, group) in self.0.iter().enumerate().filter(|(at, _)| *at == 0 || self.is_populated(*at)) {
            places[at] = groups.len();
            groups.push(Group { parent: group.parent.map(|parent| places[parent]), ..group.clone() });
        }
        Machine(groups)
    }

    fn kb(&self, at: usize) -> u64 {
        self.0[at].processes.iter().map(|process| process.kb).sum()
    }

    /// As the judge sees it, with everything that he may ask for.
    fn facts(&self, policy: &Policy) -> Vec<GroupFacts> {
        let mut facts: Vec<GroupFacts> = Vec::new();
        for (at, group) in self.0.iter().enumerate() {
            let above = group.parent.and_then(|parent| facts.get(parent)).map(|parent| parent.class);
            let class = policy.classify(group.path.as_bytes(), above.as_ref());
            let below = at..self.end(at);
            let bytes = Some(below.clone().map(|at| self.kb(at) * 1024).sum());
            let mut processes = ProcessFacts { count: number(group.processes.len()), ..ProcessFacts::default() };
            for process in &group.processes {
                processes.has_init |= process.init;
                processes.has_unkillable |= process.adjust <= NEVER;
                processes.has_shielded |= process.adjust <= SHIELDED;
                for index in class.comm_excludes.iter() {
                    if policy.exclude[index].comm.as_deref() == Some(process.comm.as_bytes()) {
                        processes.comm_hits.insert(index);
                    }
                }
            }
            facts.push(GroupFacts {
                id: self.id(at),
                path: GroupPath::from_bytes(group.path.as_bytes()),
                parent: group.parent.map(number),
                subtree_end: number(below.end),
                class,
                own: group.own,
                has_memory: self.has_memory(at),
                threaded: false,
                oom_group: group.unit,
                populated: Some(below.clone().any(|at| !self.0[at].processes.is_empty())),
                dying: false,
                memory: MemoryFacts { current: bytes, anon: bytes, swap: Some(0), ..MemoryFacts::default() },
                growth: None,
                pressure: None,
                age: None,
                processes: Some(processes),
            });
        }
        facts
    }
}

/// Whether a glob without braces matches; not by the code that is tested.
fn matches(glob: &[u8], path: &[u8]) -> bool {
    if path == b"/" || glob == b"/" {
        return path == glob;
    }
    let parts = |text: &[u8]| -> Vec<Vec<u8>> { text.split(|byte| *byte == b'/').skip(1).map(<[u8]>::to_vec).collect() };
    match_parts(&parts(glob), &parts(path))
}

fn match_parts(globs: &[Vec<u8>], path: &[Vec<u8>]) -> bool {
    match (globs.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((glob, [])), Some(_)) if glob == b"**" => true,
        (Some((glob, rest)), _) if glob == b"**" && !rest.is_empty() => (0..=path.len()).any(|at| match_parts(rest, &path[at..])),
        (Some((glob, globs)), Some((name, path))) => match_name(glob, name) && match_parts(globs, path),
        _ => false,
    }
}

fn match_name(glob: &[u8], name: &[u8]) -> bool {
    match (glob.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', glob)), _) => (0..=name.len()).any(|at| match_name(glob, &name[at..])),
        (Some((b'?', glob)), Some((_, name))) => match_name(glob, name),
        (Some((b'[', class)), Some((byte, name))) => {
            let end = class.iter().position(|byte| *byte == b']').unwrap();
            let (places, rest) = (&class[..end], &class[end + 1..]);
            let holds = match places.strip_prefix(b"!") {
                Some(places) => !places.contains(byte),
                None => places.contains(byte),
            };
            holds && match_name(rest, name)
        }
        (Some((place, glob)), Some((byte, name))) => place == byte && match_name(glob, name),
        _ => false,
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap()
}

/// A leaf that the module may kill.
#[derive(Clone, Copy, Debug)]
struct Choice {
    group: usize,
    rule: usize,
    small: bool,
    value: i32,
    kb: u64,
}

/// All whom the module may kill by a table, the first to die in front: as its README says.
fn choices(machine: &Machine, table: &str) -> Vec<Choice> {
    let lines: Vec<(&str, &str)> = table.lines().skip(1).map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    let glob = |glob: &str, at: usize| matches(glob.as_bytes(), machine.0[at].path.as_bytes());
    let spares = |at: usize| {
        lines.iter().any(|(word, rest)| match *word {
            "spare" => rest.parse() == Ok(machine.id(at).0),
            "spare_path" => glob(rest, at),
            "spare_comm" => {
                let (comm, rest) = rest.split_once(' ').unwrap();
                glob(rest, at) && machine.0[at].processes.iter().any(|process| process.comm == comm)
            }
            _ => false,
        })
    };
    let class = |at: usize| {
        let classes = lines.iter().filter(|(word, _)| *word == "class").map(|(_, rest)| rest.split_once(' ').unwrap());
        let mut classes = classes.filter(|(_, rest)| machine.line(at).any(|at| glob(rest, at)));
        classes.next().map_or(0, |(value, _)| value.parse().unwrap())
    };
    let mut all = Vec::new();
    for at in (1..machine.0.len()).filter(|at| machine.homes(*at).next().is_some()) {
        let spared = |home: usize| machine.0[home].own || machine.line(home).any(spares);
        if machine.homes(at).any(spared) || machine.processes(at).any(|process| process.init) {
            continue;
        }
        let (mut rules, mut unkillable, mut at_least) = (0, false, 0);
        for (word, rest) in &lines {
            if *word == "rule" {
                rules += 1;
                unkillable = rest.contains("unkillable");
                at_least = rest.split(' ').find_map(|word| word.strip_prefix("at_least=")).map_or(0, |kb| kb.parse().unwrap());
            } else if *word == "among" && glob(rest, at) {
                // The first rule that names it has it.
                let never = |process: &Process| process.adjust <= NEVER;
                let dies = if unkillable { !machine.processes(at).all(never) } else { !machine.processes(at).any(never) };
                let kb = machine.homes(at).map(|home| machine.kb(home)).sum();
                if dies {
                    let value = machine.homes(at).chain([at]).map(class).max().unwrap();
                    all.push(Choice { group: at, rule: rules - 1, small: kb < at_least, value, kb });
                }
                break;
            }
        }
    }
    all.sort_by_key(|choice| (choice.rule, choice.small, choice.value, std::cmp::Reverse(choice.kb)));
    all
}

fn glob() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => "(/(a|b|ab|\\*|[*][*]|\\?|a\\*|\\[ab\\]|\\[!a\\]|\\[\\^b\\]b|\\{a,b\\}|\\{,a\\}b|a\\{,/b\\}|\\{a/[*][*],b\\})){1,3}",
        1 => Just("/".to_owned()),
    ]
}

fn globs() -> impl Strategy<Value = String> {
    prop::collection::vec(glob(), 1..3).prop_map(|globs| {
        let globs: Vec<String> = globs.iter().map(|glob| format!("'{glob}'")).collect();
        format!("[{}]", globs.join(", "))
    })
}

fn policy_text() -> impl Strategy<Value = String> {
    let comm = prop::option::of(prop::sample::select(vec!["p", "q"]));
    let exclude = (globs(), comm).prop_map(|(group, comm)| match comm {
        None => format!("  - {{group: {group}}}\n"),
        Some(comm) => format!("  - {{group: {group}, comm: {comm}}}\n"),
    });
    let importance = (globs(), prop_oneof![4 => -2_i64..3, 1 => any::<i64>()])
        .prop_map(|(group, value)| format!("  - {{group: {group}, value: {value}}}\n"));
    let among = prop_oneof![4 => globs(), 1 => Just("leaves".to_owned())];
    let rule =
        (among, 0..20_u64, any::<bool>(), any::<bool>(), prop::bool::weighted(0.15)).prop_map(|(among, mib, largest, spare, one)| {
            let then = if one { "[kill: process]" } else { "[kill: group]" };
            format!("victim: {{among: {among}, at_least: {mib}MiB, or_largest: {largest}}}, spare_unkillable: {spare}, then: {then}}}\n")
        });
    let rules = prop::collection::vec(rule, 1..4).prop_map(|rules| {
        let named = rules.iter().enumerate().map(|(at, rule)| format!("  - {{name: r{at}, watch: /, when: [lms: oom], {rule}"));
        named.collect::<String>()
    });
    let excludes = prop::collection::vec(exclude, 0..3).prop_map(|list| list.concat());
    let importances = prop::collection::vec(importance, 0..3).prop_map(|list| list.concat());
    let one_in =
        prop::option::weighted(0.3, globs()).prop_map(|globs| globs.map_or(String::new(), |globs| format!("kill_one_in: {globs}\n")));
    (excludes, importances, one_in, rules).prop_map(|(excludes, importances, one, rules)| {
        format!("version: 1\nexclude:\n{excludes}importance:\n{importances}{one}rules:\n{rules}")
    })
}

/// The candidates of a rule on a machine that has nothing left: who could die, or only is too small for that.
fn candidates(policy: &Policy, rule: usize, facts: &[GroupFacts]) -> Vec<Candidate> {
    let (mut judge, mut verdict) = (Judge::with_capacity(facts.len()), Verdict::with_capacity(facts.len()));
    let step = judge.judge(policy, rule, 0, &Notice::Lms(LmsLevel::Oom), &OUT, facts, &[], &mut verdict);
    assert_eq!(step, Step::Decided, "all has been seen");
    let may = |standing| matches!(standing, Standing::Chosen | Standing::Ranked | Standing::Struck(Strike::TooSmall));
    verdict.candidates.iter().filter(|one| may(one.standing)).copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// No bystander: whoever the module could take is (a part of) a candidate of that rule, for the judge as well, were it not for groups in which
    /// nobody is. And no gap: a group that a rule could take, and none below it, is in the table, where its lines could be said.
    #[test]
    fn whom_the_module_could_choose_the_rule_could_have_chosen(text in policy_text(), machine in machine()) {
        let Ok(loaded) = load(&[Source::new("test", text.as_str())]) else { return Ok(()) };
        let policy = loaded.policy;
        let own: Vec<(GroupId, &[u8])> = (0..machine.0.len()).filter(|at| machine.0[*at].own)
            .map(|at| (machine.id(at), machine.0[at].path.as_bytes())).collect();
        let (told, said) = table(&policy, &own, |_| true);
        let choices = choices(&machine, &told);
        let populated = machine.populated();
        let facts = populated.facts(&policy);
        let place = |choice: &Choice| (0..populated.0.len()).find(|at| populated.id(*at) == machine.id(choice.group)).unwrap();
        // Which rules of the policy those of the table are: those that kill one process are none.
        let kills_one = |rule: &Rule| rule.ladder.last() == Some(&Rung::Kill(KillWhat::Process));
        let of_groups: Vec<usize> = (0..policy.rules.len())
            .filter(|at| !kills_one(&policy.rules[*at]) && !matches!(rule_lines(&policy.rules[*at]), Some(Says::Dies(lines)) if lines == Lines::default()))
            .collect();
        for choice in &choices {
            let (rule, at) = (of_groups[choice.rule], place(choice));
            let candidates = candidates(&policy, rule, &facts);
            let covered = candidates.iter().any(|one| (one.group as usize..populated.end(one.group as usize)).contains(&at));
            prop_assert!(covered, "{:?} of rule r{rule} is no candidate: {candidates:?}\n{text}\n{told}\n{machine:#?}", populated.0[at]);
            prop_assert!(!populated.homes(at).any(|home| facts[home].class.kill_one), "{:?} does not die whole\n{text}\n{told}", populated.0[at]);
        }
        for pair in choices.windows(2).filter(|pair| (pair[0].rule, pair[0].small) == (pair[1].rule, pair[1].small)) {
            let importance = |choice: &Choice| {
                let at = place(choice);
                populated.homes(at).chain([at]).map(|home| facts[home].class.importance).max()
            };
            let order = importance(&pair[0]).cmp(&importance(&pair[1]));
            prop_assert!(order != Ordering::Greater, "{pair:?}\n{text}\n{told}");
        }
        if said == Said::All && !policy.rules.iter().any(kills_one) {
            let leaves = |rule: usize| matches!(&policy.rules[rule].victim, Victim::Among(among) if matches!(among.groups, AmongGroups::Leaves));
            let names = |rule: usize, at: usize| leaves(rule) || facts[at].class.among.contains(rule);
            for rule in 0..policy.rules.len() {
                let whole = |at: usize| at > 0 && names(rule, at) && populated.homes(at).next().is_some()
                    && !populated.homes(at).any(|home| facts[home].class.kill_one);
                for at in candidates(&policy, rule, &facts).iter().map(|one| one.group as usize).filter(|at| whole(*at)) {
                    // Nobody in it dies by a rule before this one, to which it belongs; or nobody by any, whatever the rule says.
                    let earlier = (0..rule).any(|rule| populated.line(at).any(|at| names(rule, at)));
                    let others = populated.processes(at).any(|process| process.adjust > NEVER);
                    let found = choices.iter().any(|choice| place(choice) == at);
                    prop_assert!(found || earlier || !others, "{:?} of rule r{rule} is missing\n{text}\n{told}\n{machine:#?}", populated.0[at]);
                }
            }
        }
    }
}
