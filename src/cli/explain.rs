//! `oomwarden explain GROUP`: which rules and exclusions apply to a group, and why.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use clap::{Args, ValueHint};

use super::asking::{Policy, PolicyArgs, TreeArgs};
use super::output;
use crate::cgroup::path::{Escaped, GroupPath};
use crate::command::{Failure, USAGE};
use crate::preview::Asked;
use crate::preview::explain::{Explanation, explain};

/// Options of `explain`.
#[derive(Debug, Args)]
#[command(long_about = "Tells what a policy says of one group, and by which line: the rules that watch it, those whose victim it may be, \
                  exclusions, importance, memory.oom.group. For a group that exists also its numbers, the smallest limit that holds for it, \
                  the processes for whose sake it must live, and where it stands among the candidates right now.")]
pub struct ExplainArgs {
    /// Path below the cgroup root, as in /system.slice/cron.service; it need not exist
    #[arg(value_name = "GROUP", value_hint = ValueHint::AnyPath)]
    group: OsString,
    /// Look at nothing: explain by the name alone
    #[arg(long)]
    by_name: bool,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    tree: TreeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Explains and prints. The exit code: 2 for a bad policy or a path that is none, 3 without cgroup v2.
#[must_use]
pub fn run(args: &ExplainArgs) -> u8 {
    match explained(args) {
        Err(failure) => failure.report(),
        Ok(explanation) if args.json => output::json(&explanation),
        Ok(explanation) => output::text(&explanation.text()),
    }
}

fn explained(args: &ExplainArgs) -> Result<Explanation, Failure> {
    let path = group_path(args.group.as_bytes(), &args.tree.cgroup_root).map_err(|message| Failure::new(USAGE, message))?;
    let (loaded, is_guess) = args.policy.load()?.into_parts();
    let asked = Asked::from(loaded);
    if args.by_name {
        return Ok(explain(&asked, &path, None));
    }
    let mut onlooker = args.tree.look(&asked.policy).map_err(|failure| {
        let message = format!("{}\noomwarden: `--by-name` explains the group by its name alone, on any machine", failure.message);
        Failure { message, ..failure }
    })?;
    Policy::warn_of(is_guess, onlooker.daemon);
    Ok(explain(&asked, &path, Some(&mut onlooker)))
}

/// The path that was typed. One that begins with the cgroup root, as a shell completes it, is taken for what it means.
fn group_path(typed: &[u8], root: &Path) -> Result<GroupPath, String> {
    let root = root.as_os_str().as_bytes();
    let below = typed.strip_prefix(root).filter(|rest| root != b"/" && (rest.is_empty() || rest.starts_with(b"/")));
    let typed = below.map_or(typed, |rest| if rest.is_empty() { b"/" } else { rest });
    let tidy: Vec<&[u8]> = typed.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    if tidy.iter().any(|part| matches!(*part, b"." | b"..")) {
        return Err(format!("the path `{}` holds `.` or `..`: name the group by its path below the cgroup root", Escaped(typed)));
    }
    let path = GroupPath::from_bytes(&tidy.join(&b'/'));
    if !typed.starts_with(b"/") {
        return Err(format!("the group `{}` does not begin with `/`: write `{path}`, its path below the cgroup root", Escaped(typed)));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_a_path() {
        let path = |typed: &[u8]| group_path(typed, Path::new("/sys/fs/cgroup")).map(|path| path.to_string());
        assert_eq!(path(b"/a/b").unwrap(), "/a/b");
        assert_eq!(path(b"//a///b/").unwrap(), "/a/b");
        assert_eq!(path(b"/").unwrap(), "/");
        assert_eq!(path(b"/sys/fs/cgroup/a.slice/").unwrap(), "/a.slice");
        assert_eq!(path(b"/sys/fs/cgroup").unwrap(), "/");
        assert_eq!(path(b"/sys/fs/cgroups").unwrap(), "/sys/fs/cgroups");
        assert_eq!(path(b"/a\xff").unwrap(), "/a\\xff");
        assert!(path(b"a/b").unwrap_err().contains("write `/a/b`"));
        assert!(path(b"").unwrap_err().contains("write `/`"));
        assert!(path(b"/a/../b").unwrap_err().contains("`..`"));
        assert_eq!(group_path(b"/a", Path::new("/")).unwrap().to_string(), "/a");
    }
}
