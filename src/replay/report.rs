//! Everything that was read and judged again.

mod text;

use std::io::{self, BufRead};
use std::sync::Arc;

use serde::Serialize;

use super::again::{Difference, Recorded, again};
use super::lines::{Entry, each_line};
use super::moment::{Judged, Would};
use super::recording::{Player, Span};
use crate::policy::Loaded;
use crate::policy::model::Policy;

/// The answer.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub v: u32,
    /// Where the policy was read.
    pub policy: Vec<String>,
    /// The policy's fingerprint.
    pub policy_hash: String,
    /// Judgements, in the order of their lines.
    pub judgements: Vec<Judgement>,
    /// How many of them differ.
    pub differing: usize,
    /// Moments of recordings that were looked at.
    pub moments: usize,
    /// Judgements on moments whose conditions did not hold.
    pub not_confirmed: usize,
    /// Kills by the kernel, which no policy decided.
    pub kernel_oom: Vec<KernelOom>,
    /// Lines of other kinds, passed over.
    pub passed_over: usize,
    /// Lines that could not be used.
    pub problems: Vec<BadLine>,
    #[serde(skip)]
    asked: Arc<Policy>,
}

/// One judgement, or the same one on several moments in a row.
#[derive(Debug, Serialize)]
pub struct Judgement {
    /// `FILE:LINE`.
    pub place: String,
    /// When.
    pub time: String,
    /// For a recording: when it was the last moment of the same verdict.
    pub until: Option<String>,
    /// For a recording: on how many moments.
    pub moments: Option<usize>,
    /// The group that the notice came from.
    pub subject: String,
    /// What started it.
    pub trigger: String,
    /// What the journal says; `None` for a recording.
    pub recorded: Option<Recorded>,
    /// What the policy says.
    pub now: Judged,
    /// What is not the same. In a recording nothing was done, so that each deed is a difference.
    pub differs: Vec<Difference>,
}

/// A kill by the kernel.
#[derive(Debug, Serialize)]
pub struct KernelOom {
    /// `FILE:LINE`.
    pub place: String,
    /// When.
    pub time: String,
    /// Who lost a process, as far as the line says.
    pub group: Option<String>,
}

/// A line that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// `FILE:LINE`.
    pub place: String,
    /// Why.
    pub message: String,
}

impl Report {
    /// Nothing read yet.
    #[must_use]
    pub fn new(loaded: Loaded) -> Report {
        Report {
            v: 1,
            policy: loaded.places.files.iter().map(ToString::to_string).collect(),
            policy_hash: loaded.policy.hash.to_string(),
            judgements: Vec::new(),
            differing: 0,
            moments: 0,
            not_confirmed: 0,
            kernel_oom: Vec::new(),
            passed_over: 0,
            problems: Vec::new(),
            asked: Arc::new(loaded.policy),
        }
    }

    /// Reads one file and judges what it holds.
    ///
    /// # Errors
    /// It can't be read on; what was read before counts.
    pub fn read(&mut self, name: &str, file: impl BufRead) -> io::Result<()> {
        let policy = Arc::clone(&self.asked);
        let mut player = Player::new(&policy);
        let read = each_line(file, |number, entry| {
            let place = format!("{name}:{number}");
            let judged = entry.and_then(|entry| match entry {
                Entry::Judgement(line) => again(&policy, &line).map(|(recorded, now, differs)| {
                    self.judgements.push(Judgement {
                        place: place.clone(),
                        time: line.time,
                        until: None,
                        moments: None,
                        subject: line.subject,
                        trigger: line.trigger,
                        recorded: Some(recorded),
                        now,
                        differs,
                    });
                }),
                Entry::KernelOom(line) => {
                    self.kernel_oom.push(KernelOom { place: place.clone(), time: line.time, group: line.group.or(line.oom_memcg) });
                    Ok(())
                }
                Entry::Sample(line) => {
                    player.next(&line, &place);
                    Ok(())
                }
                Entry::Other(_) => {
                    self.passed_over += 1;
                    Ok(())
                }
            });
            if let Err(problem) = judged {
                self.problems.push(BadLine { place, message: problem.to_string() });
            }
        });
        self.moments += player.moments;
        self.not_confirmed += player.not_confirmed;
        self.judgements.extend(player.spans.into_iter().map(Judgement::from));
        self.differing = self.judgements.iter().filter(|judgement| !judgement.differs.is_empty()).count();
        read
    }
}

impl From<Span> for Judgement {
    fn from(span: Span) -> Judgement {
        let is_deed = span.judged.would == Would::Kill;
        Judgement {
            place: span.place,
            time: span.time,
            until: Some(span.until),
            moments: Some(span.moments),
            subject: span.subject,
            trigger: span.trigger,
            recorded: None,
            now: span.judged,
            differs: if is_deed { vec![Difference::Outcome] } else { Vec::new() },
        }
    }
}
