package interop

// etcd and etch in turn on one directory.

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// record is what a server said of its store before it ended.
type record struct {
	hash    *pb.HashKVResponse
	all     string
	leases  []int64
	history string
}

func takeRecord(t testing.TB, s *Side) record {
	t.Helper()
	ctx := timeout()
	hash, err := pb.NewMaintenanceClient(s.Conn).HashKV(ctx, &pb.HashKVRequest{})
	if err != nil {
		t.Fatalf("%s: %v\n%s", s.Program, err, s.Log.Tail())
	}
	kvs, err := pb.NewKVClient(s.Conn).Range(ctx, rng("\x00", "\x00"))
	if err != nil {
		t.Fatal(err)
	}
	leases, err := pb.NewLeaseClient(s.Conn).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	r := record{hash: hash}
	// The term grows with every start; all else stays.
	hash.Header.RaftTerm, kvs.Header.RaftTerm = 0, 0
	r.all = text(kvs)
	for _, l := range leases.Leases {
		r.leases = append(r.leases, l.ID)
	}
	slices.Sort(r.leases)
	for _, id := range r.leases {
		// How much time is left starts anew with the server.
		_, keys, _ := strings.Cut(timeToLive(id, true).do(s), `"grantedTTL"`)
		r.all += fmt.Sprintf("\nlease %d %s", id, keys)
	}
	w := s.openWatch()
	defer w.cancel()
	w.create(wreq("\x00", "\x00", hash.CompactRevision+1, prev))
	w.want(1)
	w.out.Reset()
	w.drain()
	r.history = w.out.String()
	return r
}

func (r record) same(t testing.TB, before record, who string) {
	t.Helper()
	if before.hash.HashRevision == 0 {
		// etcd 3.5 does not say it
		r.hash.HashRevision = 0
	}
	if a, b := text(before.hash), text(r.hash); a != b {
		t.Errorf("%s has another hash\nbefore %s\nnow    %s", who, a, b)
	}
	if r.all != before.all {
		t.Errorf("%s has other keys\nbefore %s\nnow    %s", who, clip(before.all, r.all), clip(r.all, before.all))
	}
	if !slices.Equal(r.leases, before.leases) {
		t.Errorf("%s has other leases: %v, before %v", who, r.leases, before.leases)
	}
	if r.history != before.history {
		t.Errorf("%s has another history\nbefore %s\nnow    %s", who, clip(before.history, r.history), clip(r.history, before.history))
	}
}

