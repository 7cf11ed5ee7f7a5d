package interop

// The table: Range, Put, DeleteRange and RangeStream.

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// seedKV writes a small store in which every sort order is another one:
// several versions, deletions, re-creations and leases.
func seedKV() []step {
	var s []step
	s = append(s, call("seven", "Lease/LeaseGrant", grant(7, 3600)))
	for i, k := range []string{"k05", "k01", "k09", "k03", "a", "k07", "k02", "b", "k08", "k04", "z", "k06", "\x00", "\xff\xff"} {
		s = append(s, call("seed", "KV/Put", put(k, fmt.Sprintf("value-%02d", 99-7*i%50))))
	}
	for _, k := range []string{"k03", "k03", "k08", "a", "k01", "k03", "k08"} {
		s = append(s, call("again", "KV/Put", put(k, "again-"+k)))
	}
	s = append(s,
		call("gone", "KV/DeleteRange", del("k04", "")),
		call("gone", "KV/DeleteRange", del("k06", "k08")),
		call("back", "KV/Put", put("k06", "back")),
		call("leased", "KV/Put", &pb.PutRequest{Key: []byte("k02"), Value: []byte("l"), Lease: 7}),
		call("leased", "KV/Put", &pb.PutRequest{Key: []byte("k05"), Value: []byte(""), Lease: 7}),
		call("empty", "KV/Put", put("k09", "")),
	)
	return s
}

var spans = []struct{ name, key, end string }{
	{"one", "k03", ""}, {"missing", "nothing", ""}, {"deleted", "k04", ""}, {"prefix", "k", "l"},
	{"part", "k02", "k06"}, {"inverted", "k06", "k02"}, {"same", "k03", "k03"}, {"from", "k05", "\x00"},
	{"from-end", "\xff\xff\xff", "\x00"}, {"all", "\x00", "\x00"}, {"first", "\x00", ""}, {"last", "\xff\xff", ""},
	{"no-key", "", ""}, {"no-key-end", "", "k"}, {"no-key-all", "", "\x00"},
}

// rangeOptions are tried one at a time on every span, and at random together.
var rangeOptions = []struct {
	name string
	set  func(*pb.RangeRequest)
}{
	{"plain", func(*pb.RangeRequest) {}},
	{"limit1", func(r *pb.RangeRequest) { r.Limit = 1 }},
	{"limit3", func(r *pb.RangeRequest) { r.Limit = 3 }},
	{"limit1000", func(r *pb.RangeRequest) { r.Limit = 1000 }},
	{"limit-neg", func(r *pb.RangeRequest) { r.Limit = -1 }},
	{"limit-max", func(r *pb.RangeRequest) { r.Limit = 1<<63 - 1 }},
	{"rev2", func(r *pb.RangeRequest) { r.Revision = 2 }},
	{"rev9", func(r *pb.RangeRequest) { r.Revision = 9 }},
	{"rev23", func(r *pb.RangeRequest) { r.Revision = 23 }},
	{"rev-neg", func(r *pb.RangeRequest) { r.Revision = -5 }},
	{"rev-future", func(r *pb.RangeRequest) { r.Revision = 1000 }},
	{"serial", func(r *pb.RangeRequest) { r.Serializable = true }},
	{"keys", func(r *pb.RangeRequest) { r.KeysOnly = true }},
	{"count", func(r *pb.RangeRequest) { r.CountOnly = true }},
	{"min-mod", func(r *pb.RangeRequest) { r.MinModRevision = 12 }},
	{"max-mod", func(r *pb.RangeRequest) { r.MaxModRevision = 18 }},
	{"min-create", func(r *pb.RangeRequest) { r.MinCreateRevision = 5 }},
	{"max-create", func(r *pb.RangeRequest) { r.MaxCreateRevision = 11 }},
	{"min-mod-neg", func(r *pb.RangeRequest) { r.MinModRevision = -1 }},
	{"max-mod-neg", func(r *pb.RangeRequest) { r.MaxModRevision = -1 }},
	{"desc", func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_DESCEND }},
	{"asc", func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_ASCEND }},
	{"by-version", func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_VERSION }},
	{"by-create", func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_CREATE }},
	{"by-mod", func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_MOD }},
	{"by-value", func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_VALUE }},
	{"order-9", func(r *pb.RangeRequest) { r.SortOrder = 9 }},
	{"order-neg", func(r *pb.RangeRequest) { r.SortOrder = -1 }},
	{"target-9", func(r *pb.RangeRequest) { r.SortTarget = 9 }},
	{"target-neg", func(r *pb.RangeRequest) { r.SortTarget = -1 }},
}

