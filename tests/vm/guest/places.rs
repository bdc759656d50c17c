//! Where things are in the guest.

/// This binary.
pub const SELF: &str = "/vm";
/// The program under test.
pub const OOMWARDEN: &str = "/oomwarden";
/// busybox.
pub const BUSYBOX: &str = "/bin/busybox";
/// Our kernel module, which only scenarios load.
pub const MODULE: &str = "/modules/oomwarden_lms.ko";
/// The same with what only tests need: delays where a scenario must get in between, and measurements.
pub const MODULE_FOR_TESTS: &str = "/modules/oomwarden_lms_for_tests.ko";
/// The cgroup root.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// A scenario's files; emptied after each.
pub const FILES: &str = "/run/scenario";
/// Where a scenario may mount things; unmounted after each.
pub const MOUNT: &str = "/mnt";
/// A slow disk full of zeroes, 1 GiB.
pub const DISK: &str = "/dev/vda";
/// The second serial port: the conversation with the host.
pub const HOST: &str = "/dev/ttyS1";
/// What the kernel's command line says of the number of rounds.
pub const ROUNDS: &str = "oomwarden_rounds=";
/// The example of an application that listens, built of `examples/c`.
pub const CACHE: &str = "/examples/cache";
/// Where oomwarden has its pressure socket by default.
pub const PRESSURE_SOCKET: &str = "/run/oomwarden/pressure.sock";
