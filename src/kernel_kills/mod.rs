//! Kills by the kernel's own OOM killer: how many there were, and what the kernel's log says of them. Nothing here takes part in what the
//! warden does.
//!
//! - [`census`]: how many there were, and where, by counters.
//! - [`log`]: what the kernel says of them.
//! - [`book`]: both put together.

pub mod book;
pub mod census;
pub mod log;
