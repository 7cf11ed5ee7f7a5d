package interop

// Databases in other shapes than ours: pages of 4 to 64 KiB, a list of free
// pages, values over many pages; and what is no database, or no room for one.

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// reshape copies a database into one with pages of this size. Some pages of it
// are free, and it lists them.
func reshape(t testing.TB, from, to string, pageSize int) {
	t.Helper()
	in := ok[*bolt.DB](t)(bolt.Open(from, 0o600, &bolt.Options{ReadOnly: true}))
	defer in.Close()
	out := ok[*bolt.DB](t)(bolt.Open(to, 0o600, &bolt.Options{PageSize: pageSize}))
	defer out.Close()
	fine(t, in.View(func(src *bolt.Tx) error {
		return out.Update(func(dst *bolt.Tx) error {
			return src.ForEach(func(name []byte, rows *bolt.Bucket) error {
				bucket, err := dst.CreateBucket(name)
				if err != nil {
					return err
				}
				return rows.ForEach(func(k, v []byte) error { return bucket.Put(bytes.Clone(k), bytes.Clone(v)) })
			})
		})
	}))
	scratch := []byte("scratch")
	fine(t, out.Update(func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucket(scratch)
		for i := range 200 {
			if err == nil {
				err = bucket.Put(fmt.Append(nil, i), bytes.Repeat([]byte("x"), 3000))
			}
		}
		return err
	}))
	fine(t, out.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(scratch) }))
	if free := out.Stats().FreePageN + out.Stats().PendingPageN; free == 0 {
		t.Error("no page is free")
	}
}

func TestPageSizes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.db")
	s := startServer(t, "etcd")
	side := connect(t, s)
	for i := range 3 {
		answer(t, side, "KV/Put", put(fmt.Sprint("big", i), strings.Repeat("b", 400_000+i)))
	}
	want := snapshotOf(t, s, path)
	for size := 4096; size <= 65536; size *= 2 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			db := filepath.Join(t.TempDir(), "db")
			reshape(t, path, db, size)
			for _, words := range []string{"snapshot status -w json", "hashkv -w json", "hashkv --rev=500 -w fields"} {
				args := append(strings.Fields(words), db)
				if a, b := utl(programs["etcdutl"], ".", args...), utl(asEtcdutl(t), ".", args...); a != b {
					t.Errorf("%s\netcdutl:\n%s\netchutl:\n%s", words, a, b)
				}
			}
			s := newServer(t, "etch")
			out := utl(asEtcdutl(t), ".", "snapshot", "restore", db, "--skip-hash-check", "--data-dir", s.Dir,
				"--initial-cluster=default="+peerURL, "--initial-advertise-peer-urls="+peerURL)
			if !strings.HasSuffix(out, "exit status 0") {
				t.Fatal(out)
			}
			s.Start(t)
			takeRecord(t, connect(t, s)).same(t, want, "etch")
			writeSome(t, connect(t, s), 3)
			s.Stop(t, syscall.SIGTERM)
			whole(t, asEtcdutl(t), s.Dir)
			if out, err := exec.Command(programs["bbolt"], "check", filepath.Join(s.Dir, "member", "snap", "db")).CombinedOutput(); err != nil {
				t.Errorf("bbolt check: %v\n%s", err, out)
			}
		})
	}
}

// TestNoRoom restores where there is no room: nothing is left behind.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root mounts a small file system")
	}
	path := filepath.Join(t.TempDir(), "s.db")
	s := startServer(t, "etch")
	for i := range 8 {
		answer(t, connect(t, s), "KV/Put", put(fmt.Sprint("big", i), strings.Repeat("b", 1_000_000)))
	}
	snapshotOf(t, s, path)
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("no small file system here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, 0) })
	fine(t, os.MkdirAll(filepath.Join(small, "held"), 0o700))
	for _, args := range [][]string{
		{"snapshot", "restore", path, "--data-dir", filepath.Join(small, "d")},
		{"snapshot", "restore", path, "--data-dir", filepath.Join(small, "held")},
	} {
		out := utl(asEtcdutl(t), ".", args...)
		if !strings.HasSuffix(out, "exit status 1") || !strings.Contains(out, "no space left on device") {
			t.Errorf("%v: %s", args, out)
		}
	}
	l := line{words: "snapshot save " + filepath.Join(small, "s.db")}
	side := connect(t, s)
	out := runTool(side, asEtcdctl(t), t.TempDir(), []string{"ETCDCTL_ENDPOINTS=" + s.Endpoint()}, l)
	if !strings.HasSuffix(out, "exit status 5") || !strings.Contains(strings.ToLower(out), "no space left on device") {
		t.Error(out)
	}
	var left []string
	fine(t, filepath.WalkDir(small, func(path string, _ os.DirEntry, err error) error {
		left = append(left, strings.TrimPrefix(path, small))
		return err
	}))
	if fmt.Sprint(left) != "[ /held]" {
		t.Errorf("left behind: %v", left)
	}
}
