// Package interop holds the judges of etch: the official etcd programs and
// client libraries, run against it and beside it.
//
// Every test starts real processes. ETCH_BIN names the etch to test (default:
// target/release/etch); ETCD_BIN, ETCDCTL_BIN, ETCDUTL_BIN and BBOLT_BIN name
// official programs that stand already, else they are built into
// target/interop/bin from the versions that go.mod pins. With ETCH_BIN set to
// an etcd the tests compare etcd with itself, which shows that they are sound.
package interop
