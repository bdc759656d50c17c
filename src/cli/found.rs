//! The policy of the oomwarden that is running here, for commands that were given none: asked for
//! at its control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde::Deserialize as _;

use super::status::ControlArgs;
use crate::command::Failure;
use crate::command::policy::{compile, read_policy, sources_of};
use crate::control::origin::Source;
use crate::policy::Loaded;
use crate::policy::files::shown_path;
use crate::policy::model::Mode;
use crate::policy::words::mode_word;
use crate::serve::status::{PolicyStatus, Status};
use crate::state::{StateDir, policy};

/// How long the daemon has for its answer: one that is stuck must not keep a question about a
/// policy.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the daemon says of its policy.
#[derive(Debug)]
pub(super) struct Daemon {
    pid: u32,
    policy: PolicyStatus,
}

impl Daemon {
    /// Asks it.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) fn ask(control: &ControlArgs) -> Result<Daemon, String> {
        let value = control.ask_within(&Method::GET, "/api/v1/status", PATIENCE).map_err(|failure| failure.message)?;
        let status = Status::deserialize(&value).map_err(|error| control.foreign(&error).message)?;
        if status.policy.source.is_empty() {
            return Err(format!(
                "the oomwarden that is running (process {}, version {}) does not tell its policy",
                status.pid, status.version
            ));
        }
        Ok(Daemon { pid: status.pid, policy: status.policy })
    }

    /// The files that it was started with; none for the built-in policy.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.policy.files.iter().map(PathBuf::from).collect()
    }

    /// Whose policy it is, in words.
    pub(super) fn describe(&self) -> String {
        let what = match &self.policy.files[..] {
            [] => "the built-in policy".to_owned(),
            files => files.iter().map(|file| shown_path(Path::new(file))).collect::<Vec<_>>().join(", "),
        };
        let whose = format!("the policy of the oomwarden that is running (process {})", self.pid);
        if self.falls_back() {
            return format!("the built-in policy, which only observes in place of {what}, which can't be used: {whose}");
        }
        let observe = if self.policy.observe { ", which only observes (--observe)" } else { "" };
        format!("{what}, {whose}{observe}")
    }

    /// The built-in policy only observes in place of files that can't be used.
    fn falls_back(&self) -> bool {
        let policy = &self.policy;
        policy.source == Source::BuiltIn.word() && !policy.files.is_empty() && policy.mode == mode_word(Mode::Observe)
    }

    /// What is to be said of a policy with this fingerprint that stands in the files; `None`: it is
    /// the one in force.
    pub(super) fn difference(&self, hash: Option<&str>) -> Option<String> {
        if hash == Some(&self.policy.hash) {
            return None;
        }
        let which = match () {
            () if self.policy.files.is_empty() => {
                return Some(format!("the built-in policy in force is that of another version: {}", self.policy.hash));
            }
            () if self.policy.source == Source::BuiltIn.word() => "the built-in policy",
            () if self.policy.source == Source::LastGood.word() => "the last good policy",
            () => "policy",
        };
        let (force, files) = (&self.policy.hash, hash.map_or_else(|| "can't be used".to_owned(), |hash| format!("hold {hash}")));
        let why = match (self.policy.is_last, hash) {
            (_, None) => "it stays in force until they are sound again",
            (false, Some(_)) => "a change of them was refused; SIGHUP has them read again",
            (true, Some(_)) => "they were changed and not read since; SIGHUP has them read",
        };
        Some(format!("{which} {force} is in force, and the files {files}: {why}"))
    }

    /// The policy in force, and what is to be said of it: from its files if they hold it, else from
    /// where the daemon keeps its texts. Where the daemon only observes, whatever the policy says,
    /// so do the rules.
    ///
    /// # Errors
    /// Neither of them can be used, or has it.
    pub(super) fn load(&self) -> Result<(Loaded, String), Failure> {
        let (mut loaded, about) = self.find()?;
        if self.policy.observe || self.falls_back() {
            loaded.policy.only_observe();
        }
        Ok((loaded, about))
    }

    fn find(&self) -> Result<(Loaded, String), Failure> {
        let about = format!("this is about {}", self.describe());
        let files = sources_of(&self.files()).and_then(|sources| compile(&sources));
        let in_force = |loaded: &Loaded| *loaded.policy.hash == *self.policy.hash;
        let difference = self.difference(files.as_ref().ok().map(|loaded| &*loaded.policy.hash)).unwrap_or_default();
        match files {
            Ok(loaded) if in_force(&loaded) => Ok((loaded, about)),
            files => match self.kept().filter(in_force).or_else(|| read_policy(&[]).ok().filter(in_force)) {
                Some(loaded) if self.falls_back() => Ok((loaded, format!("{about}; {difference}"))),
                Some(loaded) => Ok((loaded, format!("{about}, as it is in force; {difference}"))),
                None => match files {
                    Ok(loaded) if self.policy.files.is_empty() => {
                        Ok((loaded, format!("{about}, but as it is in this version of the program, not in the daemon's")))
                    }
                    Ok(loaded) => Ok((loaded, format!("{about}, as it stands in the files; {difference}"))),
                    Err(Failure { code, message }) => {
                        Err(Failure { code, message: format!("{about}; {difference}\noomwarden: {message}") })
                    }
                },
            },
        }
    }

    /// The texts that the daemon keeps of the policy that it took over last.
    fn kept(&self) -> Option<Loaded> {
        let directory = StateDir::new(Path::new(&self.policy.kept).parent()?);
        let kept = policy::last_good(&directory).ok().flatten()?;
        compile(&kept.sources).ok()
    }
}

/// The policy that is asked about where none was named, and what is to be said of it.
///
/// # Errors
/// The daemon's policy can't be used, nor read where it is kept.
pub(super) fn policy_of_the_daemon(control: &ControlArgs) -> Result<(Loaded, String, bool), Failure> {
    match Daemon::ask(control) {
        Ok(daemon) => daemon.load().map(|(loaded, about)| (loaded, about, true)),
        Err(why) => {
            Ok((read_policy(&[])?, format!("this is about the built-in policy, because none is named with --policy and {why}"), false))
        }
    }
}
