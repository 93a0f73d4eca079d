#!/usr/bin/env bash
# Sends the same mutated requests to upstream's API server (hack/upstream.sh) and to mk8s's, and prints the classes of their
# differences (tests/diff). Usage: hack/diff-fuzz.sh [ARGUMENT…], as `--seed 7 --count 12000 --show 3`; see --help. Unless one
# request is asked for, or another bound, it fails where more than 1 % differ in status or reason and are not known.
# Four ports up to $PORT have to be free.
set -euo pipefail
cd "$(dirname "$0")/.."
port=${PORT:-17443}
cargo build -q -p mk8s-apiserver --example serve
cargo build -q --example diff
built=${CARGO_TARGET_DIR:-target}/debug/examples

dir=$(mktemp -d /tmp/mk8s-diff.XXXXXX) server=
finish() {
    [ -z "$server" ] || { kill "$server" && wait "$server" || true; }
    [ ! -e "$dir/upstream" ] || hack/upstream.sh down "$dir/upstream"
    rm -rf "$dir"
}
trap finish EXIT
hack/upstream.sh up "$dir/upstream" "$port"
# By certificate, as mk8s's administrator, so that the two differ in nothing.
pki=$dir/upstream
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/admin.key" -out "$dir/admin.csr" \
    -subj /O=system:masters/CN=kubernetes-admin 2>/dev/null
openssl x509 -req -in "$dir/admin.csr" -CA "$pki/client-ca.crt" -CAkey "$pki/client-ca.key" -CAcreateserial -days 2 \
    -out "$dir/admin.crt" -extfile <(echo extendedKeyUsage=clientAuth) 2>/dev/null
cat > "$dir/kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: upstream
clusters: [{name: upstream, cluster: {server: "$(cat "$pki/url")", certificate-authority: "$pki/ca.crt"}}]
users: [{name: admin, user: {client-certificate: "$dir/admin.crt", client-key: "$dir/admin.key"}}]
contexts: [{name: upstream, context: {cluster: upstream, user: admin}}]
YAML
mkdir "$dir/mk8s"
RUST_LOG=error "$built/serve" "$dir/mk8s" "$((port - 3))" 2>"$dir/mk8s.log" &
server=$!
for _ in $(seq 100); do [ -s "$dir/mk8s/kubeconfig" ] && break; sleep 0.1; done
sleep 1
case " $* " in
    *" --most"*|*" --only"*) ;;
    *) set -- "$@" --most 1 ;;
esac
"$built/diff" --upstream "$dir/kubeconfig" --server "$dir/mk8s/kubeconfig" "$@"
