package interop

// The servers of a scenario: a cluster of etch or etcd behind a proxy for each
// member, and what can befall them.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// world is a cluster.
type world struct {
	members []*Server
	proxies []*proxy
	other   *Server // another cluster, once there is one
	direct  *clientv3.Client
}

// newWorld starts it. Members that hear nothing for so long elect another leader.
func newWorld(t testing.TB, program string, members int, election time.Duration) *world {
	t.Helper()
	w := &world{}
	var peers, cluster []string
	token := strconv.Itoa(freePort(t))
	for i := range members {
		s := newServer(t, program)
		s.Log = &Log{waits: map[string]chan struct{}{}}
		w.members = append(w.members, s)
		w.proxies = append(w.proxies, newProxy(t, s.Endpoint()))
		peers = append(peers, fmt.Sprintf("http://127.0.0.1:%d", freePort(t)))
		cluster = append(cluster, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i, s := range w.members {
		s.Own = []string{
			fmt.Sprintf("--name=m%d", i),
			"--data-dir=" + s.Dir,
			"--listen-client-urls=http://" + s.Endpoint(),
			"--advertise-client-urls=http://" + w.proxies[i].addr,
			"--listen-peer-urls=" + peers[i],
			"--initial-advertise-peer-urls=" + peers[i],
			"--initial-cluster=" + strings.Join(cluster, ","),
			"--initial-cluster-token=t" + token,
			"--heartbeat-interval=" + strconv.FormatInt((election/10).Milliseconds(), 10),
			"--election-timeout=" + strconv.FormatInt(election.Milliseconds(), 10),
			"--auth-token-ttl=10",
		}
		s.Launch(t)
	}
	var direct []string
	for _, s := range w.members {
		fine(t, s.awaitReady())
		direct = append(direct, s.Endpoint())
	}
	w.direct = ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{Endpoints: direct, Logger: zap.NewNop()}))
	t.Cleanup(func() { w.direct.Close() })
	return w
}

// endpoints are those of the proxies, then those of the members.
func (w *world) endpoints() []string {
	var list []string
	for _, p := range w.proxies {
		list = append(list, p.addr)
	}
	for _, s := range w.members {
		list = append(list, s.Endpoint())
	}
	return list
}

