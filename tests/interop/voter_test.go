package interop

// A voter is added to a cluster of one and never comes: the whole story, on
// etcd and on etch, and on the directory that the other has left.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

const strangerURL = "http://127.0.0.1:9"

// voterArgs make elections, and so the whole story, shorter.
var voterArgs = []string{"--heartbeat-interval=50", "--election-timeout=500"}

// named hides the ids that were made from the time, and what a client makes of
// its own deadline.
func (s *Side) named(out string) string {
	return strings.ReplaceAll(oneDeadline(out), fmt.Sprint(uint64(s.Get("voter"))), "VOTER")
}

// ids gives this member's id and that of the voter that never comes.
func (s *Side) ids() (self, voter uint64) {
	m, err := s.Call("Cluster/MemberList", &pb.MemberListRequest{})
	if err != nil {
		return 0, 0
	}
	for _, m := range m.(*pb.MemberListResponse).Members {
		if m.Name == "" {
			voter = m.ID
		} else {
			self = m.ID
		}
	}
	return self, voter
}

func addVoter(s *Side) string {
	out := s.Text("Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{strangerURL}})
	_, voter := s.ids()
	s.Set("voter", int64(voter))
	return s.named(out)
}

// awaitNoLeader waits until the member has found out that nobody follows it.
func awaitNoLeader(t testing.TB, s *Side) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r, err := pb.NewMaintenanceClient(s.Conn).Status(t.Context(), &pb.StatusRequest{})
		if err == nil && r.Leader == 0 {
			return
		}
	}
	t.Fatalf("%s still has a leader\n%s", s.Program, s.Log.Tail())
}

// page fetches a page of the client port.
func (s *Side) page(path string) string {
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://" + s.Endpoint() + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	// etcd makes its checks in any order.
	lines := strings.Split(string(body), "\n")
	slices.Sort(lines)
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.Join(lines, "\n"))
}

// watchUntilEnd opens a watch that asks for a leader or does not, and writes
// down what comes of it within a few election timeouts.
func (s *Side) watchUntilEnd(wantsLeader bool) string {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	if wantsLeader {
		ctx = metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	}
	w, err := pb.NewWatchClient(s.Conn).Watch(ctx)
	if err != nil {
		return errText(err)
	}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: wreq("a", "", 1)}}); err != nil {
		return errText(err)
	}
	out := ""
	for {
		r, err := w.Recv()
		if err != nil {
			return out + errText(err)
		}
		out += text(r) + "\n"
	}
}

func (s *Side) keepAliveOnce(id int64) string {
	k, err := pb.NewLeaseClient(s.Conn).LeaseKeepAlive(timeout())
	if err != nil {
		return errText(err)
	}
	if err := k.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return errText(err)
	}
	r, err := k.Recv()
	if err != nil {
		return errText(err)
	}
	return text(r)
}

