package interop

// The table: protobuf that Go's decoder takes and others may not, and the
// other way round. The same bytes go to both sides.

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

func field(n protowire.Number, v string) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), []byte(v))
}

func varint(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// inField puts a message into a field of another.
func inField(n protowire.Number, parts ...[]byte) []byte { return field(n, string(join(parts...))) }

// odds are the values of a field in wire types that it may not have.
func odds(n protowire.Number) map[string][]byte {
	tag := func(t protowire.Type) []byte { return protowire.AppendTag(nil, n, t) }
	return map[string][]byte{
		"varint":  varint(n, 5),
		"fixed64": protowire.AppendFixed64(tag(protowire.Fixed64Type), 7),
		"fixed32": protowire.AppendFixed32(tag(protowire.Fixed32Type), 7),
		"bytes":   field(n, "text"),
		"group":   join(tag(protowire.StartGroupType), field(1, "x"), varint(2, 1), tag(protowire.EndGroupType)),
	}
}

// nested puts a transaction into n others, with or without a field of a wrong
// wire type in each. It is built backwards, so that depth costs no time.
func nested(n int, inner []byte, odd bool) []byte {
	all := slices.Clone(inner)
	slices.Reverse(all)
	for range n {
		for _, number := range []protowire.Number{4, 2} {
			head := protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.BytesType), uint64(len(all)))
			slices.Reverse(head)
			all = append(all, head...)
		}
		if odd {
			all = append(all, 5, 1<<3)
		}
	}
	slices.Reverse(all)
	return all
}

// groups are n groups within one another in a field that nobody knows.
func groups(n int) []byte {
	open := protowire.AppendTag(nil, 15, protowire.StartGroupType)
	end := protowire.AppendTag(nil, 15, protowire.EndGroupType)
	return append(slices.Repeat(open, n), slices.Repeat(end, n)...)
}

// rawFirst sends the bytes as the one message of a stream that is then closed
// from our side, and writes down the first answer.
func rawFirst(name, path string, body []byte) step {
	return step{name + path, func(s *Side) string {
		ctx, cancel := context.WithCancel(timeout())
		defer cancel()
		c, err := s.Conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, path, grpc.ForceCodec(rawCodec{}))
		if err != nil {
			return errText(err)
		}
		c.SendMsg(&body)
		c.CloseSend()
		var reply []byte
		if err := c.RecvMsg(&reply); err != nil {
			return errText(err)
		}
		return fmt.Sprintf("%x", reply)
	}}
}

// wrongTypes gives every kind of request fields of a wrong wire type.
func wrongTypes() []step {
	var steps []step
	add := func(name, method string, body ...[]byte) {
		steps = append(steps, rawStep(name, services+method, join(body...)))
	}
	for name, odd := range odds(1) {
		if name == "bytes" {
			continue
		}
		for _, m := range []string{"KV/Range", "KV/Put", "KV/DeleteRange"} {
			add("wrong-wire-type-"+name, m, odd)
			add("wrong-wire-type-and-key-"+name, m, odd, field(1, "odd-"+name))
			add("key-and-wrong-wire-type-"+name, m, field(1, "odd-"+name), odd)
			add("key-around-wrong-wire-type-"+name, m, field(1, "gone"), odd, field(1, "around-"+name))
		}
		add("wrong-wire-type-"+name, "KV/Txn", odd)
		add("in-compare-"+name, "KV/Txn", inField(1, odd, field(3, "odd-"+name), varint(4, 0)), inField(2, inField(2, field(1, "then"))))
		add("in-op-"+name, "KV/Txn", inField(2, odd, inField(2, odd, field(1, "in-op-"+name), field(2, "v"), odd)))
		add("no-key-in-op-"+name, "KV/Txn", inField(2, inField(2, odd)))
		add("for-an-op-"+name, "KV/Txn", odds(2)[name], inField(2, odds(2)[name]))
		add("wrong-wire-type-"+name, "Cluster/MemberAdd", odd)
		add("wrong-wire-type-"+name, "Health/Check", odd)
		steps = append(steps, rawStep("wrong-wire-type-"+name, "/grpc.health.v1.Health/Check", odd))
		steps = append(steps, rawFirst("wrong-wire-type-"+name, services+"Watch/Watch", join(odd, inField(1, odd, field(1, "k")))))
	}
	for name, odd := range odds(3) {
		if name == "varint" {
			continue
		}
		add("lease-"+name, "KV/Put", field(1, "lease-"+name), odd)
		add("limit-"+name, "KV/Range", field(1, "a"), field(2, "z"), odd)
	}
	for name, odd := range odds(1) {
		if name == "varint" {
			continue
		}
		for _, m := range []string{"Lease/LeaseRevoke", "Lease/LeaseTimeToLive", "Maintenance/Alarm", "Maintenance/HashKV", "Maintenance/MoveLeader"} {
			add("wrong-wire-type-"+name, m, odd)
		}
		add("wrong-wire-type-"+name, "Lease/LeaseGrant", odd, varint(2, 77))
		add("future-and-wrong-wire-type-"+name, "KV/Compact", varint(1, 1<<40), odd)
		add("ttl-and-wrong-wire-type-"+name, "Lease/LeaseGrant", varint(1, 900), odd, varint(2, uint64(100+len(odd))))
		steps = append(steps, rawFirst("wrong-wire-type-"+name, services+"Lease/LeaseKeepAlive", odd))
	}
	slices.SortFunc(steps, func(a, b step) int { return strings.Compare(a.name, b.name) })
	return steps
}

