//! Every kernel that Debian has headers of today: our module builds for the newest of each series and flavour, without a warning and with nothing
//! that sparse would say. For the long run: a gigabyte and a half of headers and compilers is fetched, once for each new kernel.
//!
//! Kernels that are newer than this machine's Debian need newer compilers, and kbuild's programs a newer C library. So all of it stands in a tree
//! of its own, where make runs as in a small Debian of all suites.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::Archive;
use super::kernel::{self, by_version};
use super::tools;
use crate::outcome::{Doing, Outcome};

/// Flavours whose headers differ: the one that the scenarios run on, and PREEMPT_RT.
const FLAVOURS: [&str; 2] = ["cloud", "rt"];
/// Older ones than this series have other interfaces than the module uses.
const OLDEST: (u32, u32) = (5, 10);
/// What make and its recipes need beside what headers depend on.
const PROGRAMS: [&str; 10] = ["make", "sparse", "gcc", "dash", "coreutils", "sed", "grep", "mawk", "findutils", "perl-base"];
/// Directories of sources.
const SOURCES: [&str; 2] = ["kmod", "tests/vm/kmod"];

/// A kernel that the tree has headers of.
#[derive(Clone, Debug)]
pub struct Headers {
    /// As in `7.2-rt`.
    pub name: String,
    /// As in `7.2.13+deb14-rt-amd64`.
    version: String,
    tree: PathBuf,
}

/// The newest of each series and flavour, with their tree.
///
/// # Errors
/// One line that says what could not be had.
pub fn every() -> Outcome<Vec<Headers>> {
    let cache = kernel::cache()?;
    let archive = Archive::fresh(&cache)?;
    let pattern = format!("^linux-headers-[0-9.]+.*-({})-amd64$", FLAVOURS.join("|"));
    let mut newest: BTreeMap<((u32, u32), &str), String> = BTreeMap::new();
    for package in archive.search(&pattern)? {
        let Some((series, flavour)) = kind(&package) else { continue };
        let before = newest.entry((series, flavour)).or_insert_with(|| package.clone());
        if by_version(before, &package).is_lt() {
            *before = package;
        }
    }
    ensure!(!newest.is_empty(), "Debian's archive has no headers of any kernel");
    let packages: Vec<String> = newest.values().cloned().collect();
    let mut hasher = DefaultHasher::new();
    packages.hash(&mut hasher);
    let tree = cache.join(format!("tree-of-headers-{:016x}", hasher.finish()));
    if !tree.is_dir() {
        make_tree(&archive, &cache, &packages, &tree)?;
    }
    let named = |(((major, minor), flavour), package): (((u32, u32), &str), String)| Headers {
        name: if flavour == "cloud" { format!("{major}.{minor}") } else { format!("{major}.{minor}-{flavour}") },
        version: package.trim_start_matches("linux-headers-").to_owned(),
        tree: tree.clone(),
    };
    Ok(newest.into_iter().map(named).collect())
}

/// Series and flavour of a package of headers, unless it is too old.
fn kind(package: &str) -> Option<((u32, u32), &'static str)> {
    let rest = package.strip_prefix("linux-headers-")?.strip_suffix("-amd64")?;
    let flavour = FLAVOURS.into_iter().find(|flavour| rest.ends_with(&format!("-{flavour}")))?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let series = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (series >= OLDEST).then_some((series, flavour))
}

fn make_tree(archive: &Archive, cache: &Path, packages: &[String], tree: &Path) -> Outcome {
    println!("vm: fetching {} with the compilers that they ask for into {}", packages.join(", "), cache.display());
    // Trees of what was newest before, and what an interrupted run left.
    for entry in std::fs::read_dir(cache).doing(format_args!("list {}", cache.display()))?.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("tree-of-headers-") {
            std::fs::remove_dir_all(entry.path()).doing(format_args!("remove {}", entry.path().display()))?;
        }
    }
    let begun = tree.with_extension("begun");
    let wanted: Vec<String> = PROGRAMS.iter().map(|name| (*name).to_owned()).chain(packages.iter().cloned()).collect();
    archive.unpack(&wanted, &begun)?;
    for place in ["build", "dev", "proc", "tmp"] {
        let place = begun.join(place);
        std::fs::create_dir_all(&place).doing(format_args!("create {}", place.display()))?;
    }
    // What the packages' scripts would have done, which are not run.
    for (link, program) in [("sh", "dash"), ("awk", "mawk")] {
        let link = begun.join("usr/bin").join(link);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(program, &link).doing(format_args!("make the link {}", link.display()))?;
        }
    }
    // The headers of newer kernels ask a script whether sparse knows their words, and do not bring it.
    for entry in std::fs::read_dir(begun.join("usr/src")).doing("list the headers")?.filter_map(Result::ok) {
        let script = entry.path().join("scripts/checker-valid.sh");
        if entry.path().join("Makefile").exists() && script.parent().is_some_and(Path::is_dir) && !script.exists() {
            std::fs::write(&script, CHECKER_VALID).doing(format_args!("write {}", script.display()))?;
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&script, executable).doing(format_args!("make {} executable", script.display()))?;
        }
    }
    std::fs::rename(&begun, tree).doing(format_args!("move the tree to {}", tree.display()))
}

