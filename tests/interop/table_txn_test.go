package interop

// The table: Txn.

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var results = []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_GREATER, pb.Compare_LESS, pb.Compare_NOT_EQUAL}

var targets = []pb.Compare_CompareTarget{
	pb.Compare_VERSION, pb.Compare_CREATE, pb.Compare_MOD, pb.Compare_VALUE, pb.Compare_LEASE}

// compareSteps tries every result on every target, on one key and on ranges.
func compareSteps() []step {
	var steps []step
	ask := func(name string, c ...*pb.Compare) {
		steps = append(steps, call(name, "KV/Txn", txn(c, ops(opRange(rng("k03", ""))), nil)))
	}
	for _, sp := range []struct{ name, key, end string }{
		{"one", "k03", ""}, {"leased", "k02", ""}, {"missing", "nothing", ""}, {"deleted", "k04", ""},
		{"part", "k02", "k06"}, {"none", "x", "y"}, {"inverted", "k06", "k02"}, {"from", "k08", "\x00"}, {"all", "\x00", "\x00"},
	} {
		for _, result := range results {
			for _, target := range targets {
				for _, v := range []int64{0, 1, 4, 7, 19} {
					ask(fmt.Sprintf("%s-%s-%s-%d", sp.name, target, result, v), compare(sp.key, sp.end, result, target, v))
				}
			}
			ask(fmt.Sprintf("%s-value-%s", sp.name, result), compareValue(sp.key, sp.end, result, "again-k03"))
			ask(fmt.Sprintf("%s-novalue-%s", sp.name, result), compareValue(sp.key, sp.end, result, ""))
		}
	}
	ask("no-key", compare("", "", pb.Compare_EQUAL, pb.Compare_VERSION, 0))
	ask("bad-result", &pb.Compare{Key: []byte("k03"), Result: 9, TargetUnion: &pb.Compare_Version{Version: 1}})
	ask("bad-target", &pb.Compare{Key: []byte("k03"), Target: 9, TargetUnion: &pb.Compare_Version{Version: 1}})
	for _, target := range targets {
		ask("no-union-"+target.String(), &pb.Compare{Key: []byte("k03"), Target: target})
		ask("no-union-missing-"+target.String(), &pb.Compare{Key: []byte("nothing"), Target: target})
		ask("other-union-"+target.String(), &pb.Compare{Key: []byte("k03"), Target: target,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: 3}})
	}
	ask("two-true", compare("k03", "", pb.Compare_EQUAL, pb.Compare_VERSION, 4), compare("k02", "", pb.Compare_GREATER, pb.Compare_MOD, 1))
	ask("one-false", compare("k03", "", pb.Compare_EQUAL, pb.Compare_VERSION, 4), compare("k02", "", pb.Compare_LESS, pb.Compare_MOD, 1))
	return steps
}

func TestTableCompare(t *testing.T) {
	t.Parallel()
	runSteps(t, newPair(t), append(seedKV(), compareSteps()...))
}

// repeat builds n puts on different keys.
func repeat(n int, prefix string) []*pb.RequestOp {
	var o []*pb.RequestOp
	for i := range n {
		o = append(o, opPut(put(fmt.Sprintf("%s%04d", prefix, i), "v")))
	}
	return o
}