// withoutMajority is what is asked while there is none, all at once: most of it
// waits until its time is up.
func withoutMajority() []step {
	onVoter := func(rpc string, req func(id uint64) proto.Message) step {
		return step{rpc + "/voter", func(s *Side) string { return s.Text(rpc, req(uint64(s.Get("voter")))) }}
	}
	onSelf := func(rpc string, req func(id uint64) proto.Message) step {
		return step{rpc + "/self", func(s *Side) string { self, _ := s.ids(); return s.Text(rpc, req(self)) }}
	}
	serializable := rng("a", "z")
	serializable.Serializable = true
	readTxn := txn(nil, ops(opRange(rng("a", ""))), nil)
	localTxn := txn(nil, ops(opRange(serializable)), nil)
	list := &pb.MemberListRequest{Linearizable: true}
	return []step{
		call("linearizable", "KV/Range", rng("a", "")),
		call("serializable", "KV/Range", serializable),
		call("put", "KV/Put", put("a", "2")),
		call("bad", "KV/Put", put("", "2")),
		call("delete", "KV/DeleteRange", del("a", "")),
		call("read", "KV/Txn", readTxn),
		call("read-serializable", "KV/Txn", localTxn),
		call("write", "KV/Txn", txn(nil, ops(opPut(put("a", "3"))), nil)),
		call("compact", "KV/Compact", compactTo(2)),
		call("grant", "Lease/LeaseGrant", grant(8, 600)),
		call("revoke", "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 7}),
		call("ttl", "Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 7}),
		call("leases", "Lease/LeaseLeases", &pb.LeaseLeasesRequest{}),
		{"Lease/LeaseKeepAlive", func(s *Side) string { return s.keepAliveOnce(7) }},
		call("list", "Cluster/MemberList", &pb.MemberListRequest{}),
		call("list-linearizable", "Cluster/MemberList", list),
		call("another", "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:8"}}),
		call("same", "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{strangerURL}}),
		call("learner", "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:8"}, IsLearner: true}),
		onVoter("Cluster/MemberRemove", func(id uint64) proto.Message { return &pb.MemberRemoveRequest{ID: id} }),
		onSelf("Cluster/MemberRemove", func(id uint64) proto.Message { return &pb.MemberRemoveRequest{ID: id} }),
		call("unknown", "Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 99}),
		onVoter("Cluster/MemberUpdate", func(id uint64) proto.Message {
			return &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{"http://127.0.0.1:7"}}
		}),
		call("unknown", "Cluster/MemberUpdate", &pb.MemberUpdateRequest{ID: 99, PeerURLs: []string{"http://127.0.0.1:7"}}),
		onVoter("Cluster/MemberPromote", func(id uint64) proto.Message { return &pb.MemberPromoteRequest{ID: id} }),
		call("unknown", "Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: 99}),
		onVoter("Maintenance/MoveLeader", func(id uint64) proto.Message { return &pb.MoveLeaderRequest{TargetID: id} }),
		onSelf("Maintenance/MoveLeader", func(id uint64) proto.Message { return &pb.MoveLeaderRequest{TargetID: id} }),
		call("status", "Maintenance/Status", &pb.StatusRequest{}),
		call("alarms", "Maintenance/Alarm", &pb.AlarmRequest{}),
		call("defrag", "Maintenance/Defragment", &pb.DefragmentRequest{}),
		call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}),
		call("downgrade", "Maintenance/Downgrade", &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "3.6.0"}),
		{"watch", func(s *Side) string { return s.watchUntilEnd(false) }},
		{"watch-with-leader", func(s *Side) string { return s.watchUntilEnd(true) }},
		{"/health", func(s *Side) string { return s.page("/health") }},
		{"/health-serializable", func(s *Side) string { return s.page("/health?serializable=true") }},
		{"/livez", func(s *Side) string { return s.page("/livez?verbose") }},
		{"/readyz", func(s *Side) string { return s.page("/readyz?verbose") }},
	}
}

func TestVoterThatNeverComes(t *testing.T) {
	t.Parallel()
	p := newPair(t, voterArgs...)
	runSteps(t, p, []step{
		call("first", "KV/Put", put("a", "1")),
		call("grant", "Lease/LeaseGrant", grant(7, 600)),
		call("leased", "KV/Put", &pb.PutRequest{Key: []byte("b"), Value: []byte("1"), Lease: 7}),
	})
	// These were open before, one of them for as long as there is a leader.
	open := map[string]*struct {
		sync.WaitGroup
		out string
	}{}
	for _, s := range []*Side{p.A, p.B} {
		w := &struct {
			sync.WaitGroup
			out string
		}{}
		open[s.Program] = w
		w.Add(1)
		go func() { defer w.Done(); w.out = s.watchUntilEnd(true) }()
	}
	runSteps(t, p, []step{{"Cluster/MemberAdd", addVoter}})
	for _, s := range []*Side{p.A, p.B} {
		awaitNoLeader(t, s)
		open[s.Program].Wait()
	}
	if a, b := open["etcd"].out, open["etch"].out; a != b || !strings.Contains(a, "no leader") {
		t.Errorf("a watch that was open\n--- etcd\n%s\n--- etch\n%s", a, b)
	}
	if !strings.Contains(p.B.Log.String(), "there is no majority now") {
		t.Errorf("no warning\n%s", p.B.Log.Tail())
	}
	compareAtOnce(t, p, withoutMajority())
	// Each goes on where the other has stopped: the state stays, and the way
	// out is the same.
	p.A.Stop(t, syscall.SIGKILL)
	p.B.Stop(t, syscall.SIGTERM)
	p.A.Dir, p.B.Dir = p.B.Dir, p.A.Dir
	a, b := p.A.Get("voter"), p.B.Get("voter")
	p.A.Set("voter", b)
	p.B.Set("voter", a)
	for _, s := range []*Side{p.A, p.B} {
		// With pages of its own, which answer while clients have to wait.
		pages := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		s.Args = append(append([]string{}, voterArgs...), "--listen-metrics-urls=http://"+pages)
		s.Launch(t)
		select {
		case <-s.Log.Seen("failed to publish local member to cluster through raft"):
		case <-s.exited:
			t.Fatalf("%s ended: %v\n%s", s.Program, s.err, s.Log.Tail())
		case <-time.After(patience):
			t.Fatalf("%s says nothing\n%s", s.Program, s.Log.Tail())
		}
		resp := ok[*http.Response](t)(http.Get("http://" + pages + "/health"))
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 503 || !strings.Contains(string(body), "RAFT NO LEADER") {
			t.Errorf("%s: /health is %s %s", s.Program, resp.Status, body)
		}
		if strings.Contains(s.Log.String(), readyLine) {
			t.Errorf("%s serves clients without a majority", s.Program)
		}
		s.Stop(t, syscall.SIGTERM)
		s.Args = append(append([]string{}, voterArgs...), "--force-new-cluster")
		s.Start(t)
		s.Conn.Close()
		s.Conn = dial(t, s.Server)
	}
	all := []step{
		call("all", "KV/Range", rng("\x00", "\x00")),
		call("list", "Cluster/MemberList", &pb.MemberListRequest{Linearizable: true}),
		call("leases", "Lease/LeaseLeases", &pb.LeaseLeasesRequest{}),
		{"/health", func(s *Side) string { return s.page("/health") }},
		call("put", "KV/Put", put("after", "1")),
		call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}),
	}
	runSteps(t, p, all)
	for _, s := range []*Side{p.A, p.B} {
		s.Args = voterArgs
		s.Restart(t, syscall.SIGTERM)
		s.Conn.Close()
		s.Conn = dial(t, s.Server)
	}
	runSteps(t, p, all)
}

