package interop

// Data of older etcds: what 3.5 and 3.6 wrote, served by etch in place and out
// of a snapshot.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// raftTerm grows with every start.
var raftTerm = regexp.MustCompile(`,?"raft_term":"\d+"`)

// old are the old etcds: Server starts them as "etcd-3.5" and so on. They are
// built, when a test wants them, from the modules under old/, unless a variable
// names one.
var old = map[string]struct {
	env  string
	once *sync.Once
}{
	"etcd-3.4": {env: "ETCD_3_4_BIN", once: new(sync.Once)},
	"etcd-3.5": {env: "ETCD_3_5_BIN", once: new(sync.Once)},
	"etcd-3.6": {env: "ETCD_3_6_BIN", once: new(sync.Once)},
}

// findOld says where the old etcds are, or will be.
func findOld(bin string) {
	for name, o := range old {
		programs[name] = os.Getenv(o.env)
		if programs[name] == "" {
			programs[name] = filepath.Join(bin, name)
		}
	}
}

// oldEtcd is the name of an old etcd, which is there after this.
func oldEtcd(t testing.TB, version string) string {
	t.Helper()
	name := "etcd-" + version
	o := old[name]
	o.once.Do(func() {
		if os.Getenv(o.env) == "" {
			dir := filepath.Join("old", "v"+version)
			pkg := "go.etcd.io/etcd/server/v3"
			if version == "3.4" {
				pkg = "go.etcd.io/etcd"
			}
			err := buildIn(dir, filepath.Dir(programs[name]), name, pkg)
			if err != nil && version == "3.4" {
				t.Log(err)
			} else if err != nil {
				t.Error(err)
			}
		}
	})
	// Its sources are under a version that their authors never gave it, so that not every registry has them.
	if _, err := os.Stat(programs[name]); err != nil && version == "3.4" {
		t.Skip("no etcd 3.4: ETCD_3_4_BIN names none, and it could not be built")
	}
	return name
}

// manySnapshots makes several raft snapshots and segments of a few hundred writes.
var manySnapshots = []string{"--snapshot-count=100"}

// answer is a call that must not fail.
func answer(t testing.TB, s *Side, method string, ask proto.Message) {
	t.Helper()
	if _, err := s.Call(method, ask); err != nil {
		t.Errorf("%s: %s: %v", s.Program, method, err)
	}
}

// writeAll is writeSome with all else that a directory may hold: users, big
// values, a learner that never came, an alarm.
func writeAll(t testing.TB, s *Side) {
	t.Helper()
	writeSome(t, s, 1)
	writeSome(t, s, 2)
	for _, call := range []struct {
		method string
		ask    proto.Message
	}{
		{"Auth/UserAdd", &pb.AuthUserAddRequest{Name: "root", Password: "pw"}},
		{"Auth/UserAdd", &pb.AuthUserAddRequest{Name: "u", Password: "pw2"}},
		{"Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "r"}},
		{"Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"}},
	} {
		answer(t, s, call.method, call.ask)
	}
	for i := range 5 {
		answer(t, s, "KV/Put", put(fmt.Sprint("big", i), strings.Repeat(fmt.Sprint(i), 1_000_000)))
	}
	answer(t, s, "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{strangerURL}, IsLearner: true})
}

// raise raises an alarm, behind the last write that there is to be.
func raise(t testing.TB, s *Side) {
	t.Helper()
	member, _ := s.ids()
	answer(t, s, "Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE})
}

// around is what a server says of all but its keys.
func around(t testing.TB, s *Side) string {
	t.Helper()
	out := ""
	for _, call := range []struct {
		method string
		ask    proto.Message
	}{
		{"Auth/UserList", &pb.AuthUserListRequest{}}, {"Auth/UserGet", &pb.AuthUserGetRequest{Name: "u"}}, {"Auth/RoleList", &pb.AuthRoleListRequest{}},
		{"Cluster/MemberList", &pb.MemberListRequest{Linearizable: true}}, {"Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_GET}},
	} {
		out += call.method + " " + s.Text(call.method, call.ask) + "\n"
	}
	return raftTerm.ReplaceAllString(out, "")
}

func TestOldInPlace(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.5", "3.6"} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprint("etcd ", version, ", ", sig), func(t *testing.T) {
				t.Parallel()
				s := newServer(t, oldEtcd(t, version), manySnapshots...)
				s.Start(t)
				side := connect(t, s)
				writeAll(t, side)
				raise(t, side)
				before, rest := takeRecord(t, side), around(t, side)
				segments := len(ok[[]string](t)(filepath.Glob(filepath.Join(s.Dir, "member", "snap", "*.snap"))))
				if segments < 2 {
					t.Errorf("%d raft snapshots are not several", segments)
				}
				s.Stop(t, sig)
				s.Program = "etch"
				s.Start(t)
				side = connect(t, s)
				takeRecord(t, side).same(t, before, "etch")
				if now := around(t, side); now != rest {
					t.Errorf("before\n%snow\n%s", rest, now)
				}
				member, _ := side.ids()
				answer(t, side, "Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE})
				answer(t, side, "KV/Put", put("by", "etch"))
				s.Restart(t, syscall.SIGKILL)
				s.Stop(t, syscall.SIGTERM)
				whole(t, asEtcdutl(t), s.Dir)
			})
		}
	}
}

