//! The whole system of the virtual machine: this binary, oomwarden, busybox, their libraries, and a few kernel modules.

use std::path::Path;
use std::process::Command;

use super::cpio::Archive;
use super::kernel::Kernel;
use super::{examples, kmod, modules, tools};
use crate::guest::places;
use crate::outcome::{Doing, Outcome};

/// Virtio disk (a bottomless source of page cache) and zram (swap), with what some kernels have as modules besides.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "lzo_rle", "zram"];

/// Process 1 stays a shell: it collects orphans, and turns the machine off when the agent ends.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox ip link set lo up
/bin/busybox hostname guest
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox stty -F /dev/ttyS1 raw -echo
/vm --guest
echo o > /proc/sysrq-trigger
/bin/busybox sleep 60
";

/// Builds the archive for one kernel.
pub fn build(kernel: &Kernel) -> Outcome<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["/proc", "/sys", "/dev", "/mnt", "/run", "/tmp", "/etc", "/examples"] {
        archive.directory(Path::new(directory));
    }
    archive.character_device(Path::new("/dev/console"), (5, 1));
    archive.file(Path::new("/etc/passwd"), b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    archive.executable(Path::new("/init"), INIT.as_bytes());

    let busybox = tools::find("busybox")?;
    let own = std::env::current_exe().doing("find this test's own binary")?;
    let oomwarden = Path::new(env!("CARGO_BIN_EXE_oomwarden"));
    let mut libraries = Vec::new();
    for (binary, place) in [(&*busybox, places::BUSYBOX), (&*own, places::SELF), (oomwarden, places::OOMWARDEN)] {
        archive.executable(Path::new(place), &stripped(binary)?);
        libraries.extend(tools::libraries(binary)?);
    }
    archive.executable(Path::new(places::CACHE), &stripped(&examples::cache()?)?);
    archive.symlink(Path::new("/bin/sh"), "busybox");
    libraries.sort();
    libraries.dedup();
    for library in libraries {
        let content = std::fs::read(&library).doing(format_args!("read {}", library.display()))?;
        archive.executable(&library, &content);
    }

    let modules = modules::collect(&kernel.package, &MODULES)?;
    let order: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    archive.file(Path::new("/modules/order"), order.join("\n").as_bytes());
    for module in &modules {
        archive.file(&Path::new("/modules").join(format!("{}.ko", module.name)), &module.content);
    }
    for (built, place) in [(kmod::build(kernel), places::MODULE), (kmod::build_for_tests(kernel), places::MODULE_FOR_TESTS)] {
        match built {
            Ok(module) => archive.file(Path::new(place), &stripped(&module)?),
            // Most scenarios do without it; those that load it fail, and a test of its own tells of the build.
            Err(why) => println!("vm: without our kernel module: {}", why.lines().next().unwrap_or_default()),
        }
    }
    Ok(archive.finish())
}

/// An ELF file without its debug information, which would only fill the guest's memory; as it is where `strip` is missing.
fn stripped(binary: &Path) -> Outcome<Vec<u8>> {
    let Ok(strip) = tools::find("strip") else {
        return std::fs::read(binary).doing(format_args!("read {}", binary.display()));
    };
    let target = tempfile::NamedTempFile::new().doing("make a temporary file")?;
    tools::output(Command::new(strip).arg("--strip-debug").arg("-o").arg(target.path()).arg(binary))?;
    std::fs::read(target.path()).doing(format_args!("read the stripped {}", binary.display()))
}
