//go:build tools

// Package upstream pins the kube-apiserver that mk8s's answers are compared with.
package upstream

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
