#!/usr/bin/env bash
# Rewrites pkg/api/data/schema.tsv and pkg/api/tests/fixtures/*.tsv from upstream's Go modules (versions in
# hack/update-schema/go.mod). Needs Go >= 1.25 and the module proxy; the first run compiles for some minutes.
set -euo pipefail
cd "$(dirname "$0")/update-schema"
api=../../pkg/api
mkdir -p "$api/data" "$api/tests/fixtures"
go run . -out "$api/data/schema.tsv" -fixtures "$api/tests/fixtures"
