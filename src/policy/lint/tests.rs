use super::super::tests::good;

/// Warnings of a policy with one rule, as `line:column: message`; the rule's own lines begin in line 4.
fn warnings(head: &str, lines: &str) -> Vec<String> {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("version: 1\nrules:\n  - name: r\n{lines}{head}");
    let found = good(&text).warnings;
    assert!(found.iter().all(|warning| warning.to_string().contains(": warning: ") && !warning.hint.is_empty()));
    found.iter().map(|warning| format!("{}:{}: {}", warning.line, warning.column, warning.message)).collect()
}

#[track_caller]
fn warned(head: &str, lines: &str, expected: &[&str]) {
    let found = warnings(head, lines);
    assert_eq!(found.len(), expected.len(), "{lines}\n{head}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{lines}\nexpected {expected}\nfound    {found}");
    }
}

#[test]
fn a_kill_that_rests_on_a_counter_alone() {
    for event in ["low", "high", "max"] {
        warned("", &format!("watch: /a\nwhen: [event: {event}]"), &[&format!("5:12: `event: {event}` alone leads to a kill")]);
    }
    warned("", "watch: /a\nwhen: [event: max]\nonly_if: [swap_free: {below: 5%}]", &["5:12: `event: max` alone"]);
    warned("", "watch: /a\nwhen: [event: oom_kill, psi: full 1s/2s, event: high]", &["5:46: `event: high` alone"]);
    for sound in ["event: oom", "event: oom_kill", "event: oom_group_kill", "psi: full 1s/2s", "usage: {above: 95%, of: max}"] {
        warned("", &format!("watch: /a\nwhen: [{sound}]"), &[]);
    }
    warned("", "watch: /a\nwhen: [event: max]\nonly_if: [usage: {above: 95%, of: max}]", &[]);
    warned("", "watch: /a\nwhen: [event: max]\nonly_if: [available: {below: 5%}]", &[]);
}

#[test]
fn available_without_swap_and_swap_without_available() {
    let node = "watch: /\nvictim: {among: leaves}\n";
    warned("", &format!("{node}when: [available: {{below: 5%}}]"), &["6:12: `available` without `swap_free`"]);
    warned("", &format!("{node}when: [swap_free: {{below: 5%}}, lms: kill]"), &["6:12: `swap_free` without `available`"]);
    // One beside the other does not help: each starts a judgement by itself.
    warned(
        "",
        &format!("{node}when: [available: {{below: 5%}}, swap_free: {{below: 5%}}]"),
        &["6:12: `available` without", "6:36: `swap_free` without"],
    );
    warned("", &format!("{node}when: [available: {{below: 5%}}]\nonly_if: [swap_free: {{below: 5%}}]"), &[]);
    warned("", &format!("{node}when: [swap_free: {{below: 5%}}, lms: kill]\nonly_if: [available: {{below: 5%}}]"), &[]);
}

#[test]
fn swap_free_alone_in_when_never_acts_without_swap() {
    let node = "watch: /\nvictim: {among: leaves}\nonly_if: [available: {below: 5%}]\n";
    let never = "3:11: the rule `r` never acts on a machine without swap";
    warned("", &format!("{node}when: [swap_free: {{below: 5%}}]"), &[never]);
    warned("", &format!("{node}when: [swap_free: {{below: 5%}}, swap_free: {{below: 1GiB, for: 1s}}]"), &[never]);
    warned("", &format!("{node}when: [swap_free: {{below: 5%}}, psi: full 1s/2s]"), &[]);
    warned("", "watch: /a\nwhen: [event: oom]\nonly_if: [swap_free: {below: 5%}]", &[]);
}

#[test]
fn units_that_stand_in_no_slice() {
    let rule = "watch: /a\nwhen: [event: oom]";
    warned("exclude: [/ssh.service]\n", rule, &["6:11: `/ssh.service` names units at the top"]);
    warned("exclude: [{group: '/{ssh,sshd}.service', comm: sshd}]\n", rule, &["6:19: `/{ssh,sshd}.service` names units at the top"]);
    warned("importance: [{group: /session-*.scope, value: 1}]\n", rule, &["6:22: `/session-*.scope` names"]);
    warned(
        "kernel: {oom_group: /user@1000.service}\nkill_one_in: /user-1000.slice\n",
        rule,
        &["6:21: `/user@1000.service`", "7:14: `/user-1000.slice`"],
    );
    warned(
        "",
        "watch: /web.service\nwhen: [event: oom]\nvictim: {among: /db.service/*}",
        &["4:12: `/web.service`", "6:21: `/db.service/*`"],
    );
    warned("exclude: [/system.slice/ssh.service, /init.scope, /system.slice, \"/**/x.service\", /docker/1]\n", rule, &[]);
    let hint = good("version: 1\nexclude: [/ssh.service]\nrules: []\n").warnings.pop().unwrap().hint;
    assert!(hint.starts_with("write `/system.slice/ssh.service`, if that is meant"), "{hint}");
}

