//! What must hold on a real kernel, one function each. A scenario is judged by the kernel's own facts (who lives, how a process
//! ended, `populated`, counters) first, and by oomwarden's journal and metrics second.

mod choice;
mod common;
mod evidence;
mod futile;
mod gaps;
mod gone;
mod harness;
mod hook;
mod journal;
mod kernel_kills;
mod kill_process;
mod kills;
mod ladder;
mod lms_await;
mod lms_callers;
mod lms_common;
mod lms_crowd;
mod lms_daemon;
mod lms_daemon_common;
mod lms_daemon_crowds;
mod lms_daemon_gone;
mod lms_daemon_levels;
mod lms_daemon_speed;
mod lms_daemon_table;
mod lms_exit;
mod lms_file;
mod lms_foreign;
mod lms_haste;
mod lms_hiding;
mod lms_hold;
mod lms_levels;
mod lms_marked;
mod lms_policy;
mod lms_progress;
mod lms_table;
mod lms_thread;
mod lms_turns;
mod lms_victims;
mod marks;
mod node;
mod oom_group;
mod precedence;
mod preview;
mod psi_off;
mod ready;
mod refusals;
mod reload;
mod speed;
mod storms;
mod switches;
mod warn;

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
        oom_group::{
            never_set_on_a_group_that_is_contains_or_lies_below_an_excluded_one,
            excluded_group_loses_one_process_and_not_all,
            foreign_1_stays_and_ours_are_taken_back_at_sigterm,
            after_a_crash_the_next_oomwarden_knows_what_was_set,
            policy_that_no_longer_asks_takes_it_back,
            reset_by_somebody_else_is_noticed_set_again_and_counted,
            unit_with_oompolicy_continue_is_left_alone,
            twelve_group_kills_by_the_kernel_are_no_kills_of_a_rule: 120,
            one_process_killed_at_a_limit_below_leaves_the_rest_to_the_rule,
            siblings_of_an_excluded_child_can_be_killed_in_a_group_with_oom_group,
        }
        psi_off::{
            switched_off_for_a_group_is_told_until_it_is_on_again,
            machine_without_psi_names_the_dead_rules_and_acts_on_events on WITHOUT_PSI,
        }
        kernel_kills::{
            one_process_at_its_groups_limit,
            user_from_2_31_on,
            process_without_its_main_thread,
            whole_group_by_memory_oom_group,
            machine_out_of_memory,
            forged_names_fool_nobody,
            line_that_a_program_wrote_is_no_kill,
            storm_of_200_kills_is_counted_exactly: 120,
            without_the_right_to_the_log_counters_tell,
            syslog_serves_where_kmsg_does_not,
        }
        choice::{
            excluded_group_inside_the_fattest_lives_and_its_sibling_dies,
            excluded_comm_spares_its_group,
            importance_beats_size,
            among_ranks_by_its_keys_in_order,
            group_with_an_unkillable_process_lives,
            group_with_a_shielded_process_dies_after_all_others,
            young_group_that_stalls_dies_before_a_calm_old_one,
            threaded_group_dies_with_its_domain,
        }
        gone::{
            memory_files_die_with_the_controller_and_core_files_with_the_group,
            excluded_child_lives_though_its_memory_controller_was_switched_off,
            excluded_child_lives_though_its_files_could_not_be_opened_anew,
            excluded_child_made_anew_before_the_verdict_lives,
            oomwardens_own_group_without_a_memory_controller_is_not_killed,
            process_hidden_by_hidepid_spares_its_group,
            newcomer_that_cannot_be_read_spares_itself_alone,
        }
        kill_process::{
            of_five_the_one_with_the_highest_score_dies,
            between_equals_the_one_that_holds_more_in_memory_and_swap_dies,
            zombies_are_passed_over_and_a_process_without_its_main_thread_is_not,
        }
        evidence::{
            stale_pressure_spares_the_neighbour_that_did_nothing,
            page_cache_thrash_with_free_memory_kills_nobody,
            tight_reader_of_pressure_blinds_nobody,
            unprivileged_trigger_does_not_bring_the_past_up,
            busy_siblings_hide_nothing,
            own_group_in_trouble_is_said_and_not_killed,
            group_full_of_tmpfs_is_not_chosen,
        }
        gaps::{
            stopped_daemon_holds_nothing_against_a_group_that_is_well_again: 120,
            frozen_daemon_holds_nothing_against_a_group_that_is_well_again: 120,
            time_that_nobody_looked_counts_for_no_level,
            reload_holds_no_stall_from_before_against_anybody,
        }
        precedence::{
            node_is_served_while_a_tenants_ladder_waits,
            waiting_victim_that_the_node_needs_dies_at_once,
            excluded_group_that_comes_in_the_grace_time_lives,
            process_that_cannot_die_yet_costs_nobody_else_its_life,
            cool_down_outlives_the_group: 120,
        }
        futile::{
            tmpfs_that_fills_the_node_costs_no_small_group_its_life,
            group_that_was_left_by_its_processes_is_named_and_its_neighbours_live,
            limit_that_is_full_of_tmpfs_kills_nobody,
            hot_file_cache_at_a_limit_is_no_usage_and_anonymous_memory_is,
            node_without_swap_is_not_short_of_swap,
            swap_that_is_switched_off_is_no_trouble,
        }
        ladder::{
            sigterm_honoured_in_the_grace_time_is_the_end_of_it,
            sigterm_ignored_is_followed_by_sigkill,
            forking_faster_than_pids_can_be_walked_helps_nobody,
            group_made_anew_under_its_name_is_another_group,
            group_made_anew_between_trigger_and_verdict_lives,
            sigterm_to_oomwarden_on_the_ladder_ends_it_in_order,
            victim_that_cannot_die_is_followed_by_the_next,
            nested_rules_at_the_same_moment_are_one_ladder,
        }
        warn::{
            cache_that_listens_frees_its_memory_and_lives,
            cache_that_handles_sigusr1_frees_its_memory_and_lives,
            process_without_a_handler_is_not_hurt_by_the_warning,
            warning_that_nobody_hears_keeps_nobody_waiting,
            who_hears_and_does_nothing_is_killed_after_the_wait,
            two_hundred_listeners_are_told_though_one_never_reads,
            group_with_too_many_listeners_keeps_nobody_else_out,
            user_in_many_groups_keeps_no_other_user_out,
            listener_that_floods_is_cut_off,
        }
        hook::{
            hook_reads_the_verdict_and_runs_before_the_kill,
            hook_that_hangs_is_killed_with_its_children,
            hook_that_crashes_is_on_record_and_the_kill_follows,
            hook_that_floods_its_output_is_held_to_its_time,
            helper_that_is_killed_fails_its_hook_and_is_started_anew,
            hook_that_the_kernel_kills_leaves_the_daemon_alone,
            hook_in_the_daemons_group_that_dies_whole_is_said,
            each_rung_fails_in_turn_and_the_kill_is_what_remains,
        }
        storms::{
            storm_of_300_groups_hides_nothing,
            groups_churned_below_the_victim_keep_no_kill_waiting: 240,
            overflowing_queue_of_notices_loses_no_group,
            nine_thousand_groups_in_turn_leak_no_watch: 180,
            trigger_comes_with_the_first_process,
            empty_groups_leave_the_triggers_to_others,
            fifty_watches_for_200_groups_are_enough,
            sixty_four_descriptors_for_100_groups_are_enough,
            names_of_any_bytes_are_groups_like_others: 120,
        }
        node::{
            node_without_limits_or_swap_is_relieved_before_the_kernel_kills,
            node_filled_at_full_speed_loses_the_greedy_group_only,
            group_whose_memory_sits_in_zram_dies,
            kill_is_its_first_sigkill,
        }
        reload::{
            good_policy_takes_over,
            swapped_symlink_is_a_new_policy,
            bad_policy_changes_nothing,
            half_written_policy_is_not_read,
            exclusions_that_match_nothing_are_told,
        }
        journal::{
            full_disk_costs_counted_lines_and_no_later_one,
            read_only_disk_costs_counted_lines_and_no_later_one,
            full_file_makes_room_and_loses_nothing,
            stalled_disk_makes_no_kill_slower_and_loses_no_line: 120,
        }
        switches::{
            pause_in_the_middle_of_a_ladder,
            pause_survives_a_restart_and_ends_by_itself,
            clock_that_jumps_ends_no_pause,
            paused_leaves_the_module_alone,
            started_paused_it_takes_a_dead_daemons_table_back,
            breaker_opens_for_one_subject_only,
            open_breaker_leaves_the_module_alone,
            daemon_killed_in_mid_ladder_goes_on_after_a_restart,
            broken_policy_at_start_falls_back_to_the_last_good_one,
            missing_policy_at_start_leaves_the_built_in_one_observing,
        }
        ready::{
            page_cache_thrash_at_the_limit_kills_nobody: 240,
            group_that_swaps_and_gets_on_lives: 240,
            standstill_over_memory_high_without_swap_dies,
            limit_of_a_parent_costs_one_child,
        }
        preview::{
            plan_and_explain_tell_without_a_daemon,
            recording_answers_for_any_policy,
            journal_is_judged_again,
        }
        marks::{
            attempts_and_processes_are_counted_on_the_victim,
            victims_are_not_marked_where_the_policy_says_so,
            one_process_is_no_attempt_at_the_group,
            owner_of_a_subtree_marks_and_a_refusal_changes_nothing,
        }
        refusals::{
            bad_policy_at_the_start,
            policy_that_cannot_be_read,
            port_taken,
            default_port_taken_keeps_nobody_unprotected,
            cgroup_root_that_is_none,
            no_rights,
            policy_that_others_can_write_is_refused,
            second_oomwarden_refuses,
            second_oomwarden_with_another_state_refuses,
        }
        lms_file::{
            fifty_times_loaded_and_unloaded_under_sleepers: 120,
            unload_waits_for_the_handler,
            parameters_out_of_range_are_refused,
            bad_writes_change_nothing,
            thousands_of_random_writes_do_no_harm,
            nobody_without_rights_is_heard,
            end_of_a_handler_is_its_release,
            kept_table_outlives_its_writer_for_a_time,
            ten_idle_seconds_cost_next_to_nothing,
        }
        lms_crowd::{
            opens_are_charged_to_who_opens,
            handler_is_told_first_and_the_crowd_of_each_change: 300,
            read_that_tells_nothing_takes_no_notice_back,
            any_way_of_reading_gives_the_same_text,
            opener_without_rights_is_not_heard_through_another,
        }
        lms_levels::{
            levels_follow_a_hog_down_and_up_again,
            thresholds_follow_their_parameters,
            each_open_file_has_its_own_notice,
            free_swap_keeps_the_level_up,
        }
        lms_hold::{
            without_handler_and_table_the_kernel_acts_at_once: 300,
            handler_that_kills_spares_the_kernel_the_choice: 300,
            ack_without_a_kill_ends_with_the_bound: 300,
            pass_lets_the_kernel_go_ahead: 300,
            handler_that_runs_out_itself_waits_for_nobody: 300,
            unload_in_the_middle_of_a_shortage: 300,
        }
        lms_daemon::{
            hog_without_swap_is_answered: 300,
            hog_that_ignores_sigterm_gets_no_grace_time: 300,
            hog_with_zram_is_answered: 300,
            hog_with_zram_larger_than_memory_is_answered: 300,
            shortage_of_one_node_is_not_ours on TWO_NODES,
            sysrq_f_takes_the_kernels_victim_only,
        }
        lms_daemon_crowds::{
            hog_dies_while_groups_come_and_go: 300,
            limit_reached_elsewhere_is_not_kept_waiting: 300,
            twelve_processes_in_nested_groups_die_together: 300,
            five_hogs_die_and_the_small_live: 300,
        }
        lms_daemon_gone::{
            stopped_oomwardens_table_decides: 300,
            oomwarden_killed_in_a_hold_leaves_its_table: 300,
            observe_leaves_the_module_alone,
            rules_that_observe_leave_the_module_alone,
            table_and_handler_go_with_enforce,
            panic_on_oom_leaves_the_module_alone,
            fifty_times_loaded_and_unloaded_under_oomwarden: 120,
        }
        lms_daemon_levels::{
            growing_hog_is_killed_by_its_level,
            gauge_and_doctor_tell_whether_it_is_loaded,
            consumer_that_ignores_sigterm_is_asked_then_killed,
            consumer_with_zram_that_ignores_sigterm_is_asked_then_killed,
        }
        lms_daemon_table::{
            table_kills_by_importance_then_rank,
            table_is_the_policy_and_oomwarden_rests,
            narrower_policy_takes_the_wider_table_back_at_once,
            stopped_oomwardens_table_knows_who_came_since: 300,
        }
        lms_daemon_speed::{
            time_to_memory_back: 600,
        }
        lms_table::{
            silent_handlers_table_decides_who_dies: 300,
            handler_killed_in_a_hold_leaves_its_table: 300,
            kept_table_stands_in_for_a_dead_handler: 300,
            without_keep_nothing_stands_in: 300,
            kept_table_ends_with_its_time: 300,
            victim_that_was_enough_is_the_only_one: 300,
            herd_of_processes_dies_whole_while_groups_come_and_go: 300,
        }
        lms_thread::{
            table_at_work_keeps_no_limit_waiting: 300,
            throttled_caller_keeps_no_table_waiting: 300,
            thread_that_is_stuck_leaves_it_to_the_kernel: 300,
            writers_of_tables_keep_no_table_waiting: 300,
        }
        lms_turns::{
            pages_in_a_processors_lists_cost_no_second_victim: 300,
            after_a_victim_that_is_stuck_nobody_dies_unasked: 300,
            group_that_ends_already_is_waited_for: 300,
            victim_that_was_given_up_stays_so_however_many_follow: 300,
            where_no_victim_can_be_forgotten_the_kernel_goes_ahead: 300,
        }
        lms_haste::{
            only_victims_go_ahead: 300,
            ack_hastens_whom_it_names: 300,
        }
        lms_policy::{
            stopped_handlers_policy_finds_a_group_that_came_later: 300,
            class_comes_before_size_and_at_least_before_class: 300,
            spared_by_path_or_comm_live: 300,
            time_to_choose_among_many: 300,
        }
        lms_hiding::{
            groups_that_a_tenant_makes_hide_nobody: 300,
            more_groups_than_are_remembered_hide_nobody: 300,
            group_lives_for_the_sake_of_one_below_it: 300,
            shared_memory_counts_once: 300,
        }
        lms_victims::{
            victim_that_dumps_its_core_is_cut_short: 300,
            group_of_a_live_thread_counts: 300,
            nobody_dies_when_memory_came_back: 300,
            table_of_a_dead_handler_ends_though_its_child_has_the_file: 300,
            higher_group_that_refills_waits_for_the_dying_one: 300,
            services_that_restart_are_not_stuck: 300,
        }
        lms_progress::{
            names_of_files_are_not_memory_to_be_had: 300,
            protected_cache_is_not_memory_to_be_had: 300,
            pages_that_are_free_again_end_a_hold: 300,
            swap_that_is_free_again_ends_a_hold: 300,
        }
        lms_callers::{
            while_a_balloon_gives_memory_back_nobody_dies: 300,
            kernel_thread_that_runs_out_waits_for_the_policys_choice: 300,
            worker_that_runs_out_waits_for_the_policys_choice: 300,
            shortage_for_which_the_kernel_kills_nobody_begins_no_hold: 300,
            caller_for_whom_the_kernel_kills_nobody_ends_no_hold: 300,
        }
        lms_foreign::{
            shortage_of_one_node_is_left_to_the_kernel on TWO_NODES,
            shortage_of_one_cpuset_is_left_to_the_kernel on TWO_NODES,
            shortage_of_one_mapping_is_left_to_the_kernel on TWO_NODES,
            sysrq_f_is_left_to_the_kernel,
            sysrq_f_in_a_shortage_is_left_to_the_kernel,
            limit_reached_elsewhere_is_not_kept_waiting_by_a_hold: 300,
        }
        lms_exit::{
            end_that_takes_memory_costs_no_bystander: 300,
        }
        lms_await::{
            victim_of_the_kernel_is_enough: 300,
        }
        lms_marked::{
            swapoff_that_does_not_fit_is_what_ends: 300,
            end_of_merging_that_does_not_fit_is_what_ends: 300,
        }
        speed::{
            speed_of_a_psi_kill: 120,
            speed_of_an_event_kill: 120,
            speed_of_each_rung_with_10_candidates,
            speed_of_each_rung_with_500_candidates: 120,
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
