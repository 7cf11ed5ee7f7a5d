package interop

// TLS on the client port, by openssl, curl, etcdctl and Go's client: who is let in, what the log says of who
// is not, files that change, and what is refused at the start, beside the real etcd.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// run runs a program with a time limit and gives what it said and whether it succeeded.
func run(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// rejections are the log's lines about connections that were not let in, each as a map.
func (s *Server) rejections(endpoint string) []map[string]any {
	var found []map[string]any
	for _, line := range strings.Split(s.Log.String(), "\n") {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == "rejected connection on "+endpoint+" endpoint" {
			found = append(found, fields)
		}
	}
	return found
}

// rejectedFor waits for a line that says why, with an address of ours.
func (s *Server) rejectedFor(t testing.TB, why string, before int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		lines := s.rejections("client")
		for _, fields := range lines[min(before, len(lines)):] {
			text, _ := fields["error"].(string)
			if from, _ := fields["remote-addr"].(string); strings.Contains(text, why) && strings.HasPrefix(from, "127.0.0.1:") {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line says %q with an address: %v", why, lines)
		}
	}
}

// Everybody who must not come in is refused, and the log says why: on etcd as on etch.
func TestTLSRefusals(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t, "ours"), newAuthority(t, "theirs")
	server := ca.sign(t, "server", nil)
	good := ca.sign(t, "ann", func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "ann.example") })
	revoked := ca.sign(t, "revoked", func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "ann.example") })
	expired := ca.sign(t, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	nameless := ca.sign(t, "nameless", nil)
	foreign := stranger.sign(t, "foreign", nil)
	args := append(ca.mutual(server), "--client-crl-file="+ca.revoke(t, revoked.serial), "--client-cert-allowed-hostname=ann.example")
	for _, program := range []string{"etcd", "etch"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			s := secureServer(t, program, args...)
			s.Start(t)
			url := "https://" + s.Endpoint() + "/health"
			show := func(id identity) []string { return []string{"--cert", id.cert, "--key", id.key} }
			curl := func(more ...string) (string, error) {
				return run(t, "", append([]string{"curl", "-sS", "--max-time", "20", "--cacert", ca.file, url}, more...)...)
			}
			for _, version := range []string{"--http1.1", "--http2"} {
				if out, err := curl(append(show(good), version)...); err != nil || !strings.Contains(out, `"health":"true"`) {
					t.Errorf("curl %s: %v %s", version, err, out)
				}
			}
			for _, c := range []struct {
				name, why string
				id        identity
			}{
				{"no certificate", "tls: client didn't provide a certificate", identity{}},
				{"wrong authority", "certificate signed by unknown authority", foreign},
				{"expired", "certificate has expired or is not yet valid", expired},
				{"revoked", fmt.Sprintf("transport: certificate serial %x revoked", revoked.serial), revoked},
				{"wrong name", "client certificate authentication failed", nameless},
			} {
				t.Run(c.name, func(t *testing.T) {
					before := len(s.rejections("client"))
					var id []string
					if c.id.cert != "" {
						id = show(c.id)
					}
					if out, err := curl(id...); err == nil {
						t.Errorf("curl was let in: %s", out)
					}
					s.rejectedFor(t, c.why, before)
					before = len(s.rejections("client"))
					words := []string{"openssl", "s_client", "-connect", s.Endpoint(), "-CAfile", ca.file, "-alpn", "h2", "-ign_eof"}
					if c.id.cert != "" {
						words = append(words, "-cert", c.id.cert, "-key", c.id.key)
					}
					run(t, "x\n", words...)
					s.rejectedFor(t, c.why, before)
				})
			}
			t.Run("TLS 1.1", func(t *testing.T) {
				before := len(s.rejections("client"))
				out, err := run(t, "", "openssl", "s_client", "-connect", s.Endpoint(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
				if err == nil {
					t.Errorf("openssl was let in: %s", out)
				}
				s.rejectedFor(t, "tls: client offered only unsupported versions", before)
			})
			t.Run("plain HTTP", func(t *testing.T) {
				before := len(s.rejections("client"))
				if out, err := run(t, "", "curl", "-sS", "--max-time", "20", "http://"+s.Endpoint()+"/health"); err == nil {
					t.Errorf("curl was let in: %s", out)
				}
				s.rejectedFor(t, "tls: first record does not look like a TLS handshake", before)
			})
			t.Run("a client that does not trust us", func(t *testing.T) {
				if program == "etcd" {
					t.Skip("Go's server cannot read this alert, and says so instead")
				}
				before := len(s.rejections("client"))
				if out, err := run(t, "", "curl", "-sS", "--max-time", "20", "--cacert", stranger.file, url); err == nil {
					t.Errorf("curl trusts anybody: %s", out)
				}
				s.rejectedFor(t, "remote error: tls: unknown certificate authority", before)
			})
			t.Run("a client that looks for another name", func(t *testing.T) {
				if out, err := run(t, "", "curl", "-sS", "--max-time", "20", "--cacert", ca.file, "--resolve", "other.example:"+strings.Split(s.Endpoint(), ":")[1]+":127.0.0.1", "--cert", good.cert, "--key", good.key, strings.Replace(url, "127.0.0.1", "other.example", 1)); err == nil {
					t.Errorf("curl takes any name: %s", out)
				}
				if program == "etcd" {
					t.Skip("Go's server cannot read this alert, and says so instead")
				}
				before := len(s.rejections("client"))
				if out, err := run(t, "", "openssl", "s_client", "-connect", s.Endpoint(), "-CAfile", ca.file, "-verify_hostname", "other.example", "-verify_return_error", "-cert", good.cert, "-key", good.key); err == nil {
					t.Errorf("openssl takes any name: %s", out)
				}
				s.rejectedFor(t, "remote error: tls: bad certificate", before)
			})
		})
	}
}

