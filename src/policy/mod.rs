//! From YAML text to a checked, compiled policy. Touches nothing of the system.
//!
//! The way of a text: [`source`] (is it text at all), `tree` (values with their places; `locate`
//! finds the places and refuses what would blow up a reader; `written` notices what YAML reads
//! otherwise than it stands there), `read` (what the keys mean), `draft` (all sources together),
//! `compile` (the [`model::Policy`] that other rooms read) and `lint` (sound, but probably not
//! meant). Every fault is kept with its place until the end, so that all are shown at once.
//! [`mod@schema`] tells editors the same form as JSON Schema.
//!
//! Only [`files`] reads files, and [`overlooked`] names those that look like policies and are none.
//! What a policy says of one group is asked with [`model::Policy::classify`], once for each
//! group; which group dies is decided elsewhere.

mod classify;
mod compile;
mod diagnostic;
mod draft;
pub mod files;
pub mod globs;
mod lint;
mod locate;
pub mod model;
mod over;
pub mod overlooked;
mod pattern;
pub mod places;
mod quoting;
mod read;
pub mod refusal;
mod schema;
pub mod slices;
pub mod source;
mod tree;
pub mod unbraced;
mod values;
pub mod words;
mod written;

pub use diagnostic::{Diagnostic, Severity};
pub use files::{ReadError, read_sources};
pub use schema::schema;
pub use source::Source;

use std::time::Duration;

use diagnostic::{Place, Report};
use draft::Draft;
use model::Policy;
use places::Places;

use crate::units::Bytes;

/// A policy that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// The compiled policy.
    pub policy: Policy,
    /// What is probably not meant; in the order of the text.
    pub warnings: Vec<Diagnostic>,
    /// Where its entries stand.
    pub places: Places,
}

/// Reads, checks and compiles a policy of one or more texts.
///
/// Lists (`exclude`, `importance`, `rules`, `kill_one_in`, `kernel: oom_group`) are joined in the
/// order of the sources. `mode` and `defaults` count for all of them, and a rule's name may stand
/// in one place only.
///
/// # Errors
/// Every error of every source, in the order of the text. No warnings are among them.
pub fn load(sources: &[Source]) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::new(sources.iter().map(Source::shared_name).collect());
    let mut draft = Draft::default();
    if sources.is_empty() {
        report.error(Place::start_of(0), "there is no policy to read", "name a policy file");
    }
    for (index, source) in (0..).zip(sources) {
        let Some(text) = source.characters(index, &mut report) else { continue };
        let Some(root) = tree::parse(text, index, &mut report) else { continue };
        read::read(&root, &mut draft, &mut report);
    }
    compile::check_numbers(&draft, &mut report);
    if report.errors() == 0 {
        lint::lint(&draft, &mut report);
        let places = Places::of(sources, &draft, &report);
        if let Some(policy) = compile::compile(draft, compile::fingerprint(sources), &mut report) {
            return Ok(Loaded { policy, warnings: report.into_diagnostics(), places });
        }
    }
    Err(report.into_diagnostics().into_iter().filter(|found| found.severity == Severity::Error).collect())
}

/// Reads a time as a policy writes it: `150ms`, `2s`.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    values::duration(text).map_err(|bad| format!("{}: {}", bad.message, bad.hint))
}

/// As [`parse_time`], however long: for callers with a limit of their own.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn parse_any_time(text: &str) -> Result<Duration, String> {
    values::any_duration(text).map_err(|bad| format!("{}: {}", bad.message, bad.hint))
}

/// Reads an amount of memory as a policy writes it: `64MiB`.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn parse_bytes(text: &str) -> Result<Bytes, String> {
    values::bytes(text).map_err(|bad| format!("{}: {}", bad.message, bad.hint))
}

/// For a name that is none of the known ones: what is wrong, and the nearest of them, or all.
#[must_use]
pub fn nearest_name(what: &str, name: &str, known: &[&str]) -> String {
    let bad = values::unknown(what, name, known.iter().copied());
    if known.is_empty() { format!("{}: there is none", bad.message) } else { format!("{}: {}", bad.message, bad.hint) }
}

/// The one of the known names that a misspelt one most likely means.
#[must_use]
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    values::nearest(name, known)
}

impl Policy {
    /// The policy that is compiled in: `policies/default.yaml`.
    ///
    /// # Errors
    /// None, as a test proves; but a caller treats it like any other policy.
    pub fn builtin() -> Result<Loaded, Vec<Diagnostic>> {
        load(&[Source::builtin()])
    }

    /// Whatever it says, no rule acts.
    pub fn only_observe(&mut self) {
        self.mode = model::Mode::Observe;
        self.rules.iter_mut().for_each(|rule| rule.mode = model::Mode::Observe);
    }
}

#[cfg(test)]
mod tests;
