//! Whether killing can help against a level: how much is missing, and how much all candidates
//! together could give back.
//!
//! tmpfs, kernel memory, and what a group was charged with by processes that have left it do not go
//! when somebody dies. Where the candidates can't lift the level even if all of them died, nobody
//! does. What they could give back is counted as an upper bound, and a number that is not known
//! counts as enough, so that no kill that might help is refused.
//!
//! Only levels are asked: stall and events are about processes that can't get on, and what the
//! kernel is about to kill by itself ([`LmsLevel::Oom`]) is better chosen here.

use super::conditions::{self, SubjectFacts};
use super::facts::NodeFacts;
use super::tree::Tree;
use super::verdict::{Notice, Relief};
use crate::policy::model::{AmongGroups, LmsLevel, Rule, Victim};

/// What a level is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Memory of the node.
    Ram,
    /// The same, and free swap would do as well.
    RamOrSwap,
    /// Swap of the node.
    Swap,
    /// What is charged to the subject.
    Subject,
}

/// How far a level is from being lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortfall {
    of: Of,
    /// Index of the subject.
    subject: u32,
    /// How much must come back, bytes.
    pub(super) missing: u64,
}

impl Shortfall {
    /// That of a notice which holds; `None` where it is no level, and where it can't be told.
    pub(super) fn of(rule: &Rule, notice: &Notice, at: u32, subject: &SubjectFacts, node: &NodeFacts) -> Option<Shortfall> {
        let available = |level: u64| Some(level.saturating_sub(node.available_bytes?));
        let (of, missing) = match notice {
            Notice::Available(level, _) => (Of::Ram, available(*level)?),
            Notice::SwapFree(level, _) => (Of::Swap, level.saturating_sub(node.swap_free_bytes?)),
            Notice::Usage(test, _) => {
                let missing = conditions::usage(subject, node)?.saturating_sub(conditions::threshold(test, subject, node)?.bytes()?);
                (if subject.root { Of::Ram } else { Of::Subject }, missing)
            }
            Notice::Lms(level @ (LmsLevel::Warn | LmsLevel::Kill)) => {
                let lms = node.lms?;
                let below = if *level == LmsLevel::Warn { lms.warn_bytes } else { lms.kill_bytes };
                // The level needs memory and swap to be low. How low swap has to be the module does
                // not tell.
                (if node.swap_total_bytes == 0 { Of::Ram } else { Of::RamOrSwap }, available(below)?)
            }
            Notice::Lms(LmsLevel::Oom) | Notice::Psi(_) | Notice::Event(..) => return None,
        };
        // Where each subject has candidates of its own, those of the others could help as well, and
        // they are not known here.
        let has_all_candidates =
            subject.root || matches!(&rule.victim, Victim::Among(among) if matches!(among.groups, AmongGroups::Globs(_)));
        (has_all_candidates || of == Of::Subject).then_some(Shortfall { of, subject: at, missing })
    }

    /// The most that the death of the group at `at` could give back; `None`: not known, which
    /// counts as enough.
    pub(super) fn could_free(&self, tree: Tree<'_>, at: u32) -> Option<u64> {
        let ram = |at: u32| tree.group(at).memory.could_leave_ram();
        let swap = tree.group(at).memory.swap;
        match self.of {
            // Swap may be zram, which is memory that no group is charged with.
            Of::Ram => Some(ram(at)?.saturating_add(swap?)),
            Of::RamOrSwap if swap? > 0 => None,
            Of::RamOrSwap => ram(at),
            Of::Swap => swap,
            Of::Subject if (self.subject..tree.end(self.subject)).contains(&at) => tree.group(at).memory.could_be_uncharged(),
            // The subject dies with it.
            Of::Subject if (at..tree.end(at)).contains(&self.subject) => tree.group(self.subject).memory.could_be_uncharged(),
            Of::Subject => Some(0),
        }
    }

    /// The range of groups that may hold what is missing.
    pub(super) fn place(&self, tree: Tree<'_>) -> std::ops::Range<u32> {
        if self.of == Of::Subject { self.subject..tree.end(self.subject) } else { 0..tree.len() }
    }

    /// The numbers for the record: what `groups` could give back in all.
    pub(super) fn relief(&self, tree: Tree<'_>, mut groups: impl Iterator<Item = u32>) -> Relief {
        let could_free = groups.try_fold(0, |sum: u64, at| Some(sum.saturating_add(self.could_free(tree, at)?)));
        Relief { missing: self.missing, could_free }
    }
}

/// Whether a rule kills where that can't help: it asked for the largest whatever comes of it.
pub(super) fn kills_anyway(rule: &Rule) -> bool {
    matches!(&rule.victim, Victim::Among(among) if among.or_largest)
}
