package interop

// What moves in /metrics: every series that some work moves in etcd moves in
// etch, under the same name and the same labels.

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// moved gives the series that differ between two readings: of a histogram its
// count, since how long something takes is nobody else's matter.
func moved(before, after map[string]string) []string {
	var names []string
	for name, v := range after {
		base, _, _ := strings.Cut(name, "{")
		if strings.HasSuffix(base, "_bucket") || strings.HasSuffix(base, "_sum") || before[name] == v {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// movesElsewhere says why a series that moves in etcd need not move in etch.
func movesElsewhere(name string) bool {
	for _, prefix := range []string{
		// Go's own, and the process's.
		"go_", "process_", "os_fd_",
		// How large the file is, and when it was opened by whom.
		"etcd_mvcc_db_", "etcd_debugging_mvcc_db_total", "etcd_mvcc_hash_duration",
		// Bytes between members: there are none.
		"etcd_network_peer_",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (s *Side) work(t testing.TB) {
	t.Helper()
	for _, st := range []step{
		call("put", "KV/Put", put("a", "1")), call("put", "KV/Put", put("a", "2")), call("bad", "KV/Put", put("", "2")),
		call("range", "KV/Range", rng("a", "z")), call("delete", "KV/DeleteRange", del("a", "")),
		call("txn", "KV/Txn", txn(nil, ops(opPut(put("b", "1"))), nil)), call("put", "KV/Put", put("a", "3")),
		call("grant", "Lease/LeaseGrant", grant(7, 600)), keepAlive(7),
		call("revoke", "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 7}),
		call("compact", "KV/Compact", &pb.CompactionRequest{Revision: 4, Physical: true}),
		call("defrag", "Maintenance/Defragment", &pb.DefragmentRequest{}),
		call("hash", "Maintenance/Hash", &pb.HashRequest{}), call("hashkv", "Maintenance/HashKV", &pb.HashKVRequest{}),
		call("status", "Maintenance/Status", &pb.StatusRequest{}), call("list", "Cluster/MemberList", &pb.MemberListRequest{}),
		call("alarms", "Maintenance/Alarm", &pb.AlarmRequest{}),
	} {
		st.do(s)
	}
	w := s.openWatch()
	w.create(wreq("a", "", 5))
	w.want(2)
	w.cancel()
	snap := ok[pb.Maintenance_SnapshotClient](t)(pb.NewMaintenanceClient(s.Conn).Snapshot(t.Context(), &pb.SnapshotRequest{}))
	for {
		if _, err := snap.Recv(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	s.page("/health")
}

func TestMetricsThatMove(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	read := func(s *Side) map[string]string { _, values := s.families(t); return values }
	a0, b0 := read(p.A), read(p.B)
	p.A.work(t)
	p.B.work(t)
	var a, b []string
	missing := func() (names []string) {
		a, b = moved(a0, read(p.A)), moved(b0, read(p.B))
		for _, name := range a {
			if !slices.Contains(b, name) && !movesElsewhere(name) {
				names = append(names, name)
			}
		}
		return names
	}
	// Commits and some gauges follow a moment later.
	for end := time.Now().Add(5 * time.Second); len(missing()) > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	for _, name := range missing() {
		t.Errorf("%s moves in etcd and stands still in etch", name)
	}
	if len(a) < 60 {
		t.Errorf("only %d series move in etcd", len(a))
	}
}
