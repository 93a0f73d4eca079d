//! Compiles the pause process (pause/pause.c) to a static executable that `image/pause.rs` includes.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=pause/pause.c");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("pause");
    let mut compiler = cc::Build::new()
        .opt_level_str("s")
        .cargo_warnings(false)
        .get_compiler()
        .to_command();
    let flags = [
        "-static",
        "-nostdlib",
        "-ffreestanding",
        "-fno-stack-protector",
        "-fno-asynchronous-unwind-tables",
        "-fno-pie",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-s",
    ];
    let status = compiler.args(flags).arg("-o").arg(&out).arg("pause/pause.c").status();
    assert!(
        status.as_ref().is_ok_and(|status| status.success()),
        "compile pause/pause.c: {status:?}"
    );
}
