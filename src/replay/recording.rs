//! Moments of a recording, one after the other: what would have started a judgement between two of them, and its verdict.
//!
//! Stall between two moments counts as if it had come at once, so a trigger whose window is shorter than the recording's interval
//! may be said to fire where it would not have. Nothing that this policy would have done changed the moments that follow, so the same
//! verdict over several of them is one [`Span`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::lines::SampleLine;
use super::moment::{Judged, Moment, Would};
use crate::decide::verdict::Notice;
use crate::policy::model::{Policy, Psi, PsiKind, Trigger};
use crate::policy::words;
use crate::record::facts::PsiLine;

/// Stall totals are kept as far back as the longest window of a trigger.
const KEPT_US: u64 = 10_000_000;

/// The same verdict on moments in a row.
#[derive(Clone, Debug)]
pub struct Span {
    /// The first moment's line: `FILE:LINE`.
    pub place: String,
    /// When it was.
    pub time: String,
    /// When the last one was.
    pub until: String,
    /// How many.
    pub moments: usize,
    /// The group that the notice would have come from.
    pub subject: String,
    /// What would have started it.
    pub trigger: String,
    /// The first moment's verdict.
    pub judged: Judged,
}

/// What one moment leaves for the next.
#[derive(Debug, Default)]
struct Left {
    at_us: u64,
    psi: HashMap<u64, PsiLine>,
    events: HashMap<u64, std::collections::BTreeMap<String, u64>>,
}

/// Goes through the moments of one file.
#[derive(Debug)]
pub struct Player {
    policy: Arc<Policy>,
    run: String,
    left: VecDeque<Left>,
    /// Since when a level is reached: by rule, trigger and subject.
    since: HashMap<(usize, usize, u64), u64>,
    /// Spans that the last moment belonged to: by rule and subject, their place in `spans`.
    open: HashMap<(usize, u64), usize>,
    /// Verdicts so far.
    pub spans: Vec<Span>,
    /// Moments so far.
    pub moments: usize,
    /// Judgements whose conditions did not hold.
    pub not_confirmed: usize,
}

impl Player {
    /// Before the first moment.
    #[must_use]
    pub fn new(policy: &Arc<Policy>) -> Player {
        Player {
            policy: Arc::clone(policy),
            run: String::new(),
            left: VecDeque::new(),
            since: HashMap::new(),
            open: HashMap::new(),
            spans: Vec::new(),
            moments: 0,
            not_confirmed: 0,
        }
    }

    /// The next moment, and the place of its line.
    pub fn next(&mut self, sample: &SampleLine, place: &str) {
        self.moments += 1;
        let in_order = self.left.back().is_none_or(|last| last.at_us < sample.at_us);
        if self.run != sample.run || !in_order {
            // Another recording in the same file.
            self.run.clone_from(&sample.run);
            (self.left, self.since, self.open) = (VecDeque::new(), HashMap::new(), HashMap::new());
        }
        let policy = Arc::clone(&self.policy);
        let moment = Moment::rebuild(&policy, &sample.facts.groups, sample.evidence.node());
        let now = Left {
            at_us: sample.at_us,
            psi: sample.facts.groups.iter().filter_map(|group| Some((group.id, group.psi?))).collect(),
            events: sample.facts.groups.iter().map(|group| (group.id, group.events.clone())).collect(),
        };
        let mut open = HashMap::new();
        for rule in 0..policy.rules.len() {
            let subjects: Vec<u32> = moment.subjects(rule).collect();
            for subject in subjects {
                let Some(id) = moment.groups.get(subject as usize).map(|group| group.id.0) else { continue };
                if let Some(judged) = self.judge(&moment, &now, rule, subject) {
                    let span = self.record(sample, place, &moment, subject, judged, self.open.get(&(rule, id)).copied());
                    open.insert((rule, id), span);
                }
            }
        }
        self.open = open;
        let oldest = now.at_us.saturating_sub(KEPT_US);
        while self.left.get(1).is_some_and(|second| second.at_us <= oldest) {
            self.left.pop_front();
        }
        self.left.push_back(now);
    }

    fn record(
        &mut self,
        sample: &SampleLine,
        place: &str,
        moment: &Moment<'_>,
        subject: u32,
        (trigger, judged): (String, Judged),
        before: Option<usize>,
    ) -> usize {
        let is_same = |span: &Span| span.judged.would == judged.would && span.judged.victim == judged.victim;
        if let Some((at, span)) = before.and_then(|at| Some((at, self.spans.get_mut(at)?))).filter(|(_, span)| is_same(span)) {
            span.until.clone_from(&sample.time);
            span.moments += 1;
            return at;
        }
        let subject = moment.groups.get(subject as usize).map(|group| group.path.to_string()).unwrap_or_default();
        self.spans.push(Span {
            place: place.to_owned(),
            time: sample.time.clone(),
            until: sample.time.clone(),
            moments: 1,
            subject,
            trigger,
            judged,
        });
        self.spans.len() - 1
    }

