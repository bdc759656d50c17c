//! The kernel module reads globs as the policy does: its matcher, built on this machine, against ours, on random globs and paths.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use oomwarden::policy::globs::Globs;
use oomwarden::policy::unbraced::unbraced;
use oomwarden::sense::lms::{Lines, Table};
use proptest::prelude::*;

/// Takes a glob and a path, each with a NUL behind it, and says `y`, `n`, `a` where the path of a group above matches and its own does not, `c` if it is the
/// other way round, or `x` where the module would refuse the glob.
const PROGRAM: &str = r#"
#include <stdio.h>
#include "lms_glob.h"

static int word(char *into, int room)
{
	int c, at = 0;

	while ((c = getchar()) > 0 && at < room - 1)
		into[at++] = c;
	into[at] = 0;
	return c == 0;
}

int main(void)
{
	static char glob[8192], path[8192];

	while (word(glob, sizeof(glob)) && word(path, sizeof(path))) {
		bool match = lms_glob_match(glob, path), above = lms_glob_match_above(glob, path);

		putchar(!lms_glob_valid(glob) ? 'x' : match ? (above ? 'y' : 'c') : above ? 'a' : 'n');
		fflush(stdout);
	}
	return 0;
}
"#;

/// The module's matcher as a process.
struct Matcher {
    process: Child,
    asked: BufWriter<ChildStdin>,
    said: BufReader<ChildStdout>,
    _dir: tempfile::TempDir,
}

impl Matcher {
    /// `None`, and a line that says so, where there is no C compiler.
    fn build() -> Option<Matcher> {
        let dir = tempfile::tempdir().unwrap();
        let (source, program) = (dir.path().join("glob.c"), dir.path().join("glob"));
        std::fs::write(&source, PROGRAM).unwrap();
        let kmod = Path::new(env!("CARGO_MANIFEST_DIR")).join("kmod");
        let compiler = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(kmod)
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .status();
        match compiler {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("SKIPPED: no cc, so the kernel module's globs were not tried");
                return None;
            }
            compiled => assert!(compiled.unwrap().success(), "kmod/lms_glob.h does not compile"),
        }
        let mut process = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (asked, said) = (BufWriter::new(process.stdin.take().unwrap()), BufReader::new(process.stdout.take().unwrap()));
        Some(Matcher { process, asked, said, _dir: dir })
    }

    /// Whether a path matches; `None` if the module refuses the glob.
    fn matches(&mut self, glob: &[u8], path: &[u8]) -> Option<bool> {
        self.ask(glob, path).map(|answer| matches!(answer, b'y' | b'c'))
    }

    /// Whether a path matches, or that of a group above it.
    fn matches_above(&mut self, glob: &[u8], path: &[u8]) -> Option<bool> {
        self.ask(glob, path).map(|answer| matches!(answer, b'y' | b'a'))
    }

    fn ask(&mut self, glob: &[u8], path: &[u8]) -> Option<u8> {
        for word in [glob, path] {
            self.asked.write_all(word).unwrap();
            self.asked.write_all(&[0]).unwrap();
        }
        self.asked.flush().unwrap();
        let mut answer = [0];
        self.said.read_exact(&mut answer).unwrap();
        (answer[0] != b'x').then_some(answer[0])
    }
}

impl Drop for Matcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Globs of everything that a glob can be made of, most of them sound.
fn glob() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "ab", "/", "/a", "/b"]),
        4 => prop::sample::select(vec!["*", "/*", "/**", "/**/", "?", "/?"]),
        3 => prop::sample::select(vec!["{", "}", ",", "{a,b}", "{a/**,b}", "{,a}", "{a{b,*},/b}"]),
        3 => prop::sample::select(vec!["[ab]", "[!a]", "[^b]", "[a-b]", "[!a-b]", "[]a]", "[!]a]", "[a/]", "[!/]", "[*]", "[{]", "[a-]", "[-a]", "[", "]", "-", "!", "^", "\\"]),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![30 => "(/[ab]{1,3}){1,4}", 10 => "(/[ab*{}\\]!,^\\\\-]{1,2}){1,3}", 1 => Just("/".to_owned())]
}

/// A glob with a path, half of the time one that it might match.
fn glob_and_path() -> impl Strategy<Value = (String, String)> {
    let parts = prop::sample::select(vec!["/", "/a/", "/b/a/"]);
    let fill = (parts, prop::sample::select(vec!["", "a", "b", "ba"]), prop::sample::select(vec!["a", "b", "]", "-"]), any::<bool>());
    (glob(), path(), fill).prop_map(|(glob, path, (parts, star, byte, random))| {
        if random {
            return (glob, path);
        }
        let mut like = glob.replace("/**/", parts).replace("**", "a/b").replace('*', star).replace('?', byte);
        while let Some((before, class)) = like.split_once('[').map(|(before, class)| (before.to_owned(), class.to_owned())) {
            let Some(end) = class.get(1..).and_then(|class| class.find(']')) else { break };
            like = format!("{before}{byte}{}", &class[end + 2..]);
        }
        let like = like.replace(['{', '}', ','], "");
        if like.ends_with('/') || like.contains("//") { (glob, path) } else { (glob, like) }
    })
}

