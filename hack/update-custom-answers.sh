#!/bin/sh
# Asks upstream's own code again what it makes of the custom objects and definitions in pkg/api/tests/custom.jsonl, and
# rewrites the answers there (the version stands in hack/update-upstream-answers/go.mod). To add a case, append a line
# {"name":…,"schema":…,"object":…[,"old":…]} or {"name":…,"crd":…[,"oldCRD":…]} and run this. Needs Go; building mk8s does
# not.
set -eu
cd "$(dirname "$0")/update-upstream-answers"
CASES=../../pkg/api/tests/custom.jsonl
CGO_ENABLED=0 go run ./custom < "$CASES" > "$CASES.new"
mv "$CASES.new" "$CASES"
