//! `oomwarden check FILE...`: reads policies, says what is wrong with them and does nothing else.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::asking::say;
use super::found::Daemon;
use super::output;
use super::status::ControlArgs;
use crate::command::{DONE, FAILED, Failure, USAGE};
use crate::policy::files::{judge_hooks, read_trusted, shown_path};
use crate::policy::model::Policy;
use crate::policy::overlooked::{overlooked, warning};
use crate::policy::places::Places;
use crate::policy::{Diagnostic, Loaded, ReadError, Severity, Source, load, read_sources};

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Policy files, or directories of *.yaml: each is a policy of its own; without any, what the
    /// running oomwarden was started with
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    control: ControlArgs,
    /// One JSON object instead of lines, on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Whole<'a> {
    v: u32,
    policies: &'a [Checked],
}

/// What was found in one policy.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The file or directory.
    pub file: String,
    /// Whether it can be used.
    pub sound: bool,
    /// Why it could not be read.
    pub unreadable: Option<String>,
    /// How many rules it has, if it is sound.
    pub rules: Option<usize>,
    /// How many exclusions.
    pub exclusions: Option<usize>,
    /// Its fingerprint.
    pub policy_hash: Option<String>,
    /// Errors and warnings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// Files beside it that look like policies and are not read, each with what to do.
    pub not_read: Vec<String>,
}

/// Checks each file (a directory counts as one policy) as a policy of its own.
///
/// One line for each sound policy goes to standard output; errors and warnings go to standard error. Returns the exit
/// code: 0 if all are sound, 2 if one is not, 1 if one could not be read or the output could not be written.
#[must_use]
pub fn run(args: &CheckArgs) -> u8 {
    let checked = match &args.files[..] {
        [] => match check_the_daemons(&args.control) {
            Ok(checked) => vec![checked],
            Err(failure) => return failure.report(),
        },
        files => files.iter().map(|file| check(file)).collect(),
    };
    let told = if args.json {
        output::json(&Whole { v: 1, policies: &checked })
    } else {
        let told = |one: &Checked| one.tell(&mut io::stdout().lock(), &mut io::stderr().lock()).is_ok();
        if checked.iter().all(told) { DONE } else { FAILED }
    };
    code(&checked).max(told)
}

fn code(checked: &[Checked]) -> u8 {
    let unread = checked.iter().any(|one| one.unreadable.is_some());
    let unsound = checked.iter().any(|one| !one.sound && one.unreadable.is_none());
    match (unsound, unread) {
        (true, _) => USAGE,
        (false, true) => FAILED,
        (false, false) => DONE,
    }
}

/// What the running daemon was started with: what it would read now.
fn check_the_daemons(control: &ControlArgs) -> Result<Checked, Failure> {
    let daemon = Daemon::ask(control).map_err(|why| Failure::new(USAGE, format!("name a policy to check: {why}")))?;
    let files = daemon.files();
    let name = files.iter().map(|file| shown_path(file)).collect::<Vec<_>>().join(", ");
    let checked = match &files[..] {
        [] => checked(Source::builtin().name().to_owned(), &[], Ok(vec![Source::builtin()])),
        files => checked(name, files, read_sources(files)),
    };
    say(&format!("this is about {}", daemon.describe()));
    if let Some(difference) = daemon.difference(checked.policy_hash.as_deref()) {
        say(&difference);
    }
    Ok(checked)
}

fn check(file: &Path) -> Checked {
    checked(shown_path(file), &[file.to_owned()], read_sources(&[file]))
}

fn checked(file: String, paths: &[PathBuf], sources: Result<Vec<Source>, ReadError>) -> Checked {
    let mut checked = Checked {
        file,
        not_read: overlooked(paths).iter().map(|path| warning(path)).collect(),
        sound: false,
        unreadable: None,
        rules: None,
        exclusions: None,
        policy_hash: None,
        diagnostics: Vec::new(),
    };
    match sources.map(|sources| load(&sources)) {
        Err(error) => checked.unreadable = Some(error.to_string()),
        Ok(Err(errors)) => checked.diagnostics = errors,
        Ok(Ok(Loaded { policy, warnings, places })) => {
            checked.sound = true;
            checked.rules = Some(policy.rules.len());
            checked.exclusions = Some(policy.exclude.len());
            checked.policy_hash = Some(policy.hash.to_string());
            checked.diagnostics = warnings;
            checked.diagnostics.extend(untrusted(paths, &policy, &places));
        }
    }
    checked
}

