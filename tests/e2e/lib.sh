# What the parts of the end-to-end test are written in: sourced by run.sh.
# shellcheck shell=bash
passed=0 failed=0

on() { local host=$1; shift; timeout 90 "$hosts" exec "$host" "$@"; }
k() { on 1 kubectl -n app "$@"; }

# check NAME COMMAND…: the command succeeds.
check() {
  local name=$1 output; shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1)); echo "ok      $name"
  else
    fails "$name" "$output"
  fi
}
# fails NAME OUTPUT: with what the nodes say of themselves, which is often the reason.
fails() {
  failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' <<<"$2" | tail -n 15
  on 1 kubectl get nodes --no-headers -o 'custom-columns=:.metadata.name,:.spec.taints[*].key' 2>/dev/null |
    sed 's/^/        node and taints: /'
}
# shows NAME PATTERN COMMAND…: the command's output has a line that matches; lacks …: it has none.
shows() { says yes "no line matches" "$@"; }
lacks() { says no "a line matches" "$@"; }
says() {
  local wanted=$1 otherwise=$2 name=$3 pattern=$4 output found=no; shift 4
  output=$("$@" 2>&1)
  if grep -qE -- "$pattern" <<<"$output"; then found=yes; fi
  if [ $found = $wanted ]; then
    passed=$((passed + 1)); echo "ok      $name"
  else
    fails "$name: $otherwise /$pattern/ in:" "$output"
  fi
}
# has PATTERN COMMAND…: for conditions. It reads all that the command says: `command | grep -q` ends at the first match, and
# pipefail makes a failure of that when the command still writes.
has() { local pattern=$1 output; shift; output=$("$@") && grep -qE -- "$pattern" <<<"$output"; }
# eventually SECONDS COMMAND…: tries until it succeeds.
eventually() {
  local until=$((SECONDS + $1)); shift
  until "$@"; do ((SECONDS < until)) || return 1; sleep 0.3; done
}
# The application's running pods on a host: name and address.
pods_on() {
  k get pod -l app=web --no-headers -o custom-columns=:.metadata.name,:.status.podIP,:.spec.nodeName,:.status.phase,:.metadata.deletionTimestamp |
    awk -v node="$1" '$3 == node && $4 == "Running" && $5 == "<none>" { print $1, $2 }'
}
pod_on() { pods_on "$1" | awk 'NR == 1 { print $1 }'; }
# The address of one that is not POD.
other_on() { pods_on "$1" | awk -v not="$2" '$1 != not { print $2; exit }'; }
mk8s_pid() { on 1 cat /run/mk8s/mk8s.pid; }

# What a set-up would have left on a host.
traces() { on "$1" sh -c '{ find /var/lib/mk8s -mindepth 1; find /run/mk8s /etc/mk8s /etc/kubernetes /usr/local/bin/mk8s; nft list tables; ip -br link; } 2>/dev/null'; }
