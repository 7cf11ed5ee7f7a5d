package interop

// The gRPC proxy for those who do not speak gRPC: calls in JSON through it, and
// its pages wherever they are served. The tables of JSON run through it as well
// (TestFrontendsCarryTests).

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A call in JSON goes the way of all calls: what it names is in the namespace,
// and it is asked with its client's own token.
func TestGrpcProxyJSON(t *testing.T) {
	behindProxy(t, func(t *testing.T, endpoints string, servers []*Server) {
		p := startGrpcProxy(t, "--endpoints", endpoints, "--namespace", "ns/")
		side := &Side{Server: &Server{front: p}, vars: map[string]int64{}}
		says := func(path, body, want string, headers ...string) {
			t.Helper()
			if got := side.ask("POST", path, body, headers...); !strings.Contains(got, want) {
				t.Fatalf("%s %s: %s, and not %s", path, body, got, want)
			}
		}
		direct := ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{Endpoints: []string{servers[0].Endpoint()}}))
		defer direct.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ok[*clientv3.PutResponse](t)(direct.Put(ctx, "outside", "x"))

		r := ok[*http.Response](t)(http.Post("http://"+p.addr+"/v3/watch", "", strings.NewReader(`{"create_request":{"key":"AA==","range_end":"AA=="}}`)))
		defer r.Body.Close()
		lines := bufio.NewScanner(r.Body)
		next := func() string {
			if !lines.Scan() {
				t.Fatalf("the watch has ended: %v", lines.Err())
			}
			return lines.Text()
		}
		if line := next(); !strings.Contains(line, `"created":true`) {
			t.Fatal(line)
		}
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+p.addr+"/v3/watch", nil)
		fine(t, err)
		defer ws.Close()
		fine(t, ws.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"`+b64("k")+`"}}`)))
		_, _, err = ws.ReadMessage()
		fine(t, err)

		says("/v3/kv/put", `{"key":"`+b64("k")+`","value":"`+b64("v")+`"}`, `"revision"`)
		if got := ok[*clientv3.GetResponse](t)(direct.Get(ctx, "ns/k")); got.Count != 1 {
			t.Fatal("not under its prefix")
		}
		event := `"key":"` + b64("k") + `"`
		if line := next(); !strings.Contains(line, event) {
			t.Fatal(line)
		}
		if _, text, err := ws.ReadMessage(); err != nil || !strings.Contains(string(text), event) {
			t.Fatalf("%s %v", text, err)
		}
		says("/v3/kv/range", `{"key":"AA==","range_end":"AA=="}`, `"count":"1"`)
		says("/v3/kv/range", `{"key":"`+b64("outside")+`"}`, "200 {\"header\"")
		says("/v3beta/kv/range", `{"key":"`+b64("k")+`"}`, `"value":"`+b64("v")+`"`)
		says("/v3/maintenance/snapshot", `{}`, "403")
		says("/v3/kv/nothing", `{}`, `404 {"code":5`)
		says("/v3/kv/put", `{"key":5}`, `400 {"code":3`)
		if _, text := httpGet(t, "http://"+p.addr+"/openapi.json"); !strings.Contains(text, `"/v3/kv/range"`) {
			t.Fatalf("%.300s", text)
		}

		for _, row := range [][2]string{
			{"/v3/auth/user/add", `{"name":"root","password":"secret"}`}, {"/v3/auth/user/grant", `{"user":"root","role":"root"}`},
			{"/v3/auth/user/add", `{"name":"ann","password":"ann"}`}, {"/v3/auth/role/add", `{"name":"a"}`},
			{"/v3/auth/role/grant", `{"name":"a","perm":{"permType":"READ","key":"` + b64("ns/k") + `"}}`},
			{"/v3/auth/user/grant", `{"user":"ann","role":"a"}`}, {"/v3/auth/enable", `{}`},
		} {
			says(row[0], row[1], "200 ")
		}
		token := side.jsonToken("ann", "ann")
		says("/v3/kv/range", `{"key":"`+b64("k")+`"}`, `"value":"`+b64("v")+`"`, "Authorization", token)
		says("/v3/kv/put", `{"key":"`+b64("k")+`"}`, "permission denied", "Authorization", token)
		says("/v3/kv/range", `{"key":"`+b64("k")+`"}`, "user name is empty")
		says("/v3/kv/range", `{"key":"`+b64("k")+`"}`, "invalid auth token", "Authorization", "nonsense.1")
	})
}

// Streams in JSON end with the proxy, and do not hold it up.
func TestGrpcProxyJSONEndsWithTheProxy(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	p := startGrpcProxy(t, "--endpoints", s.Endpoint())
	r := ok[*http.Response](t)(http.Post("http://"+p.addr+"/v3/watch", "", strings.NewReader(`{"create_request":{"key":"YQ=="}}`)))
	defer r.Body.Close()
	p.cmd.Process.Signal(syscall.SIGTERM)
	text, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(text), `"created":true`) {
		t.Fatalf("%s %v", text, err)
	}
	fine(t, p.cmd.Wait())
}

// The pages on a port of their own: plain, over TLS, and on a Unix socket.
// Nothing else is answered there.
func TestGrpcProxyMetricsAddr(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	a := newAuthority(t, "one")
	own := a.sign(t, "own", nil)
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	for name, url := range map[string]string{
		"plain": "http://" + port(), "secured": "https://" + port(), "unix": "unix://" + socket, "named": "unix://name.sock",
	} {
		t.Run(name, func(t *testing.T) {
			flags := []string{"--endpoints", s.Endpoint(), "--metrics-addr", url}
			if name == "secured" {
				flags = append(flags, "--cert-file", own.cert, "--key-file", own.key)
			}
			p := startGrpcProxy(t, flags...)
			file := socket
			if name == "named" {
				file = filepath.Join(p.cmd.Dir, "name.sock")
			}
			base := url
			transport := &http.Transport{TLSClientConfig: a.tlsConfig(t, identity{})}
			if strings.HasPrefix(url, "unix") {
				base = "http://socket"
				transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "unix", file)
				}
			}
			c := &http.Client{Transport: transport, Timeout: patience}
			defer c.CloseIdleConnections()
			get := func(path string) (int, string) {
				r := ok[*http.Response](t)(c.Get(base + path))
				defer r.Body.Close()
				return r.StatusCode, string(ok[[]byte](t)(io.ReadAll(r.Body)))
			}
			for path, want := range map[string]string{
				"/metrics": "etcd_server_has_leader 1", "/proxy/metrics": "etcd_grpc_proxy_cache_hits_total 0",
				"/health": `"health":"true"`, "/v3/kv/range": "404 page not found", "/openapi.json": "404 page not found",
			} {
				if _, text := get(path); !strings.Contains(text, want) {
					t.Errorf("%s: %.200s", path, text)
				}
			}
			c.CloseIdleConnections()
			p.cmd.Process.Signal(syscall.SIGTERM)
			fine(t, p.cmd.Wait())
			if _, err := os.Stat(file); err == nil {
				t.Error("the socket is left behind")
			}
		})
	}
	if text := spoken(t, "etch", "grpc-proxy", "start", "--listen-addr", port(), "--metrics-addr", "https://"+port()); !strings.Contains(text, "KeyFile and CertFile are not presented") {
		t.Error(text)
	}
}

// What etcd's proxy counts, ours counts under the same names.
func TestGrpcProxyMetricsAreNamedAsEtcds(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	called := func(program string) *frontend {
		p := startFrontend(t, program, proxyReady, "grpc-proxy", "start", "--endpoints", s.Endpoint())
		c := p.client(t)
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		w := c.Watch(ctx, "k", clientv3.WithCreatedNotify())
		next(t, w)
		ok[*clientv3.PutResponse](t)(c.Put(ctx, "k", "v"))
		next(t, w)
		ok[*clientv3.GetResponse](t)(c.Get(ctx, "k"))
		return p
	}
	families := func(p *frontend) map[string]bool {
		_, text := httpGet(t, "http://"+p.addr+"/proxy/metrics")
		found := map[string]bool{}
		for _, line := range strings.Split(text, "\n") {
			name, value, _ := strings.Cut(line, " ")
			switch {
			case strings.HasPrefix(line, "grpc_server_msg_sent") && strings.Contains(line, "stream"):
				// etcd's sends a watcher more messages than have anything to say.
				found[name] = true
			case strings.HasPrefix(line, "grpc_server_"):
				// With its value: the calls were the same.
				found[name+" "+value] = true
			case strings.HasPrefix(line, "etcd_grpc_proxy_"), strings.HasPrefix(line, "process_"), strings.HasPrefix(line, "os_fd_"):
				found[name] = true
			}
		}
		// What the kernel does not tell of one process alone, and what nobody reads.
		for _, name := range []string{"process_network_receive_bytes_total", "process_network_transmit_bytes_total", "process_virtual_memory_max_bytes"} {
			delete(found, name)
		}
		return found
	}
	theirs, ours := called("etcd"), called("etch")
	// A message is counted when it is sent, which may be after it was read.
	deadline := time.Now().Add(patience)
	for {
		want, got := families(theirs), families(ours)
		if maps.Equal(want, got) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("etcd's:\n%v\nours:\n%v", slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A watch that demands a leader ends when there is none any more, through the
// proxy as without it; one that does not, goes on.
func TestGrpcProxyRequireLeader(t *testing.T) {
	ends := func(t *testing.T, p *frontend, lose func(*clientv3.Client)) (*clientv3.Client, clientv3.WatchChan) {
		c := p.client(t)
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		t.Cleanup(cancel)
		demanding := c.Watch(clientv3.WithRequireLeader(ctx), "k", clientv3.WithCreatedNotify())
		content := c.Watch(ctx, "k", clientv3.WithCreatedNotify())
		next(t, demanding)
		next(t, content)
		lose(c)
		var last error
		for r := range demanding {
			last = r.Err()
		}
		if ctx.Err() != nil || last == nil || !strings.Contains(last.Error(), "no leader") {
			t.Fatalf("it ended with %v", last)
		}
		return c, content
	}
	t.Run("etcds", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, "etcd", 3, time.Second)
		p := startGrpcProxy(t, "--endpoints", w.members[0].Endpoint())
		c, content := ends(t, p, func(*clientv3.Client) {
			for _, s := range w.members[1:] {
				s.Stop(t, syscall.SIGKILL)
			}
		})
		for _, s := range w.members[1:] {
			s.Launch(t)
		}
		eventually(t, "a put", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, err := c.Put(ctx, "k", "v")
			return err == nil
		})
		if events := collect(t, content, 1); string(events[0].Kv.Value) != "v" {
			t.Fatal(events[0])
		}
	})
	t.Run("etch", func(t *testing.T) {
		t.Parallel()
		p := startGrpcProxy(t, "--endpoints", startServer(t, "etch").Endpoint())
		// A second voter that never comes takes the majority away.
		ends(t, p, func(c *clientv3.Client) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			// Its answer may not come any more.
			c.MemberAdd(ctx, []string{"http://127.0.0.1:1"})
		})
	})
}
