package interop

// The gRPC proxy's edges: answers from memory beside writes that go past it,
// the layers of reads that are still an experiment, endpoints that come and go,
// and TLS on both sides.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A serializable read is answered from memory until anybody writes its keys,
// past this proxy too; a linearizable one never is.
func TestGrpcProxyAnswersFromMemory(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		near := startGrpcProxy(t, "--endpoints", endpoints)
		far := startGrpcProxy(t, "--endpoints", endpoints)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, other := near.client(t), far.client(t)
		read := func(options ...clientv3.OpOption) string {
			got := ok[*clientv3.GetResponse](t)(c.Get(ctx, "k", append(options, clientv3.WithSerializable())...))
			if len(got.Kvs) == 0 {
				return ""
			}
			return string(got.Kvs[0].Value)
		}
		for i := range 5 {
			value := fmt.Sprint(i)
			ok[*clientv3.PutResponse](t)(other.Put(ctx, "k", value))
			if got := ok[*clientv3.GetResponse](t)(c.Get(ctx, "k")); string(got.Kvs[0].Value) != value {
				t.Fatalf("a linearizable read has %s instead of %s", got.Kvs[0].Value, value)
			}
			eventually(t, "what was written past the proxy", func() bool { return read() == value })
			eventually(t, "the same in a range", func() bool { return read(clientv3.WithPrefix()) == value })
		}
		eventually(t, "an answer from memory", func() bool {
			read()
			return near.metric(t, "etcd_grpc_proxy_cache_hits_total") != "0"
		})
		if near.metric(t, "etcd_grpc_proxy_cache_misses_total") == "0" {
			t.Fatal("nothing was asked for")
		}
		// Before a single server nobody is behind: who writes here reads it here.
		if !strings.Contains(endpoints, ",") {
			for i := range 50 {
				value := fmt.Sprint("here", i)
				read()
				ok[*clientv3.PutResponse](t)(c.Put(ctx, "k", value))
				if got := read(); got != value {
					t.Fatalf("%s instead of %s", got, value)
				}
			}
		}
		ok[*clientv3.DeleteResponse](t)(other.Delete(ctx, "k"))
		eventually(t, "that it is gone", func() bool { return read() == "" })
	})
}

// What is kept under a lease prefix stays true beside writers with the same
// prefix, and reads in order never go back.
func TestGrpcProxyLayers(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, _ []*Server) {
		flags := []string{"--endpoints", endpoints, "--namespace", "ns/", "--experimental-leasing-prefix", "leases/", "--experimental-serializable-ordering"}
		one, two := startGrpcProxy(t, flags...).client(t), startGrpcProxy(t, flags...).client(t)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var last int64
		for i := range 20 {
			value := fmt.Sprint(i)
			ok[*clientv3.PutResponse](t)(one.Put(ctx, "k", value))
			for _, c := range []*clientv3.Client{two, one, two} {
				got := ok[*clientv3.GetResponse](t)(c.Get(ctx, "k"))
				if len(got.Kvs) != 1 || string(got.Kvs[0].Key) != "k" || string(got.Kvs[0].Value) != value {
					t.Fatalf("%v instead of %s", got.Kvs, value)
				}
			}
			got := ok[*clientv3.GetResponse](t)(one.Get(ctx, "other", clientv3.WithSerializable()))
			if got.Header.Revision < last {
				t.Fatalf("revision %d after %d", got.Header.Revision, last)
			}
			last = got.Header.Revision
		}
		deleted := one.Txn(ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "19")).Then(clientv3.OpDelete("k"))
		if !ok[*clientv3.TxnResponse](t)(deleted.Commit()).Succeeded {
			t.Fatal("the comparison looked elsewhere")
		}
		if got := ok[*clientv3.GetResponse](t)(two.Get(ctx, "k")); got.Count != 0 {
			t.Fatal("a deleted key is still there")
		}
	})
}