// TLS to a port that speaks plain text.
func TestTLSToPlainPort(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	if out, err := run(t, "", "curl", "-sSk", "--max-time", "20", "https://"+s.Endpoint()+"/health"); err == nil {
		t.Errorf("curl was let in: %s", out)
	}
	s.rejectedFor(t, "the client speaks TLS to a port that does not", 0)
}

// The name in the certificate is the user, where there is no token; JSON is told that it is not.
func TestTLSUserByCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	server, root, ann, none := ca.sign(t, "server", nil), ca.sign(t, "root", nil), ca.sign(t, "ann", nil), ca.sign(t, "nobody", nil)
	outputs := map[string]string{}
	for _, program := range []string{"etcd", "etch"} {
		s := secureServer(t, program, append(ca.mutual(server), "--bcrypt-cost=4")...)
		s.Start(t)
		var all strings.Builder
		ctl := func(id identity, args ...string) {
			words := append([]string{programs["etcdctl"], "--endpoints=https://" + s.Endpoint(), "--cacert=" + ca.file, "--cert=" + id.cert, "--key=" + id.key, "--command-timeout=20s"}, args...)
			out, err := run(t, "", words...)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			fmt.Fprintf(&all, "%v: %v %s\n", args, err, lines[len(lines)-1])
		}
		ctl(root, "user", "add", "root", "--no-password")
		ctl(root, "user", "grant-role", "root", "root")
		ctl(root, "user", "add", "ann:pw")
		ctl(root, "role", "add", "r")
		ctl(root, "role", "grant-permission", "r", "readwrite", "a")
		ctl(root, "user", "grant-role", "ann", "r")
		ctl(root, "auth", "enable")
		ctl(ann, "put", "a", "1")
		ctl(ann, "put", "b", "1")
		ctl(ann, "get", "a")
		ctl(root, "put", "b", "2")
		ctl(none, "get", "a")
		ctl(none, "--user=ann:pw", "get", "a")
		ctl(root, "--user=ann:pw", "get", "b")
		ctl(root, "--user=ann:wrong", "get", "a")
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.tlsConfig(t, ann)}}
		response := ok[*http.Response](t)(client.Post("https://"+s.Endpoint()+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"YQ=="}`)))
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		fmt.Fprintf(&all, "JSON: %d %s", response.StatusCode, body)
		outputs[program] = s.maskPort(all.String())
	}
	if outputs["etcd"] != outputs["etch"] {
		t.Errorf("etcd:\n%s\netch:\n%s", outputs["etcd"], outputs["etch"])
	}
	for _, want := range []string{"[put a 1]: <nil> OK", "permission denied", "[get a]: <nil> 1", "JSON: 400 CommonName of client"} {
		if !strings.Contains(outputs["etch"], want) {
			t.Errorf("not in the outputs: %q\n%s", want, outputs["etch"])
		}
	}
}

func (s *Server) maskPort(text string) string {
	return strings.ReplaceAll(text, s.Endpoint(), "HOST")
}

// Certificates, authorities and lists change while a watch goes on, which notices nothing.
func TestTLSReload(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	server, ann := ca.sign(t, "server", nil), ca.sign(t, "ann", nil)
	crl := ca.revoke(t)
	s := secureServer(t, "etch", append(ca.mutual(server), "--client-crl-file="+crl)...)
	s.Start(t)
	c := secureClient(t, s, ca.tlsConfig(t, ann))
	watch := c.Watch(t.Context(), "k")
	revision := int64(1)
	change := func() {
		t.Helper()
		revision++
		if r := ok[*clientv3.PutResponse](t)(c.Put(timeout(), "k", "v")); r.Header.Revision != revision {
			t.Fatalf("revision %d, not %d", r.Header.Revision, revision)
		}
		if r := next(t, watch); r.Err() != nil || len(r.Events) != 1 || r.Events[0].Kv.ModRevision != revision {
			t.Fatalf("the watch: %+v", r)
		}
	}
	shown := func(id identity) (string, error) {
		conn, err := tls.Dial("tcp", s.Endpoint(), ca.tlsConfig(t, id))
		if err != nil {
			return "", err
		}
		defer conn.Close()
		// With TLS 1.3 a client hears only by an answer whether it was let in.
		fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			return "", err
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
	}
	sees := func(want string) {
		t.Helper()
		if got := ok[string](t)(shown(ann)); got != want {
			t.Errorf("a new connection sees the certificate %s, not %s", got, want)
		}
	}
	change()
	sees(server.serial.String())

	second := ca.sign(t, "server", nil)
	sees(second.serial.String())
	<-s.Log.Seen("reloaded TLS files")
	change()

	good := ok[[]byte](t)(os.ReadFile(server.cert))
	fine(t, os.WriteFile(server.cert, []byte("broken"), 0o600))
	sees(second.serial.String())
	<-s.Log.Seen("failed to reload TLS files")
	if log := s.Log.String(); !strings.Contains(log, server.cert+": tls: failed to find any PEM data") {
		t.Errorf("the log does not say what is wrong with %s:\n%s", server.cert, s.Log.Tail())
	}
	change()
	fine(t, os.WriteFile(server.cert, good, 0o600))
	sees(second.serial.String())

	before := len(s.rejections("client"))
	ca.revoke(t, ann.serial)
	if _, err := shown(ann); err == nil {
		t.Error("a revoked certificate is let in")
	}
	s.rejectedFor(t, "revoked", before)
	// Who was let in before stays, as in etcd.
	change()
	ca.revoke(t)
	sees(second.serial.String())

	other := newAuthority(t, "next")
	before = len(s.rejections("client"))
	trust := ok[[]byte](t)(os.ReadFile(other.file))
	fine(t, os.WriteFile(ca.file, trust, 0o600))
	if _, err := shown(ann); err == nil {
		t.Error("a certificate of an authority that is trusted no more is let in")
	}
	s.rejectedFor(t, "unknown authority", before)
	eve := other.sign(t, "eve", nil)
	config := ca.tlsConfig(t, eve)
	if conn, err := tls.Dial("tcp", s.Endpoint(), config); err != nil {
		t.Errorf("the new authority: %v", err)
	} else {
		conn.Close()
	}
	change()
}

// Ports of all kinds: both on one address, sockets in the file system, HTTP apart, metrics.
func TestTLSPorts(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	// Go's client takes the last part of a socket's path for the server's name.
	server := ca.sign(t, "server", func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "s.tls") })
	ann := ca.sign(t, "ann", nil)
	elsewhere := ca.sign(t, "elsewhere", func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames = []net.IP{net.IPv4(10, 1, 2, 3)}, nil
	})
	show := func(id identity) []string { return []string{"--cacert", ca.file, "--cert", id.cert, "--key", id.key} }
	s := newServer(t, "etch", ca.mutual(server)...)
	secured, metrics := freePort(t), freePort(t)
	socket := filepath.Join(t.TempDir(), "s")
	both := s.Endpoint()
	s.Args = append(s.Args, "--log-level=debug",
		fmt.Sprintf("--listen-client-urls=http://%s,https://%s,https://127.0.0.1:%d,unix://%s,unixs://%s.tls", both, both, secured, socket, socket),
		fmt.Sprintf("--listen-metrics-urls=https://127.0.0.1:%d", metrics))
	s.Start(t)
	health := func(url string, args ...string) (string, error) {
		return run(t, "", append([]string{"curl", "-sS", "--max-time", "20", url}, args...)...)
	}
	for _, c := range []struct {
		url  string
		args []string
		good bool
	}{
		{"http://" + both + "/health", nil, true},
		{"https://" + both + "/health", show(ann), true},
		{"https://" + both + "/health", []string{"--cacert", ca.file}, false},
		{fmt.Sprintf("https://127.0.0.1:%d/health", secured), append(show(ann), "--http2"), true},
		{fmt.Sprintf("http://127.0.0.1:%d/health", secured), nil, false},
		{"http://localhost/health", []string{"--unix-socket", socket}, true},
		{"https://localhost/health", append(show(ann), "--unix-socket", socket+".tls"), true},
		{"http://localhost/health", []string{"--unix-socket", socket + ".tls"}, false},
		{fmt.Sprintf("https://127.0.0.1:%d/metrics", metrics), show(ann), true},
		// etcd asks on the port of metrics that a certificate stands for the address, and elsewhere not.
		{fmt.Sprintf("https://127.0.0.1:%d/metrics", metrics), show(elsewhere), false},
		{fmt.Sprintf("https://127.0.0.1:%d/health", secured), show(elsewhere), true},
	} {
		if out, err := health(c.url, c.args...); (err == nil) != c.good {
			t.Errorf("%s %q: %v %.200s", c.url, c.args, err, out)
		}
	}
	s.rejectedFor(t, "x509: certificate is valid for 10.1.2.3, not 127.0.0.1", 0)
	c := secureClient(t, s, ca.tlsConfig(t, ann))
	ok[*clientv3.PutResponse](t)(c.Put(timeout(), "a", "1"))
	ok[*clientv3.PutResponse](t)(newClient(t, s).Put(timeout(), "a", "2"))
	unix := ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{Endpoints: []string{"unixs://" + socket + ".tls"}, DialTimeout: patience, TLS: ca.tlsConfig(t, ann)}))
	defer unix.Close()
	if r := ok[*clientv3.GetResponse](t)(unix.Get(timeout(), "a")); string(r.Kvs[0].Value) != "2" {
		t.Errorf("over the socket: %v", r)
	}
	s.Stop(t, syscall.SIGTERM)
	if _, err := os.Stat(socket + ".tls"); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

// HTTP on URLs of its own leaves gRPC alone on the client's, both over TLS.
func TestTLSHTTPApart(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	server, ann, foreign := ca.sign(t, "server", nil), ca.sign(t, "ann", nil), newAuthority(t, "theirs").sign(t, "foreign", nil)
	for _, program := range []string{"etcd", "etch"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			s := secureServer(t, program, ca.mutual(server)...)
			apart := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			s.Args = append(s.Args, "--listen-client-http-urls=https://"+apart)
			s.Start(t)
			health := func(address string, id identity) string {
				out, err := run(t, "", "curl", "-s", "--max-time", "20", "-w", " %{http_code}", "--cacert", ca.file, "--cert", id.cert, "--key", id.key, "https://"+address+"/health")
				return fmt.Sprint(out, err == nil)
			}
			if out := health(apart, ann); !strings.HasPrefix(out, `{"health":"true"`) || !strings.HasSuffix(out, " 200true") {
				t.Errorf("its own URL: %s", out)
			}
			if out := health(apart, foreign); !strings.HasSuffix(out, "false") {
				t.Errorf("without a certificate of ours: %s", out)
			}
			if out := health(s.Endpoint(), ann); strings.Contains(out, "health") {
				t.Errorf("on the URL of gRPC: %s", out)
			}
			puts := func(address string) error {
				conn := ok[*grpc.ClientConn](t)(grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(ca.tlsConfig(t, ann)))))
				defer conn.Close()
				_, err := pb.NewKVClient(conn).Put(timeout(), &pb.PutRequest{Key: []byte("a")})
				return err
			}
			fine(t, puts(s.Endpoint()))
			if err := puts(apart); err == nil {
				t.Error("gRPC on the URL of HTTP")
			}
		})
	}
}

// The port of peers has certificates and rules of its own.
func TestTLSPeerPort(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	server, ann, bob := ca.sign(t, "server", nil), ca.sign(t, "ann", nil), ca.sign(t, "bob", nil)
	alsoAnn := func(c *x509.Certificate) { c.Subject.CommonName = "ann" }
	revoked := ca.sign(t, "revoked", alsoAnn)
	crl := ca.revoke(t, revoked.serial)
	elsewhere := ca.sign(t, "elsewhere", func(c *x509.Certificate) {
		alsoAnn(c)
		c.IPAddresses, c.DNSNames = []net.IP{net.IPv4(10, 1, 2, 3)}, nil
	})
	foreign := newAuthority(t, "theirs").sign(t, "ann", nil)
	for _, program := range []string{"etcd", "etch"} {
		for _, skip := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s skip=%v", program, skip), func(t *testing.T) {
				t.Parallel()
				s := newServer(t, program, "--peer-cert-file="+server.cert, "--peer-key-file="+server.key, "--peer-client-cert-auth", "--peer-trusted-ca-file="+ca.file,
					"--peer-crl-file="+crl, "--peer-cert-allowed-cn=ann", fmt.Sprintf("--peer-skip-client-san-verification=%v", skip))
				address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
				s.Args = append(s.Args, "--listen-peer-urls=https://"+address)
				s.Start(t)
				for _, c := range []struct {
					name string
					id   identity
					in   bool
				}{{"ann", ann, true}, {"another name", bob, false}, {"another address", elsewhere, skip}, {"another authority", foreign, false}, {"revoked", revoked, false}, {"nothing", identity{}, false}} {
					words := []string{"curl", "-sS", "--http1.1", "--max-time", "20", "--cacert", ca.file, "https://" + address + "/version"}
					if c.id.cert != "" {
						words = append(words, "--cert", c.id.cert, "--key", c.id.key)
					}
					out, err := run(t, "", words...)
					if (err == nil && strings.Contains(out, "etcdserver")) != c.in {
						t.Errorf("%s: %v %s", c.name, err, out)
					}
				}
				// Four or five were not let in, and each has its line.
				for deadline := time.Now().Add(patience); len(s.rejections("peer")) < 4; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("lines: %v", s.rejections("peer"))
					}
				}
				if out, err := run(t, "", "curl", "-sS", "--max-time", "20", "http://"+s.Endpoint()+"/version"); err != nil {
					t.Errorf("the client port, which is plain: %v %s", err, out)
				}
			})
		}
	}
}

// --auto-tls makes a certificate where etcd makes it, and each starts with the other's.
func TestAutoTLS(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"etch", "etcd"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			s := secureServer(t, first, "--auto-tls", "--self-signed-cert-validity=3")
			s.Start(t)
			cert := filepath.Join(s.Dir, "fixtures", "client", "cert.pem")
			made := ok[[]byte](t)(os.ReadFile(cert))
			asks := func() {
				t.Helper()
				config := &tls.Config{RootCAs: x509.NewCertPool()}
				config.RootCAs.AppendCertsFromPEM(made)
				c := secureClient(t, s, config)
				ok[*clientv3.PutResponse](t)(c.Put(timeout(), "a", "1"))
				c.Close()
				conn := ok[*tls.Conn](t)(tls.Dial("tcp", s.Endpoint(), config))
				shown := conn.ConnectionState().PeerCertificates[0]
				conn.Close()
				if years := shown.NotAfter.Sub(shown.NotBefore).Hours() / 24 / 365; years < 2.99 || years > 3.01 {
					t.Errorf("good for %v years", years)
				}
			}
			asks()
			if first == "etch" {
				for _, file := range []string{cert, filepath.Join(s.Dir, "fixtures", "client", "key.pem")} {
					if mode := ok[os.FileInfo](t)(os.Stat(file)).Mode().Perm(); mode != 0o600 {
						t.Errorf("%s is %o", file, mode)
					}
				}
			}
			for _, program := range []string{"etch", "etcd", "etch"} {
				s.Stop(t, syscall.SIGTERM)
				s.Program = program
				s.Start(t)
				asks()
				if now := ok[[]byte](t)(os.ReadFile(cert)); !bytes.Equal(now, made) {
					t.Errorf("%s has made another certificate", program)
				}
			}
		})
	}
}

// What is wrong with flags and files is said at the start, and the process ends with etcd's code.
func TestTLSBadFlags(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	server, other := ca.sign(t, "server", nil), ca.sign(t, "other", nil)
	empty := filepath.Join(ca.dir, "empty.pem")
	fine(t, os.WriteFile(empty, nil, 0o600))
	none := filepath.Join(ca.dir, "none.pem")
	files := func(cert, key string) []string { return []string{"--cert-file=" + cert, "--key-file=" + key} }
	good := files(server.cert, server.key)
	with := func(args ...string) []string { return append(append([]string{}, good...), args...) }
	for name, c := range map[string]struct {
		args []string
		// What both say, and what etch says beyond it.
		both, ours string
	}{
		"no certificate":        {nil, "TLS key/cert (--cert-file, --key-file) must be provided for client url", ""},
		"missing certificate":   {files(none, server.key), "open " + none + ": no such file or directory", ""},
		"missing key":           {files(server.cert, none), "open " + none + ": no such file or directory", ""},
		"empty certificate":     {files(empty, server.key), "tls: failed to find any PEM data in certificate input", empty},
		"empty key":             {files(server.cert, empty), "tls: failed to find any PEM data in key input", empty},
		"switched":              {files(server.key, server.cert), "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched", server.key},
		"another's key":         {files(server.cert, other.key), "tls: private key does not match public key", other.key},
		"half a pair":           {[]string{"--cert-file=" + server.cert}, "KeyFile and CertFile must both be present[key: , cert: " + server.cert + "]", ""},
		"missing authority":     {with("--trusted-ca-file=" + none), "open " + none + ": no such file or directory", ""},
		"half a client's pair":  {with("--client-cert-file=" + server.cert), "ClientKeyFile and ClientCertFile must both be present or both absent", ""},
		"unknown suite":         {with("--cipher-suites=TLS_NULL"), `unexpected TLS cipher suite \"TLS_NULL\"`, ""},
		"no suite for HTTP/2":   {with("--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), "missing an HTTP/2-required AES_128_GCM_SHA256 cipher", ""},
		"suites and TLS 1.3":    {with("--tls-min-version=TLS1.3", "--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), "cipher suites cannot be configured when only TLS1.3 is enabled", ""},
		"old version":           {with("--tls-min-version=TLS1.1"), `unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)`, ""},
		"versions crossed":      {with("--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"), "min version (TLS1.3) is greater than max version (TLS1.2)", ""},
		"metrics without files": {[]string{"--listen-client-urls=http://127.0.0.1:0", "--listen-metrics-urls=https://127.0.0.1:0"}, "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url", ""},
		"peers without files":   {with("--listen-peer-urls=https://127.0.0.1:0"), "KeyFile and CertFile are not presented", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			codes := map[string]int{}
			for _, program := range []string{"etcd", "etch"} {
				s := secureServer(t, program, c.args...)
				s.Launch(t)
				codes[program] = s.AwaitExit(t)
				log := s.Log.String()
				if !strings.Contains(log, c.both) {
					t.Errorf("%s does not say %q:\n%s", program, c.both, s.Log.Tail())
				}
				if program == "etch" && !strings.Contains(log, c.ours) {
					t.Errorf("etch does not name %s:\n%s", c.ours, s.Log.Tail())
				}
			}
			if codes["etcd"] != codes["etch"] || codes["etch"] == 0 {
				t.Errorf("exit codes: %v", codes)
			}
		})
	}
	// Stricter than etcd, which lets nobody in with them and says so to each alone.
	for name, args := range map[string][]string{
		"authorities without one": append(files(server.cert, server.key), "--trusted-ca-file="+empty),
		"no list":                 append(ca.mutual(server), "--client-crl-file="+none),
		"a broken list":           append(ca.mutual(server), "--client-crl-file="+empty),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := secureServer(t, "etch", args...)
			s.Launch(t)
			if code := s.AwaitExit(t); code != 1 || !strings.Contains(s.Log.String(), "pem: ") {
				t.Errorf("exit code %d\n%s", code, s.Log.Tail())
			}
		})
	}
}

// Suites by Go's names: those of TLS 1.3 are ignored in the list, and clients with others are refused.
func TestTLSSuitesAndVersions(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	server := ca.sign(t, "server", nil)
	for _, program := range []string{"etcd", "etch"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			s := secureServer(t, program, "--cert-file="+server.cert, "--key-file="+server.key, "--tls-max-version=TLS1.3",
				"--cipher-suites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
			s.Start(t)
			dialed := func(edit func(*tls.Config)) (tls.ConnectionState, error) {
				config := ca.tlsConfig(t, identity{})
				edit(config)
				conn, err := tls.Dial("tcp", s.Endpoint(), config)
				if err != nil {
					return tls.ConnectionState{}, err
				}
				defer conn.Close()
				return conn.ConnectionState(), nil
			}
			if state, err := dialed(func(c *tls.Config) {}); err != nil || state.Version != tls.VersionTLS13 {
				t.Errorf("TLS 1.3: %v %v", state.Version, err)
			}
			state, err := dialed(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
			if err != nil || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 {
				t.Errorf("TLS 1.2: %v %v", state.CipherSuite, err)
			}
			_, err = dialed(func(c *tls.Config) {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
			})
			if err == nil {
				t.Error("a suite that is not in the list")
			}
			s.rejectedFor(t, "tls: no cipher suite supported by both client and server", 0)
			if state, err := dialed(func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }); err != nil || state.NegotiatedProtocol != "h2" {
				t.Errorf("ALPN: %q %v", state.NegotiatedProtocol, err)
			}
		})
	}
}

