#!/usr/bin/env bash
# All tests: format, unit and integration tests (some with a real containerd and network namespaces, as root) of the debug
# build, and the end-to-end test of the release build, which is what is published, on two hosts. Installs the Debian packages they need. Ends with "N passed, N failed".
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if [ "$(id -u)" != 0 ]; then
  echo "error: the tests make network namespaces and run containers: use sudo" >&2
  exit 1
fi
# Under sudo the invoking user's toolchains serve, and what is built stays out of their checkout.
if [ "${SUDO_USER:-root}" != root ]; then
  user_home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
  export RUSTUP_HOME="${RUSTUP_HOME:-$user_home/.rustup}"
  export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/mk8s/target}"
  export PATH="$user_home/.cargo/bin:$PATH:$(sudo -u "$SUDO_USER" -i sh -c 'echo "$PATH"'):/usr/local/go/bin"
fi
command -v cargo >/dev/null || { echo "error: there is no Rust toolchain: install one by https://rustup.rs" >&2; exit 1; }
hack/packages.sh protobuf-compiler libprotobuf-dev gcc libc6-dev make containerd runc nftables iptables iproute2 conntrack \
  docker-registry skopeo busybox-static openssl curl util-linux procps || exit 1
# The newest stock kubectl is the tests' main client, whatever the machine has; the oldest says what it sees, too.
kubectl_dir="${MK8S_KUBECTL_DIR:-$HOME/.cache/mk8s/kubectl}"
hack/build-clients.sh kubectl@1.27.16 kubectl@1.35.4 helm@3.22.0 helm@4.3.1 || exit 1
mkdir -p "$kubectl_dir/bin"
ln -sf ../kubectl.1.35 "$kubectl_dir/bin/kubectl"
export PATH="$kubectl_dir/bin:$PATH"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"

passed=0 failed=0
step() {
  local name=$1; shift
  echo "== $name"
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "== $name FAILED"; fi
}
# Licences, bans and sources of the dependencies: deny.toml.
dependencies() {
  local tools="$HOME/.cache/mk8s/tools"
  # Kept outside of the checkout; in the dev profile, which builds it in a minute.
  [ -x "$tools/bin/cargo-deny" ] ||
    env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=false \
      cargo install --quiet --locked --debug --no-default-features --root "$tools" cargo-deny@0.20.2 || return 1
  cargo fetch --quiet --locked && "$tools/bin/cargo-deny" --offline --log-level error check bans licenses sources
}
# A build script must get along with what a first build has downloaded: an empty cargo home shows it.
first_build() {
  local home config=${CARGO_HOME:-$HOME/.cargo}/config.toml status
  home=$(mktemp -d)
  [ -f "$config" ] && cp "$config" "$home"
  CARGO_HOME=$home CARGO_TARGET_DIR=$home/target cargo check --quiet --locked -p mk8s-api
  status=$?
  rm -rf "$home"
  return $status
}
# What the binary may weigh: 32 MiB, see Cargo.toml's profile.
small_enough() {
  local size
  size=$(stat -c %s "$CARGO_TARGET_DIR/release/mk8s") || return 1
  echo "the binary has $((size / 1024)) KiB"
  ((size <= 32 * 1024 * 1024))
}
# Addresses of functions are written once, at the start: .cargo/config.toml leaves that to the linker.
read_only_after_start() {
  readelf --dynamic --segments --wide "$CARGO_TARGET_DIR/release/mk8s" |
    awk '/FLAGS_1.* NOW/ { now = 1 } /GNU_RELRO/ { relro = 1 } END { exit !(now && relro) }'
}
# Adds up what cargo's test runners say of themselves.
count_tests() {
  local log=$1
  passed=$((passed + $(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")))
  failed=$((failed + $(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")))
}

step "cargo fmt --check" cargo fmt --all --check
step "cargo deny" dependencies
step "no unused dependencies" hack/unused-dependencies.sh
step "a first build" first_build
step "cargo clippy" cargo clippy --quiet --workspace --all-targets -- -D warnings
# The release build is minutes of linking on one core: it has what the tests leave of the machine.
release_log=$(mktemp)
nice -n 19 cargo build --release --bin mk8s >"$release_log" 2>&1 &
release=$!
trap 'kill "$release" 2>/dev/null; rm -f "$release_log"' EXIT
log=$(mktemp)
echo "== cargo test"
before=$failed
cargo test --workspace --no-fail-fast 2>&1 | tee "$log" | grep --line-buffered -vE '^test .* ok$|^running |^$'
cargo_status=${PIPESTATUS[0]}
count_tests "$log"
# What does not compile, and a runner that is killed, leaves no "test result:" line: cargo's own status tells.
if ((cargo_status != 0 && failed == before)); then
  echo "== cargo test FAILED with status $cargo_status"
  failed=$((failed + 1))
fi
rm -f "$log"

echo "== end to end"
wait "$release"
release_status=$?
trap 'rm -f "$release_log"' EXIT
cat "$release_log"
if ((release_status == 0)); then
  step "the binary's size" small_enough
  step "the binary's addresses" read_only_after_start
  log=$(mktemp)
  tests/e2e/run.sh "$CARGO_TARGET_DIR/release/mk8s" | tee "$log"
  read -r e2e_passed e2e_failed < <(sed -n 's/^e2e: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log")
  passed=$((passed + ${e2e_passed:-0}))
  failed=$((failed + ${e2e_failed:-1}))
  rm -f "$log"
else
  echo "== the release build FAILED with status $release_status"
  failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
((failed == 0))
