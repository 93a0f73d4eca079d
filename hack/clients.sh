#!/usr/bin/env bash
# What programs do, through the clients that they are written with, on the cluster of a kubeconfig:
#   clients.sh KUBECONFIG [CLIENT…]      python javascript java go, or those that are named. (The kube crate is what tests/api uses.)
# Each makes a namespace and a CRD of its own, and removes them, also where it fails. MK8S_CLIENTS_IMAGE: an image with a shell, for
# what Python and JavaScript do with a pod; `none` leaves that out, and each line says so. Java and Go read and write objects alone.
# The clients come from their registries, once, into ~/.cache/mk8s/clients; needs Python, Node.js 20, a JDK with Maven, Go.
set -uo pipefail
[ -n "${MK8S_CLIENTS_IMAGE:-}" ] || { echo "error: MK8S_CLIENTS_IMAGE names no image (none: without pods)" >&2; exit 2; }
KUBECONFIG=$(readlink -f "${1:?which kubeconfig?}") || exit 1
export KUBECONFIG
shift
clients=("$@")
((${#clients[@]})) || clients=(python javascript java go)
here=$(dirname "$(readlink -f "$0")")/clients
cache=${MK8S_CLIENTS_DIR:-$HOME/.cache/mk8s/clients}
mkdir -p "$cache"

# What is installed lies under its version: another one is another folder.
python() {
  local version=35.0.0
  local venv=$cache/python-$version
  [ -e "$venv/installed" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "kubernetes==$version" && touch "$venv/installed"; } || return
  "$venv/bin/python" "$here/python.py"
}

javascript() (
  version=1.4.0
  mkdir -p "$cache/javascript-$version" && cd "$cache/javascript-$version" || return
  [ -e installed ] || { npm install --silent "@kubernetes/client-node@$version" && touch installed; } || return
  cp "$here/javascript.mjs" . && node javascript.mjs
)

java() (
  mkdir -p "$cache/java/src/main/java" && cd "$cache/java" || return
  cp "$here/pom.xml" . && cp "$here/Clients.java" src/main/java && mvn --quiet --batch-mode compile exec:java
)

go_client() (
  mkdir -p "$cache/go" && cd "$cache/go" || return
  [ -f go.mod ] || go mod init clients 2>/dev/null || return
  cp "$here/go.go" main.go && go get k8s.io/client-go@v0.35.4 2>/dev/null && go mod tidy 2>/dev/null && CGO_ENABLED=0 go build -o clients . && ./clients
)

failed=0
for client in "${clients[@]}"; do
  pods=
  case $client in
    python | javascript) run=$client; [ "$MK8S_CLIENTS_IMAGE" != none ] || pods=" (no pod)" ;;
    java) run=$client pods=" (no pod)" ;;
    go) run=go_client pods=" (no pod)" ;;
    *) echo "error: there is no client $client" >&2; exit 2 ;;
  esac
  if output=$("$run" 2>&1); then echo "ok      $client$pods"; else
    failed=$((failed + 1)); echo "FAILED  $client"; tail -n 30 <<<"$output" | sed 's/^/        /'
  fi
done
((failed == 0))
