package interop

// Commands of etcdctl that last: watches, locks, elections, transactions that are
// typed. The real one and ours, told the same line by line through pipes, must
// print the same.

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// linkTo is etch under another name.
func linkTo(t testing.TB, name string) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), name)
	fine(t, os.Symlink(ok[string](t)(filepath.Abs(programs["etch"])), link))
	return link
}

// Live is a command that runs.
type Live struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	out   strings.Builder
	errs  strings.Builder
}

// live starts a command. Nothing may be left of it when the test ends.
func live(t testing.TB, s *Server, tool string, env []string, args ...string) *Live {
	t.Helper()
	cmd := exec.Command(tool, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "ETCDCTL_ENDPOINTS=" + s.Endpoint()}, env...)
	l := &Live{t: t, cmd: cmd, lines: make(chan string, 1000)}
	cmd.Stderr = &l.errs
	l.in = ok[io.WriteCloser](t)(cmd.StdinPipe())
	out := ok[io.ReadCloser](t)(cmd.StdoutPipe())
	fine(t, cmd.Start())
	go func() {
		defer close(l.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			l.lines <- in.Text()
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill() })
	return l
}

// await waits for so many lines more.
func (l *Live) await(n int) {
	l.t.Helper()
	late := time.After(patience)
	for ; n > 0; n-- {
		select {
		case line, more := <-l.lines:
			if !more {
				l.t.Fatalf("it ended; before that: %q, errors: %q", l.out.String(), l.errs.String())
			}
			l.out.WriteString(line + "\n")
		case <-late:
			l.t.Fatalf("%d lines more did not come; before that: %q", n, l.out.String())
		}
	}
}

func (l *Live) say(text string) { io.WriteString(l.in, text) }

// end waits for the command's end: all that it printed, its errors, its status.
func (l *Live) end() string {
	l.t.Helper()
	late := time.AfterFunc(patience, func() { l.cmd.Process.Kill() })
	defer late.Stop()
	for line := range l.lines {
		l.out.WriteString(line + "\n")
	}
	l.cmd.Wait()
	errs := regexp.MustCompile(`(?m)^\{"level":.*\n`).ReplaceAllString(l.errs.String(), "")
	return l.out.String() + "--\n" + errs + "--\n" + l.cmd.ProcessState.String()
}

// what differs from one run to the next
var liveMasks = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\b[0-9a-f]{15,16}\b`), "ID"},
	{regexp.MustCompile(`(evision"?(:| : )|progress notify: |REVISION=|LOCK_REV=)\d+`), "${1}N"},
	{regexp.MustCompile(`(ersion"(:| : )|"PUT" |l/ID )\d+`), "${1}N"},
	{regexp.MustCompile(`"lease":\d+`), `"lease":N`},
	{regexp.MustCompile(`"kvs":\[\{"key":"[^"]*"`), `"kvs":[{"key":"KEY"`},
}

func liveMask(text string) string {
	for _, m := range liveMasks {
		text = m.what.ReplaceAllString(text, m.with)
	}
	return oneCluster(text)
}

// A part is one conversation with a tool; it gives back what was said.
type part struct {
	name string
	play func(t testing.TB, s *Server, tool string) string
}

// rewrite puts every key of the parts back to where it was.
func rewrite(t testing.TB, s *Server, keys ...string) {
	t.Helper()
	for _, key := range keys {
		fine(t, exec.Command(programs["etcdctl"], "--endpoints="+s.Endpoint(), "put", key, "1").Run())
	}
}

func watchParts() []part {
	revision := func(t testing.TB, s *Server) string {
		rewrite(t, s, "w")
		resp, err := newClient(t, s).Get(t.Context(), "w")
		fine(t, err)
		return fmt.Sprint("--rev=", resp.Header.Revision)
	}
	follow := func(name string, n int, args ...string) part {
		return part{name, func(t testing.TB, s *Server, tool string) string {
			l := live(t, s, tool, nil, append([]string{"watch", "w", revision(t, s)}, args...)...)
			l.await(n)
			rewrite(t, s, "w")
			l.await(n)
			l.cmd.Process.Signal(syscall.SIGKILL)
			return l.end()
		}}
	}
	return []part{
		follow("simple", 3), follow("json", 1, "-w", "json"), follow("fields", 11, "-w", "fields"), follow("prev-kv", 5, "--prev-kv"), follow("hex", 3, "--hex"),
		follow("exec", 4, "--", "sh", "-c", "echo $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_REVISION"),
		{"exec that fails", func(t testing.TB, s *Server, tool string) string {
			return live(t, s, tool, nil, "watch", "w", revision(t, s), "--", "sh", "-c", "exit 3").end()
		}},
		{"key by variable", func(t testing.TB, s *Server, tool string) string {
			env := []string{"ETCDCTL_WATCH_KEY=w", "ETCDCTL_WATCH_RANGE_END=x"}
			l := live(t, s, tool, env, "watch", revision(t, s), "--", "echo", "hello")
			l.await(4)
			l.cmd.Process.Signal(syscall.SIGKILL)
			return l.end()
		}},
		{"interactive", func(t testing.TB, s *Server, tool string) string {
			l := live(t, s, tool, nil, "watch", "-i")
			l.say("watch w " + revision(t, s) + "\n")
			l.await(3)
			l.say("progress\n")
			l.await(1)
			l.say("\nnonsense\nwatch\nwatch a b --prefix\nwatch v " + revision(t, s) + " -- echo 'a  b'\n")
			rewrite(t, s, "v")
			l.await(3 + 4) // the other watch sees its key written by `revision`, too
			l.in.Close()
			return l.end()
		}},
		{"interactive, wrong", func(t testing.TB, s *Server, tool string) string {
			l := live(t, s, tool, nil, "watch", "-i")
			l.say("watch w --\n")
			return l.end()
		}},
	}
}

