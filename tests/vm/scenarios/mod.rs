//! What must hold on a real kernel, one function each. A scenario is judged by the kernel's own facts (who lives, how a process
//! ended, `populated`, counters) first, and by oomwarden's journal and metrics second.

mod harness;

use std::time::Duration;

use crate::outcome::Outcome;

/// Before a line with numbers that the host prints in any case.
pub const MEASURED: &str = "measured ";

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The test's name, below the kernel's.
    pub name: &'static str,
    /// How long it may take before it is ended.
    pub limit: Duration,
    /// What it does.
    pub run: fn() -> Outcome,
}

/// A scenario of ordinary length, named like its function.
macro_rules! scenarios {
    ($($module:ident :: { $($name:ident $(: $seconds:literal)?),+ $(,)? })+) => {
        &[$($(Scenario { name: stringify!($name), limit: Duration::from_secs(60 $(- 60 + $seconds)?), run: $module::$name }),+),+]
    };
}

/// Every scenario, in the order in which they run.
pub fn all() -> impl Iterator<Item = Scenario> {
    const ALL: &[Scenario] = scenarios! {
        harness::{ a_bare_kernel_does_what_the_scenarios_assume, page_cache_thrash_is_pressure_without_shortage }
    };
    ALL.iter().copied()
}

/// The scenario called `name`, the demo's too.
pub fn find(name: &str) -> Option<Scenario> {
    all().chain([crate::demo::SCENARIO]).find(|scenario| scenario.name == name)
}
