package interop

// The permission matrix: every shape of a request by a user with each kind of
// grant, to etcd and to etch: the same verdict, and the same answer where it is
// yes.

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

const (
	readPerm  = authpb.READ
	writePerm = authpb.WRITE
	bothPerm  = authpb.READWRITE
)

// perm is one permission of a role.
type perm struct {
	kind     authpb.Permission_Type
	key, end string
}

// kinds is every kind of grant, by the name of the user that has it: one role
// each, in its order.
func kinds() map[string][][]perm {
	one := func(kind authpb.Permission_Type, key, end string) [][]perm { return [][]perm{{{kind, key, end}}} }
	return map[string][][]perm{
		"none":      nil,
		"empty":     {{}},
		"r-key":     one(readPerm, "k", ""),
		"w-key":     one(writePerm, "k", ""),
		"rw-key":    one(bothPerm, "k", ""),
		"r-range":   one(readPerm, "k", "n"),
		"w-range":   one(writePerm, "k", "n"),
		"rw-range":  one(bothPerm, "k", "n"),
		"r-prefix":  one(readPerm, "k", "l"),
		"rw-prefix": one(bothPerm, "k", "l"),
		"r-from":    one(readPerm, "k", "\x00"),
		"w-from":    one(writePerm, "k", "\x00"),
		"rw-from":   one(bothPerm, "k", "\x00"),
		"r-all":     one(readPerm, "\x00", "\x00"),
		"w-all":     one(writePerm, "\x00", "\x00"),
		"rw-all":    one(bothPerm, "\x00", "\x00"),
		// Ranges that touch, that overlap, that leave a gap, over one role and over several.
		"touching": {{{readPerm, "k", "l"}, {readPerm, "l", "n"}, {writePerm, "k", ""}}},
		"roles":    {{{bothPerm, "k", "m"}}, {{readPerm, "l", "p"}}, {{writePerm, "m", "\x00"}}},
		"gap":      {{{bothPerm, "k", "l"}, {bothPerm, "l\x00", "n"}}},
		"keys":     {{{bothPerm, "k", ""}, {bothPerm, "k\x00", ""}, {readPerm, "l", ""}}},
	}
}

// asUser makes the calls that follow those of a user.
func (s *Side) asUser(token string) context.Context {
	ctx := timeout()
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "token", token)
}

// callAs makes a unary call with a token and writes down the reply.
func (s *Side) callAs(token, name string, req proto.Message) string {
	path, out := method(name)
	resp := out.New().Interface()
	if err := s.Conn.Invoke(s.asUser(token), path, req, resp); err != nil {
		return errText(err)
	}
	canonical(req, resp)
	if r, ok := resp.(*pb.LeaseTimeToLiveResponse); ok {
		slices.SortFunc(r.Keys, slices.Compare[[]byte])
		r.TTL = min(r.TTL, 1)
	}
	if r, ok := resp.(*pb.LeaseLeasesResponse); ok {
		slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
	}
	return text(resp)
}

// login gives the token of a user.
func (s *Side) login(t testing.TB, user, password string) string {
	t.Helper()
	r, err := pb.NewAuthClient(s.Conn).Authenticate(timeout(), &pb.AuthenticateRequest{Name: user, Password: password})
	if err != nil {
		t.Fatalf("%s: login of %s: %v", s.Program, user, err)
	}
	return r.Token
}

// shape is one request of the matrix.
type shape struct {
	name string
	do   func(s *Side, token string) string
}

func rpc(name, call string, req proto.Message) shape {
	return shape{call + " " + name, func(s *Side, token string) string { return s.callAs(token, call, req) }}
}

// rangeForms is every form that a range can have.
var rangeForms = [][2]string{
	{"k", ""}, {"k1", ""}, {"l", ""}, {"a", ""}, {"z", ""}, {"k", "k\x00"}, {"k", "l"}, {"k", "m"}, {"k", "n"}, {"k", "z"},
	{"l", "m"}, {"a", "z"}, {"k", "\x00"}, {"l", "\x00"}, {"\x00", "\x00"}, {"m", "k"}, {"k", "k"}, {"k", "a"},
}