// Endpoints are those of the cluster's members, once it was asked for them.
func TestGrpcProxyFollowsTheMembers(t *testing.T) {
	t.Parallel()
	// Behind another proxy's address, which the members do not advertise.
	s := newServer(t, "etcd")
	s.Args = []string{"--advertise-client-urls=http://" + s.Endpoint()}
	s.Start(t)
	detour := startGateway(t, s.Endpoint())
	p := startGrpcProxy(t, "--endpoints", detour.addr, "--endpoints-auto-sync-interval", "100ms")
	p.await(t, `"connected with an endpoint","address":"`+detour.addr)
	p.await(t, `"connected with an endpoint","address":"`+s.Endpoint())
	detour.cmd.Process.Signal(syscall.SIGKILL)
	if out := p.ctl(t, "put", "k", "v"); out != "OK\n" {
		t.Fatal(out)
	}
}

// Plain clients before a cluster that demands certificates; clients that must
// show one themselves; a certificate of the proxy's own making.
func TestGrpcProxyTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "one")
	nameless := a.sign(t, "nameless", func(c *x509.Certificate) { c.Subject.CommonName = "" })
	for _, program := range []string{"etch", "etcd"} {
		s := secureServer(t, program, a.mutual(a.sign(t, "server", nil))...)
		s.Start(t)
		up := []string{"--endpoints", "https://" + s.Endpoint(), "--cacert", a.file, "--cert", nameless.cert, "--key", nameless.key}
		p := startGrpcProxy(t, up...)
		if out := p.ctl(t, "put", "k", "v"); out != "OK\n" {
			t.Fatal(out)
		}
		if _, text := httpGet(t, "http://"+p.addr+"/metrics"); !strings.Contains(text, "etcd_server_has_leader 1") {
			t.Fatal(text)
		}
		revoked := a.sign(t, "revoked", nil)
		listening := a.sign(t, "listening", nil)
		secured := startGrpcProxy(t, append(up, "--cert-file", listening.cert, "--key-file", listening.key, "--trusted-ca-file", a.file,
			"--client-crl-file", a.revoke(t, revoked.serial), "--tls-min-version", "TLS1.3")...)
		get := func(config *tls.Config) error {
			c := ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{
				Endpoints: []string{"https://" + secured.addr}, Logger: zap.NewNop(), TLS: config,
			}))
			defer c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience/20)
			defer cancel()
			_, err := c.Get(ctx, "k")
			return err
		}
		eventually(t, "a client with a certificate", func() bool { return get(a.tlsConfig(t, a.sign(t, "client", nil))) == nil })
		old := a.tlsConfig(t, a.sign(t, "client", nil))
		old.MaxVersion = tls.VersionTLS12
		for name, config := range map[string]*tls.Config{
			"without a certificate": a.tlsConfig(t, identity{}), "revoked": a.tlsConfig(t, revoked), "of an old version": old,
		} {
			if get(config) == nil {
				t.Errorf("a client %s is let in", name)
			}
		}
		own := startGrpcProxy(t, append(up, "--auto-tls")...)
		trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		response := ok[*http.Response](t)(trusting.Get("https://" + own.addr + "/health"))
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Fatal(response.Status)
		}
	}
	named := a.sign(t, "named", nil)
	words := []string{"grpc-proxy", "start", "--cacert", a.file, "--cert", named.cert, "--key", named.key, "--listen-addr", fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	if x, y := spoken(t, "etcd", words...), spoken(t, "etch", words...); x != y {
		t.Errorf("etcd: %s\netch: %s", x, y)
	}
}

// Hostile clients of the proxy hurt themselves alone: others are served beside them, and its memory has bounds, in MiB.
func TestGrpcProxyHostile(t *testing.T) {
	p := startGrpcProxy(t, "--endpoints", startServer(t, "etch", "--snapshot-count=500", "--snapshot-catchup-entries=500").Endpoint())
	s := &Server{front: p, cmd: p.cmd, Log: p.log}
	attack(t, s, "floods", 40, 15, func(t *testing.T) { controlFloods(t, s) })
	attack(t, s, "headers", 60, 15, func(t *testing.T) { headerFloods(t, s) })
	attack(t, s, "oversize", 40, 15, func(t *testing.T) { oversize(t, s) })
	attack(t, s, "rapid-reset", 60, 15, func(t *testing.T) { rapidReset(t, s) })
	attack(t, s, "deaf-watchers", 400, 60, func(t *testing.T) { deafWatchers(t, s) })
}
