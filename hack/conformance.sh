#!/usr/bin/env bash
# The official Kubernetes suite, k8s.io/kubernetes v1.35.4's test/e2e as it is, against two hosts that run the built binary.
#   conformance.sh [FOCUS]     FOCUS: a regular expression of tests' names; without it all 441 conformance tests
# What needs a feature that mk8s refuses (tests/conformance/refused.tsv) is entered as such and not run: it would wait for
# minutes. Ends with a table by group, writes tests/conformance/results.tsv and status.md, and fails when a test failed.
#   MK8S_BINARY           the binary under test (else a release build of this tree)
#   MK8S_UPSTREAM_CACHE   where the suite and its images are kept (~/.cache/mk8s-upstream): 1 GiB, 10 minutes to build, once
#   CONFORMANCE_OUT       logs and JUnit files (target/conformance)
#   CONFORMANCE_PROCS     tests at a time (8)
#   CONFORMANCE_LABELS    tests with these labels instead (a filter of ginkgo's), one at a time, such as '!Conformance': only told of
# Needs root, Debian or Ubuntu, Go >= 1.25 and its module proxy.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
focus=${1:-.}
cache=${MK8S_UPSTREAM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mk8s-upstream}
programs=$cache/v1.35.4
out=$(realpath -m "${CONFORMANCE_OUT:-target/conformance}")
export MK8S_HOSTS_PREFIX=${MK8S_HOSTS_PREFIX:-mk8sc}
lan=10.9.0
registry=$lan.254:5111
[ "$(id -u)" = 0 ] || { echo "error: hosts are made of namespaces: use sudo" >&2; exit 1; }
command -v go >/dev/null || { echo "error: building the suite needs Go 1.25 or newer" >&2; exit 1; }

on() { hack/hosts.sh exec "$@"; }
in_lan=(ip netns exec "$MK8S_HOSTS_PREFIX-lan" env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY)

# program NAME PACKAGE [TEST]: builds one of the suite's programs, once.
program() {
  local name=$1 package=$2 verb=(build) v=k8s.io/component-base/version
  [ "${3:-}" ] && verb=(test -c)
  [ -x "$programs/$name" ] && return
  echo "building $name"
  (cd hack/conformance && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go "${verb[@]}" -o "$programs/$name.part" \
    -ldflags "-s -w -X $v.gitVersion=v1.35.4 -X $v.gitMajor=1 -X $v.gitMinor=35 -X $v.gitTreeState=clean" "$package")
  mv "$programs/$name.part" "$programs/$name"
}

prepare() {
  hack/packages.sh bind9-dnsutils bind9-host containerd curl docker-registry gcc iperf iproute2 libc6-dev netcat-openbsd \
    nftables nginx-light runc skopeo util-linux wget
  mkdir -p "$programs"
  program e2e.test k8s.io/kubernetes/test/e2e test
  program ginkgo github.com/onsi/ginkgo/v2/ginkgo
  program kubectl k8s.io/kubernetes/cmd/kubectl
  local image
  for image in agnhost nonewprivs; do program $image k8s.io/kubernetes/test/images/$image; done
  program sample-apiserver k8s.io/sample-apiserver
  hack/conformance/images.sh fill "$cache"
  binary=${MK8S_BINARY:-}
  if [ -z "$binary" ]; then
    cargo build --release --bin mk8s
    binary=${CARGO_TARGET_DIR:-target}/release/mk8s
  fi
}

stop() {
  local host
  for host in 1 2; do on $host cat /var/log/mk8s.log >"$out/host-$host.log" 2>/dev/null || true; done
  [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true
  hack/hosts.sh down
  rm -rf "$work"
}

start() {
  local host
  work=$(mktemp -d)
  chmod 755 "$work"
  install -m755 "$binary" "$work/mk8s"
  hack/hosts.sh down
  registry_pid=
  trap stop EXIT
  hack/hosts.sh up 2
  "${in_lan[@]}" hack/conformance/images.sh serve "$cache" $registry >"$out/registry.log" 2>&1 &
  registry_pid=$!
  "${in_lan[@]}" curl -fsS --retry 20 --retry-connrefused --retry-delay 1 "http://$registry/v2/" >/dev/null ||
    { echo "error: no registry: see $out/registry.log" >&2; exit 1; }
  # How full the machine's disk is is no matter of these tests.
  export MK8S_EVICTION_HARD="memory.available<10Mi,nodefs.available<10Mi"
  for host in 1 2; do
    on $host sh -c 'mkdir -p /etc/mk8s && cat >/etc/mk8s/registries.yaml' <<Y
mirrors: {registry.k8s.io: {endpoint: ["http://$registry"]}}
Y
  done
  on 1 "$work/mk8s" init --apiserver-advertise-address $lan.1 >"$out/init.log"
  # shellcheck disable=SC2046
  on 2 env PATH="$work:$PATH" $(on 1 "$work/mk8s" token create --print-join-command | tail -1) >"$out/join.log"
  on 1 cat /etc/kubernetes/admin.conf >"$work/admin.conf"
}

# suite NAME PROCESSES LABELS: one run of ginkgo; its result is in the JUnit files.
suite() {
  local name=$1 skip=() pattern
  while IFS=$'\t' read -r pattern _; do skip+=(--skip="$pattern"); done <tests/conformance/refused.tsv
  "${in_lan[@]}" "$programs/ginkgo" --focus="$focus" "${skip[@]}" --label-filter="$3" --procs="$2" --no-color --timeout=24h --silence-skips \
    "$programs/e2e.test" -- --kubeconfig="$work/admin.conf" --provider=skeleton --kubectl-path="$programs/kubectl" --report-dir="$out" \
    --report-prefix="$name-" --disable-log-dump --system-pods-startup-timeout=2m --node-schedulable-timeout=2m >"$out/$name.log" 2>&1 || true
}

mkdir -p "$out"
rm -f "$out"/*junit*.xml
prepare
start
if [ -n "${CONFORMANCE_LABELS:-}" ]; then
  suite beyond 1 "$CONFORMANCE_LABELS"
  grep -E '^  \[FAIL\]|^Ran |^(PASS|FAIL)' "$out/beyond.log"
  grep -q '^Test Suite Passed' "$out/beyond.log"
  exit
fi
suite parallel "${CONFORMANCE_PROCS:-8}" 'Conformance && !Serial'
suite serial 1 'Conformance && Serial'
(cd hack/conformance && go run ./report -results ../../tests/conformance -run "$out" -focus "$focus")
