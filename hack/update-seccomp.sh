#!/usr/bin/env bash
# Writes pkg/containerd/src/spec/seccomp.json: the RuntimeDefault seccomp table, as containerd's own Go module has it.
# Needs Go and its module proxy; building mk8s needs neither.
set -euo pipefail
version=${1:-v1.7.24}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
go mod init seccompdump >/dev/null 2>&1
go get "github.com/containerd/containerd@$version" >/dev/null 2>&1
source=$(go list -m -f '{{.Dir}}' github.com/containerd/containerd)/contrib/seccomp/seccomp_default.go

# The table asks for the architecture it was compiled for; a variable in its place lets one run print them all.
mkdir table
sed -e 's/runtime\.GOARCH/Arch/g' -e '/^\t"runtime"$/d' -e 's/^package seccomp/package table/' "$source" >table/table.go
echo 'package table
var Arch string' >table/arch.go

cat >main.go <<'GO'
package main

import (
	"encoding/json"
	"os"
	"reflect"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"seccompdump/table"
)

var capabilities = []string{
	"CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT",
	"CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYS_NICE", "CAP_SYSLOG", "CAP_BPF",
	"CAP_PERFMON",
}

type arch struct {
	Architectures []specs.Arch         `json:"architectures"`
	Syscalls      []specs.LinuxSyscall `json:"syscalls"`
}

func profile(name string, caps ...string) *specs.LinuxSeccomp {
	table.Arch = name
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
	return table.DefaultProfile(spec)
}

// minus: the rules of a that b lacks, in order.
func minus(a, b []specs.LinuxSyscall) []specs.LinuxSyscall {
	out := []specs.LinuxSyscall{}
next:
	for _, rule := range a {
		for _, other := range b {
			if reflect.DeepEqual(rule, other) {
				continue next
			}
		}
		out = append(out, rule)
	}
	return out
}

func main() {
	amd64 := profile("amd64")
	admin := profile("amd64", "CAP_SYS_ADMIN")
	withoutAdmin := minus(amd64.Syscalls, admin.Syscalls)
	own := minus(amd64.Syscalls, profile("arm64").Syscalls)
	common := minus(minus(amd64.Syscalls, own), withoutAdmin)
	arches := map[string]arch{}
	for rust, name := range map[string]string{"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"} {
		p := profile(name)
		arches[rust] = arch{p.Architectures, minus(minus(p.Syscalls, common), withoutAdmin)}
	}
	byCapability := map[string][]specs.LinuxSyscall{}
	for _, capability := range capabilities {
		byCapability[capability] = minus(profile("amd64", capability).Syscalls, amd64.Syscalls)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	err := encoder.Encode(map[string]any{
		"defaultAction": amd64.DefaultAction,
		"common":        common,
		"arches":        arches,
		"withCapability": byCapability,
		"withoutSysAdmin": withoutAdmin,
	})
	if err != nil {
		panic(err)
	}
}
GO
go mod tidy >/dev/null 2>&1
go run . >"$root/pkg/containerd/src/spec/seccomp.json"
