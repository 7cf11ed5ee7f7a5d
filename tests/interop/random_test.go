package interop

// The seeded comparison: one long random sequence goes to etcd and to etch,
// equal replies at every step, equal hashes at the end.

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run TestRandom with this seed alone")
	seedsFlag = flag.Int("seeds", 5, "how many seeds TestRandom tries")
	stepsFlag = flag.Int("steps", 2000, "how many steps TestRandom makes for each seed")
)

// gen makes requests from a seed. It knows just enough of the store to ask
// for something that exists about as often as for something that does not.
type gen struct {
	*rand.Rand
	rev, compacted int64
	leases         []int64
}

func (g *gen) key() []byte {
	if g.IntN(60) == 0 {
		return nil
	}
	return []byte(fmt.Sprintf("%c%c", 'a'+g.IntN(4), 'a'+g.IntN(6)))
}

func (g *gen) value() []byte {
	if g.IntN(10) == 0 {
		return nil
	}
	return []byte(strings.Repeat(string(rune('a'+g.IntN(26))), 1+g.IntN(40)))
}

// span is a key with the end of a range, or none.
func (g *gen) span() (key, end []byte) {
	key = g.key()
	switch g.IntN(6) {
	case 0, 1:
		return key, nil
	case 2:
		return key, []byte{0}
	case 3:
		return []byte{0}, []byte{0}
	case 4:
		if len(key) > 0 {
			return key[:1], []byte{key[0] + 1}
		}
	}
	return key, g.key()
}

// revision is mostly one that can be read.
func (g *gen) revision() int64 {
	switch g.IntN(12) {
	case 0:
		return g.rev + 1 + int64(g.IntN(3))
	case 1:
		return g.compacted - int64(g.IntN(3))
	case 2:
		return g.compacted
	case 3:
		return -int64(g.IntN(3))
	}
	return g.compacted + g.Int64N(g.rev-g.compacted+1)
}

func (g *gen) lease() int64 {
	if len(g.leases) == 0 || g.IntN(8) == 0 {
		return int64(1 + g.IntN(40))
	}
	return g.leases[g.IntN(len(g.leases))]
}

func (g *gen) rangeReq() *pb.RangeRequest {
	r := &pb.RangeRequest{}
	r.Key, r.RangeEnd = g.span()
	maybe := func(n int, f func()) {
		if g.IntN(n) == 0 {
			f()
		}
	}
	maybe(3, func() { r.Limit = int64(g.IntN(6)) })
	maybe(3, func() { r.Revision = g.revision() })
	maybe(3, func() { r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(3)) })
	maybe(3, func() { r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(5)) })
	maybe(4, func() { r.Serializable = true })
	maybe(5, func() { r.KeysOnly = true })
	maybe(7, func() { r.CountOnly = true })
	maybe(6, func() { r.MinModRevision = g.revision() })
	maybe(6, func() { r.MaxModRevision = g.revision() })
	maybe(6, func() { r.MinCreateRevision = g.revision() })
	maybe(6, func() { r.MaxCreateRevision = g.revision() })
	return r
}

func (g *gen) putReq() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.IntN(3) == 0}
	if g.IntN(3) == 0 {
		r.Lease = g.lease()
	}
	if g.IntN(8) == 0 {
		r.IgnoreLease = true
		if g.IntN(4) != 0 {
			r.Lease = 0
		}
	}
	if g.IntN(8) == 0 {
		r.IgnoreValue = true
		if g.IntN(4) != 0 {
			r.Value = nil
		}
	}
	return r
}

func (g *gen) delReq() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: g.IntN(3) == 0}
	r.Key, r.RangeEnd = g.span()
	if g.IntN(3) != 0 {
		r.RangeEnd = nil
	}
	return r
}

func (g *gen) compare() *pb.Compare {
	c := compare("", "", results[g.IntN(4)], targets[g.IntN(5)], 0)
	c.Key = g.key()
	if g.IntN(3) == 0 {
		c.Key, c.RangeEnd = g.span()
	}
	switch u := c.TargetUnion.(type) {
	case *pb.Compare_Version:
		u.Version = int64(g.IntN(4))
	case *pb.Compare_CreateRevision:
		u.CreateRevision = g.revision()
	case *pb.Compare_ModRevision:
		u.ModRevision = g.revision()
	case *pb.Compare_Lease:
		u.Lease = g.lease()
	case *pb.Compare_Value:
		u.Value = g.value()
	}
	return c
}

func (g *gen) txnReq(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	branch := func() (o []*pb.RequestOp) {
		for range g.IntN(4) {
			switch g.IntN(7) {
			case 0, 1, 2:
				o = append(o, opPut(g.putReq()))
			case 3, 4:
				o = append(o, opRange(g.rangeReq()))
			case 5:
				o = append(o, opDel(g.delReq()))
			default:
				if depth < 3 {
					o = append(o, opTxn(g.txnReq(depth+1)))
				}
			}
		}
		return o
	}
	r.Success, r.Failure = branch(), branch()
	return r
}

