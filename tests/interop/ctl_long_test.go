package interop

// Commands of ours that take long: what they show on a terminal, and only
// there; and make-mirror, between clusters with users.

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// withUsers makes a root and a user who may touch what begins with a prefix.
func withUsers(t testing.TB, c *clientv3.Client, user, prefix string) {
	t.Helper()
	for _, line := range []string{
		"user add root:r", "role add root", "user grant-role root root", "role add mine", "user add " + user + ":pw", "user grant-role " + user + " mine",
		"role grant-permission mine readwrite " + prefix + " --prefix", "auth enable",
	} {
		args := append([]string{"--endpoints=" + c.Endpoints()[0]}, strings.Fields(line)...)
		if out, err := exec.Command(programs["etcdctl"], args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// TestCtlMirror copies a prefix to another name in a cluster that wants to know
// who writes, from one that wants to know who reads, as it is and as it changes.
func TestCtlMirror(t *testing.T) {
	t.Parallel()
	from, to := startServer(t, "etch"), startServer(t, "etcd")
	source, copied := newClient(t, from), newClient(t, to)
	put := func(key, value string) {
		t.Helper()
		_, err := source.Put(t.Context(), key, value)
		fine(t, err)
	}
	for i := range 300 {
		put(fmt.Sprintf("p/%03d", i), fmt.Sprint(i))
	}
	put("other", "not mine")
	withUsers(t, copied, "writer", "q/")
	withUsers(t, source, "reader", "p/")
	source = rootOf(t, from)
	copied = rootOf(t, to)

	l := live(t, from, linkTo(t, "etcdctl"), nil, "make-mirror", to.Endpoint(), "--prefix=p/", "--dest-prefix=q/", "--user=reader:pw", "--dest-user=writer", "--dest-password=pw", "--max-txn-ops=5")
	same := func() (bool, string) {
		want := ok[*clientv3.GetResponse](t)(source.Get(t.Context(), "p/", clientv3.WithPrefix()))
		got := ok[*clientv3.GetResponse](t)(copied.Get(t.Context(), "", clientv3.WithPrefix()))
		var wanted, found []string
		for _, kv := range want.Kvs {
			wanted = append(wanted, "q/"+strings.TrimPrefix(string(kv.Key), "p/")+"="+string(kv.Value))
		}
		for _, kv := range got.Kvs {
			found = append(found, string(kv.Key)+"="+string(kv.Value))
		}
		return strings.Join(wanted, " ") == strings.Join(found, " "), fmt.Sprintf("%q, not %q; errors: %s", found, wanted, l.errs.String())
	}
	awaitYes(t, same)
	put("p/new", "1")
	var ops []clientv3.Op
	for i := range 20 {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("p/txn%02d", i), "x"))
	}
	_, err := source.Txn(t.Context()).Then(ops...).Commit()
	fine(t, err)
	_, err = source.Delete(t.Context(), "p/00", clientv3.WithPrefix())
	fine(t, err)
	awaitYes(t, same)
	fine(t, l.cmd.Process.Signal(syscall.SIGKILL))
	l.end()
}

func rootOf(t testing.TB, s *Server) *clientv3.Client {
	t.Helper()
	c := ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Username: "root", Password: "r", DialTimeout: patience}))
	t.Cleanup(func() { c.Close() })
	return c
}

// TestCtlProgress: a line that says how far a job has come, where a terminal
// shows it, and nothing of it in a log.
func TestCtlProgress(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("no script(1) to make a terminal")
	}
	s, other := startServer(t, "etch"), startServer(t, "etch")
	c := newClient(t, s)
	for i := range 50 {
		_, err := c.Put(t.Context(), fmt.Sprintf("k%02d", i), strings.Repeat("x", 10_000))
		fine(t, err)
	}
	dir, ctl, utl := t.TempDir(), linkTo(t, "etcdctl"), linkTo(t, "etcdutl")
	for i, line := range []struct{ command, shows string }{
		{ctl + " --endpoints=" + s.Endpoint() + " snapshot save s%d.db", "saving "},
		{utl + " snapshot restore s0.db --data-dir=r%d", "restoring "},
		{ctl + " --endpoints=" + s.Endpoint() + " defrag #%d", "defragmenting "},
		{utl + " defrag --data-dir=r1 #%d", "defragmenting "},
	} {
		run := func(n int, terminal bool) string {
			command := fmt.Sprintf(line.command, n)
			cmd := exec.Command("sh", "-c", command)
			if terminal {
				cmd = exec.Command(script, "-qec", command, "/dev/null")
			}
			var out bytes.Buffer
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
			if err := cmd.Run(); err != nil {
				t.Errorf("%s: %v: %s", command, err, out.String())
			}
			return out.String()
		}
		if text := run(i, true); !strings.Contains(text, "\r"+line.shows) {
			t.Errorf("a terminal does not see %q: %q", line.shows, text)
		}
		if text := run(i+10, false); strings.ContainsAny(text, "\r\x1b") || strings.Contains(text, line.shows+" ") {
			t.Errorf("a log sees a bar: %q", text)
		}
	}
	// One that goes on until it is ended.
	cmd := exec.Command(script, "-qefc", ctl+" --endpoints="+s.Endpoint()+" make-mirror "+other.Endpoint(), filepath.Join(dir, "typescript"))
	log := &Log{waits: map[string]chan struct{}{}}
	cmd.Stdout, cmd.Stderr = log, log
	seen := log.Seen("\rmirroring ")
	fine(t, cmd.Start())
	select {
	case <-seen:
	case <-time.After(patience):
		t.Errorf("a terminal does not see make-mirror's line: %q", log.String())
	}
	fine(t, cmd.Process.Signal(syscall.SIGTERM))
	cmd.Wait()
}

// awaitYes asks again and again until the answer is yes; how it is otherwise.
func awaitYes(t testing.TB, question func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		yes, how := question()
		if yes {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s", how)
		}
	}
}
