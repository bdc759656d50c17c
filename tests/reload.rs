//! Which changes of a policy's files are noticed, on a real file system.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oomwarden::policy::{self, files};
use oomwarden::record::counters::Counters;
use oomwarden::warden::reload::{self, Mailbox};

const SOON: Duration = Duration::from_secs(20);

fn rule(name: &str) -> String {
    format!("version: 1\nrules:\n  - name: {name}\n    watch: /t/*\n    when:\n      - event: oom\n")
}

struct Watched {
    mailbox: Mailbox,
}

impl Watched {
    fn start(paths: &[PathBuf]) -> Watched {
        let sources: Vec<PathBuf> = paths.to_vec();
        let load = move || {
            let sources = files::read_sources(&sources).map_err(|error| error.to_string())?;
            policy::load(&sources).map(|loaded| loaded.policy).map_err(|errors| format!("{errors:?}"))
        };
        let mailbox = Mailbox::new().unwrap();
        let current = Arc::new(load().unwrap());
        reload::start(mailbox.clone(), paths.to_vec(), current, Arc::new(Counters::new().unwrap()), Box::new(load)).unwrap();
        Watched { mailbox }
    }

    fn rules(&self) -> Option<Vec<String>> {
        let prepared = self.mailbox.take()?;
        assert_eq!(prepared.rules.len(), prepared.policy.rules.len(), "each has its counters");
        Some(prepared.policy.rules.iter().map(|rule| rule.name.to_string()).collect())
    }

    fn becomes(&self, names: &[&str]) {
        let began = Instant::now();
        while began.elapsed() < SOON {
            match self.rules() {
                Some(rules) if rules == names => return,
                Some(rules) => panic!("{rules:?} instead of {names:?}"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        panic!("no new policy: {names:?} was expected");
    }
}

fn swap(link: &Path, to: &str) {
    let aside = link.with_extension("aside");
    symlink(to, &aside).unwrap();
    fs::rename(aside, link).unwrap();
}

#[test]
fn a_file_that_leaves_a_directory_takes_its_rules_along() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("10.yaml"), rule("first")).unwrap();
    fs::write(at("20.yaml"), rule("second")).unwrap();
    fs::write(at("30.yaml"), rule("third")).unwrap();
    let watched = Watched::start(&[dir.path().to_path_buf()]);
    fs::remove_file(at("20.yaml")).unwrap();
    watched.becomes(&["first", "third"]);
    fs::rename(at("30.yaml"), at("30.off")).unwrap();
    watched.becomes(&["first"]);
    fs::rename(at("30.off"), at("30.yaml")).unwrap();
    watched.becomes(&["first", "third"]);
}

#[test]
fn an_editor_that_moves_the_file_away_first_takes_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("10.yaml"), rule("first")).unwrap();
    fs::write(at("20.yaml"), rule("second")).unwrap();
    let watched = Watched::start(&[dir.path().to_path_buf()]);
    fs::rename(at("20.yaml"), at("20.yaml~")).unwrap();
    fs::write(at("20.yaml"), rule("better")).unwrap();
    // Never without the second rule in between: `becomes` panics at any other policy.
    watched.becomes(&["first", "better"]);
}

#[test]
fn a_swapped_link_is_noticed_wherever_it_stands_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    for (version, name) in [("v1", "first"), ("v2", "second"), ("v3", "third")] {
        fs::create_dir_all(dir.path().join(version).join("etc")).unwrap();
        fs::write(dir.path().join(version).join("etc/policy.yaml"), rule(name)).unwrap();
    }
    let current = dir.path().join("current");
    symlink("v1", &current).unwrap();
    let as_file = Watched::start(&[current.join("etc/policy.yaml")]);
    let as_directory = Watched::start(&[current.join("etc")]);
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(&current, &link).unwrap();
    let through_two = Watched::start(&[link.join("etc/policy.yaml")]);
    for (to, name) in [("v2", "second"), ("v3", "third")] {
        swap(&current, to);
        for watched in [&as_file, &as_directory, &through_two] {
            watched.becomes(&[name]);
        }
    }
}
