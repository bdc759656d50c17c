//! Debian's packages, fetched and unpacked without root and without installing anything.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools;
use crate::outcome::{Doing, Outcome};

/// Packages that are being unpacked over each other into one directory. Dropping it removes what was not kept.
pub struct Unpacking {
    cache: PathBuf,
    work: PathBuf,
}

impl Unpacking {
    /// Begins in a directory of its own inside the cache.
    pub fn begin(cache: &Path) -> Outcome<Unpacking> {
        tools::find("dpkg-deb").map_err(|_| "this is not a Debian system (no dpkg-deb)".to_owned())?;
        let unpacking = Unpacking { cache: cache.to_owned(), work: cache.join(format!("fetching-{}", std::process::id())) };
        let directory = unpacking.directory();
        std::fs::create_dir_all(&directory).doing(format_args!("create {}", directory.display()))?;
        Ok(unpacking)
    }

    /// Where the packages' files are.
    pub fn directory(&self) -> PathBuf {
        self.work.join("unpacked")
    }

    /// Fetches and unpacks a package, and says which others it depends on.
    pub fn add(&self, name: &str) -> Outcome<Vec<String>> {
        println!("vm: fetching {name} into {}", self.cache.display());
        let place = self.work.join(name);
        std::fs::create_dir_all(&place).doing(format_args!("create {}", place.display()))?;
        // As root apt would switch to its own user, who can't write here; it warns and goes on.
        let fetched = tools::output(Command::new("apt-get").args(["download", "-qq", name]).current_dir(&place));
        if fetched.is_err() {
            // The lists may be older than the archive: once more with fresh ones.
            refresh_lists()?;
            tools::output(Command::new("apt-get").args(["download", "-qq", name]).current_dir(&place))?;
        }
        let files = std::fs::read_dir(&place).doing(format_args!("list {}", place.display()))?;
        let deb = files
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or("apt-get download left no package")?;
        tools::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(self.directory()))?;
        let depends = tools::output(Command::new("dpkg-deb").arg("-f").arg(&deb).arg("Depends"))?;
        let depends = String::from_utf8_lossy(&depends);
        // `name (>= version) | alternative, ...`
        Ok(depends.split([',', '|']).filter_map(|one| one.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// Gives the unpacked files their place in the cache.
    pub fn keep(self, name: &str) -> Outcome<PathBuf> {
        let place = self.cache.join(name);
        match std::fs::rename(self.directory(), &place) {
            // Another run of the tests may have been faster.
            Err(error) if !place.is_dir() => Err(format!("could not move {name} to {}: {error}", place.display())),
            _ => Ok(place),
        }
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        // What is left in there is of use to nobody.
        drop(std::fs::remove_dir_all(&self.work));
    }
}

/// Asks the archive for its lists of packages; a fresh container has none.
pub fn refresh_lists() -> Outcome {
    tools::output(Command::new("apt-get").args(["update", "-qq"])).map(drop)
}