#[test]
fn a_space_at_the_end_of_a_glob() {
    warned("exclude: [\"/b \", '/c d']\n", "watch: /a\nwhen: [event: oom]", &["6:11: the glob `/b ` ends with a space"]);
}

#[test]
fn subjects_that_contain_subjects_and_die_whole() {
    let rule = |watch: &str, rest: &str| format!("watch: {watch}\nwhen: [psi: full 1s/2s]\n{rest}");
    for (watch, column) in [
        ("/**", 12),
        ("/kubepods.slice/**", 12),
        ("'/{a/**,b}'", 12),
        ("[/x, /a/**]", 17),
        ("[/a, /a/b]", 13),
        ("[/a/*, /a/**]", 13),
        ("[/a/*/c, /a/*]", 21),
    ] {
        for victim in ["", "victim: subject"] {
            warned("", &rule(watch, victim), &[&format!("4:{column}: the rule `r` kills its subject whole, and `")]);
        }
        warned("", &rule(watch, "victim: {among: leaves}"), &[]);
        warned("", &rule(watch, "then: [kill: process]"), &[]);
    }
    for watch in ["/a", "/a/*", "/a/*/*", "/a/**/*.scope", "[/a, /b/*]", "[/a/*.service, /a/*.scope]"] {
        warned("", &rule(watch, ""), &[]);
    }
}

#[test]
fn sigterm_for_services_of_systemd() {
    let then = "then: [term: {wait: 1s}, kill: group]";
    let subject = |watch: &str| format!("watch: {watch}\nwhen: [event: oom]\n{then}");
    let ends = "3:11: the rule `r` ends services by SIGTERM (";
    for watch in [
        "/system.slice/*",
        "/system.slice/*.service",
        "/system.slice/pg*",
        "/system.slice/{a,b}.service",
        "'/system.slice/{a.service,b.service}'",
        "/user.slice/user-*.slice/user@*.service/app.slice/*",
        "[/batch.slice/*, /work/x.service]",
    ] {
        warned("", &subject(watch), &[ends]);
        warned(
            "",
            &format!(
                "watch: /a\nwhen: [event: oom]\nvictim: {{among: {}}}\n{then}",
                watch.replace("[/batch.slice/*, ", "[/c, ").replace("/{a,b}", "/a")
            ),
            &[ends],
        );
        warned("", &subject(watch).replace(then, ""), &[]);
    }
    let among = |watch: &str, among: &str| {
        format!("watch: {watch}\nwhen: [psi: full 1s/2s]\nonly_if: [available: {{below: 10%}}]\nvictim: {{among: {among}}}\n{then}")
    };
    warned("", &among("/", "leaves"), &[ends]);
    warned("", &among("/", "/**"), &[ends]);
    warned("", &among("/system.slice", "leaves"), &[ends]);
    warned("", &among("/batch.slice", "leaves"), &[]);
    warned("", &among("/", "[/batch.slice/**, /tenants.slice/*]"), &[]);
    warned("exclude: [/system.slice, /user.slice]\n", &among("/", "/**"), &[]);
    for watch in ["/batch.slice/*", "/system.slice/*.scope", "/workers/*"] {
        warned("", &subject(watch), &[]);
    }
}

#[test]
fn node_pressure_needs_a_witness() {
    let node = "watch: /\nvictim: {among: leaves}\n";
    warned("", &format!("{node}when: [psi: full 1s/2s]"), &["6:12: pressure on the node alone"]);
    warned("", &format!("{node}when: [psi: full 1s/2s]\nonly_if: [available: {{below: 10%}}]"), &[]);
    warned("", "watch: [/, /a]\nwhen: [psi: full 1s/2s]\nvictim: {among: leaves}", &["5:12: pressure on the node alone"]);
}

#[test]
fn the_kernel_modules_levels() {
    let node = "watch: /\nvictim: {among: leaves}\n";
    warned("", &format!("{node}when: [lms: warn]"), &["6:12: `lms: warn` is an early word"]);
    warned("", &format!("{node}when: [lms: warn]\nonly_if: [available: {{below: 10%}}]"), &[]);
    for level in ["kill", "oom"] {
        warned("", &format!("{node}when: [lms: {level}]"), &[]);
        // the root can't die
        warned("", &format!("watch: /\nwhen: [lms: {level}]"), &["3:5: the rule `r` never kills: its victim would be the root"]);
        warned("", &format!("watch: /\nwhen: [lms: {level}]\nvictim: subject"), &["6:13: the rule `r` never kills"]);
    }
}