fn ask<'a>(
    strategy: impl Strategy<Value = (String, String)>,
    cases: u32,
    check: impl Fn(&mut Matcher, &str, &str) -> Result<(), TestCaseError> + 'a,
) {
    let Some(matcher) = Matcher::build() else { return };
    let matcher = Mutex::new(matcher);
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) });
    let result =
        runner.run(&strategy, |(one, other)| check(&mut matcher.lock().unwrap_or_else(std::sync::PoisonError::into_inner), &one, &other));
    assert!(result.is_ok(), "{}", result.err().map_or_else(String::new, |error| error.to_string()));
}

#[test]
fn the_module_reads_a_glob_as_the_policy_does() {
    let (matched, sound) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    ask(glob_and_path(), 20_000, |matcher, pattern, path| {
        let Ok(globs) = Globs::new(&[pattern]) else { return Ok(()) };
        let several = unbraced(pattern, 4096).unwrap();
        let mut one_does = false;
        for glob in &several {
            let matches = matcher.matches(glob.as_bytes(), path.as_bytes());
            prop_assert!(matches.is_some(), "the module refuses {}, from {}", glob, pattern);
            one_does |= matches == Some(true);
        }
        let ours = globs.matches(path.as_bytes());
        prop_assert_eq!(ours, one_does, "{} as {:?} on {}", pattern, several, path);
        sound.set(sound.get() + 1);
        matched.set(matched.get() + u32::from(ours));
        Ok(())
    });
    println!("{} sound globs, {} matched", sound.get(), matched.get());
    assert!(sound.get() == 0 || matched.get() > sound.get() / 10, "hardly anything was tried that matches");
}

/// All paths of groups: of the root, of those above a group, and its own.
fn line(path: &str) -> Vec<&str> {
    let slashes = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    ["/"].into_iter().chain(slashes.map(|at| &path[..at])).chain([path]).collect()
}

#[test]
fn what_a_group_matches_the_module_finds_in_those_below_it() {
    let matched = std::cell::Cell::new((0, 0));
    let below = "(/[ab]{1,2}){0,2}";
    let deeper = (glob_and_path(), below).prop_map(|((glob, path), below)| (glob, if path == "/" { path } else { path + &below }));
    ask(deeper, 20_000, |matcher, pattern, path| {
        if Globs::new(&[pattern]).is_err() || path.ends_with('/') || path.contains("//") {
            return Ok(());
        }
        for glob in unbraced(pattern, 4096).unwrap() {
            let any = line(path).iter().any(|one| matcher.matches(glob.as_bytes(), one.as_bytes()) == Some(true));
            prop_assert_eq!(matcher.matches_above(glob.as_bytes(), path.as_bytes()), Some(any), "{} on {}", glob, path);
            let (yes, all) = matched.get();
            matched.set((yes + u32::from(any), all + 1));
        }
        Ok(())
    });
    let (yes, all) = matched.get();
    println!("{all} globs, {yes} matched");
    assert!(all == 0 || yes > all / 10 && yes < all, "hardly anything was tried that matches, or that does not");
}

/// A path that is spared as such: every byte of it is itself, and a group of another name is not meant.
#[test]
fn a_path_in_brackets_is_that_path_alone() {
    let name = "(/[a*?\\[\\]{}!^,\\-\\\\ \u{e9}]{1,4}){1,3}";
    ask((name, name), 4000, |matcher, path, other| {
        let mut table = Table::new();
        let mut rule = Lines::default();
        rule.rule(0, false);
        prop_assert!(table.spare_at(path.as_bytes()) && table.push(&rule));
        let text = String::from_utf8(table.as_bytes().to_vec()).unwrap();
        let glob = text.lines().nth(1).and_then(|line| line.strip_prefix("spare_path ")).unwrap();
        prop_assert_eq!(matcher.matches(glob.as_bytes(), path.as_bytes()), Some(true), "{}", glob);
        prop_assert_eq!(matcher.matches(glob.as_bytes(), other.as_bytes()), Some(other == path), "{} on {}", glob, other);
        prop_assert_eq!(Globs::new(&[glob]).unwrap().matches(path.as_bytes()), true, "{}", glob);
        Ok(())
    });
}
