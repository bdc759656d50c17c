//! Judgements as tables: a tree as text, a rule, a notice, and the verdict as text.

mod fixture;

mod breaker;
mod candidates;
mod conditions;
mod history;
mod hostile;
mod lms;
mod process;
mod properties;
mod rank;
mod recovery;
mod relief;
