package interop

// The gRPC proxy before etch and before the real etcd: what it adds of its own.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

const proxyReady = "started gRPC proxy"

func startGrpcProxy(t testing.TB, flags ...string) *frontend {
	t.Helper()
	return startFrontend(t, "etch", proxyReady, append([]string{"grpc-proxy", "start"}, flags...)...)
}

// behindProxy runs a test before a single etch and before three real etcds. What
// happens to the servers, happens to the first of them.
func behindProxy(t *testing.T, test func(t *testing.T, endpoints string, servers []*Server)) {
	t.Run("etch", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, "etch")
		test(t, s.Endpoint(), []*Server{s})
	})
	t.Run("etcds", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, "etcd", 3, 2*time.Second)
		var list []string
		for _, s := range w.members {
			list = append(list, s.Endpoint())
		}
		test(t, strings.Join(list, ","), w.members)
	})
}

func TestGrpcProxyCarriesClients(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		if out := p.ctl(t, "put", "k", "v"); out != "OK\n" {
			t.Fatal(out)
		}
		if out := p.ctl(t, "get", "k"); out != "k\nv\n" {
			t.Fatal(out)
		}
		if out := p.ctl(t, "member", "list"); !strings.Contains(out, "127.0.0.1:23790") {
			t.Fatal(out)
		}
		for _, page := range []string{"/health", "/proxy/health"} {
			code, text := httpGet(t, "http://"+p.addr+page)
			if code != 200 || text != `{"health":"true","reason":""}` {
				t.Fatalf("%s: %d %s", page, code, text)
			}
		}
		if _, text := httpGet(t, "http://"+p.addr+"/metrics"); !strings.Contains(text, "etcd_server_has_leader 1") {
			t.Fatal(text)
		}
		p.cmd.Process.Signal(syscall.SIGTERM)
		p.await(t, "stop listening gRPC proxy client requests")
		if err := p.cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

func httpGet(t testing.TB, url string) (int, string) {
	t.Helper()
	response := ok[*http.Response](t)(http.Get(url))
	defer response.Body.Close()
	return response.StatusCode, string(ok[[]byte](t)(io.ReadAll(response.Body)))
}

// metric is a value of the proxy's own.
func (f *frontend) metric(t testing.TB, name string) string {
	t.Helper()
	_, text := httpGet(t, "http://"+f.addr+"/proxy/metrics")
	for _, line := range strings.Split(text, "\n") {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return value
		}
	}
	t.Fatalf("no %s in\n%s", name, text)
	return ""
}

// awaitMetric waits until a value of the proxy's own is what it should be.
func (f *frontend) awaitMetric(t testing.TB, name, want string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for f.metric(t, name) != want {
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, not %s", name, f.metric(t, name), want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Many watchers of a key cost the cluster one, each gets each event once, and
// one that begins later begins where the store is.
func TestGrpcProxyWatchersShare(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		c := p.client(t)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		const watchers = 200
		var all []clientv3.WatchChan
		for range watchers {
			all = append(all, c.Watch(ctx, "k", clientv3.WithCreatedNotify()))
		}
		for _, w := range all {
			next(t, w)
		}
		p.awaitMetric(t, "etch_grpc_proxy_upstream_watches", "1")
		var revision int64
		for i := range 20 {
			revision = ok[*clientv3.PutResponse](t)(c.Put(ctx, "k", fmt.Sprint(i))).Header.Revision
		}
		late := c.Watch(ctx, "k", clientv3.WithCreatedNotify())
		if created := next(t, late); created.Header.Revision < revision {
			t.Fatalf("created at %d, before %d", created.Header.Revision, revision)
		}
		ok[*clientv3.PutResponse](t)(c.Put(ctx, "k", "last"))
		for _, w := range all {
			for i, e := range collect(t, w, 21) {
				if want := revision - 19 + int64(i); e.Kv.ModRevision != want {
					t.Fatalf("%d instead of %d", e.Kv.ModRevision, want)
				}
			}
		}
		if events := collect(t, late, 1); string(events[0].Kv.Value) != "last" {
			t.Fatalf("from the past: %v", events[0])
		}
		past := c.Watch(ctx, "k", clientv3.WithRev(revision-19))
		if events := collect(t, past, 21); string(events[0].Kv.Value) != "0" {
			t.Fatalf("history begins with %v", events[0])
		}
		p.awaitMetric(t, "etch_grpc_proxy_upstream_watches", "1")
	})
}

