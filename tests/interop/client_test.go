package interop

// Go's own client, clientv3, against etch: KV, Watch and Lease.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// newClient gives a client of a server.
func newClient(t testing.TB, s *Server) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{s.Endpoint()}, DialTimeout: patience, Logger: zap.NewNop(),
		MaxCallRecvMsgSize: 1 << 30, MaxCallSendMsgSize: 1 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// etch starts an etch and gives a client of it.
func etch(t testing.TB, args ...string) (*Server, *clientv3.Client) {
	t.Helper()
	s := startServer(t, "etch", args...)
	return s, newClient(t, s)
}

// ok gives the value or ends the test.
func ok[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func fine(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// next takes the next watch response, or ends the test.
func next(t testing.TB, w clientv3.WatchChan) clientv3.WatchResponse {
	t.Helper()
	select {
	case r, open := <-w:
		if !open {
			t.Fatal("the watch ended")
		}
		return r
	case <-time.After(patience):
		t.Fatal("nothing from the watch")
	}
	return clientv3.WatchResponse{}
}

// collect takes events until there are n of them.
func collect(t testing.TB, w clientv3.WatchChan, n int) []*clientv3.Event {
	t.Helper()
	var events []*clientv3.Event
	for len(events) < n {
		r := next(t, w)
		fine(t, r.Err())
		events = append(events, r.Events...)
	}
	return events
}

func TestClientKV(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	for i := range 1000 {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprintf("k%04d", i), fmt.Sprint(i)))
	}
	get := ok[*clientv3.GetResponse](t)
	if r := get(c.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithCountOnly())); r.Count != 1000 {
		t.Errorf("count %d", r.Count)
	}
	// Pages of 64, each from the end of the last, at one revision.
	seen, from, rev := 0, "k", int64(0)
	for {
		r := get(c.Get(ctx, from, clientv3.WithRange("l"), clientv3.WithLimit(64), clientv3.WithRev(rev)))
		rev = r.Header.Revision
		for _, kv := range r.Kvs {
			if string(kv.Value) != fmt.Sprint(seen) {
				t.Fatalf("%s holds %s", kv.Key, kv.Value)
			}
			seen++
		}
		if !r.More {
			break
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	if seen != 1000 {
		t.Errorf("pages hold %d keys", seen)
	}
	r := get(c.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1)))
	if string(r.Kvs[0].Key) != "k0999" {
		t.Errorf("newest is %s", r.Kvs[0].Key)
	}
	d := ok[*clientv3.DeleteResponse](t)(c.Delete(ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV()))
	if d.Deleted != 1000 || len(d.PrevKvs) != 1000 {
		t.Errorf("deleted %d, %d given back", d.Deleted, len(d.PrevKvs))
	}
	ok[*clientv3.CompactResponse](t)(c.Compact(ctx, d.Header.Revision, clientv3.WithCompactPhysical()))
	if _, err := c.Get(ctx, "k", clientv3.WithRev(5)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a compacted revision: %v", err)
	}
	if _, err := c.Get(ctx, "k", clientv3.WithRev(d.Header.Revision+1)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("a future revision: %v", err)
	}
	if _, err := c.Put(ctx, "", "x"); !errors.Is(err, rpctypes.ErrEmptyKey) {
		t.Errorf("no key: %v", err)
	}
}

func TestClientTxn(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	commit := ok[*clientv3.TxnResponse](t)
	create := func(v string) bool {
		return commit(c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("k"), "=", 0)).
			Then(clientv3.OpPut("k", v)).Else(clientv3.OpGet("k")).Commit()).Succeeded
	}
	if !create("first") || create("second") {
		t.Error("a key was created twice, or never")
	}
	r := commit(c.Txn(ctx).Then(clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value("k"), "=", "first")},
		[]clientv3.Op{clientv3.OpPut("in", "1"), clientv3.OpGet("in")},
		[]clientv3.Op{clientv3.OpPut("in", "2")}), clientv3.OpGet("in")).Commit())
	if got := r.Responses[1].GetResponseRange().Kvs[0]; string(got.Value) != "1" || got.ModRevision != r.Header.Revision {
		t.Errorf("after the nested txn: %v", got)
	}
	_, err := c.Txn(ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("a", "2")).Commit()
	if !errors.Is(err, rpctypes.ErrDuplicateKey) {
		t.Errorf("a key put twice: %v", err)
	}
}

