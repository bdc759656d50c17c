//! The units in `deploy/systemd/` against the program: what they name is there, and what keeps the service alive stands in them.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::process::Command;

const SERVICE: &str = include_str!("../deploy/systemd/oomwarden.service");
const MODULE: &str = include_str!("../deploy/systemd/oomwarden-lms.service");

/// The values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn said(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_oomwarden")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_hook_that_the_kernel_kills_does_not_stop_the_service() {
    assert_eq!(values(SERVICE, "OOMPolicy"), ["continue"]);
    assert_eq!(values(SERVICE, "Delegate"), ["memory"]);
    assert_eq!(values(SERVICE, "OOMScoreAdjust"), ["-1000"]);
    // Dividing the group needs its files.
    assert!(values(SERVICE, "ReadWritePaths").contains(&"/sys/fs/cgroup") && values(SERVICE, "ProtectControlGroups").is_empty());
    // The helper and its hooks are ended by the daemon.
    assert_eq!(values(SERVICE, "KillMode"), ["mixed"]);
}

#[test]
fn every_option_can_be_set_by_its_variable() {
    assert_eq!(values(SERVICE, "ExecStart"), ["/usr/local/bin/oomwarden run"], "an option here would count before its variable");
    let help = said(&["run", "--help"]);
    for line in values(SERVICE, "Environment") {
        let (name, _) = line.split_once('=').unwrap();
        assert!(help.contains(&format!("[env: {name}=")), "{name} is no variable of `run`");
    }
    // systemd lets the file count before the lines, wherever they stand.
    assert_eq!(values(SERVICE, "EnvironmentFile"), ["-/etc/default/oomwarden"]);
}

#[test]
fn a_reload_tells_what_came_of_it_and_pages_are_there() {
    let reload = values(SERVICE, "ExecReload")[0].strip_prefix("/usr/local/bin/oomwarden ").unwrap().to_owned();
    assert!(said(&["--help"]).lines().any(|line| line.trim_start().starts_with(&format!("{reload} "))), "no command {reload}");
    let dir = tempfile::tempdir().unwrap();
    said(&["man", "--out", dir.path().to_str().unwrap()]);
    for page in [SERVICE, MODULE].iter().flat_map(|unit| values(unit, "Documentation")).flat_map(str::split_whitespace) {
        let name = page.strip_prefix("man:").and_then(|page| page.strip_suffix("(1)")).unwrap();
        assert!(dir.path().join(format!("{name}.1")).exists(), "no manual page {name}");
    }
}

#[test]
fn a_machine_without_the_module_is_not_degraded() {
    assert!(values(SERVICE, "Wants").contains(&"oomwarden-lms.service"));
    let condition = values(MODULE, "ExecCondition");
    assert!(values(MODULE, "ExecStop").is_empty() && !MODULE.contains("rmmod"), "a restart of the unit would unload the module");
    assert!(condition.len() == 1 && condition[0].contains("--dry-run") && condition[0].ends_with("oomwarden_lms"), "{condition:?}");
}