// Servers are killed under a watch, one after the other: no event is lost,
// doubled or out of order.
func TestGrpcProxyWatchOutlivesServers(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, servers []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		c := p.client(t)
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		defer cancel()
		var all []clientv3.WatchChan
		for range 10 {
			all = append(all, c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify()))
		}
		for _, w := range all {
			next(t, w)
		}
		const puts = 300
		var revisions []int64
		for i := range puts {
			if i%100 == 50 {
				servers[i/100%len(servers)].Restart(t, syscall.SIGKILL)
			}
			for {
				// A put whose fate is unknown may have happened: each has a key of its own.
				_, err := c.Put(ctx, fmt.Sprintf("k%d", i), "v")
				if err == nil {
					break
				}
				if ctx.Err() != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		got := ok[*clientv3.GetResponse](t)(c.Get(ctx, "k", append(clientv3.WithLastRev(), clientv3.WithPrefix())...))
		last := got.Kvs[0].ModRevision
		for n, w := range all {
			var seen []int64
			for len(seen) == 0 || seen[len(seen)-1] < last {
				r := next(t, w)
				fine(t, r.Err())
				for _, e := range r.Events {
					if len(seen) > 0 && e.Kv.ModRevision <= seen[len(seen)-1] {
						t.Fatalf("%d after %d", e.Kv.ModRevision, seen[len(seen)-1])
					}
					seen = append(seen, e.Kv.ModRevision)
				}
			}
			if len(seen) < puts {
				t.Fatalf("%d events of %d", len(seen), puts)
			}
			if n == 0 {
				revisions = seen
			} else if fmt.Sprint(seen) != fmt.Sprint(revisions) {
				t.Fatalf("two watchers saw different events:\n%v\n%v", revisions, seen)
			}
		}
	})
}

// Who does not read its watch costs nobody else, and misses nothing.
func TestGrpcProxySlowReader(t *testing.T) {
	s := startServer(t, "etch")
	p := startGrpcProxy(t, "--endpoints", s.Endpoint())
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	conn := ok[*grpc.ClientConn](t)(grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16)))
	defer conn.Close()
	slow := ok[pb.Watch_WatchClient](t)(pb.NewWatchClient(conn).Watch(ctx))
	create := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	fine(t, slow.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
	ok[*pb.WatchResponse](t)(slow.Recv())
	c := p.client(t)
	quick := c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	next(t, quick)
	const puts = 400
	value := strings.Repeat("x", 64<<10)
	for i := range puts {
		ok[*clientv3.PutResponse](t)(c.Put(ctx, fmt.Sprintf("k%d", i), value))
	}
	events := collect(t, quick, puts)
	for at := 0; at < puts; {
		r := ok[*pb.WatchResponse](t)(slow.Recv())
		for _, e := range r.Events {
			if e.Kv.ModRevision != events[at].Kv.ModRevision {
				t.Fatalf("event %d is %d instead of %d", at, e.Kv.ModRevision, events[at].Kv.ModRevision)
			}
			at++
		}
	}
}

// Renewals of many streams travel on one; a lease whose client has gone silent
// runs out in time, the others live on.
func TestGrpcProxyLeases(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, servers []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		kept, silent := p.client(t), p.client(t)
		lease := ok[*clientv3.LeaseGrantResponse](t)(kept.Grant(ctx, 30))
		for range 5 {
			c := p.client(t)
			alive := ok[<-chan *clientv3.LeaseKeepAliveResponse](t)(c.KeepAlive(ctx, lease.ID))
			if answer := <-alive; answer == nil || answer.TTL != lease.TTL {
				t.Fatal(answer)
			}
		}
		if n := p.metric(t, "etch_grpc_proxy_upstream_keepalive_streams"); n != "1" {
			t.Fatalf("%s streams", n)
		}
		other := ok[*clientv3.LeaseGrantResponse](t)(silent.Grant(ctx, 5))
		quiet, hush := context.WithCancel(ctx)
		alive := ok[<-chan *clientv3.LeaseKeepAliveResponse](t)(silent.KeepAlive(quiet, other.ID))
		<-alive
		ok[*clientv3.PutResponse](t)(kept.Put(ctx, "kept", "", clientv3.WithLease(lease.ID)))
		ok[*clientv3.PutResponse](t)(kept.Put(ctx, "silent", "", clientv3.WithLease(other.ID)))
		gone := kept.Watch(ctx, "silent", clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
		next(t, gone)
		hush()
		collect(t, gone, 1)
		if got := ok[*clientv3.GetResponse](t)(kept.Get(ctx, "kept")); got.Count != 1 {
			t.Fatal("a lease that was kept alive has run out")
		}
	})
}

