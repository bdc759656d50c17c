//! The ready policies on machines as people have them: who dies first, who never.
//!
//! Each case is a file in `tests/ready` (`tree.rs` there says how to read it). It goes through the
//! real policies and the real judge, victim after victim until nobody may die any more, so that
//! "never" is proven and not sampled.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "machines on paper have few groups and small numbers"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of a test may stop at the first surprise")]

#[path = "ready/line_up.rs"]
mod line_up;
#[path = "ready/tree.rs"]
mod tree;

use std::collections::HashSet;
use std::sync::OnceLock;

use oomwarden::policy::model::{Policy, Rung, Trigger, Victim};
use oomwarden::policy::{Source, load};

use tree::Case;

const POLICIES: [&str; 3] = ["default", "server", "batch"];

fn policy(name: &str) -> &'static Policy {
    static LOADED: [OnceLock<Policy>; 3] = [const { OnceLock::new() }; 3];
    let at = POLICIES.iter().position(|known| *known == name).unwrap();
    LOADED[at].get_or_init(|| load_policy(name))
}

fn load_policy(name: &str) -> Policy {
    let text = std::fs::read_to_string(format!("policies/{name}.yaml")).unwrap();
    let loaded = load(&[Source::new(name, text)]).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.is_empty(), "{name}: {warnings:#?}");
    loaded.policy
}

/// Whether `seen` is as `expected` says, where `...` stands for any number of others.
fn fits(expected: &[String], seen: &[String]) -> bool {
    match expected.split_first() {
        None => seen.is_empty(),
        Some((word, rest)) if word == "..." => (0..=seen.len()).any(|skipped| fits(rest, &seen[skipped..])),
        Some((word, rest)) if word == "nobody" => fits(rest, seen),
        Some((word, rest)) => seen.split_first().is_some_and(|(first, others)| first == word && fits(rest, others)),
    }
}

fn must_hold(name: &str, text: &str) {
    let case = Case::read(text);
    assert!(!case.never.is_empty() && !case.whens.is_empty(), "{name} expects nothing");
    let mut wrong = Vec::new();
    for policy_name in POLICIES {
        let policy = policy(policy_name);
        for (what, trouble, expected) in &case.whens {
            let count = policy.rules.len();
            let dead = line_up::line_up(policy, &case, trouble, 0..count);
            // by each rule alone, too, lest one hides what another would do
            let by_each = (0..count).map(|rule| line_up::line_up(policy, &case, trouble, rule..rule + 1));
            let all_dead: HashSet<String> = by_each.flatten().chain(dead.iter().cloned()).collect();
            for (_, group) in case.never.iter().filter(|(of, _)| of.is_empty() || of == policy_name) {
                for path in case.groups[*group..case.groups[*group].end].iter().map(|group| &group.path) {
                    let hit = |dead: &&String| dead.split('#').next() == Some(path);
                    wrong.extend(all_dead.iter().find(hit).map(|dead| format!("{policy_name}, when {what}: {dead} must never die")));
                }
            }
            for expected in expected.iter().filter(|expected| expected.policy == policy_name) {
                if !fits(&expected.line_up, &dead) {
                    let lines = |names: &[String]| names.join("\n    ");
                    wrong.push(format!(
                        "{policy_name}, when {what}: expected\n    {}\n  seen\n    {}",
                        lines(&expected.line_up),
                        lines(&dead)
                    ));
                }
            }
        }
        let unknown = case.whens.iter().flat_map(|(.., expected)| expected).find(|expected| !POLICIES.contains(&&*expected.policy));
        assert!(unknown.is_none(), "{name}: {unknown:?}");
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        const CASES: &[&str] = &[$(stringify!($name)),+];

        mod machines {
            $(#[test]
            fn $name() {
                super::must_hold(stringify!($name), include_str!(concat!("ready/", stringify!($name), ".txt")));
            })+
        }
    };
}