// rangeTable is every option on every span, and mixes of options.
func rangeTable(mixes int) []*pb.RangeRequest {
	var table []*pb.RangeRequest
	for _, sp := range spans {
		for _, o := range rangeOptions {
			r := rng(sp.key, sp.end)
			o.set(r)
			table = append(table, r)
		}
	}
	rnd := rand.New(rand.NewPCG(3, 7))
	for range mixes {
		sp := spans[rnd.IntN(10)]
		r := rng(sp.key, sp.end)
		for range 2 + rnd.IntN(4) {
			// The wrong enum values at the end hide everything else.
			rangeOptions[rnd.IntN(len(rangeOptions)-4)].set(r)
		}
		table = append(table, r)
	}
	return table
}

func rangeName(r *pb.RangeRequest) string {
	return strings.ReplaceAll(text(r), "/", "|")
}

func TestTableRange(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var steps []step
	for _, sp := range spans {
		steps = append(steps, call("empty-store-"+sp.name, "KV/Range", rng(sp.key, sp.end)))
	}
	steps = append(steps, seedKV()...)
	for _, r := range rangeTable(300) {
		steps = append(steps, call(rangeName(r), "KV/Range", r))
	}
	runSteps(t, p, steps)
}

// TestTableRangeCompacted asks the same of a compacted store.
func TestTableRangeCompacted(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	steps := append(seedKV(), call("to-19", "KV/Compact", compactTo(19)))
	for _, rev := range []int64{1, 18, 19, 20, 24} {
		for _, sp := range spans {
			r := rng(sp.key, sp.end)
			r.Revision = rev
			steps = append(steps, call(rangeName(r), "KV/Range", r))
		}
	}
	runSteps(t, p, steps)
}

// stream asks for a RangeStream and merges what comes.
func (s *Side) stream(r *pb.RangeRequest) string {
	merged := &pb.RangeResponse{}
	c, err := pb.NewKVClient(s.Conn).RangeStream(context.Background(), r)
	if err != nil {
		return errText(err)
	}
	for n := 0; ; n++ {
		m, err := c.Recv()
		if err == io.EOF {
			return fmt.Sprintf("some=%v %s", n > 0, text(merged))
		}
		if err != nil {
			return fmt.Sprintf("after %d: %s", n, errText(err))
		}
		if m.RangeResponse != nil {
			proto.Merge(merged, m.RangeResponse)
		}
	}
}

func TestTableRangeStream(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var steps []step
	streamed := func(r *pb.RangeRequest) step {
		return step{"KV/RangeStream/" + rangeName(r), func(s *Side) string { return s.stream(r) }}
	}
	steps = append(steps, streamed(rng("a", "")), streamed(rng("\x00", "\x00")))
	steps = append(steps, seedKV()...)
	for _, r := range rangeTable(60) {
		steps = append(steps, streamed(r))
	}
	// Enough for several chunks, small and large.
	for i := range 60 {
		steps = append(steps, call("many", "KV/Put", put(fmt.Sprintf("m%03d", i), strings.Repeat("x", 1+i*1000))))
	}
	for _, limit := range []int64{0, 1, 9, 10, 11, 30, 59, 60, 61} {
		for _, shape := range []func(*pb.RangeRequest){
			func(*pb.RangeRequest) {},
			func(r *pb.RangeRequest) { r.KeysOnly = true },
			func(r *pb.RangeRequest) { r.CountOnly = true },
			func(r *pb.RangeRequest) { r.Revision = 50 },
			func(r *pb.RangeRequest) { r.Serializable = true },
		} {
			r := rng("m", "n")
			r.Limit = limit
			shape(r)
			steps = append(steps, streamed(r))
		}
	}
	steps = append(steps, call("40", "KV/Compact", compactTo(40)))
	for _, rev := range []int64{39, 40, 500} {
		r := rng("m", "n")
		r.Revision = rev
		steps = append(steps, streamed(r))
	}
	runSteps(t, p, steps)
}

