//! Which group stands below which.

use crate::cgroup::GroupId;
use crate::sense::tree::{Slot, Tree};

/// Whether `slot` is `top` or stands below it.
#[must_use]
pub fn is_below(tree: &Tree, slot: Slot, top: Slot) -> bool {
    let mut at = Some(slot);
    while let Some(slot) = at {
        if slot == top {
            return true;
        }
        at = tree.get(slot).and_then(|node| node.parent);
    }
    false
}

/// Whether a group is `top` or stands below it. A group that has left the tree is below nothing but itself.
#[must_use]
pub fn below(tree: &Tree, group: GroupId, top: GroupId) -> bool {
    let mut at = tree.slot_of(group);
    while let Some(node) = at.and_then(|slot| tree.get(slot)) {
        if node.group.id == top {
            return true;
        }
        at = node.parent;
    }
    group == top
}

/// Whether `top` is a proper ancestor of `group`.
#[must_use]
pub fn is_above(tree: &Tree, top: GroupId, group: GroupId) -> bool {
    top != group && below(tree, group, top)
}

/// Whether a group is the root.
#[must_use]
pub fn is_root(tree: &Tree, group: GroupId) -> bool {
    tree.get(Tree::ROOT).is_some_and(|root| root.group.id == group)
}
