package interop

// What is built on top of Go's client: sessions, locks, elections, STM, queues,
// and the wrappers mirror, namespace, ordering and leasing.

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
)

func session(t testing.TB, c *clientv3.Client, opts ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	return ok[*concurrency.Session](t)(concurrency.NewSession(c, opts...))
}

// within runs n functions at once and waits for all of them.
func within(t testing.TB, n int, f func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := f(i); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}()
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("does not end")
	}
}

func TestRecipeMutex(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	var inside atomic.Int32
	within(t, 8, func(int) error {
		s, err := concurrency.NewSession(c)
		if err != nil {
			return err
		}
		defer s.Close()
		m := concurrency.NewMutex(s, "/lock")
		for range 5 {
			if err := m.Lock(t.Context()); err != nil {
				return err
			}
			if inside.Add(1) != 1 {
				return fmt.Errorf("two in the lock")
			}
			inside.Add(-1)
			if err := m.Unlock(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
	a, b := session(t, c), session(t, c)
	fine(t, concurrency.NewMutex(a, "/try").Lock(t.Context()))
	if err := concurrency.NewMutex(b, "/try").TryLock(t.Context()); err != concurrency.ErrLocked {
		t.Errorf("a lock that is held: %v", err)
	}
}

// TestRecipeSessionLost: a session that is no longer kept alive loses its lock.
func TestRecipeSessionLost(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	gone, waiting := session(t, c, concurrency.WithTTL(2)), session(t, c)
	fine(t, concurrency.NewMutex(gone, "/l").Lock(t.Context()))
	gone.Orphan()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fine(t, concurrency.NewMutex(waiting, "/l").Lock(ctx))
}

func TestRecipeElection(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	first, second := concurrency.NewElection(session(t, c), "/e"), concurrency.NewElection(session(t, c), "/e")
	fine(t, first.Campaign(ctx, "one"))
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	observe := concurrency.NewElection(session(t, c), "/e").Observe(ctx)
	want := func(v string) {
		t.Helper()
		select {
		case r := <-observe:
			if got := string(r.Kvs[0].Value); got != v {
				t.Errorf("leader %s, expected %s", got, v)
			}
		case <-time.After(patience):
			t.Fatalf("never saw %s", v)
		}
	}
	want("one")
	fine(t, first.Proclaim(ctx, "still one"))
	want("still one")
	fine(t, first.Resign(ctx))
	fine(t, <-won)
	want("two")
	if r := ok[*clientv3.GetResponse](t)(first.Leader(ctx)); string(r.Kvs[0].Value) != "two" {
		t.Errorf("the leader is %s", r.Kvs[0].Value)
	}
}

func TestRecipeSTM(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	const accounts, sum = 5, 500
	for i := range accounts {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprint("acct", i), "100"))
	}
	levels := []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads}
	within(t, 6, func(w int) error {
		for i := range 15 {
			from, to := fmt.Sprint("acct", (w+i)%accounts), fmt.Sprint("acct", (w*2+i+1)%accounts)
			if from == to {
				continue
			}
			_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
				a, _ := strconv.Atoi(s.Get(from))
				b, _ := strconv.Atoi(s.Get(to))
				s.Put(from, strconv.Itoa(a-1))
				s.Put(to, strconv.Itoa(b+1))
				return nil
			}, concurrency.WithIsolation(levels[w%len(levels)]))
			if err != nil {
				return err
			}
		}
		return nil
	})
	total := 0
	for _, kv := range ok[*clientv3.GetResponse](t)(c.Get(ctx, "acct", clientv3.WithPrefix())).Kvs {
		n, _ := strconv.Atoi(string(kv.Value))
		total += n
	}
	if total != sum {
		t.Errorf("the accounts hold %d of %d", total, sum)
	}
}

func TestRecipeQueues(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	q := recipe.NewQueue(c, "q")
	for i := range 10 {
		fine(t, q.Enqueue(fmt.Sprint(i)))
	}
	for i := range 10 {
		if v := ok[string](t)(q.Dequeue()); v != fmt.Sprint(i) {
			t.Errorf("%s came out at %d", v, i)
		}
	}
	p := recipe.NewPriorityQueue(c, "p")
	for i, prio := range []uint16{5, 1, 3} {
		fine(t, p.Enqueue(fmt.Sprint(i), prio))
	}
	for _, want := range []string{"1", "2", "0"} {
		if v := ok[string](t)(p.Dequeue()); v != want {
			t.Errorf("%s came out, expected %s", v, want)
		}
	}
	// A consumer that waits gets what comes later.
	got := make(chan string, 1)
	go func() { v, _ := q.Dequeue(); got <- v }()
	fine(t, q.Enqueue("late"))
	select {
	case v := <-got:
		if v != "late" {
			t.Errorf("got %q", v)
		}
	case <-time.After(patience):
		t.Error("the consumer waits for ever")
	}
}

