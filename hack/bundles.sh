#!/usr/bin/env bash
# Bundles of an operator's manifests (tests/bundles, made of seeds, 1 to 6 MB) through stock kubectl to upstream's API server
# (hack/upstream.sh) and to mk8s's: applied, applied again, diffed, applied server-side, read, deleted, and what upstream refuses.
# What kubectl says, its exit code, and the objects that are there have to be the same. Usage: hack/bundles.sh [SEED…]
# Needs kubectl on PATH. Four ports up to $PORT have to be free.
set -euo pipefail
cd "$(dirname "$0")/.."
port=${PORT:-17743}
command -v kubectl >/dev/null || { echo "error: there is no kubectl" >&2; exit 1; }
cargo build -q -p mk8s-apiserver --example serve --example bundle
built=${CARGO_TARGET_DIR:-target}/debug/examples
dir=$(mktemp -d /tmp/mk8s-bundles.XXXXXX) server=
finish() {
    [ -z "$server" ] || { kill "$server" && wait "$server" || true; }
    [ ! -e "$dir/upstream" ] || hack/upstream.sh down "$dir/upstream"
    rm -rf "$dir"
}
trap finish EXIT
hack/upstream.sh up "$dir/upstream" "$port"
cat > "$dir/upstream.conf" <<YAML
apiVersion: v1
kind: Config
current-context: a
clusters: [{name: a, cluster: {server: "$(cat "$dir/upstream/url")", certificate-authority: "$dir/upstream/ca.crt"}}]
users: [{name: a, user: {token: "$(cat "$dir/upstream/token")"}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
YAML
mkdir "$dir/mk8s"
RUST_LOG=error "$built/serve" "$dir/mk8s" "$((port - 3))" 2>"$dir/mk8s.log" &
server=$!
ln -s "$dir/mk8s/kubeconfig" "$dir/mk8s.conf"
for _ in $(seq 100); do KUBECONFIG=$dir/mk8s.conf kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.1; done
KUBECONFIG=$dir/mk8s.conf kubectl get --raw /readyz >/dev/null || { cat "$dir/mk8s.log" >&2; exit 1; }

# What differs from run to run, what kubectl says of its own haste, and what mk8s says of kinds that nothing acts on yet.
masked() {
    sed -E 's/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/UID/g; s/20[2-9][0-9]-[0-9-]+T[0-9:]+Z/TIME/g
        s/("?resourceVersion"?: )"[0-9]+"/\1REVISION/; s/10\.96\.[0-9.]+/ADDRESS/; s#/tmp/(LIVE|MERGED)-[0-9]+#\1#g; s#mk8s-bundles\.[A-Za-z0-9]+/(upstream|mk8s)#DIR#g
        /Throttling/d; /stored, but nothing acts on this kind/d'
}
failed=0
# same STEP EXIT LINES SAYS ARGUMENT…: the same of both servers, the exit code that is wanted, as many lines (+: some), and every
# one of them fits a pattern. Two may differ in nothing but what is masked.
same() {
    local step=$1 code=$2 wanted=$3 says=$4 name lines
    shift 4
    for name in upstream mk8s; do
        { KUBECONFIG=$dir/$name.conf kubectl "$@" 2>&1 && echo "exit 0" || echo "exit $?"; } | masked > "$dir/$name.out"
    done
    # The last one is the exit code.
    lines=$(($(wc -l < "$dir/mk8s.out") - 1))
    if ! diff "$dir/upstream.out" "$dir/mk8s.out" > "$dir/diff"; then
        echo "differs: $step"
        cut -c1-400 "$dir/diff" | head -n "${SHOWN:-12}"
    elif [ "$(tail -n 1 "$dir/mk8s.out")" != "exit $code" ]; then
        echo "fails alike: $step: $(tail -n 2 "$dir/mk8s.out" | cut -c1-400), wanted $code"
    elif sed '$d' "$dir/mk8s.out" | grep -vE "$says" > "$dir/diff"; then
        echo "says: $step: $(head -n 1 "$dir/diff" | cut -c1-400), wanted $says"
    elif [ "$wanted" = + ] && ((lines > 0)) || [ "$wanted" = "$lines" ]; then
        echo "same: $step ($lines lines, exit $code)"
        return
    else
        echo "says: $step: $lines lines, wanted $wanted"
    fi
    failed=1
}
objects() { cat "$@" | grep -c '^---$'; }
export KUBECTL_EXTERNAL_DIFF="diff -u -N"
[ $# -gt 0 ] || set -- 1 2 6
for seed in "$@"; do
    "$built/bundle" "$seed" "$((seed << 20))" definitions > "$dir/definitions.yaml"
    "$built/bundle" "$seed" "$((seed << 20))" rest > "$dir/rest.yaml"
    d=$(objects "$dir/definitions.yaml") r=$(objects "$dir/rest.yaml")
    echo "seed $seed: $(($(cat "$dir"/*.yaml | wc -c) >> 10)) KiB"
    same "definitions" 0 $d ' created$' apply -f "$dir/definitions.yaml"
    same "established" 0 $d ' condition met$' wait --for=condition=Established --timeout=60s -f "$dir/definitions.yaml"
    sleep 2
    # Whoever makes a ServiceAccount of each namespace is no part of an API server alone.
    same "rest" 0 $r ' created$' apply -f "$dir/rest.yaml"
    same "definitions again" 0 $d ' unchanged$' apply -f "$dir/definitions.yaml"
    # The Secret's stringData is kept as data, a quantity in the API's own spelling, a budget's selector is one that patches replace,
    # and kubectl sends them again; some samples too, to both servers alike.
    same "rest again" 0 $r ' unchanged$|^(secret|deployment.apps|poddisruptionbudget.policy)/operator configured$|^thing[0-9]+\.b[0-9]+\.example\.org/sample configured$' apply -f "$dir/rest.yaml"
    same "diff" 0 0 '' diff -f "$dir/rest.yaml"
    same "diff of definitions" 0 0 '' diff -f "$dir/definitions.yaml"
    same "server-side over it" 0 $((d + r)) ' serverside-applied$' apply --server-side --force-conflicts -f "$dir/definitions.yaml" -f "$dir/rest.yaml"
    same "server-side again" 0 $((d + r)) ' serverside-applied$' apply --server-side -f "$dir/definitions.yaml" -f "$dir/rest.yaml"
    same "read" 0 + '' get -f "$dir/rest.yaml" -o json
    same "delete" 0 $r ' deleted( from |$)' delete --wait=false -f "$dir/rest.yaml"
    KUBECONFIG=$dir/upstream.conf kubectl get ns operator -o json 2>/dev/null | sed 's/"kubernetes"$//' |
        KUBECONFIG=$dir/upstream.conf kubectl replace --raw /api/v1/namespaces/operator/finalize -f - >/dev/null 2>&1 || true
    KUBECONFIG=$dir/mk8s.conf kubectl get ns operator -o json 2>/dev/null | sed 's/"kubernetes"$//' |
        KUBECONFIG=$dir/mk8s.conf kubectl replace --raw /api/v1/namespaces/operator/finalize -f - >/dev/null 2>&1 || true
    same "delete definitions" 0 $d ' deleted$' delete --timeout=60s -f "$dir/definitions.yaml"
done

# What is refused: a last-applied annotation over 262 144 bytes, a request over 3 MiB, a field that nobody knows.
long() { printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: long, namespace: default}\ndata: {a: %s}\n' "$(head -c "$1" /dev/zero | tr '\0' x)"; }
long 262144 > "$dir/long.yaml"
same "a long annotation" 1 + '' apply -f "$dir/long.yaml"
same "none server-side" 0 1 '' apply --server-side -f "$dir/long.yaml"
long 3300000 > "$dir/long.yaml"
same "a long request" 1 + '' create -f "$dir/long.yaml"
printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default, nonsense: 1}\nodd: {a: b}\n' > "$dir/odd.yaml"
same "an unknown field" 1 + '' apply -f "$dir/odd.yaml"
same "warned of" 0 + '' apply --validate=warn -f "$dir/odd.yaml"
same "ignored" 0 1 '' apply --validate=false -f "$dir/odd.yaml"
exit "$failed"
