//! `oomwarden check FILE...`: reads policies, says what is wrong with them and does nothing else.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::policy::files::shown_path;
use crate::policy::{Loaded, load, read_sources};

/// Checks each of `files` (a directory counts as one policy) as a policy of its own.
///
/// One line for each sound policy goes to standard output; errors and warnings go to standard error. Returns the exit
/// code: 0 if all are sound, 2 if one is not, 1 if one could not be read or the output could not be written.
#[must_use]
pub fn run(files: &[PathBuf]) -> u8 {
    check(files, &mut io::stdout().lock(), &mut io::stderr().lock()).unwrap_or(1)
}

/// The same with both outputs given.
///
/// # Errors
/// When an output can't be written to.
pub fn check(files: &[PathBuf], out: &mut dyn Write, messages: &mut dyn Write) -> io::Result<u8> {
    let (mut unsound, mut unread) = (false, false);
    for file in files {
        let sources = match read_sources(&[file]) {
            Ok(sources) => sources,
            Err(error) => {
                unread = true;
                writeln!(messages, "error: {error}")?;
                continue;
            }
        };
        match load(&sources) {
            Ok(Loaded { policy, warnings }) => {
                for warning in &warnings {
                    writeln!(messages, "{warning}")?;
                }
                write!(
                    out,
                    "{}: sound: {}, {}",
                    shown_path(file),
                    count(policy.rules.len(), "rule"),
                    count(policy.exclude.len(), "exclusion")
                )?;
                if !warnings.is_empty() {
                    write!(out, ", {}", count(warnings.len(), "warning"))?;
                }
                writeln!(out, ", hash {}", policy.hash)?;
            }
            Err(errors) => {
                unsound = true;
                for error in &errors {
                    writeln!(messages, "{error}")?;
                }
            }
        }
    }
    out.flush()?;
    Ok(match (unsound, unread) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    })
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
        let code = check(files, &mut out, &mut messages).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(messages).unwrap())
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
