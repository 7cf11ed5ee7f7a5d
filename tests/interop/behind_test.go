package interop

// The tests of the server once more with `grpc-proxy` or `gateway` between: this
// program runs itself, and where a test asks for an etch it gets a frontend of
// etch's, before a single etch or before three real etcds.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// behind names the program that stands in for etch behind a frontend of etch's,
// and between is that frontend: TestFrontendsCarryTests.
var (
	behind  = os.Getenv("INTEROP_BEHIND")
	between = os.Getenv("INTEROP_BETWEEN")
)

// inCluster says whether what stands in for etch is a cluster of three.
func inCluster() bool { return behind == "etcd" }

// carried are the tests that hold with a frontend between as they do without.
var carried = []string{
	"TestTableRange", "TestTableRangeCompacted", "TestTableRangeStream", "TestTablePut",
	"TestTableDelete", "TestTableCompact", "TestTableLease", "TestTableLeaseExpiry",
	"TestTableCompare", "TestTableTxn", "TestTableTxnLimit", "TestTableCluster", "TestTableAuth",
	"TestTableWatchHistory", "TestTableWatchCreate", "TestTableWatchLive",
	"TestTableWatchFragment", "TestTableWatchNotify",
	"TestClientKV", "TestClientTxn", "TestClientWatchResumes", "TestClientWatchFragments",
	"TestClientWatchProgress", "TestClientWatchCompacted", "TestClientManyWatches",
	"TestClientLease", "TestClientLeaseRestart",
	"TestCtlLive", "TestEtcdctl", "TestAuthByEtcdctl",
	"TestLockAndElectionTable", "TestLocksGoInOrder", "TestACancelledWaitLeavesTheLine",
	"TestRecipeMutex", "TestRecipeSessionLost", "TestRecipeElection", "TestRecipeSTM",
	"TestRecipeQueues", "TestRecipeBarriers", "TestMirror", "TestNamespace", "TestOrdering",
	"TestLeasing", "TestKubernetes",
	"TestJSONTable", "TestJSONAsAUser", "TestJSONWatch", "TestJSONWatchAnswersWhileItIsAsked", "TestJSONStreams",
	"TestJSONWebSocket", "TestJSONWebSocketAsAUser",
}

// ofOne are the steps whose answers tell how many members there are, and which of them answers: a cluster of three
// cannot give those of the single server that it is compared with.
var ofOne = regexp.MustCompile(`Cluster/Member(List|Add|Update)|/v3/cluster/member/list|/v3/maintenance/transfer-leadership|` +
	`etcdctl .*(member list|endpoint status|move-leader|-w protobuf)`)

func TestFrontendsCarryTests(t *testing.T) {
	if behind != "" {
		t.Skip("this is one of them")
	}
	ports := 17500
	for _, between := range []string{"grpc-proxy", "gateway"} {
		for _, program := range []string{"etch", "etcd"} {
			ports += 2500
			ports := fmt.Sprint("INTEROP_PORTS=", ports)
			t.Run(between+"/"+program, func(t *testing.T) {
				t.Parallel()
				list := slices.Clone(carried)
				if between == "gateway" {
					// It looks into no message: what real clients make of it is what counts.
					list = slices.DeleteFunc(list, func(name string) bool { return strings.HasPrefix(name, "TestTable") })
				}
				run := "^(" + strings.Join(list, "|") + ")$"
				cmd := exec.Command(os.Args[0], "-test.run", run, "-test.timeout=20m", "-test.count=1")
				cmd.Env = append(os.Environ(), "INTEROP_BEHIND="+program, "INTEROP_BETWEEN="+between, ports)
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			})
		}
	}
}

// putBehind has a server that has not been started yet stand behind a frontend,
// with two members more where it stands in for a cluster.
func (s *Server) putBehind(t testing.TB) {
	t.Helper()
	s.Program = behind
	if inCluster() {
		s.gather(t)
	}
	list := []string{s.own()}
	for _, other := range s.others {
		list = append(list, other.own())
	}
	endpoints := strings.Join(list, ",")
	if between == "gateway" {
		s.front = startGateway(t, endpoints)
		return
	}
	s.front = startGrpcProxy(t, "--endpoints", endpoints, "--advertise-client-url", "")
}

// gather makes a server the first of three members.
func (s *Server) gather(t testing.TB) {
	t.Helper()
	members := []*Server{s}
	for range 2 {
		other := &Server{Program: s.Program, Dir: fmt.Sprint(t.TempDir(), "/data"), Port: freePort(t)}
		s.others = append(s.others, other)
		members = append(members, other)
	}
	var cluster []string
	for i := range members {
		cluster = append(cluster, fmt.Sprintf("m%d=http://127.0.0.1:%d", i, freePort(t)))
	}
	for i, member := range members {
		name, peer, _ := strings.Cut(cluster[i], "=")
		member.Member = []string{
			"--name=" + name, "--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=" + strings.Join(cluster, ","),
		}
	}
}

// dialAll connects with every member of a cluster.
func (s *Server) dialAll(t testing.TB) {
	t.Helper()
	if s.others == nil || s.conns != nil {
		return
	}
	for _, member := range append(slices.Clone(s.others), s) {
		s.conns = append(s.conns, dialAt(t, member.own()))
	}
}

// hasVersions says whether all members of a cluster have written down its version.
func (s *Server) hasVersions() bool {
	for _, conn := range s.conns {
		ctx, cancel := context.WithTimeout(context.Background(), patience/3)
		r, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		cancel()
		if err != nil || r.StorageVersion != "3.7.0" {
			return false
		}
	}
	return true
}

// level waits until every member of a cluster has heard of all that was
// answered, so that each says the same.
func (s *Server) level() {
	var all sync.WaitGroup
	for _, conn := range s.conns {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience/3)
			defer cancel()
			for ctx.Err() == nil {
				_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("\x00")})
				// A member that wants to know who asks has caught up all the same.
				if code := status.Code(err); code == codes.OK || code == codes.InvalidArgument {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	all.Wait()
}

// clusterIDs are the marks of a cluster in its answers, in each form that they are printed in.
var clusterIDs = regexp.MustCompile(`"(cluster_id|member_id|raft_term|ClusterID|MemberID|RaftTerm)"( : [0-9]+\n|:"?[0-9]+"?,?)`)

// oneCluster takes out of an answer what a cluster of three cannot have in
// common with the single server that it is compared with.
func oneCluster(out string) string {
	if !inCluster() {
		return out
	}
	return strings.ReplaceAll(clusterIDs.ReplaceAllString(out, ""), ",}", "}")
}