// Ten thousand handshakes that never end, while a client that means it works on.
func TestTLSHalfHandshakes(t *testing.T) {
	const many = 10_000
	allowFiles(t, 2*many)
	ca := newAuthority(t, "ours")
	server := ca.sign(t, "server", nil)
	s := secureServer(t, "etch", "--cert-file="+server.cert, "--key-file="+server.key, "--log-level=info")
	s.Start(t)
	conn := ok[*grpc.ClientConn](t)(grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(credentials.NewTLS(ca.tlsConfig(t, identity{})))))
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	fine(t, ask(kv, "probe", 0))
	before := s.ownMemory(t)
	hello := clientHello(t)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	var worst time.Duration
	highest := 0
	for n := range many {
		c := ok[net.Conn](t)(net.Dial("tcp", s.Endpoint()))
		open = append(open, c)
		// Nothing at all, half a hello, or a whole one and nothing after it.
		switch n % 3 {
		case 1:
			c.Write(hello[:len(hello)/2])
		case 2:
			c.Write(hello)
		}
		if n%100 == 0 {
			began := time.Now()
			fine(t, ask(kv, "probe", n))
			// Newcomers as well.
			fresh := ok[*tls.Conn](t)(tls.Dial("tcp", s.Endpoint(), ca.tlsConfig(t, identity{})))
			fresh.Close()
			worst = max(worst, time.Since(began))
			highest = max(highest, s.ownMemory(t))
		}
	}
	t.Logf("%d MiB before, at most %d; the slowest put, get and handshake took %v", before, highest, worst.Round(time.Millisecond))
	if highest-before > 400 {
		t.Errorf("memory grew by %d MiB", highest-before)
	}
	for _, c := range open {
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); err != nil && os.IsTimeout(err) {
			t.Fatal("a handshake that never ends stays for ever")
		}
	}
	fine(t, ask(kv, "probe", many))
	if lines := len(s.rejections("client")); lines == 0 || lines > many/2 {
		t.Errorf("%d lines in the log about %d handshakes", lines, many)
	}
}

