package interop

// Rows that a range's order does not tell apart may come in any order: etcd's
// sort is not stable. Before replies are compared, such rows are put into the
// order of their keys, and where a limit cuts through them only their number
// is kept.

import (
	"bytes"
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// canonical rewrites a reply in place; the request tells what order was asked.
func canonical(req, resp proto.Message) {
	switch r := resp.(type) {
	case *pb.RangeResponse:
		if q, ok := req.(*pb.RangeRequest); ok {
			canonicalRange(q, r)
		}
	case *pb.TxnResponse:
		if q, ok := req.(*pb.TxnRequest); ok {
			canonicalTxn(q, r)
		}
	case *pb.LeaseLeasesResponse:
		// A follower knows of no expiry to sort by.
		if inCluster() {
			slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
		}
	}
}

func canonicalTxn(q *pb.TxnRequest, r *pb.TxnResponse) {
	branch := q.Failure
	if r.Succeeded {
		branch = q.Success
	}
	if len(branch) != len(r.Responses) {
		return
	}
	for i, op := range branch {
		if rr := r.Responses[i].GetResponseRange(); rr != nil && op.GetRequestRange() != nil {
			canonicalRange(op.GetRequestRange(), rr)
		}
		if tr := r.Responses[i].GetResponseTxn(); tr != nil && op.GetRequestTxn() != nil {
			canonicalTxn(op.GetRequestTxn(), tr)
		}
	}
}

// rank compares two rows by what the request sorts by.
func rank(q *pb.RangeRequest, a, b *mvccpb.KeyValue) int {
	switch q.SortTarget {
	case pb.RangeRequest_VERSION:
		return cmp.Compare(a.Version, b.Version)
	case pb.RangeRequest_CREATE:
		return cmp.Compare(a.CreateRevision, b.CreateRevision)
	case pb.RangeRequest_MOD:
		return cmp.Compare(a.ModRevision, b.ModRevision)
	case pb.RangeRequest_VALUE:
		return bytes.Compare(a.Value, b.Value)
	}
	return bytes.Compare(a.Key, b.Key)
}

func canonicalRange(q *pb.RangeRequest, r *pb.RangeResponse) {
	if q.SortTarget == pb.RangeRequest_KEY {
		return
	}
	for from := 0; from < len(r.Kvs); {
		to := from + 1
		for to < len(r.Kvs) && rank(q, r.Kvs[from], r.Kvs[to]) == 0 {
			to++
		}
		group := r.Kvs[from:to]
		slices.SortFunc(group, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
		if to == len(r.Kvs) && r.More {
			for i := range group {
				group[i] = &mvccpb.KeyValue{Key: []byte("any of its equals")}
			}
		}
		from = to
	}
}
