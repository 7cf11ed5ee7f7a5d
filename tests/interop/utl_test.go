package interop

// etcdutl and etchutl: the same command lines on the same files, and what one
// restored served by the other's server.

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// asEtcdutl is etch under the name that makes it etcdutl.
func asEtcdutl(t testing.TB) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "etcdutl")
	fine(t, os.Symlink(ok[string](t)(filepath.Abs(programs["etch"])), link))
	return link
}

// utl runs one of the tools in a directory: its output, its errors and its exit
// code. Lines of its log are left out, and stack traces in them.
func utl(program, dir string, args ...string) string {
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	cmd.Run()
	plain := logLine.ReplaceAllString(errs.String(), "")
	return strings.Join([]string{out.String(), plain, cmd.ProcessState.String()}, "--\n")
}

var logLine = regexp.MustCompile(`(?m)^(\d{4}-\d\d-\d\dT\S+\t.*|[a-z./]+(go\.|/v3).*|(main|runtime|github)\.\S*|\t/\S+\.go:\d+)\n`)

// snapshotOf fills a server and saves a snapshot of it.
func snapshotOf(t testing.TB, s *Server, path string) record {
	t.Helper()
	side := connect(t, s)
	writeSome(t, side, 1)
	writeSome(t, side, 2)
	file := ok[*os.File](t)(os.Create(path))
	defer file.Close()
	reader, err := newClient(t, s).Snapshot(t.Context())
	fine(t, err)
	ok[int64](t)(file.ReadFrom(reader))
	return takeRecord(t, side)
}

