package interop

// kill -9 under load: whatever was acknowledged is there after the restart,
// and no revision that anybody saw is lowered.

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

var (
	killsFlag = flag.Int("kills", 200, "how many times TestKill kills the server")
	killSeed  = flag.Uint64("kill-seed", 1, "the seed of TestKill's moments")
)

// mark is the last write of a writer on one of its keys: what was tried, what
// was acknowledged, and at which revision.
type mark struct{ tried, acked, rev int64 }

// ledger is what the writers know.
type ledger struct {
	mu    sync.Mutex
	keys  map[string]*mark
	seen  int64 // the highest revision in any reply
	acked int   // how many writes were acknowledged
}

func (l *ledger) at(key string) *mark {
	m := l.keys[key]
	if m == nil {
		m = &mark{}
		l.keys[key] = m
	}
	return m
}

func (l *ledger) saw(rev int64) { l.seen = max(l.seen, rev) }

// write makes one write with the next number and books its acknowledgement.
// Half of the writes are transactions on two keys, which must stay together.
func (l *ledger) write(ctx context.Context, kv pb.KVClient, writer, n int) error {
	key := fmt.Sprintf("w%d-%02d", writer, n%17)
	l.mu.Lock()
	m := l.at(key)
	m.tried++
	value := strconv.FormatInt(m.tried, 10)
	l.mu.Unlock()
	var h *pb.ResponseHeader
	if n%2 == 0 {
		r, err := kv.Put(ctx, put(key, value))
		if err != nil {
			return err
		}
		h = r.Header
	} else {
		r, err := kv.Txn(ctx, txn(nil, ops(opPut(put(key, value)), opPut(put("twin-"+key, value))), nil))
		if err != nil {
			return err
		}
		h = r.Header
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m.acked, m.rev = m.tried, h.Revision
	l.saw(h.Revision)
	l.acked++
	return nil
}

// verify reads everything after a restart and settles the ledger on what is there.
func (l *ledger) verify(t *testing.T, kv pb.KVClient, kill int) {
	t.Helper()
	r, err := kv.Range(timeout(), rng("\x00", "\x00"))
	if err != nil {
		t.Fatalf("kill %d: %v", kill, err)
	}
	if r.Header.Revision < l.seen {
		t.Errorf("kill %d: revision %d was seen, now the store is at %d", kill, l.seen, r.Header.Revision)
	}
	l.saw(r.Header.Revision)
	got, revs := map[string]int64{}, map[string]int64{}
	for _, e := range r.Kvs {
		v, err := strconv.ParseInt(string(e.Value), 10, 64)
		if err != nil {
			t.Fatalf("kill %d: %s holds %q", kill, e.Key, e.Value)
		}
		got[string(e.Key)], revs[string(e.Key)] = v, e.ModRevision
	}
	for key, m := range l.keys {
		have := got[key]
		if have < m.acked || have > m.tried {
			t.Errorf("kill %d: %s is %d, acknowledged was %d, tried %d", kill, key, have, m.acked, m.tried)
		}
		if have == m.acked && m.acked > 0 && revs[key] != m.rev {
			t.Errorf("kill %d: %s was acknowledged at revision %d, now it is at %d", kill, key, m.rev, revs[key])
		}
		m.tried, m.acked, m.rev = max(m.tried, have), have, revs[key]
	}
	for key, v := range got {
		if twin, ok := got["twin-"+key]; ok && revs["twin-"+key] == revs[key] && twin != v {
			t.Errorf("kill %d: half a transaction on %s: %d and %d", kill, key, v, twin)
		}
		if revs["twin-"+key] > revs[key] {
			t.Errorf("kill %d: half a transaction: only the twin of %s moved", kill, key)
		}
	}
}

// life lets writers run until the server is killed under them.
func (l *ledger) life(t *testing.T, s *Server, conn *grpc.ClientConn, after time.Duration, compactAt int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	kv := pb.NewKVClient(conn)
	for writer := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; ctx.Err() == nil; n++ {
				if l.write(ctx, kv, writer, n) != nil {
					return
				}
			}
		}()
	}
	if compactAt > 0 {
		go kv.Compact(ctx, &pb.CompactionRequest{Revision: compactAt})
	}
	time.Sleep(after)
	s.Stop(t, syscall.SIGKILL)
	cancel()
	wg.Wait()
}

func TestKill(t *testing.T) {
	t.Parallel()
	// Small counts, so that raft snapshots and cut logs are met as well.
	s := newServer(t, "etch", "--snapshot-count=500", "--snapshot-catchup-entries=100")
	g := rand.New(rand.NewPCG(*killSeed, 9))
	l := &ledger{keys: map[string]*mark{}}
	for kill := range *killsFlag {
		if g.IntN(10) == 0 && kill > 0 {
			// Some die while they are still starting.
			s.Launch(t)
			time.Sleep(time.Duration(g.IntN(150)) * time.Millisecond)
			s.Stop(t, syscall.SIGKILL)
		}
		s.Start(t)
		conn := dial(t, s)
		l.verify(t, pb.NewKVClient(conn), kill)
		compactAt := int64(0)
		if g.IntN(8) == 0 && l.seen > 300 {
			compactAt = l.seen - 100
		}
		l.life(t, s, conn, time.Duration(20+g.IntN(250))*time.Millisecond, compactAt)
		conn.Close()
		if kill%25 == 24 {
			checkFiles(t, s.Dir)
		}
		if t.Failed() {
			t.Fatalf("after %d kills\n%s", kill+1, s.Log.Tail())
		}
	}
	s.Start(t)
	side := connect(t, s)
	l.verify(t, pb.NewKVClient(side.Conn), *killsFlag)
	hash := side.Text("Maintenance/HashKV", &pb.HashKVRequest{Revision: l.seen})
	s.Stop(t, syscall.SIGKILL)
	t.Logf("%d kills, %d writes acknowledged, revision %d: %s", *killsFlag, l.acked, l.seen, hash)
	// A real etcd sees the same store.
	s.Program = "etcd"
	s.Start(t)
	other := connect(t, s)
	l.verify(t, pb.NewKVClient(other.Conn), *killsFlag)
}
