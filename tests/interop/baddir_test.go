package interop

// Data directories that etch must not start on: a clear message, exit 1, and
// nothing in them touched.

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

// fingerprint hashes every file below a directory.
func fingerprint(t testing.TB, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	fine(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		sums[path] = fmt.Sprintf("%x of %d", sha256.Sum256(content), len(content))
		return err
	}))
	return sums
}

// filled makes a directory with some history in it and leaves it at rest.
func filled(t testing.TB, args ...string) *Server {
	t.Helper()
	s := startServer(t, "etch", args...)
	side := connect(t, s)
	for i := range 300 {
		if _, err := side.Call("KV/Put", put(fmt.Sprintf("k%03d", i%50), strings.Repeat("v", 500))); err != nil {
			t.Fatal(err)
		}
	}
	side.Conn.Close()
	s.Stop(t, syscall.SIGTERM)
	return s
}

// refuses starts the server and demands that it ends with exit code 1, says one
// of the words, and leaves the directory as it was.
func refuses(t *testing.T, s *Server, words ...string) {
	t.Helper()
	before := fingerprint(t, s.Dir)
	s.Launch(t)
	if code := s.AwaitExit(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	log := s.Log.String()
	if strings.Contains(log, "panicked at") {
		t.Errorf("it panicked")
	}
	found := false
	for _, w := range words {
		found = found || strings.Contains(strings.ToLower(log), w)
	}
	if !found {
		t.Errorf("none of %q in what it says", words)
	}
	after := fingerprint(t, s.Dir)
	for path, sum := range before {
		if after[path] != sum {
			t.Errorf("%s was touched", path)
		}
	}
	for path := range after {
		if before[path] == "" {
			t.Errorf("%s is new", path)
		}
	}
	if t.Failed() {
		t.Logf("the log:\n%s", s.Log.Tail())
	}
}

// only returns the one file that matches, or the first of several.
func only(t testing.TB, pattern string) string {
	t.Helper()
	found := ok[[]string](t)(filepath.Glob(pattern))
	if len(found) == 0 {
		t.Fatalf("nothing like %s", pattern)
	}
	return found[0]
}

func damage(t testing.TB, path string, at int64, with []byte) {
	t.Helper()
	f := ok[*os.File](t)(os.OpenFile(path, os.O_RDWR, 0))
	defer f.Close()
	ok[int](t)(f.WriteAt(with, at))
}

func TestBadDirectory(t *testing.T) {
	t.Parallel()
	if testingEtcd() {
		t.Skip("these are etch's manners: etcd panics, waits or goes on")
	}
	junk := []byte(strings.Repeat("\xde\xad", 32))
	t.Run("damaged log", func(t *testing.T) {
		t.Parallel()
		s := filled(t)
		damage(t, only(t, s.Dir+"/member/wal/*.wal"), 20_000, junk)
		refuses(t, s, ".wal")
	})
	t.Run("damaged head of the log", func(t *testing.T) {
		t.Parallel()
		s := filled(t)
		damage(t, only(t, s.Dir+"/member/wal/*.wal"), 0, junk)
		refuses(t, s, ".wal")
	})
	t.Run("damaged meta pages", func(t *testing.T) {
		t.Parallel()
		s := filled(t)
		db := s.Dir + "/member/snap/db"
		damage(t, db, 16, junk)
		damage(t, db, 4096+16, junk)
		refuses(t, s, "db")
	})
	t.Run("database cut short", func(t *testing.T) {
		t.Parallel()
		s := filled(t)
		fine(t, os.Truncate(s.Dir+"/member/snap/db", 8192))
		refuses(t, s, "db")
	})
	t.Run("database is gone", func(t *testing.T) {
		t.Parallel()
		s := filled(t, "--snapshot-count=50", "--snapshot-catchup-entries=10")
		fine(t, os.Remove(s.Dir+"/member/snap/db"))
		refuses(t, s, "db", "snapshot")
	})
	t.Run("first log file is gone", func(t *testing.T) {
		t.Parallel()
		s := filled(t)
		fine(t, os.Remove(only(t, s.Dir+"/member/wal/*.wal")))
		refuses(t, s, "wal")
	})
	t.Run("newer format", func(t *testing.T) {
		t.Parallel()
		s := filled(t)
		db := ok[*bbolt.DB](t)(bbolt.Open(s.Dir+"/member/snap/db", 0o600, nil))
		fine(t, db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte("3.8.0"))
		}))
		fine(t, db.Close())
		refuses(t, s, "3.8")
	})
	t.Run("not a directory", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, "etch")
		fine(t, os.WriteFile(s.Dir, []byte("a file"), 0o600))
		refuses(t, s, "data")
	})
	t.Run("in use", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, "etch")
		second := newServer(t, "etch")
		second.Dir = s.Dir
		second.Launch(t)
		if code := second.AwaitExit(t); code != 1 {
			t.Errorf("exit code %d\n%s", code, second.Log.Tail())
		}
		if log := strings.ToLower(second.Log.String()); !strings.Contains(log, "lock") && !strings.Contains(log, "in use") && !strings.Contains(log, "another process") {
			t.Errorf("it does not say that the directory is in use:\n%s", second.Log.Tail())
		}
		side := connect(t, s)
		if _, err := side.Call("KV/Put", put("a", "b")); err != nil {
			t.Errorf("the first server: %v", err)
		}
	})
	t.Run("another cluster", func(t *testing.T) {
		t.Parallel()
		s := filled(t)
		s.Args = []string{"--name=other", "--initial-cluster=other=http://127.0.0.1:2999", "--initial-advertise-peer-urls=http://127.0.0.1:2999", "--initial-cluster-token=elsewhere"}
		refuses(t, s, "cluster", "member", "name")
	})
}

// TestBadFlags (an unknown log level is not among them: etcd panics on it): what is wrong on the command line is said, and nothing starts.
func TestBadFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--no-such-flag"}, {"--snapshot-count=abc"}, {"--heartbeat-interval=2000", "--election-timeout=1000"}, {"--listen-client-urls=nonsense"},
		{"--auto-compaction-mode=sometimes"}, {"--initial-cluster=other=http://127.0.0.1:2380"}, {"--feature-gates=NoSuchGate=true"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			var codes []int
			for _, program := range []string{"etcd", "etch"} {
				s := newServer(t, program, args...)
				s.Launch(t)
				codes = append(codes, s.AwaitExit(t))
				if s.Log.String() == "" {
					t.Errorf("%s says nothing", program)
				}
			}
			if codes[0] != codes[1] {
				t.Errorf("etcd exits with %d, etch with %d", codes[0], codes[1])
			}
		})
	}
}
