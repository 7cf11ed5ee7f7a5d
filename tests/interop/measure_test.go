package interop

// What users and TLS cost, beside etcd's: no judge, and run only when it is asked for.
//
//	ETCH_MEASURE=1 go test -count=1 -run TestMeasureSecurity -v .

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// cpu is the time that the process has taken of all processors.
func (s *Server) cpu(t testing.TB) time.Duration {
	t.Helper()
	raw := ok[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid)))
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	ticks := 0
	for _, field := range fields[11:13] {
		ticks += ok[int](t)(strconv.Atoi(field))
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// load runs work from so many callers until it was done n times or the time is over, and gives what one cost
// the server and how long the slowest of a hundred took.
func (s *Server) load(t testing.TB, callers, n int, limit time.Duration, work func(caller int) error) string {
	t.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wait sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	began, cpu := time.Now(), s.cpu(t)
	for caller := range callers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			var own []time.Duration
			for left.Add(-1) >= 0 && time.Since(began) < limit {
				start := time.Now()
				if err := work(caller); err != nil {
					t.Errorf("%s: %v", s.Program, err)
					return
				}
				own = append(own, time.Since(start))
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		}()
	}
	wait.Wait()
	all, used := time.Since(began), s.cpu(t)-cpu
	if len(took) == 0 {
		return "none"
	}
	slices.Sort(took)
	return fmt.Sprintf("%8.0f/s  %7.1f µs of CPU each  p99 %v", float64(len(took))/all.Seconds(),
		float64(used.Microseconds())/float64(len(took)), took[len(took)*99/100].Round(10*time.Microsecond))
}

func TestMeasureSecurity(t *testing.T) {
	if os.Getenv("ETCH_MEASURE") == "" {
		t.Skip("ETCH_MEASURE is not set")
	}
	ca := newAuthority(t, "ours")
	server := ca.sign(t, "server", nil)
	for _, program := range []string{"etcd", "etch"} {
		say := func(what, figures string) { t.Logf("%s  %-28s %s", program, what, figures) }
		s := newServer(t, program, "--cert-file="+server.cert, "--key-file="+server.key)
		secured := freePort(t)
		s.Args = append(s.Args, fmt.Sprintf("--listen-client-urls=http://%s,https://127.0.0.1:%d", s.Endpoint(), secured))
		s.Start(t)
		side := connect(t, s)
		address := fmt.Sprintf("127.0.0.1:%d", secured)
		config := ca.tlsConfig(t, identity{})
		config.ServerName = "localhost"
		puts := func(over credentials.TransportCredentials, to, token string) string {
			var kvs []pb.KVClient
			for range 8 {
				conn := ok[*grpc.ClientConn](t)(grpc.NewClient(to, grpc.WithTransportCredentials(over)))
				defer conn.Close()
				kvs = append(kvs, pb.NewKVClient(conn))
			}
			ctx := context.Background()
			if token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
			}
			return s.load(t, 64, 30_000, 20*time.Second, func(caller int) error {
				_, err := kvs[caller%8].Put(ctx, put("k"+strconv.Itoa(caller), "a value of some bytes"))
				return err
			})
		}
		plain := insecure.NewCredentials()
		puts(plain, s.Endpoint(), "")
		say("puts, no users", puts(plain, s.Endpoint(), ""))
		say("puts over TLS, no users", puts(credentials.NewTLS(config), address, ""))
		handshake := func(int) error {
			conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: config.RootCAs, ServerName: "localhost", NextProtos: []string{"h2"}})
			if err == nil {
				err = conn.Close()
			}
			return err
		}
		say("handshakes (P-256)", s.load(t, 8, 4000, 10*time.Second, handshake))
		root := side.enableAuth(t)
		side.addUser(t, root, "ann", [][]perm{{{bothPerm, "k", "l"}}})
		say("puts of a user", puts(plain, s.Endpoint(), side.login(t, "ann", "ann")))
		auth := pb.NewAuthClient(side.Conn)
		say("logins (bcrypt cost 10)", s.load(t, 16, 300, 15*time.Second, func(int) error {
			_, err := auth.Authenticate(context.Background(), &pb.AuthenticateRequest{Name: "ann", Password: "ann"})
			return err
		}))
		// What a writer notices of handshakes, and of logins.
		for what, attack := range map[string]func() error{
			"puts beside handshakes": func() error { return handshake(0) },
			"puts beside logins": func() error {
				_, err := auth.Authenticate(context.Background(), &pb.AuthenticateRequest{Name: "ann", Password: "ann"})
				return err
			},
		} {
			stop := make(chan struct{})
			var busy sync.WaitGroup
			for range 16 {
				busy.Add(1)
				go func() {
					defer busy.Done()
					for {
						select {
						case <-stop:
							return
						default:
							attack()
						}
					}
				}()
			}
			token := metadata.AppendToOutgoingContext(context.Background(), "token", side.login(t, "ann", "ann"))
			kv := pb.NewKVClient(dial(t, s))
			say(what, s.load(t, 1, 500, 5*time.Second, func(int) error {
				_, err := kv.Put(token, put("k", "v"))
				return err
			}))
			close(stop)
			busy.Wait()
		}
		side.Conn.Close()
	}
}