// depths nests transactions and groups up to and beyond what Go takes.
func depths() []step {
	var steps []step
	put := inField(2, inField(2, field(1, "deep"), field(2, "v")))
	for _, n := range []int{10, 48, 49, 50, 51, 60, 98, 99, 100, 101, 125, 126, 127, 128, 129, 130, 1000, 4997, 4998, 4999, 5000, 100_000} {
		name := fmt.Sprintf("too-deep-%d", n)
		steps = append(steps,
			rawStep(name+"-empty", services+"KV/Txn", nested(n, nil, false)),
			rawStep(name+"-put", services+"KV/Txn", nested(n, put, false)),
			rawStep(name+"-odd", services+"KV/Txn", nested(n, put, true)),
			rawStep(name+"-broken", services+"KV/Txn", nested(n, []byte{0x0f}, false)))
	}
	for _, n := range []int{1, 90, 99, 100, 101, 5000, 10_000, 10_001, 10_002, 500_000} {
		name := fmt.Sprintf("groups-%d", n)
		steps = append(steps,
			rawStep(name, services+"KV/Put", join(field(1, "groups"), groups(n))),
			rawStep(name, services+"KV/Txn", join(groups(n), put)),
			rawStep(name+"-open", services+"KV/Range", join(field(1, "groups"), groups(n)[:n])))
	}
	return steps
}