    /// The verdict, if a trigger fired and what must hold did.
    fn judge(&mut self, moment: &Moment<'_>, now: &Left, rule: usize, subject: u32) -> Option<(String, Judged)> {
        let policy = Arc::clone(&self.policy);
        let when = &policy.rules.get(rule)?.when;
        let mut fired = Vec::new();
        // All of them are asked, since some have to be reached for some time.
        for (at, trigger) in when.iter().enumerate() {
            fired.extend(self.fires(moment, now, (rule, at), trigger, subject).map(|notice| (trigger, notice)));
        }
        let was_fired = !fired.is_empty();
        for (trigger, notice) in fired {
            let judged = moment.judge(rule, subject, &notice, &[]);
            if judged.would != Would::NotConfirmed {
                return Some((words::Trigger(trigger).to_string(), judged));
            }
        }
        self.not_confirmed += usize::from(was_fired);
        None
    }

    fn fires(&mut self, moment: &Moment<'_>, now: &Left, key: (usize, usize), trigger: &Trigger, subject: u32) -> Option<Notice> {
        let id = moment.groups.get(subject as usize)?.id.0;
        let reached = moment.is_reached(trigger, subject) == Some(true);
        let key = (key.0, key.1, id);
        let held = if reached {
            let since = *self.since.entry(key).or_insert(now.at_us);
            std::time::Duration::from_micros(now.at_us - since)
        } else {
            self.since.remove(&key);
            std::time::Duration::ZERO
        };
        let lasted = |wait| reached && held >= wait;
        match *trigger {
            Trigger::Psi(psi) => (self.stall(now, psi, id)? >= psi.stall.as_micros()).then_some(Notice::Psi(psi)),
            Trigger::Event(kind) => {
                self.risen(moment, now, key.0, subject, words::event_word(kind)).map(|(before, after)| Notice::Event(kind, before, after))
            }
            Trigger::Usage(test, wait) => lasted(wait).then_some(Notice::Usage(test, held)),
            Trigger::Available(level, wait) => lasted(wait).then_some(Notice::Available(level.bytes(moment.node.total_bytes), held)),
            Trigger::SwapFree(level, wait) => lasted(wait).then_some(Notice::SwapFree(level.bytes(moment.node.swap_total_bytes), held)),
            Trigger::Lms(level) => reached.then_some(Notice::Lms(level)),
        }
    }

    /// Stall since the oldest moment within the trigger's window, or since the last one if that is longer ago.
    fn stall(&self, now: &Left, psi: Psi, id: u64) -> Option<u128> {
        let total = |left: &Left| match psi.kind {
            PsiKind::Some => left.psi.get(&id)?.some_us,
            PsiKind::Full => left.psi.get(&id)?.full_us,
        };
        let within = |left: &&Left| u128::from(now.at_us - left.at_us) <= psi.window.as_micros();
        let before = self.left.iter().filter(within).find_map(total).or_else(|| self.left.back().and_then(total))?;
        Some(u128::from(total(now)?.saturating_sub(before)))
    }

    /// How a counter rose in the subject, or in a group below it that no nearer subject of the rule stands for.
    fn risen(&self, moment: &Moment<'_>, now: &Left, rule: usize, subject: u32, event: &str) -> Option<(u64, u64)> {
        let last = self.left.back()?;
        let count = |left: &Left, id: u64| left.events.get(&id).and_then(|events| events.get(event)).copied();
        let stands_for = |at: u32| {
            let watched = |at: &u32| moment.groups.get(*at as usize).is_some_and(|group| group.class.subject_of.contains(rule));
            let parent = |at: &u32| moment.groups.get(*at as usize).and_then(|group| group.parent);
            std::iter::successors(Some(at), parent).find(watched) == Some(subject)
        };
        let end = moment.groups.get(subject as usize)?.subtree_end;
        (subject..end).filter(|at| stands_for(*at)).find_map(|at| {
            let id = moment.groups.get(at as usize)?.id.0;
            // A group that was not there a moment ago counted from nothing.
            let (before, after) = (count(last, id).unwrap_or(0), count(now, id)?);
            (after > before).then_some((before, after))
        })
    }
}
