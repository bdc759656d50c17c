//! The status for people: what is out of the ordinary first.

use std::fmt::Write as _;

use anstyle::Style;

use super::{Deed, Status};
use crate::terminal::{Columns, DEADLY, FAINT, HOLDS, SAFE, STRONG, Styled, many};
use crate::units::Bytes;

/// Watched groups that are shown unless all are asked for.
const SHOWN: usize = 20;

/// A time as one says it: `45s`, `9m 30s`, `2h 5m`, `3d 4h`.
#[must_use]
pub fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Text of another program's making on one line, whatever is in it.
fn plain(text: &str) -> String {
    crate::cgroup::path::Escaped(text.as_bytes()).to_string()
}

fn bytes(bytes: Option<u64>, without: &str) -> String {
    bytes.map_or_else(|| without.to_owned(), |bytes| Bytes(bytes).to_string())
}

impl Status {
    /// The status as text with colours. `all`: every watched group.
    #[must_use]
    pub fn text(&self, all: bool) -> String {
        let mut out = String::new();
        self.head(&mut out);
        self.rules_text(&mut out);
        self.breakers_text(&mut out);
        self.subjects_text(all, &mut out);
        self.last_text(&mut out);
        out
    }

    fn head(&self, out: &mut String) {
        // Writing to a text can't fail, here and below.
        let ready = if self.ready { Styled(SAFE, "ready") } else { Styled(HOLDS, "not ready: its groups are not armed yet") };
        let head = format!("oomwarden {}", plain(&self.version));
        let _ = writeln!(out, "{}  process {}, up for {}, {ready}", Styled(STRONG, head), self.pid, time(self.uptime_seconds));
        for degraded in &self.degraded {
            let _ = writeln!(out, "{}: {}", Styled(DEADLY, format!("DEGRADED ({})", plain(&degraded.reason))), plain(&degraded.text));
        }
        if let Some(paused) = &self.paused {
            let by = paused.by.map_or_else(String::new, |by| format!(", by {by}"));
            let text = format!("deeds are PAUSED until {} ({} left{by})", plain(&paused.until), time(paused.remaining_seconds));
            let _ = writeln!(out, "{}: `oomwarden resume` ends that", Styled(DEADLY, text));
        }
        let _ = writeln!(
            out,
            "policy {}, {}, {}{}",
            plain(&self.policy.hash),
            plain(&self.policy.mode),
            many(self.rules.len(), "rule"),
            self.limit.as_ref().map_or_else(String::new, |limit| {
                format!(", at most {} per {} for a rule and a subject", many(limit.kills as usize, "kill"), time(limit.per_seconds))
            })
        );
        if self.is_refused_without_reason() {
            let text = "the policy that was offered last is REFUSED, an older one is in force";
            let _ = writeln!(out, "{}: `oomwarden check` says why", Styled(DEADLY, text));
        }
        let _ = write!(out, "{}, {} armed", many(self.groups.total, "group"), many(self.psi_triggers.armed, "PSI trigger"));
        let fallbacks = [(self.groups.by_timer, "group"), (self.psi_triggers.by_timer, "trigger")];
        let fallbacks: Vec<String> = fallbacks.iter().filter(|(number, _)| *number > 0).map(|(number, what)| many(*number, what)).collect();
        let _ = match &fallbacks[..] {
            [] => writeln!(out, ", nothing on a timer"),
            some => writeln!(out, ", {} (`oomwarden doctor` says why)", Styled(HOLDS, format!("on a timer: {}", some.join(" and ")))),
        };
        match &self.module {
            None => out.push_str("kernel module: not loaded\n"),
            Some(module) => {
                let style = if module.level == "ok" { SAFE } else { DEADLY };
                let part = if module.handler {
                    format!("answered by this daemon, {} in its table", many(usize::try_from(module.table).unwrap_or(usize::MAX), "rule"))
                } else {
                    "holds nothing for this daemon".to_owned()
                };
                let _ = writeln!(
                    out,
                    "kernel module: level {}, {part}; {} ({} resolved, {} expired, {} passed), {} by the table",
                    Styled(style, plain(&module.level)),
                    many(usize::try_from(module.holds).unwrap_or(usize::MAX), "hold"),
                    module.resolved,
                    module.expired,
                    module.passed,
                    many(usize::try_from(module.table_kills).unwrap_or(usize::MAX), "kill"),
                );
            }
        }
    }