/// Says 1 where the checker understands what such kernels' headers say.
const CHECKER_VALID: &str = "#!/bin/sh
echo 'int a; static __typeof_unqual__(a) b;' >/tmp/checked-$$.c
\"$@\" /tmp/checked-$$.c 2>&1 | grep -q error || echo 1
rm -f /tmp/checked-$$.c
";

impl Headers {
    /// Builds our modules with kbuild's extra warnings and sparse.
    ///
    /// # Errors
    /// What does not build, or what either says of our sources.
    pub fn check(&self) -> Outcome {
        for sources in SOURCES {
            let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(sources);
            if sources.is_dir() {
                self.check_one(&sources)?;
            }
        }
        Ok(())
    }

    fn check_one(&self, sources: &Path) -> Outcome {
        let place = format!("build/{}-{}", self.version, std::process::id());
        let build = self.tree.join(&place);
        std::fs::create_dir_all(&build).doing(format_args!("create {}", build.display()))?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(sources).doing(format_args!("list {}", sources.display()))?.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "Kbuild" || name == "Makefile" || name.ends_with(".c") || name.ends_with(".h") {
                std::fs::copy(entry.path(), build.join(&name)).doing(format_args!("copy {name}"))?;
                files.push(name);
            }
        }
        let said = self.make(&place);
        // Before anything is found wrong with it.
        std::fs::remove_dir_all(&build).doing(format_args!("remove {}", build.display()))?;
        let said = said?;
        let checked = said.lines().any(|line| line.trim_start().starts_with("CHECK "));
        ensure!(checked, "sparse was not run for {}:\n{said}", self.version);
        let found: Vec<&str> = said.lines().filter(|line| is_about(line, &files)).collect();
        ensure!(found.is_empty(), "for {} is said of {}:\n{}", self.version, sources.display(), found.join("\n"));
        Ok(())
    }

    /// Runs make in the tree, as root of it, and gives all that it says.
    fn make(&self, place: &str) -> Outcome<String> {
        // In namespaces of its own, so that nothing stays mounted.
        let run = "mount --rbind /dev \"$1/dev\" && mount -t proc proc \"$1/proc\" && exec chroot \"$1\" \
                   make -C \"/usr/src/linux-headers-$2\" \"M=/$3\" W=1 C=2 CONFIG_DEBUG_INFO_BTF_MODULES= modules";
        let mut make = Command::new(tools::find("unshare")?);
        make.args(["--map-root-user", "--mount", "--pid", "--fork", "sh", "-ec", run, "make"]);
        make.arg(&self.tree).args([&self.version, place]);
        make.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        let output = make.output().doing("run unshare")?;
        let said = [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)].concat();
        ensure!(output.status.success(), "the module does not build for {}: {}", self.version, shortened(&said));
        Ok(said)
    }
}

/// The first error, for a message's first line, and then all.
fn shortened(said: &str) -> String {
    let first = said.lines().find(|line| line.contains("error")).unwrap_or_default();
    format!("{first}\n{said}")
}

/// Whether a compiler's, sparse's or modpost's line is about one of our files. The kernel's own headers are not ours to mend.
fn is_about(line: &str, files: &[String]) -> bool {
    if line.starts_with("WARNING: modpost") || line.starts_with("ERROR: modpost") {
        return true;
    }
    // path/to/file.c:12:3: ...
    let mut parts = line.splitn(3, ':');
    let (path, number) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let name = path.rsplit('/').next().unwrap_or_default();
    !path.contains(' ') && number.parse::<u32>().is_ok() && files.iter().any(|file| file == name)
}
