package interop

// The lock and the election service: the same calls to etcd and to etch, and what etch promises beyond.

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

func said(m proto.Message, err error) string {
	if err != nil {
		return errText(err)
	}
	return cutTerm(text(m))
}

func TestLockAndElectionTable(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	rows := []struct {
		name string
		call func(ctx context.Context, l lpb.LockClient, e epb.ElectionClient) (proto.Message, error)
	}{
		{"lock without that lease", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Lock(ctx, &lpb.LockRequest{Name: []byte("n"), Lease: 55})
		}},
		{"lock with a negative lease", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Lock(ctx, &lpb.LockRequest{Name: []byte("n"), Lease: -5})
		}},
		{"lock", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Lock(ctx, &lpb.LockRequest{Name: []byte("n"), Lease: 1234})
		}},
		{"lock again", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Lock(ctx, &lpb.LockRequest{Name: []byte("n"), Lease: 1234})
		}},
		{"lock without a name", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Lock(ctx, &lpb.LockRequest{Lease: 1234})
		}},
		{"unlock", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Unlock(ctx, &lpb.UnlockRequest{Key: []byte("n/4d2")})
		}},
		{"unlock again", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Unlock(ctx, &lpb.UnlockRequest{Key: []byte("n/4d2")})
		}},
		{"unlock nothing", func(ctx context.Context, l lpb.LockClient, _ epb.ElectionClient) (proto.Message, error) {
			return l.Unlock(ctx, &lpb.UnlockRequest{})
		}},
		{"no leader", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Leader(ctx, &epb.LeaderRequest{Name: []byte("e")})
		}},
		{"campaign", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Campaign(ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: 1234, Value: []byte("one")})
		}},
		{"campaign again with the value", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Campaign(ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: 1234, Value: []byte("one")})
		}},
		{"campaign again with another", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Campaign(ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: 1234, Value: []byte("two")})
		}},
		{"campaign without that lease", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Campaign(ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: 55})
		}},
		{"leader", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Leader(ctx, &epb.LeaderRequest{Name: []byte("e")})
		}},
		{"proclaim without a leader", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Proclaim(ctx, &epb.ProclaimRequest{Value: []byte("v")})
		}},
		{"proclaim by another", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Proclaim(ctx, &epb.ProclaimRequest{Leader: &epb.LeaderKey{Key: []byte("e/4d2"), Rev: 999, Lease: 1234}, Value: []byte("v")})
		}},
		{"proclaim without a key", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Proclaim(ctx, &epb.ProclaimRequest{Leader: &epb.LeaderKey{Rev: 1, Lease: 1234}, Value: []byte("v")})
		}},
		{"resign without a leader", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Resign(ctx, &epb.ResignRequest{})
		}},
		{"resign by another", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Resign(ctx, &epb.ResignRequest{Leader: &epb.LeaderKey{Key: []byte("e/4d2"), Rev: 999, Lease: 1234}})
		}},
		{"resign without a key", func(ctx context.Context, _ lpb.LockClient, e epb.ElectionClient) (proto.Message, error) {
			return e.Resign(ctx, &epb.ResignRequest{Leader: &epb.LeaderKey{Lease: 1234}})
		}},
	}
	p.Both(t, func(s *Side) string {
		return said(pb.NewLeaseClient(s.Conn).LeaseGrant(timeout(), &pb.LeaseGrantRequest{ID: 1234, TTL: 600}))
	})
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p.Both(t, func(s *Side) string {
				return said(row.call(timeout(), lpb.NewLockClient(s.Conn), epb.NewElectionClient(s.Conn)))
			})
		})
	}
	// The leader that the calls gave may proclaim and resign.
	p.Both(t, func(s *Side) string {
		e := epb.NewElectionClient(s.Conn)
		won, err := e.Campaign(timeout(), &epb.CampaignRequest{Name: []byte("f"), Lease: 1234, Value: []byte("one")})
		if err != nil {
			return errText(err)
		}
		observed, err := e.Observe(timeout(), &epb.LeaderRequest{Name: []byte("f")})
		if err != nil {
			return errText(err)
		}
		out := said(observed.Recv())
		out += said(e.Proclaim(timeout(), &epb.ProclaimRequest{Leader: won.Leader, Value: []byte("two")}))
		out += said(observed.Recv())
		out += said(e.Resign(timeout(), &epb.ResignRequest{Leader: won.Leader}))
		out += said(e.Campaign(timeout(), &epb.CampaignRequest{Name: []byte("f"), Lease: 1234, Value: []byte("three")}))
		return out + said(observed.Recv())
	})
}

// awaitKeys waits until so many keys stand in a line.
func awaitKeys(t *testing.T, c *clientv3.Client, prefix string, n int64) {
	t.Helper()
	w := c.Watch(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	for {
		<-w
		r := ok[*clientv3.GetResponse](t)(c.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()))
		if r.Count == n {
			return
		}
	}
}

func newLease(t *testing.T, c *clientv3.Client, ttl int64) int64 {
	t.Helper()
	return int64(ok[*clientv3.LeaseGrantResponse](t)(c.Grant(t.Context(), ttl)).ID)
}

