//! From facts to a verdict: who has to go, or why nobody does.
//!
//! Pure: no clock, no file, and no allocation once the buffers have room. The facts are values, so a judgement of a live
//! machine can be repeated later from its record, and a test is a table.
//!
//! A judgement goes through these steps, in this order, one file each:
//!
//! 1. A notice names a rule and a subject.
//! 2. [`conditions`]: does the trouble still stand on fresh facts, and whose shortage is it?
//! 3. `candidates`: the subject, or the leaves of what the rule names, so that no candidate contains another.
//! 4. `candidates` again: what must live is struck out, and with it, as a whole, everything that contains it.
//! 5. `rank`: strict importance, then who holds no shielded process, then the rule's keys.
//! 6. `relief`: a level that would stay if all of them died is no reason to kill.
//! 7. [`verdict`]: every candidate with the reason for its place.
//!
//! Facts about processes are expensive to gather, so they are asked for as late as possible: only of the groups that
//! would die with the candidate that stands first ([`Step::NeedProcesses`]), and against a level
//! with as many of the next as it takes to lift it. No verdict to kill is given before they have
//! been seen.
//!
//! Beside the judgement live the questions that follow it: [`process`] (which single process), [`recovery`] (is the
//! trouble over before the last rung), [`history`] (what keeps a rule still).

pub mod breaker;
pub mod conditions;
pub mod facts;
pub mod history;
pub mod process;
pub mod recovery;
pub mod verdict;

mod candidates;
mod rank;
mod relief;
mod tree;

#[cfg(test)]
mod tests;

use crate::policy::model::{Policy, RankKey, Rule, Victim};

use candidates::Survey;
use conditions::SubjectFacts;
use facts::{GroupFacts, GroupId, NodeFacts};
use rank::Place;
use relief::Shortfall;
use tree::Tree;
use verdict::{Candidate, Decision, EMPTIED, Notice, Standing, Strike, Verdict};

/// What a call of [`Judge::judge`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The verdict is complete.
    Decided,
    /// Fill in [`GroupFacts::processes`] of this group (index into the facts) and judge again. It always names a group
    /// whose `processes` is `None`, so a caller that does as told comes to an end. More may be filled in than was asked for.
    NeedProcesses(u32),
}

/// What a look at a victim, on its ladder already, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examined {
    /// Nothing speaks for it.
    MayDie,
    /// It must live: what came into it since the verdict is protected, or can't be told from what is.
    MustLive(Strike),
    /// As [`Step::NeedProcesses`].
    NeedProcesses(u32),
}

/// Judges. Holds the scratch buffers, so that judging allocates nothing while they have room.
#[derive(Debug, Default)]
pub struct Judge {
    survey: Survey,
    list: Vec<Candidate>,
    places: Vec<Place>,
}

impl Judge {
    /// A judge with room for trees of `groups` groups.
    #[must_use]
    pub fn with_capacity(groups: usize) -> Judge {
        let mut judge = Judge::default();
        judge.reserve(groups);
        judge
    }

    /// Makes room for trees of `groups` groups: to be called when groups appear, not when one is in trouble.
    pub fn reserve(&mut self, groups: usize) {
        self.survey.reserve(groups);
        self.list.reserve(groups.saturating_sub(self.list.len()));
        self.places.reserve(groups.saturating_sub(self.places.len()));
    }

