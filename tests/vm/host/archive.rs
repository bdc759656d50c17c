//! Debian's archive beyond the suites that this machine is set up for: lists and packages kept in the cache, nothing installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools;
use crate::outcome::{Doing, Outcome};

/// Suites of the archive. By their own names: mirrors were seen to give older lists under `stable` and the like. What is new comes with the last
/// two in any case.
const SUITES: [&str; 8] = ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid", "experimental"];
/// And of its security updates.
const SECURITY: [&str; 2] = ["bookworm-security", "trixie-security"];

/// Keys of all releases.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The archive with the lists of all its suites.
pub struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Fetches the lists anew, from where this machine's own come from. A suite that is not to be had there is left out.
    ///
    /// # Errors
    /// When apt can't be run, or no suite is to be had.
    pub fn fresh(cache: &Path) -> Outcome<Archive> {
        let archive = Archive { directory: cache.join("archive") };
        for place in ["lists/partial", "packages/archives/partial", "none", "suites"] {
            let place = archive.directory.join(place);
            std::fs::create_dir_all(&place).doing(format_args!("create {}", place.display()))?;
        }
        // As if nothing were installed: then what a package needs is all to be fetched.
        std::fs::write(archive.directory.join("status"), "").doing("write the empty list of what is installed")?;
        let mut found = Vec::new();
        for (place, suites) in [(place(false)?, &SUITES[..]), (place(true)?, &SECURITY[..])] {
            let Some(place) = place else { continue };
            for suite in suites {
                let keys = if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
                let line = format!("deb {keys}{place} {suite} main\n");
                // Each by itself: one that is not there would spoil it for all.
                std::fs::write(archive.sources(), &line).doing("write a list of sources")?;
                match archive.apt("apt-get", &["update"]) {
                    Ok(_) => found.push(line),
                    Err(why) => println!("vm: without the suite {suite}: {why}"),
                }
            }
        }
        ensure!(!found.is_empty(), "no suite of Debian's archive is to be had: run `apt-get update`, which says why");
        std::fs::write(archive.sources(), found.concat()).doing("write a list of sources")?;
        Ok(archive)
    }

    /// Names of packages that match a regular expression.
    pub fn search(&self, pattern: &str) -> Outcome<Vec<String>> {
        let found = self.apt("apt-cache", &["search", "--names-only", pattern])?;
        Ok(found.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// Fetches packages with all that they depend on and unpacks them over each other into `tree`.
    pub fn unpack(&self, packages: &[String], tree: &Path) -> Outcome {
        let mut install = vec!["--yes", "--download-only", "install"];
        install.extend(packages.iter().map(String::as_str));
        self.apt("apt-get", &install)?;
        // Where /bin and its like are the same as those below /usr, in every suite's packages.
        for name in ["bin", "sbin", "lib", "lib64"] {
            let real = tree.join("usr").join(name);
            std::fs::create_dir_all(&real).doing(format_args!("create {}", real.display()))?;
            std::os::unix::fs::symlink(Path::new("usr").join(name), tree.join(name)).doing(format_args!("make the link {name}"))?;
        }
        let place = self.directory.join("packages/archives");
        for entry in std::fs::read_dir(&place).doing(format_args!("list {}", place.display()))?.filter_map(Result::ok) {
            let package = entry.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                let unpack = "dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --keep-directory-symlink --no-same-owner";
                tools::output(Command::new("sh").args(["-ec", unpack, "unpack"]).arg(&package).arg(tree))?;
            }
        }
        // The tree is what is kept.
        self.apt("apt-get", &["clean"]).map(drop)
    }

    fn sources(&self) -> PathBuf {
        self.directory.join("sources.list")
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Outcome<String> {
        let mut command = Command::new(program);
        // As root apt would switch to its own user, who can't write here.
        command.args(["-qq", "-oAPT::Sandbox::User=root", "-oAPT::Install-Recommends=false", "-oAcquire::Languages=none"]);
        command.args(["-oDebug::NoLocking=true", "-oAPT::Get::List-Cleanup=false", "-oAcquire::Retries=3"]);
        // Descriptions of programs, which are as large as all else.
        command.arg("-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false");
        let options = [
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "packages"),
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::Etc::preferencesparts", "none"),
        ];
        for (option, place) in options {
            command.arg(format!("-o{option}={}", self.directory.join(place).display()));
        }
        let said = tools::output(command.args(arguments).env("LC_ALL", "C"))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

/// Where this machine's own packages come from, or its security updates.
fn place(security: bool) -> Outcome<Option<String>> {
    let targets = tools::output(Command::new("apt-get").args(["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"]))?;
    let targets = String::from_utf8_lossy(&targets);
    let is_it = |words: &Vec<&str>| words.len() == 3 && words[1] == "main" && words[0].contains("-security") == security;
    // Both have `debian` in their paths, which third parties' repositories mostly have not.
    let found = targets.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| is_it(words) && words[2].contains("/debian"));
    Ok(found.map(|words| words[2].to_owned()))
}