// Each client is asked for with its own token, also where a watch is shared.
func TestGrpcProxyAsksAsTheClient(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints)
		for _, words := range []string{
			"user add root:rpw", "user grant-role root root", "user add ann:apw", "user add bob:bpw",
			"role add r", "role grant-permission r readwrite k", "user grant-role ann r", "auth enable",
		} {
			p.ctl(t, strings.Fields(words)...)
		}
		as := func(user, password string) *clientv3.Client {
			c := ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{
				Endpoints: []string{p.addr}, DialTimeout: patience, Username: user, Password: password,
			}))
			t.Cleanup(func() { c.Close() })
			return c
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ann, bob := as("ann", "apw"), as("bob", "bpw")
		w := ann.Watch(ctx, "k", clientv3.WithCreatedNotify())
		next(t, w)
		refused := <-bob.Watch(ctx, "k")
		if err := refused.Err(); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Fatalf("bob watches: %v", err)
		}
		ok[*clientv3.PutResponse](t)(ann.Put(ctx, "k", "v"))
		collect(t, w, 1)
		for range 3 {
			for _, option := range [][]clientv3.OpOption{nil, {clientv3.WithSerializable()}} {
				ok[*clientv3.GetResponse](t)(ann.Get(ctx, "k", option...))
				if _, err := bob.Get(ctx, "k", option...); err == nil || !strings.Contains(err.Error(), "permission denied") {
					t.Fatalf("bob reads: %v", err)
				}
			}
		}
		bare := metadata.NewOutgoingContext(ctx, metadata.Pairs("token", "nonsense"))
		conn := ok[*grpc.ClientConn](t)(grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials())))
		defer conn.Close()
		if _, err := pb.NewKVClient(conn).Range(bare, &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err == nil {
			t.Fatal("a wrong token reads")
		}
	})
}

