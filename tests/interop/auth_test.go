package interop

// Users against etcd and etch: etcdctl's words, tokens of both kinds, clients
// that log in again, directories and snapshots that change hands, and what is
// stricter than etcd.

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestAuthByEtcdctl(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--bcrypt-cost=4")
	root := func(args ...string) step { return ctl(append([]string{"--user=root:rpw"}, args...)...) }
	ann := func(args ...string) step { return ctl(append([]string{"--user=ann:apw"}, args...)...) }
	runSteps(t, p, []step{
		ctl("auth", "status"), ctl("auth", "enable"),
		ctl("user", "add", "root:rpw"), ctl("user", "add", "root:rpw"), ctl("role", "get", "root"),
		ctl("auth", "enable"), ctl("auth", "status"), ctl("put", "a", "1"), ctl("member", "list"),
		root("auth", "status"), root("auth", "enable"), root("put", "a", "1"), ctl("--user=root:wrong", "get", "a"), ctl("--user=nobody:x", "get", "a"),
		root("user", "add", "ann:apw"), root("user", "add", "cert", "--no-password"), root("user", "list"), ctl("--user=cert:x", "get", "a"),
		root("role", "add", "r"), root("role", "add", "r"), root("role", "add", "q"), root("role", "list"),
		root("role", "grant-permission", "r", "readwrite", "a", "c"), root("role", "grant-permission", "r", "read", "dir/", "--prefix"),
		root("role", "grant-permission", "q", "write", "x", "--from-key"), root("role", "grant-permission", "r", "nonsense", "a"),
		root("role", "grant-permission", "none", "read", "a"), root("role", "get", "r"), root("role", "get", "q", "-w", "json"), root("role", "get", "root"),
		root("user", "grant-role", "ann", "r"), root("user", "grant-role", "ann", "q"), root("user", "grant-role", "ann", "none"),
		root("user", "get", "ann"), root("user", "get", "ann", "--detail"), root("user", "get", "nobody"),
		ann("put", "a", "2"), ann("put", "a", "3", "--prev-kv"), ann("put", "d", "1"), ann("put", "x", "1"), ann("put", "y", "1", "--prev-kv"),
		ann("get", "a"), ann("get", "a", "c"), ann("get", "a", "d"), ann("get", "dir/", "--prefix"), ann("get", "", "--from-key"), ann("get", "x"),
		ann("del", "b"), ann("del", "a", "c"), ann("del", "x", "--from-key"), ann("del", "", "--prefix"),
		ann("user", "get", "ann"), ann("user", "get", "root"), ann("user", "list"), ann("role", "get", "r"), ann("role", "get", "root"), ann("role", "list"),
		ann("user", "add", "eve:x"), ann("auth", "disable"), ann("compact", "2"), ann("defrag"), ann("alarm", "list"), ann("alarm", "disarm"), ann("endpoint", "status", "-w", "json"), ann("endpoint", "hashkv"),
		ctlIn("value(\"a\") = \"nope\"\n\nput a 1\n\nput zz 2\n\n", "--user=ann:apw", "txn", "-i"),
		ctlIn("value(\"a\") = \"nope\"\n\nput a 1\n\nput x 2\nget a\n\n", "--user=ann:apw", "txn", "-i"),
		ctlIn("new\n", "--user=root:rpw", "user", "passwd", "ann", "--interactive=false"), ann("get", "a"), ctl("--user=ann:new", "get", "a"),
		ctl("--user=ann", "--password=new", "get", "a"),
		root("role", "revoke-permission", "r", "a", "c"), root("role", "revoke-permission", "r", "a", "c"), ctl("--user=ann:new", "get", "a"),
		root("user", "revoke-role", "ann", "q"), root("user", "revoke-role", "ann", "q"), root("user", "revoke-role", "root", "root"),
		root("role", "delete", "r"), root("role", "delete", "r"), root("role", "delete", "root"), root("user", "get", "ann"),
		root("user", "delete", "ann"), root("user", "delete", "ann"), root("user", "delete", "root"), ctl("--user=ann:new", "get", "a"),
		root("auth", "disable"), ctl("auth", "status"), ctl("get", "a"), root("get", "a"), ctl("user", "delete", "root"), ctl("auth", "enable"),
	})
}

