package interop

// The table: Maintenance, Cluster and Auth as a cluster of one answers them.

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// snapshot reads a whole snapshot and checks what must hold of any: blocks that
// count down, and the hash at the end.
func (s *Side) snapshot() (content []byte, problem string) {
	c, err := pb.NewMaintenanceClient(s.Conn).Snapshot(timeout(), &pb.SnapshotRequest{})
	if err != nil {
		return nil, errText(err)
	}
	for {
		m, err := c.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, errText(err)
		}
		content = append(content, m.Blob...)
		if m.Version != "3.7.0" {
			problem += "version " + m.Version + "; "
		}
		if len(m.Blob) > 32*1024 {
			problem += fmt.Sprintf("a block of %d; ", len(m.Blob))
		}
	}
	if len(content)%512 != sha256.Size {
		return nil, problem + fmt.Sprintf("%d bytes", len(content))
	}
	data, sum := content[:len(content)-sha256.Size], content[len(content)-sha256.Size:]
	if want := sha256.Sum256(data); !bytes.Equal(want[:], sum) {
		problem += "the hash is another; "
	}
	return data, problem
}

func TestTableMaintenance(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	status := call("status", "Maintenance/Status", &pb.StatusRequest{})
	snapshot := step{"Maintenance/Snapshot", func(s *Side) string {
		data, problem := s.snapshot()
		return fmt.Sprint(problem, len(data) > 4096)
	}}
	hash := func(rev int64) step {
		return call(fmt.Sprint(rev), "Maintenance/HashKV", &pb.HashKVRequest{Revision: rev})
	}
	alarm := func(name string, r *pb.AlarmRequest) step { return call(name, "Maintenance/Alarm", r) }
	down := func(a pb.DowngradeRequest_DowngradeAction, v string) step {
		return call(fmt.Sprintf("%d-%q", a, v), "Maintenance/Downgrade", &pb.DowngradeRequest{Action: a, Version: v})
	}
	steps := []step{status, snapshot, hash(0), hash(1), hash(2), hash(-1)}
	steps = append(steps, seedKV()...)
	for rev := int64(-1); rev < 32; rev++ {
		steps = append(steps, hash(rev))
	}
	steps = append(steps, status, snapshot,
		call("hash", "Maintenance/Hash", &pb.HashRequest{}),
		call("14", "KV/Compact", compactTo(14)))
	for _, rev := range []int64{0, 1, 13, 14, 15, 20, 27, 28, 1 << 60} {
		steps = append(steps, hash(rev))
	}
	steps = append(steps,
		call("defragment", "Maintenance/Defragment", &pb.DefragmentRequest{}), status, hash(0), snapshot,
		call("move-0", "Maintenance/MoveLeader", &pb.MoveLeaderRequest{}),
		call("move-unknown", "Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 12345}),
		step{"Maintenance/MoveLeader/self", func(s *Side) string {
			m, err := s.Call("Maintenance/Status", &pb.StatusRequest{})
			if err != nil {
				return errText(err)
			}
			return s.Text("Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: m.(*pb.StatusResponse).Leader})
		}},
		alarm("get", &pb.AlarmRequest{}),
		alarm("get-nospace", &pb.AlarmRequest{Alarm: pb.AlarmType_NOSPACE}),
		alarm("get-member", &pb.AlarmRequest{MemberID: 5}),
		alarm("off-nothing", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 5}),
		alarm("on-none", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7}),
		alarm("get", &pb.AlarmRequest{}),
		alarm("off-none", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 7}),
		down(0, ""), down(0, "3.6"), down(0, "3.6.0"), down(0, "3.7"), down(0, "3.5"), down(0, "4.0"), down(0, "abc"), down(0, "3"),
		down(0, "3.6.5"), down(0, "v3.6"), down(0, "-1.0"), down(1, "3.5"), down(1, "nonsense"), down(1, ""), down(2, ""), down(2, "3.6"), down(9, "3.6"),
		status)
	runSteps(t, p, steps)
}

