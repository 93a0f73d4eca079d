#!/usr/bin/env bash
# Kills the controllers at random while workloads change, for ten minutes, and looks whether the cluster is as they ask at the end
# (tests/controllers/chaos.rs, of which the tests run a short form): chaos.sh [SECONDS [SEED]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
hack/packages.sh protobuf-compiler libprotobuf-dev gcc libc6-dev
export MK8S_CHAOS_SECONDS=${1:-600}
if [ -n "${2:-}" ]; then export MK8S_CHAOS_SEED=$2; fi
exec cargo test --test controllers -- --nocapture --exact chaos::what_is_asked_for_is_there_however_often_the_controllers_are_killed