func TestRecipeBarriers(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	b := recipe.NewBarrier(c, "b")
	fine(t, b.Hold())
	released := make(chan error, 1)
	go func() { released <- recipe.NewBarrier(c, "b").Wait() }()
	fine(t, b.Release())
	select {
	case err := <-released:
		fine(t, err)
	case <-time.After(patience):
		t.Fatal("the barrier holds for ever")
	}
	within(t, 4, func(int) error {
		s, err := concurrency.NewSession(c)
		if err != nil {
			return err
		}
		defer s.Close()
		d := recipe.NewDoubleBarrier(s, "d", 4)
		if err := d.Enter(); err != nil {
			return err
		}
		return d.Leave()
	})
	var readers, writers atomic.Int32
	within(t, 6, func(i int) error {
		s, err := concurrency.NewSession(c)
		if err != nil {
			return err
		}
		defer s.Close()
		m := recipe.NewRWMutex(s, "rw")
		if i%3 == 0 {
			if err := m.Lock(); err != nil {
				return err
			}
			if writers.Add(1) != 1 || readers.Load() != 0 {
				return fmt.Errorf("a writer is not alone")
			}
			writers.Add(-1)
			return m.Unlock()
		}
		if err := m.RLock(); err != nil {
			return err
		}
		readers.Add(1)
		if writers.Load() != 0 {
			return fmt.Errorf("a reader beside a writer")
		}
		readers.Add(-1)
		return m.RUnlock()
	})
}

func TestMirror(t *testing.T) {
	t.Parallel()
	_, from := etch(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 300 {
		ok[*clientv3.PutResponse](t)(from.Put(ctx, fmt.Sprintf("m%03d", i), fmt.Sprint(i)))
	}
	syncer := mirror.NewSyncer(from, "m", 0)
	base, errs := syncer.SyncBase(ctx)
	n := 0
	for r := range base {
		n += len(r.Kvs)
	}
	fine(t, <-errs)
	if n != 300 {
		t.Errorf("the base holds %d", n)
	}
	updates := syncer.SyncUpdates(ctx)
	ok[*clientv3.PutResponse](t)(from.Put(ctx, "m-new", "x"))
	ok[*clientv3.DeleteResponse](t)(from.Delete(ctx, "m000"))
	events := collect(t, updates, 2)
	if string(events[0].Kv.Key) != "m-new" || events[1].Type != clientv3.EventTypeDelete {
		t.Errorf("updates %v", events)
	}
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	inner := newClientLike(c)
	inner.KV, inner.Watcher, inner.Lease = namespace.NewKV(c.KV, "ns/"), namespace.NewWatcher(c.Watcher, "ns/"), namespace.NewLease(c.Lease, "ns/")
	w := inner.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	next(t, w)
	l := ok[*clientv3.LeaseGrantResponse](t)(inner.Grant(ctx, 100))
	ok[*clientv3.PutResponse](t)(inner.Put(ctx, "k", "v", clientv3.WithLease(l.ID)))
	ok[*clientv3.PutResponse](t)(c.Put(ctx, "other", "v"))
	if r := ok[*clientv3.GetResponse](t)(inner.Get(ctx, "", clientv3.WithPrefix())); len(r.Kvs) != 1 || string(r.Kvs[0].Key) != "k" {
		t.Errorf("inside: %v", r.Kvs)
	}
	if r := ok[*clientv3.GetResponse](t)(c.Get(ctx, "ns/k")); r.Count != 1 {
		t.Error("nothing outside")
	}
	if e := collect(t, w, 1)[0]; string(e.Kv.Key) != "k" {
		t.Errorf("event on %s", e.Kv.Key)
	}
	r := ok[*clientv3.LeaseTimeToLiveResponse](t)(inner.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys()))
	if len(r.Keys) != 1 || string(r.Keys[0]) != "k" {
		t.Errorf("keys of the lease: %q", r.Keys)
	}
}

// newClientLike copies the parts of a client, to be wrapped.
func newClientLike(c *clientv3.Client) *clientv3.Client {
	inner := clientv3.NewCtxClient(c.Ctx())
	inner.KV, inner.Watcher, inner.Lease = c.KV, c.Watcher, c.Lease
	return inner
}

func TestOrdering(t *testing.T) {
	t.Parallel()
	s, c := etch(t)
	ctx := t.Context()
	kv := ordering.NewKV(c.KV, func(clientv3.Op, clientv3.OpResponse, int64) error {
		t.Error("a revision went back")
		return nil
	})
	for i := range 60 {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, "o", fmt.Sprint(i)))
		ok[*clientv3.GetResponse](t)(kv.Get(ctx, "o", clientv3.WithSerializable()))
		if i == 30 {
			s.Restart(t, syscall.SIGKILL)
		}
	}
}

