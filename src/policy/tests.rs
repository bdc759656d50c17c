//! `load` from outside: several sources, the ready policies, hostile input, and the documentation's examples.

use proptest::prelude::*;

use super::model::*;
use super::*;

pub(super) fn sources(texts: &[&str]) -> Vec<Source> {
    texts.iter().zip(["a.yaml", "b.yaml", "c.yaml"]).map(|(text, name)| Source::new(name, *text)).collect()
}

pub(super) fn good(text: &str) -> Loaded {
    match load(&sources(&[text])) {
        Ok(loaded) => {
            super::schema::tests::must_take(text);
            loaded
        }
        Err(errors) => panic!("{text}\n{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

fn errors(texts: &[&str]) -> Vec<String> {
    load(&sources(texts)).unwrap_err().iter().map(ToString::to_string).collect()
}

const RULE: &str = "rules:\n  - {name: r, watch: /a, when: [event: oom_kill]}\n";

pub(super) const READY: [(&str, &str); 3] = [
    ("default.yaml", include_str!("../../policies/default.yaml")),
    ("server.yaml", include_str!("../../policies/server.yaml")),
    ("batch.yaml", include_str!("../../policies/batch.yaml")),
];

#[test]
fn lists_are_joined_in_the_order_of_the_sources() {
    let first = "version: 1\nmode: observe\nexclude: [/x]\nimportance: [{group: /a, value: 1}]\nkernel: {oom_group: /k, hold: 5ms}\nkill_one_in: /m\n\
                 rules:\n  - {name: r1, watch: /a, when: [event: oom_kill]}\n";
    let second = "version: 1\nmode: observe\ndefaults: {cooldown: 5s}\nexclude: [/y, /z]\nimportance: [{group: /b, value: 2}]\n\
                  kernel: {oom_group: [/l], hold: 5ms}\nkill_one_in: [/n, /o]\nrules:\n  - {name: r2, watch: /b, when: [event: oom_kill]}\n";
    let Loaded { policy, places, .. } = load(&sources(&[first, second])).unwrap();
    assert_eq!(policy.rules.iter().map(|rule| &*rule.name).collect::<Vec<_>>(), ["r1", "r2"]);
    assert_eq!(policy.exclude.iter().map(|exclude| &*exclude.text).collect::<Vec<_>>(), ["/x", "/y", "/z"]);
    assert_eq!(policy.importance.iter().map(|entry| entry.value).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(policy.hold.map(|hold| hold.as_millis()), Some(5));
    assert_eq!(policy.oom_group.unwrap().patterns().collect::<Vec<_>>(), ["/k", "/l"]);
    assert_eq!(policy.kill_one_in.unwrap().patterns().collect::<Vec<_>>(), ["/m", "/n", "/o"]);
    let lines = |places: &[places::LineOf]| places.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(lines(&places.exclude), ["a.yaml:3", "b.yaml:4", "b.yaml:4"]);
    assert_eq!(lines(&places.importance), ["a.yaml:4", "b.yaml:5"]);
    assert_eq!(lines(&places.rules), ["a.yaml:8", "b.yaml:9"]);
    assert_eq!(lines(&places.kill_one_in), ["a.yaml:6", "b.yaml:7", "b.yaml:7"]);
    assert_eq!(lines(&places.oom_group), ["a.yaml:5", "b.yaml:6"]);
    // What counts for all counts for rules of the file before, too.
    assert!(policy.rules.iter().all(|rule| rule.mode == Mode::Observe && rule.cooldown.as_secs() == 5));
}

#[test]
fn sources_may_not_contradict_each_other() {
    let first = format!(
        "version: 1\nmode: observe\ndefaults: {{cooldown: 1s}}\nkernel: {{hold: 1s}}\nsystemd: {{oomd_xattrs: true}}\nlimits: {{kills: 5 per 1m, node: 8 per 1m}}\n{RULE}"
    );
    let second = format!(
        "version: 1\nmode: enforce\ndefaults: {{cooldown: 2s}}\nkernel: {{hold: 2s}}\nsystemd: {{oomd_xattrs: false}}\nlimits: {{kills: 6 per 1m, node: 9 per 1m}}\n{RULE}"
    );
    assert_eq!(
        errors(&[&first, &second]),
        [
            "b.yaml:2:7: error: mode is set differently in a.yaml:2\n  hint: it counts for all files together: set it once",
            "b.yaml:3:22: error: cooldown is set differently in a.yaml:3\n  hint: it counts for all files together: set it once",
            "b.yaml:4:16: error: hold is set differently in a.yaml:4\n  hint: it counts for all files together: set it once",
            "b.yaml:5:24: error: oomd_xattrs is set differently in a.yaml:5\n  hint: it counts for all files together: set it once",
            "b.yaml:6:17: error: the limit of kills is set differently in a.yaml:6\n  hint: it counts for all files together: set it once",
            "b.yaml:6:33: error: the limit of kills on the node is set differently in a.yaml:6\n  hint: it counts for all files together: set it once",
            "b.yaml:8:12: error: there is a rule `r` already, in a.yaml:8\n  hint: give this one a name of its own",
        ]
    );
}

#[test]
fn errors_of_all_sources_come_at_once() {
    let found = errors(&["version: 1\nmodee: x\n", "a: [", "version: 1\nrules: 7\n"]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("a.yaml:2:1: error: unknown key `modee`"));
    assert!(found[1].starts_with("b.yaml:") && found[1].contains("not YAML"));
    assert!(found[2].starts_with("c.yaml:2:8: error: `rules` is a list, not the number `7`"));
    assert!(found.iter().all(|error| error.contains("\n  hint: ")));
    assert!(load(&[]).is_err());
}

#[test]
fn the_hash_follows_the_text() {
    let hash = |texts: &[&str]| load(&sources(texts)).unwrap().policy.hash;
    let (text, empty) = (format!("version: 1\n{RULE}"), "version: 1\n");
    assert_eq!(hash(&[&text]).len(), 16);
    assert_eq!(hash(&[&text]), hash(&[&text]));
    assert_ne!(hash(&[&text]), hash(&[&format!("{text}#")]));
    assert_ne!(hash(&[&text, empty]), hash(&[empty, &text]));
    assert_ne!(hash(&[&text, "version: 1 #"]), hash(&[&text, "version: 1"]));
}

#[test]
fn what_is_not_said_has_its_default() {
    let policy = good(&format!("version: 1\n{RULE}")).policy;
    let rule = &policy.rules[0];
    assert_eq!((policy.mode, rule.mode, rule.cooldown.as_millis()), (Mode::Enforce, Mode::Enforce, 2000));
    assert!(matches!(rule.victim, Victim::Subject) && rule.only_if.is_empty() && policy.oom_group.is_none());
    assert_eq!(rule.ladder, [Rung::Kill(KillWhat::Group)]);
}

#[test]
fn numbers_are_bounded() {
    let rules = |n: usize| (0..n).map(|i| format!("  - {{name: r{i}, watch: /a, when: [event: oom_kill]}}\n")).collect::<String>();
    assert!(load(&sources(&[&format!("version: 1\nrules:\n{}", rules(256))])).is_ok());
    let found = errors(&[&format!("version: 1\nrules:\n{}", rules(257))]);
    assert!(found[0].starts_with("a.yaml:259:12: error: 257 rules are too many") && found.len() == 1, "{found:?}");
    let found = errors(&[&format!("version: 1\nexclude:\n{}{RULE}", "  - /a\n".repeat(300))]);
    assert!(found[0].starts_with("a.yaml:259:5: error: 300 exclusions are too many"), "{found:?}");
    let found = errors(&[&format!("version: 1\nimportance:\n{}{RULE}", "  - {group: /a, value: 1}\n".repeat(300))]);
    assert!(found[0].contains("300 lines of importance are too many"), "{found:?}");
    let found = errors(&[&format!("version: 1\n{RULE}exclude: [{{group: [{}]}}]\n", "/a, ".repeat(3000))]);
    assert!(found[0].contains("3001 globs are too many"), "{found:?}");
}

#[test]
fn ready_policies_pass_without_a_warning() {
    for (name, text) in READY {
        match load(&[Source::new(name, text)]) {
            Ok(Loaded { policy, warnings, .. }) => {
                assert!(warnings.is_empty(), "{}", warnings[0]);
                assert!(!policy.rules.is_empty() && !policy.exclude.is_empty(), "{name}");
            }
            Err(errors) => panic!("{}", errors[0]),
        }
    }
    assert!(Policy::builtin().is_ok());
}

#[test]
fn the_builtin_policy_spares_what_a_machine_needs_to_live() {
    let policy = Policy::builtin().unwrap().policy;
    let class = |path: &str| {
        let root = policy.classify(b"/", None);
        let steps = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).chain([path]);
        steps.fold(root, |parent, step| policy.classify(step.as_bytes(), Some(&parent)))
    };
    for spared in [
        "/init.scope",
        "/system.slice/ssh.service",
        "/system.slice/sshd.service",
        "/system.slice/system-sshd.slice/sshd@1.service",
        "/system.slice/systemd-journald.service",
        "/system.slice/systemd-udevd.service/udev",
        "/system.slice/systemd-logind.service",
        "/system.slice/dbus.service",
        "/system.slice/containerd.service",
    ] {
        assert!(class(spared).excluded.is_some(), "{spared}");
    }
    // Users can put anything there: it dies last, but it does die.
    for last in [
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "/user.slice/user-1000.slice/user@1000.service/session.slice/org.gnome.Shell@wayland.service",
    ] {
        assert!(class(last).excluded.is_none() && class(last).importance > 0, "{last}");
    }
    for fair in [
        "/system.slice/postgresql.service",
        "/system.slice/docker-0123.scope",
        "/system.slice/run-u1.service",
        "/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-1.scope",
        "/machine.slice/vm.scope",
        "/work",
    ] {
        let class = class(fair);
        assert!(class.excluded.is_none() && !class.among.is_empty() && !class.subject_of.is_empty(), "{fair}");
    }
}

/// The examples of the reference, each made whole: a part of a policy is shown without the rest of it.
pub(super) fn examples() -> Vec<String> {
    let text = include_str!("../../docs/policy.md");
    let whole = |block: &str| {
        let example = block.split("```").next().unwrap();
        let mut whole = example.to_owned();
        for (key, rest) in [("version:", "version: 1\n"), ("rules:", RULE)] {
            if !example.lines().any(|line| line.starts_with(key)) {
                whole = format!("{rest}{whole}");
            }
        }
        whole
    };
    text.split("```yaml\n").skip(1).map(whole).collect()
}

#[test]
fn the_examples_of_the_reference_are_sound() {
    let examples = examples();
    for whole in &examples {
        let loaded = good(whole);
        assert!(loaded.warnings.is_empty(), "{whole}\n{}", loaded.warnings[0]);
    }
    assert!(examples.len() >= 8, "{}", examples.len());
}

#[test]
fn a_bomb_is_refused_before_it_grows() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(", "));
    }
    let found = errors(&[&bomb]);
    assert!(found[0].contains("an anchor"), "{}", found[0]);
}