// TestBackToOld lets etch write a directory and lower its version, and etcd 3.6
// start on it; then etch comes back, and the version rises again.
func TestBackToOld(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(fmt.Sprint(sig), func(t *testing.T) {
			t.Parallel()
			s := newServer(t, "etch", "--snapshot-count=100")
			s.Start(t)
			side := connect(t, s)
			writeAll(t, side)
			// Nobody knows what the version of a member is that never started.
			for _, m := range listOf(t, side) {
				if m.Name == "" {
					answer(t, side, "Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: m.ID})
				}
			}
			answer(t, side, "Maintenance/Downgrade", &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.6"})
			awaitStatus(t, side, func(s *pb.StatusResponse) bool { return s.StorageVersion == "3.6.0" })
			before, rest := takeRecord(t, side), around(t, side)
			s.Stop(t, sig)
			tool := asEtcdutl(t)
			s.Program = oldEtcd(t, "3.6")
			s.Start(t)
			side = connect(t, s)
			takeRecord(t, side).same(t, before, "etcd 3.6")
			if now := around(t, side); now != rest {
				t.Errorf("before\n%snow\n%s", rest, now)
			}
			answer(t, side, "KV/Put", put("by", "etcd 3.6"))
			// The downgrade ends once all are of the lower version.
			awaitStatus(t, side, func(s *pb.StatusResponse) bool { return !s.DowngradeInfo.GetEnabled() })
			s.Stop(t, syscall.SIGTERM)
			s.Program = "etch"
			s.Start(t)
			awaitStatus(t, connect(t, s), func(s *pb.StatusResponse) bool { return s.StorageVersion == "3.7.0" })
			s.Stop(t, syscall.SIGTERM)
			whole(t, tool, s.Dir)
		})
	}
}

func listOf(t *testing.T, side *Side) []*pb.Member {
	t.Helper()
	m, err := side.Call("Cluster/MemberList", &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		t.Fatal(err)
	}
	return m.(*pb.MemberListResponse).Members
}

func awaitStatus(t *testing.T, side *Side, wanted func(*pb.StatusResponse) bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		m, err := side.Call("Maintenance/Status", &pb.StatusRequest{})
		if err == nil && wanted(m.(*pb.StatusResponse)) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%v %v", m, err)
		}
	}
}

// TestOldSnapshots: an old etcd's snapshot is restored by our tool, and etch
// serves it.
func TestOldSnapshots(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.5", "3.6"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "s.db")
			want := snapshotOf(t, startServer(t, oldEtcd(t, version)), path)
			s := newServer(t, "etch")
			out := utl(asEtcdutl(t), ".", "snapshot", "restore", path, "--data-dir", s.Dir,
				"--initial-cluster=default="+peerURL, "--initial-advertise-peer-urls="+peerURL)
			if !strings.HasSuffix(out, "exit status 0") {
				t.Fatal(out)
			}
			s.Start(t)
			takeRecord(t, connect(t, s)).same(t, want, "etch")
			s.Stop(t, syscall.SIGTERM)
			whole(t, asEtcdutl(t), s.Dir)
		})
	}
}
