package interop

// The gateway before etch and before the real etcd: clients that know its
// address alone, endpoints that fail, halves of connections, TLS that passes
// untouched, and the command line beside `etcd gateway`.

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// frontend is a proxy process: `gateway` or `grpc-proxy`.
type frontend struct {
	cmd  *exec.Cmd
	log  *Log
	addr string
}

// startFrontend runs `<program> <words...>` until the test ends; it listens on
// a free port, and ready is the line that says so.
func startFrontend(t testing.TB, program, ready string, words ...string) *frontend {
	t.Helper()
	f := &frontend{log: &Log{waits: map[string]chan struct{}{}}}
	f.addr = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	f.cmd = exec.Command(programs[program], append(words, "--listen-addr", f.addr)...)
	f.cmd.Dir = t.TempDir()
	f.cmd.Stdout, f.cmd.Stderr = f.log, f.log
	fine(t, f.cmd.Start())
	t.Cleanup(func() {
		f.cmd.Process.Kill()
		f.cmd.Wait()
	})
	f.await(t, ready)
	return f
}

func startGateway(t testing.TB, endpoints ...string) *frontend {
	t.Helper()
	return startFrontend(t, "etch", "ready to proxy client requests",
		"gateway", "start", "--endpoints", strings.Join(endpoints, ","), "--retry-delay", "100ms")
}

func (f *frontend) await(t testing.TB, line string) {
	t.Helper()
	select {
	case <-f.log.Seen(line):
	case <-time.After(patience):
		t.Fatalf("never said %q:\n%s", line, f.log.String())
	}
}

func (f *frontend) client(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{f.addr}, DialTimeout: patience, Logger: zap.NewNop(),
	})
	fine(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func (f *frontend) ctl(t testing.TB, words ...string) string {
	t.Helper()
	cmd := exec.Command(programs["etcdctl"], append([]string{"--endpoints", f.addr}, words...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("etcdctl %v: %v\n%s", words, err, out)
	}
	return string(out)
}

func TestGatewayCarriesClients(t *testing.T) {
	for _, program := range []string{"etch", "etcd"} {
		t.Run(program, func(t *testing.T) {
			s := startServer(t, program)
			g := startGateway(t, "http://"+s.Endpoint())
			if out := g.ctl(t, "put", "k", "v"); out != "OK\n" {
				t.Fatal(out)
			}
			if out := g.ctl(t, "get", "k"); out != "k\nv\n" {
				t.Fatal(out)
			}
			c := g.client(t)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			w := c.Watch(ctx, "big", clientv3.WithCreatedNotify())
			next(t, w)
			value := strings.Repeat("x", 1<<20)
			ok[*clientv3.PutResponse](t)(c.Put(ctx, "big", value))
			if events := collect(t, w, 1); string(events[0].Kv.Value) != value {
				t.Fatal("the value came out changed")
			}
			got := ok[*clientv3.GetResponse](t)(c.Get(ctx, "big"))
			if string(got.Kvs[0].Value) != value {
				t.Fatal("the value came out changed")
			}
		})
	}
}

func TestGatewayGoesOnWithTheEndpointsThatAreLeft(t *testing.T) {
	one, two := startServer(t, "etch"), startServer(t, "etcd")
	g := startGateway(t, one.Endpoint(), two.Endpoint())
	reach := func(n int) {
		for range n {
			g.ctl(t, "get", "k")
		}
	}
	reach(4)
	one.Stop(t, syscall.SIGKILL)
	reach(4)
	g.await(t, fmt.Sprintf("\"deactivated endpoint\",\"address\":\"%s\",\"interval\":\"100ms\",\"error\":\"dial tcp %[1]s: connect: connection refused\"", one.Endpoint()))
	g.await(t, "failed to activate endpoint (stay inactive for another interval)")
	one.Start(t)
	g.await(t, fmt.Sprintf("\"activated\",\"address\":\"%s\"", one.Endpoint()))
	two.Stop(t, syscall.SIGKILL)
	reach(4)
}

// echo answers each connection with what it was sent once the sender is done.
func echo(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fine(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				said, _ := io.ReadAll(c)
				c.Write(said)
			}()
		}
	}()
	return l.Addr().String()
}

func TestGatewayKeepsTheOtherHalfOfAConnection(t *testing.T) {
	g := startGateway(t, echo(t))
	said := []byte(strings.Repeat("half", 1<<20))
	c, err := net.Dial("tcp", g.addr)
	fine(t, err)
	defer c.Close()
	_, err = c.Write(said)
	fine(t, err)
	fine(t, c.(*net.TCPConn).CloseWrite())
	heard, err := io.ReadAll(c)
	fine(t, err)
	if string(heard) != string(said) {
		t.Fatalf("%d bytes came back of %d", len(heard), len(said))
	}
}