cases! {
    anacron_and_fcron_jobs,
    batch_job_at_its_limit,
    batch_node,
    batch_slice_with_swap,
    build_server_make_in_ssh,
    canonical_kubernetes,
    ci_runner,
    cloud_machine,
    crio_cgroupfs_and_fake_conmon,
    cron_job_runs_away,
    desktop_fedora_ptyxis,
    desktop_gnome_debian,
    desktop_gnome_leaking_extension,
    desktop_kde,
    desktop_lightdm_mate,
    desktop_small_machine,
    desktop_user_hides_in_init_scope,
    desktop_user_hides_in_session_slice,
    desktop_xfce_from_a_tty,
    docker_cgroupfs_and_comm,
    docker_host,
    incus_containers_and_vm,
    k0s_worker,
    k3s_agent,
    k3s_server,
    kind_node_in_docker,
    kubeadm_cgroupfs_driver,
    kubeadm_systemd_driver,
    kubelet_in_runtime_slice,
    kubernetes_crio,
    laptop_greetd_sway,
    libvirt_virtual_machines,
    lxd_containers,
    microk8s,
    nspawn_machines,
    oom_group_unit,
    openvswitch_host,
    openvz_like_tenants,
    pacemaker_with_sbd,
    podman_pods,
    podman_rootful,
    podman_rootless,
    proxmox_ha_node,
    rke2_server,
    server_debian_lamp,
    server_debian_postgres_clusters,
    server_rhel_database,
    service_at_its_limit,
    service_throttled,
    slurm_node,
    small_groups_and_tmpfs,
    system_slice_at_its_limit,
    talos,
    terminal_ssh_with_tmux,
    two_users_hide_in_session_slices,
    user_hides_in_both_that_die_last,
    user_hides_many_small_in_session_slice,
    user_slice_at_its_limit,
    vpn_gateway,
    ways_in_by_instances_and_consoles,
}

#[test]
fn every_file_of_a_case_is_run() {
    let files = std::fs::read_dir("tests/ready").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.filter_map(|name| name.strip_suffix(".txt").map(str::to_owned)).collect();
    files.sort();
    assert_eq!(files, CASES);
}

/// Killing for a level must be able to help; only the kernel's own kill comes in any case, and
/// stall is not lifted by a sum.
#[test]
fn or_largest_stands_in_no_rule_that_acts_on_a_level() {
    for name in POLICIES {
        for rule in &policy(name).rules {
            let by_level = rule.when.iter().any(|trigger| {
                matches!(trigger, Trigger::Usage(..) | Trigger::Available(..) | Trigger::SwapFree(..))
                    || matches!(trigger, Trigger::Lms(level) if *level < oomwarden::policy::model::LmsLevel::Oom)
            });
            if let Victim::Among(among) = &rule.victim {
                assert!(!(by_level && among.or_largest), "{name}: {}", rule.name);
            }
        }
    }
}

#[test]
fn each_has_limits_and_one_for_the_whole_node() {
    for name in POLICIES {
        let policy = policy(name);
        assert!(policy.limit.is_some() && policy.node_limit.is_some(), "{name}");
    }
}

/// `kills` counts rules about the node too. Where one process dies at a time, a login that starts
/// what was killed anew must not use up what the node's last resort may do.
#[test]
fn a_respawning_login_does_not_soon_disarm_the_node() {
    for name in ["default", "server"] {
        let policy = policy(name);
        let (each, node) = (policy.limit.unwrap(), policy.node_limit.unwrap());
        assert!(each.kills >= 30 && each.kills > node.kills && each.per == node.per, "{name}: {each:?} {node:?}");
    }
}

/// systemd takes an exit by SIGTERM for success: no `Restart=on-failure`, nothing in `systemctl
/// --failed`.
#[test]
fn no_rule_asks_a_service_to_end() {
    for name in POLICIES {
        let policy = policy(name);
        for (at, rule) in
            policy.rules.iter().enumerate().filter(|(_, rule)| rule.ladder.iter().any(|rung| matches!(rung, Rung::Term { .. })))
        {
            for path in ["/system.slice/a.service", "/batch.slice/a.service", "/user.slice/user-1.slice/user@1.service/app.slice/a.service"]
            {
                let class = policy.classify(path.as_bytes(), None);
                assert!(!class.subject_of.contains(at) && !class.among.contains(at), "{name}: {} asks {path} to end", rule.name);
            }
        }
    }
}

