package interop

// The table: Watch.

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

func wreq(key, end string, start int64, more ...func(*pb.WatchCreateRequest)) *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start}
	for _, f := range more {
		f(r)
	}
	return r
}

func withID(id int64) func(*pb.WatchCreateRequest) {
	return func(r *pb.WatchCreateRequest) { r.WatchId = id }
}

func prev(r *pb.WatchCreateRequest)     { r.PrevKv = true }
func fragment(r *pb.WatchCreateRequest) { r.Fragment = true }
func notify(r *pb.WatchCreateRequest)   { r.ProgressNotify = true }
func noPut(r *pb.WatchCreateRequest) {
	r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT)
}
func noDelete(r *pb.WatchCreateRequest) {
	r.Filters = append(r.Filters, pb.WatchCreateRequest_NODELETE)
}
func badFilter(r *pb.WatchCreateRequest) { r.Filters = append(r.Filters, 7) }

// watchHistory asks for the past of the seeded store, in every way.
func watchHistory() []step {
	var steps []step
	shapes := []struct {
		name string
		f    func(*pb.WatchCreateRequest)
	}{
		{"plain", func(*pb.WatchCreateRequest) {}}, {"prev", prev}, {"fragment", fragment}, {"no-put", noPut},
		{"no-delete", noDelete}, {"nothing", func(r *pb.WatchCreateRequest) { noPut(r); noDelete(r) }},
		{"bad-filter", badFilter}, {"double-filter", func(r *pb.WatchCreateRequest) { noPut(r); noPut(r) }},
	}
	for _, sp := range spans {
		for _, start := range []int64{1, 2, 19} {
			for _, sh := range shapes {
				if start != 2 && sh.name != "plain" {
					continue
				}
				r := wreq(sp.key, sp.end, start, sh.f)
				steps = append(steps, watchScript(fmt.Sprintf("past-%s-%d-%s", sp.name, start, sh.name), func(w *watchStream) {
					w.create(r)
					if w.want(1); !strings.Contains(w.out.String(), `"canceled":true`) {
						w.drain()
					}
				}))
			}
		}
	}
	return steps
}

// drain takes what comes until the stream reports progress, which says that all
// before has been delivered; a stream without watches cannot, so time ends it too.
func (w *watchStream) drain() {
	ask := time.NewTicker(50 * time.Millisecond)
	defer ask.Stop()
	deadline := time.After(5 * time.Second)
	idle := 0
	for {
		select {
		case p, ok := <-w.pieces:
			if !ok {
				w.out.WriteString("(ended)\n")
				return
			}
			if isProgress(p) {
				w.out.WriteString("progress\n")
				w.absorb()
				return
			}
			idle = 0
			w.out.WriteString(p + "\n")
		case <-ask.C:
			w.asked = true
			w.progress()
			if idle++; idle > 12 {
				w.out.WriteString("no progress\n")
				return
			}
		case <-deadline:
			w.out.WriteString("too long\n")
			return
		}
	}
}

// absorb drops answers to progress requests that were asked more than once.
func (w *watchStream) absorb() {
	for {
		select {
		case p := <-w.pieces:
			if !isProgress(p) {
				w.out.WriteString("late: " + p + "\n")
			}
		case <-time.After(30 * time.Millisecond):
			return
		}
	}
}

func TestTableWatchHistory(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	runSteps(t, p, append(seedKV(), watchHistory()...))
}

