//! oomwarden: a cgroup v2 aware out-of-memory manager.
pub mod act;
pub mod cgroup;
pub mod decide;
pub mod policy;
pub mod record;
pub mod sense;
pub mod sys;
pub mod units;