// TestClientWatchResumes restarts the server under a watch: nothing is lost,
// nothing comes twice.
func TestClientWatchResumes(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			s, c := etch(t)
			w := c.Watch(t.Context(), "w", clientv3.WithPrefix(), clientv3.WithPrevKV())
			const rounds, each = 4, 25
			go func() {
				for i := range rounds * each {
					// A put that got no answer may still have been made, so this
					// one counts only once.
					key := fmt.Sprintf("w%03d", i)
					for t.Context().Err() == nil {
						_, err := c.Txn(t.Context()).If(clientv3.Compare(clientv3.Version(key), "=", 0)).Then(clientv3.OpPut(key, "x")).Commit()
						if err == nil {
							break
						}
						time.Sleep(20 * time.Millisecond)
					}
				}
			}()
			var events []*clientv3.Event
			for i := range rounds * each {
				if len(events) == 0 {
					events = collect(t, w, 1)
				}
				e := events[0]
				events = events[1:]
				if got, want := string(e.Kv.Key), fmt.Sprintf("w%03d", i); got != want {
					t.Fatalf("event %s, expected %s", got, want)
				}
				if i%each == each/2 {
					s.Restart(t, sig)
				}
			}
		})
	}
}

func TestClientWatchFragments(t *testing.T) {
	t.Parallel()
	_, c := etch(t, "--max-request-bytes=100000")
	ctx := t.Context()
	for i := range 30 {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprintf("f%02d", i), strings.Repeat("x", 90_000)))
	}
	if got := collect(t, c.Watch(ctx, "f", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFragment()), 30); len(got) != 30 {
		t.Errorf("%d events", len(got))
	}
}

func TestClientWatchProgress(t *testing.T) {
	t.Parallel()
	_, c := etch(t, "--watch-progress-notify-interval=200ms")
	ctx := t.Context()
	rev := ok[*clientv3.PutResponse](t)(c.Put(ctx, "other", "1")).Header.Revision
	w := c.Watch(ctx, "w", clientv3.WithProgressNotify())
	for {
		if r := next(t, w); r.IsProgressNotify() {
			if r.Header.Revision != rev {
				t.Errorf("progress at %d, the store is at %d", r.Header.Revision, rev)
			}
			break
		}
	}
	asked := c.Watch(ctx, "v", clientv3.WithCreatedNotify())
	next(t, asked)
	rev = ok[*clientv3.PutResponse](t)(c.Put(ctx, "other", "2")).Header.Revision
	fine(t, c.RequestProgress(ctx))
	if r := next(t, asked); !r.IsProgressNotify() || r.Header.Revision < rev {
		t.Errorf("asked for progress, got %+v", r)
	}
}

func TestClientWatchCompacted(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	for i := range 10 {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, "k", fmt.Sprint(i)))
	}
	live := c.Watch(ctx, "k", clientv3.WithCreatedNotify())
	next(t, live)
	ok[*clientv3.CompactResponse](t)(c.Compact(ctx, 8))
	r := next(t, c.Watch(ctx, "k", clientv3.WithRev(3)))
	if !errors.Is(r.Err(), rpctypes.ErrCompacted) || r.CompactRevision != 8 {
		t.Errorf("a watch below the compaction: %+v", r)
	}
	if got := collect(t, c.Watch(ctx, "k", clientv3.WithRev(8)), 4); got[0].Kv.ModRevision != 8 {
		t.Errorf("a watch at the compaction begins at %d", got[0].Kv.ModRevision)
	}
	ok[*clientv3.PutResponse](t)(c.Put(ctx, "k", "on"))
	if got := collect(t, live, 1); string(got[0].Kv.Value) != "on" {
		t.Errorf("the live watch got %v", got[0])
	}
}

