//! The policy to begin with: the one that was given; if that can't be used the last good one; without one the built-in one, which only
//! observes then.
//!
//! Nobody is protected by a daemon that doesn't start, and nobody is killed by rules that nobody chose. What is in force instead is said loudly,
//! and the reloader takes the given policy over as soon as it can be used.

use std::path::PathBuf;
use std::time::SystemTime;

use tracing::Level;

use super::acting::{self, Texts};
use crate::command::Failure;
use crate::command::policy::compile;
use crate::control::origin;
use crate::journal_stream;
use crate::metrics::counters::Counters;
use crate::policy::model::Policy;
use crate::policy::refusal::{faults, gist};
use crate::policy::{Loaded, Source};
use crate::state::policy::{LastGood, NAME, last_good};
use crate::state::{StateDir, time_text};

/// The policy to begin with.
pub(super) struct Beginning {
    pub(super) policy: Policy,
    pub(super) texts: Texts,
    /// Why it is not the one that was given.
    pub(super) instead: Option<Instead>,
}

/// Another policy than the given one.
pub(super) struct Instead {
    /// Why the given one can't be used: all that is wrong with it.
    refused: String,
    /// What is in force, in words.
    in_force: String,
    /// What that was made of.
    pub(super) source: origin::Source,
    /// When it was taken over first.
    since: SystemTime,
    /// It was said, or the log will say it.
    told: bool,
}

impl Instead {
    /// Says so, in the log and as `degraded`.
    pub(super) fn tell(mut self, counters: &Counters) {
        self.told = true;
        tracing::error!("the policy is refused; {}: {}", self.in_force, self.refused);
        counters.policy_fell_back(self.since, format!("{}; {}", gist(&self.refused), self.in_force));
    }

    /// Says that the given policy is refused where no other one comes in force, before there is a
    /// log. Once.
    pub(super) fn say(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            let (first, more) = faults(&self.refused);
            let more = if more == 0 { String::new() } else { format!(" (and {more} more: see `oomwarden check`)") };
            journal_stream::say(Level::ERROR, &format!("the policy is refused: {first}{more}"));
        }
    }
}

/// Also where the start ends for another reason: who mends that is to know of this too.
impl Drop for Instead {
    fn drop(&mut self) {
        self.say();
    }
}

/// Compiles a policy; `observe`: as one that only observes.
pub(super) fn load(sources: &[Source], observe: bool) -> Result<Policy, Failure> {
    let Loaded { mut policy, .. } = compile(sources)?;
    acting::judge_hooks(&policy, observe)?;
    if observe {
        policy.only_observe();
    }
    Ok(policy)
}

fn load_given(paths: &[PathBuf], observe: bool) -> Result<(Policy, Texts), Failure> {
    let texts = acting::texts(paths, observe, acting::at_the_start)?;
    Ok((load(&texts.sources, observe)?, texts))
}

/// The policy in these files, or what is used in its place; `strict`: nothing is.
///
/// # Errors
/// What is wrong with the policy, if `strict`.
pub(super) fn begin(paths: &[PathBuf], observe: bool, strict: bool, state: &StateDir) -> Result<Beginning, Failure> {
    let refused = match load_given(paths, observe) {
        Ok((policy, texts)) => return Ok(Beginning { policy, texts, instead: None }),
        Err(failure) if strict => return Err(failure),
        Err(failure) => failure.message,
    };
    let why_not = match last_good(state).map_err(|error| error.to_string()) {
        Ok(None) => "there is no last good one".to_owned(),
        Err(why) => unusable(state, &why),
        Ok(Some(LastGood { sources, time })) => match load(&sources, observe) {
            Ok(policy) => {
                let in_force = format!("the last good one is used, {} from {}", policy.hash, time_text(time));
                return Ok(Beginning {
                    policy,
                    texts: Texts::trusted(sources),
                    instead: Some(Instead { refused, in_force, source: origin::Source::LastGood, since: time, told: false }),
                });
            }
            Err(failure) => unusable(state, &failure.message),
        },
    };
    let sources = vec![Source::builtin()];
    let policy = load(&sources, true)?;
    let in_force =
        format!("{why_not}; the built-in one is used and only observes: nobody is killed until there is a policy that can be used");
    let instead = Instead { refused, in_force, source: origin::Source::BuiltIn, since: SystemTime::now(), told: false };
    Ok(Beginning { policy, texts: Texts::trusted(sources), instead: Some(instead) })
}