func TestLeasing(t *testing.T) {
	t.Parallel()
	_, c := etch(t)
	ctx := t.Context()
	first, closeFirst, err := leasing.NewKV(c, "leases/")
	fine(t, err)
	defer closeFirst()
	second, closeSecond, err := leasing.NewKV(c, "leases/")
	fine(t, err)
	defer closeSecond()
	get := ok[*clientv3.GetResponse](t)
	ok[*clientv3.PutResponse](t)(first.Put(ctx, "k", "1"))
	get(first.Get(ctx, "k"))
	for i := range 10 {
		v := fmt.Sprint("v", i)
		ok[*clientv3.PutResponse](t)(second.Put(ctx, "k", v))
		if r := get(first.Get(ctx, "k")); string(r.Kvs[0].Value) != v {
			t.Fatalf("a stale %s", r.Kvs[0].Value)
		}
	}
	r := ok[*clientv3.TxnResponse](t)(second.Txn(ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "v9")).
		Then(clientv3.OpPut("k", "txn"), clientv3.OpPut("k2", "txn")).Commit())
	if !r.Succeeded || string(get(first.Get(ctx, "k")).Kvs[0].Value) != "txn" {
		t.Error("the txn is not seen")
	}
	ok[*clientv3.DeleteResponse](t)(first.Delete(ctx, "k"))
	if r := get(second.Get(ctx, "k")); r.Count != 0 {
		t.Error("deleted and still there")
	}
}

// TestKubernetes uses the interface that Kubernetes uses.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	s, _ := etch(t)
	k := ok[*kubernetes.Client](t)(kubernetes.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()}))
	t.Cleanup(func() { k.Close() })
	ctx := t.Context()
	put := ok[kubernetes.PutResponse](t)
	created := put(k.Kubernetes.OptimisticPut(ctx, "/r/pods/a", []byte("1"), 0, kubernetes.PutOptions{}))
	if !created.Succeeded {
		t.Fatal("not created")
	}
	if r := put(k.Kubernetes.OptimisticPut(ctx, "/r/pods/a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})); r.Succeeded || string(r.KV.Value) != "1" {
		t.Errorf("created twice: %+v", r)
	}
	if r := put(k.Kubernetes.OptimisticPut(ctx, "/r/pods/a", []byte("2"), created.Revision, kubernetes.PutOptions{})); !r.Succeeded {
		t.Error("not updated")
	}
	for i := range 25 {
		put(k.Kubernetes.OptimisticPut(ctx, fmt.Sprintf("/r/pods/b%02d", i), []byte("x"), 0, kubernetes.PutOptions{}))
	}
	list := ok[kubernetes.ListResponse](t)
	page := list(k.Kubernetes.List(ctx, "/r/pods/", kubernetes.ListOptions{Limit: 10}))
	rest := list(k.Kubernetes.List(ctx, "/r/pods/", kubernetes.ListOptions{Revision: page.Revision, Continue: string(page.Kvs[9].Key) + "\x00"}))
	if page.Count != 26 || len(page.Kvs) != 10 || len(rest.Kvs) != 16 {
		t.Errorf("lists of %d, %d and %d", page.Count, len(page.Kvs), len(rest.Kvs))
	}
	if n := ok[int64](t)(k.Kubernetes.Count(ctx, "/r/", kubernetes.CountOptions{})); n != 26 {
		t.Errorf("count %d", n)
	}
	if r := ok[kubernetes.DeleteResponse](t)(k.Kubernetes.OptimisticDelete(ctx, "/r/pods/a", created.Revision, kubernetes.DeleteOptions{GetOnFailure: true})); r.Succeeded {
		t.Error("deleted at an old revision")
	}
}

// TestSnapshotRestored saves a snapshot of etch, restores it with etcdutl and
// lets a real etcd serve it.
func TestSnapshotRestored(t *testing.T) {
	t.Parallel()
	s, c := etch(t)
	ctx := t.Context()
	for i := range 500 {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprintf("s%03d", i%200), fmt.Sprint(i)))
	}
	ok[*clientv3.DeleteResponse](t)(c.Delete(ctx, "s1", clientv3.WithPrefix()))
	ok[*clientv3.CompactResponse](t)(c.Compact(ctx, 300, clientv3.WithCompactPhysical()))
	want := ok[*pb.HashKVResponse](t)(pb.NewMaintenanceClient(c.ActiveConnection()).HashKV(ctx, &pb.HashKVRequest{}))
	file := filepath.Join(t.TempDir(), "snap.db")
	version := ok[string](t)(snapshot.SaveWithVersion(ctx, zap.NewNop(), clientv3.Config{Endpoints: []string{s.Endpoint()}}, file))
	if version != "3.7.0" {
		t.Errorf("the snapshot says version %q", version)
	}
	restored := newServer(t, "etcd")
	out, err := exec.Command(programs["etcdutl"], "snapshot", "restore", file, "--data-dir="+restored.Dir, "--name=default",
		"--initial-cluster=default="+peerURL, "--initial-advertise-peer-urls="+peerURL).CombinedOutput()
	if err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	restored.Start(t)
	got := ok[*pb.HashKVResponse](t)(pb.NewMaintenanceClient(dial(t, restored)).HashKV(ctx, &pb.HashKVRequest{}))
	if got.Hash != want.Hash || got.CompactRevision != want.CompactRevision || got.HashRevision != want.HashRevision {
		t.Errorf("etch said %v, the restored etcd says %v", want, got)
	}
}