// clientHello is what a client of Go's says first.
func clientHello(t testing.TB) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go tls.Client(near, &tls.Config{ServerName: "localhost"}).Handshake()
	hello := make([]byte, 16<<10)
	n := ok[int](t)(far.Read(hello))
	return hello[:n]
}

// Passwords, hashes, tokens and keys appear nowhere: not in the log at its most talkative, metrics, debug pages or
// refusals. What is written is its owner's alone.
func TestSecretsAreNotTold(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ours")
	server := ca.sign(t, "server", nil)
	private, public, _ := keyFiles(t, "ES256")
	for name, token := range map[string]string{"simple": "simple", "signed": "jwt,sign-method=ES256,pub-key=" + public + ",priv-key=" + private} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := secureServer(t, "etch", "--cert-file="+server.cert, "--key-file="+server.key, "--bcrypt-cost=4", "--enable-pprof", "--auth-token="+token)
			s.Start(t)
			conn := ok[*grpc.ClientConn](t)(grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(credentials.NewTLS(ca.tlsConfig(t, identity{})))))
			defer conn.Close()
			side := &Side{Server: s, Conn: conn, vars: map[string]int64{}}
			side.must(t, "", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "root", Password: "Geheimnis-1", Options: nil})
			side.must(t, "", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
			side.must(t, "", "Auth/AuthEnable", &pb.AuthEnableRequest{})
			issued := side.login(t, "root", "Geheimnis-1")
			side.must(t, issued, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "ann", Password: "Geheimnis-2"})
			// An entry of an older revision is refused, and the token with it.
			issued = side.login(t, "root", "Geheimnis-1")
			side.must(t, issued, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "Geheimnis-3"})
			side.callAs("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "ann", Password: "Geheimnis-4"})
			told := side.callAs(issued+"x", "KV/Range", rng("a", ""))
			told += side.callAs("Geheimnis-5", "KV/Range", rng("a", ""))
			told += side.callAs(issued, "Auth/UserGet", &pb.AuthUserGetRequest{Name: "ann"})
			told += side.callAs(issued, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "ann", Password: "Geheimnis-6"})
			told += side.callAs(issued, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "eve", Password: "Geheimnis-7" + strings.Repeat("x", 72)})
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.tlsConfig(t, identity{})}}
			fetch := func(r *http.Request) {
				response := ok[*http.Response](t)(client.Do(r))
				body := ok[[]byte](t)(io.ReadAll(response.Body))
				response.Body.Close()
				told += string(body)
			}
			for _, body := range []string{`{"name":"ann","password":"Geheimnis-8"}`, `{"name":"ann","password":"Geheimnis-9`, `{"name":"ann","password":["Geheimnis-10"]}`} {
				fetch(ok[*http.Request](t)(http.NewRequest("POST", "https://"+s.Endpoint()+"/v3/auth/authenticate", strings.NewReader(body))))
			}
			for _, page := range []string{"/metrics", "/debug/vars", "/debug/pprof/", "/debug/pprof/heap", "/health", "/version", "/v3/kv/range?token=" + issued} {
				r := ok[*http.Request](t)(http.NewRequest("GET", "https://"+s.Endpoint()+page, nil))
				r.Header.Set("Authorization", issued)
				fetch(r)
			}
			told += s.Log.String()
			secrets := []string{"Geheimnis", "$2a$", "JDJh", "BEGIN", issued}
			for _, file := range []string{private, server.key} {
				lines := strings.Split(string(ok[[]byte](t)(os.ReadFile(file))), "\n")
				secrets = append(secrets, lines[1])
			}
			for _, secret := range secrets {
				if strings.Contains(told, secret) {
					t.Errorf("%q is told", secret)
				}
			}
			for _, change := range []string{`"method":"AuthEnable","subject":"","by":"","remote":"127.0.0.1`, `"method":"UserChangePassword","subject":"ann","by":"root","remote":"127.0.0.1`} {
				if !strings.Contains(told, `"msg":"auth change",`+change) {
					t.Errorf("no line %q about changes of users:\n%s", change, s.Log.Tail())
				}
			}
			fine(t, filepath.WalkDir(s.Dir, func(path string, entry fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := entry.Info()
				if err == nil && info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s is open to others: %v", path, info.Mode())
				}
				return err
			}))
		})
	}
}
