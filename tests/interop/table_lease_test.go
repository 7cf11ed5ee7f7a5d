package interop

// The table: leases.

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// keepAlive sends the ids on one stream and writes down the answers.
func (s *Side) keepAlive(ids ...int64) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pb.NewLeaseClient(s.Conn).LeaseKeepAlive(ctx)
	if err != nil {
		return errText(err)
	}
	out := ""
	for _, id := range ids {
		if err := c.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			return out + errText(err)
		}
		r, err := c.Recv()
		if err != nil {
			return out + errText(err)
		}
		out += text(r) + "\n"
	}
	c.CloseSend()
	_, err = c.Recv()
	return out + fmt.Sprint(err)
}

func keepAlive(ids ...int64) step {
	return step{fmt.Sprintf("Lease/LeaseKeepAlive/%d", ids), func(s *Side) string { return s.keepAlive(ids...) }}
}

// timeToLive hides the seconds that are left, but for their sign.
func timeToLive(id int64, keys bool) step {
	return step{fmt.Sprintf("Lease/LeaseTimeToLive/%d-%v", id, keys), func(s *Side) string {
		m, err := s.Call("Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
		if err != nil {
			return errText(err)
		}
		r := m.(*pb.LeaseTimeToLiveResponse)
		if r.TTL > 0 {
			if r.TTL > r.GrantedTTL || r.TTL < r.GrantedTTL-60 {
				return fmt.Sprintf("%d seconds left of %d", r.TTL, r.GrantedTTL)
			}
			r.TTL = 1
		}
		// The order of a lease's keys is that of a Go map.
		slices.SortFunc(r.Keys, slices.Compare[[]byte])
		return text(r)
	}}
}

// chosen grants a lease whose id the server picks and hides the id.
func chosen(ttl int64) step {
	return step{fmt.Sprintf("Lease/LeaseGrant/chosen-%d", ttl), func(s *Side) string {
		m, err := s.Call("Lease/LeaseGrant", grant(0, ttl))
		if err != nil {
			return errText(err)
		}
		r := m.(*pb.LeaseGrantResponse)
		if r.ID <= 0 {
			return fmt.Sprintf("the server picked %d", r.ID)
		}
		gone, err := s.Call("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: r.ID})
		if err != nil {
			return errText(err)
		}
		r.ID = 0
		return text(r) + text(gone)
	}}
}

func TestTableLease(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	list := call("list", "Lease/LeaseLeases", &pb.LeaseLeasesRequest{})
	revoke := func(id int64) step {
		return call(fmt.Sprint(id), "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: id})
	}
	steps := []step{list, revoke(0), revoke(5), revoke(-5), timeToLive(5, false), timeToLive(0, true), keepAlive(5), keepAlive(0, -1)}
	for _, ttl := range []int64{-1 << 63, -1, 0, 1, 2, 3, 60, 9_000_000_000, 9_000_000_001, 1<<63 - 1} {
		steps = append(steps, chosen(ttl))
	}
	// Ids on which Go's and other languages' signs and shifts differ.
	for i, id := range []int64{77, 5, 1<<63 - 1, 6, -9, -1 << 63, 1 << 40} {
		steps = append(steps, call(fmt.Sprint(id), "Lease/LeaseGrant", grant(id, 1000+int64(i))), list, timeToLive(id, true))
	}
	for _, ttl := range []int64{100, 9_000_000_001} {
		steps = append(steps, call("exists", "Lease/LeaseGrant", grant(5, ttl)))
	}
	steps = append(steps, call("short", "Lease/LeaseGrant", grant(50, 9_000_000_001)), list)
	for _, k := range []string{"c", "a", "b"} {
		steps = append(steps, call("attach", "KV/Put", &pb.PutRequest{Key: []byte(k), Lease: 5}), timeToLive(5, true))
	}
	steps = append(steps,
		call("move", "KV/Put", &pb.PutRequest{Key: []byte("b"), Lease: 6}), timeToLive(5, true), timeToLive(6, true),
		call("detach", "KV/Put", put("a", "x")), timeToLive(5, true), timeToLive(5, false),
		call("keep", "KV/Put", &pb.PutRequest{Key: []byte("c"), Value: []byte("y"), IgnoreLease: true}), timeToLive(5, true),
		call("delete", "KV/DeleteRange", del("b", "")), timeToLive(6, true),
		call("negative", "KV/Put", &pb.PutRequest{Key: []byte("n"), Lease: -9}), timeToLive(-9, true),
		keepAlive(5, 6, 77, 4, -9, 5),
		revoke(5), revoke(5), list, call("left", "KV/Range", rng("\x00", "\x00")))
	for _, k := range []string{"z", "m", "a", "q", "b"} {
		steps = append(steps, call("attach", "KV/Put", &pb.PutRequest{Key: []byte(k), Value: []byte("v"), Lease: 77}))
	}
	steps = append(steps, timeToLive(77, true), revoke(77), revoke(-9), revoke(1<<63-1),
		call("left", "KV/Range", rng("\x00", "\x00")), list,
		call("again", "Lease/LeaseGrant", grant(77, 500)), timeToLive(77, true),
		watchOnce("events-of-revoke", &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1, PrevKv: true}, 20),
		call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}))
	runSteps(t, p, steps)
}

// TestTableLeaseExpiry lets a lease run out: its keys go in one revision.
func TestTableLeaseExpiry(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	steps := []step{call("2s", "Lease/LeaseGrant", grant(5, 1)), call("long", "Lease/LeaseGrant", grant(6, 500))}
	for _, k := range []string{"b", "a", "c"} {
		steps = append(steps, call(k, "KV/Put", &pb.PutRequest{Key: []byte(k), Lease: 5}))
	}
	steps = append(steps,
		call("moved", "KV/Put", &pb.PutRequest{Key: []byte("c"), Lease: 6}),
		step{"expires", func(s *Side) string {
			deadline := time.Now().Add(patience)
			for time.Now().Before(deadline) {
				m, err := s.Call("KV/Range", rng("a", "c"))
				if err == nil && m.(*pb.RangeResponse).Count == 0 {
					return "gone"
				}
				time.Sleep(100 * time.Millisecond)
			}
			return "still there"
		}},
		timeToLive(5, true), timeToLive(6, true), keepAlive(5),
		call("list", "Lease/LeaseLeases", &pb.LeaseLeasesRequest{}),
		watchOnce("events", &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1, PrevKv: true}, 6),
		call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}))
	runSteps(t, p, steps)
}
