#!/usr/bin/env bash
# The built binary on two hosts with real containers, driven by stock kubectl: what a person does, each line asserted.
#   run.sh BINARY [PART…]      the parts are in parts/; each builds on those before it
# Ends with "e2e: N passed, N failed" and fails when a check failed.
set -uo pipefail
binary=$(readlink -f "$1")
shift
parts=("$@")
((${#parts[@]})) || parts=(init app changes containers batch helm trouble join sets scheduling ranges full-node power-off registry dead-host reset again interrupted damaged)
here=$(dirname "$(readlink -f "$0")")
hosts=$here/../../hack/hosts.sh
work=$(mktemp -d)
# shellcheck source=lib.sh
source "$here/lib.sh"

cleanup() {
  "$hosts" down >/dev/null 2>&1
  rm -rf "$work"
}
trap cleanup EXIT
"$hosts" down >/dev/null 2>&1
"$hosts" up 2 || exit 1
cp "$binary" "$work/mk8s"; chmod 755 "$work" "$work/mk8s"
"$here/../../hack/busybox-image.sh" "$work/busybox.tar" mk8s.local/busybox:1 || exit 1
for host in 1 2; do on $host ctr -n k8s.io images import "$work/busybox.tar" >/dev/null || exit 1; done

# How full the machine's disk is is no matter of these tests.
export MK8S_EVICTION_HARD="memory.available<10Mi,nodefs.available<10Mi"

# What reset has to come back to.
for host in 1 2; do on $host bash "$here/state.sh" >"$work/state-$host" || exit 1; done

for part in "${parts[@]}"; do
  file=$here/parts/$part.sh
  if ! bash -n "$file"; then fails "part $part does not run" ""; continue; fi
  # shellcheck source=/dev/null
  source "$file"
done
if [ -f "$work/not-found" ]; then failed=$((failed + $(wc -l <"$work/not-found"))); fi

if ((failed)); then
  for host in 1 2; do echo "# mk8s's log on host $host"; on $host tail -n 30 /var/log/mk8s.log 2>/dev/null; done
fi
echo "e2e: $passed passed, $failed failed"
((failed == 0))