// keyFiles writes a pair of keys for a kind of signature, and gives the
// options that name them.
func keyFiles(t testing.TB, method string) (private, public string, key any) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	var pub any
	switch method[:2] {
	case "HS":
		private = filepath.Join(dir, "secret")
		secret := []byte(strings.Repeat("secret", 12))
		if err := os.WriteFile(private, secret, 0o600); err != nil {
			t.Fatal(err)
		}
		return private, private, secret
	case "ES":
		curve := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[method]
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key, pub = k, &k.PublicKey
		// As openssl ecparam writes it.
		der, err := x509.MarshalECPrivateKey(k)
		private = write("private", "EC PRIVATE KEY", der, err)
	case "Ed":
		p, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key, pub = k, p
		der, err := x509.MarshalPKCS8PrivateKey(k)
		private = write("private", "PRIVATE KEY", der, err)
	default:
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		key, pub = k, &k.PublicKey
		if method[0] == 'R' {
			private = write("private", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k), nil)
		} else {
			der, err := x509.MarshalPKCS8PrivateKey(k)
			private = write("private", "PRIVATE KEY", der, err)
		}
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	return private, write("public", "PUBLIC KEY", der, err), key
}

// Tokens signed by one are taken by the other, and those of a third by both.
func TestSignedTokens(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RS256", "PS384", "ES256", "ES512", "EdDSA", "HS512"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			private, public, key := keyFiles(t, method)
			p := newPair(t, "--bcrypt-cost=4", fmt.Sprintf("--auth-token=jwt,sign-method=%s,pub-key=%s,priv-key=%s,ttl=10m", method, public, private))
			var mu sync.Mutex
			tokens := map[*Side]string{}
			both(p, func(s *Side) {
				root := s.enableAuth(t)
				s.addUser(t, root, "ann", [][]perm{{{bothPerm, "a", ""}}})
				root = s.login(t, "root", "root")
				s.must(t, root, "KV/Put", put("a", "1"))
				token := s.login(t, "ann", "ann")
				mu.Lock()
				tokens[s] = token
				mu.Unlock()
			})
			claims := func(more jwt.MapClaims) string {
				c := jwt.MapClaims{"username": "ann", "revision": 8, "exp": time.Now().Add(time.Hour).Unix()}
				for k, v := range more {
					if v == nil {
						delete(c, k)
						continue
					}
					c[k] = v
				}
				text, err := jwt.NewWithClaims(jwt.GetSigningMethod(method), c).SignedString(key)
				if err != nil {
					t.Fatal(err)
				}
				return text
			}
			good := claims(nil)
			unsigned, _ := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"username": "root", "revision": 9}).SignedString(jwt.UnsafeAllowNoneSignatureType)
			all := map[string]string{
				"of etcd": tokens[p.A], "of etch": tokens[p.B], "of a third": good,
				"ended": claims(jwt.MapClaims{"exp": 5}), "without an end": claims(jwt.MapClaims{"exp": nil}),
				"not yet": claims(jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}), "begun": claims(jwt.MapClaims{"nbf": 5}),
				"old revision": claims(jwt.MapClaims{"revision": 3}), "later revision": claims(jwt.MapClaims{"revision": 99}),
				"no revision": claims(jwt.MapClaims{"revision": nil}), "revision as text": claims(jwt.MapClaims{"revision": "8"}),
				"no user": claims(jwt.MapClaims{"username": nil}), "unknown user": claims(jwt.MapClaims{"username": "eve"}),
				"end as text": claims(jwt.MapClaims{"exp": "soon"}), "cut": good[:len(good)-4], "unsigned": unsigned, "nonsense": "a.b.c", "empty": "",
				"another's": claims(jwt.MapClaims{"username": "root"}),
			}
			for _, name := range sortedKeys(all) {
				t.Run(name, func(t *testing.T) {
					p.Both(t, func(s *Side) string {
						return s.callAs(all[name], "KV/Range", rng("a", "")) + s.callAs("Bearer "+all[name], "KV/Put", put("a", "2")) +
							s.callAs(all[name], "KV/Range", rng("b", "")) + s.callAs(all[name], "Auth/UserList", &pb.AuthUserListRequest{})
					})
				})
			}
			out := p.B.ctl("", "--auth-jwt-token="+good, "get", "a")
			if !strings.HasPrefix(out, "a\n2\n") {
				t.Errorf("etcdctl with a token of its own: %s", out)
			}
			if strings.Contains(p.B.Log.String(), good[len(good)-20:]) {
				t.Error("a token is in the log")
			}
		})
	}
}

