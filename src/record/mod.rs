//! Records: journal lines and log lines, made off the warden thread.
//!
//! The warden fills a slot of the [`pool`] and hands it over; that is a swap of pointers. The [`recorder`] thread turns
//! it into a line of the [`journal`] and one of the log. The [`pulse`] tells the server that the warden still turns.
//!
//! What the kernel itself kills is put together by the book of [`crate::kernel_kills`] on the [`witness`]' thread, and goes the same way.
//! The last lines of the journal are kept in memory ([`recent`]), and the [`board`] is where the server leaves orders for the warden and finds
//! how it stands. [`origin`] tells where the
//! policy in force was read. Whoever wants the policy read again asks by way of [`reloads`].
//!
//! Nothing here decides, and nothing here makes the rooms before it wait: a full disk costs lines, counted ones.

pub mod board;
pub mod by;
mod counting;
pub mod facts;
pub mod file;
pub mod journal;
pub mod kernel_kill_line;
pub mod model;
pub mod origin;
pub mod pool;
pub mod pulse;
pub mod recent;
pub mod recorder;
pub mod reloads;
#[cfg(test)]
pub(crate) mod testing;
pub mod witness;
pub mod words;