// values are numbers, texts and lists in all the forms that they may take.
func values() []step {
	key := field(1, "k")
	var steps []step
	add := func(name, method string, body ...[]byte) {
		steps = append(steps, rawStep(name, services+method, join(body...)))
	}
	add("field-number-largest", "KV/Put", key, varint(1<<29-1, 1))
	add("field-number-too-large", "KV/Put", key, []byte{0x80, 0x80, 0x80, 0x80, 0x10, 0})
	add("field-number-huge", "KV/Put", key, []byte{0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0})
	add("field-number-large-in-group", "KV/Put", key, []byte{0x7b, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0x7c})
	add("field-number-larger-in-group", "KV/Put", key, []byte{0x7b, 0x80, 0x80, 0x80, 0x80, 0x40, 0, 0x7c})
	add("field-zero-varint", "KV/Put", key, []byte{0x00, 0x01})
	add("field-zero-in-group", "KV/Put", key, []byte{0x7b, 0x00, 0x01, 0x7c})
	add("group-of-another-end", "KV/Put", key, []byte{0x7b, 0x74})
	add("group-with-short-bytes", "KV/Put", key, []byte{0x7b, 0x0a, 0x05, 'a', 0x7c})
	add("overlong-key", "KV/Put", []byte{0x8a, 0x80, 0x00, 1, 'k'})
	add("overlong-length", "KV/Put", []byte{0x0a, 0x81, 0x80, 0x00, 'k'})
	add("overlong-overflow", "KV/Range", key, []byte{0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02})
	add("eleven-bytes", "KV/Range", key, []byte{0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00})
	add("length-negative", "KV/Range", []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	add("length-beyond-inner", "KV/Txn", []byte{0x12, 0x04, 0x12, 0x03, 0x0a, 0x02, 'a', 'b'})
	add("trailing-key", "KV/Put", key, []byte{0x12})
	add("trailing-byte", "KV/Put", key, []byte{0xff})
	add("trailing-zero", "KV/Put", key, []byte{0})
	add("fixed64-short", "KV/Put", key, []byte{0x19, 1, 2, 3})
	add("fixed32-short", "KV/Put", key, []byte{0x1d, 1, 2, 3})
	add("field-twice", "KV/Range", key, varint(3, 7), varint(3, 1), varint(8, 1), varint(8, 0))
	add("op-twice", "KV/Txn", inField(2, inField(4, inField(2, inField(2, field(1, "x1")))), inField(4, inField(2, inField(2, field(1, "x2"))))))
	add("op-of-two-kinds", "KV/Txn", inField(2, inField(2, field(1, "y1")), inField(1, field(1, "y2")), inField(2, field(2, "kept?"))))
	add("union-twice", "KV/Txn", inField(1, field(3, "k"), varint(4, 1), varint(5, 2)))
	for _, v := range []uint64{1, 2, 3, 4, 5, 1 << 31, 1 << 32, 1<<32 + 1, math.MaxUint64, math.MaxInt64} {
		add(fmt.Sprintf("order-%d", v), "KV/Range", key, varint(5, v))
		add(fmt.Sprintf("target-%d", v), "KV/Range", key, varint(6, v))
		add(fmt.Sprintf("compare-result-%d", v), "KV/Txn", inField(1, varint(1, v), field(3, "k")))
		add(fmt.Sprintf("compare-target-%d", v), "KV/Txn", inField(1, varint(2, v), field(3, "k")))
		add(fmt.Sprintf("bool-%d", v), "KV/Range", key, varint(9, v))
		add(fmt.Sprintf("limit-%d", v), "KV/Range", key, field(2, "z"), varint(3, v))
		add(fmt.Sprintf("lease-%d", v), "KV/Put", key, varint(3, v))
		if v != 1 && v != 1<<32+1 && v != 2 {
			// Those would raise an alarm, and a real etcd falls over others.
			add(fmt.Sprintf("alarm-of-%d", v), "Maintenance/Alarm", varint(3, v))
		}
	}
	for _, text := range []string{"\xff", "a\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "http://ok:1\xfe"} {
		add(fmt.Sprintf("utf8-%x", text), "Cluster/MemberAdd", field(1, text))
		add(fmt.Sprintf("utf8-%x", text), "Cluster/MemberUpdate", varint(1, 9), field(2, text))
		add(fmt.Sprintf("utf8-%x", text), "Maintenance/Downgrade", field(2, text))
		add(fmt.Sprintf("utf8-after-odd-%x", text), "Maintenance/Downgrade", field(1, "odd"), field(2, text))
		add(fmt.Sprintf("utf8-before-broken-%x", text), "Maintenance/Downgrade", field(2, text), []byte{0x0f})
		add(fmt.Sprintf("broken-before-utf8-%x", text), "Maintenance/Downgrade", []byte{0x0f}, field(2, text))
		add(fmt.Sprintf("bytes-%x", text), "KV/Put", field(1, "utf8-"+text), field(2, text))
		steps = append(steps, rawStep(fmt.Sprintf("utf8-%x", text), "/grpc.health.v1.Health/Check", field(1, text)))
	}
	return append(steps, filterForms()...)
}

// filterForms are the forms of the one list of numbers that a client sends.
func filterForms() []step {
	var steps []step
	for name, filters := range map[string][]byte{
		"none": nil, "packed": field(5, "\x00\x01"), "one-by-one": join(varint(5, 0), varint(5, 1)), "mixed": join(field(5, "\x01"), varint(5, 0), field(5, "")),
		"packed-short": field(5, "\x01\x80"), "packed-unknown": field(5, "\x09\x01"), "negative": varint(5, math.MaxUint64), "fixed32": odds(5)["fixed32"], "group": odds(5)["group"],
		"packed-overflow": field(5, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
	} {
		steps = append(steps, rawFirst("filters-"+name, services+"Watch/Watch", inField(1, field(1, "k"), filters)))
	}
	slices.SortFunc(steps, func(a, b step) int { return strings.Compare(a.name, b.name) })
	return steps
}

// TestTableWire asks both sides, lets etch replay its own log, and then lets
// each read what the other has written down.
func TestTableWire(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	all := func(s *Side) string {
		return s.Text("KV/Range", rng("\x00", "\x00")) + s.Text("Maintenance/HashKV", &pb.HashKVRequest{})
	}
	steps := slices.Concat(wrongTypes(), depths(), values())
	runSteps(t, p, append(steps, step{"all", all}))
	if t.Failed() {
		return
	}
	same := func(s *Side, before, who string) {
		t.Helper()
		s.Conn = dial(t, s.Server)
		// The term grows with every start.
		if after := all(s); cutTerm(after) != cutTerm(before) {
			t.Errorf("%s has something else\nbefore %s\nnow    %s", who, clip(before, after), clip(after, before))
		}
	}
	before := all(p.B)
	p.B.Restart(t, syscall.SIGKILL)
	same(p.B, before, "etch on its own log")
	p.A.Stop(t, syscall.SIGKILL)
	p.B.Stop(t, syscall.SIGKILL)
	p.A.Dir, p.B.Dir = p.B.Dir, p.A.Dir
	p.A.Start(t)
	p.B.Start(t)
	same(p.A, before, "etcd on etch's log")
	same(p.B, before, "etch on etcd's log")
}

func cutTerm(s string) string {
	parts := strings.Split(s, `"raft_term":"`)
	for i := range parts[1:] {
		_, parts[i+1], _ = strings.Cut(parts[i+1], `"`)
	}
	return strings.Join(parts, "")
}