func spanName(s [2]string) string { return fmt.Sprintf("%q..%q", s[0], s[1]) }

func reads() []shape {
	var all []shape
	for _, s := range rangeForms {
		r := rng(s[0], s[1])
		all = append(all, rpc(spanName(s), "KV/Range", r))
		serial := proto.Clone(r).(*pb.RangeRequest)
		serial.Serializable, serial.CountOnly = true, true
		all = append(all, rpc("serializable count "+spanName(s), "KV/Range", serial))
		all = append(all, shape{"RangeStream " + spanName(s), func(s *Side, token string) string {
			c, err := pb.NewKVClient(s.Conn).RangeStream(s.asUser(token), r)
			return first(c, err)
		}})
		for _, more := range []func(*pb.WatchCreateRequest){func(*pb.WatchCreateRequest) {}, prev} {
			w := wreq(s[0], s[1], 0, more)
			all = append(all, watchShape(spanName(s), w))
		}
	}
	return append(all, watchShape("no key", wreq("", "", 0)), watchShape("no key, all", wreq("", "\x00", 0)),
		watchShape("negative", wreq("k", "", -1)), rpc("no key", "KV/Range", rng("", "")))
}

// first takes one message of a stream.
func first[T any, M interface {
	*T
	proto.Message
}](c interface{ Recv() (M, error) }, err error) string {
	if err != nil {
		return errText(err)
	}
	m, err := c.Recv()
	if err != nil {
		return errText(err)
	}
	return text(m)
}

func watchShape(name string, create *pb.WatchCreateRequest) shape {
	return shape{fmt.Sprintf("Watch %s prev=%v", name, create.PrevKv), func(s *Side, token string) string {
		ctx, cancel := context.WithCancel(s.asUser(token))
		defer cancel()
		c, err := pb.NewWatchClient(s.Conn).Watch(ctx)
		if err == nil {
			err = c.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
		}
		return first(c, err)
	}}
}

func exists(key, end string) *pb.Compare {
	return &pb.Compare{Result: pb.Compare_GREATER, Target: pb.Compare_VERSION, Key: []byte(key), RangeEnd: []byte(end),
		TargetUnion: &pb.Compare_Version{Version: 0}}
}

func putWith(key string, lease int64, prevKV bool) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: lease, PrevKv: prevKV}
}

func delWith(key, end string, prevKV bool) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: prevKV}
}

// The leases of the matrix: without keys, with one, with two, and one that is not there.
const (
	leaseFree, leaseK, leaseKZ, leaseGone = 901, 902, 903, 999
)

// writeOps is every form of a put and a delete.
func writeOps() map[string]*pb.RequestOp {
	all := map[string]*pb.RequestOp{}
	for _, key := range []string{"k", "k9", "l", "a", "z"} {
		for _, prevKV := range []bool{false, true} {
			all[fmt.Sprintf("put %q prev=%v", key, prevKV)] = opPut(putWith(key, 0, prevKV))
		}
	}
	for _, lease := range []int64{leaseFree, leaseK, leaseKZ, leaseGone} {
		all[fmt.Sprintf("put k lease=%d", lease)] = opPut(putWith("k", lease, false))
	}
	all["put k ignore_value"] = opPut(&pb.PutRequest{Key: []byte("k"), IgnoreValue: true})
	all["put k ignore_lease"] = opPut(&pb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreLease: true})
	all["put z ignore_value"] = opPut(&pb.PutRequest{Key: []byte("z"), IgnoreValue: true, PrevKv: true})
	for _, s := range rangeForms {
		for _, prevKV := range []bool{false, true} {
			all[fmt.Sprintf("delete %s prev=%v", spanName(s), prevKV)] = opDel(delWith(s[0], s[1], prevKV))
		}
	}
	return all
}