func TestTableWatchCreate(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const soon = 150 * time.Millisecond
	one := func(name string, r *pb.WatchCreateRequest, n int) step { return watchOnce(name, r, n) }
	steps := append(seedKV(),
		one("live", wreq("w", "", 0), 1),
		one("negative", wreq("w", "", -1), 1),
		one("very-negative", wreq("w", "", -1<<63), 1),
		one("inverted", wreq("z", "a", 0), 1),
		one("same", wreq("a", "a", 0), 1),
		one("no-key", wreq("", "", 0), 1),
		one("no-key-end", wreq("", "b", 2), 2),
		one("future", wreq("a", "", 1000), 1),
		one("far-future", wreq("a", "", 1<<63-1), 1),
		one("id", wreq("a", "", 0, withID(42)), 1),
		one("id-negative", wreq("a", "", 0, withID(-7)), 1),
		one("id-minus-one", wreq("a", "", 0, withID(-1)), 1),
		one("id-max", wreq("a", "", 0, withID(1<<63-1)), 1),
		watchScript("empty-request", func(w *watchStream) { w.send(&pb.WatchRequest{}); w.quiet(soon) }),
		watchScript("nil-create", func(w *watchStream) {
			w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{}})
			w.want(1)
		}),
		watchScript("nil-cancel", func(w *watchStream) {
			w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{}})
			w.quiet(soon)
		}),
		watchScript("ids-in-turn", func(w *watchStream) {
			for range 3 {
				w.create(wreq("a", "", 0))
				w.want(1)
			}
			w.create(wreq("a", "", 0, withID(4)))
			w.want(1)
			for range 3 {
				w.create(wreq("a", "", 0))
				w.want(1)
			}
		}),
		watchScript("duplicate-id", func(w *watchStream) {
			w.create(wreq("a", "", 0, withID(9)))
			w.want(1)
			w.create(wreq("b", "", 0, withID(9)))
			w.want(1)
			w.quiet(soon)
			w.cancelID(9)
			w.want(1)
			w.create(wreq("b", "", 0, withID(9)))
			w.want(1)
		}),
		watchScript("cancel", func(w *watchStream) {
			w.create(wreq("a", "", 0))
			w.want(1)
			w.cancelID(0)
			w.want(1)
			w.cancelID(0)
			w.cancelID(55)
			w.cancelID(-1)
			w.quiet(soon)
			w.do("KV/Put", put("a", "after the cancel"))
			w.quiet(soon)
		}),
		watchScript("progress-of-nothing", func(w *watchStream) { w.progress(); w.quiet(soon) }),
		watchScript("progress", func(w *watchStream) {
			w.create(wreq("a", "", 0))
			w.want(1)
			w.progress()
			w.want(1)
			w.do("KV/Put", put("unwatched", "1"))
			w.progress()
			w.want(1)
		}),
		watchScript("progress-of-future", func(w *watchStream) {
			w.create(wreq("a", "", 9000))
			w.want(1)
			w.progress()
			w.quiet(soon)
		}),
		watchScript("close-send", func(w *watchStream) {
			w.create(wreq("a", "", 0))
			w.want(1)
			w.c.CloseSend()
			w.quiet(soon)
		}),
		call("to-15", "KV/Compact", compactTo(15)),
		one("compacted", wreq("k", "l", 3), 2),
		one("compacted-below", wreq("k", "l", 14), 2),
		watchScript("at-compacted", func(w *watchStream) { w.create(wreq("k", "l", 15)); w.want(1); w.drain() }),
		watchScript("at-compacted-prev", func(w *watchStream) { w.create(wreq("k", "l", 15, prev)); w.want(1); w.drain() }),
		watchScript("above-compacted", func(w *watchStream) { w.create(wreq("k", "l", 16, prev)); w.want(1); w.drain() }),
		watchScript("compacted-among-others", func(w *watchStream) {
			w.create(wreq("k", "l", 20, withID(3)))
			w.want(1)
			w.drain()
			w.create(wreq("k", "l", 2, withID(5)))
			w.want(2)
			w.create(wreq("k", "l", 0, withID(5)))
			w.want(1)
		}),
	)
	runSteps(t, p, steps)
}

