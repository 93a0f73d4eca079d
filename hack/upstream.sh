#!/usr/bin/env bash
# Upstream's own API server on loopback, which answers are recorded from and compared with: etcd and kube-apiserver, and
# controllers where they are asked for.
#   upstream.sh build           builds both from their Go modules (needs Go >= 1.25; minutes the first time, then kept)
#   upstream.sh up DIR [PORT]   starts them, their state in DIR; ready in seconds. DIR/url, DIR/ca.crt and DIR/token (an
#                               administrator's) say how to ask it; etcd listens on the two ports below PORT (18443)
#   upstream.sh controllers DIR builds and starts controller manager and scheduler beside them, without limits of requests;
#                               DIR/kubeconfig is an administrator's
#   upstream.sh down DIR        ends them and removes DIR
# MK8S_UPSTREAM_BIN: where the binaries are kept, or are already.
set -euo pipefail
modules=$(dirname "$(readlink -f "$0")")/upstream
version=v1.35.4
bin=${MK8S_UPSTREAM_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/mk8s-upstream/$version}

build() (
  local name missing=()
  for name in "$@"; do [[ -x $bin/$name ]] || missing+=("$name"); done
  ((${#missing[@]})) || return 0
  command -v go >/dev/null || { echo "upstream.sh: there is no Go toolchain on PATH: 1.25 or later is needed" >&2; exit 1; }
  mkdir -p "$bin"
  local v=k8s.io/component-base/version
  export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
  cd "$modules"
  for name in "${missing[@]}"; do
    if [[ $name == etcd ]]; then
      (cd etcd && go build -ldflags '-s -w' -o "$bin/etcd" go.etcd.io/etcd/server/v3)
      continue
    fi
    go build -ldflags "-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=35 -X $v.gitTreeState=clean \
      -X $v.gitCommit=0000000000000000000000000000000000000000 -X $v.buildDate=1970-01-01T00:00:00Z" \
      -o "$bin/$name" "k8s.io/kubernetes/cmd/$name"
  done
)

# start NAME COMMAND…: in the background, with its log and its process id in $dir.
start() {
  local name=$1
  shift
  "$@" >"$dir/$name.log" 2>&1 </dev/null &
  echo $! >"$dir/$name.pid"
}

up() {
  dir=$1 port=${2:-18443}
  build etcd kube-apiserver
  [[ ! -e $dir/url ]] || { echo "upstream.sh: $dir is in use: 'upstream.sh down $dir' first" >&2; exit 1; }
  mkdir -p "$dir"
  dir=$(readlink -f "$dir")
  openssl genrsa -out "$dir/sa.key" 2048 2>/dev/null
  (umask 077 && openssl rand -hex 16 >"$dir/token")
  # A CA of its own for client certificates, so that the answers that show one have it.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/client-ca.key" \
    -out "$dir/client-ca.crt" -days 365 -subj /CN=clients 2>/dev/null
  (umask 077 && echo "$(cat "$dir/token"),admin,admin,system:masters" >"$dir/tokens.csv")
  local etcd="http://127.0.0.1:$((port - 1))"
  start etcd "$bin/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "$etcd" --advertise-client-urls "$etcd" --listen-peer-urls "http://127.0.0.1:$((port - 2))"
  # Its defaults, and what every installation gives: RBAC, and privileged pods.
  start kube-apiserver "$bin/kube-apiserver" --etcd-servers "$etcd" --secure-port "$port" --bind-address 127.0.0.1 \
    --advertise-address 192.0.2.1 --cert-dir "$dir" --client-ca-file "$dir/client-ca.crt" --token-auth-file "$dir/tokens.csv" \
    --service-cluster-ip-range 10.96.0.0/16 --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$dir/sa.key" --service-account-signing-key-file "$dir/sa.key" \
    --authorization-mode RBAC --allow-privileged --profiling=false ${MK8S_UPSTREAM_FLAGS:-}
  local i
  for ((i = 0; i < 600; i++)); do
    if curl -sf --cacert "$dir/apiserver.crt" -H "Authorization: Bearer $(cat "$dir/token")" "https://127.0.0.1:$port/readyz" >/dev/null 2>&1; then
      cp "$dir/apiserver.crt" "$dir/ca.crt"
      echo "https://127.0.0.1:$port" >"$dir/url"
      return
    fi
    kill -0 "$(cat "$dir/kube-apiserver.pid")" 2>/dev/null || break
    sleep 0.1
  done
  echo "upstream.sh: kube-apiserver does not become ready: $(tail -n 3 "$dir/kube-apiserver.log")" >&2
  down "$dir"
  exit 1
}

controllers() {
  dir=$(readlink -f "$1")
  build kube-controller-manager kube-scheduler
  (umask 077 && cd "$dir" && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout admin.key -out admin.crt \
    -CA client-ca.crt -CAkey client-ca.key -days 365 -subj /O=system:masters/CN=admin 2>/dev/null)
  (umask 077 && cat >"$dir/kubeconfig" <<Y
apiVersion: v1
kind: Config
current-context: upstream
clusters: [{name: upstream, cluster: {server: "$(cat "$dir/url")", certificate-authority: $dir/ca.crt}}]
users: [{name: admin, user: {client-certificate: $dir/admin.crt, client-key: $dir/admin.key}}]
contexts: [{name: upstream, context: {cluster: upstream, user: admin}}]
Y
  )
  local port=${2:-18444} limits=(--kube-api-qps 10000 --kube-api-burst 20000)
  start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig "$dir/kubeconfig" --leader-elect=false \
    --use-service-account-credentials --service-account-private-key-file "$dir/sa.key" --root-ca-file "$dir/ca.crt" \
    --cluster-signing-cert-file "$dir/client-ca.crt" --cluster-signing-key-file "$dir/client-ca.key" \
    --allocate-node-cidrs --cluster-cidr 10.244.0.0/16 --service-cluster-ip-range 10.96.0.0/16 \
    --controllers '*,bootstrapsigner,tokencleaner' --bind-address 127.0.0.1 --secure-port "$port" --cert-dir "$dir/kcm" "${limits[@]}"
  start kube-scheduler "$bin/kube-scheduler" --kubeconfig "$dir/kubeconfig" --leader-elect=false \
    --bind-address 127.0.0.1 --secure-port $((port + 1)) --cert-dir "$dir/scheduler" "${limits[@]}"
}

down() {
  local name pid i
  for name in kube-scheduler kube-controller-manager kube-apiserver etcd; do
    [[ -e $1/$name.pid ]] || continue
    pid=$(cat "$1/$name.pid")
    kill -9 "$pid" 2>/dev/null || true
    for ((i = 0; i < 50; i++)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.05
    done
  done
  rm -rf "$1"
}

case "${1:-} ${2:+dir}" in
  "build ") build etcd kube-apiserver ;;
  "up dir") up "$2" "${3:-18443}" ;;
  "controllers dir") controllers "$2" "${3:-18444}" ;;
  "down dir") down "$2" ;;
  *) sed -n '2,11p' "$0" | cut -c3- >&2; exit 2 ;;
esac