// everyWrite is one request of each kind that an alarm may refuse.
func everyWrite() []step {
	bad := txn(nil, ops(opPut(put("q", "1"))), nil)
	return []step{
		call("put", "KV/Put", put("q", "1")),
		call("put-no-key", "KV/Put", put("", "1")),
		call("txn-put", "KV/Txn", bad),
		call("txn-nested-put", "KV/Txn", txn(nil, ops(opTxn(bad)), nil)),
		call("txn-else-put", "KV/Txn", txn(nil, nil, ops(opPut(put("q", "1"))))),
		call("txn-range", "KV/Txn", txn(nil, ops(opRange(rng("q", ""))), nil)),
		call("txn-delete", "KV/Txn", txn(nil, ops(opDel(del("q", ""))), nil)),
		call("delete", "KV/DeleteRange", del("q", "")),
		call("range", "KV/Range", rng("\x00", "\x00")),
		call("serializable", "KV/Range", &pb.RangeRequest{Key: []byte("a"), Serializable: true}),
		step{"KV/RangeStream", func(s *Side) string { return s.stream(rng("a", "")) }},
		call("grant", "Lease/LeaseGrant", grant(70, 600)),
		timeToLive(7, true), keepAlive(7),
		call("leases", "Lease/LeaseLeases", &pb.LeaseLeasesRequest{}),
		call("revoke", "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 70}),
		call("compact", "KV/Compact", compactTo(5)),
		call("status", "Maintenance/Status", &pb.StatusRequest{}),
		call("members", "Cluster/MemberList", &pb.MemberListRequest{Linearizable: true}),
		call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}),
		call("alarms", "Maintenance/Alarm", &pb.AlarmRequest{}),
		watchOnce("watch", wreq("a", "", 0), 1),
	}
}

func TestTableAlarms(t *testing.T) {
	t.Parallel()
	for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			set := func(action pb.AlarmRequest_AlarmAction) step {
				return step{"Maintenance/Alarm/" + action.String(), func(s *Side) string {
					m, err := s.Call("Maintenance/Status", &pb.StatusRequest{})
					if err != nil {
						return errText(err)
					}
					id := m.(*pb.StatusResponse).Header.MemberId
					return s.Text("Maintenance/Alarm", &pb.AlarmRequest{Action: action, Alarm: kind, MemberID: id})
				}}
			}
			steps := append(seedKV(), set(pb.AlarmRequest_ACTIVATE), set(pb.AlarmRequest_ACTIVATE))
			steps = append(steps, everyWrite()...)
			steps = append(steps, set(pb.AlarmRequest_DEACTIVATE), set(pb.AlarmRequest_DEACTIVATE))
			steps = append(steps, everyWrite()...)
			runSteps(t, p, steps)
		})
	}
}