func TestTableWatchLive(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const soon = 150 * time.Millisecond
	many := txn(nil, append(repeat(100, "t"), opDel(del("x", "y"))), nil)
	live := func(name string, n int, r *pb.WatchCreateRequest) step {
		return watchScript("live-"+name, func(w *watchStream) {
			w.create(r)
			w.want(1)
			for i, c := range []struct {
				rpc string
				req proto.Message
			}{
				{"KV/Put", put("a", "1")}, {"KV/Put", put("a", "2")}, {"KV/Put", put("b", "1")}, {"KV/DeleteRange", del("a", "")},
				{"KV/DeleteRange", del("a", "")}, {"KV/Put", put("a", "3")}, {"KV/Txn", txn(nil, ops(opPut(put("a", "4")), opPut(put("aa", "1")), opDel(del("b", ""))), nil)},
				{"KV/DeleteRange", del("a", "b")}, {"KV/Txn", txn(nil, ops(opPut(put("b", "5")), opTxn(txn(nil, ops(opPut(put("a", "5"))), nil))), nil)},
				{"KV/DeleteRange", del("a", "c")},
			} {
				fmt.Fprintf(&w.out, "%d ", i)
				w.do(c.rpc, c.req)
			}
			w.want(n)
		})
	}
	steps := []step{
		live("one", 7, wreq("a", "", 0)),
		live("one-prev", 7, wreq("a", "", 0, prev)),
		live("prefix", 9, wreq("a", "b", 0, prev)),
		live("all", 14, wreq("\x00", "\x00", 0, prev)),
		live("from", 4, wreq("b", "\x00", 0)),
		live("no-put", 3, wreq("a", "b", 0, noPut)),
		live("no-delete", 6, wreq("a", "b", 0, noDelete, prev)),
		live("notify", 7, wreq("a", "", 0, notify)),
		watchScript("a-big-revision-stays-whole", func(w *watchStream) {
			w.create(wreq("t", "u", 0))
			w.want(1)
			w.do("KV/Txn", many)
			w.want(100)
		}),
		watchScript("three-watches", func(w *watchStream) {
			for i, r := range []*pb.WatchCreateRequest{wreq("a", "", 0), wreq("a", "b", 0), wreq("b", "", 0)} {
				r.WatchId = int64(10 + i)
				w.create(r)
				w.want(1)
			}
			w.do("KV/Put", put("b", "x"))
			w.want(1)
			w.do("KV/Put", put("aa", "x"))
			w.want(1)
			w.cancelID(11)
			w.want(1)
			w.do("KV/Put", put("a", "x"))
			w.want(1)
		}),
		watchScript("lease", func(w *watchStream) {
			w.create(wreq("l", "m", 0, prev))
			w.want(1)
			w.do("Lease/LeaseGrant", grant(31, 600))
			for _, k := range []string{"l2", "l1", "l3"} {
				w.do("KV/Put", &pb.PutRequest{Key: []byte(k), Lease: 31})
			}
			w.do("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 31})
			w.want(6)
		}),
		watchScript("becomes-present", func(w *watchStream) {
			// The store is asked where it is, and the watch starts two ahead.
			m, err := w.side.Call("KV/Range", rng("a", ""))
			if err != nil {
				return
			}
			rev := m.(*pb.RangeResponse).Header.Revision
			w.create(wreq("f", "", rev+3))
			w.want(1)
			for i := range 4 {
				w.do("KV/Put", put("f", fmt.Sprint(i)))
			}
			w.want(2)
			w.quiet(soon)
		}),
		watchScript("compaction-passes-by", func(w *watchStream) {
			w.create(wreq("a", "", 0))
			w.want(1)
			w.do("KV/Put", put("a", "before"))
			w.want(1)
			m, _ := w.side.Call("KV/Range", rng("a", ""))
			w.do("KV/Compact", compactTo(m.(*pb.RangeResponse).Header.Revision))
			w.do("KV/Put", put("a", "after"))
			w.want(1)
		}),
	}
	runSteps(t, p, steps)
}

// TestTableWatchFragment has events that together pass the size of a message.
func TestTableWatchFragment(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--max-request-bytes=20000")
	var steps []step
	for i := range 80 {
		steps = append(steps, call("fill", "KV/Put", put(fmt.Sprintf("f%02d", i), strings.Repeat("x", 15000))))
	}
	read := func(name string, r *pb.WatchCreateRequest) step {
		return step{"Watch/" + name, func(s *Side) string { return s.fragments(r, 80) }}
	}
	steps = append(steps,
		read("fragments", wreq("f", "g", 2, fragment)),
		read("whole", wreq("f", "g", 2)),
		read("fragments-prev", wreq("f", "g", 2, fragment, prev)))
	runSteps(t, p, steps)
}

// fragments reads n events and checks the fragment flags: how the events are
// cut must be sound, and with fragments no message may pass the bound.
func (s *Side) fragments(r *pb.WatchCreateRequest, n int) string {
	c, err := pb.NewWatchClient(s.Conn).Watch(timeout())
	if err != nil {
		return errText(err)
	}
	c.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
	out, cut, open := "", 0, false
	for got := 0; got < n; {
		m, err := c.Recv()
		if err != nil {
			return out + errText(err)
		}
		if size := proto.Size(m); r.Fragment && size > 20000+512*1024+16000 {
			out += fmt.Sprintf("a message of %d bytes\n", size)
		}
		if m.Fragment {
			cut++
		}
		open = m.Fragment
		for _, e := range m.Events {
			out += fmt.Sprintf("%s %d\n", e.Kv.Key, e.Kv.ModRevision)
			got++
		}
	}
	return fmt.Sprintf("%s cut=%v open=%v", out, cut > 0, open)
}

// TestTableWatchNotify waits for the progress that comes by itself.
func TestTableWatchNotify(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--watch-progress-notify-interval=300ms")
	steps := []step{
		call("put", "KV/Put", put("a", "1")),
		watchScript("notified", func(w *watchStream) {
			w.create(wreq("a", "", 0, notify))
			w.want(3)
		}),
		watchScript("only-who-asked", func(w *watchStream) {
			w.create(wreq("a", "", 0, withID(1)))
			w.create(wreq("a", "", 0, withID(2), notify))
			w.want(4)
		}),
		watchScript("not-asked", func(w *watchStream) {
			w.create(wreq("a", "", 0))
			w.want(1)
			w.quiet(time.Second)
		}),
	}
	runSteps(t, p, steps)
}
