//! Debian's kernels: found by name, fetched as packages, kept in a cache outside the tree.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::{self, Unpacking};
use super::tools;
use crate::outcome::{Doing, Outcome};

/// A line of kernels that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    version: &'static str,
    flavour: &'static str,
}

impl Series {
    /// Oldest first.
    pub const ALL: [Series; 2] = [Series::cloud("6.1"), Series::cloud("6.12")];
    /// With PREEMPT_RT, for the long run.
    pub const REAL_TIME: [Series; 2] = [Series { version: "6.1", flavour: "rt" }, Series { version: "6.12", flavour: "rt" }];
    /// The one that the demo uses.
    pub const NEWEST: Series = Series::cloud("6.12");

    const fn cloud(version: &'static str) -> Series {
        Series { version, flavour: "cloud" }
    }

    fn holds(self, package: &str) -> bool {
        package
            .strip_prefix("linux-image-")
            .and_then(|rest| rest.strip_prefix(self.version))
            .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(&format!("-{}-amd64", self.flavour)))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flavour {
            "cloud" => f.write_str(self.version),
            flavour => write!(f, "{}-{flavour}", self.version),
        }
    }
}

/// An unpacked kernel package.
pub struct Kernel {
    /// Its line.
    pub series: Series,
    /// The directory with `boot/` and `lib/modules/`.
    pub package: PathBuf,
    /// The bootable image.
    pub image: PathBuf,
}

impl Kernel {
    /// The newest cached kernel of the line, or else the newest that Debian has.
    ///
    /// # Errors
    /// One line that says what could not be had, and what to do.
    pub fn find(series: Series) -> Outcome<Kernel> {
        let cache = cache()?;
        let package = match newest_cached(&cache, series) {
            Some(package) => package,
            None => fetch(&cache, series).map_err(|why| {
                format!(
                    "no Debian {series} kernel in {}, and none could be fetched: {why}; see tests/vm/README.md, or set OOMWARDEN_VM=skip",
                    cache.display()
                )
            })?,
        };
        let boot = package.join("boot");
        let image = std::fs::read_dir(&boot)
            .doing(format_args!("list {}", boot.display()))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
            .ok_or_else(|| format!("{} holds no vmlinuz: remove {} and try again", boot.display(), package.display()))?;
        Ok(Kernel { series, package, image })
    }

    /// Its full version, as in `6.12.117+deb12-cloud-amd64`.
    pub fn version(&self) -> String {
        let package = self.package.file_name().unwrap_or_default().to_string_lossy();
        package.trim_start_matches("linux-image-").to_owned()
    }
}

/// Where kernels and their headers are kept.
pub fn cache() -> Outcome<PathBuf> {
    let own = std::env::var_os("OOMWARDEN_VM_CACHE").map(PathBuf::from);
    let user = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = own.or_else(|| user().or_else(home).map(|base| base.join("oomwarden/vm")));
    let cache = cache.ok_or("neither OOMWARDEN_VM_CACHE nor HOME is set: no place to keep kernels")?;
    std::fs::create_dir_all(&cache).doing(format_args!("create {}", cache.display()))?;
    Ok(cache)
}

fn newest_cached(cache: &Path, series: Series) -> Option<PathBuf> {
    let entries = std::fs::read_dir(cache).ok()?;
    let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| series.holds(name)).max_by(|a, b| by_version(a, b)).map(|name| cache.join(name))
}

fn fetch(cache: &Path, series: Series) -> Outcome<PathBuf> {
    let unpacking = Unpacking::begin(cache)?;
    let name = match search(series)? {
        Some(name) => name,
        None => {
            packages::refresh_lists()?;
            search(series)?.ok_or("the package lists know no such kernel")?
        }
    };
    unpacking.add(&name)?;
    unpacking.keep(&name)
}

/// The newest package of the line by name.
fn search(series: Series) -> Outcome<Option<String>> {
    let pattern = format!("^linux-image-{}\\.[0-9].*-{}-amd64$", series.version.replace('.', "\\."), series.flavour);
    let found = tools::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let found = String::from_utf8_lossy(&found);
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| series.holds(name)).max_by(|a, b| by_version(a, b)).map(str::to_owned))
}

/// Compares runs of digits as numbers and everything else as text.
pub fn by_version(a: &str, b: &str) -> Ordering {
    pieces(a).cmp(&pieces(b))
}

fn pieces(text: &str) -> Vec<(u64, &str)> {
    text.split_inclusive(|c: char| !c.is_ascii_digit())
        .map(|piece| {
            let digits = piece.trim_end_matches(|c: char| !c.is_ascii_digit());
            (digits.parse().unwrap_or(0), &piece[digits.len()..])
        })
        .collect()
}
