#!/bin/sh
# Makes pkg/apiserver/src/bootstrap/upstream.jsonl anew from what k8s.io/kubernetes publishes (its version stands in
# hack/bootstrap/go.mod). Needs Go; building mk8s does not.
set -eu
cd "$(dirname "$0")/bootstrap"
go run . > ../../pkg/apiserver/src/bootstrap/upstream.jsonl.new
mv ../../pkg/apiserver/src/bootstrap/upstream.jsonl.new ../../pkg/apiserver/src/bootstrap/upstream.jsonl
