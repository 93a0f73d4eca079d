#!/usr/bin/env bash
# From a fresh Debian or Ubuntu to a running cluster with an example: packages, build, mk8s init, hello.yaml, its answer.
# Running it again is quick and disturbs nothing; after a rebuild it restarts mk8s, and no pod.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
fail() { echo "error: $*" >&2; exit 1; }

grep -qiE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release || fail "this script knows Debian and Ubuntu only"
[ "$(id -u)" = 0 ] || fail "run it as root: sudo hack/up.sh"
# Under sudo the invoking user's toolchain builds, so that the checkout stays theirs.
builder=${SUDO_USER:-root}
as_builder() {
  # root's own environment says where its toolchain is; a login shell would reset PATH.
  if [ "$builder" = root ]; then bash -c "$1"; else sudo -u "$builder" -H bash -lc "$1"; fi
}
cargo_path='export PATH="$HOME/.cargo/bin:$PATH"'
have=$(as_builder "$cargo_path; cargo --version 2>/dev/null" | awk '{ print $2 }') || have=
want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$have" ] || fail "user $builder has no Rust toolchain: install one by https://rustup.rs"
[ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] || fail "Rust $want or newer is needed, $builder has $have: rustup update"

hack/packages.sh protobuf-compiler libprotobuf-dev gcc libc6-dev make nftables iptables iproute2 conntrack busybox-static curl
# A containerd or runc that is there stays: Debian's packages would remove Docker's.
command -v containerd >/dev/null || hack/packages.sh containerd
command -v runc >/dev/null || hack/packages.sh runc
command -v kubectl >/dev/null || hack/packages.sh kubernetes-client

socket=/run/containerd/containerd.sock
if ! ctr --connect-timeout 2s version >/dev/null 2>&1; then
  if [ -d /run/systemd/system ]; then
    systemctl enable --quiet --now containerd
  else
    setsid containerd >/var/log/containerd.log 2>&1 </dev/null &
  fi
  for _ in $(seq 100); do ctr --connect-timeout 1s version >/dev/null 2>&1 && break; sleep 0.1; done
  ctr --connect-timeout 2s version >/dev/null 2>&1 || fail "containerd does not answer at $socket: see its log"
fi

target=${CARGO_TARGET_DIR:-$PWD/target}
as_builder "$cargo_path; cd '$PWD' && CARGO_TARGET_DIR='$target' cargo build --release --bin mk8s"
built=$target/release/mk8s
if [ -x /usr/local/bin/mk8s ] && ! cmp -s "$built" /usr/local/bin/mk8s && mk8s status >/dev/null 2>&1; then
  mk8s stop
fi
"$built" init
# A proxy for apt and cargo is none for the cluster's own addresses.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export KUBECONFIG=/etc/kubernetes/admin.conf

image=mk8s.local/busybox:1
if [ -z "$(ctr -n k8s.io images ls -q "name==$image")" ]; then
  archive=$(mktemp)
  hack/busybox-image.sh "$archive" "$image"
  ctr -n k8s.io images import "$archive" >/dev/null
  rm -f "$archive"
fi
kubectl apply -f deploy/examples/hello.yaml
if ! kubectl rollout status deployment/hello --timeout=60s; then
  kubectl get nodes -o 'custom-columns=NODE:.metadata.name,TAINTS:.spec.taints[*].key'
  kubectl get events --field-selector type=Warning
  fail "the example does not run: what stands above says why (a taint disk-pressure: less than 1 GiB is free); else see /var/log/mk8s.log"
fi
address=$(kubectl get service hello -o 'jsonpath={.spec.clusterIP}')
echo
echo "\$ curl http://$address"
curl -sS -m 5 --retry 5 --retry-connrefused "http://$address"