#[test]
fn time_that_nobody_uses() {
    let hold = "kernel: {hold: 500ms}\n";
    let unused = "7:16: nobody uses the time of this `hold`";
    for (level, uses_it) in [("warn", false), ("kill", true), ("oom", true)] {
        let rule = format!("watch: /\nwhen: [lms: {level}]\nonly_if: [available: {{below: 10%}}]\n");
        let expected: &[&str] = if uses_it { &[] } else { &["8:16: nobody uses the time"] };
        warned(hold, &format!("{rule}victim: {{among: leaves}}"), expected);
        warned(hold, &format!("{rule}cooldown: 1s"), &["3:5: the rule `r` never kills", &format!("8{}", &unused[1..])]);
    }
    warned(hold, "watch: /a\nwhen: [event: oom]\nvictim: {among: leaves}", &[unused]);
    assert!(good("version: 1\nkernel: {hold: 1s}\n").warnings[1].message.starts_with("nobody uses"));
}

#[test]
fn rules_that_can_not_match() {
    let node = "watch: /\nvictim: {among: leaves}\n";
    warned("", &format!("{node}when: [event: oom_kill]"), &["6:12: `event: oom_kill` can never happen"]);
    warned(
        "",
        &format!("{node}when: [usage: {{above: 95%, of: max}}]"),
        &["6:12: this never starts a judgement: the root has no memory.max"],
    );
    warned("", &format!("{node}when: [usage: {{above: 95%, of: node}}]"), &[]);
    warned(
        "",
        &format!("{node}when: [psi: full 1s/2s]\nonly_if: [available: {{below: 5%}}, usage: {{above: 50%, of: high}}]"),
        &["7:39: this never holds, so the rule never acts: the root has no memory.high"],
    );
    warned("", "watch: /a\nwhen: [usage: {above: 100%, of: max}]", &["5:12: this never starts a judgement: usage can't rise above 100%"]);
    warned("", "watch: /a\nwhen: [usage: {above: 100%, of: high}]", &[]);
    warned("", "watch: /sys/fs/cgroup/a\nwhen: [event: oom]", &["4:12: `/sys/fs/cgroup/a` can never match"]);
    warned("exclude: [/sys/fs/cgroup]\n", "watch: /a\nwhen: [event: oom]", &["6:11: `/sys/fs/cgroup` can never match"]);
    warned("", "watch: /a\nwhen: [event: oom]\nvictim: {among: \"/sys/fs/cgroup/**\"}", &["6:21: `/sys/fs/cgroup/**` can never match"]);
    warned("", "watch: /\nwhen: [usage: {above: 95%, of: node}]", &["3:5: the rule `r` never kills: its victim would be the root"]);
    warned("kernel: {oom_group: /}\n", "watch: /a\nwhen: [event: oom]", &["6:21: the root has no memory.oom.group"]);
}

#[test]
fn exclusions_that_leave_nothing() {
    let rule = "watch: [/a/x, /a/y/*]\nwhen: [event: oom]\n";
    for exclude in ["/a", "\"/a/**\"", "/a*"] {
        warned(&format!("exclude: [{exclude}]\n"), rule, &["3:11: the rule `r` never kills"]);
        warned(
            &format!("exclude: [{exclude}]\n"),
            &format!("{rule}victim: {{among: leaves}}"),
            &["6:13: exclusions leave the rule `r` no candidate"],
        );
    }
    for exclude in ["/a/x", "/b", "{group: /a, comm: x}"] {
        warned(&format!("exclude: [{exclude}]\n"), rule, &[]);
        warned(&format!("exclude: [{exclude}]\n"), &format!("{rule}victim: {{among: leaves}}"), &[]);
    }
    let rule = "watch: /x\nwhen: [event: oom]\n";
    let kernel = |exclude: &str| format!("exclude: [{exclude}]\nkernel: {{oom_group: [/a/*, /c]}}\n");
    warned(&kernel("/a"), rule, &["7:22: exclusions cover all that `/a/*` names, so memory.oom.group is never set there"]);
    warned(&kernel("/a/b"), rule, &[]);
    let among = "watch: /x\nwhen: [event: oom]\nvictim: {among: [/a/b, /c]}";
    warned("exclude: [/a]\n", among, &[]);
    warned("exclude: [/a, /c]\n", among, &["6:13: exclusions leave the rule `r` no candidate"]);
    let node = "watch: /\nwhen: [psi: full 1s/2s]\nonly_if: [available: {below: 5%}]\nvictim: {among: leaves}";
    warned("exclude: [\"/**\"]\n", node, &["7:13: exclusions leave the rule `r` no candidate"]);
    warned("exclude: [/]\n", node, &["7:13: exclusions leave the rule `r` no candidate"]);
    warned("exclude: [/a]\n", node, &[]);
}

