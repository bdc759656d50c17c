//! The kernel module's globs, built for the host: `lms_glob.c` has the tables.

use std::path::Path;
use std::process::Command;

#[test]
fn globs_of_the_kernel_module_match_as_the_policy_reference_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("lms_glob");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]).arg("-I").arg(root.join("kmod"));
    let compiled = match compiler.arg("-o").arg(&program).arg(root.join("tests/lms_glob.c")).status() {
        Ok(status) => status,
        Err(error) => {
            println!("no compiler here: {error}");
            return;
        }
    };
    assert!(compiled.success());
    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