// next picks the next request.
func (g *gen) next() (rpc string, req proto.Message) {
	switch n := g.IntN(100); {
	case n < 32:
		return "KV/Put", g.putReq()
	case n < 56:
		return "KV/Range", g.rangeReq()
	case n < 64:
		return "KV/DeleteRange", g.delReq()
	case n < 86:
		return "KV/Txn", g.txnReq(0)
	case n < 90:
		id := int64(1 + g.IntN(40))
		g.leases = append(g.leases, id)
		return "Lease/LeaseGrant", grant(id, 1000+100*int64(g.IntN(10)))
	case n < 93:
		id := g.lease()
		g.leases = slices.DeleteFunc(g.leases, func(l int64) bool { return l == id })
		return "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: id}
	case n < 94:
		return "Lease/LeaseLeases", &pb.LeaseLeasesRequest{}
	case n < 97:
		return "Maintenance/HashKV", &pb.HashKVRequest{Revision: g.revision()}
	case n < 98 || g.IntN(3) != 0:
		return "Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: g.lease(), Keys: true}
	}
	return "KV/Compact", compactTo(g.revision())
}

// answer makes the call and learns from the reply where the store is.
func (s *Side) answer(rpc string, req proto.Message) string {
	if r, ok := req.(*pb.LeaseTimeToLiveRequest); ok {
		return timeToLive(r.ID, r.Keys).do(s)
	}
	m, err := s.Call(rpc, req)
	if err != nil {
		return errText(err)
	}
	if h, ok := m.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		s.Set("rev", max(s.Get("rev"), h.GetHeader().Revision))
	}
	if c, ok := req.(*pb.CompactionRequest); ok {
		s.Set("compacted", c.Revision)
	}
	return text(m)
}

// randomWatches are the watches that stay open through a whole sequence.
func randomWatches() []*pb.WatchCreateRequest {
	return []*pb.WatchCreateRequest{
		wreq("\x00", "\x00", 0, prev, withID(1)), wreq("aa", "", 0, withID(2)), wreq("a", "c", 0, noDelete, withID(3)),
		wreq("b", "\x00", 0, noPut, prev, withID(4)), wreq("cc", "dd", 1, fragment, withID(5)),
	}
}

func TestRandom(t *testing.T) {
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = nil
		for i := range *seedsFlag {
			seeds = append(seeds, uint64(1000+i))
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			randomSequence(t, seed, *stepsFlag)
		})
	}
}

func randomSequence(t *testing.T, seed uint64, steps int) {
	p := newPair(t)
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 1)), rev: 1}
	sides := []*Side{p.A, p.B}
	// One stream for each watch: then the order of what comes is given.
	watches := map[*Side][]*watchStream{}
	for _, s := range sides {
		for _, r := range randomWatches() {
			w := s.openWatch()
			defer w.cancel()
			w.create(r)
			w.want(1)
			watches[s] = append(watches[s], w)
		}
	}
	for i := range steps {
		rpc, req := g.next()
		p.Both(t, func(s *Side) string { return s.answer(rpc, req) })
		g.rev, g.compacted = p.A.Get("rev"), p.A.Get("compacted")
		if g.IntN(40) == 0 {
			key, end := g.span()
			r := wreq(string(key), string(end), max(1, g.revision()), prev)
			if r.StartRevision <= g.rev {
				p.Both(t, func(s *Side) string { return s.past(r) })
				req = r
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d, step %d: %s %s", seed, i, rpc, text(req))
		}
	}

	p.Both(t, func(s *Side) string {
		out := ""
		for i, w := range watches[s] {
			w.drain()
			out += fmt.Sprintf("watch %d\n%s", i, w.out.String())
		}
		return out
	})
	end := p.A.Get("rev")
	for _, rev := range []int64{0, p.A.Get("compacted"), (p.A.Get("compacted") + end) / 2, end - 1, end} {
		p.Both(t, func(s *Side) string { return s.Text("Maintenance/HashKV", &pb.HashKVRequest{Revision: rev}) })
	}
	p.Both(t, func(s *Side) string { return s.Text("KV/Range", rng("\x00", "\x00")) })
	t.Logf("seed %d: %d steps to revision %d, compacted to %d", seed, steps, end, p.A.Get("compacted"))
}

// past opens a watch in the past and reads up to the present.
func (s *Side) past(r *pb.WatchCreateRequest) string {
	w := s.openWatch()
	defer w.cancel()
	w.create(r)
	w.want(1)
	if strings.Contains(w.out.String(), `"canceled":true`) {
		return w.out.String()
	}
	if s.Get("compacted") > r.StartRevision {
		w.want(1)
		return w.out.String()
	}
	w.drain()
	return w.out.String()
}
