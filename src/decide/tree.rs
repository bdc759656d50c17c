//! Walking a tree that is a slice in pre-order.
//!
//! Facts come from a live system, so nothing here trusts them: a `subtree_end` or `parent` that makes no sense is bent
//! into one that does, and no walk can run for ever or out of the slice.

use super::facts::GroupFacts;

/// The tree of a judgement. Every index handed to it comes from the tree itself.
#[derive(Clone, Copy)]
pub(super) struct Tree<'a>(pub(super) &'a [GroupFacts]);

impl<'a> Tree<'a> {
    /// How many groups.
    pub(super) fn len(self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The group at `at`.
    pub(super) fn group(self, at: u32) -> &'a GroupFacts {
        &self.0[at as usize]
    }

    /// One past the last descendant: above `at`, at most the length.
    pub(super) fn end(self, at: u32) -> u32 {
        self.group(at).subtree_end.clamp(at.saturating_add(1), self.len().max(at.saturating_add(1)))
    }

    /// The parent, if it stands before the group, as pre-order has it.
    pub(super) fn parent(self, at: u32) -> Option<u32> {
        self.group(at).parent.filter(|parent| *parent < at)
    }

    /// The group, its parent, and so on up to the root.
    pub(super) fn line(self, at: u32) -> impl Iterator<Item = u32> + 'a {
        std::iter::successors((at < self.len()).then_some(at), move |at| self.parent(*at))
    }

    /// The group and everything below it.
    pub(super) fn subtree(self, at: u32) -> &'a [GroupFacts] {
        &self.0[at as usize..self.end(at) as usize]
    }
}

impl GroupFacts {
    /// Whether the group is the root of what is managed.
    pub(super) fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether memory is accounted to the group and the group can be killed as a whole.
    pub(super) fn is_memcg(&self) -> bool {
        self.has_memory && !self.threaded
    }

    /// Whether the group may hold processes: what could not be read might.
    pub(super) fn may_be_populated(&self) -> bool {
        self.populated != Some(false)
    }

    /// Whether it lives and dies as one: memory.oom.group says so. Not the root, which never dies.
    pub(super) fn is_unit(&self) -> bool {
        self.oom_group && !self.is_root()
    }
}
