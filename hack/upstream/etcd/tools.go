//go:build tools

// Package etcd pins the etcd that upstream's API server stores in. It has a module of its own: etcd and Kubernetes want
// different versions of what they share.
package etcd

import _ "go.etcd.io/etcd/server/v3"
