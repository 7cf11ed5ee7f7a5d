package interop

// Watches inside one another through the gRPC proxy, and many of them on few
// streams: what they cost the cluster, and that nobody misses anything.

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A watch wholly inside one that is there costs the cluster nothing, keys of
// all kinds share a stream, and when the wide one goes, the others go on.
func TestGrpcProxyWatchesInsideOthers(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		c := p.client(t)
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		defer cancel()
		wideCtx, leave := context.WithCancel(ctx)
		wide := c.Watch(wideCtx, "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		next(t, wide)
		const keys = 200
		var inside []clientv3.WatchChan
		for i := range keys {
			w := c.Watch(ctx, fmt.Sprintf("k%03d", i), clientv3.WithCreatedNotify())
			next(t, w)
			inside = append(inside, w)
		}
		part := c.Watch(ctx, "k050", clientv3.WithRange("k060"), clientv3.WithCreatedNotify())
		next(t, part)
		p.awaitMetric(t, "etch_grpc_proxy_upstream_watches", "1")
		round := func(value string) {
			for i := range keys {
				ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprintf("k%03d", i), value))
			}
			for i, w := range inside {
				if e := collect(t, w, 1)[0]; string(e.Kv.Value) != value || string(e.Kv.Key) != fmt.Sprintf("k%03d", i) {
					t.Fatalf("%s: key %d has %v", value, i, e)
				}
			}
			if events := collect(t, part, 10); string(events[0].Kv.Key) != "k050" || string(events[9].Kv.Key) != "k059" {
				t.Fatal(events)
			}
		}
		round("one")
		collect(t, wide, keys)
		leave()
		p.awaitMetric(t, "etch_grpc_proxy_upstream_watches", fmt.Sprint(keys+1))
		p.awaitMetric(t, "etch_grpc_proxy_upstream_watch_streams", "1")
		round("two")
	})
}

// Wide watches come and go while keys are written: who watches a key sees each
// of its events once, in order, whichever watch of the cluster it came from.
func TestGrpcProxyWatchesComeAndGo(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		defer cancel()
		const keys, rounds = 5, 60
		key := func(i int) string { return fmt.Sprint("k", i) }
		watcher := p.client(t)
		var all []clientv3.WatchChan
		var since []int64
		for i := range keys {
			w := watcher.Watch(ctx, key(i), clientv3.WithCreatedNotify())
			all, since = append(all, w), append(since, next(t, w).Header.Revision)
		}
		stop, churning := make(chan struct{}), make(chan struct{})
		churner := p.client(t)
		go func() {
			defer close(churning)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, option := range []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRange("k3")} {
					some, leave := context.WithCancel(ctx)
					w := churner.Watch(some, "k", option, clientv3.WithCreatedNotify())
					<-w
					<-w
					leave()
				}
			}
		}()
		var written [keys][]int64
		writer := p.client(t)
		for round := range rounds {
			for i := range keys {
				put := ok[*clientv3.PutResponse](t)(writer.Put(ctx, key(i), fmt.Sprint(round)))
				written[i] = append(written[i], put.Header.Revision)
			}
			// Somebody more, who begins while all this goes on.
			w := watcher.Watch(ctx, key(round%keys), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
			all, since = append(all, w), append(since, next(t, w).Header.Revision)
		}
		close(stop)
		for i := range keys {
			put := ok[*clientv3.PutResponse](t)(writer.Put(ctx, key(i), "last"))
			written[i] = append(written[i], put.Header.Revision)
		}
		for n, w := range all {
			i := n
			if n >= keys {
				i = (n - keys) % keys
			}
			var want []int64
			for _, revision := range written[i] {
				if revision > since[n] {
					want = append(want, revision)
				}
			}
			for at, e := range collect(t, w, len(want)) {
				if e.Kv.ModRevision != want[at] || string(e.Kv.Key) != key(i) {
					t.Fatalf("watcher %d of %s: %d (%s) in the place of %d", n, key(i), e.Kv.ModRevision, e.Kv.Key, want[at])
				}
			}
		}
		cancel()
		<-churning
	})
}

