//! What the linker does for a small binary.
//!
//! Two MiB of relative relocations become some ten KiB (DT_RELR), which glibc 2.36 and newer can read: Debian 12's, as the
//! README asks for a glibc as new as the builder's. Functions whose code is the same become one, which lld can, the linker
//! that rustc brings for x86-64: nothing may compare the addresses of functions, which rustc warns of, and clippy.toml forbids.
//! What is data keeps an address of its own. Every address is resolved at the start, and read-only from then on (full RELRO):
//! the compiler was asked for less, see .cargo/config.toml.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        println!("cargo:rustc-link-arg-bins=-Wl,-z,relro,-z,now");
        if target("ARCH") == "x86_64" && std::env::var("OPT_LEVEL").is_ok_and(|level| level != "0") {
            println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
        }
    }
}
