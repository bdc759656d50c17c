//! The plan for people: what would happen first, then why.

use std::fmt::Write as _;

use anstyle::Style;

use super::{CandidatePlan, InVain, Outcome, Plan, RulePlan, SubjectPlan, Test, Toll};
use crate::terminal::{Columns, DEADLY, FAINT, HOLDS, SAFE, STRONG, Styled, many};
use crate::units::Bytes;

/// How many candidates of a kind (may die, must live) are shown unless all are asked for.
const SHOWN: usize = 8;

impl Plan {
    /// The plan as text with colours. `all`: every subject and every candidate.
    #[must_use]
    pub fn text(&self, all: bool) -> String {
        let mut out = String::new();
        self.head(&mut out);
        for rule in &self.rules {
            out.push('\n');
            rule.text(all, &mut out);
        }
        if self.rules.is_empty() {
            out.push_str("\nthe policy has no rules: nobody would be killed\n");
        }
        out
    }

    fn head(&self, out: &mut String) {
        let node = &self.node;
        let known = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
        // Writing to a text can't fail, here and below.
        let _ = writeln!(out, "policy {} ({}), {}", self.policy.join(", "), self.policy_hash, many(self.groups, "group"));
        let _ = write!(out, "{} of {} memory available", known(node.available_bytes), Bytes(node.total_bytes));
        let _ = match node.swap_total_bytes {
            0 => writeln!(out, ", no swap"),
            total => writeln!(out, ", {} of {} swap free", known(node.swap_free_bytes), Bytes(total)),
        };
        match &self.daemon {
            Some(daemon) => {
                let group = daemon.group.as_deref().unwrap_or("a group that is not known here");
                let _ = writeln!(out, "oomwarden is running as process {} in {group}", daemon.pid);
            }
            None => out.push_str("no running oomwarden was found: where it would run is not spared below\n"),
        }
        if let Some(watched) = self.watched_us {
            let _ = writeln!(out, "growth and pressure as seen within {}.{:03} s", watched / 1_000_000, watched % 1_000_000 / 1000);
        }
        if self.incomplete {
            let _ = writeln!(out, "{}", Styled(HOLDS, "some groups are there and could not be looked at: run this as root"));
        }
    }
}

impl RulePlan {
    fn text(&self, all: bool, out: &mut String) {
        let RulePlan { rule, place, mode, watch, subjects } = self;
        let _ = writeln!(out, "{}  {mode}, watches {} ({place})", Styled(STRONG, format_args!("rule {rule}")), watch.join(", "));
        if subjects.is_empty() {
            out.push_str("  no such group is there\n");
            return;
        }
        // What would happen is told whole; of what would not, only as much as fits the eye.
        let told = |subject: &&SubjectPlan| all || subjects.len() == 1 || subject.outcome != Outcome::NotConfirmed;
        for subject in subjects.iter().filter(told) {
            subject.text(mode, all, out);
        }
        let quiet = subjects.iter().filter(|subject| !told(subject)).count();
        if quiet > 0 {
            let _ = writeln!(out, "  {}: what must hold does not (--all shows them)", many(quiet, "subject"));
        }
    }
}

impl SubjectPlan {
    fn text(&self, mode: &str, all: bool, out: &mut String) {
        let _ = writeln!(out, "  {}  {}", Styled(STRONG, format_args!("subject {}", self.subject)), self.outcome_text(mode));
        let mut tests = Columns::new(4);
        for (what, list) in [("when", &self.triggers), ("only_if", &self.conditions)] {
            for (at, test) in list.iter().enumerate() {
                let what = if at == 0 { what } else { "" };
                tests.row(test.style(), [what.to_owned(), test.wording(), test.seen()]);
            }
        }
        tests.write(out);
        if let Some(InVain { trigger, reason, .. }) = &self.in_vain {
            let _ = writeln!(out, "    {}", Styled(SAFE, format_args!("{trigger} would kill nobody: {reason}")));
        }
        if self.candidates.is_empty() {
            return;
        }
        let mut table = Columns::headed(4, &["rank", "group", "usage", "importance", "reason"]).right(0).right(2).right(3);
        let (may_die, must_live): (Vec<_>, Vec<_>) = self.candidates.iter().partition(|candidate| candidate.rank.is_some());
        let mut left_out = Vec::new();
        for (candidates, what) in [(may_die, "that may die"), (must_live, "that must live")] {
            let shown = if all { candidates.len() } else { SHOWN };
            for candidate in candidates.iter().take(shown) {
                table.row(candidate.style(), candidate.row());
            }
            match candidates.len().saturating_sub(shown) {
                0 => {}
                more => left_out.push(format!("{more} more {what}")),
            }
        }
        table.write(out);
        if !left_out.is_empty() {
            let _ = writeln!(out, "    {} (--all shows them)", left_out.join(", "));
        }
    }