// withFiles makes a directory with good and bad snapshots and a restored data
// directory in it.
func withFiles(t testing.TB, snapshot []byte, restored string) string {
	t.Helper()
	dir := t.TempDir()
	flipped := bytes.Clone(snapshot)
	flipped[len(flipped)/2] ^= 0x55
	for name, data := range map[string][]byte{
		"s.db": snapshot, "cut.db": snapshot[:len(snapshot)-5000], "flipped.db": flipped,
		"empty.db": nil, "foreign.db": []byte("hello\n"),
	} {
		fine(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	fine(t, os.CopyFS(filepath.Join(dir, "rd"), os.DirFS(restored)))
	return dir
}

var utlLines = []string{
	"", "--help", "-h", "help", "help snapshot", "snapshot", "snapshot --help", "snapshot nosuch", "snapshot status --help",
	"snapshot status", "snapshot status a b", "snapshot status --nope x", "snapshot status nofile",
	"snapshot status s.db", "snapshot status s.db -w json", "snapshot status s.db --write-out=fields", "snapshot status -w=table s.db",
	"snapshot status s.db -wprotobuf", "snapshot status s.db -w nope",
	"snapshot restore", "snapshot restore --help", "snapshot restore nofile --data-dir x", "snapshot restore s.db --data-dir x",
	"snapshot restore s.db --data-dir rd", "snapshot restore s.db --data-dir x --wal-dir rd", "snapshot restore s.db --data-dir x --wal-dir w",
	"snapshot restore cut.db --data-dir x", "snapshot restore flipped.db --data-dir x", "snapshot restore empty.db --data-dir x",
	"snapshot restore foreign.db --data-dir x", "snapshot restore rd/member/snap/db --data-dir x",
	"snapshot restore rd/member/snap/db --data-dir x --skip-hash-check",
	"snapshot restore s.db --data-dir x --bump-revision 100", "snapshot restore s.db --data-dir x --mark-compacted",
	"snapshot restore s.db --data-dir x --bump-revision 100 --mark-compacted", "snapshot restore s.db --data-dir x --bump-revision x",
	"snapshot restore s.db --data-dir x --name foo", "snapshot restore s.db --data-dir x --initial-cluster default=htp://x",
	"snapshot restore s.db --data-dir x --initial-cluster default=http://localhost", "snapshot restore s.db --data-dir x --initial-cluster default",
	"snapshot restore s.db --data-dir x --initial-cluster default=http://localhost:2381",
	"snapshot restore s.db --data-dir x --initial-cluster a=http://localhost:1,b=http://localhost:2 --name a --initial-advertise-peer-urls http://localhost:1",
	"snapshot restore s.db --data-dir x --initial-cluster a=http://localhost:1,b=http://localhost:1 --name a --initial-advertise-peer-urls http://localhost:1",
	"snapshot restore s.db", "snapshot restore s.db --data-dir=x --initial-memory-map-size=-1",
	"hashkv", "hashkv a b", "hashkv s.db", "hashkv s.db --rev 100000", "hashkv s.db --rev 3", "hashkv s.db --rev 900", "hashkv s.db -w json",
	"hashkv s.db -w fields", "hashkv s.db -w table", "hashkv s.db -w protobuf", "hashkv s.db -w nope", "hashkv nofile", "hashkv --rev",
	"defrag", "defrag --data-dir rd", "defrag --data-dir nope", "defrag --help",
	"migrate", "migrate --data-dir rd", "migrate --help", "migrate --data-dir rd --target-version 3.7", "migrate --data-dir rd --target-version 3.6",
	"migrate --data-dir rd --target-version 3.5", "migrate --data-dir rd --target-version 3.4", "migrate --data-dir rd --target-version 3",
	"migrate --data-dir rd --target-version a.b", "migrate --data-dir rd --target-version 3.9", "migrate --data-dir rd --target-version 3.9 --force",
	"migrate --data-dir rd --target-version 3.5 --force", "migrate --data-dir nope --target-version 3.6",
	"version", "version --help", "completion", "completion nosh", "completion bash --help", "nosuch", "snapshto", "vers", "help nosuch",
	"sna stat s.db", "--timeout x version", "--timeout=1s version", "--timeout", "-w", "-z", "--=x",
	"__complete ''", "__complete snapshot ''", "__complete snapshot st", "__completeNoDesc ''", "__complete -w ''", "__complete completion b",
	"__complete snapshot restore --", "__complete hashkv ''", "__complete", "__complete -", "__complete --", "__complete nosuch ''", "__complete help sn", "__complete help snapshot ''", "__complete help nosuch ''", "help --help", "help defrag", "hashkv s.db --rev -1", "hashkv s.db --rev 1_0", "hashkv cut.db",
}

func TestUtlLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.db")
	snapshotOf(t, startServer(t, "etcd"), path)
	snapshot := ok[[]byte](t)(os.ReadFile(path))
	restored := filepath.Join(t.TempDir(), "rd")
	if out := utl(programs["etcdutl"], ".", "snapshot", "restore", path, "--data-dir", restored); !strings.HasSuffix(out, "exit status 0") {
		t.Fatal(out)
	}
	ours := asEtcdutl(t)
	for _, line := range utlLines {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(line)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "''", "")
			}
			want := utl(programs["etcdutl"], withFiles(t, snapshot, restored), args...)
			dir := withFiles(t, snapshot, restored)
			if have := utl(ours, dir, args...); have != want {
				t.Errorf("etcdutl:\n%s\netchutl:\n%s", want, have)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "x", "*.restoring")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestUtlRoundTrips restores what each server saved with each tool, and lets both
// servers serve the result.
func TestUtlRoundTrips(t *testing.T) {
	t.Parallel()
	tools := map[string]string{"etcd": programs["etcdutl"], "etch": asEtcdutl(t)}
	for _, saver := range []string{"etcd", "etch"} {
		path := filepath.Join(t.TempDir(), "s.db")
		want := snapshotOf(t, startServer(t, saver), path)
		for restorer, tool := range tools {
			t.Run(saver+" saves, "+restorer+" restores", func(t *testing.T) {
				t.Parallel()
				for _, server := range []string{"etcd", "etch"} {
					s := newServer(t, server)
					out := utl(tool, ".", "snapshot", "restore", path, "--data-dir", s.Dir,
						"--initial-cluster=default="+peerURL, "--initial-advertise-peer-urls="+peerURL)
					if !strings.HasSuffix(out, "exit status 0") {
						t.Fatal(out)
					}
					whole(t, tools["etch"], s.Dir)
					s.Start(t)
					side := connect(t, s)
					takeRecord(t, side).same(t, want, server)
					ok[*pb.PutResponse](t)(pb.NewKVClient(side.Conn).Put(t.Context(), put("new", "x")))
					s.Restart(t, syscall.SIGKILL)
					s.Stop(t, syscall.SIGTERM)
					whole(t, tools["etch"], s.Dir)
				}
			})
		}
	}
}

// whole lets `etchutl verify` look at a directory.
func whole(t testing.TB, tool, dir string) {
	t.Helper()
	if out := utl(tool, ".", "verify", dir); !strings.HasSuffix(out, "exit status 0") {
		t.Errorf("verify %s: %s", dir, out)
	}
}

// TestUtlBumpsTheRevision is what an operator does so that watchers do not go
// back in time after a restore.
func TestUtlBumpsTheRevision(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.db")
	before := snapshotOf(t, startServer(t, "etch"), path)
	for tool, program := range map[string]string{"etcdutl": programs["etcdutl"], "etchutl": asEtcdutl(t)} {
		for _, server := range []string{"etcd", "etch"} {
			t.Run(tool+", "+server, func(t *testing.T) {
				t.Parallel()
				s := newServer(t, server)
				out := utl(program, ".", "snapshot", "restore", path, "--data-dir", s.Dir, "--bump-revision=1000", "--mark-compacted",
					"--initial-cluster=default="+peerURL, "--initial-advertise-peer-urls="+peerURL)
				if !strings.HasSuffix(out, "exit status 0") {
					t.Fatal(out)
				}
				s.Start(t)
				c := newClient(t, s)
				bumped := before.hash.Header.Revision + 1000
				got := ok[*clientv3.GetResponse](t)(c.Get(t.Context(), "\x00", clientv3.WithFromKey()))
				if got.Header.Revision != bumped || got.Count == 0 {
					t.Errorf("revision %d with %d keys, want %d", got.Header.Revision, got.Count, bumped)
				}
				w := next(t, c.Watch(t.Context(), "k", clientv3.WithPrefix(), clientv3.WithRev(before.hash.Header.Revision)))
				if w.CompactRevision != bumped {
					t.Errorf("compacted to %d, want %d: %v", w.CompactRevision, bumped, w)
				}
			})
		}
	}
}

// TestUtlFindsDamage damages each kind of file; verify names it, and changes
// nothing.
func TestUtlFindsDamage(t *testing.T) {
	t.Parallel()
	tool := asEtcdutl(t)
	junk := bytes.Repeat([]byte("\xde\xad"), 32)
	for _, server := range []string{"etcd", "etch"} {
		for name, hurt := range map[string]func(dir string) string{
			"log": func(dir string) string {
				f := only(t, dir+"/member/wal/0*.wal")
				damage(t, f, 20_000, junk)
				return "wal"
			},
			"snapshot": func(dir string) string {
				f := only(t, dir+"/member/snap/*.snap")
				damage(t, f, 30, junk)
				return ".snap"
			},
			"db": func(dir string) string {
				// All pages but the two metas: which of them are free differs.
				db := dir + "/member/snap/db"
				size := ok[os.FileInfo](t)(os.Stat(db)).Size()
				for page := int64(2); page < size/4096; page++ {
					damage(t, db, page*4096, junk)
				}
				return "page"
			},
			"no log": func(dir string) string { fine(t, os.RemoveAll(dir+"/member/wal")); return "wal" },
		} {
			t.Run(server+", "+name, func(t *testing.T) {
				t.Parallel()
				s := startServer(t, server, "--snapshot-count=50")
				writeSome(t, connect(t, s), 1)
				if out := utl(tool, ".", "--timeout=100ms", "verify", s.Dir); !strings.Contains(out, "in use by another process") {
					t.Errorf("a server holds it, but: %s", out)
				}
				s.Stop(t, syscall.SIGTERM)
				whole(t, tool, s.Dir)
				word := hurt(s.Dir)
				before := fingerprint(t, s.Dir)
				out := utl(tool, ".", "verify", s.Dir)
				if !strings.HasSuffix(out, "exit status 1") || !strings.Contains(out, word) {
					t.Errorf("damaged, but: %s", out)
				}
				for file, sum := range fingerprint(t, s.Dir) {
					if before[file] != sum {
						t.Errorf("%s was changed", file)
					}
				}
				if name == "db" {
					return
				}
				if out := utl(tool, ".", "wal", "dump", s.Dir); name == "snapshot" && !strings.Contains(out, "put id=") {
					t.Errorf("a dump without a put: %s", clip(out, ""))
				}
			})
		}
	}
}
