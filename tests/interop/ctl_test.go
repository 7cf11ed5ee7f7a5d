package interop

// The real etcdctl against both servers: the same commands, the same output.

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// what differs between two runs of etcdctl without meaning anything
var ctlMasks = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`lease [0-9a-f]{16}`), "lease LEASE"},
	{regexp.MustCompile(`"(dbSize|dbSizeInUse|raftIndex|raftAppliedIndex)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"(DBSize|DBSizeInUse|RaftIndex|RaftAppliedIndex|RaftAppliedIndex)" : \d+`), `"$1" : N`},
	{regexp.MustCompile(`took = \S+`), "took = T"},
	{regexp.MustCompile(`took \S+`), "took T"},
	{regexp.MustCompile(`"took":"[^"]*"`), `"took":"T"`},
	{regexp.MustCompile(`remaining\(\d+s\)`), "remaining(Ns)"},
	{regexp.MustCompile(`"ttl":\d+`), `"ttl":N`},
	{regexp.MustCompile(`\d+(\.\d+)? [kM]B`), "SIZE"},
	// the client's own log
	{regexp.MustCompile(`(?m)^\{"level":.*\n`), ""},
}

// ctl runs etcdctl and writes down its output and how it ended.
func (s *Side) ctl(stdin string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, programs["etcdctl"], append([]string{"--endpoints=" + s.Endpoint()}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return s.mask(string(out)) + fmt.Sprintf("(%v)", err)
}

func (s *Side) mask(out string) string {
	out = strings.ReplaceAll(out, s.Endpoint(), "ENDPOINT")
	out = strings.ReplaceAll(out, filepath.Dir(s.Dir), "DIR")
	for _, m := range ctlMasks {
		out = m.what.ReplaceAllString(out, m.with)
	}
	return oneCluster(out)
}

func ctl(args ...string) step {
	return step{strings.ReplaceAll("etcdctl "+strings.Join(args, " "), "/", "|"), func(s *Side) string { return s.ctl("", args...) }}
}

func ctlIn(stdin string, args ...string) step {
	return step{"etcdctl " + strings.Join(args, " "), func(s *Side) string { return s.ctl(stdin, args...) }}
}

// ctlLines runs an etcdctl that does not end by itself, until it has printed n
// lines; during runs once it has printed the first `after` of them.
func ctlLines(n, after int, during func(s *Side), args ...string) step {
	return step{"etcdctl " + strings.Join(args, " "), func(s *Side) string {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, programs["etcdctl"], append([]string{"--endpoints=" + s.Endpoint()}, args...)...)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return err.Error()
		}
		if err := cmd.Start(); err != nil {
			return err.Error()
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		if after == 0 && during != nil {
			during(s)
		}
		out := ""
		in := bufio.NewScanner(pipe)
		for i := 1; i <= n && in.Scan(); i++ {
			out += in.Text() + "\n"
			if i == after {
				during(s)
			}
		}
		return s.mask(out)
	}}
}

func ctlBasics() []step {
	var steps []step
	for i, k := range []string{"a", "b", "c", "dir/1", "dir/2", "dir/3"} {
		steps = append(steps, ctl("put", k, fmt.Sprint("value ", i)))
	}
	return append(steps,
		ctl("put", "a", "again", "--prev-kv"), ctl("put", "a", "--ignore-value"), ctlIn("from stdin", "put", "piped"),
		ctl("put", "bad", "x", "--lease=123"), ctl("put", "", "x"),
		ctl("get", "a"), ctl("get", "a", "-w", "json"), ctl("get", "a", "-w", "fields"), ctl("get", "a", "-w", "protobuf"), ctl("get", "a", "--hex"),
		ctl("get", "nothing"), ctl("get", "", "--prefix"), ctl("get", "dir/", "--prefix", "--keys-only"), ctl("get", "dir/", "--prefix", "--count-only", "-w", "fields"),
		ctl("get", "a", "c"), ctl("get", "b", "--from-key", "--limit=2"), ctl("get", "", "--prefix", "--sort-by=MODIFY", "--order=DESCEND", "--print-value-only"),
		ctl("get", "a", "--rev=2"), ctl("get", "a", "--rev=999"), ctl("get", "a", "--consistency=s"), ctl("get", "", "--prefix", "--stream"), ctl("get", "", "--prefix", "--min-mod-rev=4", "--max-create-rev=6"),
		ctl("get", "a", "--sort-by=NONSENSE"),
		ctl("del", "b"), ctl("del", "b"), ctl("del", "dir/1", "--prev-kv"), ctl("del", "dir/2", "--range"),
		ctlIn("mod(\"a\") > \"0\"\n\nput t 1\nget a\n\nput t 2\n\n", "txn", "-i"),
		ctlIn("value(\"a\") = \"nope\"\n\nput t 1\n\nput t 2\ndel c\nget t\n\n", "txn", "-i"),
		ctlIn("nonsense\n\n\n\n", "txn", "-i"),
		ctlIn("\nput a 1\nput a 2\n\n\n", "txn"),
		ctlIn("create(\"zz\") = \"0\"\n\nput zz 1\n\nget zz\n\n", "txn", "-w", "json"),
	)
}