func lockParts() []part {
	held := func(name string, sig syscall.Signal, n int, args ...string) part {
		return part{name, func(t testing.TB, s *Server, tool string) string {
			l := live(t, s, tool, nil, args...)
			l.await(n)
			fine(t, l.cmd.Process.Signal(sig))
			return l.end()
		}}
	}
	// Whoever holds what the tool asks for is always the real etcdctl.
	behind := func(name, verb string, rest ...string) part {
		return part{name, func(t testing.TB, s *Server, tool string) string {
			args := append([]string{verb, "turns"}, rest...)
			first := live(t, s, programs["etcdctl"], nil, args...)
			first.await(2)
			second := live(t, s, tool, nil, args...)
			fine(t, first.cmd.Process.Signal(syscall.SIGINT))
			first.end()
			second.await(2)
			fine(t, second.cmd.Process.Signal(syscall.SIGTERM))
			return second.end()
		}}
	}
	command := func(name string, args ...string) part {
		return part{name, func(t testing.TB, s *Server, tool string) string {
			return live(t, s, tool, nil, append([]string{"lock", "l", "--"}, args...)...).end()
		}}
	}
	return []part{
		held("lock", syscall.SIGINT, 2, "lock", "l"), held("lock, json", syscall.SIGTERM, 1, "lock", "l", "-w", "json"),
		held("elect", syscall.SIGINT, 2, "elect", "e", "me"), held("elect, json", syscall.SIGTERM, 1, "elect", "e", "me", "-w", "json"),
		behind("lock, in turn", "lock"), behind("elect, in turn", "elect", "me"),
		command("command", "sh", "-c", "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV; cat; exit 7"), command("killed command", "sh", "-c", "kill -9 $$"), command("no command", "/no/such"),
		{"observe", func(t testing.TB, s *Server, tool string) string {
			leader := live(t, s, programs["etcdctl"], nil, "elect", "seen", "first")
			leader.await(2)
			l := live(t, s, tool, nil, "elect", "-l", "seen")
			l.await(2)
			fine(t, leader.cmd.Process.Signal(syscall.SIGINT))
			leader.end()
			next := live(t, s, programs["etcdctl"], nil, "elect", "seen", "second")
			// Interrupted before it says that it leads, it would leave a leader behind for as long as its lease lives.
			next.await(2)
			l.await(2)
			fine(t, l.cmd.Process.Signal(syscall.SIGINT))
			said := l.end()
			fine(t, next.cmd.Process.Signal(syscall.SIGINT))
			next.end()
			return said
		}},
		{"typed transaction", func(t testing.TB, s *Server, tool string) string {
			rewrite(t, s, "typed")
			l := live(t, s, tool, nil, "txn", "-i")
			l.await(1)
			l.say("value(\"typed\") = \"1\"\n\n")
			l.await(1)
			l.say("put typed \"a\\x41\"\nget typed\n\n")
			l.await(1)
			l.say("\n")
			return l.end()
		}},
	}
}

func TestCtlLive(t *testing.T) {
	t.Parallel()
	s := newServer(t, "etch")
	s.Start(t)
	ours := linkTo(t, "etcdctl")
	for _, p := range append(watchParts(), lockParts()...) {
		t.Run(p.name, func(t *testing.T) {
			want := liveMask(p.play(t, s, programs["etcdctl"]))
			got := liveMask(p.play(t, s, ours))
			if got != want {
				t.Errorf("etcdctl:\n%s\nours:\n%s", want, got)
			}
		})
	}
}

// A watch goes on where it was when its server comes back, and says so.
func TestCtlWatchComesBack(t *testing.T) {
	t.Parallel()
	s := newServer(t, "etch")
	s.Start(t)
	rewrite(t, s, "w")
	l := live(t, s, linkTo(t, "etcdctl"), nil, "watch", "w", "--rev=2")
	l.await(3)
	s.Restart(t, syscall.SIGKILL)
	rewrite(t, s, "w")
	l.await(3)
	l.cmd.Process.Signal(syscall.SIGKILL)
	said := l.end()
	want := regexp.MustCompile(`(?s)^PUT\nw\n1\nPUT\nw\n1\n--\nwatch: not connected to \S+ \(.*\), trying again\nwatch: connected to \S+\n--\n`)
	if !want.MatchString(said) {
		t.Errorf("said:\n%s", said)
	}
}
