//! What must hold on a real kernel, one function each. A scenario is judged by the kernel's own facts (who lives, how a process
//! ended, `populated`, counters) first, and by oomwarden's journal and metrics second.

mod choice;
mod common;
mod evidence;
mod harness;
mod kills;
mod ladder;
mod node;
mod refusals;
mod reload;
mod speed;
mod storms;

use std::time::Duration;

use crate::demo;
use crate::host::Machine;
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
    /// What it runs on.
    pub machine: Machine,
    /// What it does.
    pub run: fn() -> Outcome,
}

/// Scenarios named after their module and function; on the plain machine and 60 seconds long at most unless said otherwise.
macro_rules! scenarios {
    ($($module:ident :: { $($name:ident $(: $seconds:literal)? $(on $machine:ident)?),+ $(,)? })+) => {
        &[$($(Scenario {
            name: concat!(stringify!($module), "::", stringify!($name)),
            limit: Duration::from_secs(60 $(- 60 + $seconds)?),
            machine: scenarios!(@machine $($machine)?),
            run: $module::$name,
        }),+),+]
    };
    (@machine) => { Machine::PLAIN };
    (@machine $machine:ident) => { Machine::$machine };
}

/// Every scenario, in the order in which they run.
pub fn all() -> impl Iterator<Item = Scenario> {
    const ALL: &[Scenario] = scenarios! {
        demo::{ runs_right_here_and_leaves_nothing }
        harness::{
            a_bare_kernel_does_what_the_scenarios_assume,
            page_cache_thrash_is_pressure_without_shortage,
            memory_max_without_swap_costs_one_process,
            relay_outruns_a_walk_and_not_cgroup_kill,
            memory_is_where_the_scenarios_expect_it,
            cgroup_kill_ends_the_unkillable,
            groups_come_and_go,
        }
        kills::{
            group_over_high_dies_whole_and_its_neighbour_lives,
            kernel_kills_one_of_five_the_rest_goes_and_no_ancestor,
            two_rules_for_one_group_are_one_kill,
            observe_does_everything_but_the_deed,
            kernel_oom_group_is_set_where_the_policy_asks,
        }
        choice::{
            excluded_group_inside_the_fattest_lives_and_its_sibling_dies,
            excluded_comm_spares_its_group,
            importance_beats_size,
            among_ranks_by_its_keys_in_order,
            group_with_an_unkillable_process_lives,
            threaded_group_dies_with_its_domain,
        }
        evidence::{
            stale_pressure_spares_the_neighbour_that_did_nothing,
            page_cache_thrash_with_free_memory_kills_nobody,
            tight_reader_of_pressure_blinds_nobody,
            busy_siblings_hide_nothing,
            own_group_in_trouble_is_said_and_not_killed,
            group_full_of_tmpfs_is_not_chosen,
        }
        ladder::{
            sigterm_honoured_in_the_grace_time_is_the_end_of_it,
            sigterm_ignored_is_followed_by_sigkill,
            forking_faster_than_pids_can_be_walked_helps_nobody,
            group_made_anew_under_its_name_is_another_group,
            group_made_anew_between_trigger_and_verdict_lives,
            sigterm_to_oomwarden_on_the_ladder_ends_it_in_order,
        }
        storms::{
            storm_of_300_groups_hides_nothing,
            overflowing_queue_of_notices_loses_no_group,
            nine_thousand_groups_in_turn_leak_no_watch: 180,
            fifty_watches_for_200_groups_are_enough,
            sixty_four_descriptors_for_100_groups_are_enough,
            names_of_any_bytes_are_groups_like_others: 120,
        }
        node::{
            node_without_limits_or_swap_is_relieved_before_the_kernel_kills,
            node_filled_at_full_speed_loses_the_greedy_group_only,
            group_whose_memory_sits_in_zram_dies,
        }
        reload::{
            good_policy_takes_over,
            swapped_symlink_is_a_new_policy,
            bad_policy_changes_nothing,
            half_written_policy_is_not_read,
        }
        refusals::{
            bad_policy_at_the_start,
            policy_that_cannot_be_read,
            port_taken,
            cgroup_root_that_is_none,
            no_rights,
            second_oomwarden_refuses,
        }
        speed::{
            speed_of_a_psi_kill: 120,
            speed_of_an_event_kill: 120,
            idle_with_10_groups,
            idle_with_500_groups: 120,
        }
    };
    ALL.iter().copied()
}

/// The scenario called `name`, the demo's too.
pub fn find(name: &str) -> Option<Scenario> {
    all().chain([crate::demo::SCENARIO]).find(|scenario| scenario.name == name)
}