// TestClientManyWatches has a thousand watches on one connection.
func TestClientManyWatches(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	const n = 1000
	watches := make([]clientv3.WatchChan, n)
	for i := range watches {
		watches[i] = c.Watch(ctx, fmt.Sprintf("m%d/", i%100), clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	}
	for _, w := range watches {
		next(t, w)
	}
	for i := range 100 {
		for j := range 3 {
			ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprintf("m%d/%d", i, j), "x"))
		}
	}
	for i, w := range watches {
		for j, e := range collect(t, w, 3) {
			if want := fmt.Sprintf("m%d/%d", i%100, j); string(e.Kv.Key) != want {
				t.Fatalf("watch %d: %s, expected %s", i, e.Kv.Key, want)
			}
		}
	}
}

func TestClientLease(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	grant := ok[*clientv3.LeaseGrantResponse](t)
	kept, lost := grant(c.Grant(ctx, 2)), grant(c.Grant(ctx, 2))
	for i, l := range []clientv3.LeaseID{kept.ID, lost.ID} {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprintf("l%d", i), "x", clientv3.WithLease(l)))
	}
	alive := ok[<-chan *clientv3.LeaseKeepAliveResponse](t)(c.KeepAlive(ctx, kept.ID))
	w := c.Watch(ctx, "l", clientv3.WithPrefix())
	e := collect(t, w, 1)[0]
	if e.Type != clientv3.EventTypeDelete || string(e.Kv.Key) != "l1" {
		t.Errorf("what ran out: %v", e)
	}
	for range 3 {
		if r := <-alive; r == nil || r.TTL != 2 {
			t.Fatalf("keep-alive: %v", r)
		}
	}
	ttl := ok[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, kept.ID, clientv3.WithAttachedKeys()))
	if ttl.GrantedTTL != 2 || len(ttl.Keys) != 1 || string(ttl.Keys[0]) != "l0" {
		t.Errorf("time to live: %+v", ttl)
	}
	if r := ok[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, lost.ID)); r.TTL != -1 {
		t.Errorf("time to live of a lease that ran out: %+v", r)
	}
	if _, err := c.KeepAliveOnce(ctx, lost.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("keep-alive of a lease that ran out: %v", err)
	}
	ok[*clientv3.LeaseRevokeResponse](t)(c.Revoke(ctx, kept.ID))
	if e := collect(t, w, 1)[0]; e.Type != clientv3.EventTypeDelete || string(e.Kv.Key) != "l0" {
		t.Errorf("what was revoked: %v", e)
	}
	if _, err := c.Put(ctx, "x", "y", clientv3.WithLease(lost.ID)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a put under no lease: %v", err)
	}
}

// TestClientLeaseRestart: a lease outlives the server, and its keep-alive too.
func TestClientLeaseRestart(t *testing.T) {
	t.Parallel()
	s, c := etch(t)
	ctx := t.Context()
	l := ok[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, 10))
	ok[*clientv3.PutResponse](t)(c.Put(ctx, "l", "x", clientv3.WithLease(l.ID)))
	alive := ok[<-chan *clientv3.LeaseKeepAliveResponse](t)(c.KeepAlive(ctx, l.ID))
	<-alive
	s.Restart(t, syscall.SIGKILL)
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case r := <-alive:
		if r == nil {
			t.Fatal("the keep-alive ended")
		}
	case <-wait.Done():
		t.Fatal("no keep-alive after the restart")
	}
	if r := ok[*clientv3.GetResponse](t)(c.Get(ctx, "l")); r.Count != 1 || r.Kvs[0].Lease != int64(l.ID) {
		t.Errorf("the leased key after the restart: %v", r.Kvs)
	}
}