/// What users can fill or name is no place to hide in: below their slices and in containers nothing
/// is excluded, and no process spares its group by its name.
#[test]
fn users_cannot_make_themselves_immune() {
    let theirs = [
        "/user.slice/user-1000.slice/session-1.scope",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "/user.slice/user-1000.slice/user@1000.service/session.slice/org.gnome.Shell@wayland.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/ssh.service",
        "/user.slice/user-1000.slice/user@1000.service/system.slice/systemd-x.service",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-1.scope",
        "/system.slice/docker-1.scope/system.slice/ssh.service",
        "/system.slice/docker-1.scope/init.scope",
        "/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope/system.slice/containerd.service",
        "/lxc.payload.c1/init.scope",
        "/lxc.payload.c1/lxc.monitor.c1",
        "/machine.slice/systemd-nspawn@a.service/payload/supervisor",
        "/machine.slice/machine-libpod_pod_1.slice/libpod-1.scope/container/libpod-conmon-2.scope",
        "/kubepods.slice/kubepods-pod1.slice/crio-1.scope/crio-conmon-2.scope",
        "/kubepods.slice/kubepods-pod1.slice/crio-1.scope/kubepods-pod2.slice/crio-conmon-2.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/crio-1.scope/container/crio-conmon-2.scope",
        "/kubepods/pod1/2/crio-conmon-3",
        "/kubepods/burstable/pod1/2/pod3/crio-conmon-4",
        "/lxc/101/lxc.monitor",
        "/batch.slice/job-1.service",
    ];
    for name in POLICIES {
        let policy = policy(name);
        for path in theirs {
            let mut class = policy.classify(b"/", None);
            for end in path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]) {
                class = policy.classify(&path.as_bytes()[..end], Some(&class));
            }
            assert_eq!(class.excluded, None, "{name}: {path}");
        }
        assert!(policy.exclude.iter().all(|exclude| exclude.comm.is_none()), "{name} excludes by comm");
        for pattern in policy.exclude.iter().flat_map(|exclude| exclude.group.patterns()) {
            assert!(!pattern.contains("**"), "{name}: {pattern} reaches into containers, which may make groups of any name");
        }
    }
}

/// What keeps a machine reachable and its containers supervised is the same on a server.
#[test]
fn the_server_policy_protects_what_the_default_one_does() {
    let server = policy("server");
    let has = |glob: &str| server.exclude.iter().any(|exclude| exclude.group.patterns().any(|pattern| pattern == glob));
    for exclude in &policy("default").exclude {
        for glob in exclude.group.patterns() {
            assert!(has(glob), "server.yaml does not exclude {glob}");
        }
    }
}

/// Both rules about sessions have to act before those about the node, which spare what they are about.
#[test]
fn what_hides_in_a_session_is_found_before_the_node_is_low() {
    use oomwarden::policy::model::{Condition, Level};
    let levels = |policy: &Policy, name: &str| -> (u64, u64) {
        let rule = policy.rules.iter().find(|rule| &*rule.name == name).unwrap();
        let most = |of: fn(&Condition) -> Option<&Level>| rule.only_if.iter().filter_map(of).map(|level| level.bytes(16 << 30)).max();
        let available = most(|condition| if let Condition::Available(level) = condition { Some(level) } else { None });
        let swap = most(|condition| if let Condition::SwapFree(level) = condition { Some(level) } else { None });
        (available.unwrap(), swap.unwrap_or(0))
    };
    let policy = policy("default");
    for first in ["session-too-large", "session-too-large-for-a-small-node"] {
        let first = levels(policy, first);
        for later in ["node-thrashing", "node-exhausted"] {
            let later = levels(policy, later);
            assert!(first.0 > later.0 && first.1 > later.1, "{first:?} {later:?}");
        }
    }
}
