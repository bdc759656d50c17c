//! The words of a policy's vocabularies, in both directions: from text to value for who reads a policy or a journal, from value to text for
//! the journal, the log and the labels of metrics. Pure.

use std::fmt;
use std::time::Duration;

use super::model::{self, EventKind, Level, LmsLevel, Mode, PsiKind, RankKey, UsageOf, UsageTest};

/// The events of memory.events and how a policy calls them.
pub(super) const EVENTS: [(&str, EventKind); 6] = [
    ("low", EventKind::Low),
    ("high", EventKind::High),
    ("max", EventKind::Max),
    ("oom", EventKind::Oom),
    ("oom_kill", EventKind::OomKill),
    ("oom_group_kill", EventKind::OomGroupKill),
];

/// The levels of the kernel module's signal that can start a judgement.
pub(super) const LMS_LEVELS: [(&str, LmsLevel); 3] = [("warn", LmsLevel::Warn), ("kill", LmsLevel::Kill), ("oom", LmsLevel::Oom)];

pub(super) const RANK_KEYS: [(&str, RankKey); 7] = [
    ("usage", RankKey::Usage),
    ("swap", RankKey::Swap),
    ("growth", RankKey::Growth),
    ("pressure", RankKey::Pressure),
    ("overage", RankKey::Overage),
    ("oom_score", RankKey::OomScore),
    ("age", RankKey::Age),
];

/// The modes.
pub(super) const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];

/// The kinds of pressure.
const PSI_KINDS: [(&str, PsiKind); 2] = [("some", PsiKind::Some), ("full", PsiKind::Full)];

/// What usage may be a share of.
pub(super) const USAGE_OF: [(&str, UsageOf); 3] = [("max", UsageOf::Max), ("high", UsageOf::High), ("node", UsageOf::Node)];

/// The value that a word stands for.
fn named<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

/// A counter of memory.events by its name.
#[must_use]
pub fn event_named(word: &str) -> Option<EventKind> {
    named(&EVENTS, word)
}

/// A level of the kernel module's by its word; `ok` is none.
#[must_use]
pub fn lms_level_named(word: &str) -> Option<LmsLevel> {
    named(&LMS_LEVELS, word)
}

/// A rank key by its name.
#[must_use]
pub fn rank_key_named(word: &str) -> Option<RankKey> {
    named(&RANK_KEYS, word)
}

/// A kind of pressure by its name.
#[must_use]
pub fn psi_kind_named(word: &str) -> Option<PsiKind> {
    named(&PSI_KINDS, word)
}

/// A mode by its name.
#[must_use]
pub fn mode_named(word: &str) -> Option<Mode> {
    named(&MODES, word)
}

/// What usage is a share of, by its name.
#[must_use]
pub fn usage_of_named(word: &str) -> Option<UsageOf> {
    named(&USAGE_OF, word)
}

/// The counter's name in memory.events.
#[must_use]
pub const fn event_word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Low => "low",
        EventKind::High => "high",
        EventKind::Max => "max",
        EventKind::Oom => "oom",
        EventKind::OomKill => "oom_kill",
        EventKind::OomGroupKill => "oom_group_kill",
    }
}

/// The level's name in /proc/oom_notifier; `None` is `ok`.
#[must_use]
pub const fn lms_word(level: Option<LmsLevel>) -> &'static str {
    match level {
        None => "ok",
        Some(LmsLevel::Warn) => "warn",
        Some(LmsLevel::Kill) => "kill",
        Some(LmsLevel::Oom) => "oom",
    }
}

/// The rank key's name in a policy.
#[must_use]
pub const fn key_word(key: RankKey) -> &'static str {
    match key {
        RankKey::Usage => "usage",
        RankKey::Swap => "swap",
        RankKey::Growth => "growth",
        RankKey::Pressure => "pressure",
        RankKey::Overage => "overage",
        RankKey::OomScore => "oom_score",
        RankKey::Age => "age",
    }
}

/// `some` or `full`.
#[must_use]
pub const fn psi_word(kind: PsiKind) -> &'static str {
    match kind {
        PsiKind::Some => "some",
        PsiKind::Full => "full",
    }
}

