//! The daemon put together: what it is started with, in which order its parts begin, and how it ends. What they do is theirs.
//!
//! - [`start`]: from the options to the end.
//! - [`options`]: what it is started with.
//! - `beginning`: the policy to begin with; [`reload`]: the thread that watches the policy's files.
//! - `acting`: the policy's texts and the locks of one who acts.
//! - [`outside`]: what it sets up for others: the pressure socket, the helper for hooks.
//! - `rights`, `descriptors`: what it may do here, and how many files it may hold.
//! - [`neighbours`]: who else acts on memory.
//! - [`logging`]: log lines.

mod acting;
mod beginning;
mod descriptors;
pub mod logging;
pub mod neighbours;
pub mod options;
pub mod outside;
pub mod reload;
mod rights;
pub mod start;