// compareAtOnce asks both members everything at the same time, since most of it
// only waits, and then compares.
func compareAtOnce(t *testing.T, p *Pair, steps []step) {
	t.Helper()
	answers := make([][2]string, len(steps))
	var asked sync.WaitGroup
	for i, st := range steps {
		for j, s := range []*Side{p.A, p.B} {
			asked.Go(func() { answers[i][j] = s.named(st.do(s)) })
		}
	}
	asked.Wait()
	for i, st := range steps {
		t.Run(st.name, func(t *testing.T) {
			if a, b := answers[i][0], answers[i][1]; a != b {
				t.Errorf("different answers\n--- etcd\n%s\n--- etch\n%s", a, b)
			}
		})
	}
}

// TestLearner adds a learner that never comes: it takes nothing away.
func TestLearner(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	add := &pb.MemberAddRequest{PeerURLs: []string{strangerURL}, IsLearner: true}
	onVoter := func(rpc string, req func(id uint64) proto.Message) step {
		return step{rpc, func(s *Side) string { return s.named(s.Text(rpc, req(uint64(s.Get("voter"))))) }}
	}
	list := step{"list", func(s *Side) string {
		return s.named(s.Text("Cluster/MemberList", &pb.MemberListRequest{Linearizable: true}))
	}}
	runSteps(t, p, []step{
		{"add", func(s *Side) string {
			out := s.Text("Cluster/MemberAdd", add)
			_, learner := s.ids()
			s.Set("voter", int64(learner))
			return s.named(out)
		}},
		list,
		call("second", "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:8"}, IsLearner: true}),
		onVoter("Cluster/MemberPromote", func(id uint64) proto.Message { return &pb.MemberPromoteRequest{ID: id} }),
		onVoter("Maintenance/MoveLeader", func(id uint64) proto.Message { return &pb.MoveLeaderRequest{TargetID: id} }),
		onVoter("Cluster/MemberUpdate", func(id uint64) proto.Message {
			return &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{"http://127.0.0.1:7"}}
		}),
		list, call("put", "KV/Put", put("a", "1")), call("get", "KV/Range", rng("a", "")),
	})
	for _, s := range []*Side{p.A, p.B} {
		s.Stop(t, syscall.SIGTERM)
	}
	p.A.Dir, p.B.Dir = p.B.Dir, p.A.Dir
	a, b := p.A.Get("voter"), p.B.Get("voter")
	p.A.Set("voter", b)
	p.B.Set("voter", a)
	for _, s := range []*Side{p.A, p.B} {
		s.Start(t)
		s.Conn.Close()
		s.Conn = dial(t, s.Server)
	}
	runSteps(t, p, []step{
		list, call("put", "KV/Put", put("a", "2")),
		onVoter("Cluster/MemberRemove", func(id uint64) proto.Message { return &pb.MemberRemoveRequest{ID: id} }),
		list, call("put", "KV/Put", put("a", "3")),
		onVoter("Cluster/MemberRemove", func(id uint64) proto.Message { return &pb.MemberRemoveRequest{ID: id} }),
	})
}
