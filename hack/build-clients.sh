#!/usr/bin/env bash
# Builds stock kubectl from its own Go module, for the tests: build-kubectl.sh 1.27.16 1.35.4 …
# Each lands, once, in ~/.cache/mk8s/kubectl/kubectl.MAJOR.MINOR; a minute or two each. Needs Go >= 1.25 and its proxy.
set -euo pipefail
cache=${MK8S_KUBECTL_DIR:-$HOME/.cache/mk8s/kubectl}
command -v go >/dev/null || { echo "error: building kubectl needs Go 1.25 or newer" >&2; exit 1; }
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in "$@"; do
  out=$cache/kubectl.${version%.*}
  [ -x "$out" ] && continue
  rm -rf "$work/src"
  mkdir "$work/src"
  cd "$work/src"
  go mod init kubectl 2>/dev/null
  cat >main.go <<'GO'
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
GO
  go get "k8s.io/kubectl@v0.${version#*.}"
  go mod tidy
  CGO_ENABLED=0 go build -trimpath -o "$out.new" \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/client-go/pkg/version.gitVersion=v$version" .
  mv "$out.new" "$out"
  echo "built $out"
done
