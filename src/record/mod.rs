//! Records: journal lines, log lines and counters, made off the warden thread.
//!
//! The warden fills a slot of the [`pool`] and hands it over; that is a swap of pointers. The [`recorder`] thread turns
//! it into a line of the [`journal`] and one of the log. The [`counters`] are atomics that the warden raises through
//! handles resolved beforehand ([`rules`]); whoever scrapes reads them, with the [`groups`] that the warden published,
//! the [`process`]'s own numbers, the policy [`in_force`] and what the kernel module (`lms`) said last. The [`pulse`] tells the server that the warden still turns.
//!
//! What the kernel itself kills is put together by the [`kernel_kills`]' book on the [`witness`]' thread, and goes the same way.
//! The last lines of the journal are kept in memory ([`recent`]), and the [`board`] is where the server leaves orders for the warden and finds
//! how it stands. What keeps the daemon from doing all that it was set up for is kept in [`degraded`]; [`origin`] tells where the
//! policy in force was read. Whoever wants the policy read again asks by way of [`reloads`].
//!
//! Nothing here decides, and nothing here makes the rooms before it wait: a full disk costs lines, counted ones.

pub mod board;
pub mod by;
pub mod counters;
pub mod degraded;
pub mod facts;
pub mod file;
pub mod groups;
pub mod in_force;
pub mod journal;
pub mod kernel_kills;
mod lms;
pub mod model;
pub mod origin;
pub mod pool;
pub mod process;
pub mod pulse;
pub mod recent;
pub mod recorder;
pub mod reloads;
pub mod rules;
#[cfg(test)]
pub(crate) mod testing;
pub mod witness;
pub mod words;