#[test]
fn the_largest_policies_are_read_in_bounded_time() {
    let list = |n: usize, form: &str| (0..n).map(|i| form.replace('#', &i.to_string())).collect::<Vec<_>>().join(", ");
    let head = "version: 1\nrules:\n  - {name: r, watch: /a, when: [event: oom]";
    for (what, text) in [
        ("too many globs", format!("{head}, victim: {{among: [{}]}}}}\n", list(40_000, "\"/a#*/{b,c}\""))),
        ("many globs", format!("{head}, victim: {{among: [{}]}}}}\n", list(250, "\"/a/b/c/d/e*#/{b,c}\""))),
        ("too many rules", format!("version: 1\nrules: [{}]\n", list(8_000, "{name: r#}"))),
        ("too many keys", format!("version: 1\n{}\n", list(20_000, "k#: 1").replace(", ", "\n"))),
        ("one deep glob", format!("{head}, victim: {{among: [\"{}\", \"/*/{{b,c}}\"]}}}}\n", "/a".repeat(500))),
    ] {
        let start = std::time::Instant::now();
        let _ = load(&sources(&[&text]));
        let took = start.elapsed();
        println!("{what}: {took:?}");
        assert!(took.as_secs() < 60, "{what} took {took:?}");
    }
}

/// One change to a text, at a character boundary.
fn mutated(text: &str, at: prop::sample::Index, piece: &str, cut: usize) -> String {
    let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
    let start = at.index(places.len());
    let end = (start + cut).min(places.len());
    let tail = places.get(end).map_or("", |place| &text[*place..]);
    format!("{}{piece}{tail}", &text[..places[start]])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::cases(100)))]

    #[test]
    fn no_bytes_panic_the_loader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let result = load(&[Source::new("p", bytes)]);
        prop_assert!(result.is_ok() || !result.unwrap_err().is_empty());
    }

    #[test]
    fn no_mutated_policy_panics_the_loader(
        which in 0..READY.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), "[a-z0-9 :\\[\\]{}*&!|>'\",#/%\n-]{0,6}", 0_usize..8), 1..4),
    ) {
        let mut text = READY[which].1.to_owned();
        for (at, piece, cut) in changes {
            text = mutated(&text, at, &piece, cut);
            if text.is_empty() {
                break;
            }
        }
        if let Err(errors) = load(&[Source::new("p", text)]) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|error| !error.message.is_empty() && !error.hint.is_empty()));
        }
    }
}
