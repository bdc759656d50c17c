//! Facts for a judgement from what the warden holds open.

use std::time::Duration;

use super::senses::Senses;
use crate::cgroup::GroupId;
use crate::decide::verdict::Notice;
use crate::gather::court::{Court, Ruling};
use crate::policy::model::Policy;
use crate::sense::tree::{Slot, Tree};

impl Court {
    /// Judges. `None`: the subject is gone. `failed` are groups that could not be killed.
    #[expect(clippy::too_many_arguments, reason = "what one judgement concerns; a struct of borrows would only rename them")]
    pub fn judge(
        &mut self,
        policy: &Policy,
        rule: usize,
        subject: Slot,
        notice: &Notice,
        failed: &[GroupId],
        now: Duration,
        senses: &mut Senses,
        is_dying: impl Fn(&Tree, Slot) -> bool,
    ) -> Option<Ruling> {
        self.gather(policy, rule, subject, now, senses, is_dying);
        self.decide(policy, rule, subject, notice, failed, &mut senses.sight())
    }

    /// Gathers the facts of the whole tree.
    pub fn gather(
        &mut self,
        policy: &Policy,
        rule: usize,
        subject: Slot,
        now: Duration,
        senses: &mut Senses,
        is_dying: impl Fn(&Tree, Slot) -> bool,
    ) {
        let node = senses.read_node();
        self.gather_from(policy, rule, subject, now, node, &mut senses.sight(), is_dying);
        if senses.glances.doubts_any(now) {
            // Who is in such a group can't be told: unknown, like all that can't be read.
            for facts in self.facts.iter_mut().filter(|facts| senses.glances.doubts(now, facts.id)) {
                facts.populated = None;
            }
        }
    }
}