func TestTablePut(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	steps := []step{
		call("no-key", "KV/Put", put("", "v")),
		call("no-key-no-value", "KV/Put", &pb.PutRequest{}),
		call("empty-value", "KV/Put", put("e", "")),
		call("new", "KV/Put", put("k", "1")),
		call("prev-new", "KV/Put", &pb.PutRequest{Key: []byte("p"), Value: []byte("1"), PrevKv: true}),
		call("prev", "KV/Put", &pb.PutRequest{Key: []byte("p"), Value: []byte("2"), PrevKv: true}),
		call("grant", "Lease/LeaseGrant", grant(11, 1000)),
		call("grant", "Lease/LeaseGrant", grant(12, 1000)),
	}
	// Every combination of the flags on a missing, a plain and a leased key.
	for _, key := range []string{"none", "k", "leased"} {
		for bits := range 64 {
			r := &pb.PutRequest{Key: []byte(key)}
			if bits&1 != 0 {
				r.Value = []byte(fmt.Sprintf("v%d", bits))
			}
			if bits&2 != 0 {
				r.Lease = 11
			}
			if bits&4 != 0 {
				r.Lease += 1
			}
			r.PrevKv = bits&8 != 0
			r.IgnoreValue = bits&16 != 0
			r.IgnoreLease = bits&32 != 0
			steps = append(steps,
				call("reset", "KV/Put", &pb.PutRequest{Key: []byte("leased"), Value: []byte("L"), Lease: 12}),
				call(fmt.Sprintf("%s-flags-%06b", key, bits), "KV/Put", r))
			if key == "none" {
				steps = append(steps, call("reset", "KV/DeleteRange", del("none", "")))
			}
		}
	}
	steps = append(steps,
		call("negative-lease", "KV/Put", &pb.PutRequest{Key: []byte("k"), Lease: -3}),
		call("huge-lease", "KV/Put", &pb.PutRequest{Key: []byte("k"), Lease: 1<<63 - 1}),
		call("min-lease", "KV/Put", &pb.PutRequest{Key: []byte("k"), Lease: -1 << 63}),
		call("binary", "KV/Put", put("\x00\x01\xfe\xff", "\xff\x00")),
		call("long-key", "KV/Put", put(strings.Repeat("k", 70000), "v")),
		call("long-value", "KV/Put", put("long", strings.Repeat("v", 1<<20))),
		call("all", "KV/Range", rng("\x00", "\x00")),
		call("leased-keys", "Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 99, Keys: true}),
		call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}),
	)
	runSteps(t, p, steps)
}

func TestTableDelete(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var steps []step
	for _, prev := range []bool{false, true} {
		for _, sp := range spans {
			steps = append(steps, seedKV()[1:]...)
			r := del(sp.key, sp.end)
			r.PrevKv = prev
			steps = append(steps,
				call(sp.name, "KV/DeleteRange", r),
				call(sp.name+"-again", "KV/DeleteRange", r),
				call(sp.name+"-left", "KV/Range", rng("\x00", "\x00")))
		}
	}
	steps = append([]step{call("grant", "Lease/LeaseGrant", grant(7, 3600))}, steps...)
	steps = append(steps, call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}))
	runSteps(t, p, steps)
}

func TestTableCompact(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	steps := []step{
		call("empty-0", "KV/Compact", compactTo(0)),
		call("empty-1", "KV/Compact", compactTo(1)),
		call("empty-1-again", "KV/Compact", compactTo(1)),
		call("empty-future", "KV/Compact", compactTo(2)),
		call("negative", "KV/Compact", compactTo(-1)),
	}
	steps = append(steps, seedKV()...)
	for _, c := range []struct {
		rev      int64
		physical bool
	}{{10, true}, {10, true}, {9, true}, {0, false}, {12, false}, {12, true}, {1000, true}, {1 << 62, false}, {22, true}, {27, true}, {27, true}, {28, true}, {29, true}, {30, true}} {
		steps = append(steps, call(fmt.Sprintf("to-%d", c.rev), "KV/Compact", &pb.CompactionRequest{Revision: c.rev, Physical: c.physical}))
		if !c.physical {
			steps = append(steps, hashKept(c.rev))
		}
		for _, rev := range []int64{0, 9, 10, 11, 12, 13, 21, 22, 23, 27, 28} {
			r := rng("\x00", "\x00")
			r.Revision = rev
			steps = append(steps, call(fmt.Sprintf("then-at-%d", rev), "KV/Range", r))
			steps = append(steps, call(fmt.Sprintf("then-hash-%d", rev), "Maintenance/HashKV", &pb.HashKVRequest{Revision: rev}))
		}
	}
	runSteps(t, p, steps)
}

// hashKept waits for the end of a compaction in the background: from then on
// the hash that it computed on the way is what HashKV answers at its revision.
func hashKept(rev int64) step {
	return step{"wait-for-the-compaction", func(s *Side) string {
		for range 100 {
			m, err := s.Call("Maintenance/HashKV", &pb.HashKVRequest{Revision: rev})
			if err != nil || m.(*pb.HashKVResponse).CompactRevision != rev {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		return s.Text("Maintenance/HashKV", &pb.HashKVRequest{Revision: rev})
	}}
}