// reset heals everything and leaves an empty store.
func (w *world) reset(t testing.TB) {
	t.Helper()
	for _, fault := range []string{"resume all", "start all", "heal all", "restore 0"} {
		w.befall(t, strings.Fields(fault))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := w.empty(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Errorf("the cluster does not heal: %v\n%s", err, w.members[0].Log.Tail())
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) empty(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := w.authOff(short); err != nil {
		return err
	}
	leases, err := w.direct.Leases(short)
	if err != nil {
		return err
	}
	for _, l := range leases.Leases {
		w.direct.Revoke(short, l.ID)
	}
	if _, err := w.direct.Delete(short, "\x00", clientv3.WithFromKey()); err != nil {
		return err
	}
	return w.settle(short)
}

// settle waits until every member has heard of everything, so that a read of
// its own state shows it.
func (w *world) settle(ctx context.Context) error {
	for _, s := range w.members {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		for {
			_, err = c.Get(ctx, "x")
			// A member that wants to know who asks has caught up all the same.
			if errors.Is(err, rpctypes.ErrUserEmpty) {
				err = nil
			}
			if err == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// authOff turns users off, if they are on, and forgets all of them.
func (w *world) authOff(ctx context.Context) error {
	root, err := clientv3.New(clientv3.Config{
		Endpoints: w.direct.Endpoints(), Username: "root", Password: "r", Logger: zap.NewNop(), DialTimeout: patience,
	})
	if err == nil {
		defer root.Close()
		_, err = root.AuthDisable(ctx)
	}
	if err != nil && !strings.Contains(err.Error(), "authentication is not enabled") {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	for _, name := range []string{"root", "alice"} {
		if _, err := w.direct.UserDelete(ctx, name); err != nil && !errors.Is(err, rpctypes.ErrUserNotFound) {
			return err
		}
	}
	for _, name := range []string{"root", "writer"} {
		if _, err := w.direct.RoleDelete(ctx, name); err != nil && !errors.Is(err, rpctypes.ErrRoleNotFound) {
			return err
		}
	}
	return w.settle(ctx)
}

// befall does something to the servers, and answers when it is done.
func (w *world) befall(t testing.TB, fault []string) string {
	if len(fault) != 2 {
		return fmt.Sprintf("what is %q?", fault)
	}
	if fault[0] == "settle" {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := w.settle(ctx); err != nil {
			return err.Error()
		}
		return "ok"
	}
	for _, i := range w.meant(fault[1], fault[0] == "isolate") {
		s, p := w.members[i], w.proxies[i]
		switch fault[0] {
		case "kill":
			s.cmd.Process.Signal(syscall.SIGKILL)
			<-s.exited
		case "start":
			select {
			case <-s.exited:
				s.Launch(t)
			default:
			}
		case "pause", "isolate":
			s.cmd.Process.Signal(syscall.SIGSTOP)
		case "resume":
			s.cmd.Process.Signal(syscall.SIGCONT)
		case "cut", "hold":
			p.set(fault[0])
		case "heal":
			p.set("")
		case "replace":
			if w.other == nil {
				w.other = startServer(t, s.Program, "--initial-cluster-token=other")
			}
			p.to(w.other.Endpoint())
		case "restore":
			p.to(s.Endpoint())
		default:
			return fmt.Sprintf("what is %q?", fault)
		}
	}
	if fault[0] == "start" {
		for _, s := range w.members {
			if err := s.awaitReady(); err != nil {
				return err.Error()
			}
		}
	}
	return "ok"
}

// meant gives the members that a word means: a number, all, the leader, the
// first that is not; with others, all but those.
func (w *world) meant(who string, others bool) []int {
	var list []int
	leader := -1
	if who == "leader" || who == "follower" {
		leader = w.leader()
	}
	for i := range w.members {
		is := who == "all" || who == strconv.Itoa(i) || (who == "leader" && i == leader) ||
			(who == "follower" && i != leader && len(list) == 0)
		if is != others {
			list = append(list, i)
		}
	}
	return list
}

// leader waits until there is one.
func (w *world) leader() int {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for i, s := range w.members {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			r, err := w.direct.Status(ctx, s.Endpoint())
			cancel()
			if err == nil && r.Leader == r.Header.MemberId {
				return i
			}
		}
	}
	return -1
}

// proxy passes bytes on between a client and a member, until it is told
// otherwise: "cut" closes all connections, "hold" holds the answers back.
type proxy struct {
	addr  string
	mu    sync.Mutex
	turn  *sync.Cond
	mode  string
	at    string
	conns map[net.Conn]struct{}
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	for err != nil { // Another process was faster.
		l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	}
	p := &proxy{addr: l.Addr().String(), at: to, conns: map[net.Conn]struct{}{}}
	p.turn = sync.NewCond(&p.mu)
	t.Cleanup(func() { l.Close(); p.set("cut") })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) set(mode string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = mode
	if mode == "cut" {
		for c := range p.conns {
			c.Close()
		}
	}
	p.turn.Broadcast()
}

func (p *proxy) to(at string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = at
}

// enter counts the connections of a pair, unless all are cut.
func (p *proxy) enter(pair ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == "cut" {
		return false
	}
	for _, c := range pair {
		p.conns[c] = struct{}{}
	}
	return true
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	server, err := net.Dial("tcp", at)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.enter(client, server) {
		return
	}
	done := make(chan struct{}, 2)
	go func() { io.Copy(server, client); done <- struct{}{} }()
	go func() { p.answers(client, server); done <- struct{}{} }()
	<-done
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// answers passes on what the server says, or holds it back.
func (p *proxy) answers(client, server net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		for p.mode == "hold" {
			p.turn.Wait()
		}
		p.mu.Unlock()
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
