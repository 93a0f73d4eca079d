#!/bin/sh
# Asks upstream's own code again what it makes of the objects in pkg/api/tests/upstream.jsonl, and rewrites the answers
# there (the version stands in hack/update-upstream-answers/go.mod). To add a case, append a line
# {"name":…,"object":…[,"old":…]} and run this. Needs Go; building mk8s does not.
set -eu
cd "$(dirname "$0")/update-upstream-answers"
CASES=../../pkg/api/tests/upstream.jsonl
CGO_ENABLED=0 go run . < "$CASES" > "$CASES.new"
mv "$CASES.new" "$CASES"
MUTATIONS=../../pkg/api/tests/mutations
CGO_ENABLED=0 go run . mutate < "$MUTATIONS/bases.jsonl" > "$MUTATIONS/answers.txt"
