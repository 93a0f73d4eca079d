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
  failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' <<<"$2" | tail -n 40
  on 1 kubectl get nodes --no-headers -o 'custom-columns=:.metadata.name,:.spec.taints[*].key' 2>/dev/null |
    sed 's/^/        node and taints: /'
}
# shows NAME PATTERN COMMAND…: the command succeeds and its output has a line that matches; lacks …: it succeeds and has none.
shows() { says 0 yes "$@"; }
lacks() { says 0 no "$@"; }
# refuses NAME PATTERN COMMAND…: the command fails, as its own decision, and its output says why in a line that matches.
refuses() { says refusal yes "$@"; }
says() {
  local status=$1 wanted=$2 name=$3 pattern=$4 output got found=no; shift 4
  output=$("$@" 2>&1); got=$?
  # Of timeout, of a command that is not there, of a signal.
  if ((got > 0 && got < 124)); then got=refusal; fi
  if grep -qE -- "$pattern" <<<"$output"; then found=yes; fi
  if [ $found = "$wanted" ] && [ $got = "$status" ]; then
    passed=$((passed + 1)); echo "ok      $name"
  else
    fails "$name: exit $got (wanted $status), a line matches /$pattern/: $found (wanted $wanted), in:" "$output"
  fi
}
# absent HOST PATH…: none of these is there, not even as a link.
absent() {
  local host=$1; shift
  check "host $host: absent: $*" on "$host" bash -c 'for path; do ! { [ -e "$path" ] || [ -L "$path" ]; } || { echo "$path is there"; exit 1; }; done' absent "$@"
}
# same NAME FILE HOST: the host is as FILE says that it was (see state.sh).
same() {
  local output
  if ! on "$3" bash "${state_script:-$here/state.sh}" >"$work/now" 2>"$work/now.errors"; then fails "$1" "$(cat "$work/now.errors")"; return; fi
  if output=$(diff "$2" "$work/now"); then
    passed=$((passed + 1)); echo "ok      $1"
  else
    fails "$1: < before, > now" "$output"
  fi
}
# remember FILE HOST: writes down what `same` compares with.
remember() {
  if ! on "$2" bash "${state_script:-$here/state.sh}" >"$1" 2>"$work/now.errors"; then fails "host $2 can be looked at" "$(cat "$work/now.errors")"; fi
}
# A check that is misspelt is one that fails. The shell runs this in a process of its own: run.sh counts the file's lines.
command_not_found_handle() { echo "$*" >>"$work/not-found"; echo "FAILED  there is no command $1" >&2; return 127; }
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
