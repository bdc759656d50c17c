//! Counters and gauges: what a scrape shows.
//!
//! The [`counters`] are atomics that the warden raises through handles resolved beforehand ([`rules`]); whoever scrapes reads them, with the
//! [`groups`] that the warden [`published`], the [`process`]'s own numbers, the policy [`in_force`] and what the kernel module (`lms`) said
//! last.

pub mod counters;
pub mod groups;
pub mod in_force;
mod lms;
pub mod process;
pub mod published;
mod registry;
pub mod rules;