    /// Judges `notice` for the rule at index `rule` of `policy` and the group at index `subject` of `groups`.
    ///
    /// `groups` is the whole tree in pre-order. Groups that are known to be removed must not be in it: one that merely
    /// could not be read counts as something that must live. `failed` are the groups that this ladder could not kill.
    /// The verdict in `out` is complete when this returns [`Step::Decided`]; it never exceeds `groups.len()` candidates.
    ///
    /// An unknown rule or subject is [`Decision::NotConfirmed`]: what the notice spoke of is no longer there.
    #[expect(clippy::too_many_arguments, reason = "they are the facts of one judgement; a struct of borrows would only rename them")]
    pub fn judge(
        &mut self,
        policy: &Policy,
        rule: usize,
        subject: u32,
        notice: &Notice,
        node: &NodeFacts,
        groups: &[GroupFacts],
        failed: &[GroupId],
        out: &mut Verdict,
    ) -> Step {
        out.candidates.clear();
        out.emptied = [None; EMPTIED];
        out.rule = u16::try_from(rule).unwrap_or(u16::MAX);
        out.subject = subject;
        out.decision = Decision::NotConfirmed;
        let tree = Tree(groups);
        let (Some(rules), Some(subject_facts)) = (policy.rules.get(rule), SubjectFacts::of(groups, subject)) else {
            return Step::Decided;
        };
        out.evidence = subject_facts.evidence(node);
        out.scope = conditions::scope(groups, subject, notice);
        if !conditions::confirmed(rules, notice, &subject_facts, node) {
            return Step::Decided;
        }

        out.decision = Decision::NoVictim;
        self.survey.look(tree, rule, subject, rules);
        self.list.clear();
        self.survey.candidates(tree, rules, subject, failed, &mut self.list);
        if let Some(unseen) = self.unseen_for_rank(tree, rules) {
            return Step::NeedProcesses(unseen);
        }
        self.places.clear();
        rank::order(tree, rules, &self.list, &mut self.places);
        if self.places.is_empty()
            && let Some(largest) = rank::largest_of_small(rules, &self.list)
        {
            self.places.push(largest);
        }
        let shortfall = Shortfall::of(rules, notice, subject, &subject_facts, node);
        out.evidence.relief = shortfall.map(|shortfall| shortfall.relief(tree, self.places.iter().map(|place| self.list[place.at].group)));
        if let Some(shortfall) = shortfall.filter(|_| !self.places.is_empty() && !relief::kills_anyway(rules)) {
            if out.evidence.relief.is_some_and(|relief| relief.is_in_vain()) {
                for place in &self.places {
                    out.candidates.push(Candidate { standing: Standing::Struck(Strike::InVain), ..self.list[place.at] });
                }
                self.places.clear();
                out.note_emptied(groups, shortfall.place(tree));
            } else if let Some(unseen) = self.unseen_for_relief(tree, &shortfall) {
                return Step::NeedProcesses(unseen);
            }
        }
        if let Some(first) = self.places.first().map(|place| self.list[place.at].group) {
            if let Some(unseen) = self.survey.unseen(tree, first) {
                return Step::NeedProcesses(unseen);
            }
            out.decision = Decision::Kill(first);
        }
        self.write_down(out);
        Step::Decided
    }

    /// Whether the victim of `rule` at index `victim` must live after all: to be asked before each rung of a ladder, since
    /// whoever must live may have come into it after the verdict. `one`: a single process of it is to be killed. That it is empty, or
    /// dying, is no reason.
    pub fn examine(&mut self, rule: &Rule, one: bool, victim: u32, groups: &[GroupFacts]) -> Examined {
        let tree = Tree(groups);
        self.survey.look(tree, usize::MAX, victim, rule);
        match self.survey.strike(tree, rule, one, victim) {
            Some(Strike::Empty | Strike::Dying) => Examined::MayDie,
            Some(strike) => Examined::MustLive(strike),
            None => self.survey.unseen(tree, victim).map_or(Examined::MayDie, Examined::NeedProcesses),
        }
    }

    /// A group whose processes must be seen before it is sure that those who may die can lift the
    /// level: who must live for the sake of its processes gives nothing back. As many as suffice,
    /// in the order in which they would die.
    fn unseen_for_relief(&self, tree: Tree<'_>, shortfall: &Shortfall) -> Option<u32> {
        let mut sum: u64 = 0;
        for place in &self.places {
            let group = self.list[place.at].group;
            let unseen = self.survey.unseen(tree, group);
            if unseen.is_some() {
                return unseen;
            }
            sum = sum.saturating_add(shortfall.could_free(tree, group)?);
            if sum >= shortfall.missing {
                return None;
            }
        }
        None
    }

    /// A group whose processes must be seen before the candidates can be compared at all.
    fn unseen_for_rank(&self, tree: Tree<'_>, rule: &Rule) -> Option<u32> {
        let Victim::Among(among) = &rule.victim else { return None };
        if !among.rank.iter().any(|by| by.key == RankKey::OomScore) {
            return None;
        }
        let ranked = self.list.iter().filter(|candidate| candidate.standing == Standing::Ranked);
        ranked.filter_map(|candidate| self.survey.unseen(tree, candidate.group)).next()
    }

    /// The chosen, the ranked in their order, the struck.
    fn write_down(&self, out: &mut Verdict) {
        for (at, place) in self.places.iter().enumerate() {
            let standing = if at == 0 { Standing::Chosen } else { Standing::Ranked };
            out.candidates.push(Candidate { standing, ..self.list[place.at] });
        }
        // with `or_largest` the chosen one stands in the list as struck for its size
        let chosen = self.places.first().map(|place| place.at);
        let struck = self.list.iter().enumerate().filter(|(_, candidate)| matches!(candidate.standing, Standing::Struck(_)));
        out.candidates.extend(struck.filter(|(at, _)| Some(*at) != chosen).map(|(_, candidate)| candidate));
    }
}

/// What a strike means for what stands below the struck group: whether its children take its place.
fn gives_way_to_children(strike: Strike) -> bool {
    matches!(strike, Strike::ContainsSpared(_))
}
