#!/usr/bin/env bash
# Sends the same mutated requests to the real kube-apiserver and to mk8s's API server and prints the classes of their
# differences (tests/diff). Usage: hack/diff-fuzz.sh [ARGUMENT…], as `--seed 7 --count 12000 --show 3`; see --help.
# Needs etcd and kube-apiserver of the version that mk8s speaks in $UPSTREAM_BIN, openssl, and two free ports from $PORT on.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${UPSTREAM_BIN:-$HOME/.cache/mk8s-upstream/v1.35.4} port=${PORT:-17440}
for name in etcd kube-apiserver; do
    [ -x "$bin/$name" ] || { echo "diff-fuzz.sh: no $bin/$name" >&2; exit 1; }
done
cargo build -q -p mk8s-apiserver --example serve
cargo build -q --example diff
built=${CARGO_TARGET_DIR:-target}/debug/examples

dir=$(mktemp -d /tmp/mk8s-diff.XXXXXX) pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$dir"
}
trap finish EXIT
mkdir -p "$dir/pki" "$dir/etcd" "$dir/mk8s"
chmod 700 "$dir/etcd"

certificate() { # certificate NAME SUBJECT EXTENSIONS
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out "$1.crt" -extfile <(printf '%s\n' "$3")
}
(
    cd "$dir/pki"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=upstream
    openssl genrsa -out sa.key 2048
    openssl rsa -in sa.key -pubout -out sa.pub
    certificate server /CN=kube-apiserver "subjectAltName=IP:127.0.0.1"
    certificate admin /O=system:masters/CN=kubernetes-admin "extendedKeyUsage=clientAuth"
) >/dev/null 2>&1
base64_of() { base64 -w0 "$dir/pki/$1"; }
cat > "$dir/kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: upstream
clusters: [{name: upstream, cluster: {server: "https://127.0.0.1:$port", certificate-authority-data: $(base64_of ca.crt)}}]
users: [{name: admin, user: {client-certificate-data: $(base64_of admin.crt), client-key-data: $(base64_of admin.key)}}]
contexts: [{name: upstream, context: {cluster: upstream, user: admin}}]
YAML

"$bin/etcd" --data-dir "$dir/etcd" --listen-client-urls "http://127.0.0.1:$((port + 1))" --unsafe-no-fsync --log-level panic \
    --advertise-client-urls "http://127.0.0.1:$((port + 1))" --listen-peer-urls "http://127.0.0.1:$((port + 2))" &
pids+=($!)
"$bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$((port + 1))" --secure-port "$port" --bind-address 127.0.0.1 \
    --service-cluster-ip-range 10.96.0.0/16 --client-ca-file "$dir/pki/ca.crt" \
    --tls-cert-file "$dir/pki/server.crt" --tls-private-key-file "$dir/pki/server.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local --service-account-key-file "$dir/pki/sa.pub" \
    --service-account-signing-key-file "$dir/pki/sa.key" --authorization-mode Node,RBAC --allow-privileged \
    --enable-admission-plugins NodeRestriction --enable-bootstrap-token-auth >"$dir/kube-apiserver.log" 2>&1 &
pids+=($!)
RUST_LOG=error "$built/serve" "$dir/mk8s" "$((port + 3))" 2>"$dir/mk8s.log" &
pids+=($!)
for _ in $(seq 200); do
    ready=$(curl -sk --cert "$dir/pki/admin.crt" --key "$dir/pki/admin.key" "https://127.0.0.1:$port/readyz" || true)
    [ "$ready" = ok ] && [ -s "$dir/mk8s/kubeconfig" ] && break
    sleep 0.2
done
[ "$ready" = ok ] || { tail "$dir/kube-apiserver.log" >&2; exit 1; }
"$built/diff" --upstream "$dir/kubeconfig" --server "$dir/mk8s/kubeconfig" "$@"