func writes() []shape {
	var all []shape
	writes := writeOps()
	for _, name := range sortedKeys(writes) {
		op := writes[name]
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			all = append(all, rpc(name, "KV/Put", r.RequestPut))
		case *pb.RequestOp_RequestDeleteRange:
			all = append(all, rpc(name, "KV/DeleteRange", r.RequestDeleteRange))
		}
		harmless := ops(opRange(rng("k", "")))
		inner := txn(nil, ops(op), nil)
		all = append(all,
			rpc("then "+name, "KV/Txn", txn(nil, ops(op), nil)),
			rpc("else "+name, "KV/Txn", txn(nil, harmless, ops(op))),
			rpc("nested "+name, "KV/Txn", txn(nil, ops(opTxn(inner)), nil)),
			rpc("nested, not taken "+name, "KV/Txn", txn(nil, harmless, ops(opTxn(txn(nil, nil, ops(opTxn(inner))))))),
		)
	}
	return all
}

func readTxns() []shape {
	all := []shape{rpc("nothing", "KV/Txn", txn(nil, nil, nil))}
	for _, s := range rangeForms {
		get := ops(opRange(rng(s[0], s[1])))
		serial := rng(s[0], s[1])
		serial.Serializable = true
		compare := []*pb.Compare{exists(s[0], s[1])}
		own := ops(opRange(rng("k", "")))
		all = append(all,
			rpc("then get "+spanName(s), "KV/Txn", txn(nil, get, nil)),
			rpc("else get "+spanName(s), "KV/Txn", txn(nil, nil, get)),
			rpc("serializable get "+spanName(s), "KV/Txn", txn(nil, ops(opRange(serial)), nil)),
			rpc("nested get "+spanName(s), "KV/Txn", txn(nil, ops(opTxn(txn(nil, own, get))), nil)),
			rpc("compare "+spanName(s), "KV/Txn", txn(compare, own, nil)),
			rpc("nested compare "+spanName(s), "KV/Txn", txn(nil, ops(opTxn(txn(compare, nil, nil))), nil)),
			rpc("compare and put "+spanName(s), "KV/Txn", txn(compare, ops(opPut(putWith("k", 0, false))), nil)),
		)
	}
	return all
}

