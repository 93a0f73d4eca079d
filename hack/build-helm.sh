#!/usr/bin/env bash
# Builds stock Helm from its own Go modules, for the tests: build-helm.sh 3.22.0 4.3.1 …
# Each lands, once, in ~/.cache/mk8s/helm/helm.MAJOR; a few minutes each. Needs Go >= 1.26 and its proxy.
set -euo pipefail
cache=${MK8S_HELM_DIR:-$HOME/.cache/mk8s/helm}
command -v go >/dev/null || { echo "error: building Helm needs Go 1.26 or newer" >&2; exit 1; }
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in "$@"; do
  major=${version%%.*}
  out=$cache/helm.$major
  [ -x "$out" ] && continue
  module=helm.sh/helm/v$major
  GOBIN=$work CGO_ENABLED=0 go install -trimpath -ldflags "-s -w -X $module/internal/version.version=v$version" "$module/cmd/helm@v$version"
  mv "$work/helm" "$out"
  echo "built $out"
done