// certificateOf puts a public key into a certificate of its own signing.
func certificateOf(t testing.TB, key any) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := ok[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.(crypto.Signer).Public(), key))
	file := filepath.Join(t.TempDir(), "public.pem")
	fine(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return file
}

// The public key may come in a certificate, where etcd takes that.
func TestSignedTokensByCertificate(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			private, _, key := keyFiles(t, method)
			token := func(user string, signer any) string {
				claims := jwt.MapClaims{"username": user, "revision": 8, "exp": time.Now().Add(time.Hour).Unix()}
				return ok[string](t)(jwt.NewWithClaims(jwt.GetSigningMethod(method), claims).SignedString(signer))
			}
			_, _, another := keyFiles(t, method)
			good, bad := token("ann", key), token("root", another)
			outputs := map[string]string{}
			for _, program := range []string{"etcd", "etch"} {
				s := newServer(t, program, "--bcrypt-cost=4", fmt.Sprintf("--auth-token=jwt,sign-method=%s,pub-key=%s,priv-key=%s", method, certificateOf(t, key), private))
				s.Launch(t)
				select {
				case <-s.Log.Seen("ready to serve client requests"):
				case <-s.exited:
					outputs[program] = "refused at the start"
					continue
				}
				side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
				root := side.enableAuth(t)
				side.addUser(t, root, "ann", [][]perm{{{bothPerm, "a", ""}}})
				side.must(t, side.login(t, "root", "root"), "KV/Put", put("a", "1"))
				for _, token := range []string{side.login(t, "ann", "ann"), good, bad} {
					outputs[program] += side.callAs(token, "KV/Range", rng("a", "")) + "\n"
				}
			}
			// Such a certificate is read for the other methods alone.
			refused := outputs["etch"] == "refused at the start"
			if outputs["etcd"] != outputs["etch"] || refused != (method == "EdDSA") {
				t.Errorf("etcd:\n%s\netch:\n%s", outputs["etcd"], outputs["etch"])
			}
		})
	}
}

