//go:build tools

// Package old pins an old etcd: 3.4.13, the last of 3.4 that Go still takes as
// a module, by the version under which Kubernetes had it.
package old

import _ "go.etcd.io/etcd"