/// What `run` would refuse here because others may write to it. A warning, since a policy may be checked before it is put in its place.
fn untrusted(paths: &[PathBuf], policy: &Policy, places: &Places) -> impl Iterator<Item = Diagnostic> {
    let file: Arc<str> = paths.first().map_or_else(String::new, |path| shown_path(path)).into();
    let warning = |file: Arc<str>, line, error: ReadError| Diagnostic {
        severity: Severity::Warning,
        file,
        line,
        column: 1,
        message: error.to_string(),
        hint: "`oomwarden run` would not take this policy here, unless with --observe".to_owned(),
    };
    let files = (!paths.is_empty()).then(|| read_trusted(paths).err()).flatten().filter(ReadError::is_untrusted);
    let files = files.map(|error| warning(Arc::clone(&file), 1, error));
    let hook = judge_hooks(policy).err().map(|error| {
        let at = policy.rules.iter().position(|rule| error.rule() == Some(&*rule.name)).and_then(|rule| places.rules.get(rule));
        let (file, line) = at.map_or_else(|| (file, 1), |at| (Arc::clone(&at.file), at.line));
        warning(file, line, error)
    });
    files.into_iter().chain(hook)
}

impl Checked {
    fn tell(&self, out: &mut dyn Write, messages: &mut dyn Write) -> io::Result<()> {
        if let Some(error) = &self.unreadable {
            writeln!(messages, "error: {error}")?;
        }
        for diagnostic in &self.diagnostics {
            writeln!(messages, "{diagnostic}")?;
        }
        for warning in &self.not_read {
            writeln!(messages, "warning: {warning}")?;
        }
        if let (Some(rules), Some(exclusions), Some(hash)) = (self.rules, self.exclusions, &self.policy_hash) {
            let warnings = match self.diagnostics.len() + self.not_read.len() {
                0 => String::new(),
                some => format!(", {}", count(some, "warning")),
            };
            writeln!(out, "{}: sound: {}, {}{warnings}, hash {hash}", self.file, count(rules, "rule"), count(exclusions, "exclusion"))?;
        }
        out.flush()
    }
}

fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn checked(files: &[PathBuf]) -> (u8, String, String) {
        let (mut out, mut messages) = (Vec::new(), Vec::new());
        let checked: Vec<Checked> = files.iter().map(|file| check(file)).collect();
        checked.iter().for_each(|one| one.tell(&mut out, &mut messages).unwrap());
        (code(&checked), String::from_utf8(out).unwrap(), String::from_utf8(messages).unwrap())
    }

    #[test]
    fn files_that_look_like_policies_and_are_none_are_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), "version: 1\n").unwrap();
        fs::write(directory.path().join("b.yml"), "version: 1\n").unwrap();
        let (code, out, messages) = checked(&[directory.path().to_owned()]);
        assert_eq!((code, out.contains("1 rule")), (DONE, false));
        assert!(
            messages.contains("warning: ") && messages.contains("b.yml is not read: ") && messages.contains("rename it to b.yaml"),
            "{messages}"
        );
        assert!(out.contains("warning"), "they are counted: {out}");
    }

    #[test]
    fn sound_unsound_and_unreadable() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let sound = file("a.yaml", "version: 1\nexclude: [/a]\nrules:\n  - {name: r, watch: /b, when: [event: oom_kill]}\n");
        let odd = file("b.yaml", "version: 1\nrules:\n  - {name: r, watch: /b, when: [event: high]}\n");
        let bad = file("c.yaml", "version: 1\nmodee: observe\nrules:\n  - {name: r, watch: b}\n");
        let missing = directory.path().join("none.yaml");

        let (code, out, messages) = checked(&[sound.clone(), odd.clone()]);
        assert_eq!(code, 0);
        assert!(out.starts_with(&format!("{}: sound: 1 rule, 1 exclusion, hash ", sound.display())), "{out}");
        assert!(out.contains("1 rule, 0 exclusions, 1 warning, hash "), "{out}");
        assert!(messages.starts_with(&format!("{}:3:", odd.display())) && messages.contains(": warning: "), "{messages}");

        let (code, out, messages) = checked(&[bad.clone(), sound.clone(), missing.clone()]);
        assert_eq!((code, out.lines().count()), (2, 1));
        let expected =
            format!("{0}:2:1: error: unknown key `modee` in the policy\n  hint: did you mean `mode`?\n{0}:4:5: error: ", bad.display());
        assert!(messages.starts_with(&expected), "{messages}");
        assert!(messages.contains("4:22: error: the glob `b` does not begin with `/`\n  hint: write `/b`\n"), "{messages}");
        assert!(messages.contains("none.yaml"), "{messages}");

        let (code, out, messages) = checked(&[missing]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(messages.contains("check the path"), "{messages}");

        // Together they are one policy, and the name `r` stands in it more than once.
        let (code, _, messages) = checked(&[directory.path().to_owned()]);
        assert_eq!(code, 2);
        assert!(messages.contains(&format!("there is a rule `r` already, in {}:4", sound.display())), "{messages}");
    }
}