// All that a client of a namespace says and sees is within it.
func TestGrpcProxyNamespace(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, servers []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints, "--namespace", "ns/")
		direct := ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{Endpoints: []string{servers[0].Endpoint()}}))
		defer direct.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, key := range []string{"ns", "ns0", "other", "\x00"} {
			ok[*clientv3.PutResponse](t)(direct.Put(ctx, key, "outside"))
		}
		c := p.client(t)
		w := c.Watch(ctx, "", clientv3.WithFromKey(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
		next(t, w)
		ok[*clientv3.PutResponse](t)(c.Put(ctx, "k", "v"))
		ok[*clientv3.PutResponse](t)(direct.Put(ctx, "other", "again"))
		got := ok[*clientv3.GetResponse](t)(direct.Get(ctx, "ns/k"))
		if got.Count != 1 || string(got.Kvs[0].Value) != "v" {
			t.Fatal("not under its prefix")
		}
		txn := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "v")).
			Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("k", "w"), clientv3.OpPut("l", "x")}, nil))
		if !ok[*clientv3.TxnResponse](t)(txn.Commit()).Succeeded {
			t.Fatal("a comparison looked elsewhere")
		}
		var events []string
		for _, e := range collect(t, w, 3) {
			events = append(events, fmt.Sprintf("%s=%s", e.Kv.Key, e.Kv.Value))
		}
		if fmt.Sprint(events) != "[k=v k=w l=x]" {
			t.Fatal(events)
		}
		for _, option := range []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithPrefix()} {
			got := ok[*clientv3.GetResponse](t)(c.Get(ctx, "", option))
			if got.Count != 2 || string(got.Kvs[0].Key) != "k" {
				t.Fatal(got)
			}
		}
		lease := ok[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, 60))
		ok[*clientv3.PutResponse](t)(c.Put(ctx, "leased", "", clientv3.WithLease(lease.ID)))
		ok[*clientv3.PutResponse](t)(direct.Put(ctx, "other", "", clientv3.WithLease(lease.ID)))
		ttl := ok[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()))
		if len(ttl.Keys) != 1 || string(ttl.Keys[0]) != "leased" {
			t.Fatalf("%q", ttl.Keys)
		}
		if out := p.ctl(t, "lock", "m", "echo", "held"); !strings.Contains(out, "held") {
			t.Fatal(out)
		}
		session := ok[*concurrency.Session](t)(concurrency.NewSession(c, concurrency.WithTTL(60)))
		fine(t, concurrency.NewElection(session, "e").Campaign(ctx, "me"))
		if got := ok[*clientv3.GetResponse](t)(direct.Get(ctx, "ns/e/", clientv3.WithPrefix())); got.Count != 1 {
			t.Fatal("an election outside")
		}
		ok[*clientv3.DeleteResponse](t)(c.Delete(ctx, "", clientv3.WithFromKey()))
		if got := ok[*clientv3.GetResponse](t)(direct.Get(ctx, "\x00", clientv3.WithFromKey())); got.Count != 4 {
			t.Fatalf("%d keys are left outside", got.Count)
		}
	})
}

// Proxies that register are the members that clients see.
func TestGrpcProxiesRegister(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		start := func() *frontend {
			f := &frontend{log: &Log{waits: map[string]chan struct{}{}}, addr: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
			f.cmd = exec.Command(programs["etch"], "grpc-proxy", "start", "--endpoints", endpoints, "--listen-addr", f.addr,
				"--advertise-client-url", f.addr, "--resolver-prefix", "proxies", "--resolver-ttl", "10")
			f.cmd.Stdout, f.cmd.Stderr = f.log, f.log
			fine(t, f.cmd.Start())
			t.Cleanup(func() { f.cmd.Process.Kill(); f.cmd.Wait() })
			f.await(t, "registered session with lease")
			return f
		}
		one, two := start(), start()
		seen := func(list ...*frontend) func() bool {
			return func() bool {
				out := one.ctl(t, "member", "list", "-w", "table")
				for _, f := range []*frontend{one, two} {
					want := bytes.Contains([]byte(out), []byte(" "+f.addr+" "))
					has := false
					for _, g := range list {
						has = has || g == f
					}
					if want != has {
						return false
					}
				}
				return true
			}
		}
		eventually(t, "both are listed", seen(one, two))
		c := one.client(t)
		eventually(t, "a client finds both", func() bool {
			return c.Sync(context.Background()) == nil && len(c.Endpoints()) == 2
		})
		fine(t, two.cmd.Process.Kill())
		eventually(t, "one that is gone is not listed", seen(one))
	})
}

func eventually(t testing.TB, what string, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !come(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// The command line refuses what etcd refuses, in its words.
func TestGrpcProxyCommandLineBesideEtcds(t *testing.T) {
	for _, words := range [][]string{
		{"--resolver-ttl", "5"}, {"--resolver-prefix", "p"}, {"--resolver-prefix", "p", "--resolver-ttl", "5", "--advertise-client-url", ""},
		{"--tls-min-version", "TLS1.1"}, {"--tls-max-version", "x"}, {"--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"},
		{"--tls-min-version", "TLS1.3", "--listen-cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
		{"--auto-tls", "--self-signed-cert-validity", "0"}, {"--max-concurrent-streams", "4294967296"}, {"--nonsense"},
	} {
		words = append([]string{"grpc-proxy", "start"}, words...)
		if a, b := spoken(t, "etcd", words...), spoken(t, "etch", words...); a != b && !strings.Contains(a, "unknown flag") && !strings.Contains(a, "invalid argument") {
			t.Errorf("%v:\netcd: %s\netch: %s", words, a, b)
		}
	}
}