// The flag is judged before anything is touched.
func TestTokenOptions(t *testing.T) {
	t.Parallel()
	_, public, _ := keyFiles(t, "RS256")
	for _, option := range []string{"nonsense", "jwt", "jwt,sign-method=none", "jwt,sign-method=RS256", "jwt,sign-method=RS256,pub-key=/nowhere", "jwt,sign-method=ES256,pub-key=" + public, "jwt,x"} {
		s := newServer(t, "etch", "--auth-token="+option)
		s.Launch(t)
		if code := s.AwaitExit(t); code == 0 {
			t.Errorf("--auth-token=%s is taken", option)
		}
	}
	// With a public key alone nobody logs in, and tokens of others are good.
	s := startServer(t, "etch", "--auth-token=jwt,sign-method=RS256,pub-key="+public, "--bcrypt-cost=4")
	side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
	side.addUser(t, "", "root", [][]perm{{}})
	side.must(t, "", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	side.must(t, "", "Auth/AuthEnable", &pb.AuthEnableRequest{})
	_, err := pb.NewAuthClient(side.Conn).Authenticate(timeout(), &pb.AuthenticateRequest{Name: "root", Password: "root"})
	if err == nil || !strings.Contains(err.Error(), "verify-only key") {
		t.Errorf("a login without a key to sign: %v", err)
	}
}

func userClient(t testing.TB, s *Server, user string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, DialTimeout: patience, Logger: zap.NewNop(), Username: user, Password: user})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Go's client logs in again when its token is worth nothing any more.
func TestClientLogsInAgain(t *testing.T) {
	t.Parallel()
	private, public, _ := keyFiles(t, "ES256")
	for name, token := range map[string]string{"simple": "simple", "signed": "jwt,sign-method=ES256,pub-key=" + public + ",priv-key=" + private + ",ttl=2s"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, "etch", "--bcrypt-cost=4", "--auth-token="+token)
			side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
			side.enableAuth(t)
			c := userClient(t, s, "root")
			if _, err := c.Put(timeout(), "a", "1"); err != nil {
				t.Fatal(err)
			}
			old := side.login(t, "root", "root")
			if name == "simple" {
				// A restart forgets tokens.
				side.Conn.Close()
				s.Restart(t, syscall.SIGTERM)
				side.Conn = dial(t, s)
			}
			for strings.HasPrefix(side.callAs(old, "KV/Range", rng("a", "")), "{") {
				// Until its time is over.
			}
			if got := side.callAs(old, "KV/Range", rng("a", "")); !strings.Contains(got, "invalid auth token") {
				t.Fatalf("an old token: %s", got)
			}
			if r, err := c.Get(timeout(), "a"); err != nil || len(r.Kvs) != 1 {
				t.Errorf("the client with an old token: %v %v", r, err)
			}
			// A change of users makes tokens of an older revision old: the client sees to that as well.
			side.addUser(t, side.login(t, "root", "root"), "ann", nil)
			if _, err := c.Put(timeout(), "a", "2"); err != nil {
				t.Errorf("after a change of users: %v", err)
			}
		})
	}
}

