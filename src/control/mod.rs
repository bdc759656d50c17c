//! Between the threads of the daemon and whoever asks it for something: orders go one way, how it stands goes the other. Nobody waits here
//! for the warden, and the warden for nobody.
//!
//! - [`board`]: orders for the warden, and how it stands; [`by`]: whose order it was.
//! - [`mailbox`]: new policies for the warden, and what wakes it.
//! - [`reloads`]: asking for a policy to be read again, and hearing what came of it; [`origin`]: where the one in force was read.
//! - [`pulse`]: whether the warden still turns.

pub mod board;
pub mod by;
pub mod mailbox;
pub mod origin;
pub mod pulse;
pub mod reloads;
