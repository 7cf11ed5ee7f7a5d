package interop

// A server as a process: started on a free loopback port and a directory,
// watched through its log, ended by its own process id.

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// readyLine is what scripts wait for in the log.
const readyLine = "ready to serve client requests"

// patience bounds every wait on a server; a loaded machine is slow.
const patience = 60 * time.Second

// nextPort counts upwards below the range from which the system takes the
// ports of outgoing connections, so that a port stays free over a restart.
// Those who run beside this process have ports of their own.
var nextPort atomic.Int32

func init() {
	first := 10000 + os.Getpid()*61%6000
	if given, err := strconv.Atoi(os.Getenv("INTEROP_PORTS")); err == nil {
		first = given
	}
	nextPort.Store(int32(first))
}

func freePort(t testing.TB) int {
	t.Helper()
	for range 2000 {
		port := int(nextPort.Add(1))
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// Log collects what a process prints, line by line.
type Log struct {
	mu    sync.Mutex
	text  bytes.Buffer
	waits map[string]chan struct{}
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	for want, c := range l.waits {
		if bytes.Contains(l.text.Bytes(), []byte(want)) {
			close(c)
			delete(l.waits, want)
		}
	}
	return len(p), nil
}

// Seen gives a channel that is closed once the log holds want.
func (l *Log) Seen(want string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan struct{})
	if bytes.Contains(l.text.Bytes(), []byte(want)) {
		close(c)
	} else {
		l.waits[want] = c
	}
	return c
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Tail is the end of the log, for messages.
func (l *Log) Tail() string {
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// Server is one server process and what is needed to start it again.
type Server struct {
	Program string   // "etcd" or "etch"
	Dir     string   // the data directory
	Port    int      // the client port
	Args    []string // further flags
	Own     []string // all of the flags, where they are others than these
	Env     []string // further variables
	Log     *Log
	Member  []string           // flags of a member of a cluster
	front   *frontend          // what clients talk to instead, if anything
	others  []*Server          // the other members, where it stands for a cluster; they live and die with it
	conns   []*grpc.ClientConn // to all members of the cluster
	cmd     *exec.Cmd
	exited  chan struct{}
	err     error
}

// peerURL is what every server advertises to peers. It is the same for all, so
// that member and cluster ids are the same on both sides of a comparison; the
// port that is really listened on is any.
const peerURL = "http://127.0.0.1:2380"

func newServer(t testing.TB, program string, args ...string) *Server {
	t.Helper()
	s := &Server{
		Program: program,
		Dir:     filepath.Join(t.TempDir(), "data"),
		Port:    freePort(t),
		Args:    args,
	}
	if behind != "" && program == "etch" {
		s.putBehind(t)
	}
	return s
}

// startServer starts a fresh server and ends it with the test.
func startServer(t testing.TB, program string, args ...string) *Server {
	t.Helper()
	s := newServer(t, program, args...)
	s.Start(t)
	return s
}

// Endpoint is host:port of the client port, or of what stands before it.
func (s *Server) Endpoint() string {
	if s.front != nil {
		return s.front.addr
	}
	return s.own()
}

func (s *Server) own() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

func (s *Server) flags() []string {
	if s.Own != nil {
		return s.Own
	}
	args := []string{
		"--name=default",
		"--data-dir=" + s.Dir,
		"--listen-client-urls=http://" + s.own(),
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:0",
		"--initial-advertise-peer-urls=" + peerURL,
		"--initial-cluster=default=" + peerURL,
	}
	return slices.Concat(args, s.Member, s.Args)
}

// Launch starts the process without waiting for it to be ready.
func (s *Server) Launch(t testing.TB) {
	t.Helper()
	for _, other := range s.others {
		other.Args, other.Env = s.Args, s.Env
		other.Launch(t)
	}
	s.Log = &Log{waits: map[string]chan struct{}{}}
	s.cmd = exec.Command(programs[s.Program], s.flags()...)
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, s.Env...)
	s.cmd.Stdout, s.cmd.Stderr = s.Log, s.Log
	// A server must not outlive a test run that was itself killed.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", s.Program, err)
	}
	exited := make(chan struct{})
	s.exited = exited
	cmd := s.cmd
	go func() {
		s.err = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		<-exited
	})
}

// Start starts the process and waits until it serves.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.Launch(t)
	if err := s.awaitReady(); err != nil {
		t.Fatalf("%s: %v\n%s", s.Program, err, s.Log.Tail())
	}
}

func (s *Server) awaitReady() error {
	select {
	case <-s.Log.Seen(readyLine):
		for _, other := range s.others {
			if err := other.awaitReady(); err != nil {
				return fmt.Errorf("another member: %w\n%s", err, other.Log.Tail())
			}
		}
		return nil
	case <-s.exited:
		return fmt.Errorf("ended before it was ready: %v", s.err)
	case <-time.After(patience):
		return errors.New("not ready in time")
	}
}

// Stop ends the process with a signal and waits for its end.
func (s *Server) Stop(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.cmd.Process.Signal(sig)
	s.AwaitExit(t)
	for _, other := range s.others {
		other.Stop(t, syscall.SIGKILL)
	}
}

// AwaitExit waits for the process to end and gives its exit code (-1 after a signal).
func (s *Server) AwaitExit(t testing.TB) int {
	t.Helper()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s does not end\n%s", s.Program, s.Log.Tail())
		return 0
	}
}

// Restart ends the process with a signal and starts it on the same directory.
func (s *Server) Restart(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.Stop(t, sig)
	s.Start(t)
}