    fn rules_text(&self, out: &mut String) {
        if self.rules.is_empty() {
            out.push_str("\nthe policy has no rules: nobody is ever killed\n");
            return;
        }
        out.push('\n');
        let mut table = Columns::headed(0, &["rule", "mode", "watches", "now", "when", "kills"]).right(3).right(5);
        for rule in &self.rules {
            let style = if rule.mode == "observe" { FAINT } else { Style::new() };
            let when: Vec<String> = rule.when.iter().map(|when| plain(when)).collect();
            let watch: Vec<String> = rule.watch.iter().map(|glob| plain(glob)).collect();
            let subjects = if rule.watch.iter().any(|glob| glob == "/") { rule.subjects + 1 } else { rule.subjects };
            table.row(
                style,
                [plain(&rule.name), plain(&rule.mode), watch.join(" "), subjects.to_string(), when.join("; "), rule.kills.to_string()],
            );
        }
        table.write(out);
    }

    fn breakers_text(&self, out: &mut String) {
        if self.breakers.is_empty() && self.breakers_left_out == 0 {
            return;
        }
        let _ = writeln!(out, "\n{}", Styled(HOLDS, "open breakers: these rules only observe there"));
        let mut table = Columns::headed(0, &["rule", "subject", "closes in"]).right(2);
        for breaker in &self.breakers {
            table.row(HOLDS, [plain(&breaker.rule), plain(&breaker.subject), time(breaker.closes_in_seconds)]);
        }
        table.write(out);
        if self.breakers_left_out > 0 {
            let _ = writeln!(out, "and {} more", self.breakers_left_out);
        }
    }

    fn subjects_text(&self, all: bool, out: &mut String) {
        if self.subjects.is_empty() {
            return;
        }
        out.push('\n');
        let mut table = Columns::headed(0, &["watched group", "memory", "limit", "noticed by", "rules"]).right(1).right(2);
        // The fullest first.
        let mut subjects: Vec<_> = self.subjects.iter().collect();
        subjects.sort_by_key(|subject| std::cmp::Reverse(subject.memory_bytes));
        let shown = if all { subjects.len() } else { SHOWN };
        for subject in subjects.iter().take(shown) {
            let rules: Vec<String> = subject.rules.iter().map(|rule| plain(rule)).collect();
            let noticed = if subject.psi { "stall, events" } else { "events" };
            table.row(
                Style::new(),
                [
                    plain(&subject.group),
                    bytes(subject.memory_bytes, "unknown"),
                    bytes(subject.limit_bytes, "none"),
                    noticed.to_owned(),
                    rules.join(" "),
                ],
            );
        }
        table.write(out);
        match subjects.len().saturating_sub(shown) + self.subjects_left_out {
            0 => {}
            more if self.subjects_left_out == 0 => {
                let _ = writeln!(out, "and {more} more (--all shows them)");
            }
            more => {
                let _ = writeln!(out, "and {more} more");
            }
        }
    }

    fn last_text(&self, out: &mut String) {
        if self.last.is_empty() {
            out.push_str("\nnothing was done, or would have been, since the start\n");
            return;
        }
        out.push('\n');
        let mut table = Columns::headed(0, &["last", "what", "group", "rule", "after", "processes", "freed"]).right(5).right(6);
        for deed in &self.last {
            table.row(deed.style(), deed.row());
        }
        table.write(out);
    }
}

impl Deed {
    fn style(&self) -> Style {
        match self.outcome.as_deref() {
            Some("killed" | "ended" | "failed") => DEADLY,
            Some("no_victim" | "breaker" | "paused") => HOLDS,
            _ if self.kind == "kernel_oom" => DEADLY,
            _ => Style::new(),
        }
    }

    /// What it says in columns: time, what, group, rule, trigger, processes, freed.
    #[must_use]
    pub fn row(&self) -> [String; 7] {
        let what = match &self.outcome {
            Some(outcome) if self.kind == "judgement" => plain(outcome),
            _ => plain(&self.kind),
        };
        let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
        let group = if self.victim.is_some() { &self.victim } else { &self.group };
        let gone = if self.outcome.as_deref() == Some("ended") { self.processes_ended } else { self.processes_killed };
        let processes = gone.map_or_else(|| "-".to_owned(), |count| count.to_string());
        // To the second: `2023-11-14T22:13:20Z`.
        let time = self.time.split_once('.').map_or_else(|| self.time.clone(), |(whole, _)| format!("{whole}Z"));
        [plain(&time), what, or_dash(group), or_dash(&self.rule), or_dash(&self.trigger), processes, bytes(self.freed_bytes, "-")]
    }
}