// everybody is the whole auth store as clients see it.
func (s *Side) everybody(root string) string {
	out := s.callAs(root, "Auth/AuthStatus", &pb.AuthStatusRequest{}) + "\n"
	users, err := pb.NewAuthClient(s.Conn).UserList(s.asUser(root), &pb.AuthUserListRequest{})
	if err != nil {
		return errText(err)
	}
	for _, u := range users.Users {
		out += u + s.callAs(root, "Auth/UserGet", &pb.AuthUserGetRequest{Name: u}) + "\n"
	}
	roles, err := pb.NewAuthClient(s.Conn).RoleList(s.asUser(root), &pb.AuthRoleListRequest{})
	if err != nil {
		return errText(err)
	}
	for _, r := range roles.Roles {
		out += r + s.callAs(root, "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: r}) + "\n"
	}
	return cutTerm(out)
}

// One directory, auth on, etcd and etch in turn: users, hashes, permissions.
func TestAuthInTurns(t *testing.T) {
	t.Parallel()
	for first := range 2 {
		t.Run([]string{"etcd first", "etch first"}[first], func(t *testing.T) {
			t.Parallel()
			s := newServer(t, "etcd", "--bcrypt-cost=4", "--snapshot-count=20", "--snapshot-catchup-entries=10")
			before := ""
			for turn := range 5 {
				s.Program = []string{"etcd", "etch"}[(turn+first)%2]
				s.Start(t)
				side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
				var root string
				if turn == 0 {
					root = side.enableAuth(t)
				} else {
					root = side.login(t, "root", "root")
					if now := side.everybody(root) + cutTerm(side.callAs(root, "Maintenance/HashKV", &pb.HashKVRequest{})); now != before {
						t.Errorf("turn %d, %s\nbefore %s\nnow    %s", turn, s.Program, before, now)
					}
					user := fmt.Sprint("user", turn-1)
					token := side.login(t, user, user)
					side.must(t, token, "KV/Put", put("k", "by "+user))
					if got := side.callAs(token, "KV/Put", put("z", "")); !strings.Contains(got, "permission denied") {
						t.Errorf("turn %d, %s: %s may write z: %s", turn, s.Program, user, got)
					}
					if turn > 2 {
						side.must(t, root, "Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: fmt.Sprint("user", turn-3)})
					}
				}
				for i := range 30 {
					side.must(t, root, "KV/Put", put(fmt.Sprint("n", i), fmt.Sprint("turn ", turn)))
				}
				side.addUser(t, root, fmt.Sprint("user", turn), [][]perm{{{bothPerm, "k", "l"}, {readPerm, "m", "\x00"}}})
				root = side.login(t, "root", "root")
				before = side.everybody(root) + cutTerm(side.callAs(root, "Maintenance/HashKV", &pb.HashKVRequest{}))
				side.Conn.Close()
				s.Stop(t, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[turn%2])
				checkFiles(t, s.Dir)
				if t.Failed() {
					t.Fatal(s.Log.Tail())
				}
			}
		})
	}
}

// A snapshot of one with users, restored for the other.
func TestAuthInSnapshots(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"etcd", "etch"} {
		t.Run("from "+from, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, from, "--bcrypt-cost=4")
			side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
			root := side.enableAuth(t)
			side.addUser(t, root, "ann", [][]perm{{{bothPerm, "a", ""}}})
			root = side.login(t, "root", "root")
			side.must(t, root, "KV/Put", put("a", "1"))
			before := side.everybody(root)
			file := filepath.Join(t.TempDir(), "snap.db")
			if out := side.ctl("", "--user=ann:ann", "snapshot", "save", file); !strings.Contains(out, "permission denied") {
				t.Errorf("a snapshot for ann: %s", out)
			}
			if out := side.ctl("", "--user=root:root", "snapshot", "save", file); !strings.HasSuffix(out, "(<nil>)") {
				t.Fatal(out)
			}
			to := map[string]string{"etcd": "etch", "etch": "etcd"}[from]
			next := newServer(t, to, "--bcrypt-cost=4")
			restore := exec.Command(programs["etcdutl"], "snapshot", "restore", file, "--data-dir="+next.Dir, "--name=default",
				"--initial-cluster=default="+peerURL, "--initial-advertise-peer-urls="+peerURL)
			if out, err := restore.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			next.Start(t)
			other := &Side{Server: next, Conn: dial(t, next), vars: map[string]int64{}}
			if got := other.callAs("", "KV/Range", rng("a", "")); !strings.Contains(got, "user name is empty") {
				t.Errorf("%s serves a restored snapshot to nobody: %s", to, got)
			}
			root = other.login(t, "root", "root")
			if now := other.everybody(root); now != before {
				t.Errorf("before %s\nnow    %s", before, now)
			}
			ann := other.login(t, "ann", "ann")
			other.must(t, ann, "KV/Put", put("a", "2"))
		})
	}
}

// rawWatch is a watcher on a stream of its own.
type rawWatch struct{ c pb.Watch_WatchClient }