func TestEtcdctl(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	save := step{"etcdctl snapshot save", func(s *Side) string {
		file := filepath.Join(filepath.Dir(s.Dir), "snap.db")
		out := s.ctl("", "snapshot", "save", file)
		// The progress lines hold times and sizes; the last one is for people.
		lines := strings.Split(strings.TrimSpace(out), "\n")
		return strings.Join(lines[max(0, len(lines)-3):], "\n")
	}}
	status := func(args ...string) step { return ctl(append([]string{"endpoint", "status"}, args...)...) }
	steps := append(ctlBasics(),
		ctl("lease", "grant", "-5"), ctl("lease", "grant", "99999999999"), ctl("lease", "revoke", "1234abcd"), ctl("lease", "timetolive", "1234abcd"),
		ctlLines(7, 1, func(s *Side) { s.ctl("", "put", "w", "live"); s.ctl("", "del", "w") }, "watch", "a", "--rev=1", "--prefix"),
		ctlLines(3, 0, nil, "watch", "zz", "--rev=1"),
		ctl("member", "list"), ctl("member", "list", "-w", "json"), ctl("member", "list", "-w", "table"), ctl("member", "list", "-w", "fields"),
		ctl("member", "remove", "1234"), ctl("member", "add", "x", "--peer-urls=nonsense"), ctl("member", "promote", "1234"), ctl("member", "update", "1234", "--peer-urls=http://127.0.0.1:5"),
		ctl("alarm", "list"), ctl("alarm", "disarm"),
		status("-w", "json"), status("-w", "fields"),
		ctl("endpoint", "health"), ctl("endpoint", "health", "-w", "json"), ctl("endpoint", "hashkv"), ctl("endpoint", "hashkv", "-w", "json"), ctl("endpoint", "hashkv", "--rev=5"),
		ctl("move-leader", "1234"), ctl("downgrade", "validate", "3.6"), ctl("downgrade", "validate", "3.5"), ctl("downgrade", "cancel"),
		ctl("auth", "status"),
		ctl("compaction", "6"), ctl("compaction", "6"), ctl("compaction", "9999"), ctl("compaction", "8", "--physical"), ctl("get", "a", "--rev=3"),
		ctl("watch", "a", "--rev=1"),
		ctl("endpoint", "hashkv", "-w", "json"),
		ctl("defrag"), ctl("get", "", "--prefix"), save, ctl("version"),
		// Last, for the ids that a server picks are hashed with the keys.
		ctl("lease", "grant", "1000"),
		step{"lease", func(s *Side) string {
			out := s.ctl("", "lease", "grant", "500", "-w", "json")
			var id int64
			if i := strings.Index(out, `"ID":`); i < 0 {
				return out
			} else if _, err := fmt.Sscanf(out[i:], `"ID":%d`, &id); err != nil {
				return out + err.Error()
			}
			hex := fmt.Sprintf("%x", id)
			text := ""
			for _, args := range [][]string{
				{"put", "leased", "x", "--lease=" + hex}, {"get", "leased"}, {"lease", "timetolive", hex}, {"lease", "timetolive", hex, "--keys"},
				{"lease", "keep-alive", "--once", hex}, {"lease", "revoke", hex}, {"get", "leased"}, {"lease", "timetolive", hex}, {"lease", "keep-alive", "--once", hex},
			} {
				text += strings.ReplaceAll(s.ctl("", args...), hex, "LEASE") + "\n"
			}
			return text
		}},
	)
	runSteps(t, p, steps)
}
