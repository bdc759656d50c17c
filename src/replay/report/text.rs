//! The answer for people: a line for each judgement, then what differs and why.

use std::fmt::Write as _;

use anstyle::Style;

use super::{Judgement, Report};
use crate::replay::moment::{Judged, Would};
use crate::terminal::{Columns, FAINT, HOLDS, STRONG, Styled, many};

/// How many judgements of a long journal have their reasons told.
const TOLD: usize = 20;

impl Report {
    /// As text with colours. `all`: reasons of every judgement that differs, and every judgement that does not.
    #[must_use]
    pub fn text(&self, all: bool) -> String {
        let mut out = String::new();
        // Writing to a text can't fail, here and below.
        let _ = writeln!(out, "policy {} ({})", self.policy.join(", "), self.policy_hash);
        let _ = writeln!(out, "{}", self.sum());
        let shown = |judgement: &&Judgement| all || !judgement.differs.is_empty();
        if self.judgements.iter().any(|judgement| shown(&judgement)) {
            out.push('\n');
            let mut table = Columns::headed(2, &["time", "subject", "recorded", "this policy", "differs"]);
            for judgement in self.judgements.iter().filter(shown) {
                table.row(judgement.style(), judgement.row());
            }
            table.write(&mut out);
        }
        let same = self.judgements.iter().filter(|judgement| !shown(judgement)).count();
        if same > 0 {
            let _ = writeln!(out, "  {} the same (--all shows them)", many(same, "judgement"));
        }
        let differing = || self.judgements.iter().filter(|judgement| !judgement.differs.is_empty());
        for judgement in differing().take(if all { usize::MAX } else { TOLD }) {
            out.push('\n');
            judgement.reasons(&mut out);
        }
        if !all && differing().count() > TOLD {
            let _ = writeln!(out, "\n{} more differ (--all tells why)", differing().count() - TOLD);
        }
        if !self.kernel_oom.is_empty() {
            let _ = writeln!(out, "\nkills by the kernel, which no policy decided:");
            for kill in &self.kernel_oom {
                let _ = writeln!(
                    out,
                    "  {}  {}  {}",
                    short(&kill.time),
                    kill.group.as_deref().unwrap_or("a group that is not named"),
                    kill.place
                );
            }
        }
        out
    }

    fn sum(&self) -> String {
        let mut parts = vec![format!("{} judged again, {} differ", many(self.judgements.len(), "judgement"), self.differing)];
        if self.moments > 0 {
            parts.push(format!(
                "{} of recordings looked at, what must hold did not on {}",
                many(self.moments, "moment"),
                self.not_confirmed
            ));
        }
        if self.passed_over > 0 {
            parts.push(format!("{} of other kinds passed over", many(self.passed_over, "line")));
        }
        if !self.problems.is_empty() {
            parts.push(format!("{} could not be used", many(self.problems.len(), "line")));
        }
        parts.join("; ")
    }
}

impl Judgement {
    fn style(&self) -> Style {
        if self.differs.is_empty() { FAINT } else { HOLDS }
    }

    fn row(&self) -> [String; 5] {
        let recorded = match &self.recorded {
            Some(recorded) => deed(&recorded.outcome, recorded.victim.as_deref()),
            None => format!("- ({})", many(self.moments.unwrap_or(1), "moment")),
        };
        let differs = if self.differs.is_empty() {
            "-".to_owned()
        } else {
            self.differs.iter().map(|difference| difference.word()).collect::<Vec<_>>().join(", ")
        };
        [short(&self.time), self.subject.clone(), recorded, self.now.deed(), differs]
    }

    fn reasons(&self, out: &mut String) {
        let until = self.until.as_ref().filter(|until| **until != self.time);
        let until = until.map_or_else(String::new, |until| format!(" to {}", short(until)));
        let _ = writeln!(out, "{}  {}{until}, {} at {}", Styled(STRONG, &self.place), short(&self.time), self.trigger, self.subject);
        if let Some(recorded) = &self.recorded {
            let reason = recorded.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            let _ =
                writeln!(out, "  recorded     {} by rule {}{reason}", deed(&recorded.outcome, recorded.victim.as_deref()), recorded.rule);
        }
        let _ = writeln!(out, "  this policy  {}{}{}", self.now.deed(), self.now.by_rule(), self.now.reason());
        for assumed in &self.now.assumed {
            let _ = writeln!(out, "  {}", Styled(FAINT, format_args!("not recorded, taken for ordinary: {assumed}")));
        }
    }
}

impl Judged {
    fn deed(&self) -> String {
        deed(self.would.word(), self.victim.as_deref())
    }

    fn by_rule(&self) -> String {
        self.rule.as_ref().map_or_else(String::new, |rule| format!(" by rule {rule}"))
    }

    fn reason(&self) -> String {
        let reason = match self.would {
            Would::NotJudged => self.why.clone(),
            Would::Kill | Would::Observe => self.candidates.first().map(|victim| victim.reason.clone()),
            Would::NoVictim => self.candidates.first().map(|struck| format!("{} {}", struck.group, struck.reason)),
            Would::NotConfirmed => Some("what must hold did not".to_owned()),
        };
        reason.map_or_else(String::new, |reason| format!(": {reason}"))
    }
}

fn deed(word: &str, victim: Option<&str>) -> String {
    let word = word.replace('_', " ");
    victim.map_or_else(|| word.clone(), |victim| format!("{word} {victim}"))
}

/// A time without the fraction that nobody reads: `2023-11-14T22:13:20Z`.
fn short(time: &str) -> String {
    let clean: String = time.chars().filter(|c| !c.is_control()).take(40).collect();
    match clean.split_once('.') {
        Some((seconds, rest)) if rest.ends_with('Z') => format!("{seconds}Z"),
        _ => clean,
    }
}