func leases() []shape {
	var all []shape
	for _, id := range []int64{leaseFree, leaseK, leaseKZ, leaseGone} {
		name := fmt.Sprint(id)
		for _, keys := range []bool{false, true} {
			all = append(all, rpc(fmt.Sprintf("%s keys=%v", name, keys), "Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys}))
		}
		all = append(all, shape{"LeaseKeepAlive " + name, func(s *Side, token string) string {
			ctx, cancel := context.WithCancel(s.asUser(token))
			defer cancel()
			c, err := pb.NewLeaseClient(s.Conn).LeaseKeepAlive(ctx)
			if err == nil {
				err = c.Send(&pb.LeaseKeepAliveRequest{ID: id})
			}
			return first(c, err)
		}})
	}
	all = append(all, rpc("", "Lease/LeaseLeases", &pb.LeaseLeasesRequest{}), rpc("", "Lease/LeaseGrant", grant(910, 1000)), rpc("again", "Lease/LeaseGrant", grant(910, 1000)))
	for _, id := range []int64{910, leaseFree, leaseK, leaseKZ, leaseGone} {
		all = append(all, rpc(fmt.Sprint(id), "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: id}))
	}
	return all
}

func management() []shape {
	learner := &pb.MemberAddRequest{PeerURLs: []string{peerURL}, IsLearner: true}
	return []shape{
		rpc("", "Cluster/MemberList", &pb.MemberListRequest{}),
		rpc("linearizable", "Cluster/MemberList", &pb.MemberListRequest{Linearizable: true}),
		rpc("bad URL", "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"nonsense"}}),
		rpc("URL taken", "Cluster/MemberAdd", learner),
		rpc("unknown", "Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 17}),
		rpc("unknown", "Cluster/MemberUpdate", &pb.MemberUpdateRequest{ID: 17, PeerURLs: []string{"http://127.0.0.1:9"}}),
		rpc("unknown", "Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: 17}),
		rpc("get", "Maintenance/Alarm", &pb.AlarmRequest{}),
		rpc("deactivate", "Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}),
		rpc("activate none", "Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE}),
		rpc("", "Maintenance/Status", &pb.StatusRequest{}),
		rpc("", "Maintenance/Defragment", &pb.DefragmentRequest{}),
		rpc("", "Maintenance/Hash", &pb.HashRequest{}),
		rpc("", "Maintenance/HashKV", &pb.HashKVRequest{}),
		rpc("unknown", "Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 17}),
		rpc("validate", "Maintenance/Downgrade", &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "3.6"}),
		rpc("nonsense", "Maintenance/Downgrade", &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "x"}),
		{"Snapshot", func(s *Side, token string) string {
			ctx, cancel := context.WithCancel(s.asUser(token))
			defer cancel()
			c, err := pb.NewMaintenanceClient(s.Conn).Snapshot(ctx, &pb.SnapshotRequest{})
			if got := first(c, err); strings.HasPrefix(got, "error") {
				return got
			}
			return "a snapshot"
		}},
		rpc("future", "KV/Compact", compactTo(1<<40)),
		rpc("first", "KV/Compact", compactTo(2)),
		rpc("physical", "KV/Compact", &pb.CompactionRequest{Revision: 3, Physical: true}),
	}
}

// users is the auth service itself: what changes nothing, or fails for root.
func users() []shape {
	perm := &authpb.Permission{PermType: readPerm, Key: []byte("k")}
	return []shape{
		rpc("", "Auth/AuthStatus", &pb.AuthStatusRequest{}),
		rpc("again", "Auth/AuthEnable", &pb.AuthEnableRequest{}),
		rpc("wrong", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "r-key", Password: "wrong"}),
		rpc("unknown", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "nobody", Password: "x"}),
		rpc("no password", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "cn", Password: "x"}),
		rpc("r-key", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "r-key"}),
		rpc("unknown", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "nobody"}),
		rpc("", "Auth/UserList", &pb.AuthUserListRequest{}),
		rpc("", "Auth/RoleList", &pb.AuthRoleListRequest{}),
		rpc("r-key", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "r-key-0"}),
		rpc("root", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "root"}),
		rpc("unknown", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "nothing"}),
		rpc("known", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "r-key", Password: "x"}),
		rpc("no name", "Auth/UserAdd", &pb.AuthUserAddRequest{Password: "x"}),
		rpc("long", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "long", Password: strings.Repeat("x", 73)}),
		rpc("root", "Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "root"}),
		rpc("unknown", "Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "nobody"}),
		rpc("unknown", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "nobody", Password: "x"}),
		rpc("bad hash", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "r-key", HashedPassword: "!"}),
		rpc("unknown", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "nobody", Role: "root"}),
		rpc("unknown role", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "r-key", Role: "nothing"}),
		rpc("twice", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "r-key", Role: "r-key-0"}),
		rpc("root", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "root"}),
		rpc("not granted", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "r-key", Role: "nothing"}),
		rpc("known", "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "r-key-0"}),
		rpc("no name", "Auth/RoleAdd", &pb.AuthRoleAddRequest{}),
		rpc("root", "Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "root"}),
		rpc("unknown", "Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "nothing"}),
		rpc("unknown", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "nothing", Perm: perm}),
		rpc("nothing", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r-key-0"}),
		rpc("inverted", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r-key-0", Perm: &authpb.Permission{Key: []byte("b"), RangeEnd: []byte("a")}}),
		rpc("no key", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r-key-0", Perm: &authpb.Permission{RangeEnd: []byte{0}}}),
		rpc("unknown", "Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "nothing", Key: []byte("k")}),
		rpc("not granted", "Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "r-key-0", Key: []byte("q")}),
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// must makes a call of a test's preparation.
func (s *Side) must(t testing.TB, token, name string, req proto.Message) {
	t.Helper()
	if got := s.callAs(token, name, req); strings.HasPrefix(got, "error") {
		t.Fatalf("%s: %s: %s", s.Program, name, got)
	}
}

// addUser adds a user and its roles.
func (s *Side) addUser(t testing.TB, token, name string, roles [][]perm) {
	t.Helper()
	s.must(t, token, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: name, Password: name})
	for i, perms := range roles {
		role := fmt.Sprintf("%s-%d", name, i)
		s.must(t, token, "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: role})
		for _, p := range perms {
			s.must(t, token, "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: role,
				Perm: &authpb.Permission{PermType: p.kind, Key: []byte(p.key), RangeEnd: []byte(p.end)}})
		}
		s.must(t, token, "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: name, Role: role})
	}
}

// enableAuth makes root, turns auth on, and gives root's token.
func (s *Side) enableAuth(t testing.TB) string {
	t.Helper()
	s.addUser(t, "", "root", nil)
	s.must(t, "", "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "root"})
	s.must(t, "", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	s.must(t, "", "Auth/AuthEnable", &pb.AuthEnableRequest{})
	return s.login(t, "root", "root")
}

// seed brings keys and leases to where each user of the matrix finds them.
func (s *Side) seed(t testing.TB, root string) {
	t.Helper()
	for _, id := range []int64{leaseFree, leaseK, leaseKZ, 910} {
		s.callAs(root, "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: id})
	}
	s.must(t, root, "KV/DeleteRange", del("\x00", "\x00"))
	for _, id := range []int64{leaseFree, leaseK, leaseKZ} {
		s.must(t, root, "Lease/LeaseGrant", grant(id, 10000))
	}
	for _, key := range []string{"a", "k", "k1", "l", "m", "z"} {
		s.must(t, root, "KV/Put", put(key, "of root"))
	}
	s.must(t, root, "KV/Put", putWith("k2", leaseK, false))
	s.must(t, root, "KV/Put", putWith("k3", leaseKZ, false))
	s.must(t, root, "KV/Put", putWith("z3", leaseKZ, false))
}

func both(p *Pair, f func(*Side)) {
	var wg sync.WaitGroup
	for _, s := range []*Side{p.A, p.B} {
		wg.Add(1)
		go func() { defer wg.Done(); f(s) }()
	}
	wg.Wait()
}

func TestPermissionMatrix(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--bcrypt-cost=4")
	roots, tokens := map[*Side]string{}, map[*Side]map[string]string{}
	var mu sync.Mutex
	names := sortedKeys(kinds())
	both(p, func(s *Side) {
		root := s.enableAuth(t)
		s.must(t, root, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "cn", Options: &authpb.UserAddOptions{NoPassword: true}})
		mine := map[string]string{"root": root, "nobody": "", "stranger": "abcdefghijklmnop.1"}
		for _, name := range names {
			s.addUser(t, root, name, kinds()[name])
		}
		for _, name := range names {
			mine[name] = s.login(t, name, name)
		}
		mu.Lock()
		roots[s], tokens[s] = root, mine
		mu.Unlock()
	})
	shapes := slices.Concat(reads(), readTxns(), management(), users(), leases(), writes())
	t.Logf("%d shapes by %d users", len(shapes), len(names)+3)
	for _, user := range append(names, "nobody", "stranger", "root") {
		t.Run(user, func(t *testing.T) {
			both(p, func(s *Side) { s.seed(t, roots[s]) })
			yes := 0
			for i, sh := range shapes {
				// Leases are revoked and keys deleted on the way: put back what the writes need.
				if i == len(shapes)-len(writes()) {
					both(p, func(s *Side) { s.seed(t, roots[s]) })
				}
				var got string
				t.Run(sh.name, func(t *testing.T) {
					p.Both(t, func(s *Side) string {
						out := sh.do(s, tokens[s][user])
						if s == p.A {
							got = out
						}
						return out
					})
				})
				if !strings.HasPrefix(got, "error") {
					yes++
				}
			}
			t.Logf("%d of %d are answered", yes, len(shapes))
		})
	}
	t.Run("the same in the end", func(t *testing.T) {
		p.Both(t, func(s *Side) string { return s.callAs(roots[s], "Maintenance/HashKV", &pb.HashKVRequest{}) })
	})
}