    fn outcome_text(&self, mode: &str) -> String {
        match (self.outcome, &self.victim) {
            (Outcome::NotConfirmed, Some(toll)) => {
                let quiet = Styled(SAFE, "nothing would happen: what must hold does not");
                format!("{quiet}; if it did: {}", toll.text())
            }
            (Outcome::NotConfirmed, None) => {
                format!("{}; if it did: nobody may be killed", Styled(SAFE, "nothing would happen: what must hold does not"))
            }
            (_, None) if self.in_vain.is_some() => format!("{}", Styled(SAFE, "nobody would be killed, because that would not help")),
            (_, None) => format!("{}", Styled(HOLDS, "nobody may be killed")),
            (_, Some(toll)) if mode == "observe" => {
                format!("{}", Styled(HOLDS, format_args!("if a trigger fires now: record only: {}", toll.text())))
            }
            (_, Some(toll)) => format!("{}", Styled(DEADLY, format_args!("if a trigger fires now: {}", toll.text()))),
        }
    }
}

impl Toll {
    fn text(&self) -> String {
        let Toll { group, kill, groups, processes, bytes, pid, before } = self;
        let before = if before.is_empty() { String::new() } else { format!(", after {}", before.join(", ")) };
        if *kill == "process" {
            return match pid {
                Some(pid) => format!("kill one process of {group}: {pid}{before}"),
                None => format!("kill one process of {group}, but none is there"),
            };
        }
        let processes = processes.map_or_else(|| "processes that can't be counted".to_owned(), |count| many(count as usize, "process"));
        let bytes = bytes.map_or_else(String::new, |bytes| format!(", {} freed", Bytes(bytes)));
        format!("kill {group}: {}, {processes}{bytes}{before}", many(*groups, "group"))
    }
}

impl Test {
    fn wording(&self) -> String {
        if self.implied { format!("{} (implied)", self.test) } else { self.test.clone() }
    }

    fn style(&self) -> Style {
        if self.holds == Some(true) { HOLDS } else { Style::new() }
    }

    pub(super) fn seen(&self) -> String {
        if self.test.starts_with("lms: ") {
            return match (self.now, self.holds) {
                (Some(now), Some(true)) => format!("holds: the kernel module says {now}"),
                (Some(now), _) => format!("does not hold: the kernel module says {now}"),
                (None, _) => "never happens: the kernel module is not loaded".to_owned(),
            };
        }
        if self.happens {
            return "told by the kernel when it happens".to_owned();
        }
        let relation = if self.test.starts_with("usage") { "above" } else { "below" };
        let negation = if self.holds == Some(false) { "not " } else { "" };
        let numbers = match (self.now_bytes, self.level_bytes) {
            (Some(now), Some(level)) => format!("{} is {negation}{relation} {}", Bytes(now), Bytes(level)),
            (_, None) if self.holds == Some(true) => "there is none".to_owned(),
            (_, None) if self.test.starts_with("swap_free") => "there is none, or less than that, which is no trouble".to_owned(),
            (Some(now), None) => format!("{}, and no limit is set", Bytes(now)),
            (None, _) => return "can't be told: the number could not be read".to_owned(),
        };
        match self.holds {
            Some(true) => format!("holds: {numbers}"),
            Some(false) => format!("does not hold: {numbers}"),
            None => "can't be told: a number could not be read".to_owned(),
        }
    }
}

impl CandidatePlan {
    fn style(&self) -> Style {
        match self.rank {
            Some(1) => DEADLY,
            Some(_) => Style::new(),
            None => FAINT,
        }
    }

    fn row(&self) -> [String; 5] {
        let rank = self.rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
        let usage = self.usage_bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
        // The column says the rank already.
        let reason = self.reason.strip_prefix(&format!("ranked {rank}: ")).unwrap_or(&self.reason);
        [rank, self.group.clone(), usage, self.importance.to_string(), reason.to_owned()]
    }
}
