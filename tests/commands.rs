//! The commands that ask: plan, explain, schema, check --json; and completions and manual pages, which must know every command.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use clap::CommandFactory as _;
use oomwarden::cli::Cli;
use serde_json::Value;

fn oomwarden() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomwarden"));
    // Nothing of the caller's environment is meant for these tests.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OOMWARDEN_")) {
        command.env_remove(name);
    }
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").timeout(std::time::Duration::from_secs(60));
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    messages: String,
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), messages: text(output.stderr) }
}

fn run(args: &[&str]) -> Ran {
    finish(oomwarden().args(args))
}

fn parsed(ran: &Ran) -> Value {
    assert!(ran.out.starts_with('{'), "{}\n{}", ran.out, ran.messages);
    serde_json::from_str(&ran.out).unwrap()
}

fn policy(dir: &Path, text: &str) -> String {
    let path = dir.join("policy.yaml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const GOOD: &str = "version: 1\nexclude: [/t/db]\nimportance: [{group: /t, value: -5}]\nrules:\n  \
                    - {name: tenant-low, watch: /, when: [event: oom_kill], victim: {among: /t/*}}\n";

#[test]
fn explain_needs_no_group_and_no_cgroup_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = policy(dir.path(), GOOD);
    let ran = run(&["explain", "/t/db/x", "--by-name", "--policy", &path]);
    assert_eq!((ran.code, ran.messages.as_str()), (Some(0), ""));
    let first = format!("/t/db/x  explained by its name alone\n  never a victim: excluded by /t/db ({path}:2)\n");
    assert!(ran.out.starts_with(&first), "{}", ran.out);
    let ran = run(&["explain", "/t/web", "--by-name", "--policy", &path, "--json"]);
    let value = parsed(&ran);
    assert_eq!((&value["exists"], &value["importance"]["value"]), (&Value::Null, &Value::from(-5)));
    assert_eq!(value["importance"]["from"]["place"], format!("{path}:3"));
    assert_eq!(value["rules"][0]["victim"]["glob"], "/t/*");
}

#[test]
fn names_of_groups_are_shown_escaped() {
    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::OsStr::from_bytes(b"/t/\x1b[2J\xff");
    for extra in [&[][..], &["--json"]] {
        let ran = finish(oomwarden().args(["explain", "--by-name"]).arg(name).args(extra));
        assert_eq!(ran.code, Some(0), "{}", ran.messages);
        assert!(!ran.out.contains('\u{1b}') && ran.out.contains(r"x1b[2J"), "{:?}", ran.out);
    }
}

#[test]
fn colours_are_for_terminals_and_for_those_who_force_them() {
    let explain = ["explain", "/t", "--by-name"];
    let coloured = |name: &str, value: &str| finish(oomwarden().args(explain).env(name, value)).out.contains('\u{1b}');
    assert!(!run(&explain).out.contains('\u{1b}'), "a pipe is no terminal");
    assert!(coloured("CLICOLOR_FORCE", "1"));
    let both = finish(oomwarden().args(explain).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1"));
    assert!(!both.out.contains('\u{1b}'));
}

#[test]
fn what_can_not_be_answered_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let good = policy(dir.path(), GOOD);
    let root = dir.path().to_str().unwrap();
    for (args, code, parts) in [
        (&["plan", "--rule", "tenant-lwo", "--policy", &good][..], 2, &["unknown rule `tenant-lwo`", "did you mean `tenant-low`?"][..]),
        (&["plan", "--cgroup-root", root, "--policy", &good], 3, &[root, "not a cgroup v2 hierarchy", "--cgroup-root"]),
        (&["plan", "--cgroup-root", "/nowhere"], 3, &["/nowhere", "--cgroup-root"]),
        (&["plan", "--policy", "/nowhere/p.yaml"], 1, &["/nowhere/p.yaml", "check the path"]),
        (&["plan", "--watch", "5"], 2, &["`5` has no unit", "5ms or 5s"]),
        (&["explain", "/t", "--cgroup-root", root], 3, &[root, "`--by-name`"]),
        (&["explain", "t/web", "--by-name"], 2, &["the group `t/web` does not begin with `/`", "write `/t/web`"]),
        (&["explain", "/t/../web", "--by-name"], 2, &["`..`", "below the cgroup root"]),
        (&["explain"], 2, &["<GROUP>"]),
        (&["man", "pln"], 2, &["unknown command `pln`", "did you mean `plan`?"]),
        (&["completions", "dos"], 2, &["dos", "bash", "fish", "zsh"]),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.messages);
        assert!(ran.out.is_empty(), "{args:?}: {}", ran.out);
        assert!(parts.iter().all(|part| ran.messages.contains(part)), "{args:?}: {}", ran.messages);
        assert!(!ran.messages.contains("panicked"), "{args:?}: {}", ran.messages);
    }
    let bad = policy(dir.path(), "version: 1\nrulez: []\n");
    for args in [&["plan", "--policy", &bad][..], &["explain", "/t", "--by-name", "--policy", &bad]] {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.messages);
        assert!(ran.messages.contains(&format!("{bad}:2:1: error: unknown key `rulez`")), "{}", ran.messages);
    }
}

#[test]
fn the_schema_is_printed_and_takes_the_ready_policies() {
    let ran = run(&["schema"]);
    assert_eq!((ran.code, ran.messages.as_str()), (Some(0), ""));
    let schema = parsed(&ran);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for name in ["default", "server", "batch"] {
        let text = fs::read_to_string(format!("policies/{name}.yaml")).unwrap();
        let value: Value = serde_yaml::from_str(&text).unwrap();
        assert!(validator.is_valid(&value), "{name}");
        assert!(!validator.is_valid(&serde_yaml::from_str(&text.replace("watch:", "wach:")).unwrap()), "{name}, broken");
    }
}

#[test]
fn check_tells_programs_what_it_tells_people() {
    let dir = tempfile::tempdir().unwrap();
    let bad = policy(dir.path(), "version: 1\nrulez: []\n");
    // A checkout may belong to somebody else than who runs the tests, which `check` would warn of.
    let good = dir.path().join("default.yaml");
    fs::write(&good, fs::read("policies/default.yaml").unwrap()).unwrap();
    let policy_of_ours = good.to_str().unwrap();
    let ran = run(&["check", "--json", policy_of_ours, &bad, "/nowhere/p.yaml"]);
    assert_eq!((ran.code, ran.messages.as_str()), (Some(2), ""));
    let value = parsed(&ran);
    let [good, bad, missing] = [0, 1, 2].map(|at| &value["policies"][at]);
    assert_eq!((&good["sound"], &good["diagnostics"]), (&Value::Bool(true), &Value::Array(vec![])));
    assert!(good["rules"].as_u64() > Some(0) && good["policy_hash"].is_string(), "{good}");
    let fault = &bad["diagnostics"][0];
    assert_eq!((&fault["line"], &fault["column"], &fault["severity"]), (&Value::from(2), &Value::from(1), &Value::from("error")));
    assert!(fault["hint"].as_str().unwrap().contains("`rules`"), "{fault}");
    assert!(missing["unreadable"].as_str().unwrap().contains("/nowhere/p.yaml"), "{missing}");
    assert_eq!(run(&["check", "--json", policy_of_ours]).code, Some(0));
    assert_eq!(run(&["check", "--json", "/nowhere/p.yaml"]).code, Some(1));
}

/// Every command with its long options.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut whole = Cli::command();
    whole.build();
    let options = |command: &clap::Command| command.get_opts().filter_map(|option| option.get_long()).map(str::to_owned).collect();
    let visible = whole.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    visible.map(|command| (command.get_name().to_owned(), options(command))).collect()
}

#[test]
fn completions_know_every_command_and_option() {
    let commands = commands();
    assert!(commands.len() >= 8 && commands.iter().any(|(name, options)| name == "plan" && options.contains(&"cgroup-root".to_owned())));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&["completions", shell]);
        assert_eq!((ran.code, ran.messages.as_str()), (Some(0), ""), "{shell}");
        for (command, options) in &commands {
            assert!(ran.out.contains(command), "{shell}: {command}");
            for option in options {
                assert!(ran.out.contains(option), "{shell}: {command} --{option}");
            }
        }
    }
}

#[test]
fn manual_pages_are_whole_and_can_be_written_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("share/man1");
    let ran = run(&["man", "--out", out.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str(), ran.messages.as_str()), (Some(0), "", ""));
    let main = fs::read_to_string(out.join("oomwarden.1")).unwrap();
    assert_eq!(run(&["man"]).out, main);
    assert!(main.contains("Exit codes: 0 done"), "{main}");
    let plan = run(&["man", "plan"]).out;
    assert!(plan.contains("OOMWARDEN_POLICY") && plan.contains("with the daemon"), "environment and the long description: {plan}");
    for (command, options) in commands() {
        let page = fs::read_to_string(out.join(format!("oomwarden-{command}.1"))).unwrap();
        assert!(main.contains(&format!("oomwarden\\-{command}(1)")), "{command}\n{main}");
        assert!(page.contains(&format!(".TH oomwarden-{command} 1")) && page.contains("NAME"), "{page}");
        for option in options {
            assert!(page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))), "{command} --{option}\n{page}");
        }
        assert_eq!(run(&["man", &command]).out, page);
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), commands().len() + 1, "no page of `help`");
    let ran = run(&["man", "--out", "/proc/nowhere"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.messages.contains("/proc/nowhere"), "{}", ran.messages);
}
