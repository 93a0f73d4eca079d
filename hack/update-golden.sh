#!/usr/bin/env bash
# Records anew what upstream's API server answers to the requests of hack/update-golden/corpus (all areas, or those named):
# tests/api/golden/AREA.jsonl. A second run changes nothing. Needs Go >= 1.25, openssl and curl; the first run builds upstream.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/update-golden"
../upstream.sh build
CGO_ENABLED=0 go run . -out ../../tests/api/golden -upstream ../upstream.sh -port "${MK8S_UPSTREAM_PORT:-18443}" "$@"