/// The mode as a policy words it.
#[must_use]
pub const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

/// What usage is a share of, as a policy words it.
#[must_use]
pub const fn usage_of_word(of: UsageOf) -> &'static str {
    match of {
        UsageOf::Max => "max",
        UsageOf::High => "high",
        UsageOf::Node => "node",
    }
}

/// A policy's trigger, nearly as it stands there: `psi: full 100ms/500ms`.
#[derive(Clone, Copy, Debug)]
pub struct Trigger<'a>(pub &'a model::Trigger);

impl fmt::Display for Trigger<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            model::Trigger::Psi(psi) => write_psi(f, psi),
            model::Trigger::Event(kind) => write!(f, "event: {}", event_word(kind)),
            model::Trigger::Usage(test, held) => write_usage(f, test, held),
            model::Trigger::Available(level, held) => write!(f, "available: below {}{}", LevelText(level), Held(held)),
            model::Trigger::SwapFree(level, held) => write!(f, "swap_free: below {}{}", LevelText(level), Held(held)),
            model::Trigger::Lms(level) => write!(f, "lms: {}", lms_word(Some(level))),
        }
    }
}

/// A policy's rung in words, if it is not the kill.
#[must_use]
pub fn rung_before_the_kill(rung: &model::Rung) -> Option<String> {
    match rung {
        model::Rung::Warn { signal: Some(signal), wait } => Some(format!("warn ({signal}, {})", Time(*wait))),
        model::Rung::Warn { signal: None, wait } => Some(format!("warn ({})", Time(*wait))),
        model::Rung::Hook(hook) => {
            let program = hook.exec.first().map_or("", String::as_str);
            Some(format!("hook {} ({})", program.escape_debug(), Time(hook.timeout)))
        }
        model::Rung::Term { wait } => Some(format!("term ({})", Time(*wait))),
        model::Rung::Kill(_) => None,
    }
}

pub(crate) fn write_psi(f: &mut fmt::Formatter<'_>, psi: model::Psi) -> fmt::Result {
    write!(f, "psi: {} {}/{}", psi_word(psi.kind), Time(psi.stall), Time(psi.window))
}

pub(crate) fn write_usage(f: &mut fmt::Formatter<'_>, test: UsageTest, held: Duration) -> fmt::Result {
    match test {
        UsageTest::Amount(bytes) => write!(f, "usage: above {bytes}{}", Held(held)),
        UsageTest::Share(share, of) => {
            write!(f, "usage: above {share} of {}{}", usage_of_word(of), Held(held))
        }
    }
}

struct LevelText(Level);

impl fmt::Display for LevelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.share, self.0.at_most) {
            (Some(share), Some(most)) => write!(f, "{share}, at most {most}"),
            (Some(share), None) => write!(f, "{share}"),
            (None, Some(most)) => write!(f, "{most}"),
            (None, None) => f.write_str("0B"),
        }
    }
}

pub(crate) struct Held(pub(crate) Duration);

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { Ok(()) } else { write!(f, " for {}", Time(self.0)) }
    }
}

/// A time in the largest unit that shows it exactly, down to microseconds: `100ms`, `2s`.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            micros if micros % 1_000_000 == 0 => write!(f, "{}s", micros / 1_000_000),
            micros if micros % 1000 == 0 => write!(f, "{}ms", micros / 1000),
            micros => write!(f, "{micros}us"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways<T: Copy + PartialEq + fmt::Debug>(table: &[(&str, T)], word: impl Fn(T) -> &'static str) {
        for (name, value) in table {
            assert_eq!((word(*value), named(table, name)), (*name, Some(*value)));
        }
    }

    #[test]
    fn each_word_goes_both_ways() {
        both_ways(&EVENTS, event_word);
        both_ways(&LMS_LEVELS, |level| lms_word(Some(level)));
        both_ways(&RANK_KEYS, key_word);
        both_ways(&MODES, mode_word);
        both_ways(&PSI_KINDS, psi_word);
        both_ways(&USAGE_OF, usage_of_word);
        assert_eq!(lms_level_named(lms_word(None)), None);
    }
}
