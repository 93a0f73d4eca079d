#!/usr/bin/env bash
# Asks upstream's controllers again what they make of tests/controllers/answers/cases.yaml, and rewrites upstream.json beside it: upstream
# on loopback (hack/upstream.sh), with a node that only pretends to run pods. Needs Go the first time.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
dir=$(mktemp -d)/upstream
trap 'hack/upstream.sh down "$dir"' EXIT
hack/upstream.sh up "$dir"
hack/upstream.sh controllers "$dir"
MK8S_RECORD_FROM=$dir/kubeconfig cargo test --test controllers -- --exact answers::controllers_answer_as_upstreams