func (s *Side) watchAs(t testing.TB, token string, create *pb.WatchCreateRequest) rawWatch {
	t.Helper()
	c, err := pb.NewWatchClient(s.Conn).Watch(s.asUser(token))
	if err == nil {
		err = c.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	}
	if err == nil {
		_, err = c.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return rawWatch{c}
}

func (w rawWatch) next() string {
	m, err := w.c.Recv()
	if err != nil {
		return errText(err)
	}
	return text(m)
}

// etcd looks at permissions when a watcher is made and never again; etch ends a
// watcher whose user has lost them, before it sees anything more.
func TestWatcherEndsWithItsPermission(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch", "--bcrypt-cost=4")
	side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
	early := newClient(t, s).Watch(t.Context(), "a")
	root := side.enableAuth(t)
	side.addUser(t, root, "ann", [][]perm{{{bothPerm, "a", ""}}, {{readPerm, "b", ""}}})
	c := userClient(t, s, "ann")
	ctx := clientv3.WithRequireLeader(t.Context())
	onA, onB := c.Watch(ctx, "a", clientv3.WithCreatedNotify()), c.Watch(ctx, "b", clientv3.WithCreatedNotify())
	<-onA
	<-onB
	raw := side.watchAs(t, side.login(t, "ann", "ann"), wreq("a", "", 0))
	side.must(t, root, "KV/Put", put("a", "seen"))
	if r := <-onA; len(r.Events) != 1 || string(r.Events[0].Kv.Value) != "seen" {
		t.Fatalf("%+v", r)
	}
	if got := raw.next(); !strings.Contains(got, "events") {
		t.Fatal(got)
	}
	side.must(t, root, "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "ann", Role: "ann-0"})
	side.must(t, root, "KV/Put", put("a", "secret"))
	side.must(t, root, "KV/Put", put("b", "seen"))
	// This client closes the channel of a watcher that the server has ended.
	if r, open := <-onA; open {
		t.Errorf("after the role was revoked: %+v %v", r, r.Err())
	}
	if got := raw.next(); !strings.Contains(got, "permission denied") || strings.Contains(got, "events") {
		t.Errorf("after the role was revoked, on the wire: %s", got)
	}
	if r := <-onB; len(r.Events) != 1 || string(r.Events[0].Kv.Value) != "seen" {
		t.Errorf("another watcher of the stream: %+v %v", r, r.Err())
	}
	if r, open := <-early; open {
		t.Errorf("a watcher from before auth was on: %+v %v", r, r.Err())
	}
	// Tokens go with their user, at once.
	ann := side.login(t, "ann", "ann")
	side.must(t, root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "new"})
	if got := side.callAs(ann, "KV/Range", rng("b", "")); !strings.Contains(got, "invalid auth token") {
		t.Errorf("a token from before the new password: %s", got)
	}
}

// Logins cost much on purpose; those of a storm wait for one another, are
// turned away, and leave the store to others.
func TestLoginStorm(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch", "--bcrypt-cost=8")
	side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
	root := side.enableAuth(t)
	side.addUser(t, root, "ann", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	outcomes := make(chan string, 600)
	for i := range 600 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, err := pb.NewAuthClient(side.Conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: fmt.Sprint("user", i), Password: "guess"})
			outcomes <- errText(err)
		}()
	}
	for i := range 200 {
		side.must(t, root, "KV/Put", put("a", fmt.Sprint(i)))
	}
	wg.Wait()
	close(outcomes)
	count := map[string]int{}
	for o := range outcomes {
		count[o]++
	}
	failed, busy := count[errText(rpctypes.ErrGRPCAuthFailed)], 0
	for o, n := range count {
		if strings.Contains(o, "too many requests") {
			busy += n
		}
	}
	if failed == 0 || busy == 0 || failed+busy != 600 {
		t.Errorf("%v", count)
	}
	// Guessing one user's password is slowed, for who guesses; others log in as before.
	last := ""
	for range 30 {
		_, err := pb.NewAuthClient(side.Conn).Authenticate(timeout(), &pb.AuthenticateRequest{Name: "ann", Password: "guess"})
		last = errText(err)
	}
	if !strings.Contains(last, "too many requests") {
		t.Errorf("the 30th guess: %s", last)
	}
	side.login(t, "root", "root")
	for _, secret := range []string{"guess", "$2a$", "JDJh"} {
		if strings.Contains(s.Log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}