// What a watch stream is told of watches that begin, end or are refused, says where the store is, also where nobody
// has watched anything for long, or ever.
func TestGrpcProxyWatchAnswersSayWhereTheStoreIs(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	p := startGrpcProxy(t, "--endpoints", s.Endpoint())
	direct := newClient(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	write := func() (revision int64) {
		for range 10 {
			revision = ok[*clientv3.PutResponse](t)(direct.Put(ctx, "elsewhere", "")).Header.Revision
		}
		return revision
	}
	ask := func(token string) (func(*pb.WatchRequest), func() *pb.WatchResponse) {
		stream := ok[pb.Watch_WatchClient](t)(pb.NewWatchClient(dialAt(t, p.addr)).Watch(metadata.AppendToOutgoingContext(ctx, "token", token)))
		return func(r *pb.WatchRequest) { fine(t, stream.Send(r)) }, func() *pb.WatchResponse {
			return ok[*pb.WatchResponse](t)(stream.Recv())
		}
	}
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}
	is := func(what string, r *pb.WatchResponse, revision int64) {
		t.Helper()
		if r.GetHeader().GetRevision() != revision {
			t.Errorf("%s at %d: %v", what, revision, r)
		}
	}
	send, answer := ask("")
	revision := write()
	send(create)
	is("created", answer(), revision)
	revision = write()
	send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{}}})
	is("cancelled", answer(), revision)
	revision = write()
	direct.RoleAdd(ctx, "root")
	ok[*clientv3.AuthUserAddResponse](t)(direct.UserAdd(ctx, "root", "r"))
	ok[*clientv3.AuthUserGrantRoleResponse](t)(direct.UserGrantRole(ctx, "root", "root"))
	ok[*clientv3.AuthEnableResponse](t)(direct.AuthEnable(ctx))
	for _, token := range []string{"", "nonsense"} {
		send, answer := ask(token)
		send(create)
		refused := answer()
		if !refused.Canceled || !refused.Created || refused.CancelReason == "" {
			t.Errorf("not refused: %v", refused)
		}
		is("refused", refused, revision)
	}
}

// A server that is stopped takes requests and says nothing. One after the other they are, for so long that the proxy
// finds out, which takes seconds; a single one for a moment, too. No event is lost, doubled or out of order, leases
// live on, and who asks is answered by another member or hears that its own time is up.
func TestGrpcProxyPausedServers(t *testing.T) {
	t.Parallel()
	behindProxy(t, func(t *testing.T, endpoints string, servers []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		c := p.client(t)
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		defer cancel()
		var all []clientv3.WatchChan
		for range 3 {
			w := p.client(t).Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
			next(t, w)
			all = append(all, w)
		}
		lease := ok[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, 30))
		ok[*clientv3.PutResponse](t)(c.Put(ctx, "leased", "", clientv3.WithLease(lease.ID)))
		alive := ok[<-chan *clientv3.LeaseKeepAliveResponse](t)(c.KeepAlive(ctx, lease.ID))
		<-alive
		written := 0
		// A put whose fate is unknown may have happened: each has a key of its own.
		put := func() error {
			written++
			short, leave := context.WithTimeout(ctx, time.Second)
			defer leave()
			_, err := c.Put(short, fmt.Sprintf("k%04d", written), "v")
			if err != nil && !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.Unavailable {
				t.Fatalf("a put ends with %v", err)
			}
			return err
		}
		puts := func(n int) {
			for n > 0 {
				if put() == nil {
					n--
				}
				fine(t, ctx.Err())
			}
		}
		alone := len(servers) == 1
		if alone {
			servers = append(servers, servers[0])
		}
		for turn, s := range servers {
			puts(10)
			fine(t, s.cmd.Process.Signal(syscall.SIGSTOP))
			if alone {
				// What was under way when it was stopped may still be answered.
				for put() == nil {
				}
				if turn > 0 {
					p.await(t, "no connection to an endpoint")
				}
			} else {
				puts(20)
				ok[*clientv3.GetResponse](t)(c.Get(ctx, "k", clientv3.WithPrefix()))
			}
			fine(t, s.cmd.Process.Signal(syscall.SIGCONT))
			puts(10)
		}
		got := ok[*clientv3.GetResponse](t)(c.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend)))
		for _, w := range all {
			for i, e := range collect(t, w, len(got.Kvs)) {
				if e.Kv.ModRevision != got.Kvs[i].ModRevision || string(e.Kv.Key) != string(got.Kvs[i].Key) {
					t.Fatalf("event %d is %d (%s) instead of %d", i, e.Kv.ModRevision, e.Kv.Key, got.Kvs[i].ModRevision)
				}
			}
		}
		if r := ok[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, lease.ID)); r.TTL <= 0 {
			t.Fatal("a lease that was kept alive has run out")
		}
		for n := len(alive); n >= 0; n-- {
			if answer, open := <-alive; !open || answer.TTL <= 0 {
				t.Fatalf("a renewal: %v", answer)
			}
		}
	})
}
