//! What holds for every tree.

use proptest::prelude::*;

use super::fixture::*;
use super::lms::lms;
use crate::decide::facts::{GroupFacts, GroupId, ProcessFacts};
use crate::decide::verdict::{Decision, Notice, Standing, Strike};
use crate::policy::model::{EventKind, LmsLevel, RankKey, Rule, Victim};

const OOM: Notice = Notice::Event(EventKind::Oom, 0, 1);

/// A group with its children, so that siblings can be put into another order.
#[derive(Clone, Debug)]
struct Node {
    words: Vec<String>,
    children: Vec<Node>,
}

/// Words that make a group special; most groups are not.
fn words() -> impl Strategy<Value = Vec<String>> {
    let rare = prop::sample::select(vec![
        "excluded=0",
        "own",
        "init",
        "unkillable",
        "shielded",
        "shielded unkillable",
        "unknown",
        "unreadable",
        "comm=1 runs=1",
        "empty",
        "dying",
        "threaded",
        "nomem",
        "unread",
        "unit",
    ]);
    let common = (0u64..60, 0u64..4, -2i64..3, 0u32..4, any::<bool>()).prop_map(|(anon, swap, importance, age, among)| {
        let among = if among { "among" } else { "" };
        format!("{anon} swap={swap} importance={importance} age={age} growth={} score={} {among}", importance * 3, anon % 5)
    });
    (common, prop::option::weighted(0.25, rare))
        .prop_map(|(common, rare)| common.split_whitespace().chain(rare.unwrap_or("").split_whitespace()).map(str::to_owned).collect())
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = words().prop_map(|words| Node { words, children: Vec::new() });
    leaf.prop_recursive(4, 40, 4, |inner| {
        (words(), prop::collection::vec(inner, 0..4)).prop_map(|(words, children)| Node { words, children })
    })
}

/// Top groups, numbered so that each keeps its id wherever it is listed.
fn forest() -> impl Strategy<Value = Vec<Node>> {
    prop::collection::vec(node(), 1..5).prop_map(|mut forest| {
        let mut next = 1000;
        number(&mut forest, &mut next);
        forest
    })
}

fn number(nodes: &mut [Node], next: &mut u64) {
    for node in nodes {
        *next += 1;
        node.words.push(format!("id={next}"));
        number(&mut node.children, next);
    }
}

fn turn(nodes: &mut [Node], by: usize) {
    if !nodes.is_empty() {
        let by = by % nodes.len();
        nodes.rotate_left(by);
        if by.is_multiple_of(2) {
            nodes.reverse();
        }
    }
    for node in nodes {
        turn(&mut node.children, by / 2 + 1);
    }
}

fn text(nodes: &[Node], depth: usize, out: &mut String) {
    for node in nodes {
        let name = node.words.last().map_or("x", |word| &word[3..]);
        out.push_str(&format!("{:indent$}g{name} {}\n", "", node.words.join(" "), indent = depth * 2));
        text(&node.children, depth + 1, out);
    }
}

/// The case with a subject by its id (modulo what there is), the root among them.
fn case(forest: &[Node], subject: u64) -> Case {
    let mut out = String::new();
    text(forest, 0, &mut out);
    let mut case = tree(&out);
    let mut ids: Vec<GroupId> = case.groups.iter().map(|group| group.id).collect();
    ids.sort_unstable();
    let id = ids[usize::try_from(subject).unwrap() % ids.len()];
    case.subject = u32::try_from(case.groups.iter().position(|group| group.id == id).unwrap()).unwrap();
    case
}

fn rules() -> [Rule; 5] {
    let largest = among_rule_or_largest(40);
    let score = ranked_by(&[(RankKey::OomScore, Some(50)), (RankKey::Age, None)]);
    [subject_rule(), ranked_by(&[(RankKey::Usage, Some(20)), (RankKey::Age, None)]), leaves_rule(), largest, score]
}

fn subtree(case: &Case, at: u32) -> impl Iterator<Item = (&GroupFacts, &ProcessFacts)> {
    let range = at as usize..case.groups[at as usize].subtree_end as usize;
    case.groups[range.clone()].iter().zip(&case.processes[range])
}

fn must_live(group: &GroupFacts, processes: &ProcessFacts) -> bool {
    let holds_processes = group.populated != Some(false);
    group.class.excluded.is_some()
        || group.own
        || group.populated.is_none()
        || holds_processes
            && (processes.has_init
                || processes.has_unkillable
                || processes.has_unknown
                || group.class.comm_excludes.contains(1) && processes.comm_hits.contains(1))
}

