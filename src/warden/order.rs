//! In which order the notices of one turn are judged.
//!
//! Rules about the node's own level come first: nobody is served while the node runs out. Of nested subjects the
//! deepest comes first, because its trouble shows in everything above it; judged the other way round, an innocent
//! sibling would die for it. Among all others whoever would be missed least comes first, then the fattest.

use super::Pending;
use super::senses::below;
use crate::cgroup::GroupId;
use crate::decide::verdict::Notice;
use crate::sense::tree::Tree;

/// Whether a notice tells of the node's own level: available memory, free swap, the kernel module's signal.
pub(super) fn is_about_the_node(tree: &Tree, pending: &Pending) -> bool {
    let level = matches!(pending.notice, Notice::Available(..) | Notice::SwapFree(..) | Notice::Lms(_));
    level && tree.get(Tree::ROOT).is_some_and(|root| root.group.id == pending.subject)
}

/// Whether `top` is a proper ancestor of `group`.
pub(super) fn is_above(tree: &Tree, top: GroupId, group: GroupId) -> bool {
    top != group && below(tree, group, top)
}

/// Puts a batch, which was weighed, into the order in which it is judged; allocates nothing.
pub(super) fn order(tree: &Tree, batch: &mut [Pending]) {
    batch.sort_unstable_by_key(|pending| {
        let (importance, bytes) = pending.weight;
        (!is_about_the_node(tree, pending), importance, std::cmp::Reverse(bytes), pending.subject, pending.rule)
    });
    // Whoever has none below it among those that are left goes next; the others keep their order.
    for at in 0..batch.len() {
        if is_about_the_node(tree, &batch[at]) {
            continue;
        }
        let deepest = (at..batch.len()).find(|place| {
            let subject = batch[*place].subject;
            !batch[at..].iter().any(|other| is_above(tree, subject, other.subject))
        });
        if let Some(deepest) = deepest {
            batch[at..=deepest].rotate_right(1);
        }
    }
}
