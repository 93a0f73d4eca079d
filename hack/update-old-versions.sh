#!/usr/bin/env bash
# Asks upstream's own scheme again what it makes of objects of the versions that it serves no more, and rewrites the answers
# in pkg/api/tests/old_versions.jsonl and old_versions.tsv (the version stands in hack/update-old-versions/go.mod). To add a
# case, append a line {"name":…,"kind":"apps/v1beta1 Deployment","sent":…} and run this. With upstream's API server
# (hack/upstream.sh) it makes of them the requests of tests/api/golden/removed.jsonl. Needs Go; building mk8s does not.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/update-old-versions"
dir=$(mktemp -d /tmp/mk8s-removed.XXXXXX)
finish() {
    [ ! -e "$dir/upstream" ] || ../upstream.sh down "$dir/upstream"
    rm -rf "$dir"
}
trap finish EXIT
../upstream.sh build
../upstream.sh up "$dir/upstream" "${MK8S_UPSTREAM_PORT:-18443}"
CGO_ENABLED=0 go run . ../../pkg/api/tests ../../tests/api/golden/removed.jsonl "$dir/upstream"
