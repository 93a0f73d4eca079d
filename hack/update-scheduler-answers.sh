#!/bin/sh
# Asks upstream's scheduler again what it makes of the small clusters of hack/scheduler/record (all families, or those named), and
# rewrites pkg/scheduler/tests/answers/FAMILY.json. A second run changes nothing. The version stands in hack/scheduler/go.mod. Needs
# Go; building mk8s does not.
set -eu
cd "$(dirname "$0")/scheduler"
CGO_ENABLED=0 go run ./record -out ../../pkg/scheduler/tests/answers "$@"
