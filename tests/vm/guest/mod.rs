//! Inside the virtual machine: the agent that runs scenarios one after the other, and what scenarios are made of.

pub mod agent;
pub mod callers;
pub mod child;
mod clean;
pub mod crowd;
pub mod daemon;
pub mod facts;
pub mod group;
pub mod http;
pub mod kernel_log;
pub mod lms;
pub mod metrics;
pub mod places;
pub mod pressure;
pub mod stamps;
pub mod system;
pub mod wait;
pub mod work;
