#!/usr/bin/env bash
# Gives the decoders' fuzz targets (pkg/api/tests/fuzz/targets.rs) to libFuzzer, with the corpus of the test beside them.
# Usage: hack/fuzz.sh [TARGET [SECONDS]]      all targets, 300 s each, where nothing is said
# Needs a nightly toolchain and cargo-fuzz (cargo install cargo-fuzz); without them `cargo test -p mk8s-api --test fuzz`
# runs the same functions, MK8S_FUZZ_SECONDS for each, and `cargo test -p mk8s-apiserver --test requests` sends whole requests as long.
# What fails is left in target/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD work=$PWD/target/fuzz seconds=${2:-300}
all=(protobuf json yaml patch apply selectors quantity definition rule)
targets=("${all[@]}")
[ $# -eq 0 ] || targets=("$1")

cargo +nightly --version >/dev/null || { echo "fuzz.sh: no nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }
cargo fuzz --version >/dev/null || { echo "fuzz.sh: no cargo-fuzz: cargo install cargo-fuzz" >&2; exit 1; }

# The crate that cargo-fuzz wants: outside the workspace, made anew each time.
mkdir -p "$work/fuzz_targets"
MK8S_FUZZ_DUMP=$work/corpus cargo test -q -p mk8s-api --test fuzz
{
    printf '[package]\nname = "mk8s-fuzz"\nversion = "0.0.0"\nedition = "2024"\npublish = false\n'
    printf '[package.metadata]\ncargo-fuzz = true\n[workspace]\n[dependencies]\nlibfuzzer-sys = "0.4"\nserde_json = "1"\n'
    printf 'mk8s-api = { path = "%s/pkg/api" }\n' "$root"
    for name in "${all[@]}"; do
        printf '[[bin]]\nname = "%s"\npath = "fuzz_targets/%s.rs"\ntest = false\ndoc = false\nbench = false\n' "$name" "$name"
    done
} > "$work/Cargo.toml"
for name in "${all[@]}"; do
    cat > "$work/fuzz_targets/$name.rs" <<RUST
#![no_main]
#[allow(dead_code)]
#[path = "$root/pkg/api/tests/fuzz/targets.rs"]
mod targets;
libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::$name(data));
RUST
done
for name in "${targets[@]}"; do
    cargo +nightly fuzz run --fuzz-dir "$work" "$name" -- -max_total_time="$seconds" -max_len=65536
done