fn unusable(state: &StateDir, why: &str) -> String {
    format!("the last good one in {} can't be used ({})", state.path_of(NAME).display(), gist(why))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::degraded::Reason;
    use crate::policy::model::Mode;
    use crate::state::policy::Keeper;

    const GOOD: &str = "version: 1\nrules:\n  - {name: mine, watch: /t, when: [event: oom_kill]}\n";
    const BAD: &str = "version: 1\nrulez: []\n";

    struct Fixture {
        _dir: tempfile::TempDir,
        state: StateDir,
        good: PathBuf,
        bad: PathBuf,
        missing: PathBuf,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let (good, bad, missing) = (at("good.yaml"), at("bad.yaml"), at("nowhere/policy.yaml"));
        fs::write(&good, GOOD).expect("written");
        fs::write(&bad, BAD).expect("written");
        Fixture { state: StateDir::new(dir.path()), _dir: dir, good, bad, missing }
    }

    /// What is said: the reason's text.
    fn told(beginning: Beginning) -> String {
        let counters = Counters::new().expect("counters");
        beginning.instead.expect("not the given one").tell(&counters);
        let degraded = counters.degraded().list();
        assert_eq!((degraded.len(), degraded[0].0, counters.is_last_policy_in_force()), (1, Reason::Policy, false));
        degraded[0].1.to_string()
    }

    fn is_builtin_and_observes(policy: &Policy) -> bool {
        let builtin = Policy::builtin().expect("sound").policy;
        policy.hash == builtin.hash && policy.mode == Mode::Observe && policy.rules.iter().all(|rule| rule.mode == Mode::Observe)
    }

    #[test]
    fn a_good_policy_is_the_one() {
        let Fixture { state, good, .. } = &fixture();
        for strict in [false, true] {
            let beginning = begin(std::slice::from_ref(good), false, strict, state).expect("a policy");
            assert!(beginning.instead.is_none() && &*beginning.policy.rules[0].name == "mine" && beginning.policy.mode == Mode::Enforce);
        }
    }

    #[test]
    fn without_a_last_good_one_the_built_in_one_observes() {
        let Fixture { state, good, bad, missing, .. } = &fixture();
        // A sound file beside a broken or a missing one is no policy of its own.
        for (paths, part) in [
            (vec![bad.clone()], ":2:1: error: unknown key `rulez`"),
            (vec![missing.clone()], "nowhere/policy.yaml"),
            (vec![good.clone(), bad.clone()], "bad.yaml:2:1"),
            (vec![missing.clone(), good.clone()], "nowhere/policy.yaml"),
        ] {
            let beginning = begin(&paths, false, false, state).expect("a policy");
            assert!(is_builtin_and_observes(&beginning.policy), "{paths:?}");
            let told = told(beginning);
            assert!(told.contains(part) && told.contains("only observes") && !told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn the_last_good_one_comes_before_the_built_in_one() {
        let Fixture { state, bad, missing, .. } = &fixture();
        Keeper::new(state.clone()).keep(&[Source::new("kept.yaml", GOOD)], &Arc::from("hash"));
        for path in [bad, missing] {
            let beginning = begin(std::slice::from_ref(path), false, false, state).expect("a policy");
            assert_eq!((&*beginning.policy.rules[0].name, beginning.policy.mode), ("mine", Mode::Enforce));
            let told = told(beginning);
            assert!(told.contains("the last good one is used") && told.contains(path.to_str().expect("text")), "{told}");
        }
    }

    #[test]
    fn a_last_good_one_that_is_none_is_named() {
        let Fixture { state, bad, .. } = &fixture();
        for content in
            ["{", "{\"v\":1,\"time\":\"2023-11-14T22:13:20Z\",\"hash\":\"h\",\"sources\":[{\"name\":\"k\",\"text\":\"rulez: 1\"}]}"]
        {
            fs::write(state.path_of(NAME), content).expect("written");
            let beginning = begin(std::slice::from_ref(bad), false, false, state).expect("a policy");
            assert!(is_builtin_and_observes(&beginning.policy));
            let told = told(beginning);
            assert!(told.contains(NAME) && told.contains("can't be used"), "{told}");
        }
    }

    /// What others may write is judged while nothing is done, and never becomes a file of our own
    /// that is trusted later.
    #[test]
    fn what_others_may_write_is_not_kept_by_who_observes() {
        use std::os::unix::fs::PermissionsExt as _;
        let Fixture { state, good, .. } = &fixture();
        let mode = |mode| fs::set_permissions(good, fs::Permissions::from_mode(mode)).expect("chmod");
        let paths = std::slice::from_ref(good);
        mode(0o666);
        let keep = |beginning: &Beginning| beginning.texts.keep(&Keeper::new(state.clone()), &beginning.policy.hash);
        let observing = begin(paths, true, false, state).expect("a policy");
        assert!(observing.instead.is_none() && &*observing.policy.rules[0].name == "mine");
        keep(&observing);
        assert!(!state.path_of(NAME).exists(), "another's text is kept as our own");
        let acting = begin(paths, false, false, state).expect("a policy");
        assert!(is_builtin_and_observes(&acting.policy));
        let said = told(acting);
        assert!(said.contains("mode 0666") && said.contains("there is no last good one"), "{said}");
        // One that is ours is kept by who observes too, and good for who acts.
        mode(0o644);
        keep(&begin(paths, true, false, state).expect("a policy"));
        mode(0o666);
        let acting = begin(paths, false, false, state).expect("a policy");
        assert_eq!((&*acting.policy.rules[0].name, acting.policy.mode), ("mine", Mode::Enforce));
        assert!(told(acting).contains("the last good one is used"));
    }

    #[test]
    fn whoever_is_strict_is_told_by_the_exit_code() {
        let Fixture { state, bad, missing, .. } = &fixture();
        Keeper::new(state.clone()).keep(&[Source::new("kept.yaml", GOOD)], &Arc::from("hash"));
        let code = |path: &PathBuf| begin(std::slice::from_ref(path), false, true, state).err().map(|failure| failure.code);
        assert_eq!((code(bad), code(missing)), (Some(crate::command::USAGE), Some(crate::command::FAILED)));
    }
}
