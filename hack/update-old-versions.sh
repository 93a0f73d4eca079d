#!/bin/sh
# Asks upstream's own scheme again what it makes of objects of the versions that it serves no more, and rewrites the answers
# in pkg/api/tests/old_versions.jsonl and old_versions.tsv (the version stands in hack/update-old-versions/go.mod). To add a
# case, append a line {"name":…,"kind":"apps/v1beta1 Deployment","sent":…} and run this. Needs Go; building mk8s does not.
set -eu
cd "$(dirname "$0")/update-old-versions"
CGO_ENABLED=0 go run . ../../pkg/api/tests
