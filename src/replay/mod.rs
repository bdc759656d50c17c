//! Judging again: what a policy would have done at moments that were recorded. And recording such moments.
//!
//! Two kinds of lines are read: judgements of the daemon's journal, each with the facts that it turned on, and moments of a
//! recording, which hold every group. The facts are rebuilt as they were and given to the judge of `decide`: nothing of the
//! judging is repeated here. What was not recorded is not made up: a rule that may have been started, or not, is said not to be
//! known, and what was taken for granted is named beside the verdict.
//!
//! - [`lines`]: files, line by line, and what is wrong with one.
//! - [`moment`]: the tree of one line, and a judgement on it.
//! - [`again`]: a line of the journal, judged again and compared.
//! - [`recording`]: moments of a recording: what started between two of them.
//! - [`report`]: all of it, for people and programs.
//! - [`taking`]: makes a recording.

pub mod again;
pub mod lines;
pub mod moment;
pub mod recording;
pub mod report;
pub mod taking;

#[cfg(test)]
mod tests;
