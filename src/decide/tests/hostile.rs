//! Facts that make no sense: no panic, no endless loop.

use proptest::prelude::*;

use super::fixture::*;
use crate::decide::facts::ProcessFacts;
use crate::decide::verdict::{Notice, Verdict};
use crate::decide::{Judge, Step};
use crate::policy::model::{EventKind, LmsLevel};

proptest! {
    #[test]
    fn broken_trees_are_judged_all_the_same(
        links in prop::collection::vec((prop::option::of(0u32..12), 0u32..14), 1..10),
        subject in 0u32..12,
        which in 0usize..3,
        lms in any::<bool>(),
    ) {
        let mut case = tree("a among");
        let pattern = case.groups[1].clone();
        case.groups.clear();
        for (parent, subtree_end) in links {
            let mut group = pattern.clone();
            (group.parent, group.subtree_end) = (parent, subtree_end);
            case.groups.push(group);
        }
        let policy = policy([subject_rule, among_rule, leaves_rule][which]());
        let (mut judge, mut verdict) = (Judge::default(), Verdict::with_capacity(0));
        for _ in 0..=case.groups.len() {
            let notice = if lms { Notice::Lms(LmsLevel::Oom) } else { event(EventKind::Oom) };
            match judge.judge(&policy, 0, subject, &notice, &node(), &case.groups, &[], &mut verdict) {
                Step::Decided => return Ok(()),
                Step::NeedProcesses(at) => case.groups[at as usize].processes = Some(ProcessFacts::default()),
            }
        }
        prop_assert!(false, "it does not end");
    }
}