/// Judges and checks all that must hold whatever was decided. The id of the victim, if there is one.
fn judged(case: &mut Case, rule: Rule, notice: Notice) -> Option<GroupId> {
    case.decide(rule, notice);
    let verdict = &case.verdict;
    assert!(case.asked.len() <= case.groups.len());
    assert!(verdict.candidates.len() <= case.groups.len());

    let mut seen: Vec<u32> = verdict.candidates.iter().map(|candidate| candidate.group).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), verdict.candidates.len(), "a group is listed once");

    // none that may die contains another, nor does one stand inside a struck one unless that gave way
    let contains = |outer: u32, inner: u32| outer < inner && inner < case.groups[outer as usize].subtree_end;
    for outer in &verdict.candidates {
        if matches!(outer.standing, Standing::Struck(Strike::ContainsSpared(_))) {
            continue;
        }
        assert!(!verdict.candidates.iter().any(|inner| contains(outer.group, inner.group)), "{}", case.text());
    }

    let Decision::Kill(at) = verdict.decision else {
        assert!(verdict.candidates.iter().all(|candidate| matches!(candidate.standing, Standing::Struck(_))));
        return None;
    };
    let group = &case.groups[at as usize];
    assert_eq!(verdict.candidates[0].group, at);
    assert!(group.parent.is_some() && group.has_memory && !group.threaded && group.populated == Some(true));
    for (below, processes) in subtree(case, at) {
        assert!(!must_live(below, processes), "{} dies with {}", below.path, group.path);
        assert!(below.processes.is_some() || below.populated == Some(false), "{} was not looked at", below.path);
    }
    let mut above = Some(at);
    while let Some(ancestor) = above.map(|at| &case.groups[at as usize]) {
        assert!(ancestor.class.excluded.is_none() && !ancestor.dying, "{} covers {}", ancestor.path, group.path);
        above = ancestor.parent;
    }
    // nobody that may die is less important
    let ranked = verdict.candidates.iter().filter(|candidate| candidate.standing == Standing::Ranked);
    assert!(ranked.clone().all(|candidate| candidate.importance >= verdict.candidates[0].importance));
    assert!(
        subtree(case, at)
            .filter(|(below, _)| below.populated == Some(true))
            .all(|(below, _)| { below.class.importance <= verdict.candidates[0].importance })
    );
    Some(group.id)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_right_ones_live(forest in forest(), subject in 0u64..50) {
        for rule in rules() {
            judged(&mut case(&forest, subject), rule, OOM);
        }
    }

    #[test]
    fn the_kernel_modules_word_is_judged_like_any_other(forest in forest(), subject in 0u64..50, lms in prop::option::of(lms())) {
        for (rule, again) in rules().into_iter().zip(rules()) {
            let mut told = case(&forest, subject);
            told.node.lms = lms;
            let notice = Notice::Lms(lms.and_then(|lms| lms.level).unwrap_or(LmsLevel::Oom));
            let victim = judged(&mut told, rule, notice);
            prop_assert_eq!(told.verdict.scope, 0);
            let confirmed = told.verdict.decision != Decision::NotConfirmed;
            // half of the memory is available, so the first level is never borne out
            prop_assert_eq!(confirmed, notice != Notice::Lms(LmsLevel::Warn) && lms.is_none_or(|lms| lms.level.is_some()));
            if confirmed && !told.verdict.is_in_vain() {
                prop_assert_eq!(victim, judged(&mut case(&forest, subject), again, OOM));
            }
        }
    }

    /// What is seen first and what later makes no difference to whether a level can be lifted.
    #[test]
    fn a_level_that_can_not_be_lifted_kills_nobody(forest in forest(), subject in 0u64..50, missing in 1u64..300) {
        for (rule, again) in rules().into_iter().zip(rules()) {
            let or_largest = matches!(&rule.victim, Victim::Among(among) if among.or_largest);
            let mut low = case(&forest, subject);
            let notice = Notice::Available((500 + missing) * MIB, std::time::Duration::ZERO);
            let victim = judged(&mut low, rule, notice);
            let (relief, is_in_vain) = (low.verdict.evidence.relief, low.verdict.is_in_vain());
            prop_assert!(!is_in_vain || !or_largest && relief.is_some_and(|relief| relief.is_in_vain()));
            prop_assert!(victim.is_none() || or_largest || relief.is_none_or(|relief| !relief.is_in_vain()));
            // With the processes of all candidates seen from the beginning somebody dies as well.
            let mut seen = case(&forest, subject);
            for candidate in &low.verdict.candidates {
                for at in candidate.group as usize..seen.groups[candidate.group as usize].subtree_end as usize {
                    seen.groups[at].processes = (seen.groups[at].populated == Some(true)).then_some(seen.processes[at]);
                }
            }
            judged(&mut seen, again, notice);
            // (Numbers of parents and children do not fit together here, so the other way round
            // need not hold.)
            prop_assert!(victim.is_none() || seen.verdict.decision != Decision::NoVictim);
        }
    }

    #[test]
    fn the_same_facts_give_the_same_verdict(forest in forest(), subject in 0u64..50) {
        for (rule, again) in rules().into_iter().zip(rules()) {
            let (mut first, mut second) = (case(&forest, subject), case(&forest, subject));
            judged(&mut first, rule, OOM);
            judged(&mut second, again, OOM);
            prop_assert_eq!(&first.verdict.candidates, &second.verdict.candidates);
            prop_assert_eq!(first.asked, second.asked);
        }
    }

    #[test]
    fn the_order_of_siblings_does_not_matter(forest in forest(), subject in 0u64..50, by in 0usize..20) {
        let mut turned = forest.clone();
        turn(&mut turned, by);
        for (rule, again) in rules().into_iter().zip(rules()) {
            prop_assert_eq!(judged(&mut case(&forest, subject), rule, OOM), judged(&mut case(&turned, subject), again, OOM));
        }
    }
}
