#!/bin/sh
# Asks upstream's own code again: which functions its expressions have (pkg/cel/src/functions.tsv), and what it makes of those
# in pkg/cel/tests/expressions.jsonl and of rules in pkg/api/tests/fixtures/rules.jsonl, whose answers are rewritten. To add
# one, append {"expr":…[,"in":…]} (a name in schemas.json) or {"name":…,"schema":…[,"object":…[,"old":…]]} and run this.
# The version stands in hack/update-cel-answers/go.mod. Needs Go; building mk8s does not.
set -eu
cd "$(dirname "$0")/update-cel-answers"
CEL=../../pkg/cel
CGO_ENABLED=0 go build -o "${TMPDIR:-/tmp}/cel-answers" .
trap 'rm -f "${TMPDIR:-/tmp}/cel-answers"' EXIT
"${TMPDIR:-/tmp}/cel-answers" functions > "$CEL/src/functions.tsv"
"${TMPDIR:-/tmp}/cel-answers" expressions < "$CEL/tests/expressions.jsonl" > "$CEL/tests/expressions.jsonl.new"
mv "$CEL/tests/expressions.jsonl.new" "$CEL/tests/expressions.jsonl"
RULES=../../pkg/api/tests/fixtures/rules.jsonl
"${TMPDIR:-/tmp}/cel-answers" rules < "$RULES" > "$RULES.new"
mv "$RULES.new" "$RULES"
