//! What a kernel's package lacks to build a module for it: headers and kbuild's programs, unpacked beside it.

use std::path::{Path, PathBuf};

use super::kernel::{self, Kernel};
use super::packages::Unpacking;
use crate::outcome::{Doing, Outcome};

/// The directory for `make -C`.
pub fn find(kernel: &Kernel) -> Outcome<PathBuf> {
    let cache = kernel::cache()?;
    let name = format!("linux-headers-{}", kernel.version());
    let place = cache.join(&name);
    if !place.is_dir() {
        fetch(&cache, &name).map_err(|why| {
            format!(
                "no {name} in {}, and it could not be fetched: {why}; where Debian has a newer kernel, remove {} to have it fetched",
                cache.display(),
                kernel.package.display()
            )
        })?;
    }
    Ok(place.join("usr/src").join(name))
}

fn fetch(cache: &Path, name: &str) -> Outcome {
    let unpacking = Unpacking::begin(cache)?;
    // The headers that all flavours share, and kbuild; the compiler is whatever this machine has.
    let parts = |name: &String| name.starts_with("linux-kbuild-") || (name.starts_with("linux-headers-") && name.contains("-common"));
    for part in unpacking.add(name)?.iter().filter(|name| parts(name)) {
        unpacking.add(part)?;
    }
    // It includes the common one from where the package would be installed.
    let makefile = unpacking.directory().join("usr/src").join(name).join("Makefile");
    let text = std::fs::read_to_string(&makefile).doing(format_args!("read {}", makefile.display()))?;
    std::fs::write(&makefile, text.replace("include /usr/src/", "include ../")).doing(format_args!("write {}", makefile.display()))?;
    unpacking.keep(name).map(drop)
}
