//go:build tools

// Package old pins an old etcd, for directories and snapshots that it wrote.
package old

import _ "go.etcd.io/etcd/server/v3"