// writeSome is one turn's work: enough entries for several raft snapshots.
func writeSome(t testing.TB, s *Side, turn int) {
	t.Helper()
	check := func(_ any, err error) {
		if err != nil {
			t.Errorf("%s: %v", s.Program, err)
		}
	}
	base := int64(1000 + turn*100)
	for i := range int64(4) {
		check(s.Call("Lease/LeaseGrant", grant(base+i, 100_000)))
	}
	var wg sync.WaitGroup
	for c := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 60 {
				r := put(fmt.Sprintf("k%d-%02d", c, (i+turn*7)%30), fmt.Sprintf("turn %d of %s: %s", turn, s.Program, strings.Repeat("x", i*i%900)))
				if i%5 == 0 {
					r.Lease = base + int64(i%4)
				}
				check(s.Call("KV/Put", r))
				if i%11 == 0 {
					check(s.Call("KV/DeleteRange", del(fmt.Sprintf("k%d-%02d", c, (i+5)%30), fmt.Sprintf("k%d-%02d", c, (i+9)%30))))
				}
				if i%13 == 0 {
					check(s.Call("KV/Txn", txn(nil, ops(opPut(put(fmt.Sprintf("t%d-%d", c, i), "a")), opPut(put(fmt.Sprintf("u%d-%d", c, i), "b")), opDel(del(fmt.Sprintf("t%d-%d", c, i-13), ""))), nil)))
				}
			}
		}()
	}
	wg.Wait()
	check(s.Call("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: base + 1}))
	if turn%2 == 1 {
		m, err := s.Call("KV/Range", rng("x", ""))
		check(m, err)
		if err == nil {
			check(s.Call("KV/Compact", compactTo(m.(*pb.RangeResponse).Header.Revision-50)))
		}
	}
	if turn%4 == 3 {
		check(s.Call("Maintenance/Defragment", &pb.DefragmentRequest{}))
	}
	check(s.Call("KV/Put", put("last", fmt.Sprint(turn))))
}

// fileHash is what `etcdutl hashkv` prints.
type fileHash struct {
	Hash            uint32 `json:"hash"`
	HashRevision    int64  `json:"hashRevision"`
	CompactRevision int64  `json:"compactRevision"`
}

// checkFiles lets bbolt and etcdutl look at the files of a server at rest.
func checkFiles(t testing.TB, dir string) fileHash {
	t.Helper()
	db := filepath.Join(dir, "member", "snap", "db")
	if out, err := exec.Command(programs["bbolt"], "check", db).CombinedOutput(); err != nil || !strings.Contains(string(out), "OK") {
		t.Fatalf("bbolt check: %v\n%s", err, out)
	}
	out, err := exec.Command(programs["etcdutl"], "hashkv", db, "-w", "json").Output()
	if err != nil {
		t.Fatalf("etcdutl hashkv: %v\n%s", err, out)
	}
	var h fileHash
	if err := json.Unmarshal(out, &h); err != nil {
		t.Fatalf("etcdutl hashkv: %v\n%s", err, out)
	}
	return h
}

func TestTurns(t *testing.T) {
	t.Parallel()
	s := newServer(t, "etcd", "--snapshot-count=100", "--snapshot-catchup-entries=50")
	s.Env = []string{"ETCD_VERIFY=all"}
	var before record
	var atRest *fileHash
	for turn := range 10 {
		s.Program = []string{"etcd", "etch"}[turn%2]
		who := fmt.Sprintf("turn %d, %s", turn, s.Program)
		s.Start(t)
		side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
		if turn > 0 {
			takeRecord(t, side).same(t, before, who)
			checkAtRest(t, side, atRest, who)
		}
		writeSome(t, side, turn)
		before = takeRecord(t, side)
		if !strings.Contains(s.Log.String(), "saved snapshot") {
			t.Errorf("%s saved no raft snapshot", who)
		}
		// Ends of both kinds come for both programs.
		sig := syscall.SIGTERM
		if turn%4 >= 2 {
			sig = syscall.SIGKILL
		}
		side.Conn.Close()
		s.Stop(t, sig)
		h := checkFiles(t, s.Dir)
		atRest = &h
		if sig == syscall.SIGTERM && (h.Hash != before.hash.Hash || h.HashRevision != before.hash.HashRevision) {
			t.Errorf("%s: etcdutl hashkv says %+v after a clean stop, the server had said %s", who, h, text(before.hash))
		}
		if t.Failed() {
			t.Fatalf("%s\n%s", who, s.Log.Tail())
		}
	}
	s.Program = "etcd"
	s.Start(t)
	side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
	takeRecord(t, side).same(t, before, "etcd at the end")
}

// checkAtRest compares what etcdutl read from the file at rest with what the
// next server says of that revision. After a kill the file may be behind.
func checkAtRest(t testing.TB, s *Side, h *fileHash, who string) {
	t.Helper()
	r, err := pb.NewMaintenanceClient(s.Conn).HashKV(context.Background(), &pb.HashKVRequest{Revision: h.HashRevision})
	if err != nil || r.CompactRevision != h.CompactRevision {
		return
	}
	if r.Hash != h.Hash {
		t.Errorf("%s: at revision %d the file's hash was %d, the server says %d", who, h.HashRevision, h.Hash, r.Hash)
	}
}