// Whoever comes next gets the lock next, and only once it is free.
func TestLocksGoInOrder(t *testing.T) {
	t.Parallel()
	s, c := etch(t)
	l := lpb.NewLockClient(dial(t, s))
	held := ok[*lpb.LockResponse](t)(l.Lock(t.Context(), &lpb.LockRequest{Name: []byte("o")}))
	const waiting = 5
	order := make(chan int, waiting)
	var done sync.WaitGroup
	for i := range waiting {
		lease := newLease(t, c, 600)
		done.Add(1)
		go func() {
			defer done.Done()
			r, err := l.Lock(context.Background(), &lpb.LockRequest{Name: []byte("o"), Lease: lease})
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			if _, err := l.Unlock(context.Background(), &lpb.UnlockRequest{Key: r.Key}); err != nil {
				t.Error(err)
			}
		}()
		awaitKeys(t, c, "o/", int64(i)+2)
	}
	select {
	case i := <-order:
		t.Fatalf("%d has a lock that another holds", i)
	default:
	}
	fine(t, func() error { _, err := l.Unlock(t.Context(), &lpb.UnlockRequest{Key: held.Key}); return err }())
	for want := range waiting {
		if i := <-order; i != want {
			t.Errorf("%d came before %d", i, want)
		}
	}
	done.Wait()
}

// A waiter whose lease dies is told at once, and is not granted the lock later.
func TestI11456LockOfADeadLeaseIsNotGranted(t *testing.T) {
	t.Parallel()
	s, c := etch(t)
	conn := dial(t, s)
	l, e := lpb.NewLockClient(conn), epb.NewElectionClient(conn)
	held := ok[*lpb.LockResponse](t)(l.Lock(t.Context(), &lpb.LockRequest{Name: []byte("d")}))
	won := ok[*epb.CampaignResponse](t)(e.Campaign(t.Context(), &epb.CampaignRequest{Name: []byte("v"), Value: []byte("x")}))
	lease := newLease(t, c, 600)
	ended := make(chan error, 2)
	go func() {
		_, err := l.Lock(context.Background(), &lpb.LockRequest{Name: []byte("d"), Lease: lease})
		ended <- err
	}()
	go func() {
		_, err := e.Campaign(context.Background(), &epb.CampaignRequest{Name: []byte("v"), Lease: lease})
		ended <- err
	}()
	awaitKeys(t, c, "d/", 2)
	awaitKeys(t, c, "v/", 2)
	fine(t, func() error { _, err := c.Revoke(t.Context(), clientv3.LeaseID(lease)); return err }())
	for range 2 {
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "session is expired") {
			t.Errorf("granted to a lease that is dead: %v", err)
		}
	}
	// The holders were not disturbed, and their turn ends as ever.
	fine(t, func() error { _, err := l.Unlock(t.Context(), &lpb.UnlockRequest{Key: held.Key}); return err }())
	fine(t, func() error { _, err := e.Resign(t.Context(), &epb.ResignRequest{Leader: won.Leader}); return err }())
	awaitKeys(t, c, "d/", 0)
	awaitKeys(t, c, "v/", 0)
}

// Who stops waiting leaves the line, so that nobody waits for it.
func TestACancelledWaitLeavesTheLine(t *testing.T) {
	t.Parallel()
	for _, deadline := range []bool{false, true} {
		t.Run(fmt.Sprint("deadline ", deadline), func(t *testing.T) {
			t.Parallel()
			s, c := etch(t)
			l := lpb.NewLockClient(dial(t, s))
			ok[*lpb.LockResponse](t)(l.Lock(t.Context(), &lpb.LockRequest{Name: []byte("c")}))
			ctx, cancel := context.WithCancel(t.Context())
			if deadline {
				ctx, cancel = context.WithTimeout(t.Context(), patience/30)
			}
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := l.Lock(ctx, &lpb.LockRequest{Name: []byte("c")})
				ended <- err
			}()
			awaitKeys(t, c, "c/", 2)
			if !deadline {
				cancel()
			}
			if err := <-ended; err == nil {
				t.Fatal("the lock was granted twice")
			}
			awaitKeys(t, c, "c/", 1)
		})
	}
}

// The caller's own permissions hold, at the start and while it waits.
func TestLockAsAUser(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--bcrypt-cost=4")
	p.Both(t, func(s *Side) string {
		root := s.enableAuth(t)
		s.addUser(t, root, "ann", [][]perm{{{bothPerm, "mine/", "mine0"}}, {{readPerm, "seen/", "seen0"}}})
		ann := metadata.AppendToOutgoingContext(timeout(), "token", s.login(t, "ann", "ann"))
		l, e := lpb.NewLockClient(s.Conn), epb.NewElectionClient(s.Conn)
		out := ""
		for _, name := range []string{"mine", "seen", "other"} {
			r, err := l.Lock(ann, &lpb.LockRequest{Name: []byte(name)})
			out += fmt.Sprintln(name, r != nil, errText(err))
			_, err = l.Unlock(ann, &lpb.UnlockRequest{Key: append([]byte(name+"/"), bytes.TrimPrefix(r.GetKey(), []byte(name+"/"))...)})
			out += fmt.Sprintln(name, errText(err))
			c, err := e.Campaign(ann, &epb.CampaignRequest{Name: []byte(name), Value: []byte("x")})
			out += fmt.Sprintln(name, c != nil, errText(err))
			_, err = e.Leader(ann, &epb.LeaderRequest{Name: []byte(name)})
			out += fmt.Sprintln(name, errText(err))
		}
		_, err := l.Lock(timeout(), &lpb.LockRequest{Name: []byte("mine")})
		out += errText(err)
		_, err = l.Lock(metadata.AppendToOutgoingContext(timeout(), "token", "nobody.1"), &lpb.LockRequest{Name: []byte("mine")})
		return out + errText(err)
	})
}
