//! Records: journal lines and log lines, made off the warden thread.
//!
//! The warden fills a slot of the [`pool`] and hands it over; that is a swap of pointers. The [`recorder`] thread turns
//! it into a line of the [`journal`] and one of the log.
//!
//! What the kernel itself kills is put together by the book of [`crate::kernel_kills`] on the [`witness`]' thread, and goes the same way.
//! The last lines of the journal are kept in memory ([`recent`]).
//!
//! Nothing here decides, and nothing here makes the rooms before it wait: a full disk costs lines, counted ones.

mod counting;
pub mod facts;
pub mod file;
pub mod journal;
pub mod kernel_kill_line;
pub mod model;
pub mod pool;
pub mod recent;
pub mod recorder;
#[cfg(test)]
pub(crate) mod testing;
pub mod witness;
pub mod words;
