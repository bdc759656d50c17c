//! Records: journal lines and counters, written off the warden thread.

pub mod model;
