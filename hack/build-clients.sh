#!/usr/bin/env bash
# Builds stock clients from their own Go modules, for the tests: build-clients.sh kubectl@1.27.16 kubectl@1.35.4 helm@4.3.1 …
# Each is built once, as ~/.cache/mk8s/NAME/built/NAME.VERSION, and found by a link beside that folder: kubectl.MAJOR.MINOR, helm.MAJOR.
# A few minutes each. Needs Go >= 1.26 and its proxy.
set -euo pipefail
command -v go >/dev/null || { echo "error: building clients needs Go 1.26 or newer" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Its module has no program.
kubectl() {
  local version=$1 out=$2
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
  CGO_ENABLED=0 go build -trimpath -o "$out" \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/client-go/pkg/version.gitVersion=v$version" .
}

helm() {
  local version=$1 out=$2 module=helm.sh/helm/v${1%%.*}
  GOBIN=$work CGO_ENABLED=0 go install -trimpath -ldflags "-s -w -X $module/internal/version.version=v$version" "$module/cmd/helm@v$version"
  mv "$work/helm" "$out"
}

for client in "$@"; do
  name=${client%%@*} version=${client#*@}
  case $name in
    kubectl) cache=${MK8S_KUBECTL_DIR:-$HOME/.cache/mk8s/kubectl} link=kubectl.${version%.*} ;;
    helm) cache=${MK8S_HELM_DIR:-$HOME/.cache/mk8s/helm} link=helm.${version%%.*} ;;
    *) echo "error: there is no client $name" >&2; exit 2 ;;
  esac
  built=$cache/built/$name.$version
  mkdir -p "$cache/built"
  if [ ! -x "$built" ]; then
    ("$name" "$version" "$built.new")
    mv "$built.new" "$built"
    echo "built $built"
  fi
  ln -sfn "built/$name.$version" "$cache/$link"
done