func TestTableTxn(t *testing.T) {
	t.Parallel()
	yes := []*pb.Compare{compare("k03", "", pb.Compare_GREATER, pb.Compare_VERSION, 0)}
	no := []*pb.Compare{compare("k03", "", pb.Compare_EQUAL, pb.Compare_VERSION, 0)}
	at := func(r *pb.RangeRequest, rev int64) *pb.RangeRequest { r.Revision = rev; return r }
	limited := rng("k", "l")
	limited.Limit, limited.SortOrder, limited.SortTarget = 3, pb.RangeRequest_DESCEND, pb.RangeRequest_MOD
	badSort := rng("k", "l")
	badSort.SortTarget = 9
	ignore := &pb.PutRequest{Key: []byte("k02"), IgnoreValue: true, IgnoreLease: true, PrevKv: true}
	many := make([]*pb.Compare, 129)
	for i := range many {
		many[i] = yes[0]
	}
	deep := txn(nil, ops(opPut(put("deep", "1"))), nil)
	for range 30 {
		deep = txn(yes, ops(opTxn(deep)), nil)
	}
	table := []struct {
		name string
		req  *pb.TxnRequest
	}{
		{"empty", txn(nil, nil, nil)},
		{"empty-yes", txn(yes, nil, ops(opPut(put("never", "1"))))},
		{"empty-no", txn(no, ops(opPut(put("never", "1"))), nil)},
		{"put", txn(yes, ops(opPut(put("t", "1"))), nil)},
		{"put-else", txn(no, nil, ops(opPut(put("t", "2"))))},
		{"put-prev", txn(nil, ops(opPut(&pb.PutRequest{Key: []byte("t"), Value: []byte("3"), PrevKv: true})), nil)},
		{"put-range", txn(nil, ops(opPut(put("t", "4")), opRange(rng("t", ""))), nil)},
		{"range-put", txn(nil, ops(opRange(rng("t", "")), opPut(put("t", "5"))), nil)},
		{"range-put-range", txn(nil, ops(opRange(rng("t", "u")), opPut(put("t", "6")), opPut(put("t2", "6")), opRange(rng("t", "u"))), nil)},
		{"ranges", txn(nil, ops(opRange(limited), opRange(rng("\x00", "\x00")), opRange(at(rng("k", "l"), 9))), nil)},
		{"range-old-rev-after-put", txn(nil, ops(opPut(put("t3", "1")), opRange(at(rng("k", "l"), 9))), nil)},
		{"range-future", txn(nil, ops(opRange(at(rng("k", "l"), 9999))), nil)},
		{"range-future-else", txn(yes, nil, ops(opRange(at(rng("k", "l"), 9999))))},
		{"put-range-future", txn(nil, ops(opPut(put("t4", "1")), opRange(at(rng("k", "l"), 9999))), nil)},
		{"range-next-rev", txn(nil, ops(opPut(put("t5", "1")), opRange(at(rng("t", "u"), 31))), nil)},
		{"range-bad-sort", txn(nil, ops(opRange(badSort)), nil)},
		{"put-bad-sort", txn(nil, ops(opPut(put("t6", "1")), opRange(badSort)), nil)},
		{"range-no-key", txn(nil, ops(opRange(rng("", "x"))), nil)},
		{"put-no-key", txn(nil, ops(opPut(put("", "x"))), nil)},
		{"del-no-key", txn(nil, ops(opDel(del("", "x"))), nil)},
		{"compare-no-key", txn([]*pb.Compare{{}}, ops(opPut(put("t7", "x"))), nil)},
		{"put-ignore", txn(nil, ops(opPut(ignore)), nil)},
		{"put-ignore-missing", txn(nil, ops(opPut(put("t8", "1")), opPut(&pb.PutRequest{Key: []byte("absent"), IgnoreValue: true})), nil)},
		{"put-ignore-lease-missing", txn(nil, ops(opPut(put("t8", "1")), opPut(&pb.PutRequest{Key: []byte("absent"), IgnoreLease: true})), nil)},
		{"put-ignore-value-given", txn(nil, ops(opPut(&pb.PutRequest{Key: []byte("k02"), Value: []byte("x"), IgnoreValue: true})), nil)},
		{"put-ignore-lease-given", txn(nil, ops(opPut(&pb.PutRequest{Key: []byte("k02"), Lease: 7, IgnoreLease: true})), nil)},
		{"put-ignore-in-failure", txn(yes, nil, ops(opPut(&pb.PutRequest{Key: []byte("absent"), IgnoreValue: true})))},
		{"put-lease", txn(nil, ops(opPut(&pb.PutRequest{Key: []byte("tl"), Lease: 7})), nil)},
		{"put-no-lease", txn(nil, ops(opPut(put("t9", "1")), opPut(&pb.PutRequest{Key: []byte("tl"), Lease: 99})), nil)},
		{"put-no-lease-else", txn(yes, ops(opPut(put("t9", "1"))), ops(opPut(&pb.PutRequest{Key: []byte("tl"), Lease: 99})))},
		{"delete", txn(nil, ops(opDel(del("t", ""))), nil)},
		{"delete-none", txn(nil, ops(opDel(del("t", ""))), nil)},
		{"delete-range-prev", txn(nil, ops(opDel(&pb.DeleteRangeRequest{Key: []byte("k08"), RangeEnd: []byte("l"), PrevKv: true})), nil)},
		{"delete-twice", txn(nil, ops(opDel(del("k01", "k03")), opDel(del("k02", "k05"))), nil)},
		{"delete-then-put", txn(nil, ops(opDel(del("k05", "")), opPut(put("k05", "1"))), nil)},
		{"put-then-delete", txn(nil, ops(opPut(put("k05", "1")), opDel(del("k05", ""))), nil)},
		{"put-in-deleted-range", txn(nil, ops(opDel(del("k", "l")), opPut(put("k05", "1"))), nil)},
		{"put-at-end-of-deleted", txn(nil, ops(opDel(del("q1", "q5")), opPut(put("q5", "1"))), nil)},
		{"put-from-deleted", txn(nil, ops(opDel(del("q", "\x00")), opPut(put("q5", "1"))), nil)},
		{"put-all-deleted", txn(nil, ops(opDel(del("\x00", "\x00")), opPut(put("q5", "1"))), nil)},
		{"put-inverted-deleted", txn(nil, ops(opDel(del("q9", "q1")), opPut(put("q5", "1"))), nil)},
		{"put-twice", txn(nil, ops(opPut(put("d", "1")), opPut(put("d", "2"))), nil)},
		{"put-twice-else", txn(yes, nil, ops(opPut(put("d", "1")), opPut(put("d", "2"))))},
		{"put-both-branches", txn(yes, ops(opPut(put("d", "1"))), ops(opPut(put("d", "2"))))},
		{"put-nested-dup", txn(nil, ops(opPut(put("d", "1")), opTxn(txn(nil, ops(opPut(put("d", "2"))), nil))), nil)},
		{"put-nested-dup-else", txn(nil, ops(opPut(put("d", "1")), opTxn(txn(nil, nil, ops(opPut(put("d", "2")))))), nil)},
		{"nested-pair", txn(nil, ops(opTxn(txn(yes, ops(opPut(put("d", "1"))), ops(opPut(put("d", "2")))))), nil)},
		{"nested-siblings", txn(nil, ops(opTxn(txn(yes, ops(opPut(put("d", "1"))), nil)), opTxn(txn(yes, ops(opPut(put("d", "1"))), nil))), nil)},
		{"nested-deletes-put", txn(nil, ops(opTxn(txn(yes, ops(opDel(del("d", "e"))), nil)), opPut(put("d", "1"))), nil)},
		{"nested-deletes-overlap", txn(nil, ops(opTxn(txn(nil, ops(opDel(del("d", "e"))), nil)), opDel(del("d", "f"))), nil)},
		{"nested-sees-before", txn(nil, ops(opPut(put("n", "1")), opTxn(txn([]*pb.Compare{compare("n", "", pb.Compare_GREATER, pb.Compare_VERSION, 0)},
			ops(opPut(put("n2", "then"))), ops(opPut(put("n2", "else")))))), nil)},
		{"nested-range", txn(nil, ops(opPut(put("n3", "1")), opTxn(txn(nil, ops(opRange(rng("n", "o")), opPut(put("n4", "1"))), nil)), opRange(rng("n", "o"))), nil)},
		{"nested-future", txn(nil, ops(opPut(put("n5", "1")), opTxn(txn(nil, ops(opRange(at(rng("n", "o"), 9999))), nil))), nil)},
		{"nested-no-lease", txn(nil, ops(opPut(put("n6", "1")), opTxn(txn(nil, ops(opPut(&pb.PutRequest{Key: []byte("x"), Lease: 99})), nil))), nil)},
		{"nested-deletes-then-put", txn(nil, ops(opTxn(txn(nil, ops(opDel(del("n", ""))), ops(opPut(put("other", ""))))), opPut(put("n", "back"))), nil)},
		{"nested-deletes-all-then-put", txn(nil, ops(opTxn(txn(nil, ops(opDel(del("\x00", "\x00"))), nil)), opPut(put("n", "back"))), nil)},
		{"put-then-nested-deletes", txn(nil, ops(opPut(put("n", "on")), opTxn(txn(nil, ops(opDel(del("n", "o"))), nil))), nil)},
		{"nested-empty", txn(nil, ops(opTxn(txn(nil, nil, nil))), nil)},
		{"nested-nil", txn(nil, ops(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{}}), nil)},
		{"deep", deep},
		{"no-op", txn(nil, ops(&pb.RequestOp{}), nil)},
		{"no-op-else", txn(nil, nil, ops(&pb.RequestOp{}))},
		{"no-op-nested", txn(nil, ops(opTxn(txn(nil, ops(&pb.RequestOp{}), nil))), nil)},
		{"put-nil", txn(nil, ops(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{}}), nil)},
		{"range-nil", txn(nil, ops(&pb.RequestOp{Request: &pb.RequestOp_RequestRange{}}), nil)},
		{"delete-nil", txn(nil, ops(&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{}}), nil)},
		{"ops-128", txn(nil, repeat(128, "o"), nil)},
		{"ops-129", txn(nil, repeat(129, "o"), nil)},
		{"ops-129-else", txn(nil, nil, repeat(129, "o"))},
		{"ops-128-128", txn(yes, repeat(128, "o"), repeat(128, "o"))},
		{"compares-128", txn(many[:128], ops(opPut(put("c", "1"))), nil)},
		{"compares-129", txn(many, ops(opPut(put("c", "1"))), nil)},
		{"nested-ops-127", txn(nil, ops(opTxn(txn(nil, repeat(127, "o"), nil))), nil)},
		{"nested-ops-128", txn(nil, ops(opTxn(txn(nil, repeat(128, "o"), nil))), nil)},
		{"nested-ops-64-65", txn(nil, append(repeat(63, "o"), opTxn(txn(nil, repeat(65, "p"), nil))), nil)},
		{"nested-ops-65-65", txn(nil, append(repeat(64, "o"), opTxn(txn(nil, repeat(65, "p"), nil))), nil)},
		{"two-nested-60", txn(nil, ops(opTxn(txn(nil, repeat(60, "o"), nil)), opTxn(txn(nil, repeat(80, "p"), nil))), nil)},
	}
	p := newPair(t)
	steps := seedKV()
	all := call("all", "KV/Range", rng("\x00", "\x00"))
	for _, c := range table {
		steps = append(steps, call(c.name, "KV/Txn", c.req))
		steps = append(steps, all, call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}))
	}
	steps = append(steps, call("12", "KV/Compact", compactTo(12)),
		call("range-compacted", "KV/Txn", txn(nil, ops(opRange(at(rng("k", "l"), 9))), nil)),
		call("put-range-compacted", "KV/Txn", txn(nil, ops(opPut(put("tc", "1")), opRange(at(rng("k", "l"), 9))), nil)),
		call("range-compacted-else", "KV/Txn", txn(nil, ops(opPut(put("tc", "2"))), ops(opRange(at(rng("k", "l"), 9))))),
		call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}),
		watchOnce("events", wreq("\x00", "\x00", 13, prev), 300))
	// With old rows below the compaction, what HashKV skips depends on what each
	// key is at that revision; a key deleted and put again in one is the odd one.
	gone := txn(nil, ops(opTxn(txn(nil, ops(opDel(del("\x00", "\x00"))), nil)), opPut(put("k05", "only"))), nil)
	steps = append(steps, seedKV()[1:]...)
	steps = append(steps,
		call("compact-in-the-middle", "KV/Compact", compactTo(60)),
		call("before", "Maintenance/HashKV", &pb.HashKVRequest{}),
		call("delete-all-then-put", "KV/Txn", gone),
		call("after", "Maintenance/HashKV", &pb.HashKVRequest{}),
		call("delete-all", "KV/DeleteRange", del("\x00", "\x00")),
		call("empty", "Maintenance/HashKV", &pb.HashKVRequest{}),
		call("put", "KV/Put", put("k", "again")),
		call("one", "Maintenance/HashKV", &pb.HashKVRequest{}))
	runSteps(t, p, steps)
}

// TestTableTxnLimit asks with another --max-txn-ops.
func TestTableTxnLimit(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--max-txn-ops=3")
	var steps []step
	for n := 1; n <= 5; n++ {
		steps = append(steps,
			call(fmt.Sprintf("ops-%d", n), "KV/Txn", txn(nil, repeat(n, "o"), nil)),
			call(fmt.Sprintf("nested-%d", n), "KV/Txn", txn(nil, ops(opTxn(txn(nil, repeat(n, "o"), nil))), nil)))
	}
	runSteps(t, p, steps)
}