#[test]
fn candidates_that_contain_one_another() {
    let among = |globs: &str| format!("watch: /x\nwhen: [event: oom]\nvictim: {{among: [{globs}]}}");
    warned("", &among("/a, /a/**"), &["6:22: what `/a` names contains what `/a/**` names"]);
    warned("", &among("/a/b/c, /a/b"), &["6:30: what `/a/b` names contains what `/a/b/c` names"]);
    warned("", &among("/a/*, /a/**"), &["6:22: what `/a/*` names contains what `/a/**` names"]);
    warned("", &among("/a, /a"), &["6:26: `/a` stands in this list twice"]);
    warned("", &among("/a/*, /b/**"), &[]);
    warned("", &among("/a, /ab"), &[]);
}

#[test]
fn importance_that_never_counts() {
    let rule = "watch: /x\nwhen: [event: oom]\n";
    let importance =
        |first: &str, second: &str| format!("importance:\n  - {{group: {first}, value: 1}}\n  - {{group: {second}, value: 2}}\n");
    warned(&importance("/a", "/a/b"), rule, &["8:5: this line of importance never counts"]);
    warned(&importance("/a", "[/a, /b]"), rule, &[]);
    warned(&importance("/a/b", "/a"), rule, &[]);
}

#[test]
fn kill_one_in_for_the_root() {
    let rule = "watch: /a\nwhen: [event: oom]";
    warned("kill_one_in: /\n", rule, &["6:14: `kill_one_in` covers everything below what it names, so with `/`"]);
    warned("kill_one_in: [/b, /sys/fs/cgroup/c]\n", rule, &["6:19: `/sys/fs/cgroup/c` can never match"]);
    warned("kill_one_in: /b\n", rule, &[]);
}

#[test]
fn oom_group_where_kill_one_in_covers_all() {
    let rule = "watch: /x\nwhen: [event: oom]";
    let kernel = |one: &str| format!("kill_one_in: {one}\nkernel: {{oom_group: [/a/*, /c]}}\n");
    warned(&kernel("/a"), rule, &["7:22: `kill_one_in` covers all that `/a/*` names, so memory.oom.group is never set there"]);
    warned(&kernel("/a/b"), rule, &[]);
    warned(&format!("exclude: [/a]\n{}", kernel("/a")), rule, &["8:22: exclusions cover all that `/a/*` names"]);
}

#[test]
fn limits_that_never_count() {
    let limits = |text: &str| format!("limits: {{{text}}}\n");
    let (group, node) = ("watch: /a\nwhen: [event: oom]", "watch: /\nwhen: [lms: oom]\nvictim: {among: leaves}");
    warned(&limits("node: 20 per 10m"), node, &["7:16: the limit `node` never counts"]);
    warned(&limits("node: 20 per 10m"), group, &[]);
    warned(&limits("kills: 5 per 10m, node: 20 per 10m"), group, &[]);
    warned(&limits("kills: 5 per 10m, node: 5 per 10m"), group, &["6:17: the limit `kills` never counts"]);
    warned(&limits("kills: 5 per 10m, node: 3 per 1h"), group, &["6:17: the limit `kills` never counts"]);
    warned(&limits("kills: 5 per 10m, node: 3 per 1m"), group, &[]);
}

#[test]
fn a_policy_without_rules() {
    let found = good("version: 1\n").warnings;
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("a.yaml:1:1: warning: there are no rules"));
}

#[test]
fn a_warning_by_which_nobody_can_redeem_himself() {
    let then = "then: [warn: {signal: SIGUSR1, wait: 1s}, kill: group]";
    warned("", &format!("watch: /a\nwhen: [event: oom_kill]\n{then}"), &["3:11: the rule `r` warns in vain"]);
    warned("", &format!("watch: /a\nwhen: [event: oom_kill, psi: full 1s/2s]\n{then}"), &[]);
    warned("", "watch: /a\nwhen: [event: oom_kill]\nthen: [term: {wait: 1s}, kill: group]", &[]);
}