// TestTableQuota fills a small store until it is full. How many puts fit may
// differ, what happens then may not.
func TestTableQuota(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--quota-backend-bytes=1048576")
	steps := []step{
		call("grant", "Lease/LeaseGrant", grant(7, 600)),
		{"fill", func(s *Side) string {
			for i := range 200 {
				if _, err := s.Call("KV/Put", put(fmt.Sprintf("fill%d", i), strings.Repeat("x", 50_000))); err != nil {
					return fmt.Sprintf("%v %s", i > 5, errText(err))
				}
			}
			return "never full"
		}},
		{"alarms", func(s *Side) string {
			m, err := s.Call("Maintenance/Alarm", &pb.AlarmRequest{})
			return fmt.Sprint(m.(*pb.AlarmResponse).Alarms, err)
		}},
		call("small", "KV/Put", put("a", "b")),
		call("grant", "Lease/LeaseGrant", grant(70, 600)),
		{"status", func(s *Side) string {
			m, err := s.Call("Maintenance/Status", &pb.StatusRequest{})
			if err != nil {
				return errText(err)
			}
			mask(m)
			return fmt.Sprint(m.(*pb.StatusResponse).Errors, m.(*pb.StatusResponse).DbSizeQuota)
		}},
		{"delete", func(s *Side) string {
			_, err := s.Call("KV/DeleteRange", del("fill", "film"))
			return fmt.Sprint(err)
		}},
		{"compact", func(s *Side) string {
			m, err := s.Call("KV/Range", rng("a", ""))
			if err != nil {
				return errText(err)
			}
			_, err = s.Call("KV/Compact", compactTo(m.(*pb.RangeResponse).Header.Revision))
			return fmt.Sprint(err)
		}},
		{"defragment", func(s *Side) string {
			_, err := s.Call("Maintenance/Defragment", &pb.DefragmentRequest{})
			return fmt.Sprint(err)
		}},
		{"still-full", func(s *Side) string {
			_, err := s.Call("KV/Put", put("a", "b"))
			return fmt.Sprint(err)
		}},
		{"disarm", func(s *Side) string {
			m, err := s.Call("Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE})
			n := 0
			if err == nil {
				n = len(m.(*pb.AlarmResponse).Alarms)
			}
			_, again := s.Call("KV/Put", put("a", "b"))
			return fmt.Sprint(n, err, again)
		}},
	}
	runSteps(t, p, steps)
}

func TestTableCluster(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	list := call("list", "Cluster/MemberList", &pb.MemberListRequest{})
	// self is the id of the only member.
	self := func(s *Side) uint64 {
		m, err := s.Call("Cluster/MemberList", &pb.MemberListRequest{})
		if err != nil {
			return 0
		}
		return m.(*pb.MemberListResponse).Members[0].ID
	}
	steps := []step{list, call("linearizable", "Cluster/MemberList", &pb.MemberListRequest{Linearizable: true})}
	for _, urls := range [][]string{
		nil, {}, {""}, {"nonsense"}, {"127.0.0.1:2381"}, {"http://127.0.0.1"}, {"mailto:a@b.c"}, {"http://127.0.0.1:2381/path"},
		{"ftp://127.0.0.1:2381"}, {"http://"}, {"http://127.0.0.1:2381", "x"}, {peerURL}, {" " + peerURL},
		{"http://127.0.0.1:9", peerURL}, {"://"}, {"http://[::1"}, {"HTTP://127.0.0.1"},
	} {
		for _, learner := range []bool{false, true} {
			steps = append(steps, call(fmt.Sprintf("%q-%v", urls, learner), "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: urls, IsLearner: learner}))
		}
		steps = append(steps, call(fmt.Sprintf("unknown-%q", urls), "Cluster/MemberUpdate", &pb.MemberUpdateRequest{ID: 99, PeerURLs: urls}))
	}
	onSelf := func(rpc string, req func(id uint64) proto.Message) step {
		return step{rpc + "/self", func(s *Side) string { return s.Text(rpc, req(self(s))) }}
	}
	steps = append(steps, list,
		call("unknown", "Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 99}),
		call("zero", "Cluster/MemberRemove", &pb.MemberRemoveRequest{}),
		call("unknown", "Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: 99}),
		call("zero", "Cluster/MemberPromote", &pb.MemberPromoteRequest{}),
		onSelf("Cluster/MemberPromote", func(id uint64) proto.Message { return &pb.MemberPromoteRequest{ID: id} }),
		onSelf("Cluster/MemberUpdate", func(id uint64) proto.Message {
			return &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{"http://127.0.0.1:2399", "http://127.0.0.1:2398"}}
		}), list,
		onSelf("Cluster/MemberUpdate", func(id uint64) proto.Message {
			return &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{peerURL}}
		}), list,
		onSelf("Cluster/MemberUpdate", func(id uint64) proto.Message { return &pb.MemberUpdateRequest{ID: id} }),
		list, call("works", "KV/Put", put("a", "b")))
	runSteps(t, p, steps)
}

// TestTableAuth asks what can be asked of Auth while it is off and has no users.
func TestTableAuth(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	runSteps(t, p, []step{
		call("status", "Auth/AuthStatus", &pb.AuthStatusRequest{}),
		call("after-put", "KV/Put", put("a", "b")),
		call("status", "Auth/AuthStatus", &pb.AuthStatusRequest{}),
	})
}