func TestGatewayLetsConnectionsEndBeforeItStops(t *testing.T) {
	s := startServer(t, "etch")
	g := startGateway(t, s.Endpoint())
	c := g.client(t)
	ok[*clientv3.PutResponse](t)(c.Put(context.Background(), "k", "v"))
	idle, err := net.Dial("tcp", g.addr)
	fine(t, err)
	defer idle.Close()
	fine(t, g.cmd.Process.Signal(syscall.SIGTERM))
	idle.SetReadDeadline(time.Now().Add(patience))
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("an idle connection ended with %v", err)
	}
	if err := g.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, g.log.String())
	}
	if _, err := net.Dial("tcp", g.addr); err == nil {
		t.Fatal("still listens")
	}
}

func TestGatewayDoesNotLookIntoTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fine(t, err)
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "behind"}, DNSNames: []string{"behind"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	fine(t, err)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	fine(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	g := startGateway(t, "https://"+l.Addr().String())
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	fine(t, err)
	pool.AddCert(leaf)
	c, err := tls.Dial("tcp", g.addr, &tls.Config{RootCAs: pool, ServerName: "behind"})
	fine(t, err)
	defer c.Close()
	_, err = c.Write([]byte("hello"))
	fine(t, err)
	heard := make([]byte, 5)
	if _, err := io.ReadFull(c, heard); err != nil || string(heard) != "hello" {
		t.Fatal(err, string(heard))
	}
}

// spoken is what a start that ends by itself prints, without its log and its
// program's name, and its exit status.
func spoken(t testing.TB, program string, words ...string) string {
	t.Helper()
	cmd := exec.Command(programs[program], words...)
	cmd.Dir = t.TempDir()
	ctx := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer ctx.Stop()
	out, _ := cmd.CombinedOutput()
	var kept []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if !strings.HasPrefix(line, "{\"level\"") {
			kept = append(kept, strings.ReplaceAll(line, "  etcd ", "  etch "))
		}
	}
	text := strings.ReplaceAll(strings.Join(kept, "\n"), "\"etcd gateway", "\"etch gateway")
	return fmt.Sprintf("%s\nexit %d", text, cmd.ProcessState.ExitCode())
}

func TestGatewayCommandLineBesideEtcds(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	fine(t, err)
	defer taken.Close()
	for _, words := range []string{
		"", "start --help", "start -h", "--help", "start --foo", "start --retry-delay x",
		"start --endpoints abc", "start --endpoints a:b:c", "start --endpoints=",
		"start --listen-addr abc", "start --listen-addr nosuch.invalid:1", "start --listen-addr :23790",
		"start --endpoints 127.0.0.1:23790", "start --endpoints localhost:23790 --listen-addr 127.0.0.1:23790",
		"start --endpoints nosuch.invalid:1", "start --listen-addr " + taken.Addr().String(),
	} {
		line := append([]string{"gateway"}, strings.Fields(words)...)
		if ours, theirs := spoken(t, "etch", line...), spoken(t, "etcd", line...); ours != theirs {
			t.Errorf("gateway %s:\netch: %s\netcd: %s", words, ours, theirs)
		}
	}
}

// Each idle connection costs the gateway little: 2,000 of them tell.
func TestGatewayIdleConnectionsAreSmall(t *testing.T) {
	g := startGateway(t, echo(t))
	resident := func() int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", g.cmd.Process.Pid))
		fine(t, err)
		var kib int
		for _, line := range strings.Split(string(text), "\n") {
			fmt.Sscanf(line, "Pss_Anon: %d kB", &kib)
		}
		return kib
	}
	const count = 2000
	before := resident()
	for range count {
		c, err := net.Dial("tcp", g.addr)
		fine(t, err)
		defer c.Close()
	}
	// The last one is answered after all others were taken.
	c, err := net.Dial("tcp", g.addr)
	fine(t, err)
	defer c.Close()
	fine(t, c.(*net.TCPConn).CloseWrite())
	_, err = io.ReadAll(c)
	fine(t, err)
	each := float64(resident()-before) / count
	t.Logf("%.2f KiB for each of %d idle connections", each, count)
	if each > 8 {
		t.Fatalf("%.2f KiB for each idle connection", each)
	}
}
