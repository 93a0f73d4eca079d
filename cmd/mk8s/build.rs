//! Two MiB of relative relocations become some ten KiB (DT_RELR), which glibc 2.36 and newer can read: Debian 12's, as the
//! README asks for a glibc as new as the builder's.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
